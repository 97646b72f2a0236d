//! What must not come in.

use std::{collections::HashMap, time::Duration};

use buildr_manifest::{Cause, Event, EventKind, Outcome, StageState, Trigger};
use jiff::Timestamp;

use crate::{
    build::{Attempt, Build, BuildEvent, BuildSpec, Job, Source, Stage},
    convert::{
        Field, Invalid, Message, build_state_from_pb, duration_from_pb, duration_to_pb, timestamp_from_pb,
    },
    limits::{MAX_LABELS, MAX_REPOSITORY, MAX_STAGES, MAX_TEXT, MAX_VALUE, MAX_VARIABLES},
    pb,
};

const FIELD: fn() -> Field = || Message("M").field("f");

/// The error, which must name this message and field.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Invalid>, at: &str) {
    let error = result.expect_err(at).to_string();
    assert!(error.starts_with(&format!("{at} ")), "`{error}` is not about {at}");
    assert!(error.len() < 1200, "an error of {} bytes", error.len());
}

fn source() -> pb::Source {
    pb::Source { repository: "https://example.org/r.git".into(), commit: String::new(), r#ref: None }
}

fn spec() -> pb::BuildSpec {
    pb::BuildSpec {
        source: Some(source()),
        trigger: pb::Trigger::Manual.into(),
        manifest_path: String::new(),
        variables: Vec::new(),
        labels: HashMap::new(),
        priority: 0,
        cron: String::new(),
    }
}

fn with_variable(name: &str, value: &str) -> pb::BuildSpec {
    pb::BuildSpec { variables: vec![pb::Variable { name: name.into(), value: value.into() }], ..spec() }
}

fn stage() -> pb::Stage {
    pb::Stage { name: "test".into(), ..pb::Stage::default() }
}

fn job() -> pb::Job {
    pb::Job { index: 1, state: pb::BuildState::Queued.into(), ..pb::Job::default() }
}

fn build() -> pb::Build {
    pb::Build {
        number: 1,
        spec: Some(spec()),
        state: pb::BuildState::Queued.into(),
        submitted_at: Some(prost_types::Timestamp::default()),
        ..pb::Build::default()
    }
}

fn passed() -> pb::Outcome {
    Outcome::Passed.into()
}

#[test]
fn times_out_of_range_are_refused() {
    for (seconds, nanos) in
        [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0), (253_402_300_800, 0), (0, i32::MIN)]
    {
        refused(timestamp_from_pb(FIELD(), Some(prost_types::Timestamp { seconds, nanos })), "M.f");
    }
    refused(timestamp_from_pb(FIELD(), None), "M.f");
}

#[test]
fn durations_out_of_range_are_refused() {
    for (seconds, nanos) in
        [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0), (315_576_000_000, 1), (315_576_000_001, 0)]
    {
        refused(duration_from_pb(FIELD(), Some(prost_types::Duration { seconds, nanos })), "M.f");
    }
    refused(duration_from_pb(FIELD(), None), "M.f");
}

#[test]
fn the_longest_duration_goes_out_as_the_longest_that_comes_in() {
    let longest = duration_from_pb(FIELD(), Some(duration_to_pb(Duration::MAX)));
    assert_eq!(longest, Ok(Duration::from_secs(315_576_000_000)));
}

#[test]
fn a_time_before_1970_keeps_its_nanoseconds() {
    let at = Timestamp::from_nanosecond(-1).unwrap();
    let message = super::super::timestamp_to_pb(at);
    assert_eq!((message.seconds, message.nanos), (-1, 999_999_999));
    assert_eq!(timestamp_from_pb(FIELD(), Some(message)), Ok(at));
}

