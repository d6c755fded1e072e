//! The delivery receipt: what a site has taken on a day, and what became of it.
//!
//! Of the running day the hub tells what it has seen and what the agent says waits. A day that has
//! ended goes by the agent's own count ([`super::counted`]), as soon as it has come.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use scc_common::clock::WallMs;
use scc_common::id::AgentId;
use scc_common::stream::Stream;
use scc_common::wire::GapReason;

use super::{count, counted};
use crate::store::{Store, StoreError};

/// A day of the register's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// `yyyy-mm-dd`.
    pub name: String,
    /// Its first millisecond.
    pub from_ms: WallMs,
    /// The first of the next.
    pub to_ms: WallMs,
    /// Whether it is over.
    pub ended: bool,
}

impl Day {
    /// A day that is not over, whenever it ends.
    #[must_use]
    pub const fn running(name: String, from_ms: WallMs) -> Self {
        Self {
            name,
            from_ms,
            to_ms: WallMs::MAX,
            ended: false,
        }
    }
}

/// The delivery receipt of one stream: taken = stored + queued + lost + missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamReceipt {
    /// In the database. What was taken at a time that nobody knows counts on the day of its arrival,
    /// unless the agent has counted the day.
    pub stored: u64,
    /// Told by the agent and not here yet.
    pub queued: u64,
    /// Lost to gaps.
    pub lost: u64,
    /// Acknowledged by the hub, and neither in the database nor a gap: the hub has lost it. Known of
    /// days that the agent has counted only.
    pub missing: u64,
    /// Arrived more than once on the day, and stored once.
    pub duplicates: u64,
}

impl StreamReceipt {
    /// What the site has taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.stored
            .saturating_add(self.queued)
            .saturating_add(self.lost)
            .saturating_add(self.missing)
    }
}

impl std::iter::Sum for StreamReceipt {
    fn sum<I: Iterator<Item = Self>>(lines: I) -> Self {
        lines.fold(Self::default(), |sum, line| Self {
            // an agent may tell any number
            stored: sum.stored.saturating_add(line.stored),
            queued: sum.queued.saturating_add(line.queued),
            lost: sum.lost.saturating_add(line.lost),
            missing: sum.missing.saturating_add(line.missing),
            duplicates: sum.duplicates.saturating_add(line.duplicates),
        })
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

/// What the numbers of a receipt go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// The day is not over: captured and arrived since it began, lost since it began, waiting now.
    #[default]
    Running,
    /// The agent's own count of what it took on the day, and what became of each of these records,
    /// whenever that was.
    Counted,
    /// The day is over and the agent has not told its count of it: captured on the day and arrived
    /// within a month, and lost on the day.
    Seen,
}

impl Basis {
    /// The word in the API and in the language files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Counted => "counted",
            Self::Seen => "seen",
        }
    }
}

/// Records of a day that the agent has not counted are looked for among what came within this time,
/// so that a page costs the same after ten years.
const LATE_DAYS: i64 = 31;

/// The delivery receipt of one site and day.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// What its numbers go by.
    pub basis: Basis,
    /// Each stream that has anything to show, highest priority first.
    pub streams: Vec<(Stream, StreamReceipt)>,
    /// Gaps, newest first, at most twenty.
    pub gaps: Vec<GapRow>,
    /// All of them, by stream and reason.
    pub reasons: Vec<(Stream, GapReason, u64)>,
    /// Records that could not be read.
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

impl Receipt {
    /// All streams together.
    #[must_use]
    pub fn total(&self) -> StreamReceipt {
        self.streams.iter().map(|(_, line)| *line).sum()
    }
}

fn by_reason(gaps: &[GapRow]) -> Vec<(Stream, GapReason, u64)> {
    let mut sums: BTreeMap<(u8, &str), (Stream, GapReason, u64)> = BTreeMap::new();
    for gap in gaps {
        let key = (gap.stream.code(), gap.reason.name());
        let sum = sums.entry(key).or_insert((gap.stream, gap.reason, 0));
        sum.2 += gap.lost;
    }
    sums.into_values().collect()
}

/// Gaps that a receipt lists.
const GAPS: usize = 20;

impl Store {
    /// The delivery receipt of a site for a day.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn receipt(&self, agent: AgentId, day: Day) -> Result<Receipt, StoreError> {
        self.read(move |db| receipt(db, &agent, &day)).await
    }
}

/// What a receipt is put together from.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    pub(in crate::store) per: BTreeMap<u8, StreamReceipt>,
    pub(super) gaps: Vec<GapRow>,
    pub(super) unreadable: u64,
    pub(super) corrected: u64,
    pub(super) undated: u64,
}

