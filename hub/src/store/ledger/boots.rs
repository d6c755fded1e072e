//! What is known of each boot's offset, and the times of records that follow from it.
//!
//! Invariants:
//! - bodies and what they told are never touched; `record.corrected_ms` stands beside `wall_ms`;
//! - a record is dated by what is known of its boot when it is stored; when more becomes known, the
//!   boot's rows are dated again, in steps of [`STEP`] that begin where the last one ended (`dated_to`),
//!   across restarts, so that no transaction is long;
//! - what is derived from a record goes by its corrected time as soon as it has one.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};
use scc_common::clock::{BootOffset, ClockQuality, Dated, Known, Stamp, WallMs};
use scc_common::id::{AgentId, BootId, Epoch};
use scc_common::record::{Content, RecordBody};
use scc_common::stream::Stream;

use super::{LaneKey, NewRecord, RecordKey, StoredBody, derive};
use crate::brief;
use crate::store::{Store, StoreError};

/// Records that are dated again in one transaction.
const STEP: u32 = 200;

/// Who measured an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The agent, against the hub's clock, told in *now*.
    Hub,
    /// A record whose clock was confirmed.
    Record,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Record => "record",
        }
    }
}

/// Boots as one transaction sees them.
#[derive(Default)]
pub(super) struct Boots(BTreeMap<(AgentId, BootId), Known>);

impl Boots {
    /// What is known of the boot of this record, which may itself tell something of it.
    pub(super) fn date(
        &mut self,
        c: &Connection,
        new: &NewRecord,
        said: &RecordBody,
    ) -> rusqlite::Result<Dated> {
        let (agent, stamp) = (&new.key.lane.agent, &said.stamp);
        if let Some(told) = BootOffset::of(stamp) {
            self.learn(c, agent, stamp.boot, told, Source::Record, new.received_ms)?;
        }
        Ok(Dated::of(stamp, &self.known(c, agent, stamp.boot)?))
    }

    /// One more measurement.
    pub(super) fn learn(
        &mut self,
        c: &Connection,
        agent: &AgentId,
        boot: BootId,
        told: BootOffset,
        source: Source,
        received_ms: WallMs,
    ) -> rusqlite::Result<()> {
        let known = self.known(c, agent, boot)?;
        let next = known.learn(told);
        if next == known {
            return Ok(());
        }
        if next == Known::Disputed {
            tracing::warn!(
                %agent, %boot, ?known, ?told,
                "measurements of a boot's time exclude each other; its unconfirmed times stay as told"
            );
            c.prepare_cached(
                "UPDATE boot SET disputed = 1, dated_to = 0 WHERE agent = ?1 AND boot = ?2",
            )?
            .execute(params![agent.as_str(), boot.0.as_slice()])?;
        } else {
            c.prepare_cached(
                "INSERT OR REPLACE INTO boot (agent, boot, ahead_ms, within_ms, mono_ms, source,
                   measured_ms, disputed, dated_to) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)",
            )?
            .execute(params![
                agent.as_str(),
                boot.0.as_slice(),
                told.ahead_ms,
                told.within_ms,
                told.mono_ms.cast_signed(),
                source.name(),
                received_ms,
            ])?;
        }
        self.0.insert((agent.clone(), boot), next);
        Ok(())
    }

    fn known(&mut self, c: &Connection, agent: &AgentId, boot: BootId) -> rusqlite::Result<Known> {
        let key = (agent.clone(), boot);
        if let Some(known) = self.0.get(&key) {
            return Ok(*known);
        }
        let known = c
            .prepare_cached(
                "SELECT ahead_ms, within_ms, mono_ms, disputed FROM boot WHERE agent = ?1 AND boot = ?2",
            )?
            .query_row(params![agent.as_str(), boot.0.as_slice()], |r| known(r, 0))
            .optional()?
            .unwrap_or_default();
        self.0.insert(key, known);
        Ok(known)
    }
}

/// Four columns, from this one on: `ahead_ms, within_ms, mono_ms, disputed`.
fn known(row: &Row<'_>, at: usize) -> rusqlite::Result<Known> {
    if row.get(at + 3)? {
        return Ok(Known::Disputed);
    }
    Ok(Known::Measured(BootOffset {
        ahead_ms: row.get(at)?,
        within_ms: row.get(at + 1)?,
        mono_ms: row.get::<_, i64>(at + 2)?.cast_unsigned(),
    }))
}

impl Store {
    /// Dates again some of the records whose boot more has become known of since they were stored.
    /// Says whether there may be more to do.
    ///
    /// A record that cannot be dated again keeps the time that it has, is counted and logged, and holds up
    /// no other.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of this step is written.
    pub async fn date_again(&self) -> Result<bool, StoreError> {
        let waiting = self
            .read_for_ingest(|c| {
                c.prepare_cached("SELECT EXISTS (SELECT 1 FROM boot WHERE dated_to IS NOT NULL)")?
                    .query_row([], |r| r.get::<_, bool>(0))
            })
            .await?;
        if !waiting {
            return Ok(false);
        }
        match self.write(|tx| step(tx, &Undated::date)).await {
            // One of its records; which one is found out a record at a time.
            Err(error) if error.is_of_the_content() => {
                self.write(|tx| step(tx, &Undated::date_or_pass_over)).await
            }
            done => done,
        }
    }
}

/// How a record is dated by what is known of its boot.
type DateOne = dyn Fn(&Undated, &Connection, &Known) -> rusqlite::Result<()>;

