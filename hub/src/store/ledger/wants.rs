//! What the hub wants of an agent: the answer to its hello.
//!
//! Asked for is what the agent *holds* and the hub has no row of, whatever the watermark says: a
//! restored hub gets its lost day back, a card that turns up again gets its closed epoch in, and a
//! row that somebody deleted comes again. The cost follows from what the agent holds, not from what
//! the hub has stored over the years.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::stream::Stream;
use scc_common::wire::{LaneOffer, SeqRange};

use super::LaneKey;
use super::lanes::key_params;
use crate::store::{Store, StoreError, number};

/// What the hub wants of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneWants {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// Everything from here on.
    pub from: Seq,
    /// Below `from`: held by the agent and not stored, ascending.
    pub missing: Vec<SeqRange>,
    /// Below `from`: held by the agent and stored, with a file that the caller may look for.
    pub files: Vec<(Seq, String)>,
}

impl Store {
    /// What is wanted of each lane that an agent offers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wants(
        &self,
        agent: AgentId,
        offers: Vec<LaneOffer>,
    ) -> Result<Vec<LaneWants>, StoreError> {
        self.read(move |c| {
            // A lane that is offered twice is answered once: the work follows from what there is,
            // not from what is said.
            let mut seen = HashSet::new();
            let fresh = offers.iter().filter(|o| seen.insert((o.epoch, o.stream)));
            fresh.map(|offer| lane(c, &agent, offer)).collect()
        })
        .await
    }
}

fn lane(c: &Connection, agent: &AgentId, offer: &LaneOffer) -> rusqlite::Result<LaneWants> {
    let key = LaneKey {
        agent: agent.clone(),
        epoch: offer.epoch,
        stream: offer.stream,
    };
    let (agent, epoch, stream) = key_params(&key);
    let watermark: i64 = c
        .prepare_cached(
            "SELECT watermark FROM lane WHERE agent = ?1 AND epoch = ?2 AND stream = ?3",
        )?
        .query_row(params![agent, epoch, stream], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    let newest: Option<i64> = c
        .prepare_cached(
            "SELECT max(seq) FROM record WHERE agent = ?1 AND epoch = ?2 AND stream = ?3",
        )?
        .query_row(params![agent, epoch, stream], |row| row.get(0))?;
    let known = number(watermark.max(newest.unwrap_or(0)));
    let mut wants = LaneWants {
        epoch: offer.epoch,
        stream: offer.stream,
        from: known + 1,
        missing: Vec::new(),
        files: Vec::new(),
    };
    let mut rows = c.prepare_cached(
        "SELECT seq, media FROM record
         WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq BETWEEN ?4 AND ?5 ORDER BY seq",
    )?;
    let mut done = 0;
    for held in &offer.held {
        // Ranges that overlap or turn back are not ranges that a buffer holds.
        let (first, last) = (held.first.max(done + 1), held.last.min(known));
        if last < first {
            continue;
        }
        done = last;
        let mut expected = first;
        let mut rows = rows.query(params![
            agent,
            epoch,
            stream,
            first.cast_signed(),
            last.cast_signed()
        ])?;
        while let Some(row) = rows.next()? {
            let seq = number(row.get(0)?);
            if seq > expected {
                wants.missing.push(SeqRange {
                    first: expected,
                    last: seq - 1,
                });
            }
            expected = seq + 1;
            if let Some(media) = row.get(1)? {
                wants.files.push((seq, media));
            }
        }
        if expected <= last {
            wants.missing.push(SeqRange {
                first: expected,
                last,
            });
        }
    }
    Ok(wants)
}