fn receipt(db: &Connection, agent: &AgentId, day: &Day) -> rusqlite::Result<Receipt> {
    let counted = match day.ended {
        true => counted::day(db, agent, day)?,
        false => None,
    };
    let basis = match (&counted, day.ended) {
        (Some(_), _) => Basis::Counted,
        (None, true) => Basis::Seen,
        (None, false) => Basis::Running,
    };
    let mut found = match counted {
        Some(found) => found,
        None => seen(db, agent, day)?,
    };
    let mut query =
        db.prepare_cached("SELECT stream, count FROM duplicate WHERE agent = ?1 AND day = ?2")?;
    let mut rows = query.query(params![agent.as_str(), day.name])?;
    while let Some(r) = rows.next()? {
        found.per.entry(r.get(0)?).or_default().duplicates = count(r, 1)?;
    }
    let conflicts = db
        .prepare_cached(
            "SELECT count(*) FROM conflict WHERE agent = ?1 AND received_ms >= ?2 AND received_ms < ?3",
        )?
        .query_row(params![agent.as_str(), day.from_ms, day.to_ms], |r| count(r, 0))?;
    let told_ms = db
        .prepare_cached(
            "SELECT max(told_ms) FROM lane WHERE agent = ?1 AND closed = 0 AND told_ms >= ?2",
        )?
        .query_row(params![agent.as_str(), day.from_ms], |r| r.get(0))?;
    let streams = Stream::ALL
        .into_iter()
        .filter_map(|s| found.per.get(&s.code()).map(|receipt| (s, *receipt)))
        .collect();
    let reasons = by_reason(&found.gaps);
    found.gaps.truncate(GAPS);
    Ok(Receipt {
        basis,
        streams,
        gaps: found.gaps,
        reasons,
        unreadable: found.unreadable,
        corrected: found.corrected,
        undated: found.undated,
        conflicts,
        told_ms,
    })
}

/// The day as the hub has seen it.
fn seen(db: &Connection, agent: &AgentId, day: &Day) -> rusqlite::Result<Found> {
    let mut found = Found::default();
    let until_ms = day.to_ms.saturating_add(LATE_DAYS * 86_400_000);
    // what was captured on a day has arrived since it began: the index on arrival bounds the scan;
    // of an unconfirmed clock without a correction, only the arrival is certain
    let mut query = db.prepare_cached(
        "SELECT stream, count(*), sum(readable = 0), sum(corrected_ms IS NOT NULL),
           sum(quality IS 'unconfirmed' AND corrected_ms IS NULL)
         FROM (SELECT *, CASE WHEN corrected_ms IS NOT NULL THEN corrected_ms
                 WHEN wall_ms IS NULL OR quality IS 'unconfirmed' THEN received_ms
                 ELSE wall_ms END AS best_ms
               FROM record WHERE agent = ?1 AND received_ms >= ?2 AND received_ms < ?4)
         WHERE best_ms >= ?2 AND (?5 OR best_ms < ?3) GROUP BY stream",
    )?;
    // a clock that runs ahead may say tomorrow already
    let open_end = !day.ended;
    let mut rows = query.query(params![
        agent.as_str(),
        day.from_ms,
        day.to_ms,
        until_ms,
        open_end
    ])?;
    while let Some(r) = rows.next()? {
        found.per.entry(r.get(0)?).or_default().stored = count(r, 1)?;
        found.unreadable += count(r, 2)?;
        found.corrected += count(r, 3)?;
        found.undated += count(r, 4)?;
    }
    if !day.ended {
        queued(db, agent, &mut found)?;
    }
    let mut query = db.prepare_cached(
        "SELECT stream, reason, at_ms, last - first + 1
           - (SELECT count(*) FROM record r WHERE r.agent = gap.agent AND r.epoch = gap.epoch
              AND r.stream = gap.stream AND r.seq BETWEEN gap.first AND gap.last)
         FROM gap WHERE agent = ?1 AND at_ms >= ?2 AND (?4 OR at_ms < ?3) ORDER BY at_ms DESC",
    )?;
    let mut rows = query.query(params![agent.as_str(), day.from_ms, day.to_ms, open_end])?;
    while let Some(r) = rows.next()? {
        let (code, lost) = (r.get(0)?, count(r, 3)?);
        found.per.entry(code).or_default().lost += lost;
        let reason: String = r.get(1)?;
        found.gaps.extend(gap(code, lost, &reason, r.get(2)?));
    }
    Ok(found)
}

/// What waits at the site now, of whatever day.
fn queued(db: &Connection, agent: &AgentId, found: &mut Found) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached(
        "SELECT stream, max(0, told_next - 1 - watermark
           - (SELECT count(*) FROM record r WHERE r.agent = lane.agent AND r.epoch = lane.epoch
              AND r.stream = lane.stream AND r.seq > lane.watermark AND r.seq < lane.told_next))
         FROM lane WHERE agent = ?1 AND closed = 0 AND told_next - 1 > watermark",
    )?;
    let mut rows = query.query([agent.as_str()])?;
    while let Some(r) = rows.next()? {
        found.per.entry(r.get(0)?).or_default().queued += count(r, 1)?;
    }
    Ok(())
}

/// A row for people; none for nothing lost and for a stream of the future.
pub(super) fn gap(code: u8, lost: u64, reason: &str, at_ms: WallMs) -> Option<GapRow> {
    Some(GapRow {
        stream: Stream::from_code(code).filter(|_| lost > 0)?,
        lost,
        reason: GapReason::from_name(reason),
        at_ms,
    })
}
