//! A build from its submit to its end.

use buildr_proto::pb::{self, build_event::Event, report_plan_response::Decision};
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn a_build_goes_from_submit_to_its_outcome() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    assert_eq!(build, 1);
    assert_eq!(get(&mut client, build).await.state(), pb::BuildState::Queued);

    let mut agent = farm.agent().await;
    let offer = agent.offer().await;
    assert_eq!((offer.build, offer.job), (1, 1));
    assert_eq!(offer.spec, Some(spec()));
    agent.accept(&offer.attempt).await.unwrap();
    assert_eq!(get(&mut client, build).await.state(), pb::BuildState::Running);
    agent.finish(&offer.attempt, b"hello\n").await;

    let found = get(&mut client, build).await;
    assert_eq!(found.state(), pb::BuildState::Finished);
    assert_eq!(outcome_of(&found), "passed");
    assert_eq!(found.commit, "a".repeat(40));
    assert!(found.started_at.is_some() && found.finished_at.is_some());
    let job = &found.jobs[0];
    assert_eq!(job.attempt.as_ref().unwrap().agent_name, "ant");
    assert_eq!(job.stages[0].log_bytes, 6);
    let (log, last) = read_log(&mut client, log_of(build, 0, false)).await;
    assert_eq!(log, b"hello\n");
    assert!(last.end && last.missing == 0);
    let list = client.list_builds(pb::ListBuildsRequest::default()).await.unwrap().into_inner().builds;
    assert_eq!(list.len(), 1);
    assert!(list[0].jobs.is_empty());
}

#[tokio::test]
async fn events_are_numbered_without_a_gap_and_end_with_the_outcome() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.finish(&attempt, b"x").await;

    let all = watch(&mut client, build, 0).await;
    let seqs: Vec<u64> = all.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=all.len() as u64).collect::<Vec<_>>());
    assert!(matches!(all[0].event, Some(Event::Queued(_))));
    assert!(matches!(all[1].event, Some(Event::AttemptAccepted(_))));
    assert!(matches!(all.last().unwrap().event, Some(Event::Finished(_))));
    for after in 0..=all.len() {
        assert_eq!(watch(&mut client, build, after as u64).await, all[after..], "after {after}");
    }
}

#[tokio::test]
async fn a_watcher_sees_what_happens_as_it_happens() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let request = pb::WatchBuildRequest { build, after: 0 };
    let mut live = client.watch_build(request).await.unwrap().into_inner();
    let first = soon("the first event", live.message()).await.unwrap().unwrap();
    assert!(matches!(first.event, Some(Event::Queued(_))));
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let second = soon("the second event", live.message()).await.unwrap().unwrap();
    assert!(matches!(second.event, Some(Event::AttemptAccepted(_))));
    agent.finish(&attempt, b"x").await;
    let mut ephemeral = 0;
    let mut stored = 2;
    while let Some(event) = soon("an event", live.message()).await.unwrap() {
        if event.seq == 0 {
            ephemeral += 1;
        } else {
            stored += 1;
            assert_eq!(event.seq, stored);
        }
    }
    assert_eq!(ephemeral, 1, "pull progress is passed on and not stored");
}

#[tokio::test]
async fn the_same_key_gives_the_same_build() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let first = submit(&mut client, "one").await;
    assert_eq!(submit(&mut client, "one").await, first);
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.finish(&attempt, b"x").await;
    assert_eq!(submit(&mut client, "one").await, first, "after its end too");
    assert_eq!(submit(&mut client, "two").await, first + 1);
}

