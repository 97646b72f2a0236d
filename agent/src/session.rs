//! The session with the orchestrator: says who the agent is and what it has, takes offers and
//! wishes, and comes back after every break. Nothing of a job depends on it being there.

mod message;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use buildr_proto::{
    AgentId, PROTOCOL,
    convert::{Field, Message, duration_from_pb},
    pb::{self, orchestrator_message::Message as Incoming},
};
use bytesize::ByteSize;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::Instrument;

pub use self::message::Introduction;
use self::message::{decline, heartbeat, hello, offer};
use crate::{
    backoff::Backoff,
    fleet::{Fleet, Load, Unfit},
    job::Shop,
    lifeline::Lifeline,
    link::{Want, describe},
    runner::Runner,
};

/// How many messages may wait for the stream.
const QUEUE: usize = 64;

/// A session is given up after this many heartbeats without a word from the orchestrator.
const SILENT_BEATS: u32 = 3;

/// What a heartbeat interval may be, whatever the orchestrator says.
const BEAT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(300));

/// The orchestrator will not let this agent in, whenever it comes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the orchestrator at {orchestrator} refuses this agent: {reason}")]
pub struct Refused {
    orchestrator: String,
    reason: String,
}

/// Whether the orchestrator is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Not yet.
    #[default]
    Never,
    /// It has let the agent in, under this id.
    Up(AgentId),
    /// Not any more.
    Down,
}

/// Keeps a session with the orchestrator.
pub struct Session<R> {
    /// The orchestrator's URL, for messages.
    pub orchestrator: String,
    /// Who this is.
    pub introduction: Introduction,
    /// Its attempts.
    pub fleet: Fleet,
    /// When the orchestrator was there.
    pub lifeline: Lifeline,
    /// Runs them.
    pub shop: Arc<Shop<R>>,
    /// The disk that must have room.
    pub disk: PathBuf,
    /// How much.
    pub min_free: u64,
    /// Whether the orchestrator is there.
    pub connection: watch::Sender<Connection>,
}

/// Why a stream ended.
enum End {
    /// It broke, or never was: try again.
    Broken(String),
    /// Never try again.
    Refused(String),
    /// The agent is done.
    Stopped,
}

/// One stream.
struct Stream {
    out: mpsc::Sender<pb::AgentMessage>,
    incoming: Streaming<pb::OrchestratorMessage>,
    load: watch::Receiver<Load>,
    /// The orchestrator knows that nothing new is taken.
    draining: bool,
    beat: Option<tokio::time::Interval>,
    heard: Instant,
    seq: u64,
}

/// What a stream has to deal with.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is gone at once")]
enum Happened {
    /// The orchestrator said something, or the stream ended.
    Message(Result<Option<pb::OrchestratorMessage>, Status>),
    /// A heartbeat is due.
    Beat,
    /// The agent takes nothing new any more, and the orchestrator should know at once.
    Draining,
}

