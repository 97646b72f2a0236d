//! One JSON object per line, for programs: events as they are, output as text where it is UTF-8
//! and as base64 where it is not.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use buildr_engine::job::{Item, Output};
use buildr_manifest::{Event, LogName, Outcome, ServiceName, StageName};
use buildr_proto::{
    BuildId,
    build::{BuildEvent, BuildEventKind, JobName},
};
use jiff::Timestamp;
use serde::Serialize;

use super::Renderer;
use crate::client::follow::Entry;

/// The renderer for programs. What is for people goes to `err`.
pub struct Json<O: Write, E: Write> {
    out: O,
    err: E,
    /// Up to three bytes of a character that the next piece ends.
    carried: BTreeMap<LogName, Vec<u8>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Event(&'a Event),
    Farm(FarmLine<'a>),
    Other(OtherLine<'a>),
}

#[derive(Serialize)]
struct FarmLine<'a> {
    at: Timestamp,
    seq: u64,
    build: BuildId,
    #[serde(flatten)]
    what: FarmEvent<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum FarmEvent<'a> {
    Queued,
    AttemptAccepted {
        agent: &'a str,
    },
    AttemptLost {
        reason: &'a str,
        requeued: bool,
    },
    CancelRequested {
        by: &'a str,
    },
    JobsPlanned {
        jobs: &'a [JobName],
    },
    HandedBack {
        job: u32,
        reason: &'a str,
    },
    JobRetried {
        job: u32,
        result: &'a Outcome,
        next: u32,
        tries: u32,
    },
    JobStopped {
        job: u32,
        reason: &'a str,
    },
    JobEnded {
        job: u32,
        result: &'a Outcome,
        allowed: bool,
    },
    CancelConfirmed {
        job: u32,
        took: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        containers_removed: Option<u32>,
    },
    AgentSilent {
        agent: &'a str,
        silent_for: f64,
        lost_in: f64,
    },
    AgentBack {
        agent: &'a str,
        silent_for: f64,
    },
    Finished {
        #[serde(flatten)]
        outcome: &'a Outcome,
    },
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum OtherLine<'a> {
    Output {
        #[serde(flatten)]
        owner: Owner<'a>,
        offset: u64,
        #[serde(flatten)]
        data: Data<'a>,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        times: &'a [(u64, Timestamp)],
    },
    LogIncomplete {
        #[serde(flatten)]
        owner: Owner<'a>,
        missing: u64,
    },
    ConnectionLost {
        why: &'a str,
    },
    ConnectionBack,
}

/// Whose log: `"stage": NAME` or `"service": NAME`.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Owner<'a> {
    Stage(&'a StageName),
    Service(&'a ServiceName),
}

impl<'a> From<&'a LogName> for Owner<'a> {
    fn from(log: &'a LogName) -> Self {
        match log {
            LogName::Stage(name) => Self::Stage(name),
            LogName::Service(name) => Self::Service(name),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Data<'a> {
    Text(&'a str),
    Base64(String),
}

impl<O: Write, E: Write> Json<O, E> {
    /// Writes the objects to `out`.
    pub fn new(out: O, err: E) -> Self {
        Self { out, err, carried: BTreeMap::new() }
    }

    fn line(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")
    }

    fn output(&mut self, output: &Output) -> io::Result<()> {
        let carried = self.carried.remove(&output.log).unwrap_or_default();
        let offset = output.offset - carried.len() as u64;
        let mut bytes = carried;
        bytes.extend_from_slice(&output.data);
        let cut = unfinished_character(&bytes);
        if cut < bytes.len() {
            self.carried.insert(output.log.clone(), bytes.split_off(cut));
        }
        self.data(&output.log, offset, &bytes, &output.times)
    }

    fn data(
        &mut self,
        log: &LogName,
        offset: u64,
        bytes: &[u8],
        times: &[(u64, Timestamp)],
    ) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let data = match str::from_utf8(bytes) {
            Ok(text) => Data::Text(text),
            Err(_) => Data::Base64(BASE64_STANDARD.encode(bytes)),
        };
        self.line(&Line::Other(OtherLine::Output { owner: log.into(), offset, data, times }))
    }

    /// Gives what was carried of a log that goes on no further.
    fn flush_carried(&mut self, log: &LogName, end: u64) -> io::Result<()> {
        let Some(carried) = self.carried.remove(log) else { return Ok(()) };
        self.data(log, end.saturating_sub(carried.len() as u64), &carried, &[])
    }
}

/// Where an unfinished character at the end of the bytes begins; their length where there is none.
fn unfinished_character(bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn farm_event(event: &BuildEvent) -> Option<FarmEvent<'_>> {
    Some(match &event.kind {
        BuildEventKind::Queued => FarmEvent::Queued,
        BuildEventKind::AttemptAccepted { agent_name } => FarmEvent::AttemptAccepted { agent: agent_name },
        BuildEventKind::AttemptLost { reason, requeued } => {
            FarmEvent::AttemptLost { reason, requeued: *requeued }
        }
        BuildEventKind::CancelRequested { by } => FarmEvent::CancelRequested { by },
        BuildEventKind::Planned { jobs } => FarmEvent::JobsPlanned { jobs },
        BuildEventKind::HandedBack { reason } => FarmEvent::HandedBack { job: event.job, reason },
        BuildEventKind::JobRetried { outcome, next, tries } => {
            FarmEvent::JobRetried { job: event.job, result: outcome, next: *next, tries: *tries }
        }
        BuildEventKind::JobStopped { reason } => FarmEvent::JobStopped { job: event.job, reason },
        BuildEventKind::JobEnded { outcome, allowed } => {
            FarmEvent::JobEnded { job: event.job, result: outcome, allowed: *allowed }
        }
        BuildEventKind::CancelConfirmed { took, containers_removed } => FarmEvent::CancelConfirmed {
            job: event.job,
            took: took.as_secs_f64(),
            containers_removed: *containers_removed,
        },
        BuildEventKind::AgentSilent { agent_name, silent_for, lost_in } => FarmEvent::AgentSilent {
            agent: agent_name,
            silent_for: silent_for.as_secs_f64(),
            lost_in: lost_in.as_secs_f64(),
        },
        BuildEventKind::AgentBack { agent_name, silent_for } => {
            FarmEvent::AgentBack { agent: agent_name, silent_for: silent_for.as_secs_f64() }
        }
        BuildEventKind::Finished(outcome) => FarmEvent::Finished { outcome },
        BuildEventKind::Job(_) => return None,
    })
}

impl<O: Write, E: Write> Renderer for Json<O, E> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Item(Item::Output(output)) => self.output(output),
            Entry::Item(Item::Event(event)) => {
                if let Some((stage, offset)) = event.kind.position() {
                    self.flush_carried(&stage.clone().into(), offset)?;
                }
                self.line(&Line::Event(event))
            }
            Entry::Farm(event) => match farm_event(event) {
                Some(what) => self.line(&Line::Farm(FarmLine {
                    at: event.at,
                    seq: event.seq,
                    build: event.build,
                    what,
                })),
                None => Ok(()),
            },
            Entry::LogIncomplete { log, missing } => {
                self.line(&Line::Other(OtherLine::LogIncomplete { owner: log.into(), missing: *missing }))
            }
            Entry::ConnectionLost { why } => self.line(&Line::Other(OtherLine::ConnectionLost { why })),
            Entry::ConnectionBack => self.line(&Line::Other(OtherLine::ConnectionBack)),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        self.settle()?;
        writeln!(self.err, "{text}")
    }
}