fn step(c: &Connection, date: &DateOne) -> rusqlite::Result<bool> {
    let next = c
        .prepare_cached(
            "SELECT ahead_ms, within_ms, mono_ms, disputed, agent, boot, dated_to FROM boot
             WHERE dated_to IS NOT NULL LIMIT 1",
        )?
        .query_row([], |r| {
            let key: (String, Vec<u8>, i64) = (r.get(4)?, r.get(5)?, r.get(6)?);
            Ok((known(r, 0)?, key))
        })
        .optional()?;
    let Some((known, (agent, boot, after))) = next else {
        return Ok(false);
    };
    let ids = ids_of(c, &agent, &boot, after)?;
    for id in &ids {
        match undated(c, *id) {
            Ok(row) => date(&row, c, &known)?,
            Err(error) if is_of_the_content(&error) => passed_over(*id, &error),
            Err(error) => return Err(error),
        }
    }
    let full = ids.len() >= usize::try_from(STEP).unwrap_or(usize::MAX);
    let dated_to = ids.last().filter(|_| full);
    c.prepare_cached("UPDATE boot SET dated_to = ?3 WHERE agent = ?1 AND boot = ?2")?
        .execute(params![agent, boot, dated_to])?;
    Ok(true)
}

/// Whether it is about what is in the rows: tried again, it ends the same way.
fn is_of_the_content(error: &rusqlite::Error) -> bool {
    StoreError::of(error).is_of_the_content()
}

fn passed_over(id: i64, error: &rusqlite::Error) {
    metrics::counter!("scc_store_undatable_total").increment(1);
    tracing::error!(id, %error, "a record cannot be dated again and keeps the time that it has");
}

/// A stored record of an unconfirmed clock.
struct Undated {
    id: i64,
    key: Option<RecordKey>,
    stamp: Stamp,
    received_ms: WallMs,
    was: Dated,
    body: Option<Vec<u8>>,
}

fn ids_of(c: &Connection, agent: &str, boot: &[u8], after: i64) -> rusqlite::Result<Vec<i64>> {
    let mut query = c.prepare_cached(
        "SELECT id FROM record
         WHERE agent = ?1 AND boot = ?2 AND quality = 'unconfirmed' AND id > ?3 ORDER BY id LIMIT ?4",
    )?;
    query
        .query_map(params![agent, boot, after, STEP], |r| r.get(0))?
        .collect()
}

fn undated(c: &Connection, id: i64) -> rusqlite::Result<Undated> {
    let mut query = c.prepare_cached(
        "SELECT agent, epoch, stream, seq, mono_ms, wall_ms, received_ms, corrected_ms, body, boot
         FROM record WHERE id = ?1",
    )?;
    query.query_row([id], |r| {
        let stamp = Stamp {
            boot: BootId(r.get(9)?),
            mono_ms: crate::store::number(r.get(4)?),
            wall_ms: r.get(5)?,
            quality: ClockQuality::Unconfirmed,
        };
        let lane = Stream::from_code(r.get(2)?).zip(AgentId::new(r.get::<_, String>(0)?).ok());
        let (epoch, seq): (i64, i64) = (r.get(1)?, r.get(3)?);
        let key = lane.map(|(stream, agent)| RecordKey {
            lane: LaneKey {
                agent,
                epoch: Epoch(epoch.cast_unsigned()),
                stream,
            },
            seq: seq.cast_unsigned(),
        });
        Ok(Undated {
            id,
            key,
            stamp,
            received_ms: r.get(6)?,
            was: Dated {
                told_ms: stamp.wall_ms,
                corrected_ms: r.get(7)?,
                clock: stamp.quality,
            },
            body: r.get(8)?,
        })
    })
}

impl Undated {
    /// As [`date`](Self::date), but leaves no trace of a record with which that cannot be done.
    fn date_or_pass_over(&self, c: &Connection, known: &Known) -> rusqlite::Result<()> {
        c.prepare_cached("SAVEPOINT one")?.execute([])?;
        match self.date(c, known) {
            Ok(()) => {}
            Err(error) if is_of_the_content(&error) => {
                c.prepare_cached("ROLLBACK TO one")?.execute([])?;
                passed_over(self.id, &error);
            }
            Err(error) => return Err(error),
        }
        c.prepare_cached("RELEASE one")?.execute([]).map(drop)
    }

    fn date(&self, c: &Connection, known: &Known) -> rusqlite::Result<()> {
        let dated = Dated::of(&self.stamp, known);
        if dated == self.was {
            return Ok(());
        }
        c.prepare_cached("UPDATE record SET corrected_ms = ?2 WHERE id = ?1")?
            .execute(params![self.id, dated.corrected_ms])?;
        let Some(key) = &self.key else {
            return Ok(());
        };
        if key.lane.stream.is_media() {
            c.prepare_cached("UPDATE picture SET captured_ms = ?2 WHERE record = ?1")?
                .execute([self.id, dated.best_ms().min(self.received_ms)])?;
            return Ok(());
        }
        let decoded = self
            .body
            .as_deref()
            .and_then(|b| RecordBody::decode(b).ok());
        let Some(mut said) = decoded else {
            return Ok(());
        };
        brief::shorten_all(&mut said.content);
        let new = NewRecord {
            key: key.clone(),
            sum: scc_common::checksum::Checksum([0; 16]),
            size: 0,
            body: StoredBody::Row(bytes::Bytes::new()),
            said: None,
            received_ms: self.received_ms,
        };
        if let Content::Health(_) = &said.content {
            return derive::move_health(c, &new, &self.was, &dated);
        }
        derive::undo(c, self.id, &new, &said, &self.was)?;
        derive::rows(c, self.id, &new, &said, &dated)
    }
}
