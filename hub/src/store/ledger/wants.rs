//! What the hub wants of an agent: the answer to its hello.
//!
//! Asked for is what the agent *holds* and the hub has no row of, whatever the watermark says: a
//! restored hub gets its lost day back, a card that turns up again gets its closed epoch in, and a
//! row that somebody deleted comes again. The cost follows from what the agent holds, not from what
//! the hub has stored over the years. An agent may claim to hold everything, though, so the rows are
//! walked a chunk at a time and nothing is kept of them but the ranges that are missing, of which
//! there are at most as many as asked for.

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::checksum::Checksum;
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::stream::Stream;
use scc_common::wire::{LaneOffer, SeqRange};

use super::lanes::key_params;
use super::{LaneKey, MAX_SEQ};
use crate::store::{Store, StoreError, number};

/// Rows that one read looks at: what is in memory at a time, and how long one agent's question keeps
/// a reader.
const CHUNK: usize = 2_000;

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
    /// The highest stored number among those that the agent holds, with its checksum.
    pub mark: Option<(Seq, Checksum)>,
    /// Rows whose file is gone, among those that were looked at; they are among what is missing.
    pub gone: u64,
}

impl LaneWants {
    fn add(&mut self, range: SeqRange) {
        match self.missing.last_mut() {
            Some(last) if last.last + 1 == range.first => last.last = range.last,
            _ => self.missing.push(range),
        }
    }

    /// Whether more is missing than may be named; then everything from the next range on is wanted.
    fn full(&mut self, most: usize) -> bool {
        let Some(next) = self.missing.get(most) else {
            return false;
        };
        self.from = next.first;
        self.missing.truncate(most);
        true
    }
}

type Row = (Seq, Option<String>);

impl Store {
    /// What is wanted of a lane that an agent offers: at most `most` ranges, and where more are
    /// missing everything from the next one on. A row whose media file `is_there` denies counts as
    /// missing; without `is_there` files are not looked for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wants<F>(
        &self,
        agent: &AgentId,
        offer: &LaneOffer,
        most: usize,
        is_there: Option<F>,
    ) -> Result<LaneWants, StoreError>
    where
        F: Fn(&str) -> bool + Clone + Send + 'static,
    {
        let key = LaneKey {
            agent: agent.clone(),
            epoch: offer.epoch,
            stream: offer.stream,
        };
        let lane = key.clone();
        let known = self.read_for_ingest(move |c| known(c, &lane)).await?;
        let mut wants = LaneWants {
            epoch: offer.epoch,
            stream: offer.stream,
            from: known + 1,
            missing: Vec::new(),
            mark: None,
            gone: 0,
        };
        let (lane, held) = (key.clone(), offer.held.clone());
        wants.mark = self.read_for_ingest(move |c| mark(c, &lane, &held)).await?;
        let mut done = 0;
        for held in &offer.held {
            // Ranges that overlap or turn back are not ranges that a buffer holds.
            let (first, last) = (held.first.max(done + 1), held.last.min(known));
            if last < first {
                continue;
            }
            done = last;
            let mut expected = first;
            let mut next = Some(first);
            while let Some(begin) = next {
                let (lane, look) = (key.clone(), is_there.is_some());
                let mut rows = self
                    .read_for_ingest(move |c| rows(c, &lane, begin, last, look))
                    .await?;
                next = rows
                    .last()
                    .filter(|_| rows.len() == CHUNK)
                    .map(|(seq, _)| seq + 1);
                if let Some(is_there) = is_there.clone() {
                    let before = rows.len();
                    // Beside the readers: a slow media disk holds up this answer only.
                    rows = tokio::task::spawn_blocking(move || {
                        rows.retain(|(_, file)| file.as_ref().is_none_or(|path| is_there(path)));
                        rows
                    })
                    .await
                    .map_err(|_| StoreError::Closed)?;
                    wants.gone += (before - rows.len()) as u64;
                }
                for (seq, _) in rows {
                    if seq > expected {
                        wants.add(SeqRange {
                            first: expected,
                            last: seq - 1,
                        });
                    }
                    expected = seq + 1;
                }
                if wants.full(most) {
                    return Ok(wants);
                }
            }
            if expected <= last {
                wants.add(SeqRange {
                    first: expected,
                    last,
                });
            }
        }
        wants.full(most);
        Ok(wants)
    }
}

