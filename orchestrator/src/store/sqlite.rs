//! The store in an SQLite file: one writer, a few readers, WAL, every commit synced.
//!
//! What cannot be written as one statement per table and commit is not done here: rows travel as
//! one JSON array and are taken apart by SQLite, which costs the same for one row and for hundreds.

mod read;
mod write;

use std::{path::Path, path::PathBuf, time::Duration};

use buildr_proto::{
    AttemptId, BuildId,
    build::{Build, BuildEvent, Stage},
    times::JobTimes,
};
use futures_util::future::{BoxFuture, FutureExt};
use sqlx::{
    ConnectOptions, Connection, SqlStr, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Error, Filter, Loaded, Store, StoredAgent, StoredAttempt};
use crate::core::record::Batch;

/// Every schema that was ever released, in order. Never change one: add the next.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "builds", include_str!("migrations/0001_builds.sql")),
    (2, "farm", include_str!("migrations/0002_farm.sql")),
];

/// How many connections read at the same time; each has a thread and a cache of its own.
const READERS: u32 = 3;

/// How long a statement waits for a lock that another program has.
const BUSY: Duration = Duration::from_secs(2);

/// How many commits may wait for the writer, and how many become one transaction at most.
const WAITING: usize = 64;

type Request = (Batch, oneshot::Sender<Result<(), Error>>);

/// The store in an SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    readers: SqlitePool,
    writer: Mutex<Option<(mpsc::Sender<Request>, tokio::task::JoinHandle<()>)>>,
    requests: mpsc::WeakSender<Request>,
}

impl SqliteStore {
    /// Opens the database, makes it where there is none, and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with(path, options(path)).await
    }

    async fn open_with(path: &Path, options: SqliteConnectOptions) -> Result<Self, Error> {
        let writing = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .thread_name(|_| "store-writer".to_owned());
        let mut connection = writing.connect().await.map_err(|error| classify(path, error))?;
        migrate(&mut connection, path).await?;
        let writer = Writer { path: path.to_owned(), options: writing, connection: Some(connection) };
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .min_connections(0)
            .connect_lazy_with(options.read_only(true).thread_name(|n| format!("store-reader-{n}")));
        let (sender, receiver) = mpsc::channel(WAITING);
        let requests = sender.downgrade();
        let task = tokio::spawn(writer.run(receiver));
        Ok(Self { path: path.to_owned(), readers, writer: Mutex::new(Some((sender, task))), requests })
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        classify(&self.path, error)
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .pragma("cache_size", "-4096")
        .disable_statement_logging()
}

/// The one writer.
struct Writer {
    path: PathBuf,
    options: SqliteConnectOptions,
    /// None after a failure: what SQLite has rolled back by itself, as it does on a full disk, the
    /// connection does not know of, and would never begin another transaction.
    connection: Option<SqliteConnection>,
}

impl Writer {
    /// Commits until all handles are gone: what waits is written in one transaction.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(WAITING);
        while requests.recv_many(&mut waiting, WAITING).await > 0 {
            if waiting.len() > 1 {
                let mut all = Batch::default();
                waiting.iter().for_each(|(batch, _)| all.absorb(batch.clone()));
                if self.commit(&all).await.is_ok() {
                    waiting.drain(..).for_each(|(_, done)| drop(done.send(Ok(()))));
                    continue;
                }
            }
            for (batch, done) in waiting.drain(..) {
                // Whoever asked may have gone; the commit stands.
                drop(done.send(self.commit(&batch).await));
            }
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "closing the database failed");
        }
    }

    async fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.options.connect().await.map_err(|error| classify(&self.path, error))?,
        };
        write::commit(&mut connection, batch).await.map_err(|error| error.named(&self.path))?;
        self.connection = Some(connection);
        Ok(())
    }
}

