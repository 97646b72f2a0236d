//! Takes over a job whose engine's process is no more: tells the listener what it has not heard, finds
//! the containers again, and goes on. Neither the build nor who reads of it need notice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use buildr_manifest::{Outcome, StageName};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Run,
    boot::{Booted, Presence, Wanted},
    far, internal,
    stage::number,
};
use crate::{
    Finished,
    claim::Claim,
    clock,
    container::Container,
    control::ControlFolder,
    engine::Inner,
    estate::Estate,
    feed::{Feed, StopSignal},
    job::{Heard, Item, Output, Prepared, SourceSpec},
    journal::ContainerRecord,
    labels::{self, State},
    link::Connection,
    past::{Past, StagePast},
    prepare::source_error,
    removal,
    run_folder::RunFolder,
    source::Pinned,
};

/// How long an init that runs may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Goes on with a job, for a listener that has heard so much of it.
pub(crate) async fn adopt(
    engine: &Arc<Inner>,
    estate: Estate,
    heard: Heard,
    items: &mpsc::Sender<Item>,
    stop: StopSignal,
) -> Finished {
    let Estate { folder, journal, past } = estate;
    let feed = Feed::new(items.clone(), Some(journal.clone()));
    let begun = past.begun.clone();
    let age = clock::since_boot().saturating_sub(begun.at);
    let prepared = Prepared {
        request: begun.request.clone(),
        plan: past.plan.clone(),
        build: None,
        workspace: begun.workspace.clone(),
        commit: past.commit.clone(),
        branch: begun.context.branch.clone(),
        tag: begun.context.tag.clone(),
        claim: Claim {
            folder,
            since: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            journal: Some(journal),
            begun,
            pinned: None,
        },
    };
    let mut told = heard;
    let retold = retell(&past, &prepared.claim.folder, &feed, &mut told).await;
    let (mut state, finished) = (past.state.clone(), past.finished.clone());
    let mut run = Run::new(engine, &prepared, (&feed, &stop), Some(past));
    run.deadline = far(Instant::now(), run.limit.saturating_sub(age));
    run.told = told.logs;
    if let Some(outcome) = finished {
        run.clean_up().await;
        return Finished { outcome };
    }
    let files = match retold {
        Ok(()) => run.missing_files().await,
        Err(outcome) => Err(outcome),
    };
    match files {
        Ok(pinned) => run.carry_out(state, pinned).await,
        Err(outcome) => {
            state.decided(outcome);
            let outcome = state.outcome();
            run.finish(None, &state, prepared.claim.since).await;
            Finished { outcome }
        }
    }
}

/// Tells what was told before and not heard, each event after the output that belongs before it.
async fn retell(past: &Past, folder: &RunFolder, feed: &Feed, heard: &mut Heard) -> Result<(), Outcome> {
    for (place, event) in (0_u64..).zip(&past.events) {
        if let Some((stage, offset)) = event.kind.position() {
            catch_up(past, folder, feed, (stage, offset), heard).await?;
        }
        if place >= heard.events {
            feed.again(event.clone()).await;
        }
    }
    heard.events = heard.events.max(past.events.len() as u64);
    Ok(())
}

/// Passes on a stage's log up to an offset.
async fn catch_up(
    past: &Past,
    folder: &RunFolder,
    feed: &Feed,
    (stage, to): (&StageName, u64),
    heard: &mut Heard,
) -> Result<(), Outcome> {
    let from = heard.logs.entry(stage.clone().into()).or_insert(0);
    let Some(at) = past.at(stage).filter(|_| *from < to) else { return Ok(()) };
    let own = past.plan.job.stages[at].image.is_some().then_some(at);
    let control = folder.control(own).map_err(|error| internal(&error))?;
    let control = Arc::new(ControlFolder::open(&control).map_err(|error| internal(&error))?);
    let tries = past.stages.get(&at).map_or(&[][..], |stage| &stage.tries);
    while *from < to {
        let Some(of) = tries.iter().rposition(|one| one.base <= *from) else { return Ok(()) };
        let (one, end) = (&tries[of], tries.get(of + 1).map_or(to, |next| next.base.min(to)));
        let (control, number) = (control.clone(), number(at, one.attempt));
        let (begin, end) = (*from - one.base, end - one.base);
        let read = crate::blocking(move || Ok(control.log(number).and_then(|mut log| log.read(begin, end))));
        let pieces = read.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        for piece in pieces {
            let (offset, end) = (one.base + piece.offset, one.base + piece.offset + piece.data.len() as u64);
            let times = piece.times.into_iter().map(|(at, time)| (one.base + at, time)).collect();
            feed.output(Output { log: stage.clone().into(), offset, data: piece.data, times }).await;
            *from = end;
        }
    }
    Ok(())
}