/// The highest stored number within these ranges. Looks into the newest few only: where the agent holds
/// none of what is stored there, it has nothing to compare.
fn mark(
    c: &Connection,
    key: &LaneKey,
    held: &[SeqRange],
) -> rusqlite::Result<Option<(Seq, Checksum)>> {
    const NEWEST: usize = 8;
    let (agent, epoch, stream) = key_params(key);
    let mut query = c.prepare_cached(
        "SELECT seq, sum FROM record
         WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq BETWEEN ?4 AND ?5
         ORDER BY seq DESC LIMIT 1",
    )?;
    for range in held.iter().rev().take(NEWEST) {
        let last = range.last.min(MAX_SEQ).cast_signed();
        let given = params![agent, epoch, stream, range.first.cast_signed(), last];
        let row = |r: &rusqlite::Row<'_>| Ok((number(r.get(0)?), r.get::<_, Vec<u8>>(1)?));
        if let Some((seq, sum)) = query.query_row(given, row).optional()? {
            return Ok(sum.try_into().ok().map(|sum| (seq, Checksum(sum))));
        }
    }
    Ok(None)
}

/// The largest number of the lane that the hub knows of.
fn known(c: &Connection, key: &LaneKey) -> rusqlite::Result<Seq> {
    let (agent, epoch, stream) = key_params(key);
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
    Ok(number(watermark.max(newest.unwrap_or(0))))
}

/// The next stored numbers; with their files only where these are asked for, because the index alone
/// does not have them.
fn rows(
    c: &Connection,
    key: &LaneKey,
    first: Seq,
    last: Seq,
    with_files: bool,
) -> rusqlite::Result<Vec<Row>> {
    let (agent, epoch, stream) = key_params(key);
    let sql = if with_files {
        "SELECT seq, media FROM record
         WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq BETWEEN ?4 AND ?5
         ORDER BY seq LIMIT ?6"
    } else {
        "SELECT seq, NULL FROM record
         WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq BETWEEN ?4 AND ?5
         ORDER BY seq LIMIT ?6"
    };
    let mut query = c.prepare_cached(sql)?;
    let found = query.query_map(
        params![
            agent,
            epoch,
            stream,
            first.cast_signed(),
            last.cast_signed(),
            i64::try_from(CHUNK).unwrap_or(i64::MAX)
        ],
        |row| Ok((number(row.get(0)?), row.get(1)?)),
    )?;
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (Epoch, Stream) = (Epoch(7), Stream::Snapshot);

    /// A lane with these numbers stored, each with a file of its number.
    async fn stored(seqs: &[Seq]) -> (tempfile::TempDir, Store, AgentId) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("hub.sqlite")).unwrap();
        let seqs = seqs.to_vec();
        store
            .write(move |tx| {
                let mut insert = tx.prepare(
                    "INSERT INTO record (agent, epoch, stream, seq, sum, size, readable, declared,
                                         received_ms, media)
                     VALUES ('rsud', 7, ?1, ?2, x'', 0, 1, 1, 0, ?2)",
                )?;
                for seq in seqs {
                    insert.execute(params![KEY.1.code(), seq.cast_signed()])?;
                }
                Ok(())
            })
            .await
            .unwrap();
        (dir, store, AgentId::new("rsud").unwrap())
    }

    /// What an agent may claim.
    fn everything() -> LaneOffer {
        LaneOffer {
            epoch: KEY.0,
            stream: KEY.1,
            next: 1,
            held: vec![SeqRange {
                first: 1,
                last: u64::MAX,
            }],
            gaps: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_found_across_chunks_rows_and_files_alike() {
        let end = 2 * CHUNK as u64 + 10;
        let seqs: Vec<Seq> = (1..=end).filter(|seq| *seq != 2_000).collect();
        let (_dir, store, agent) = stored(&seqs).await;
        let all = everything();
        let range = |first, last| SeqRange { first, last };
        let lost = |path: &str| !matches!(path, "1" | "2001" | "4005");
        let wants = store.wants(&agent, &all, 1_000, Some(lost)).await.unwrap();
        assert_eq!(
            wants.missing,
            [range(1, 1), range(2_000, 2_001), range(4_005, 4_005)]
        );
        assert_eq!((wants.from, wants.gone), (end + 1, 3));
        let none: Option<fn(&str) -> bool> = None;
        let wants = store.wants(&agent, &all, 1_000, none).await.unwrap();
        assert_eq!(wants.missing, [range(2_000, 2_000)]);
    }

    #[tokio::test]
    async fn an_agent_that_claims_everything_draws_a_bounded_answer_and_a_bounded_search() {
        let seqs: Vec<Seq> = (1..=10_000).map(|n| n * 2).collect();
        let (_dir, store, agent) = stored(&seqs).await;
        let all = everything();
        let looked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&looked);
        let is_there = move |_: &str| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            true
        };
        let wants = store
            .wants(&agent, &all, 100, Some(is_there))
            .await
            .unwrap();
        assert_eq!((wants.missing.len(), wants.from), (100, 201));
        assert!(looked.load(std::sync::atomic::Ordering::Relaxed) <= CHUNK);
    }
}
