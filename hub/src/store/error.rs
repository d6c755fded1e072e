//! What can go wrong with the database, told by what can be done about it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the database did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("{}: the database cannot be opened: {why}", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// What the system or SQLite said.
        why: String,
    },
    /// There is no database, and who only looks does not make one.
    #[error("{}: there is no database yet; `scc-hub fleet apply` or `scc-hub serve` makes it", .0.display())]
    Missing(PathBuf),
    /// An older version of this program has written the file, and who only looks does not change it.
    #[error("{}: the database has schema {found}, this program reads {known}; starting the hub brings it up to date", file.display())]
    TooOld {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema of this program.
        known: i64,
    },
    /// A newer version of this program has written the file.
    #[error("{}: the database has schema {found}; this program knows up to {known}, so start the version that wrote it", file.display())]
    TooNew {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema of this program.
        known: i64,
    },
    /// The file, or its log, was removed or replaced while it was open: what is committed to it now is
    /// gone when this process ends.
    #[error("{}: the file was removed or replaced while the hub was writing to it; nothing more is stored or acknowledged. Stop the hub, move what is left of hub.sqlite, hub.sqlite-wal and hub.sqlite-shm aside, and restore the last backup: the agents send again what they still hold", .0.display())]
    Gone(PathBuf),
    /// There has been a database here, and now there is none.
    #[error("{}: the database is gone. Move a hub.sqlite-wal and hub.sqlite-shm that are left aside, for they do not belong to a backup. Restore the last backup: the agents send again what they still hold. To begin an empty one instead, remove {}", file.display(), mark.display())]
    Lost {
        /// The file.
        file: PathBuf,
        /// What says that there has been one.
        mark: PathBuf,
    },
    /// A backup would overwrite something.
    #[error("{}: there is a file already; name another, nothing was copied", .0.display())]
    Exists(PathBuf),
    /// Another process held the database for too long; try again.
    #[error("the database is locked by another process: {0}")]
    Busy(String),
    /// No room; try again when there is.
    #[error("the disk of the database is full: {0}")]
    Full(String),
    /// The disk failed; try again, and look at the disk.
    #[error("the disk of the database failed: {0}")]
    Io(String),
    /// The file is damaged: restore a backup, the agents fill the rest.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A rule of the schema refuses the change (a name is taken, a reference dangles).
    #[error("the database refuses the change: {0}")]
    Refused(String),
    /// Anything else that SQLite says; a defect of this program.
    #[error("the database cannot do that: {0}")]
    Sql(String),
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn open(file: &Path, why: impl Into<String>) -> Self {
        Self::Open {
            file: file.to_path_buf(),
            why: why.into(),
        }
    }
}

impl StoreError {
    /// Whether it is about what was to be written or read and not about the disk or another process: tried
    /// again, the same ends the same way.
    pub(crate) const fn is_of_the_content(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Sql(_))
    }

    pub(super) fn of(error: &rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(text),
            Some(ErrorCode::DiskFull) => Self::Full(text),
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                Self::Io(text)
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(text),
            Some(ErrorCode::ConstraintViolation) => Self::Refused(text),
            _ => Self::Sql(text),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::of(&error)
    }
}
