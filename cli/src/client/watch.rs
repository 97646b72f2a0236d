//! Two readers that survive a broken connection: the events of a build, resumed by number, and the
//! log of a stage or service, resumed by offset. They hand on each event and each byte exactly once, in order,
//! and never decide what is shown.

use std::time::Duration;

use buildr_manifest::LogName;
use buildr_proto::{
    AttemptId, BuildId,
    build::{BuildEvent, BuildEventKind},
    pb,
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tonic::{Code, Status};

use super::{Client, Which, is_transient, root_cause};
use crate::Error;

/// How readers deal with a connection that breaks.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The pause before the first try; doubled with each further one.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// After so long without an orchestrator they give up.
    pub give_up_after: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(3),
            give_up_after: Duration::from_secs(15 * 60),
        }
    }
}

/// What a reader hands on.
#[derive(Debug)]
pub(super) enum Feed<T> {
    /// The next thing.
    Next(T),
    /// The connection broke, for this reason; the reader tries again.
    Lost(String),
    /// It goes on where it was.
    Back,
    /// It gave up. Nothing follows.
    Failed(Error),
}

/// Whose log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogKey {
    pub(super) job: u32,
    pub(super) attempt: Option<AttemptId>,
    pub(super) log: LogName,
}

/// A part of a log.
#[derive(Debug)]
pub(super) enum LogPart {
    /// Bytes, at this offset.
    Piece { offset: u64, data: Bytes, times: Vec<(u64, Timestamp)> },
    /// The log is complete, or nothing more of it will come; so many bytes were never delivered.
    End { missing: u64 },
}

/// Hands on the events of a build from the first one until the build's end.
pub(super) async fn events(
    client: Client,
    build: BuildId,
    patience: Patience,
    out: mpsc::Sender<Feed<BuildEvent>>,
) {
    let mut line = Line::new(&client, patience, "watch the build", build, &out);
    let mut after = 0;
    loop {
        let request = pb::WatchBuildRequest { build: build.get(), after };
        let broken = match client.service.clone().watch_build(request).await {
            Err(status) => status,
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    let event = match stream.message().await {
                        Err(status) => break status,
                        Ok(None) => break ended_early(),
                        Ok(Some(event)) => event,
                    };
                    if !line.works().await {
                        return;
                    }
                    if event.seq != 0 && event.seq <= after {
                        continue;
                    }
                    after = after.max(event.seq);
                    let event = BuildEvent::try_from(event)
                        .map_err(|invalid| client.nonsense("watch the build", &invalid.to_string()));
                    let last = match &event {
                        Ok(event) => matches!(event.kind, BuildEventKind::Finished(_)),
                        Err(_) => true,
                    };
                    let feed = event.map_or_else(Feed::Failed, Feed::Next);
                    if out.send(feed).await.is_err() || last {
                        return;
                    }
                }
            }
        };
        if !line.broke(broken).await {
            return;
        }
    }
}

/// Hands on a log from an offset until its end.
pub(super) async fn log(
    client: Client,
    build: BuildId,
    key: LogKey,
    from: u64,
    times: bool,
    patience: Patience,
    out: mpsc::Sender<Feed<LogPart>>,
) {
    let mut line = Line::new(&client, patience, "read the log", build, &out);
    let mut offset = from;
    loop {
        let request = pb::ReadLogRequest {
            build: build.get(),
            job: key.job,
            attempt: key.attempt.map(|attempt| attempt.to_string()).unwrap_or_default(),
            log: key.log.to_string(),
            offset,
            follow: true,
            times,
        };
        let broken = match client.service.clone().read_log(request).await {
            Err(status) => status,
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    let part = match stream.message().await {
                        Err(status) => break status,
                        Ok(None) => break ended_early(),
                        Ok(Some(part)) => part,
                    };
                    if !line.works().await {
                        return;
                    }
                    if !hand_on(part, &mut offset, &client, &out).await {
                        return;
                    }
                }
            }
        };
        if !line.broke(broken).await {
            return;
        }
    }
}

/// Hands on what is new of a part; false at the end.
async fn hand_on(
    part: pb::ReadLogResponse,
    offset: &mut u64,
    client: &Client,
    out: &mpsc::Sender<Feed<LogPart>>,
) -> bool {
    let pb::ReadLogResponse { offset: begin, mut data, times, end, missing } = part;
    if begin > *offset {
        let why = format!("its log has a gap from {} to {begin}", *offset);
        let _ = out.send(Feed::Failed(client.nonsense("read the log", &why))).await;
        return false;
    }
    let known = usize::try_from(*offset - begin).unwrap_or(usize::MAX).min(data.len());
    let data = data.split_off(known);
    if !data.is_empty() {
        let times = times.into_iter().filter_map(|mark| <(u64, Timestamp)>::try_from(mark).ok()).collect();
        let piece = LogPart::Piece { offset: *offset, data, times };
        *offset += match &piece {
            LogPart::Piece { data, .. } => data.len() as u64,
            LogPart::End { .. } => 0,
        };
        if out.send(Feed::Next(piece)).await.is_err() {
            return false;
        }
    }
    if end {
        let _ = out.send(Feed::Next(LogPart::End { missing })).await;
    }
    !end
}

fn ended_early() -> Status {
    Status::unavailable("the orchestrator ended the stream")
}

/// The state of a reader's connection: tries again for as long as patience lasts.
struct Line<'a, T> {
    client: &'a Client,
    patience: Patience,
    what: &'static str,
    build: BuildId,
    out: &'a mpsc::Sender<Feed<T>>,
    pause: Duration,
    broken_since: Option<Instant>,
}

impl<'a, T> Line<'a, T> {
    fn new(
        client: &'a Client,
        patience: Patience,
        what: &'static str,
        build: BuildId,
        out: &'a mpsc::Sender<Feed<T>>,
    ) -> Self {
        Self { client, patience, what, build, out, pause: patience.first_pause, broken_since: None }
    }

    /// Something came. False where nobody listens any more.
    async fn works(&mut self) -> bool {
        self.pause = self.patience.first_pause;
        if self.broken_since.take().is_some() {
            return self.out.send(Feed::Back).await.is_ok();
        }
        true
    }

    /// The connection broke: waits before the next try. False where there is to be none.
    async fn broke(&mut self, status: Status) -> bool {
        let since = self.broken_since.unwrap_or_else(Instant::now);
        if !is_transient(&status) || since.elapsed() > self.patience.give_up_after {
            let error = self.client.error(&status, self.what, Some(Which::Number(self.build)));
            let _ = self.out.send(Feed::Failed(error)).await;
            return false;
        }
        if self.broken_since.is_none() {
            self.broken_since = Some(since);
            let why = match status.code() {
                Code::Unavailable if std::error::Error::source(&status).is_none() => {
                    status.message().to_owned()
                }
                _ => root_cause(&status),
            };
            if self.out.send(Feed::Lost(why)).await.is_err() {
                return false;
            }
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.patience.longest_pause);
        true
    }
}