#[test]
fn a_source_must_be_complete_and_short() {
    let long = "x".repeat(MAX_REPOSITORY + 1);
    let branch = |name: &str| Some(pb::source::Ref::Branch(name.into()));
    let tag = |name: &str| Some(pb::source::Ref::Tag(name.into()));
    for (at, value) in [
        ("Source.repository", pb::Source { repository: String::new(), ..source() }),
        ("Source.repository", pb::Source { repository: long, ..source() }),
        ("Source.repository", pb::Source { repository: "https://a\nb".into(), ..source() }),
        ("Source.commit", pb::Source { commit: "abc".into(), ..source() }),
        ("Source.commit", pb::Source { commit: "g".repeat(40), ..source() }),
        ("Source.commit", pb::Source { commit: "--upload-pack=x".into(), ..source() }),
        ("Source.branch", pb::Source { r#ref: branch(""), ..source() }),
        ("Source.branch", pb::Source { r#ref: branch("a\0b"), ..source() }),
        ("Source.tag", pb::Source { r#ref: tag(&"t".repeat(2000)), ..source() }),
    ] {
        refused(Source::try_from(value), at);
    }
}

#[test]
fn a_commit_id_comes_in_as_lower_case() {
    let source = Source::try_from(pb::Source { commit: "AB".repeat(20), ..source() }).unwrap();
    assert_eq!(source.commit, Some("ab".repeat(20)));
}

#[test]
fn a_spec_must_be_what_a_submitter_may_ask_for() {
    let many = vec![pb::Variable { name: "A".into(), value: String::new() }; MAX_VARIABLES + 1];
    let labels = (0..=MAX_LABELS).map(|n| (n.to_string(), String::new())).collect();
    let label = |name: &str, value: &str| HashMap::from([(name.to_owned(), value.to_owned())]);
    for (at, value) in [
        ("BuildSpec.source", pb::BuildSpec { source: None, ..spec() }),
        ("BuildSpec.trigger", pb::BuildSpec { trigger: 0, ..spec() }),
        ("BuildSpec.trigger", pb::BuildSpec { trigger: 99, ..spec() }),
        ("BuildSpec.trigger", pb::BuildSpec { trigger: pb::Trigger::Local.into(), ..spec() }),
        ("BuildSpec.manifest_path", pb::BuildSpec { manifest_path: "/etc/passwd".into(), ..spec() }),
        ("BuildSpec.manifest_path", pb::BuildSpec { manifest_path: "a/../../b".into(), ..spec() }),
        ("BuildSpec.manifest_path", pb::BuildSpec { manifest_path: "a\0b".into(), ..spec() }),
        ("BuildSpec.manifest_path", pb::BuildSpec { manifest_path: "x".repeat(5000), ..spec() }),
        ("BuildSpec.variables", pb::BuildSpec { variables: many, ..spec() }),
        ("BuildSpec.labels", pb::BuildSpec { labels, ..spec() }),
        ("BuildSpec.labels", pb::BuildSpec { labels: label("", "x"), ..spec() }),
        ("BuildSpec.labels", pb::BuildSpec { labels: label("x", &"y".repeat(257)), ..spec() }),
        ("BuildSpec.labels", pb::BuildSpec { labels: label("x", "a\nb"), ..spec() }),
        ("Variable.name", with_variable("", "")),
        ("Variable.name", with_variable("1A", "")),
        ("Variable.name", with_variable("A=B", "")),
        ("Variable.name", with_variable(&"é".repeat(100_000), "")),
        ("Variable.name", with_variable("BUILDR", "")),
        ("Variable.name", with_variable("BUILDR_COMMIT", "")),
        ("Variable.value", with_variable("A", "a\0b")),
        ("Variable.value", with_variable("A", &"x".repeat(MAX_VALUE + 1))),
    ] {
        refused(BuildSpec::try_from(value), at);
    }
    for name in ["BUILDRX", "BUILD", "_", "buildr_x"] {
        assert!(BuildSpec::try_from(with_variable(name, "\n\t\u{7f}")).is_ok(), "{name}");
    }
}

#[test]
fn an_unset_trigger_is_none() {
    refused(Trigger::try_from(pb::Trigger::Unspecified), "BuildSpec.trigger");
}

#[test]
fn causes_must_be_possible() {
    use pb::cause::Cause as C;
    for (at, cause) in [
        ("Cause.cause", None),
        ("Cause.exit_code", Some(C::ExitCode(0))),
        ("Cause.exit_code", Some(C::ExitCode(256))),
        ("Cause.exit_code", Some(C::ExitCode(-1))),
        ("Cause.signal", Some(C::Signal(0))),
        ("Cause.signal", Some(C::Signal(65))),
        ("Cause.container_died", Some(C::ContainerDied(false))),
    ] {
        refused(Cause::try_from(pb::Cause { cause }), at);
    }
}

#[test]
fn outcomes_must_be_complete() {
    use pb::outcome::{Expired, Failed, Fault, Oom, Outcome as O, TimedOut};
    let failed = |stage: &str, cause| O::Failed(Failed { stage: stage.into(), step: None, cause });
    for (at, outcome) in [
        ("Outcome.outcome", None),
        ("Outcome.Failed.stage", Some(failed("", Some(Cause::ContainerDied.into())))),
        ("Outcome.Failed.stage", Some(failed("../x", Some(Cause::ContainerDied.into())))),
        ("Outcome.Failed.cause", Some(failed("test", None))),
        ("Outcome.Oom.stage", Some(O::Oom(Oom { stage: "a\nb".into(), ..Oom::default() }))),
        ("Outcome.TimedOut.limit", Some(O::TimedOut(TimedOut { stage: String::new(), limit: None }))),
        ("Outcome.Expired.limit", Some(O::Expired(Expired { limit: None }))),
        ("Outcome.Fault.message", Some(O::Internal(Fault { message: "x".repeat(MAX_TEXT + 1) }))),
    ] {
        refused(Outcome::try_from(pb::Outcome { outcome }), at);
    }
    refused(StageState::try_from(pb::StageState { state: None }), "StageState.state");
}

#[test]
fn a_long_message_is_clipped_at_a_character_and_comes_in() {
    let message = "é".repeat(MAX_TEXT);
    let event = EventKind::Warning { message };
    let event = pb::JobEvent::from(Event { at: Timestamp::UNIX_EPOCH, kind: event });
    let EventKind::Warning { message } = Event::try_from(event).unwrap().kind else {
        panic!("another event")
    };
    assert!((MAX_TEXT - 8..=MAX_TEXT).contains(&message.len()), "{}", message.len());
    assert!(message.ends_with("é…"));
}

#[test]
fn the_name_of_an_image_that_is_too_long_is_clipped_on_its_way_out() {
    let image = || "x".repeat(100_000);
    for kind in [
        EventKind::Planned { image: image(), stages: Vec::new(), services: Vec::new() },
        EventKind::PullProgress { image: image(), current: 1, total: 2 },
        EventKind::ContainerReady {
            stage: None,
            image: image(),
            image_id: "sha256:0".into(),
            pull: Duration::ZERO,
            start: Duration::ZERO,
        },
    ] {
        let event = pb::JobEvent::from(Event { at: Timestamp::UNIX_EPOCH, kind });
        assert!(Event::try_from(event).is_ok());
    }
}

#[test]
fn events_must_be_complete() {
    use pb::job_event::{Event as E, JobFinished, Planned, SourceResolved, StageFinished, StageStarted};
    let at = Some(prost_types::Timestamp::default());
    refused(Event::try_from(pb::JobEvent { at: None, event: None }), "JobEvent.at");
    let many = vec!["s".to_owned(); MAX_STAGES + 1];
    for (field, event) in [
        ("JobEvent.event", None),
        ("JobEvent.SourceResolved.commit", {
            Some(E::SourceResolved(SourceResolved { commit: "x".into(), ..SourceResolved::default() }))
        }),
        (
            "JobEvent.Planned.stages",
            Some(E::Planned(Planned { image: "i".into(), stages: many, services: Vec::new() })),
        ),
        ("JobEvent.Planned.image", Some(E::Planned(Planned::default()))),
        ("JobEvent.StageStarted.stage", Some(E::StageStarted(StageStarted { stage: "/".into() }))),
        ("JobEvent.StageFinished.state", {
            Some(E::StageFinished(StageFinished { stage: "s".into(), ..StageFinished::default() }))
        }),
        ("JobEvent.JobFinished.outcome", Some(E::JobFinished(JobFinished::default()))),
    ] {
        refused(Event::try_from(pb::JobEvent { at, event }), field);
    }
}

#[test]
fn a_state_and_its_outcome_must_fit() {
    let state = |state: pb::BuildState, outcome| build_state_from_pb(Message("Job"), state.into(), outcome);
    refused(state(pb::BuildState::Unspecified, None), "Job.state");
    refused(state(pb::BuildState::Queued, Some(passed())), "Job.outcome");
    refused(state(pb::BuildState::Running, Some(passed())), "Job.outcome");
    refused(state(pb::BuildState::Finished, None), "Job.outcome");
    refused(build_state_from_pb(Message("Job"), 77, None), "Job.state");
}

#[test]
fn builds_jobs_and_stages_must_be_complete() {
    refused(Build::try_from(pb::Build { number: 0, ..build() }), "Build.number");
    refused(Build::try_from(pb::Build { spec: None, ..build() }), "Build.spec");
    refused(Build::try_from(pb::Build { submitted_at: None, ..build() }), "Build.submitted_at");
    refused(Build::try_from(pb::Build { commit: "x".into(), ..build() }), "Build.commit");
    refused(Build::try_from(pb::Build { jobs: vec![job(); 1001], ..build() }), "Build.jobs");
    refused(Job::try_from(pb::Job { index: 0, ..job() }), "Job.index");
    refused(Job::try_from(pb::Job { stages: vec![stage(); 1001], ..job() }), "Job.stages");
    refused(Stage::try_from(pb::Stage { name: String::new(), ..stage() }), "Stage.name");
    let both = pb::Stage { running: true, state: Some(StageState::Passed.into()), ..stage() };
    refused(Stage::try_from(both), "Stage.running");
    refused(Attempt::try_from(pb::Attempt::default()), "Attempt.id");
    let agent = pb::Attempt { id: "0".repeat(26), agent: "X".into(), agent_name: String::new() };
    refused(Attempt::try_from(agent), "Attempt.agent");
}

#[test]
fn build_events_must_be_complete() {
    let event = || pb::BuildEvent {
        build: 1,
        at: Some(prost_types::Timestamp::default()),
        event: Some(pb::build_event::Event::Queued(pb::build_event::Queued {})),
        ..pb::BuildEvent::default()
    };
    assert!(BuildEvent::try_from(event()).is_ok());
    refused(BuildEvent::try_from(pb::BuildEvent { build: 0, ..event() }), "BuildEvent.build");
    refused(BuildEvent::try_from(pb::BuildEvent { at: None, ..event() }), "BuildEvent.at");
    refused(BuildEvent::try_from(pb::BuildEvent { event: None, ..event() }), "BuildEvent.event");
    let attempt = "not-an-id".to_owned();
    refused(BuildEvent::try_from(pb::BuildEvent { attempt, ..event() }), "BuildEvent.attempt");
    let finished = pb::build_event::Event::Finished(pb::build_event::Finished { outcome: None });
    let finished = pb::BuildEvent { event: Some(finished), ..event() };
    refused(BuildEvent::try_from(finished), "BuildEvent.Finished.outcome");
}
