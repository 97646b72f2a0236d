//! Where builds, jobs, attempts, stages and events are kept.
//!
//! One trait, so that other databases can follow; every implementation passes the same tests
//! (`store/suite.rs`). The state machine decides, the store remembers: it never changes a row by
//! itself, but it refuses to change one that has its end. Log bytes are not kept here.

mod sqlite;
#[cfg(test)]
mod suite;

use std::{collections::BTreeMap, path::PathBuf};

use buildr_proto::{
    AgentId, AttemptId, BuildId, InstanceId,
    build::{Build, BuildEvent, BuildState, Stage},
    times::JobTimes,
};
use futures_util::future::BoxFuture;

pub use self::sqlite::SqliteStore;
use crate::core::{
    build as active,
    cron::Timetable,
    record::{AgentRow, AttemptState, Batch},
};

/// What a store can do. All times and ids come from the caller.
pub trait Store: Send + Sync + 'static {
    /// Makes a batch durable, all of it or nothing. Once this has returned it survives a crash.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), Error>>;
    /// Everything that is not finished.
    fn load(&self) -> BoxFuture<'_, Result<Loaded, Error>>;
    /// Which of these idempotency keys were used, and for which builds.
    fn builds_of_keys(&self, keys: Vec<String>) -> BoxFuture<'_, Result<Vec<(String, BuildId)>, Error>>;
    /// A build with its jobs and stages.
    fn build(&self, number: BuildId) -> BoxFuture<'_, Result<Option<Build>, Error>>;
    /// The number of the newest build.
    fn newest(&self) -> BoxFuture<'_, Result<Option<BuildId>, Error>>;
    /// Builds without their jobs, newest first.
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Build>, Error>>;
    /// The next events of a build, in order.
    fn events(
        &self,
        number: BuildId,
        after: u64,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<BuildEvent>, Error>>;
    /// Where the time of a build's attempts went, of those that have an event that tells.
    fn times(&self, number: BuildId) -> BoxFuture<'_, Result<Vec<(AttemptId, JobTimes)>, Error>>;
    /// An attempt that was accepted.
    fn attempt(&self, id: AttemptId) -> BoxFuture<'_, Result<Option<StoredAttempt>, Error>>;
    /// How a stage of an attempt stands.
    fn stage(&self, attempt: AttemptId, name: String) -> BoxFuture<'_, Result<Option<Stage>, Error>>;
    /// All agents that have connected and were not forgotten, by name.
    fn agents(&self) -> BoxFuture<'_, Result<Vec<StoredAgent>, Error>>;
    /// The newest builds of a repository that an agent had and that have ended, without their jobs.
    fn past(&self, repository: String, limit: u32) -> BoxFuture<'_, Result<Vec<Build>, Error>>;
    /// Ends the store; every commit that was answered is durable before.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What a store gives at the start.
#[derive(Debug)]
pub struct Loaded {
    /// The number that the next build gets.
    pub next_build: u64,
    /// What is not finished, with its idempotency key.
    pub builds: Vec<(String, active::Build)>,
    /// The agents that get no new work, and who wants that.
    pub drained: BTreeMap<AgentId, String>,
    /// The schedules of all repositories.
    pub timetables: Vec<Timetable>,
}

/// An agent that has connected.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAgent {
    /// As it introduced itself.
    pub row: AgentRow,
    /// Who wants it to get no new work.
    pub drained_by: Option<String>,
}

/// Which builds a list has.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// At most this many.
    pub limit: u32,
    /// Only lower numbers.
    pub before: Option<BuildId>,
    /// Only this repository.
    pub repository: Option<String>,
    /// Only this state; of a finished one the outcome does not matter.
    pub state: Option<&'static str>,
}

/// What is known of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAttempt {
    /// Its build.
    pub build: BuildId,
    /// Its job's index.
    pub job: u32,
    /// Whose it is.
    pub agent: AgentId,
    /// The agent's process that had it last.
    pub instance: InstanceId,
    /// Where it stands.
    pub state: AttemptState,
    /// How many events were reported.
    pub events: u64,
}

/// Why a store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder is in use.
    #[error("the data folder {} is in use by another orchestrator: stop it first, or name another folder with --data", .0.display())]
    InUse(PathBuf),
    /// The database is of a later version.
    #[error(
        "the database {} has schema {found}, and this program knows schemas up to {known}: it was used by a newer buildr-orchestrator, start that one",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// The database cannot be written.
    #[error("the database {} cannot be written: make the file and its folder writable for this user", .0.display())]
    ReadOnly(PathBuf),
    /// The file is not a database, or damaged.
    #[error("the file {} is damaged or not a database of buildr: restore it from a backup, or move it away to start empty", .0.display())]
    Corrupt(PathBuf),
    /// The database is locked by another program.
    #[error("the database {} is locked by another program: close whatever has it open", .0.display())]
    Locked(PathBuf),
    /// There is no space left.
    #[error("no space is left for the database {}: free some on its disk", .0.display())]
    Full(PathBuf),
    /// A file or folder cannot be had.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row was to be changed that has its end, or that is not there.
    #[error("{table}: {changed} of {wanted} rows were changed; the others have ended already")]
    Stale {
        /// The table.
        table: &'static str,
        /// How many were changed.
        changed: u64,
        /// How many should have been.
        wanted: u64,
    },
    /// A row has a value that cannot be.
    #[error("the database has a row that cannot be read: {0}")]
    Row(String),
    /// Anything else that the database says.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// The schema could not be made.
    #[error("the database's schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The word for a state in rows and filters.
pub fn state_word(state: &BuildState) -> &'static str {
    match state {
        BuildState::Queued => "queued",
        BuildState::Running => "running",
        BuildState::Finished(_) => "finished",
    }
}
