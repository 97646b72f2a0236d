//! The life of one attempt on this agent, from the offer to the last acknowledged byte.
//!
//! ```text
//! offered -> accepted -> prepared -> planned -> run -> delivered -> gone
//! ```
//! The slot is free as soon as the job has its end and before the final report goes out, so that the
//! next offer finds it free; neither waits for the engine to clear up behind a job. Whatever happens
//! on the way, the spool has a job's end or is dropped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use buildr_engine::job::{
    Afterwards, EventFacts, GitReference, GitSource, Identity as JobIdentity, Item, JobRequest, SourceSpec,
    Stop,
};
use buildr_manifest::{Event, EventKind, Outcome, Part, Pick};
use buildr_proto::{
    AttemptId, JobId,
    build::{BuildSpec, Reference, Source},
    plan::BuildPlan,
};
use jiff::Timestamp;
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{
    attempt::{Attempt, Phase},
    backoff::Backoff,
    config::Timing,
    delivery::{Delivery, Fenced, report_fault},
    fleet::{Place, Slot, run_id},
    lifeline::{self, Lifeline},
    link::{Accepted, CallError, Link, Planned},
    metrics::Metrics,
    runner::{Ready, Runner},
    spool::{DISK_FAULT, Fence, Spool, Writer},
};

/// How many items of the engine may wait for the spool.
pub(crate) const ITEMS: usize = 64;

/// A job that another agent may be given ends in this part of the silence after which it is ended, when
/// nobody goes on with it. The silence may be nearly over when the process dies, and the other agent's
/// job begins soon after it.
const UNATTENDED_PART: u32 = 3;

const NO_END: &str = "the engine ended the job without saying how: this is a bug of buildr";

/// A job to take, checked.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// What to build.
    pub spec: BuildSpec,
    /// Which job of the manifest.
    pub pick: Pick,
    /// How long it can be accepted.
    pub valid_for: Duration,
    /// The most that the job may run.
    pub timeout: Option<Duration>,
}

/// What all jobs of an agent share.
pub struct Shop<R> {
    /// The engine.
    pub runner: Arc<R>,
    /// The way to the orchestrator.
    pub link: Link,
    /// The spool.
    pub spool: Spool,
    /// How long to wait for what.
    pub timing: Timing,
    /// The agent's name.
    pub name: String,
    /// What manifests may inherit.
    pub inheritable: BTreeMap<String, String>,
    /// The most that any job may run.
    pub job_timeout: Duration,
    /// All tasks; who ends the agent waits for them.
    pub tasks: TaskTracker,
    /// Wakes the reaper.
    pub reap: Notify,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// When the orchestrator was there.
    pub lifeline: Lifeline,
    /// Jobs are left to the next process.
    pub detached: CancellationToken,
}

/// How the engine's part ended.
pub(crate) enum Work {
    /// All is in the spool.
    Told,
    /// The job runs on, and the next process of this agent goes on with it.
    Detached,
    /// The job goes elsewhere: nothing is to be reported.
    HandedBack,
}

/// What becomes of a plan.
enum Verdict {
    /// It is run.
    Run,
    /// The attempt is not this agent's to run.
    Drop,
    /// The job ends without it.
    End(Outcome),
}

impl<R: Runner> Shop<R> {
    /// Takes an offer and carries it through.
    pub async fn run(self: Arc<Self>, offer: Offer, place: Place, slot: Slot) {
        let attempt = place.attempt().clone();
        if !self.accept(&offer, &attempt).await {
            return;
        }
        attempt.enter(Phase::Preparing);
        tracing::info!(attempt = %attempt.id, job = %offer.job, repository = buildr_engine::source::without_credentials(&offer.spec.source.repository), "job taken");
        let Some(writer) = self.begin_spool(&attempt).await else { return };
        let delivery = Delivery::new(attempt.clone(), self.link.clone(), self.timing, &writer);
        let (items, queue) = mpsc::channel(ITEMS);
        let shop = self.clone();
        let work = async move { shop.engine(offer, &attempt, &items).await };
        self.carry_through((writer, queue), place, slot, delivery.run(), work).await;
    }

    /// Carries a job from its engine's work to its last report. The work is a task of its own, so that
    /// a bug in it ends one job and not the agent.
    pub(crate) async fn carry_through(
        &self,
        (writer, queue): (Writer, mpsc::Receiver<Item>),
        place: Place,
        slot: Slot,
        deliver: impl Future<Output = Result<(), Fenced>> + Send + 'static,
        work: impl Future<Output = Work> + Send + 'static,
    ) {
        let attempt = place.attempt().clone();
        let delivered = self.tasks.spawn(deliver.in_current_span());
        let record = record(writer, queue, attempt.clone(), slot, self.metrics.clone());
        let recorder = self.tasks.spawn(record.in_current_span());
        let detached = self.detached.clone();
        let work = async move {
            tokio::select! {
                biased;
                () = detached.cancelled() => Work::Detached,
                work = work => work,
            }
        };
        // A panic leaves a spool without an end, and closing it says so.
        let work = self.tasks.spawn(work.in_current_span()).await.unwrap_or(Work::Told);
        if matches!(work, Work::Detached) {
            // What the engine told until then is kept; the rest it tells again.
            let _kept = recorder.await;
            return;
        }
        attempt.enter(Phase::Reporting);
        self.reap.notify_one();
        if matches!(work, Work::HandedBack) {
            attempt.abandon();
        }
        let closed = close(recorder).await;
        if closed.is_err() {
            attempt.abandon();
        }
        let delivered = delivered.await.unwrap_or(Err(Fenced));
        tracing::info!(attempt = %attempt.id, delivered = delivered.is_ok(), "job over");
        self.forget(place).await;
    }

