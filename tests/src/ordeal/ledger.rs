//! What the hub has: its database and its media files, read as anybody could.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags, Row};
use scc_common::checksum::Checksum;
use scc_common::stream::Stream;
use scc_hub::media::split;

use super::oracle::{Key, Punch, Punches, Records};

/// A hole that was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Agent, epoch, stream and the first number.
    pub first: Key,
    /// The last number.
    pub last: u64,
    /// Why.
    pub reason: String,
}

/// A stretch of video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// When it begins.
    pub from_ms: i64,
    /// When it ends.
    pub to_ms: i64,
}

/// Video of each (agent, device), in order.
pub type Video = BTreeMap<(String, String), Vec<Stretch>>;

/// The hub's database.
#[derive(Debug)]
pub struct Ledger(Connection);

/// SQLite has no unsigned numbers: the hub keeps the same 64 bits.
fn bits(n: i64) -> u64 {
    n.cast_unsigned()
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    Ok(Key {
        agent: row.get(0)?,
        epoch: bits(row.get(1)?),
        stream: row.get(2)?,
        seq: bits(row.get(3)?),
    })
}

impl Ledger {
    /// Opens the database for reading.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(database: &Path) -> anyhow::Result<Self> {
        let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| database.display().to_string())?;
        db.busy_timeout(Duration::from_secs(5))?;
        Ok(Self(db))
    }

    /// Every record. A key that comes twice would be an error of the database itself: counted by
    /// [`count`](Self::count).
    ///
    /// # Errors
    /// If the database cannot be read; so for all that follow.
    pub fn records(&self) -> anyhow::Result<Records> {
        let mut query = self
            .0
            .prepare("SELECT agent, epoch, stream, seq, lower(hex(sum)) FROM record")?;
        let rows = query.query_map([], |row| Ok((key(row)?, row.get(4)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Every punch.
    ///
    /// # Errors
    /// As above.
    pub fn punches(&self) -> anyhow::Result<Punches> {
        let mut query = self
            .0
            .prepare("SELECT serial, user, local_s, state, verify FROM punch")?;
        let rows = query.query_map([], |row| {
            Ok(Punch {
                serial: row.get(0)?,
                user: row.get(1)?,
                local_s: row.get(2)?,
                state: row.get(3)?,
                verify: row.get(4)?,
            })
        })?;
        let mut punches = Punches::new();
        for punch in rows {
            *punches.entry(punch?).or_default() += 1;
        }
        Ok(punches)
    }

    /// Every hole that was announced.
    ///
    /// # Errors
    /// As above.
    pub fn gaps(&self) -> anyhow::Result<Vec<Gap>> {
        let mut query = self
            .0
            .prepare("SELECT agent, epoch, stream, first, last, reason FROM gap")?;
        let rows = query.query_map([], |row| {
            Ok(Gap {
                first: key(row)?,
                last: bits(row.get(4)?),
                reason: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What cameras showed, by the segments that are here.
    ///
    /// # Errors
    /// As above.
    pub fn video(&self) -> anyhow::Result<Video> {
        let mut query = self.0.prepare(
            "SELECT agent, device, captured_ms, duration_ms FROM picture WHERE stream = ?1 ORDER BY captured_ms",
        )?;
        let rows = query.query_map([Stream::Segment.code()], |row| {
            let (from_ms, lasts): (i64, i64) = (row.get(2)?, row.get(3)?);
            let to_ms = from_ms + lasts;
            Ok(((row.get(0)?, row.get(1)?), Stretch { from_ms, to_ms }))
        })?;
        let mut video = Video::new();
        for row in rows {
            let (camera, stretch) = row?;
            video.entry(camera).or_default().push(stretch);
        }
        Ok(video)
    }

    /// The number that a query gives.
    ///
    /// # Errors
    /// As above.
    pub fn count(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(self.0.query_row(sql, [], |row| row.get(0))?)
    }

    /// Records whose bytes, row and media file put together, do not give their checksum.
    ///
    /// # Errors
    /// As above.
    pub fn damaged(&self, media: &Path) -> anyhow::Result<Vec<Key>> {
        let mut query = self
            .0
            .prepare("SELECT agent, epoch, stream, seq, sum, body, media FROM record")?;
        let mut rows = query.query([])?;
        let mut damaged = Vec::new();
        while let Some(row) = rows.next()? {
            let sum: [u8; 16] = row.get(4)?;
            let (rest, file): (Option<Vec<u8>>, Option<String>) = (row.get(5)?, row.get(6)?);
            // a file that is not there is what is looked for
            let file = file.map(|name| std::fs::read(media.join(name)).unwrap_or_default());
            let body = match (rest, file) {
                (Some(rest), Some(file)) => split::join(&rest, file).ok(),
                (rest, file) => rest.or(file),
            };
            if body.is_none_or(|body| Checksum::of(&body).0 != sum) {
                damaged.push(key(row)?);
            }
        }
        Ok(damaged)
    }
}
