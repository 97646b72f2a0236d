//! Domain → generated → bytes → generated → domain is the identity, for every type.

use std::{collections::BTreeMap, fmt::Debug, num::NonZeroU64, time::Duration};

use buildr_manifest::{
    Cause, Event, EventKind, Outcome, ServiceName, StageName, StageState, Trigger, Usage, VarName,
};
use jiff::Timestamp;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use ulid::Ulid;

use crate::{
    AgentId, AttemptId, BuildId,
    build::{
        Attempt, Build, BuildEvent, BuildEventKind, BuildSpec, BuildState, Job, JobName, Reference, Source,
        Stage, StageProgress,
    },
    convert::{Message, duration_from_pb, duration_to_pb, timestamp_from_pb, timestamp_to_pb},
    pb,
    times::JobTimes,
};

fn survives<D, P>(value: D)
where
    D: Clone + Debug + PartialEq + TryFrom<P, Error: Debug>,
    P: From<D> + prost::Message + Default,
{
    let bytes = P::from(value.clone()).encode_to_vec();
    let message = P::decode(&*bytes).expect("what was encoded decodes");
    assert_eq!(D::try_from(message).expect("what went out may come in"), value);
}

/// A text for people; never empty, as empty stands for none in some fields.
fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 \n\t\u{e9}\u{1f980}'\"$]{1,40}"
}

fn line() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9./:@_-]{1,40}"
}

fn commit() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-f]{40}", "[0-9a-f]{64}"]
}

fn stage_name() -> impl Strategy<Value = StageName> {
    "[a-z\u{e9}][a-z0-9 -]{0,20}[a-z0-9]".prop_map(|name| StageName::new(name).unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..315_576_000_000_u64, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.as_nanosecond()..=Timestamp::MAX.as_nanosecond())
        .prop_map(|nanosecond| Timestamp::from_nanosecond(nanosecond).unwrap())
}

fn attempt_id() -> impl Strategy<Value = AttemptId> {
    any::<u128>().prop_map(|id| AttemptId(Ulid(id)))
}

fn build_id() -> impl Strategy<Value = BuildId> {
    (1..=u64::MAX).prop_map(|number| BuildId(NonZeroU64::new(number).unwrap()))
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        (1..=255).prop_map(|code| Cause::Exit { code }),
        (1..=64).prop_map(|signal| Cause::Signal { signal }),
        any::<u64>().prop_map(|limit| Cause::LogLimit { limit }),
        Just(Cause::ContainerDied),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let failed = (stage_name(), option::of(any::<u32>()), cause());
    prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Skipped),
        failed.prop_map(|(stage, step, cause)| Outcome::Failed { stage, step, cause }),
        (stage_name(), option::of(any::<u64>()), option::of(any::<u64>()))
            .prop_map(|(stage, peak, limit)| Outcome::Oom { stage, peak, limit }),
        (option::of(stage_name()), duration()).prop_map(|(stage, limit)| Outcome::TimedOut { stage, limit }),
        text().prop_map(|by| Outcome::Canceled { by }),
        any::<u64>().prop_map(|by| Outcome::Superseded { by }),
        text().prop_map(|message| Outcome::ManifestError { message }),
        text().prop_map(|message| Outcome::SourceError { message }),
        text().prop_map(|message| Outcome::ImageError { message }),
        text().prop_map(|message| Outcome::ServiceError { message }),
        text().prop_map(|agent| Outcome::AgentLost { agent }),
        duration().prop_map(|limit| Outcome::Expired { limit }),
        text().prop_map(|message| Outcome::Internal { message }),
    ]
}