impl Run<'_> {
    /// Where the files of the commit were not all here: that commit again, for an empty workspace.
    async fn missing_files(&self) -> Result<Option<Pinned>, Outcome> {
        let Some(past) = self.past.as_ref().filter(|past| !past.has_files) else { return Ok(None) };
        let SourceSpec::Git(git) = &self.prepared.request.source else { return Ok(None) };
        let path = self.folder().workspace();
        let emptied = crate::blocking(move || removal::remove_tree(&path));
        emptied.await.map_err(|error| internal(&error))?;
        self.folder().make_workspace().map_err(|error| internal(&error))?;
        let mut git = git.clone();
        git.commit = past.commit.clone().or(git.commit);
        let cancel = CancellationToken::new();
        let pinned = self.unless_interrupted(self.engine.sources().pin(&git, &cancel)).await?;
        pinned.map(Some).map_err(source_error)
    }

    /// The container that an earlier engine made, where that was ready or still runs; none where a new
    /// one does as well. What is in the way of a new one is removed.
    pub(super) async fn find(&self, wanted: &Wanted<'_>) -> Result<Option<Booted>, Outcome> {
        let Some(past) = &self.past else { return Ok(None) };
        let Some(record) = past.containers.get(&wanted.stage) else { return Ok(None) };
        let (config, run) = (&self.engine.config, &self.prepared.request.run);
        let found = labels::containers(&self.engine.daemon, &config.owner, Some(run)).await;
        let found = found.map_err(|error| internal(&error))?;
        let found = found.into_iter().find(|container| container.name == record.name);
        let running = found.as_ref().filter(|container| container.state == State::Running);
        if let Some(container) = running.filter(|_| past.ready.contains(&wanted.stage)) {
            return self.attach_again(&container.id, wanted, record.clone()).await.map(Some);
        }
        if self.has_run_in(wanted.stage, past) {
            return Ok(Some(self.ended_unseen(wanted, record.clone())?));
        }
        if let Some(container) = found {
            let removed = labels::remove_container(&self.engine.daemon, &container.id).await;
            removed.map_err(|error| internal(&error))?;
        }
        Ok(None)
    }

    /// True where something of the build has run in the container: there is no other one like it.
    fn has_run_in(&self, container: Option<usize>, past: &Past) -> bool {
        let is_in = |at: usize| self.texts.stages[at].image.as_ref().map(|_| at) == container;
        past.stages.iter().any(|(at, stage)| is_in(*at) && !stage.tries.is_empty())
    }

    async fn attach_again(
        &self,
        id: &str,
        wanted: &Wanted<'_>,
        record: ContainerRecord,
    ) -> Result<Booted, Outcome> {
        let container = Container::of(&self.engine.daemon, id);
        let connection = container.attach().await.map_err(|error| internal(&error))?;
        let booted = self.booted((container, connection), self.control(wanted.stage)?, wanted, record);
        let answered = timeout(ANSWER_LIMIT, booted.link.shows(|board| board.ready));
        match self.unless_killed(answered).await? {
            Ok(true) => Ok(booted),
            // It has ended in this moment: its stages say so.
            Ok(false) => Ok(booted),
            Err(_) => Err(Outcome::Internal { message: "the build container does not answer".to_owned() }),
        }
    }

    /// A container that is no more, for the sake of what it has left.
    fn ended_unseen(&self, wanted: &Wanted<'_>, record: ContainerRecord) -> Result<Booted, Outcome> {
        let container = Container::of(&self.engine.daemon, record.name.clone());
        let nothing = Connection {
            output: Box::pin(futures_util::stream::empty()),
            input: Box::pin(tokio::io::sink()),
        };
        let mut booted = self.booted((container, nothing), self.control(wanted.stage)?, wanted, record);
        booted.link.close();
        booted.presence = Presence::EndedUnseen;
        Ok(booted)
    }

    fn control(&self, stage: Option<usize>) -> Result<ControlFolder, Outcome> {
        let path = self.folder().control(stage).map_err(|error| internal(&error))?;
        ControlFolder::open(&path).map_err(|error| internal(&error))
    }

    /// What a stage has been through, where it had begun.
    pub(super) fn stage_past(&self, at: usize) -> Option<&StagePast> {
        self.past.as_ref()?.stages.get(&at)
    }
}
