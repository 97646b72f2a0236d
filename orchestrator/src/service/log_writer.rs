//! Chunks of logs in, acknowledgements out: the first for a log says where to go on from, each
//! later one how much is durable.

use std::{collections::HashMap, time::Duration};

use buildr_proto::{
    AgentId,
    limits::MAX_LOGS,
    pb::{LogAck, LogChunk},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{
    StreamExt, StreamMap,
    wrappers::{ReceiverStream, WatchStream},
};
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::{Context, incoming, stopping};
use crate::{error::Error, logs::LogKey};

/// How many acknowledgements may wait for an agent to read them.
const OUTGOING: usize = 64;

/// How long the last bytes of a stream may take to become durable.
const LAST_SYNC: Duration = Duration::from_secs(10);

type Sender = mpsc::Sender<Result<LogAck, Status>>;

/// Serves a stream of chunks in a task of its own.
pub(super) fn start(
    context: Context,
    agent: AgentId,
    incoming: Streaming<LogChunk>,
) -> ReceiverStream<Result<LogAck, Status>> {
    let (out, receiver) = mpsc::channel(OUTGOING);
    let tasks = context.tasks.clone();
    let span = tracing::info_span!("logs", %agent);
    let serve = async move {
        let mut writer = Writer { context, agent, out, acks: StreamMap::new(), logs: HashMap::new() };
        if let Err(status) = writer.run(incoming).await {
            // The agent may have gone; then nobody needs to be told.
            drop(writer.out.send(Err(status)).await);
        }
    };
    tasks.spawn(serve.instrument(span));
    ReceiverStream::new(receiver)
}

struct Writer {
    context: Context,
    agent: AgentId,
    out: Sender,
    /// The durable length of every log of this stream.
    acks: StreamMap<LogKey, WatchStream<u64>>,
    /// How far each log is.
    logs: HashMap<LogKey, Extent>,
}

/// How far a log is on this stream.
#[derive(Default)]
struct Extent {
    /// Where it ends once all that was taken is durable.
    end: u64,
    /// What was acknowledged last.
    acked: Option<u64>,
}

impl Extent {
    fn is_acked(&self) -> bool {
        self.acked.is_some_and(|acked| acked >= self.end)
    }
}

impl Writer {
    async fn run(&mut self, mut incoming: Streaming<LogChunk>) -> Result<(), Status> {
        let stop = self.context.stop.clone();
        loop {
            tokio::select! {
                chunk = incoming.message() => match chunk {
                    Ok(Some(chunk)) => self.take(chunk).await?,
                    Ok(None) => break,
                    // The agent goes on from the last ack on another stream.
                    Err(_) => return Ok(()),
                },
                Some((key, durable)) = self.acks.next(), if !self.acks.is_empty() => {
                    self.ack(key, durable).await?;
                }
                () = stop.cancelled() => return Err(stopping()),
            }
            self.check()?;
        }
        match timeout(LAST_SYNC, self.last_acks()).await {
            Ok(result) => result,
            Err(_) => Err(Status::unavailable("the log was not made durable in time: send it again")),
        }
    }

    async fn take(&mut self, chunk: LogChunk) -> Result<(), Status> {
        let (claim, chunk) = incoming::chunk(chunk, self.agent.clone()).map_err(Error::from)?;
        let key = chunk.key.clone();
        if self.logs.len() >= MAX_LOGS && !self.logs.contains_key(&key) {
            let why = format!("a stream has at most {MAX_LOGS} logs");
            return Err(Status::invalid_argument(why));
        }
        if !self.context.hub.may_write(&claim) {
            return self.send(LogAck { fenced: true, ..ack(&key, 0) }).await;
        }
        let length = chunk.data.len() as u64;
        let end = chunk.offset.saturating_add(length);
        let appended = match self.context.logs.append(chunk).await {
            Ok(appended) => appended,
            // The final report was first: what it did not cover is not wanted.
            Err(crate::logs::Error::Sealed(_)) => {
                return self.send(LogAck { fenced: true, ..ack(&key, 0) }).await;
            }
            Err(error) => return Err(Error::from(error).into()),
        };
        if appended.gap {
            let durable = *appended.durable.borrow();
            self.send(LogAck { gap: true, ..ack(&key, durable) }).await?;
        } else {
            self.context.metrics.log_bytes.inc_by(length);
            let log = self.logs.entry(key.clone()).or_default();
            log.end = end.max(log.end);
        }
        if !self.acks.contains_key(&key) {
            self.logs.entry(key.clone()).or_default();
            self.acks.insert(key, WatchStream::new(appended.durable));
        }
        Ok(())
    }

    /// A log that is no longer watched has failed.
    fn check(&self) -> Result<(), Status> {
        if self.acks.len() == self.logs.len() {
            return Ok(());
        }
        Err(Status::unavailable("a log could not be made durable: go on from what was acknowledged"))
    }

    async fn last_acks(&mut self) -> Result<(), Status> {
        while !self.logs.values().all(Extent::is_acked) {
            let Some((key, durable)) = self.acks.next().await else { break };
            self.ack(key, durable).await?;
        }
        self.check()
    }

    async fn ack(&mut self, key: LogKey, durable: u64) -> Result<(), Status> {
        self.send(ack(&key, durable)).await?;
        self.logs.entry(key).or_default().acked = Some(durable);
        Ok(())
    }

    async fn send(&self, ack: LogAck) -> Result<(), Status> {
        self.out.send(Ok(ack)).await.map_err(|_| Status::cancelled("the agent has gone"))
    }
}

fn ack(key: &LogKey, durable: u64) -> LogAck {
    LogAck { attempt: key.attempt.to_string(), log: key.log.to_string(), durable, fenced: false, gap: false }
}
