//! One `AppendLog` stream: chunks out, acks in. It knows no files and no windows.

use buildr_manifest::LogName;
use buildr_proto::{AttemptId, InstanceId, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{CallError, Client};
use crate::spool::Piece;

/// How many chunks may wait for the connection.
const QUEUE: usize = 4;

/// A piece of a log on its way. An empty one asks where to go on from.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whose log.
    pub log: LogName,
    /// Where it begins.
    pub offset: u64,
    /// The bytes and their times.
    pub piece: Piece,
}

/// How much of a log is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whose log.
    pub log: LogName,
    /// Everything below this offset is safe.
    pub durable: u64,
    /// The attempt is not this process's any more.
    pub fenced: bool,
    /// A chunk began above the durable offset: go on from there.
    pub gap: bool,
}

/// An open stream. Dropping it ends it.
#[derive(Debug)]
pub struct LogStream {
    attempt: AttemptId,
    instance: InstanceId,
    chunks: mpsc::Sender<pb::LogChunk>,
    acks: Streaming<pb::LogAck>,
}

impl LogStream {
    pub(super) async fn open(
        mut client: Client,
        attempt: AttemptId,
        instance: InstanceId,
        first: Chunk,
    ) -> Result<Self, CallError> {
        let (chunks, queue) = mpsc::channel(QUEUE);
        chunks
            .try_send(message(attempt, instance, first))
            .map_err(|_| CallError::Failed("the queue of chunks is not open".into()))?;
        let acks = client.append_log(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { attempt, instance, chunks, acks })
    }

    /// Waits until a chunk can be sent. Cancel safe.
    pub fn sender(&self) -> mpsc::Sender<pb::LogChunk> {
        self.chunks.clone()
    }

    /// A chunk as it travels.
    pub(crate) fn message(&self, chunk: Chunk) -> pb::LogChunk {
        message(self.attempt, self.instance, chunk)
    }

    /// The next ack. Cancel safe.
    pub async fn ack(&mut self) -> Result<Ack, CallError> {
        let Some(ack) = self.acks.message().await? else {
            return Err(CallError::Unreachable("it ended the stream of acks".into()));
        };
        let pb::LogAck { attempt: _, log, durable, fenced, gap } = ack;
        let log = LogName::new(log)
            .map_err(|invalid| CallError::Failed(format!("an ack that is none: {invalid}")))?;
        Ok(Ack { log, durable, fenced, gap })
    }
}

fn message(attempt: AttemptId, instance: InstanceId, chunk: Chunk) -> pb::LogChunk {
    let Chunk { log, offset, piece: Piece { data, times } } = chunk;
    pb::LogChunk {
        attempt: attempt.to_string(),
        instance: instance.to_string(),
        log: log.into(),
        offset,
        data,
        times: times.into_iter().map(pb::TimeMark::from).collect(),
    }
}
