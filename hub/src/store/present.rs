//! That the files which are written are the ones a next start will find.
//!
//! A file that is removed or replaced while it is open goes on taking commits, and everything in it is
//! gone when the process ends. So nothing counts as durable before the database and its log have been
//! found under their names, as the same files, *after* the commit.
//!
//! And a hub that finds no database where there has been one does not quietly begin an empty one:
//! it would have no users, no fleet, and no word for what is lost.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::StoreError;

/// Device and inode.
type Identity = (u64, u64);

/// The open files of one database.
#[derive(Debug)]
pub(super) struct Present {
    database: PathBuf,
    log: PathBuf,
    known: Identity,
    /// Made by `SQLite` with the first read or write; none until it has been seen.
    known_log: Option<Identity>,
}

impl Present {
    /// Of a database that has just been opened.
    pub(super) fn of(database: &Path) -> Result<Self, StoreError> {
        let known = identity(database).map_err(|e| StoreError::open(database, e.to_string()))?;
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        Ok(Self {
            database: database.to_path_buf(),
            known,
            known_log: identity(&log).ok(),
            log,
        })
    }

    /// Whether both are still where they were.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if not. A disk that does not say is asked again after the next commit: what has
    /// been committed is no reason to call it uncommitted.
    pub(super) fn check(&mut self) -> Result<(), StoreError> {
        same(&self.database, self.known)?;
        match self.known_log {
            Some(known) => same(&self.log, known),
            None => {
                self.known_log = identity(&self.log).ok();
                Ok(())
            }
        }
    }
}

fn same(file: &Path, known: Identity) -> Result<(), StoreError> {
    match identity(file) {
        Ok(now) if now == known => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "whether the file is still there cannot be asked");
            Ok(())
        }
        _ => Err(StoreError::Gone(file.to_path_buf())),
    }
}

fn identity(file: &Path) -> io::Result<Identity> {
    std::fs::metadata(file).map(|meta| (meta.dev(), meta.ino()))
}

/// A database has been here: an empty file beside it, which stays when the database does not.
fn mark(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".begun");
    name.into()
}

/// Refuses to begin an empty database where there has been one.
pub(super) fn not_lost(database: &Path) -> Result<(), StoreError> {
    let mark = mark(database);
    let lost = mark.exists() && !database.exists();
    let file = database.to_path_buf();
    if lost {
        return Err(StoreError::Lost { file, mark });
    }
    Ok(())
}

/// From now on a database is expected here.
pub(super) fn begun(database: &Path) -> io::Result<()> {
    let mark = mark(database);
    if mark.exists() {
        // nothing is written, so that a hub starts on a full disk
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(mark).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    async fn write(store: &Store) -> Result<usize, StoreError> {
        store
            .write(|tx| tx.execute("UPDATE fleet SET name = name", []))
            .await
    }

    #[tokio::test]
    async fn nothing_is_durable_in_a_file_that_is_no_longer_there() {
        for gone in ["hub.sqlite", "hub.sqlite-wal"] {
            for replaced in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("hub.sqlite");
                let store = Store::open(&path).unwrap();
                write(&store).await.unwrap();
                let file = dir.path().join(gone);
                let copy = std::fs::read(&file).unwrap();
                std::fs::remove_file(&file).unwrap();
                if replaced {
                    // a file of its own, so that the number of the removed one is not given again
                    let other = dir.path().join("other");
                    std::fs::write(&other, copy).unwrap();
                    std::fs::rename(other, &file).unwrap();
                }
                assert_eq!(write(&store).await, Err(StoreError::Gone(file)));
            }
        }
    }

    #[tokio::test]
    async fn a_lost_database_is_not_begun_anew_without_being_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sqlite");
        drop(Store::open(&path).unwrap());
        let copy = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lost = Store::open(&path).unwrap_err();
        let StoreError::Lost { mark, .. } = &lost else {
            panic!("{lost}");
        };
        assert!(lost.to_string().contains("Restore"), "{lost}");
        // either way on: a backup is put in place …
        std::fs::write(&path, copy).unwrap();
        drop(Store::open(&path).unwrap());
        // … or the administrator says that it is to begin empty
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(mark).unwrap();
        Store::open(&path).unwrap();
    }
}
