//! The session's messages, from and to domain types.

use std::{collections::BTreeMap, time::Duration};

use buildr_manifest::Pick;
use buildr_proto::{
    BuildId, Invalid, JobId, PROTOCOL,
    convert::{Message, duration_from_pb},
    pb::{self, agent_message::Message as Outgoing},
};

use crate::{
    attempt::{Attempt, Phase},
    fleet::Fleet,
    job::Offer,
};

/// Who an agent is.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Its name, for people.
    pub name: String,
    /// This process of it.
    pub instance: buildr_proto::InstanceId,
    /// The program's version, for people.
    pub version: &'static str,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What builds can ask for.
    pub labels: BTreeMap<String, String>,
}

/// The first message of a stream.
pub(super) fn hello(who: &Introduction, fleet: &Fleet) -> pb::AgentMessage {
    let Introduction { name, instance, version, slots, labels } = who.clone();
    outgoing(Outgoing::Hello(pb::Hello {
        name,
        instance: instance.to_string(),
        protocol: Some(PROTOCOL.into()),
        version: version.to_owned(),
        slots,
        labels: labels.into_iter().collect(),
        held: held(fleet),
        draining: fleet.load().borrow().draining,
    }))
}

/// A sign of life.
pub(super) fn heartbeat(seq: u64, fleet: &Fleet) -> pb::AgentMessage {
    let draining = fleet.load().borrow().draining;
    outgoing(Outgoing::Heartbeat(pb::Heartbeat { seq, held: held(fleet), draining }))
}

/// An offer that is not taken.
pub(super) fn decline(attempt: String, reason: String) -> pb::AgentMessage {
    outgoing(Outgoing::Decline(pb::Decline { attempt, reason }))
}

/// A job to take.
pub(super) fn offer(message: pb::Offer) -> Result<Offer, Invalid> {
    const OFFER: Message = Message("Offer");
    // Whether the agent has to end a job when the orchestrator is away too long is known with its plan.
    let pb::Offer { attempt, build, job, spec, valid_for, lease: _, timeout, axes, planned } = message;
    let build = BuildId::new(build).ok_or_else(|| OFFER.field("build").wrong("0 is no build's number"))?;
    let limit = timeout.map(|limit| duration_from_pb(OFFER.field("timeout"), Some(limit))).transpose()?;
    Ok(Offer {
        attempt: attempt.parse().map_err(|error| OFFER.field("attempt").wrong(error))?,
        job: JobId { build, index: job },
        spec: OFFER.field("spec").require(spec)?.try_into()?,
        pick: if planned { Pick::Values(OFFER.field("axes").variables(axes)?) } else { Pick::First },
        valid_for: duration_from_pb(OFFER.field("valid_for"), valid_for)?.min(Duration::from_secs(3600)),
        timeout: limit,
    })
}

fn held(fleet: &Fleet) -> Vec<pb::HeldAttempt> {
    fleet.held().iter().map(|attempt| held_attempt(attempt)).collect()
}

fn held_attempt(attempt: &Attempt) -> pb::HeldAttempt {
    let logs = attempt.progress().logs;
    pb::HeldAttempt {
        attempt: attempt.id.to_string(),
        phase: phase(attempt.phase()).into(),
        logs: logs
            .into_iter()
            .map(|log| pb::LogPosition { log: log.log.into(), offset: log.written })
            .collect(),
    }
}

fn phase(phase: Phase) -> pb::AttemptPhase {
    match phase {
        Phase::Offered => pb::AttemptPhase::Offered,
        Phase::Preparing => pb::AttemptPhase::Preparing,
        Phase::Running => pb::AttemptPhase::Running,
        Phase::Clearing | Phase::Reporting => pb::AttemptPhase::Reporting,
    }
}

fn outgoing(message: Outgoing) -> pb::AgentMessage {
    pb::AgentMessage { message: Some(message) }
}
