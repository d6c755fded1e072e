//! Watermarks. What lies above a lane's watermark is kept in memory as ranges, so that a commit
//! costs the same whether a lane has a hundred records or ten million.
//!
//! The database is the truth: a failed transaction throws the memory away, and each hello loads the
//! lanes of its agent again.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, Seq};
use scc_common::ranges::RangeSet;
use scc_common::wire::{Gap, GapReason, LaneAck, SeqRange};

use super::{LaneKey, MAX_SEQ};
use crate::store::number;

/// Lanes kept in memory between commits; beyond this all are loaded again when needed.
const MAX_LANES: usize = 10_000;

/// Ranges above the watermark that one ack names. The agent repeats what it has no ack for, and
/// then the ack names that first.
const MAX_ACK_RANGES: usize = 1_000;

#[derive(Debug, Default)]
pub(in crate::store) struct Lanes {
    known: HashMap<LaneKey, Lane>,
    /// A transaction has begun and is not known to have been committed.
    open: bool,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    watermark: Seq,
    told_next: Seq,
    told_ms: Option<WallMs>,
    closed: bool,
    /// Largest number in any gap: above it a stored record need not look for a gap to shrink.
    gap_end: Seq,
    /// Stored above the watermark.
    stored: RangeSet,
    /// Stored or in a gap above the watermark.
    covered: RangeSet,
}

impl Lanes {
    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        if self.open || self.known.len() > MAX_LANES {
            self.known.clear();
        }
        self.open = true;
    }

    /// The transaction has been committed.
    pub(super) fn committed(&mut self) {
        self.open = false;
    }

    /// Forgets what is known of an agent, so that it is read from the database again.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        self.known.retain(|key, _| key.agent != *agent);
    }

    pub(super) fn get(&mut self, c: &Connection, key: &LaneKey) -> rusqlite::Result<&mut Lane> {
        if !self.known.contains_key(key) {
            self.known.insert(key.clone(), Lane::load(c, key)?);
        }
        Ok(self
            .known
            .get_mut(key)
            .expect("it is known or was inserted a line above"))
    }
}

impl Lane {
    fn load(c: &Connection, key: &LaneKey) -> rusqlite::Result<Self> {
        let mut lane = c
            .prepare_cached(
                "SELECT watermark, told_next, told_ms, closed FROM lane WHERE agent = ?1 AND epoch = ?2 AND stream = ?3",
            )?
            .query_row(key_params(key), |row| {
                Ok(Self {
                    watermark: number(row.get(0)?),
                    told_next: number(row.get(1)?),
                    told_ms: row.get(2)?,
                    closed: row.get(3)?,
                    ..Self::default()
                })
            })
            .optional()?
            .unwrap_or_else(|| Self {
                told_next: 1,
                ..Self::default()
            });
        let mut rows = c.prepare_cached(
            "SELECT seq FROM record WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq > ?4 ORDER BY seq",
        )?;
        let (agent, epoch, stream) = key_params(key);
        let above = lane.watermark.cast_signed();
        let mut rows = rows.query(params![agent, epoch, stream, above])?;
        while let Some(row) = rows.next()? {
            let seq = number(row.get(0)?);
            lane.stored.insert(one(seq));
            lane.covered.insert(one(seq));
        }
        let mut rows = c.prepare_cached(
            "SELECT first, last FROM gap WHERE agent = ?1 AND epoch = ?2 AND stream = ?3",
        )?;
        let mut rows = rows.query(key_params(key))?;
        while let Some(row) = rows.next()? {
            let gap = SeqRange {
                first: number(row.get(0)?),
                last: number(row.get(1)?),
            };
            lane.gap_end = lane.gap_end.max(gap.last);
            lane.covered.insert(SeqRange {
                first: gap.first.max(lane.watermark + 1),
                last: gap.last,
            });
        }
        lane.advance();
        Ok(lane)
    }

    fn advance(&mut self) {
        if let Some(range) = self.covered.around(self.watermark + 1) {
            self.watermark = range.last;
        }
        self.covered.forget_to(self.watermark);
        self.stored.forget_to(self.watermark);
    }

    /// There is a row of this number, new or old.
    pub(super) fn cover(&mut self, seq: Seq) {
        self.told_next = self.told_next.max(seq + 1);
        if seq > self.watermark {
            self.stored.insert(one(seq));
            self.covered.insert(one(seq));
            self.advance();
        }
    }

    /// The row of this number is new: it is no longer lost.
    pub(super) fn shrink_gap(
        &self,
        c: &Connection,
        key: &LaneKey,
        seq: Seq,
    ) -> rusqlite::Result<()> {
        if seq <= self.gap_end {
            shrink_gap(c, key, seq)?;
        }
        Ok(())
    }

