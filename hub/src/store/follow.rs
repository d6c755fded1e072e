//! Reading the ledger as it grows, and copying the whole database, from a process of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use scc_common::id::{Epoch, Seq};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;

use super::{StoreError, number, open};

/// One record of the ledger, for people and scripts.
#[derive(Debug, Clone, PartialEq)]
pub struct Followed {
    /// Its place in the ledger.
    pub id: i64,
    /// Whose.
    pub agent: String,
    /// The life of the buffer.
    pub epoch: Epoch,
    /// The stream; none for a code that this program does not know.
    pub stream: Option<Stream>,
    /// Its number.
    pub seq: Seq,
    /// Which device it is about.
    pub device: Option<String>,
    /// Whether the register knew the device.
    pub declared: bool,
    /// What the agent's clock said when it was captured.
    pub wall_ms: Option<i64>,
    /// When the hub received it.
    pub received_ms: i64,
    /// Length of the whole body, bytes.
    pub size: u64,
    /// Path of its media file.
    pub media: Option<String>,
    /// What it says, without picture or video; none if it is unreadable.
    pub body: Option<RecordBody>,
}

/// Reads records in the order in which they were committed, on a connection of its own.
#[derive(Debug)]
pub struct Follower {
    connection: Connection,
    after: i64,
}

impl Follower {
    /// Begins after the newest record that there is now. The database must exist.
    ///
    /// # Errors
    /// [`StoreError::Open`] if there is no database that this program can read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = existing(path)?;
        let after = connection.query_row("SELECT coalesce(max(id), 0) FROM record", [], |row| {
            row.get(0)
        })?;
        Ok(Self { connection, after })
    }

    /// Records committed since the last call, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn next(&mut self, limit: u32) -> Result<Vec<Followed>, StoreError> {
        let mut rows = self.connection.prepare_cached(
            "SELECT id, agent, epoch, stream, seq, device, declared, wall_ms, received_ms, size, media,
                    CASE readable WHEN 1 THEN body END
             FROM record WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let found = rows
            .query_map((self.after, limit), |row| {
                let epoch: i64 = row.get(2)?;
                let body: Option<Vec<u8>> = row.get(11)?;
                Ok(Followed {
                    id: row.get(0)?,
                    agent: row.get(1)?,
                    epoch: Epoch(epoch.cast_unsigned()),
                    stream: Stream::from_code(row.get(3)?),
                    seq: number(row.get(4)?),
                    device: row.get(5)?,
                    declared: row.get(6)?,
                    wall_ms: row.get(7)?,
                    received_ms: row.get(8)?,
                    size: number(row.get(9)?),
                    media: row.get(10)?,
                    body: body.and_then(|bytes| RecordBody::decode(&bytes).ok()),
                })
            })?
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(newest) = found.last() {
            self.after = newest.id;
        }
        Ok(found)
    }
}

/// What a backup has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// The file.
    pub file: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// How many of them have a media file, which is not in it.
    pub with_media: u64,
}

/// Copies the database to `to` while others write to it. `to` appears only when it is whole and
/// durable.
///
/// # Errors
/// [`StoreError::Exists`] if there is a file at `to`: yesterday's backup is never lost to today's.
/// [`StoreError::Open`] if there is no database at `from`; any [`StoreError`] while copying, after
/// which nothing is left behind.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<BackupReport, StoreError> {
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::Exists(to.to_path_buf()));
    }
    let mut name = to.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = to.with_file_name(name);
    let result = copy(from, &partial).and_then(|(records, with_media)| {
        let settle = || -> std::io::Result<u64> {
            let file = std::fs::File::open(&partial)?;
            file.sync_all()?;
            std::fs::rename(&partial, to)?;
            let folder = to.parent().filter(|p| !p.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        let bytes = settle().map_err(|e| StoreError::open(to, e.to_string()))?;
        Ok(BackupReport {
            file: to.to_path_buf(),
            bytes,
            records,
            with_media,
        })
    });
    if result.is_err() {
        // Best effort: what is left is named `.partial` and is overwritten by the next attempt.
        let _ = std::fs::remove_file(&partial);
    }
    result
}

fn copy(from: &Path, partial: &Path) -> Result<(u64, u64), StoreError> {
    /// Pages per step: 4 MiB, short enough not to hold up the hub's writer.
    const PAGES: i32 = 1_000;
    let source = existing(from)?;
    match std::fs::remove_file(partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(StoreError::open(partial, e.to_string()));
        }
        _ => {}
    }
    open::private(partial).map_err(|e| StoreError::open(partial, e.to_string()))?;
    let mut target =
        Connection::open(partial).map_err(|e| StoreError::open(partial, e.to_string()))?;
    {
        // One read transaction, so that the copy is of one moment and is not begun again each time
        // that the hub commits.
        let _moment = source.unchecked_transaction()?;
        source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let backup = Backup::new(&source, &mut target)?;
        loop {
            match backup.step(PAGES)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    // One file, without a log beside it.
    target.pragma_update(None, "journal_mode", "DELETE")?;
    let check: String = target.query_row("PRAGMA quick_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(StoreError::Damaged(check));
    }
    Ok(
        target.query_row("SELECT count(*), count(media) FROM record", [], |row| {
            Ok((number(row.get(0)?), number(row.get(1)?)))
        })?,
    )
}

/// A connection that cannot write, to a database that must exist.
fn existing(path: &Path) -> Result<Connection, StoreError> {
    open::reader(path).map_err(|e| StoreError::open(path, e.to_string()))
}
