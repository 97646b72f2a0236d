//! An agent's session: hints and reconciliation, nothing durable. It ends when either side goes.

use std::time::Duration;

use buildr_proto::{
    AgentId, PROTOCOL,
    convert::duration_to_pb,
    pb::{self, AgentMessage, OrchestratorMessage, agent_message, orchestrator_message::Message},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::{
    Context,
    agents::{decline, desired_to_pb},
    incoming, stopping,
};
use crate::{
    core::input::{Claim, Hello, Offer, SessionId},
    error::{Error, chain},
    hub::Push,
};

/// How often agents give a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long a new connection may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// How many messages may wait for an agent to read them.
const OUTGOING: usize = 64;

/// An agent that does not read for this long has to connect again.
const READS_WITHIN: Duration = Duration::from_secs(10);

type Sender = mpsc::Sender<Result<OrchestratorMessage, Status>>;

/// Serves a session in a task of its own.
pub(super) fn start(
    context: Context,
    agent: AgentId,
    incoming: Streaming<AgentMessage>,
) -> ReceiverStream<Result<OrchestratorMessage, Status>> {
    let (sender, receiver) = mpsc::channel(OUTGOING);
    let span = tracing::info_span!("session", %agent);
    let tasks = context.tasks.clone();
    tasks.spawn(serve(context, agent, incoming, sender).instrument(span));
    ReceiverStream::new(receiver)
}

async fn serve(context: Context, agent: AgentId, mut incoming: Streaming<AgentMessage>, out: Sender) {
    let (session, mut pushes) = context.hub.connect();
    let hello = tokio::select! {
        hello = first(&mut incoming, agent.clone(), session) => hello,
        () = context.stop.cancelled() => Err(stopping()),
    };
    let ended = match hello {
        Ok((hello, protocol)) => {
            let agreed = PROTOCOL.agree(protocol);
            let session =
                Session { context: &context, agent: agent.clone(), id: session, instance: hello.instance };
            match agreed {
                Some(version) => tokio::select! {
                    ended = session.run(hello, version, &mut incoming, &mut pushes, &out) => ended,
                    () = context.stop.cancelled() => Err(stopping()),
                },
                None => refuse(&out, too_far_apart(protocol), true).await,
            }
        }
        Err(status) => Err(status),
    };
    if let Err(status) = ended {
        // The agent may have gone; then nobody needs to be told.
        drop(out.try_send(Err(status)));
    }
    context.hub.disconnect(agent, session).await;
}

async fn first(
    incoming: &mut Streaming<AgentMessage>,
    agent: AgentId,
    session: SessionId,
) -> Result<(Hello, buildr_proto::ProtocolRange), Status> {
    let message = timeout(HELLO_WITHIN, incoming.message())
        .await
        .map_err(|_| Status::deadline_exceeded("a session begins with a hello"))??;
    match message.and_then(|message| message.message) {
        Some(agent_message::Message::Hello(hello)) => {
            incoming::hello(hello, agent, session).map_err(|error| Error::from(error).into())
        }
        _ => Err(Status::invalid_argument("a session begins with a hello")),
    }
}

struct Session<'a> {
    context: &'a Context,
    agent: AgentId,
    id: SessionId,
    instance: buildr_proto::InstanceId,
}

impl Session<'_> {
    async fn run(
        &self,
        hello: Hello,
        version: u32,
        incoming: &mut Streaming<AgentMessage>,
        pushes: &mut mpsc::Receiver<Push>,
        out: &Sender,
    ) -> Result<(), Status> {
        let name = hello.name.clone();
        let held = hello.held.len();
        let desired = match self.context.hub.hello(hello).await {
            Ok(desired) => desired,
            Err(Error::Refused(refusal)) => return refuse(out, refusal.to_string(), false).await,
            Err(error) => return Err(error.into()),
        };
        tracing::info!(name, held, "agent connected");
        let welcome = pb::Welcome {
            protocol: version,
            agent: self.agent.to_string(),
            heartbeat_interval: Some(duration_to_pb(HEARTBEAT)),
            desired: desired.into_iter().map(desired_to_pb).collect(),
        };
        send(out, Message::Welcome(welcome)).await?;
        loop {
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.take(message, out).await?,
                    Ok(None) => break,
                    Err(status) => {
                        tracing::info!(name, reason = status.message(), "the agent's connection broke");
                        return Ok(());
                    }
                },
                push = pushes.recv() => match push {
                    Some(push) => send(out, push_to_pb(push)).await?,
                    None => return Err(Status::aborted("this session has ended: connect again")),
                },
            }
        }
        tracing::info!(name, "agent disconnected");
        Ok(())
    }

    async fn take(&self, message: AgentMessage, out: &Sender) -> Result<(), Status> {
        match message.message {
            Some(agent_message::Message::Heartbeat(beat)) => {
                let (seq, beat) =
                    incoming::heartbeat(beat, self.agent.clone(), self.id).map_err(Error::from)?;
                let desired = self.context.hub.heartbeat(beat).await?;
                let desired = desired.into_iter().map(desired_to_pb).collect();
                send(out, Message::HeartbeatReply(pb::HeartbeatReply { seq, desired })).await
            }
            Some(agent_message::Message::Decline(message)) => {
                let (attempt, reason) = decline(message).map_err(Error::from)?;
                let claim = Claim { attempt, agent: self.agent.clone(), instance: self.instance };
                // An offer that is void already needs no decline.
                if let Err(error) = self.context.hub.decline(claim, reason).await {
                    tracing::debug!(error = %chain(&error), "a decline changed nothing");
                }
                Ok(())
            }
            Some(agent_message::Message::Hello(_)) => {
                Err(Status::invalid_argument("a session has one hello, its first message"))
            }
            // A newer agent may have more to say than is known here.
            None => Ok(()),
        }
    }
}

async fn send(out: &Sender, message: Message) -> Result<(), Status> {
    let message = OrchestratorMessage { message: Some(message) };
    match timeout(READS_WITHIN, out.send(Ok(message))).await {
        Ok(sent) => sent.map_err(|_| Status::cancelled("the agent has gone")),
        Err(_) => Err(Status::resource_exhausted("the agent does not read its session")),
    }
}

async fn refuse(out: &Sender, reason: String, permanent: bool) -> Result<(), Status> {
    tracing::warn!(reason, "agent refused");
    send(out, Message::Refused(pb::Refused { reason, permanent })).await
}

fn too_far_apart(theirs: buildr_proto::ProtocolRange) -> String {
    format!(
        "the agent speaks protocol {} to {} and this orchestrator {} to {}: upgrade the older of the two",
        theirs.min, theirs.max, PROTOCOL.min, PROTOCOL.max
    )
}

fn push_to_pb(push: Push) -> Message {
    match push {
        Push::Desired(desired) => Message::Desired(desired_to_pb(desired)),
        Push::Offer(offer) => {
            let Offer { attempt, job, spec, axes, planned, valid_for, lease } = *offer;
            Message::Offer(pb::Offer {
                attempt: attempt.to_string(),
                build: job.build.get(),
                job: job.index,
                spec: Some(spec.into()),
                valid_for: Some(duration_to_pb(valid_for)),
                lease: Some(duration_to_pb(lease)),
                timeout: None,
                axes: axes.into_iter().collect(),
                planned,
            })
        }
    }
}