    /// The agent says that these numbers will not come. What is stored stays stored.
    pub(super) fn gap(
        &mut self,
        c: &Connection,
        gap: &Gap,
        agent: &AgentId,
        received_ms: WallMs,
    ) -> rusqlite::Result<()> {
        let key = LaneKey {
            agent: agent.clone(),
            epoch: gap.epoch,
            stream: gap.stream,
        };
        // Up to the watermark everything is stored or in a gap already.
        let range = SeqRange {
            first: gap.range.first.max(self.watermark + 1),
            last: gap.range.last.min(MAX_SEQ),
        };
        for hole in self.covered.holes(range) {
            let (agent, epoch, stream) = key_params(&key);
            c.prepare_cached(
                "INSERT OR IGNORE INTO gap (agent, epoch, stream, first, last, reason, at_ms, received_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                agent,
                epoch,
                stream,
                hole.first.cast_signed(),
                hole.last.cast_signed(),
                gap.reason.name(),
                gap.at_ms,
                received_ms
            ])?;
        }
        if !range.is_empty() {
            self.covered.insert(range);
            self.gap_end = self.gap_end.max(range.last);
            self.told_next = self.told_next.max(range.last + 1);
            self.advance();
        }
        Ok(())
    }

    /// The agent says that the next record of this lane will get this number.
    pub(super) fn told(
        &mut self,
        c: &Connection,
        key: &LaneKey,
        next: Seq,
        now: WallMs,
    ) -> rusqlite::Result<()> {
        self.told_next = self.told_next.max(next.min(MAX_SEQ));
        self.told_ms = self.told_ms.max(Some(now));
        if self.closed {
            self.close(c, key, now)?;
        }
        Ok(())
    }

    /// The lane is offered by its agent (again).
    pub(super) fn reopen(&mut self) {
        self.closed = false;
    }

    /// The epoch is over: what was told and has not come is lost, until its card turns up.
    pub(super) fn close(
        &mut self,
        c: &Connection,
        key: &LaneKey,
        now: WallMs,
    ) -> rusqlite::Result<()> {
        self.closed = true;
        let gap = Gap {
            epoch: key.epoch,
            stream: key.stream,
            range: SeqRange {
                first: 1,
                last: self.told_next.saturating_sub(1),
            },
            reason: GapReason::EpochClosed,
            at_ms: now,
        };
        self.gap(c, &gap, &key.agent, now)
    }

    pub(super) fn save(&self, c: &Connection, key: &LaneKey, now: WallMs) -> rusqlite::Result<()> {
        let (agent, epoch, stream) = key_params(key);
        c.prepare_cached(
            "INSERT INTO lane (agent, epoch, stream, watermark, told_next, told_ms, begun_ms, closed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (agent, epoch, stream) DO UPDATE SET
               watermark = excluded.watermark, told_next = excluded.told_next,
               told_ms = excluded.told_ms, closed = excluded.closed",
        )?
        .execute(params![
            agent,
            epoch,
            stream,
            self.watermark.cast_signed(),
            self.told_next.cast_signed(),
            self.told_ms,
            now,
            self.closed
        ])?;
        Ok(())
    }

    /// What the agent may delete. `touched` are numbers that the agent has just sent.
    pub(super) fn ack(&self, key: &LaneKey, touched: &[Seq]) -> LaneAck {
        let mut stored: Vec<SeqRange> = if self.stored.as_slice().len() <= MAX_ACK_RANGES {
            self.stored.iter().collect()
        } else {
            let sent = touched.iter().filter_map(|seq| self.stored.around(*seq));
            sent.chain(self.stored.iter())
                .take(MAX_ACK_RANGES)
                .collect()
        };
        stored.sort_unstable();
        stored.dedup();
        LaneAck {
            epoch: key.epoch,
            stream: key.stream,
            watermark: self.watermark,
            stored,
            parts: Vec::new(),
        }
    }
}

/// The record turned up after all: cuts its number out of the gap that holds it.
fn shrink_gap(c: &Connection, key: &LaneKey, seq: Seq) -> rusqlite::Result<()> {
    let (agent, epoch, stream) = key_params(key);
    let seq = seq.cast_signed();
    let found: Option<(i64, i64)> = c
        .prepare_cached(
            "SELECT first, last FROM gap WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND first <= ?4
             ORDER BY first DESC LIMIT 1",
        )?
        .query_row(params![agent, epoch, stream, seq], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((first, last)) = found.filter(|(_, last)| *last >= seq) else {
        return Ok(());
    };
    if last > seq {
        c.prepare_cached(
            "INSERT INTO gap (agent, epoch, stream, first, last, reason, at_ms, received_ms)
             SELECT agent, epoch, stream, ?5, last, reason, at_ms, received_ms FROM gap
             WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND first = ?4",
        )?
        .execute(params![agent, epoch, stream, first, seq + 1])?;
    }
    let rest = if first < seq {
        "UPDATE gap SET last = ?5 - 1 WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND first = ?4"
    } else {
        "DELETE FROM gap WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND first = ?4 AND first = ?5"
    };
    c.prepare_cached(rest)?
        .execute(params![agent, epoch, stream, first, seq])?;
    Ok(())
}

/// The three columns of a lane's key, in the order that every table has them.
pub(super) fn key_params(key: &LaneKey) -> (&str, i64, u8) {
    (
        key.agent.as_str(),
        key.epoch.0.cast_signed(),
        key.stream.code(),
    )
}

fn one(seq: Seq) -> SeqRange {
    SeqRange {
        first: seq,
        last: seq,
    }
}
