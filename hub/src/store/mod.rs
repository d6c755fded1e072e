//! The hub's database: SQLite in WAL mode, synchronous FULL, one writer, a pool of readers. All SQL
//! is in this module; none of its types is in a signature that leaves it.
//!
//! `ledger` is the write path of ingest, `fleet` the register, `people` users and sessions, `views`
//! what pages and API read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

pub mod fleet;
pub mod people;
pub mod views;

/// Why the database did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the database refused: {0}")]
    Database(String),
    /// The hub is stopping.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens the database, creating or upgrading it.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be opened or is not this program's database.
    pub fn open(file: &Path) -> Result<Self, StoreError> {
        let writer = Connection::open(file)?;
        writer.busy_timeout(std::time::Duration::from_secs(10))?;
        writer.pragma_update(None, "journal_mode", "wal")?;
        writer.pragma_update(None, "synchronous", "full")?;
        writer.pragma_update(None, "foreign_keys", true)?;
        let version: i64 = writer.pragma_query_value(None, "user_version", |r| r.get(0))?;
        if version == 0 {
            writer.execute_batch(&format!(
                "BEGIN; {} PRAGMA user_version = 1; COMMIT;",
                include_str!("schema.sql")
            ))?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                file: file.to_path_buf(),
                writer: Mutex::new(writer),
                readers: Mutex::new(Vec::new()),
            }),
        })
    }

    pub(in crate::store) async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let idle = inner
                .readers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop();
            let connection = match idle {
                Some(connection) => connection,
                None => {
                    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                    Connection::open_with_flags(&inner.file, flags)?
                }
            };
            let result = f(&connection);
            inner
                .readers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            Ok(result?)
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }

    pub(in crate::store) async fn write<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || {
            let mut writer = inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = f(&tx)?;
            tx.commit()?;
            Ok(result)
        })
        .await
        .map_err(|_| StoreError::Closed)?
    }
}
