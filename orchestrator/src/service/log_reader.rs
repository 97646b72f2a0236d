//! The log of a stage or service from any offset, and on as it grows. A late reader sees everything by the
//! same path as a live one.

use buildr_manifest::LogName;
use buildr_proto::{
    AttemptId, BuildId, MAX_CHUNK,
    build::{Stage, StageProgress},
    pb::ReadLogResponse,
};
use bytes::Bytes;
use tokio::sync::broadcast;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Context, outgoing::Outgoing, stopping};
use crate::{
    error::Error,
    gate::Follower,
    hub::Notice,
    logs::{Chunk, LogKey, LogReader},
};

/// How many pieces may wait for a client to read them: each is up to 256 KiB.
const OUTGOING: usize = 2;

type Sender = Outgoing<ReadLogResponse>;

/// What is to be read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) build: BuildId,
    pub(super) job: u32,
    /// None: the current or last one, for which a reader that follows waits.
    pub(super) attempt: Option<AttemptId>,
    pub(super) log: LogName,
    pub(super) offset: u64,
    pub(super) follow: bool,
    pub(super) times: bool,
}

/// How far a log is.
struct Extent {
    /// Everything below this can be read.
    durable: u64,
    /// Set once nothing follows: how many bytes at the end never came.
    ended: Option<u64>,
}

/// Serves a reader in a task of its own.
pub(super) fn start(
    context: Context,
    follower: Follower,
    reading: Reading,
) -> ReceiverStream<Result<ReadLogResponse, Status>> {
    let (out, receiver) = Outgoing::new(follower, OUTGOING);
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            ended = read(&context, reading, &out) => if let Err(status) = ended {
                out.end(status).await;
            },
            () = context.stop.cancelled() => out.end_now(stopping()),
            () = out.closed() => {}
        }
    });
    receiver
}

async fn read(context: &Context, mut reading: Reading, out: &Sender) -> Result<(), Status> {
    let mut notices = context.hub.watch(reading.build);
    let attempt = loop {
        match find_attempt(context, &reading).await? {
            Some(attempt) => break attempt,
            None if reading.follow && !is_finished(context, reading.build).await? => {
                changed(&mut notices).await?;
            }
            None => return end(out, &reading, Some(0)).await,
        }
    };
    let key = LogKey { attempt, log: reading.log.clone() };
    let mut reader = context.logs.reader(&key);
    let mut durable = None;
    loop {
        if durable.is_none() && context.hub.is_current(attempt) {
            durable = Some(subscribe(context, &key).await?);
        }
        // What there is, before whether there will be more: the other way round the end of the log
        // could come in between.
        let ended = has_ended(context, &key).await?;
        let length = match &mut durable {
            Some(durable) => *durable.borrow_and_update(),
            None => context.logs.length(&key).await,
        };
        let extent = Extent { durable: length, ended: ended.and_then(|ended| ended.missing(length)) };
        send_up_to(&mut reader, &mut reading, extent.durable, out).await?;
        if extent.ended.is_some() || !reading.follow {
            return end(out, &reading, extent.ended).await;
        }
        tokio::select! {
            changed = changed(&mut notices) => changed?,
            // Its end means that the log was put aside: look again.
            more = async { match &mut durable { Some(durable) => durable.changed().await, None => std::future::pending().await } } => {
                if more.is_err() {
                    durable = None;
                }
            }
        }
    }
}

/// The attempt whose log is wanted, if there is one yet.
async fn find_attempt(context: &Context, reading: &Reading) -> Result<Option<AttemptId>, Status> {
    let Reading { build, job: index, .. } = reading;
    let not_found = |what: String| Status::from(Error::NotFound(what));
    if let Some(id) = reading.attempt {
        let stored = context.hub.store().attempt(id).await.map_err(Error::from)?;
        return match stored {
            Some(stored) if stored.build == *build && stored.job == *index => Ok(Some(id)),
            _ => Err(not_found(format!("attempt {id} of job {build}.{index}"))),
        };
    }
    let stored = context.hub.store().build(*build).await.map_err(Error::from)?;
    let stored = stored.ok_or_else(|| not_found(format!("build {build}")))?;
    let job = stored.jobs.into_iter().find(|job| job.index == *index);
    let job = job.ok_or_else(|| not_found(format!("job {build}.{index}")))?;
    Ok(job.attempt.map(|attempt| attempt.id))
}

