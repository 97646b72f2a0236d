//! What those see who watch the orchestrator, and that its documentation says the same.

use std::collections::BTreeSet;

use buildr_proto::pb;

use crate::harness::*;

/// The names in the first column of the tables of docs/operations.md that begin like this.
fn documented(prefix: &str) -> BTreeSet<String> {
    include_str!("../../../docs/operations.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(|name| name.split('{').next().unwrap_or(name).to_owned())
        .filter(|name| name.starts_with(prefix) && !name.starts_with("buildr_agent_"))
        .collect()
}

/// The names as they are scraped: a counter's ends in `_total`, an info's in `_info`.
fn scraped(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some(match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.to_owned(),
        })
    });
    names.collect()
}

#[tokio::test]
async fn a_build_is_seen_in_the_metrics_and_every_metric_is_documented() {
    let farm =
        Farm::start_gated(buildr_orchestrator::gate::Settings { submits: 1, ..Default::default() }).await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    let acks = agent.append(std::iter::once(agent.chunk(&attempt, "test", 0, b"hello")).collect()).await;
    assert_eq!(acks.last().unwrap().durable, 5);
    agent.report(&attempt, 6, end(5), Some(final_report(b"hello"))).await.unwrap();
    assert_eq!(outcome_of(&get(&mut client, build).await), "passed");
    client.get_build(pb::GetBuildRequest { build: 99 }).await.unwrap_err();
    let refused = async {
        while client.cancel_build(pb::CancelBuildRequest { build, by: String::new() }).await.is_ok() {}
    };
    soon("a limit", refused).await;

    let (status, text) = farm.watched("/metrics").await;
    assert_eq!(status, 200);
    for sample in [
        "buildr_builds_submitted_total 1",
        "buildr_builds_finished_total{outcome=\"passed\"} 1",
        "buildr_queue_wait_seconds_count 1",
        "buildr_dispatch_seconds_count 1",
        "buildr_log_bytes_total 5",
        "buildr_grpc_calls_total{method=\"BuildService/GetBuild\",code=\"not_found\"} 1",
        "buildr_grpc_calls_total{method=\"AgentService/AppendLog\",code=\"ok\"} 1",
        "buildr_grpc_calls_total{method=\"BuildService/CancelBuild\",code=\"resource_exhausted\"} 1",
    ] {
        assert!(text.lines().any(|line| line == sample), "no {sample} in\n{text}");
    }
    for label in ["repository", "branch", "build=", "attempt="] {
        assert!(!text.contains(&format!("{label}\"")), "{label} is a label: there is no end to them");
    }
    assert_eq!(scraped(&text), documented("buildr_"), "docs/operations.md has other names");
}

#[tokio::test]
async fn probes_say_whether_it_lives_and_is_ready() {
    let farm = Farm::start().await;
    assert_eq!(farm.watched("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(farm.watched("/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(farm.watched("/").await.0, 404);
}
