//! Everything that happened to a build, and what happens. A notice only wakes: what is shown comes
//! from the store, so a late watcher and one that missed a notice see the same.

use buildr_proto::{
    BuildId,
    build::{BuildEvent, BuildEventKind},
    pb,
};
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Context, outgoing::Outgoing, stopping};
use crate::{error::Error, gate::Follower, hub::Notice};

/// How many events are read at once.
const PAGE: u32 = 256;

/// How many events may wait for a client to read them.
const OUTGOING: usize = 64;

type Sender = Outgoing<pb::BuildEvent>;

/// Serves a watcher in a task of its own.
pub(super) fn start(
    context: Context,
    follower: Follower,
    build: BuildId,
    after: u64,
) -> ReceiverStream<Result<pb::BuildEvent, Status>> {
    let (out, receiver) = Outgoing::new(follower, OUTGOING);
    let tasks = context.tasks.clone();
    tasks.spawn(async move {
        tokio::select! {
            ended = watch(&context, build, after, &out) => if let Err(status) = ended {
                out.end(status).await;
            },
            () = context.stop.cancelled() => out.end_now(stopping()),
            () = out.closed() => {}
        }
    });
    receiver
}

async fn watch(context: &Context, build: BuildId, mut after: u64, out: &Sender) -> Result<(), Status> {
    let mut notices = context.hub.watch(build);
    loop {
        loop {
            let page = context.hub.store().events(build, after, PAGE).await.map_err(Error::from)?;
            let is_last = page.len() < PAGE as usize;
            for event in page {
                after = event.seq;
                let finished = matches!(event.kind, BuildEventKind::Finished(_));
                send(out, event).await?;
                if finished {
                    return Ok(());
                }
            }
            if is_last {
                break;
            }
        }
        if after > 0 && ended_before(context, build, after).await? {
            return Ok(());
        }
        loop {
            match notices.recv().await {
                Ok(Notice::Live(event)) => send(out, BuildEvent::clone(&event)).await?,
                Ok(Notice::Changed) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(stopping()),
            }
        }
    }
}

/// Whether the cursor was at or behind the last event, so that nothing follows.
async fn ended_before(context: &Context, build: BuildId, after: u64) -> Result<bool, Status> {
    let last = context.hub.store().events(build, after - 1, 1).await.map_err(Error::from)?;
    if let Some(event) = last.first() {
        return Ok(matches!(event.kind, BuildEventKind::Finished(_)));
    }
    // The cursor is beyond what there is: it was not made by this build.
    Err(Status::out_of_range(format!("build {build} has no event {after}: watch it from 0")))
}

async fn send(out: &Sender, event: BuildEvent) -> Result<(), Status> {
    out.hand(event.into()).await
}