async fn is_finished(context: &Context, build: BuildId) -> Result<bool, Status> {
    let build = context.hub.store().build(build).await.map_err(Error::from)?;
    Ok(build.is_none_or(|build| build.finished_at.is_some()))
}

/// The durable length of a log that is being written.
async fn subscribe(context: &Context, key: &LogKey) -> Result<tokio::sync::watch::Receiver<u64>, Status> {
    let nothing = Chunk { key: key.clone(), offset: 0, data: Bytes::new(), times: Vec::new() };
    Ok(context.logs.append(nothing).await.map_err(Error::from)?.durable)
}

/// Why a log may get no more bytes.
enum Ended {
    /// The attempt is over: what is stored is all there will be.
    Attempt { missing: u64 },
    /// The stage ended with a log of this length, which may still be on its way.
    Stage { length: u64 },
}

impl Ended {
    fn missing(&self, stored: u64) -> Option<u64> {
        match self {
            Self::Attempt { missing } => Some(*missing),
            Self::Stage { length } => (stored >= *length).then_some(0),
        }
    }
}

async fn has_ended(context: &Context, key: &LogKey) -> Result<Option<Ended>, Status> {
    // In this order: an attempt that is over has the last word on its stages in the store.
    let over = !context.hub.is_current(key.attempt);
    let stage = context.hub.store().stage(key.attempt, key.log.to_string()).await.map_err(Error::from)?;
    Ok(match stage {
        _ if over => Some(Ended::Attempt { missing: stage.map_or(0, |stage| stage.log_missing) }),
        Some(Stage { progress: StageProgress::Finished(_), log_bytes, .. }) => {
            Some(Ended::Stage { length: log_bytes })
        }
        _ => None,
    })
}

async fn send_up_to(
    reader: &mut LogReader,
    reading: &mut Reading,
    durable: u64,
    out: &Sender,
) -> Result<(), Status> {
    while reading.offset < durable {
        let data = reader.read(reading.offset, durable, MAX_CHUNK).await.map_err(Error::from)?;
        if data.is_empty() {
            return Err(Status::data_loss("the log's file is shorter than it should be"));
        }
        let offset = reading.offset;
        let next = offset + data.len() as u64;
        let times = if reading.times {
            let times = reader.times(offset, next).await.map_err(Error::from)?;
            times.into_iter().map(Into::into).collect()
        } else {
            Vec::new()
        };
        send(out, ReadLogResponse { offset, data, times, end: false, missing: 0 }).await?;
        reading.offset = next;
    }
    Ok(())
}

/// The last message: whether this is the end of the log, or only of what there is.
async fn end(out: &Sender, reading: &Reading, missing: Option<u64>) -> Result<(), Status> {
    let last = ReadLogResponse {
        offset: reading.offset,
        data: Bytes::new(),
        times: Vec::new(),
        end: missing.is_some(),
        missing: missing.unwrap_or(0),
    };
    send(out, last).await
}

async fn send(out: &Sender, piece: ReadLogResponse) -> Result<(), Status> {
    out.hand(piece).await
}

async fn changed(notices: &mut broadcast::Receiver<Notice>) -> Result<(), Status> {
    loop {
        match notices.recv().await {
            Ok(Notice::Live(_)) => {}
            Ok(Notice::Changed) | Err(broadcast::error::RecvError::Lagged(_)) => return Ok(()),
            Err(broadcast::error::RecvError::Closed) => return Err(stopping()),
        }
    }
}