fn stage_state() -> impl Strategy<Value = StageState> {
    prop_oneof![
        Just(StageState::Passed),
        (option::of(any::<u32>()), cause()).prop_map(|(step, cause)| StageState::Failed { step, cause }),
        Just(StageState::Oom),
        Just(StageState::TimedOut),
        Just(StageState::Canceled),
        text().prop_map(|why| StageState::Skipped { why }),
        option::of(stage_name()).prop_map(|because| StageState::NotReached { because }),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    let maybe = || option::of(any::<u64>());
    (duration(), duration(), any::<u64>(), maybe(), maybe(), maybe()).prop_map(
        |(user_cpu, system_cpu, max_rss, peak_memory, network_received, network_sent)| Usage {
            user_cpu,
            system_cpu,
            max_rss,
            peak_memory,
            network_received,
            network_sent,
        },
    )
}

fn stage_finished() -> impl Strategy<Value = EventKind> {
    (stage_name(), stage_state(), any::<bool>(), any::<u64>(), duration(), usage()).prop_map(
        |(stage, state, allowed, log_bytes, duration, usage)| EventKind::StageFinished {
            stage,
            state,
            allowed,
            log_bytes,
            duration,
            usage,
        },
    )
}

fn stage_retried() -> impl Strategy<Value = EventKind> {
    (stage_name(), any::<u32>(), any::<u32>(), stage_state(), any::<u64>(), duration()).prop_map(
        |(stage, attempt, attempts, state, log_bytes, pause)| EventKind::StageRetried {
            stage,
            attempt,
            attempts,
            state,
            log_bytes,
            pause,
        },
    )
}

fn container_ready() -> impl Strategy<Value = EventKind> {
    (option::of(stage_name()), line(), line(), duration(), duration()).prop_map(
        |(stage, image, image_id, pull, start)| EventKind::ContainerReady {
            stage,
            image,
            image_id,
            pull,
            start,
        },
    )
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    "[a-z][a-z0-9_-]{0,62}".prop_map(|name| ServiceName::new(name).unwrap())
}

fn event_kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        Just(EventKind::JobStarted),
        (option::of(commit()), option::of(line()), option::of(line()))
            .prop_map(|(commit, branch, tag)| EventKind::SourceResolved { commit, branch, tag }),
        duration().prop_map(|took| EventKind::SourceReady { took }),
        (line(), vec(stage_name(), 0..5), vec(service_name(), 0..3))
            .prop_map(|(image, stages, services)| EventKind::Planned { image, stages, services }),
        text().prop_map(|message| EventKind::Warning { message }),
        (line(), any::<u64>(), any::<u64>()).prop_map(|(image, current, total)| EventKind::PullProgress {
            image,
            current,
            total
        }),
        container_ready(),
        (service_name(), line(), line(), duration()).prop_map(|(service, image, image_id, took)| {
            EventKind::ServiceReady { service, image, image_id, took }
        }),
        stage_retried(),
        stage_name().prop_map(|stage| EventKind::StageStarted { stage }),
        (stage_name(), any::<u32>(), text(), any::<u64>()).prop_map(|(stage, step, command, offset)| {
            EventKind::StepStarted { stage, step, command, offset }
        }),
        stage_finished(),
        (outcome(), duration(), any::<u32>()).prop_map(|(outcome, duration, containers_removed)| {
            EventKind::JobFinished { outcome, duration, containers_removed }
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (timestamp(), event_kind()).prop_map(|(at, kind)| Event { at, kind })
}

fn source() -> impl Strategy<Value = Source> {
    let reference = prop_oneof![
        Just(Reference::Default),
        line().prop_map(Reference::Branch),
        line().prop_map(Reference::Tag)
    ];
    (line(), reference, option::of(commit())).prop_map(|(repository, reference, commit)| Source {
        repository,
        reference,
        commit,
    })
}

fn spec() -> impl Strategy<Value = BuildSpec> {
    let trigger = prop_oneof![
        Just(Trigger::Manual),
        Just(Trigger::Push),
        Just(Trigger::Tag),
        Just(Trigger::PullRequest),
        Just(Trigger::Cron)
    ];
    let variable = ("[A-Z_][A-Za-z0-9_]{0,10}", "\\PC{0,20}")
        .prop_filter("buildr's own", |(name, _)| !name.starts_with("BUILDR"))
        .prop_map(|(name, value)| (VarName::new(name).unwrap(), value));
    let path = option::of("[a-z]{1,9}/[a-z]{1,9}\\.yml");
    let labels = btree_map(line(), "[a-z]{0,9}", 0..5);
    let cron = option::of(line());
    (source(), trigger, path, vec(variable, 0..5), labels, any::<i32>(), cron).prop_map(
        |(source, trigger, manifest_path, variables, labels, priority, cron)| BuildSpec {
            source,
            trigger,
            manifest_path,
            variables,
            labels,
            priority,
            cron,
        },
    )
}

fn build_state() -> impl Strategy<Value = BuildState> {
    prop_oneof![Just(BuildState::Queued), Just(BuildState::Running), outcome().prop_map(BuildState::Finished)]
}

fn attempt() -> impl Strategy<Value = Attempt> {
    (attempt_id(), any::<[u8; 32]>(), text()).prop_map(|(id, digest, agent_name)| Attempt {
        id,
        agent: AgentId::from_digest(&digest),
        agent_name,
    })
}

fn stage() -> impl Strategy<Value = Stage> {
    let progress = prop_oneof![
        Just(StageProgress::Waiting),
        Just(StageProgress::Running),
        stage_state().prop_map(StageProgress::Finished)
    ];
    let end = (option::of(text()), usage(), any::<bool>());
    (stage_name(), progress, duration(), any::<u64>(), any::<u64>(), end).prop_map(
        |(name, progress, duration, log_bytes, log_missing, (failed_command, usage, allowed))| Stage {
            name,
            progress,
            duration,
            log_bytes,
            log_missing,
            failed_command,
            usage,
            allowed,
        },
    )
}

fn job_times() -> impl Strategy<Value = JobTimes> {
    let time = || option::of(duration());
    (time(), time(), time(), time()).prop_map(|(source, pull, start, run)| JobTimes {
        source,
        pull,
        start,
        run,
    })
}

fn job() -> impl Strategy<Value = Job> {
    let stands = (build_state(), option::of(attempt()), vec(stage(), 0..4), job_times());
    let face = (option::of(line()), btree_map(line(), "[a-z]{0,9}", 0..3), any::<bool>());
    (1..=u32::MAX, stands, face).prop_map(
        |(index, (state, attempt, stages, times), (name, axes, allow_failure))| Job {
            index,
            state,
            attempt,
            stages,
            name,
            axes,
            allow_failure,
            times,
        },
    )
}

fn build() -> impl Strategy<Value = Build> {
    let people = (text(), option::of(text()));
    let times = (timestamp(), option::of(timestamp()), option::of(timestamp()));
    (build_id(), spec(), people, build_state(), times, option::of(commit()), vec(job(), 0..3)).prop_map(
        |(number, spec, people, state, times, commit, jobs)| Build {
            number,
            spec,
            submitted_by: people.0,
            state,
            submitted_at: times.0,
            started_at: times.1,
            finished_at: times.2,
            commit,
            cancel_requested_by: people.1,
            jobs,
        },
    )
}

fn build_event() -> impl Strategy<Value = BuildEvent> {
    let kind = prop_oneof![
        Just(BuildEventKind::Queued),
        text().prop_map(|agent_name| BuildEventKind::AttemptAccepted { agent_name }),
        (text(), any::<bool>())
            .prop_map(|(reason, requeued)| BuildEventKind::AttemptLost { reason, requeued }),
        text().prop_map(|by| BuildEventKind::CancelRequested { by }),
        vec((text(), any::<bool>()).prop_map(|(name, allow_failure)| JobName { name, allow_failure }), 0..4)
            .prop_map(|jobs| BuildEventKind::Planned { jobs }),
        text().prop_map(|reason| BuildEventKind::HandedBack { reason }),
        (outcome(), any::<u32>(), any::<u32>())
            .prop_map(|(outcome, next, tries)| BuildEventKind::JobRetried { outcome, next, tries }),
        text().prop_map(|reason| BuildEventKind::JobStopped { reason }),
        (outcome(), any::<bool>())
            .prop_map(|(outcome, allowed)| BuildEventKind::JobEnded { outcome, allowed }),
        (duration(), option::of(any::<u32>())).prop_map(|(took, containers_removed)| {
            BuildEventKind::CancelConfirmed { took, containers_removed }
        }),
        (text(), duration(), duration()).prop_map(|(agent_name, silent_for, lost_in)| {
            BuildEventKind::AgentSilent { agent_name, silent_for, lost_in }
        }),
        (text(), duration())
            .prop_map(|(agent_name, silent_for)| BuildEventKind::AgentBack { agent_name, silent_for }),
        event().prop_map(BuildEventKind::Job),
        outcome().prop_map(BuildEventKind::Finished),
    ];
    (any::<u64>(), timestamp(), build_id(), any::<u32>(), option::of(attempt_id()), kind)
        .prop_map(|(seq, at, build, job, attempt, kind)| BuildEvent { seq, at, build, job, attempt, kind })
}

proptest! {
    #[test]
    fn causes_survive(value in cause()) { survives::<_, pb::Cause>(value) }
    #[test]
    fn outcomes_survive(value in outcome()) { survives::<_, pb::Outcome>(value) }
    #[test]
    fn stage_states_survive(value in stage_state()) { survives::<_, pb::StageState>(value) }
    #[test]
    fn usages_survive(value in usage()) { survives::<_, pb::Usage>(value) }
    #[test]
    fn events_survive(value in event()) { survives::<_, pb::JobEvent>(value) }
    #[test]
    fn sources_survive(value in source()) { survives::<_, pb::Source>(value) }
    #[test]
    fn specs_survive(value in spec()) { survives::<_, pb::BuildSpec>(value) }
    #[test]
    fn attempts_survive(value in attempt()) { survives::<_, pb::Attempt>(value) }
    #[test]
    fn stages_survive(value in stage()) { survives::<_, pb::Stage>(value) }
    #[test]
    fn jobs_survive(value in job()) { survives::<_, pb::Job>(value) }
    #[test]
    fn builds_survive(value in build()) { survives::<_, pb::Build>(value) }
    #[test]
    fn build_events_survive(value in build_event()) { survives::<_, pb::BuildEvent>(value) }
    #[test]
    fn time_marks_survive(value in (any::<u64>(), timestamp())) { survives::<_, pb::TimeMark>(value) }

    #[test]
    fn times_survive(value in timestamp()) {
        let field = Message("M").field("f");
        assert_eq!(timestamp_from_pb(field, Some(timestamp_to_pb(value))), Ok(value));
    }

    #[test]
    fn durations_survive(value in duration()) {
        let field = Message("M").field("f");
        assert_eq!(duration_from_pb(field, Some(duration_to_pb(value))), Ok(value));
    }

    #[test]
    fn any_time_and_duration_is_taken_or_refused(seconds: i64, nanos: i32) {
        let field = Message("M").field("f");
        let _ = timestamp_from_pb(field, Some(prost_types::Timestamp { seconds, nanos }));
        let _ = duration_from_pb(field, Some(prost_types::Duration { seconds, nanos }));
    }
}

#[test]
fn every_trigger_survives() {
    for trigger in
        [Trigger::Local, Trigger::Manual, Trigger::Push, Trigger::Tag, Trigger::PullRequest, Trigger::Cron]
    {
        assert_eq!(Trigger::try_from(pb::Trigger::from(trigger)), Ok(trigger));
    }
}

#[test]
fn a_spec_that_asks_for_nothing_special_survives() {
    let source = Source { repository: "r".into(), reference: Reference::Default, commit: None };
    let (variables, labels) = (Vec::new(), BTreeMap::new());
    let spec = BuildSpec {
        source,
        trigger: Trigger::Manual,
        manifest_path: None,
        variables,
        labels,
        priority: 0,
        cron: None,
    };
    survives::<_, pb::BuildSpec>(spec);
}
