//! The delivery receipt: what a site has taken on a day, and what became of it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use scc_common::clock::WallMs;
use scc_common::id::AgentId;
use scc_common::stream::Stream;
use scc_common::wire::GapReason;

use super::count;
use crate::store::{Store, StoreError};

/// The delivery receipt of one stream: taken = stored + queued + lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamReceipt {
    /// Captured since the day began and in the database. What was taken at a time that nobody knows counts
    /// on the day of its arrival.
    pub stored: u64,
    /// Told by the agent and not here yet.
    pub queued: u64,
    /// Lost to gaps since the day began.
    pub lost: u64,
    /// Arrived more than once since the day began, and stored once.
    pub duplicates: u64,
}

impl StreamReceipt {
    /// What the site has taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.stored + self.queued + self.lost
    }
}

/// A gap, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapRow {
    /// Its stream.
    pub stream: Stream,
    /// Records lost.
    pub lost: u64,
    /// Why.
    pub reason: GapReason,
    /// When.
    pub at_ms: WallMs,
}

/// The delivery receipt of one site and day.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// Each stream that has anything to show, highest priority first.
    pub streams: Vec<(Stream, StreamReceipt)>,
    /// Gaps of the day, newest first, at most twenty.
    pub gaps: Vec<GapRow>,
    /// Records of the day that could not be read.
    pub unreadable: u64,
    /// Stored records of the day whose time is not as their box told it, but corrected.
    pub corrected: u64,
    /// Stored records of the day of which nobody knows when they were taken.
    pub undated: u64,
    /// Records of the day under whose number something else is stored; both are kept.
    pub conflicts: u64,
    /// When the agent last told how far it has numbered, by the hub's clock; none if it has not since
    /// the day began. What it has taken and not sent is in `queued` only as far as it has told.
    pub told_ms: Option<WallMs>,
}

impl Store {
    /// The delivery receipt of a site for the day that begins at `from_ms`.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn receipt(
        &self,
        agent: AgentId,
        day: String,
        from_ms: WallMs,
    ) -> Result<Receipt, StoreError> {
        self.read(move |db| receipt(db, &agent, &day, from_ms))
            .await
    }
}

fn receipt(
    db: &Connection,
    agent: &AgentId,
    day: &str,
    from_ms: WallMs,
) -> rusqlite::Result<Receipt> {
    let mut per: BTreeMap<u8, StreamReceipt> = BTreeMap::new();
    let (mut unreadable, mut corrected, mut undated) = (0, 0, 0);
    // what was captured today has arrived today: the index on arrival bounds the scan
    // of an unconfirmed clock without a correction, only the arrival is certain
    let mut query = db.prepare_cached(
        "SELECT stream, count(*), sum(readable = 0), sum(corrected_ms IS NOT NULL),
           sum(quality IS 'unconfirmed' AND corrected_ms IS NULL) FROM record
         WHERE agent = ?1 AND received_ms >= ?2 AND CASE
           WHEN corrected_ms IS NOT NULL THEN corrected_ms
           WHEN wall_ms IS NULL OR quality IS 'unconfirmed' THEN received_ms
           ELSE wall_ms END >= ?2 GROUP BY stream",
    )?;
    let mut rows = query.query(params![agent.as_str(), from_ms])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().stored = count(r, 1)?;
        unreadable += count(r, 2)?;
        corrected += count(r, 3)?;
        undated += count(r, 4)?;
    }
    let mut query = db.prepare_cached(
        "SELECT stream, max(0, told_next - 1 - watermark
           - (SELECT count(*) FROM record r WHERE r.agent = lane.agent AND r.epoch = lane.epoch
              AND r.stream = lane.stream AND r.seq > lane.watermark AND r.seq < lane.told_next))
         FROM lane WHERE agent = ?1 AND closed = 0 AND told_next - 1 > watermark",
    )?;
    let mut rows = query.query([agent.as_str()])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().queued += count(r, 1)?;
    }
    let mut gaps = Vec::new();
    let mut query = db.prepare_cached(
        "SELECT stream, reason, at_ms, last - first + 1
           - (SELECT count(*) FROM record r WHERE r.agent = gap.agent AND r.epoch = gap.epoch
              AND r.stream = gap.stream AND r.seq BETWEEN gap.first AND gap.last)
         FROM gap WHERE agent = ?1 AND at_ms >= ?2 ORDER BY at_ms DESC",
    )?;
    let mut rows = query.query(params![agent.as_str(), from_ms])?;
    while let Some(r) = rows.next()? {
        let (code, lost) = (r.get(0)?, count(r, 3)?);
        per.entry(code).or_default().lost += lost;
        if let Some(stream) = Stream::from_code(code).filter(|_| lost > 0 && gaps.len() < 20) {
            let reason = GapReason::from_name(&r.get::<_, String>(1)?);
            gaps.push(GapRow {
                stream,
                lost,
                reason,
                at_ms: r.get(2)?,
            });
        }
    }
    let mut query =
        db.prepare_cached("SELECT stream, count FROM duplicate WHERE agent = ?1 AND day = ?2")?;
    let mut rows = query.query(params![agent.as_str(), day])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().duplicates = count(r, 1)?;
    }
    let conflicts = db
        .prepare_cached("SELECT count(*) FROM conflict WHERE agent = ?1 AND received_ms >= ?2")?
        .query_row(params![agent.as_str(), from_ms], |r| count(r, 0))?;
    let told_ms = db
        .prepare_cached(
            "SELECT max(told_ms) FROM lane WHERE agent = ?1 AND closed = 0 AND told_ms >= ?2",
        )?
        .query_row(params![agent.as_str(), from_ms], |r| r.get(0))?;
    let streams = Stream::ALL
        .into_iter()
        .filter_map(|s| per.get(&s.code()).map(|receipt| (s, *receipt)))
        .collect();
    Ok(Receipt {
        streams,
        gaps,
        unreadable,
        corrected,
        undated,
        conflicts,
        told_ms,
    })
}
