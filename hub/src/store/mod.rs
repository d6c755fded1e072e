//! The hub's database: SQLite in WAL mode, synchronous FULL, one writer, a pool of readers. All SQL
//! is in this module; none of its types is in a signature that leaves it.
//!
//! `ledger` is the write path of ingest, `fleet` the register, `people` users and sessions, `views`
//! what pages and API read, `compared` what came of the daily comparison, `imports` what operators brought in, `follow` what `tail` and `backup` need.
//!
//! Promises: what a write returned `Ok` for survives a power cut; a read sees one moment of
//! the database, however many statements it is made of; a write never waits for a reader, nor a
//! reader for a write.

mod compared;
mod error;
pub mod fleet;
mod follow;
mod imports;
mod ledger;
mod open;
pub mod people;
mod present;
pub mod views;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, mpsc, oneshot};

use present::Present;

pub use compared::Difference;
pub use error::StoreError;
pub(crate) use follow::backup;
pub use follow::{BackupReport, Followed, Follower};
pub use imports::{ImportCounts, ImportSource};
pub use ledger::{
    Commit, LaneKey, LaneWants, MAX_SEQ, NewRecord, Outcome, RecordKey, StoredBody, Unreadable,
    Write, is_noted,
};

/// Readers of pages and API at one time. More wait; a page's reads take milliseconds.
const READERS: usize = 4;

/// Readers of ingest at one time, beside those: no crowd of pages delays an answer to a hello.
const INGEST_READERS: usize = 2;

/// Writes that wait for the writer. More wait outside, which is the back-pressure.
const WRITES: usize = 64;

/// The one connection that writes, and its files.
struct Writer {
    connection: Connection,
    present: Present,
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// A handle on the database; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    writer: mpsc::Sender<Job>,
    readers: Mutex<Vec<Connection>>,
    permits: Semaphore,
    ingest_permits: Semaphore,
    lanes: Mutex<ledger::Lanes>,
}

impl Store {
    /// Opens the database, creates it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the file cannot be used, [`StoreError::TooNew`] if a newer version
    /// of this program wrote it, [`StoreError::Lost`] if there has been one and it is gone.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open::writer(path)?;
        let present = Present::of(path)?;
        let mut at_work = Writer {
            connection,
            present,
        };
        let (writer, mut jobs) = mpsc::channel::<Job>(WRITES);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                while let Some(job) = jobs.blocking_recv() {
                    job(&mut at_work);
                }
            })
            .map_err(|e| StoreError::open(path, e.to_string()))?;
        Ok(Self::with(path, writer))
    }

    /// Opens a database for looking only: it is neither made nor changed, and every write is
    /// [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none, [`StoreError::TooOld`] and [`StoreError::TooNew`] if
    /// its schema is another than this program's, [`StoreError::Open`] if it cannot be read.
    pub fn look(path: &Path) -> Result<Self, StoreError> {
        open::readable(path)?;
        let (nobody, _) = mpsc::channel(1);
        Ok(Self::with(path, nobody))
    }

    fn with(path: &Path, writer: mpsc::Sender<Job>) -> Self {
        Self {
            inner: Arc::new(Inner {
                file: path.to_path_buf(),
                writer,
                readers: Mutex::new(Vec::new()),
                permits: Semaphore::new(READERS),
                ingest_permits: Semaphore::new(INGEST_READERS),
                lanes: Mutex::new(ledger::Lanes::default()),
            }),
        }
    }

    /// Runs queries that see one moment of the database.
    ///
    /// # Errors
    /// [`StoreError`], by kind of trouble.
    pub(in crate::store) async fn read<T, F>(&self, queries: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_with(&self.inner.permits, queries).await
    }

    /// As [`read`](Self::read), on the readers that only ingest has.
    ///
    /// # Errors
    /// [`StoreError`], by kind of trouble.
    pub(in crate::store) async fn read_for_ingest<T, F>(&self, queries: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.read_with(&self.inner.ingest_permits, queries).await
    }

    async fn read_with<T, F>(&self, permits: &Semaphore, queries: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let _permit = permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let idle = lock(&inner.readers).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open::reader(&inner.file)?,
            };
            let result = moment(&connection, queries);
            // A connection that has just failed may be in any condition; the next read opens anew.
            if result.is_ok() {
                lock(&inner.readers).push(connection);
            }
            Ok(result?)
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }

    /// Runs one transaction on the writer. It is durable when this returns `Ok`, and has left no
    /// trace when this returns an error; only after [`StoreError::Gone`] it may have.
    ///
    /// # Errors
    /// [`StoreError`], by kind of trouble.
    pub(in crate::store) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let done = transaction(&mut writer.connection, work).map_err(StoreError::from);
            let done = done.and_then(|value| writer.present.check().map(|()| value));
            // Who asked may have gone away; the transaction stands either way.
            let _ = reply.send(done);
        });
        self.inner
            .writer
            .send(job)
            .await
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

impl Store {
    /// Waits until the writer has come past what was asked of it before: it is alive, whether or not
    /// the disk takes anything.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if it has ended.
    pub async fn writer_answers(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |_| {
            let _ = reply.send(());
        });
        let sent = self.inner.writer.send(job).await;
        sent.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

fn moment<T>(
    connection: &Connection,
    queries: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let snapshot = connection.unchecked_transaction()?;
    let value = queries(&snapshot)?;
    snapshot.finish()?;
    Ok(value)
}

fn transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

/// The guarded values are replaced as a whole or append-only, so a panic elsewhere leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A count or a record's number as the database has it: SQLite's integers are signed, and none of
/// ours is negative.
fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn who_only_looks_makes_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state").join("hub.sqlite");
        assert_eq!(
            Store::look(&path).unwrap_err(),
            StoreError::Missing(path.clone())
        );
        assert!(!path.parent().unwrap().exists());
        drop(Store::open(&path).unwrap());
        let store = Store::look(&path).unwrap();
        assert!(store.declared().await.unwrap().is_none());
        let refused = store.write(|tx| tx.execute("DELETE FROM user", [])).await;
        assert_eq!(refused, Err(StoreError::Closed));
        let old = Connection::open(&path).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        assert!(matches!(
            Store::look(&path),
            Err(StoreError::TooOld { found: 1, .. })
        ));
    }

    #[tokio::test]
    async fn a_crowd_of_pages_does_not_keep_ingest_from_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("hub.sqlite")).unwrap();
        let mut pages = Vec::new();
        let mut busy = Vec::new();
        for _ in 0..READERS {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let (begin, begun) = oneshot::channel();
            let store = store.clone();
            pages.push(tokio::spawn(async move {
                let read = store.read(move |_| {
                    let _ = begin.send(());
                    let _ = held.recv();
                    Ok(())
                });
                read.await
            }));
            begun.await.unwrap();
            busy.push(release);
        }
        let read = store.read_for_ingest(|c| c.query_row("SELECT 1", [], |r| r.get::<_, i64>(0)));
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), read).await;
        drop(busy);
        assert_eq!(read.unwrap(), Ok(1));
        for page in pages {
            page.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn nobody_else_can_read_the_database_its_log_or_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let (path, copy) = (state.join("hub.sqlite"), dir.path().join("copy.sqlite"));
        let store = Store::open(&path).unwrap();
        store
            .write(|tx| tx.execute("DELETE FROM user", []))
            .await
            .unwrap();
        backup(&path, &copy).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        let log = state.join("hub.sqlite-wal");
        assert_eq!([mode(&path), mode(&log), mode(&copy)], [0o600; 3]);
    }
}
