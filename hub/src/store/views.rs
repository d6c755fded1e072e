//! What pages, API and the fleet's live state read. Reading only; every query is bounded by an index
//! and by a day or a device, so that a page costs the same after ten years as on the first day.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::clock::{ClockQuality, Dated, WallMs};
use scc_common::id::{AgentId, DeviceId};
use scc_common::stream::Stream;

use super::{Store, StoreError};

pub(super) mod counted;
mod receipt;
mod remembered;

pub use receipt::{Basis, Day, GapRow, Receipt, StreamReceipt};
pub use remembered::Remembered;

/// A stored picture or piece of video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its record.
    pub record: i64,
    /// The camera.
    pub device: DeviceId,
    /// When it was captured, by the best that is known, and not after its arrival.
    pub captured_ms: WallMs,
    /// That time as told, corrected, and what it is worth.
    pub dated: Option<Dated>,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Seconds between two stills.
    pub cadence_s: Option<u32>,
}

/// The day of one terminal: what the machine says it has, and what is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalDay {
    /// The terminal.
    pub device: DeviceId,
    /// Punches of the day that are here.
    pub stored: u64,
    /// Different people among them.
    pub people: u64,
    /// The newest read of the machine's whole log, if there has been one on or after that day.
    pub read: Option<Read>,
}

/// One read of a terminal's whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// When.
    pub at_ms: WallMs,
    /// Punches of the day in the machine's own log.
    pub machine: u64,
    /// Whether it reached the last record.
    pub complete: bool,
    /// Terminal's clock − box's clock, milliseconds.
    pub drift_ms: Option<i64>,
}

/// A punch, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PunchRow {
    /// The terminal.
    pub device: DeviceId,
    /// The person's number on the terminal.
    pub user: String,
    /// The terminal's own clock, seconds since 2000-01-01 00:00 in its zone.
    pub local_s: i64,
    /// In/out key as sent.
    pub state: u8,
    /// How the person was verified, as sent.
    pub verify: u8,
    /// When it arrived at the hub.
    pub received_ms: WallMs,
}

/// Where a record's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAt {
    /// Whose.
    pub agent: AgentId,
    /// Its stream.
    pub stream: Stream,
    /// Path in the object store.
    pub path: String,
}

