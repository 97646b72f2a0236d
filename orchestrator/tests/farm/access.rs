//! Who may call.

use buildr_orchestrator::config::TokenPolicy;
use buildr_proto::pb::{self, agent_service_client::AgentServiceClient};
use tonic::Code;

use crate::harness::*;

const TOKEN: &str = "a token that an operator has set";

#[tokio::test]
async fn who_has_no_token_or_a_wrong_one_is_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let farm = Farm::start_with(TokenPolicy::OfFile(file)).await;
    for token in [None, Some("wrong".to_owned()), Some(format!("{TOKEN}x"))] {
        let mut client = farm.client_with(Metadata { token: token.clone(), credential: None }).await;
        let error = submit_spec(&mut client, "one", spec()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        assert!(error.message().contains("BUILDR_TOKEN"), "{error}");
        let credential = Some(CREDENTIAL.to_owned());
        let metadata = Metadata { token, credential };
        let mut agent = AgentServiceClient::with_interceptor(farm.channel().await, metadata);
        let error = agent.session(tokio_stream::empty()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
    }
    let token = Some(TOKEN.to_owned());
    let mut client = farm.client_with(Metadata { token, credential: None }).await;
    assert_eq!(submit(&mut client, "one").await, 1);
}

#[tokio::test]
async fn an_agent_without_a_credential_is_nobody() {
    let farm = Farm::start().await;
    for credential in [None, Some("short".to_owned())] {
        let metadata = Metadata { token: None, credential };
        let mut agent = AgentServiceClient::with_interceptor(farm.channel().await, metadata);
        let error = agent.accept_attempt(pb::AcceptAttemptRequest::default()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn the_data_folder_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let farm = Farm::start_with(TokenPolicy::OfFolder).await;
    let data = farm.config().data;
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let hash = data.join("token.sha256");
    assert_eq!(std::fs::metadata(hash).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn its_health_can_be_asked_without_a_token() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let farm = Farm::start_with(TokenPolicy::OfFolder).await;
    let mut client = HealthClient::new(farm.channel().await);
    let service = "buildr.v1.BuildService".to_owned();
    let answer = client.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status, 1);
}