#[tokio::test]
async fn many_submits_at_once_each_get_a_number_of_their_own() {
    let farm = Farm::start().await;
    let client = farm.client().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let mut client = client.clone();
        // Every second one repeats the key of the one before.
        tasks.spawn(async move { submit(&mut client, &format!("key {}", number / 2)).await });
    }
    let mut builds = soon("all submits", tasks.join_all()).await;
    builds.sort_unstable();
    builds.dedup();
    assert_eq!(builds, (1..=100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_no_build_is_refused_with_a_reason() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let mut check = async |change: fn(&mut pb::BuildSpec), word: &str| {
        let mut spec = spec();
        change(&mut spec);
        let error = submit_spec(&mut client, "key", spec).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(word), "{error}");
    };
    check(|spec| spec.source = None, "source").await;
    check(|spec| spec.source.as_mut().unwrap().repository = String::new(), "repository").await;
    check(|spec| spec.source.as_mut().unwrap().repository = "  ".into(), "repository").await;
    check(|spec| spec.source.as_mut().unwrap().repository = "--upload-pack=x".into(), "option").await;
    check(|spec| spec.source.as_mut().unwrap().repository = "a\nb".into(), "control").await;
    let dash = |spec: &mut pb::BuildSpec| {
        spec.source.as_mut().unwrap().r#ref = Some(pb::source::Ref::Branch("-b".into()));
    };
    check(dash, "branch").await;
    check(|spec| spec.trigger = 0, "trigger").await;
    let error = submit_spec(&mut client, "", spec()).await.unwrap_err();
    assert!(error.message().contains("idempotency_key"), "{error}");
    for build in [0, 1, u64::MAX] {
        let error = client.get_build(pb::GetBuildRequest { build }).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_list_is_newest_first_and_can_be_narrowed() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    for number in 1..=5 {
        let mut spec = spec();
        if number == 2 {
            spec.source.as_mut().unwrap().repository = "https://example.org/bee.git".into();
        }
        submit_spec(&mut client, &format!("key {number}"), spec).await.unwrap();
    }
    cancel(&mut client, 4).await;
    let mut list = async |request: pb::ListBuildsRequest| -> Vec<u64> {
        let builds = client.list_builds(request).await.unwrap().into_inner().builds;
        builds.iter().map(|build| build.number).collect()
    };
    let all = pb::ListBuildsRequest::default();
    assert_eq!(list(all.clone()).await, [5, 4, 3, 2, 1]);
    assert_eq!(list(pb::ListBuildsRequest { limit: 2, before: 4, ..all.clone() }).await, [3, 2]);
    let repository = "https://example.org/bee.git".to_owned();
    assert_eq!(list(pb::ListBuildsRequest { repository, ..all.clone() }).await, [2]);
    let state = pb::BuildState::Finished.into();
    assert_eq!(list(pb::ListBuildsRequest { state, ..all.clone() }).await, [4]);
    let state = pb::BuildState::Queued.into();
    assert_eq!(list(pb::ListBuildsRequest { state, ..all }).await, [5, 3, 2, 1]);
}

#[tokio::test]
async fn a_slot_is_given_again_only_when_it_is_free() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    submit(&mut client, "two").await;
    let mut agent = farm.agent().await;
    let first = agent.take().await;
    let desired = agent.heartbeat(std::slice::from_ref(&first)).await;
    assert_eq!(desired.len(), 1);
    assert_eq!(desired[0].state(), pb::desired::State::Run);
    assert_eq!(get(&mut client, 2).await.state(), pb::BuildState::Queued);
    agent.finish(&first, b"x").await;
    assert_eq!(agent.offer().await.build, 2);
}

#[tokio::test]
async fn a_build_for_other_labels_does_not_hold_up_the_next() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let mut other = spec();
    other.labels.insert("os".into(), "plan9".into());
    submit_spec(&mut client, "one", other).await.unwrap();
    submit(&mut client, "two").await;
    let mut agent = farm.agent().await;
    assert_eq!(agent.offer().await.build, 2);
}

#[tokio::test]
async fn a_plan_for_other_agents_hands_the_attempt_back() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let decision = agent.plan(&attempt, vec![planned(&[("gpu", "yes")])]).await.unwrap();
    assert_eq!(decision, Decision::HandBack);
    let error = agent.report(&attempt, 1, begin(), None).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    let found = get(&mut client, build).await;
    assert_eq!(found.jobs[0].state(), pb::BuildState::Queued);
    assert_eq!(found.commit, "a".repeat(40), "pinned");
}

#[tokio::test]
async fn the_jobs_of_a_matrix_are_queued_one_by_one_at_the_same_commit() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let job = |name: &str| pb::PlannedJob {
        name: name.to_owned(),
        axes: [("N".to_owned(), name.to_owned())].into(),
        ..planned(&[])
    };
    let jobs = vec![job("a"), job("b")];
    let decision = agent.plan(&attempt, jobs.clone()).await.unwrap();
    assert_eq!(decision, Decision::Go, "the one that was planned goes on");
    agent.finish(&attempt, b"x").await;
    let offer = agent.offer().await;
    assert_eq!((offer.build, offer.job, offer.planned), (build, 2, true));
    assert_eq!(offer.axes, jobs[1].axes);
    assert_eq!(offer.spec.unwrap().source.unwrap().commit, "a".repeat(40));
    agent.accept(&offer.attempt).await.unwrap();
    agent.finish(&offer.attempt, b"x").await;
    let found = get(&mut client, build).await;
    assert_eq!(found.jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(outcome_of(&found), "passed");
}

#[tokio::test]
async fn a_declined_offer_goes_to_another_agent() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    let mut first = farm.agent().await;
    let offer = first.offer().await;
    first.decline(&offer.attempt).await;
    let credential = "the credential of the second agent, 0123456789";
    let mut second = farm.agent_as(credential, buildr_proto::InstanceId::new(), &[]).await;
    let again = second.offer().await;
    assert_eq!(again.build, offer.build);
    assert_ne!(again.attempt, offer.attempt);
}