impl Store {
    /// The newest still of each camera of a site that has one.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn newest_pictures(
        &self,
        agent: AgentId,
        cameras: Vec<DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Picture>, StoreError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT record, captured_ms, p.width, p.height, p.cadence_s, r.wall_ms, r.corrected_ms, r.quality
                 FROM picture p JOIN record r ON r.id = p.record
                 WHERE p.agent = ?1 AND p.device = ?2 AND p.stream = ?3 ORDER BY p.captured_ms DESC LIMIT 1",
            )?;
            let mut found = BTreeMap::new();
            for device in cameras {
                let picture = query
                    .query_row(params![agent.as_str(), device.as_str(), Stream::Snapshot.code()], |r| {
                        Ok(Picture {
                            record: r.get(0)?,
                            device: device.clone(),
                            captured_ms: r.get(1)?,
                            width: r.get(2)?,
                            height: r.get(3)?,
                            cadence_s: r.get(4)?,
                            dated: dated(r, 5)?,
                        })
                    })
                    .optional()?;
                found.extend(picture.map(|p| (device, p)));
            }
            Ok(found)
        })
        .await
    }

    /// The day (`yyyy-mm-dd`, beginning at `from_ms`) of each of these terminals.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn terminal_days(
        &self,
        terminals: Vec<(AgentId, DeviceId)>,
        day: String,
        from_ms: WallMs,
    ) -> Result<BTreeMap<(AgentId, DeviceId), TerminalDay>, StoreError> {
        self.read(move |db| {
            terminals
                .into_iter()
                .map(|(agent, device)| {
                    let found = terminal_day(db, &agent, &device, &day, from_ms)?;
                    Ok(((agent, device), found))
                })
                .collect()
        })
        .await
    }

    /// Punches of a site on a day, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn punches(
        &self,
        agent: AgentId,
        terminals: Vec<DeviceId>,
        day: String,
        limit: u32,
    ) -> Result<Vec<PunchRow>, StoreError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT user, local_s, state, verify, received_ms FROM punch
                 WHERE agent = ?1 AND device = ?2 AND day = ?3 ORDER BY local_s DESC LIMIT ?4",
            )?;
            let mut rows = Vec::new();
            for device in terminals {
                let found =
                    query.query_map(params![agent.as_str(), device.as_str(), day, limit], |r| {
                        Ok(PunchRow {
                            device: device.clone(),
                            user: r.get(0)?,
                            local_s: r.get(1)?,
                            state: r.get(2)?,
                            verify: r.get(3)?,
                            received_ms: r.get(4)?,
                        })
                    })?;
                for row in found {
                    rows.push(row?);
                }
            }
            rows.sort_by_key(|p| std::cmp::Reverse(p.local_s));
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(rows)
        })
        .await
    }

    /// Where the bytes of a picture or a piece of video are; none if the record has no file.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn media_at(&self, record: i64) -> Result<Option<MediaAt>, StoreError> {
        self.read(move |db| {
            let row = db
                .query_row(
                    "SELECT agent, stream, media FROM picture WHERE record = ?1",
                    [record],
                    |r| Ok((r.get::<_, String>(0)?, r.get::<_, u8>(1)?, r.get(2)?)),
                )
                .optional()?;
            Ok(row.and_then(|(agent, stream, path)| {
                Some(MediaAt {
                    agent: AgentId::new(agent).ok()?,
                    stream: Stream::from_code(stream)?,
                    path,
                })
            }))
        })
        .await
    }

    /// That the database answers.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|db| db.query_row("SELECT 1", [], |_| Ok(())))
            .await
    }
}

fn terminal_day(
    db: &Connection,
    agent: &AgentId,
    device: &DeviceId,
    day: &str,
    from_ms: WallMs,
) -> rusqlite::Result<TerminalDay> {
    let (stored, people) = db
        .prepare_cached("SELECT count(*), count(DISTINCT user) FROM punch WHERE agent = ?1 AND device = ?2 AND day = ?3")?
        .query_row(params![agent.as_str(), device.as_str(), day], |r| Ok((count(r, 0)?, count(r, 1)?)))?;
    let read = db
        .prepare_cached(
            "SELECT at_ms, complete, drift_ms, per_day FROM terminal_read
             WHERE agent = ?1 AND device = ?2 AND at_ms >= ?3 ORDER BY at_ms DESC LIMIT 1",
        )?
        .query_row(params![agent.as_str(), device.as_str(), from_ms], |r| {
            let days: Vec<(String, u64)> =
                serde_json::from_str(&r.get::<_, String>(3)?).unwrap_or_default();
            Ok(Read {
                at_ms: r.get(0)?,
                complete: r.get(1)?,
                drift_ms: r.get(2)?,
                machine: days.iter().find(|(d, _)| d == day).map_or(0, |(_, n)| *n),
            })
        })
        .optional()?;
    Ok(TerminalDay {
        device: device.clone(),
        stored,
        people,
        read,
    })
}

/// Three columns, from this one on: `wall_ms, corrected_ms, quality`. None for what is unreadable.
fn dated(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Option<Dated>> {
    let (told, quality): (Option<WallMs>, Option<String>) = (row.get(at)?, row.get(at + 2)?);
    let Some((told_ms, quality)) = told.zip(quality) else {
        return Ok(None);
    };
    Ok(Some(Dated {
        told_ms,
        corrected_ms: row.get(at + 1)?,
        clock: match quality.as_str() {
            "ntp" => ClockQuality::Ntp,
            "hub" => ClockQuality::Hub,
            _ => ClockQuality::Unconfirmed,
        },
    }))
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, Option<i64>>(at)
        .map(|n| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}
