//! Agents' messages as inputs. Nothing that comes in is trusted.

use buildr_manifest::Event;
use buildr_proto::{
    AgentId, AttemptId, Invalid, ProtocolRange,
    convert::{Field, Message},
    limits::{MAX_CHUNK, MAX_EVENTS, MAX_LOGS, MAX_NAME},
    pb,
};

use crate::{
    core::input::{Claim, Heartbeat, Hello, SessionId},
    logs::{Chunk, LogClaim, LogKey},
};

/// The most attempts that an agent may name, and slots that it may have.
const MAX_HELD: usize = 1000;

pub(super) fn claim(
    message: Message,
    attempt: &str,
    instance: &str,
    agent: AgentId,
) -> Result<Claim, Invalid> {
    let attempt = message.field("attempt").parse(attempt)?;
    let instance = message.field("instance").parse(instance)?;
    Ok(Claim { attempt, agent, instance })
}

pub(super) fn hello(
    hello: pb::Hello,
    agent: AgentId,
    session: SessionId,
) -> Result<(Hello, ProtocolRange), Invalid> {
    const HELLO: Message = Message("Hello");
    let pb::Hello { name, instance, protocol, version, slots, labels, held, draining } = hello;
    let protocol = HELLO.field("protocol").require(protocol)?.try_into()?;
    let (held, working) = held_attempts(HELLO.field("held"), held)?;
    let hello = Hello {
        agent,
        session,
        name: HELLO.field("name").line(name, MAX_NAME)?,
        instance: HELLO.field("instance").parse(&instance)?,
        version: HELLO.field("version").optional_line(version, MAX_NAME)?.unwrap_or_default(),
        slots: slots.min(MAX_HELD as u32),
        labels: HELLO.field("labels").labels(labels)?,
        held,
        working,
        draining,
    };
    Ok((hello, protocol))
}

pub(super) fn heartbeat(
    beat: pb::Heartbeat,
    agent: AgentId,
    session: SessionId,
) -> Result<(u64, Heartbeat), Invalid> {
    let pb::Heartbeat { seq, held, draining } = beat;
    let (held, working) = held_attempts(Message("Heartbeat").field("held"), held)?;
    Ok((seq, Heartbeat { agent, session, held, working, draining }))
}

/// All attempts that an agent names, and those of them that take a slot there.
fn held_attempts(
    field: Field,
    held: Vec<pb::HeldAttempt>,
) -> Result<(Vec<AttemptId>, Vec<AttemptId>), Invalid> {
    field.at_most(held.len(), MAX_HELD)?;
    let (mut all, mut working) = (Vec::with_capacity(held.len()), Vec::new());
    for held in held {
        // Offsets are the agent's own view; the log itself says how far it is.
        let pb::HeldAttempt { attempt, phase, logs: _ } = held;
        let attempt = Message("HeldAttempt").field("attempt").parse(&attempt)?;
        all.push(attempt);
        if phase != i32::from(pb::AttemptPhase::Reporting) {
            working.push(attempt);
        }
    }
    Ok((all, working))
}

pub(super) fn events(events: Vec<pb::JobEvent>) -> Result<Vec<Event>, Invalid> {
    Message("ReportEventsRequest").field("events").at_most(events.len(), MAX_EVENTS)?;
    events.into_iter().map(Event::try_from).collect()
}

pub(super) fn final_report(report: pb::FinalReport) -> Result<Vec<LogClaim>, Invalid> {
    const SUMMARY: Message = Message("LogSummary");
    let pb::FinalReport { logs } = report;
    Message("FinalReport").field("logs").at_most(logs.len(), MAX_LOGS)?;
    logs.into_iter()
        .map(|summary| {
            let pb::LogSummary { log, length, crc32c, missing } = summary;
            let log = SUMMARY.field("log").log(log)?;
            Ok(LogClaim { log, length, crc32c, missing })
        })
        .collect()
}

pub(super) fn chunk(chunk: pb::LogChunk, agent: AgentId) -> Result<(Claim, Chunk), Invalid> {
    const CHUNK: Message = Message("LogChunk");
    let pb::LogChunk { attempt, instance, log, offset, data, times } = chunk;
    let claim = claim(CHUNK, &attempt, &instance, agent)?;
    CHUNK.field("data").at_most(data.len(), MAX_CHUNK)?;
    CHUNK.field("times").at_most(times.len(), MAX_CHUNK)?;
    let key = LogKey { attempt: claim.attempt, log: CHUNK.field("log").log(log)? };
    let times = times.into_iter().map(TryFrom::try_from).collect::<Result<_, _>>()?;
    Ok((claim, Chunk { key, offset, data, times }))
}