impl Store for SqliteStore {
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            let requests = self.requests.upgrade().ok_or(Error::Closed)?;
            let (done, answer) = oneshot::channel();
            requests.send((batch, done)).await.map_err(|_| Error::Closed)?;
            drop(requests);
            answer.await.map_err(|_| Error::Closed)?
        }
        .boxed()
    }

    fn load(&self) -> BoxFuture<'_, Result<Loaded, Error>> {
        async move { read::load(&self.readers).await.map_err(|error| error.named(&self.path)) }.boxed()
    }

    fn builds_of_keys(&self, keys: Vec<String>) -> BoxFuture<'_, Result<Vec<(String, BuildId)>, Error>> {
        async move { read::keys(&self.readers, &keys).await.map_err(|error| error.named(&self.path)) }.boxed()
    }

    fn build(&self, number: BuildId) -> BoxFuture<'_, Result<Option<Build>, Error>> {
        async move { read::build(&self.readers, number).await.map_err(|error| error.named(&self.path)) }
            .boxed()
    }

    fn newest(&self) -> BoxFuture<'_, Result<Option<BuildId>, Error>> {
        async move {
            let newest: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM builds")
                .fetch_one(&self.readers)
                .await
                .map_err(|error| self.failed(error))?;
            Ok(newest.and_then(|number| BuildId::new(number as u64)))
        }
        .boxed()
    }

    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Build>, Error>> {
        async move { read::list(&self.readers, filter).await.map_err(|error| error.named(&self.path)) }
            .boxed()
    }

    fn events(
        &self,
        number: BuildId,
        after: u64,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<BuildEvent>, Error>> {
        async move {
            read::events(&self.readers, number, after, limit).await.map_err(|error| error.named(&self.path))
        }
        .boxed()
    }

    fn attempt(&self, id: AttemptId) -> BoxFuture<'_, Result<Option<StoredAttempt>, Error>> {
        async move { read::attempt(&self.readers, id).await.map_err(|error| error.named(&self.path)) }.boxed()
    }

    fn times(&self, number: BuildId) -> BoxFuture<'_, Result<Vec<(AttemptId, JobTimes)>, Error>> {
        async move { read::times(&self.readers, number).await.map_err(|error| error.named(&self.path)) }
            .boxed()
    }

    fn stage(&self, attempt: AttemptId, name: String) -> BoxFuture<'_, Result<Option<Stage>, Error>> {
        async move {
            read::stage(&self.readers, attempt, &name).await.map_err(|error| error.named(&self.path))
        }
        .boxed()
    }

    fn agents(&self) -> BoxFuture<'_, Result<Vec<StoredAgent>, Error>> {
        async move { read::agents(&self.readers).await.map_err(|error| error.named(&self.path)) }.boxed()
    }

    fn past(&self, repository: String, limit: u32) -> BoxFuture<'_, Result<Vec<Build>, Error>> {
        async move {
            read::past(&self.readers, &repository, limit).await.map_err(|error| error.named(&self.path))
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.readers.close().await;
            let Some((sender, task)) = self.writer.lock().await.take() else { return };
            drop(sender);
            if let Err(error) = task.await {
                tracing::error!(%error, "the store's writer failed");
            }
        }
        .boxed()
    }
}

/// Brings the schema up to date; refuses one that is newer than this program.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let failed = |error| classify(path, error);
    let has_table: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
    let known = MIGRATIONS[MIGRATIONS.len() - 1].0;
    if has_table > 0 {
        let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
            .fetch_one(&mut *connection)
            .await
            .map_err(failed)?;
        match found {
            Some(found) if found > known => {
                return Err(Error::Newer { path: path.to_owned(), found, known });
            }
            Some(found) if found == known => return Ok(()),
            _ => {}
        }
    }
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    });
    let migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.run(&mut *connection).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => classify(path, error),
        other => Error::Migrate(other),
    })
}

impl Error {
    /// Names the database in an error that does not know it yet.
    fn named(self, path: &Path) -> Self {
        match self {
            Self::Database(error) => classify(path, error),
            other => other,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What an error of SQLite means for who runs the orchestrator.
fn classify(path: &Path, error: sqlx::Error) -> Error {
    let code = match &error {
        sqlx::Error::Database(database) => {
            database.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff)
        }
        sqlx::Error::PoolClosed => return Error::Closed,
        _ => None,
    };
    let path = path.to_owned();
    match code {
        Some(5 | 6) => Error::Locked(path),
        Some(8 | 14) => Error::ReadOnly(path),
        Some(11 | 26) => Error::Corrupt(path),
        Some(13) => Error::Full(path),
        _ => Error::Database(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::{World, spec};

    #[tokio::test]
    async fn a_commit_for_which_there_is_no_room_spoils_no_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buildr.db");
        let store =
            SqliteStore::open_with(&path, options(&path).pragma("max_page_count", "100")).await.unwrap();
        let batch = |repository: &str| {
            let mut world = World::new();
            world.submit("one", spec(repository, 0));
            world.written
        };
        for _ in 0..2 {
            let error = store.commit(batch(&"x".repeat(1 << 20))).await.unwrap_err();
            assert!(matches!(error, Error::Full(_)), "{error:?}");
        }
        store.commit(batch("small")).await.unwrap();
        assert_eq!(store.load().await.unwrap().builds.len(), 1);
    }
}
