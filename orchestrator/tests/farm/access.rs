//! Who may call.

use buildr_orchestrator::config::TokenPolicy;
use buildr_proto::pb::{self, agent_service_client::AgentServiceClient};
use prost::Message;
use tonic::{
    Code,
    codegen::{Service, http},
};

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

/// The gRPC status of a call without a message; none where the server began to answer.
async fn bare_call(farm: &Farm, path: &str, token: Option<&str>) -> Option<i32> {
    let mut request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header(buildr_proto::AGENT_CREDENTIAL, CREDENTIAL);
    if let Some(token) = token {
        request = request.header(buildr_proto::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(tonic::body::Body::empty()).unwrap();
    let mut channel = farm.channel().await;
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = soon(path, channel.call(request)).await.unwrap();
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap().parse().unwrap())
}

#[tokio::test]
async fn every_call_of_the_protocol_wants_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let farm = Farm::start_with(TokenPolicy::OfFile(file)).await;
    let files = prost_types::FileDescriptorSet::decode(buildr_proto::DESCRIPTORS).unwrap().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
    let mut calls: Vec<String> = services
        .flat_map(|(package, service)| {
            service
                .method
                .iter()
                .map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect();
    assert!(calls.len() >= 11, "{calls:?}");
    calls.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    let denied = Some(i32::from(Code::Unauthenticated));
    for call in calls {
        for token in [None, Some(""), Some("wrong"), Some("a token that an operator has se")] {
            assert_eq!(bare_call(&farm, &call, token).await, denied, "{call} with {token:?}");
        }
        assert_ne!(bare_call(&farm, &call, Some(TOKEN)).await, denied, "{call}");
    }
}