impl<R: Runner> Session<R> {
    /// Keeps coming back until it is stopped or refused for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Refused> {
        let mut backoff = Backoff::new(self.shop.timing.reconnect);
        let mut last = None;
        loop {
            let end = tokio::select! {
                end = self.once() => end,
                () = stop.cancelled() => End::Stopped,
            };
            let was_up = matches!(*self.connection.borrow(), Connection::Up(_));
            if was_up {
                self.connection.send_replace(Connection::Down);
                backoff.reset();
                last = None;
            }
            match end {
                End::Stopped => return Ok(()),
                End::Refused(reason) => {
                    return Err(Refused { orchestrator: self.orchestrator.clone(), reason });
                }
                End::Broken(cause) => {
                    if last.as_ref() != Some(&cause) {
                        tracing::warn!(
                            orchestrator = self.orchestrator,
                            cause,
                            "no session with the orchestrator; what runs goes on, and the agent keeps trying"
                        );
                        last = Some(cause);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.pause()) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// One stream from its beginning to its end.
    async fn once(&self) -> End {
        let (out, queue) = mpsc::channel(QUEUE);
        let mut load = self.fleet.load();
        let draining = load.borrow_and_update().draining;
        let first = hello(&self.introduction, &self.fleet);
        self.lifeline.opened();
        if out.try_send(first).is_err() {
            return End::Broken("the stream's queue is not open".to_owned());
        }
        let incoming = match self.shop.link.control().session(ReceiverStream::new(queue)).await {
            Ok(response) => response.into_inner(),
            Err(status) => return ended(&status),
        };
        let mut stream = Stream { out, incoming, load, draining, beat: None, heard: Instant::now(), seq: 0 };
        loop {
            let handled = match stream.next().await {
                Happened::Message(message) => self.take(message, &mut stream),
                Happened::Beat => stream.beat(self),
                Happened::Draining => stream.say_heartbeat(self),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    fn take(
        &self,
        message: Result<Option<pb::OrchestratorMessage>, Status>,
        stream: &mut Stream,
    ) -> Result<(), End> {
        let message = match message {
            Ok(Some(pb::OrchestratorMessage { message })) => message,
            Ok(None) => return Err(End::Broken("the orchestrator ended the session".to_owned())),
            Err(status) => return Err(ended(&status)),
        };
        stream.heard = Instant::now();
        match message {
            Some(Incoming::Welcome(welcome)) => self.welcome(welcome, stream),
            Some(Incoming::Refused(pb::Refused { reason, permanent: true })) => Err(End::Refused(reason)),
            Some(Incoming::Refused(pb::Refused { reason, permanent: false })) => Err(End::Broken(reason)),
            Some(Incoming::Offer(offer)) => self.offered(offer, stream),
            Some(Incoming::HeartbeatReply(pb::HeartbeatReply { seq, desired })) => {
                self.lifeline.answered(seq);
                desired.into_iter().for_each(|desired| self.desire(desired));
                Ok(())
            }
            Some(Incoming::Desired(desired)) => {
                self.desire(desired);
                Ok(())
            }
            Some(Incoming::Drain(pb::Drain {})) => {
                tracing::info!("the operator drains this agent");
                self.fleet.drain();
                Ok(())
            }
            // Of a newer protocol than ours: not for us.
            None => Ok(()),
        }
    }

    fn welcome(&self, welcome: pb::Welcome, stream: &mut Stream) -> Result<(), End> {
        const WELCOME: Message = Message("Welcome");
        let pb::Welcome { protocol, agent, heartbeat_interval, desired } = welcome;
        if !(PROTOCOL.min..=PROTOCOL.max).contains(&protocol) {
            let reason = format!(
                "it speaks version {protocol} of the protocol, and this program {} to {}: update the older of the two",
                PROTOCOL.min, PROTOCOL.max
            );
            return Err(End::Refused(reason));
        }
        let wrong =
            |error: &dyn std::fmt::Display| End::Broken(format!("its welcome makes no sense: {error}"));
        let agent = AgentId::try_from(agent).map_err(|error| wrong(&error))?;
        let field: Field = WELCOME.field("heartbeat_interval");
        let interval = duration_from_pb(field, heartbeat_interval).map_err(|error| wrong(&error))?;
        let interval = interval.clamp(BEAT.0, BEAT.1);
        stream.beat = Some(tokio::time::interval_at(tokio::time::Instant::now() + interval, interval));
        self.lifeline.answered(0);
        desired.into_iter().for_each(|desired| self.desire(desired));
        tracing::info!(orchestrator = self.orchestrator, agent = %agent, "the orchestrator has let the agent in");
        self.connection.send_replace(Connection::Up(agent));
        Ok(())
    }

    fn desire(&self, desired: pb::Desired) {
        match desired.attempt.parse() {
            Ok(attempt) => self.fleet.want(attempt, Want::from(desired)),
            Err(error) => tracing::warn!(error = %error, "the orchestrator wants something of no attempt"),
        }
    }

    /// Takes an offer, or says why not.
    fn offered(&self, message: pb::Offer, stream: &Stream) -> Result<(), End> {
        let id = message.attempt.clone();
        let reason = match offer(message) {
            Err(error) => format!("the offer makes no sense to this agent: {error}"),
            Ok(offer) => match self.room().and_then(|()| Ok(self.fleet.admit(offer.attempt)?)) {
                Ok((place, slot)) => {
                    // What is said of a job further down is said within this.
                    let span = tracing::info_span!("job", build = %offer.job.build, job = %offer.job, attempt = %offer.attempt);
                    self.shop.tasks.spawn(self.shop.clone().run(offer, place, slot).instrument(span));
                    return Ok(());
                }
                Err(No::Unfit(Unfit::Known)) => return Ok(()),
                Err(no) => no.to_string(),
            },
        };
        tracing::warn!(attempt = id, reason, "offer declined");
        stream.say(decline(id, reason))
    }

    /// Whether the disk has room for another job.
    fn room(&self) -> Result<(), No> {
        let stat = rustix::fs::statvfs(&self.disk).map_err(|error| No::Disk(error.to_string()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= self.min_free {
            return Ok(());
        }
        let (free, least) = (ByteSize(free), ByteSize(self.min_free));
        Err(No::Disk(format!("{free} free in {}, less than the {least} of --min-free", self.disk.display())))
    }
}

/// Why an offer is declined.
#[derive(Debug, thiserror::Error)]
enum No {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the agent's disk: {0}")]
    Disk(String),
}

impl Stream {
    async fn next(&mut self) -> Happened {
        let Self { incoming, load, draining, beat, .. } = self;
        let tick = async {
            match beat {
                Some(beat) => drop(beat.tick().await),
                // None is due before the welcome.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = incoming.message() => Happened::Message(message),
            () = tick => Happened::Beat,
            _ = load.wait_for(|load| load.draining), if !*draining => {
                *draining = true;
                Happened::Draining
            }
        }
    }

    fn beat<R>(&mut self, session: &Session<R>) -> Result<(), End> {
        let interval = self.beat.as_ref().map_or(BEAT.1, |beat| beat.period());
        if self.heard.elapsed() > interval * SILENT_BEATS {
            return Err(End::Broken(format!(
                "the orchestrator has not answered {SILENT_BEATS} heartbeats of {interval:?}"
            )));
        }
        self.say_heartbeat(session)
    }

    fn say_heartbeat<R>(&mut self, session: &Session<R>) -> Result<(), End> {
        self.seq += 1;
        session.lifeline.sent_now(self.seq);
        self.say(heartbeat(self.seq, &session.fleet))
    }

    /// A queue that is full is a connection that takes nothing.
    fn say(&self, message: pb::AgentMessage) -> Result<(), End> {
        self.out.try_send(message).map_err(|_| End::Broken("the orchestrator takes no messages".to_owned()))
    }
}

fn ended(status: &Status) -> End {
    let text = describe(status);
    match status.code() {
        Code::Unauthenticated => End::Refused(format!("{text}, or --token-file to a file that holds it")),
        Code::PermissionDenied => End::Refused(text),
        Code::Unimplemented => {
            End::Broken(format!("what answers there is not an orchestrator that this agent knows: {text}"))
        }
        _ => End::Broken(text),
    }
}