    /// Removes the spool, then the attempt.
    pub(crate) async fn forget(&self, place: Place) {
        self.drop_spool(place.attempt().id).await;
        drop(place);
    }

    pub(crate) async fn drop_spool(&self, id: AttemptId) {
        let spool = self.spool.clone();
        let removed = spawn_blocking(move || spool.remove(id)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(attempt = %id, error = &error as &dyn std::error::Error, "a spool that is done with is still there");
        }
    }

    /// True once the acceptance is committed. Tries until the offer is void.
    async fn accept(&self, offer: &Offer, attempt: &Attempt) -> bool {
        let void = Instant::now() + offer.valid_for;
        let mut backoff = Backoff::new(self.timing.reconnect);
        loop {
            let answer = tokio::select! {
                answer = timeout_at(void, self.link.accept(offer.attempt)) => answer,
                () = attempt.fence().cancelled() => return false,
            };
            match answer {
                Ok(Ok(Accepted::Go)) => return true,
                Ok(Ok(Accepted::Canceled)) => return false,
                Ok(Err(CallError::Unreachable(_) | CallError::Failed(_))) => {
                    let _void = timeout_at(void, tokio::time::sleep(backoff.pause())).await;
                }
                Ok(Err(error)) => {
                    tracing::info!(attempt = %offer.attempt, error = %error, "the offer could not be taken");
                    return false;
                }
                Err(_) => {
                    tracing::warn!(attempt = %offer.attempt, "the offer is void before it could be taken");
                    return false;
                }
            }
        }
    }

    /// Begins the spool. A disk that refuses even that fails the job before it began.
    async fn begin_spool(&self, attempt: &Attempt) -> Option<Writer> {
        let (spool, id) = (self.spool.clone(), attempt.id);
        match spawn_blocking(move || spool.begin(id)).await {
            Ok(Ok(writer)) => {
                attempt.attach(writer.progress());
                Some(writer)
            }
            Ok(Err(error)) => {
                tracing::error!(attempt = %id, error = &error as &dyn std::error::Error, "no spool, no job");
                self.report_no_spool(attempt, &error).await;
                None
            }
            Err(_) => None,
        }
    }

    /// Reports a job that could not begin, without a spool.
    async fn report_no_spool(&self, attempt: &Attempt, error: &crate::spool::Error) {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("the agent could not {error}{cause}");
        report_fault(attempt, &self.link, self.timing.reconnect, 1, message).await;
    }

    async fn engine(&self, offer: Offer, attempt: &Attempt, items: &mpsc::Sender<Item>) -> Work {
        let stop = attempt.stop();
        let request = self.request(offer);
        let Ok(Ready { plan, prepared }) = self.runner.prepare(request, items, &stop).await else {
            return Work::Told;
        };
        let verdict = match plan {
            Ok(plan) => self.plan(attempt, plan).await,
            Err(outcome) => Verdict::End(outcome),
        };
        match verdict {
            Verdict::Run => {}
            Verdict::Drop => return Work::HandedBack,
            Verdict::End(outcome) => {
                // A recorder that is gone has nothing to record.
                let _ = items.send(Item::Event(end(outcome))).await;
                return Work::Told;
            }
        }
        if let Err(outcome) = self.keep_fence(attempt).await {
            let _ = items.send(Item::Event(end(outcome))).await;
            return Work::Told;
        }
        attempt.enter(Phase::Running);
        let unattended = attempt.fence_limit().map(|limit| limit / UNATTENDED_PART);
        self.runner.run(prepared, unattended, items, &stop).await;
        Work::Told
    }

    /// Keeps when the attempt ends by itself, where it does, for a process that comes after this one.
    pub(crate) async fn keep_fence(&self, attempt: &Attempt) -> Result<(), Outcome> {
        let Some(after) = attempt.fence_limit() else { return Ok(()) };
        let (spool, id) = (self.spool.clone(), attempt.id);
        let answered = self.lifeline.answered_at();
        let keep = move || {
            let boot = lifeline::boot().unwrap_or_default();
            spool.keep_fence(id, &Fence { after, answered, boot })
        };
        match spawn_blocking(keep).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let cause =
                    std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Err(Outcome::Internal { message: format!("the agent could not {error}{cause}") })
            }
            Err(_) => Err(Outcome::Internal { message: NO_END.to_owned() }),
        }
    }

    /// Asks whether to run a plan, until there is an answer or the job is to end.
    async fn plan(&self, attempt: &Attempt, plan: BuildPlan) -> Verdict {
        let mut stop = attempt.stop();
        let mut backoff = Backoff::new(self.timing.reconnect);
        let ask = async {
            loop {
                match self.link.plan(attempt.id, plan.clone()).await {
                    Ok(planned) => return Ok(planned),
                    Err(error @ (CallError::Fenced(_) | CallError::Rejected(_))) => return Err(error),
                    Err(_) => tokio::time::sleep(backoff.pause()).await,
                }
            }
        };
        let answer = tokio::select! {
            answer = ask => answer,
            _ = stop.wait_for(|stop| *stop != Stop::No) => Ok(Planned::Canceled),
        };
        match answer {
            Ok(Planned::Go { fence_after }) => {
                attempt.fence_after(fence_after);
                Verdict::Run
            }
            Ok(Planned::HandBack) => Verdict::Drop,
            Ok(Planned::Canceled) => {
                let by = who(&stop.borrow()).unwrap_or_else(|| "a user".to_owned());
                Verdict::End(Outcome::Canceled { by })
            }
            Err(CallError::Rejected(why)) => {
                let message = format!("the orchestrator refused the plan of the job: {why}");
                Verdict::End(Outcome::Internal { message })
            }
            Err(error) => {
                tracing::warn!(attempt = %attempt.id, error = %error, "the job is dropped");
                Verdict::Drop
            }
        }
    }

    fn request(&self, offer: Offer) -> JobRequest {
        let Offer { attempt, job, spec, pick, valid_for: _, timeout } = offer;
        let BuildSpec { source, trigger, manifest_path, variables, labels: _, priority: _, cron } = spec;
        let Source { repository, reference, commit } = source;
        let reference = match reference {
            Reference::Default => GitReference::Default,
            Reference::Branch(name) => GitReference::Branch(name),
            Reference::Tag(name) => GitReference::Tag(name),
        };
        JobRequest {
            run: run_id(attempt),
            source: SourceSpec::Git(GitSource { url: repository, reference, commit }),
            manifest_path: manifest_path.map(Into::into),
            trigger,
            facts: EventFacts { cron, ..EventFacts::default() },
            pick,
            part: Part::Whole,
            afterwards: Afterwards::Remove,
            vars: variables,
            process_environment: self.inheritable.clone(),
            identity: JobIdentity {
                build: Some(job.build.get()),
                job: Some(job.to_string()),
                agent: Some(self.name.clone()),
            },
            timeout: Some(timeout.map_or(self.job_timeout, |timeout| timeout.min(self.job_timeout))),
        }
    }
}

fn who(stop: &Stop) -> Option<String> {
    match stop {
        Stop::No => None,
        Stop::Cancel { by } | Stop::Kill { by } => Some(by.clone()),
    }
}

fn end(outcome: Outcome) -> Event {
    let kind = EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 0 };
    Event { at: Timestamp::now(), kind }
}

/// Brings what the engine tells into the spool, batch by batch, until the engine is done. A disk
/// that refuses ends the job. The job's end frees its slot and closes the spool.
async fn record(
    mut writer: Writer,
    mut items: mpsc::Receiver<Item>,
    attempt: Arc<Attempt>,
    slot: Slot,
    metrics: Arc<Metrics>,
) -> Option<Writer> {
    let mut slot = Some(slot);
    let mut batch = Vec::with_capacity(ITEMS);
    while items.recv_many(&mut batch, ITEMS).await > 0 {
        for item in &batch {
            if let Item::Event(event) = item {
                metrics.observe(&event.kind);
            }
        }
        let taken = std::mem::replace(&mut batch, Vec::with_capacity(ITEMS));
        let write = spawn_blocking(move || {
            writer.write(taken);
            writer
        });
        writer = write.await.ok()?;
        if let Some(fault) = writer.fault() {
            if matches!(*attempt.stop().borrow(), Stop::No) {
                tracing::error!(attempt = %attempt.id, fault, "the spool cannot be written; the job is ended");
            }
            attempt.request(Stop::Kill { by: DISK_FAULT.to_owned() });
        }
        if writer.is_finished()
            && let Some(slot) = slot.take()
        {
            attempt.enter(Phase::Clearing);
            drop(slot);
            writer.seal();
        }
    }
    Some(writer)
}

/// Waits for the recorder and closes the spool.
async fn close(recorder: tokio::task::JoinHandle<Option<Writer>>) -> Result<(), Fenced> {
    let mut writer = recorder.await.ok().flatten().ok_or(Fenced)?;
    let no_end = Outcome::Internal { message: NO_END.to_owned() };
    spawn_blocking(move || writer.close(no_end)).await.map_err(|_| Fenced)
}
