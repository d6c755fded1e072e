//! One transaction's work: the writes in their order, then the lanes that they touched.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, params};
use scc_common::clock::{Dated, WallMs};
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::record::{Content, Event, Health};
use scc_common::stream::Stream;
use scc_common::wire::{Gap, Hello};
use tokio::time::Instant;

use super::boots::{Boots, Source};
use super::lanes::Lanes;
use super::record::{Insert, Rows};
use super::{Commit, LaneKey, NewRecord, Outcome, RecordKey, Write, derive, is_noted};
use crate::store::fleet;

/// How long a transaction may take in more writes.
const CEILING: Duration = Duration::from_millis(50);

/// What of a lane the batch has touched.
#[derive(Default)]
struct Touched {
    /// Numbers that the agent sent; if any, the lane is acknowledged.
    seqs: Vec<Seq>,
    /// Acknowledge the lane even without a number.
    ack: bool,
    at_ms: WallMs,
}

struct Batch<'a> {
    c: &'a Connection,
    lanes: &'a mut Lanes,
    boots: Boots,
    rows: Rows<'a>,
    touched: BTreeMap<LaneKey, Touched>,
    /// The newest health of each agent: what is kept beside the ledger is one row per agent, and a backlog
    /// brings hundreds of them in one transaction.
    health: HashMap<&'a AgentId, (WallMs, &'a NewRecord, &'a Health)>,
    zone: Option<TimeZone>,
}

pub(super) fn run<'a>(
    c: &'a Connection,
    lanes: &'a mut Lanes,
    writes: &'a [Arc<Write>],
) -> rusqlite::Result<Commit> {
    let begun = Instant::now();
    let mut batch = Batch {
        c,
        lanes,
        boots: Boots::default(),
        rows: Rows::new(c)?,
        touched: BTreeMap::new(),
        health: HashMap::new(),
        zone: None,
    };
    let mut outcomes = Vec::with_capacity(writes.len());
    for write in writes {
        outcomes.push(batch.one(write)?);
        if begun.elapsed() > CEILING {
            break;
        }
    }
    for (at_ms, new, health) in batch.health.values() {
        derive::health_row(c, new, health, *at_ms)?;
    }
    let mut acks = Vec::new();
    for (key, touched) in &batch.touched {
        let lane = batch.lanes.get(c, key)?;
        lane.save(c, key, touched.at_ms)?;
        if touched.ack || !touched.seqs.is_empty() {
            acks.push((key.agent.clone(), lane.ack(key, &touched.seqs)));
        }
    }
    Ok(Commit {
        outcomes,
        lanes: acks,
    })
}

impl<'a> Batch<'a> {
    fn one(&mut self, write: &'a Write) -> rusqlite::Result<Outcome> {
        match write {
            Write::Record(new) => self.record(new, None),
            Write::Imported { new, import } => self.record(new, Some(*import)),
            Write::Again(new) => {
                let dated = self.date(new)?;
                if let Insert::NowReadable(id) = self.rows.insert(new, dated.as_ref())? {
                    self.derive(id, new, dated.as_ref())?;
                }
                Ok(Outcome::Noted)
            }
            Write::Boot {
                agent,
                boot,
                offset,
                received_ms,
            } => {
                self.boots
                    .learn(self.c, agent, *boot, *offset, Source::Hub, *received_ms)?;
                Ok(Outcome::Noted)
            }
            Write::Seen { key, received_ms } => {
                self.sent(key, *received_ms);
                self.lanes.get(self.c, &key.lane)?.cover(key.seq);
                self.duplicate(&key.lane, *received_ms)?;
                Ok(Outcome::Duplicate)
            }
            Write::Gaps {
                agent,
                gaps,
                received_ms,
            } => {
                for gap in gaps {
                    self.gap(agent, gap, *received_ms)?;
                }
                Ok(Outcome::Noted)
            }
            Write::Hello {
                agent,
                hello,
                received_ms,
            } => {
                self.hello(agent, hello, *received_ms)?;
                Ok(Outcome::Noted)
            }
        }
    }

    /// `import`: an operator brings it in; otherwise its agent sent it.
    fn record(&mut self, new: &'a NewRecord, import: Option<i64>) -> rusqlite::Result<Outcome> {
        let lane = &new.key.lane;
        self.sent(&new.key, new.received_ms);
        let dated = self.date(new)?;
        let insert = self.rows.insert(new, dated.as_ref())?;
        let known = self.lanes.get(self.c, lane)?;
        known.cover(new.key.seq);
        match insert {
            Insert::Stored(id) => {
                known.shrink_gap(self.c, lane, new.key.seq)?;
                if let Some(import) = import {
                    self.c
                        .prepare_cached("UPDATE record SET imported = ?2 WHERE id = ?1")?
                        .execute([id, import])?;
                }
                self.derive(id, new, dated.as_ref())?;
                Ok(Outcome::Stored { id, dated })
            }
            Insert::Duplicate | Insert::NowReadable(_) => {
                if import.is_none() {
                    self.duplicate(lane, new.received_ms)?;
                }
                // It was stored before and could not be read then; what is derived from it is new.
                if let Insert::NowReadable(id) = insert {
                    self.derive(id, new, dated.as_ref())?;
                }
                Ok(Outcome::Duplicate)
            }
            Insert::Conflict => Ok(Outcome::Conflict),
        }
    }

    /// The time of a record; none if it is unreadable.
    fn date(&mut self, new: &NewRecord) -> rusqlite::Result<Option<Dated>> {
        let said = new.said.as_deref();
        said.map(|said| self.boots.date(self.c, new, said))
            .transpose()
    }

    fn derive(
        &mut self,
        id: i64,
        new: &'a NewRecord,
        dated: Option<&Dated>,
    ) -> rusqlite::Result<()> {
        let Some((said, dated)) = new.said.as_deref().zip(dated) else {
            return Ok(());
        };
        derive::rows(self.c, id, new, said, dated)?;
        let told: Vec<(Epoch, Stream, Seq)> = match &said.content {
            Content::Health(health) => {
                let at_ms = derive::happened_ms(new, dated);
                let agent = &new.key.lane.agent;
                // of two of one moment the later one, as if each had been written
                let known = self.health.get(agent);
                if known.is_none_or(|(known, ..)| *known <= at_ms) {
                    self.health.insert(agent, (at_ms, new, health));
                }
                let lanes = health.lanes.iter();
                lanes.map(|l| (l.epoch, l.stream, l.next)).collect()
            }
            Content::Event(Event::Tally(tally)) => {
                let lanes = tally.lanes.iter();
                lanes.map(|l| (l.epoch, l.stream, l.next)).collect()
            }
            _ => Vec::new(),
        };
        for (epoch, stream, next) in told {
            let key = self.key(&new.key.lane.agent, epoch, stream);
            self.touch(&key, new.received_ms);
            self.lanes
                .get(self.c, &key)?
                .told(self.c, &key, next, new.received_ms)?;
        }
        Ok(())
    }

    fn gap(&mut self, agent: &AgentId, gap: &Gap, now: WallMs) -> rusqlite::Result<()> {
        if !is_noted(gap) {
            return Ok(());
        }
        let key = self.key(agent, gap.epoch, gap.stream);
        self.touch(&key, now).ack = true;
        self.lanes.get(self.c, &key)?.gap(self.c, gap, agent, now)
    }

    fn hello(&mut self, agent: &AgentId, hello: &Hello, now: WallMs) -> rusqlite::Result<()> {
        // What earlier writes of this batch did is written down before the memory is thrown away.
        for (key, touched) in self.touched.iter().filter(|(key, _)| key.agent == *agent) {
            self.lanes
                .get(self.c, key)?
                .save(self.c, key, touched.at_ms)?;
        }
        self.lanes.forget(agent);
        for offer in &hello.lanes {
            let key = self.key(agent, offer.epoch, offer.stream);
            self.touch(&key, now);
            let lane = self.lanes.get(self.c, &key)?;
            lane.reopen();
            lane.told(self.c, &key, offer.next, now)?;
            for gap in &offer.gaps {
                self.gap(agent, gap, now)?;
            }
        }
        if hello.partial {
            // what is not told may be on the card all the same
            return Ok(());
        }
        for key in self.open_lanes(agent)? {
            let offered = hello
                .lanes
                .iter()
                .any(|o| o.epoch == key.epoch && o.stream == key.stream);
            if key.epoch != hello.epoch && !offered {
                self.touch(&key, now).ack = true;
                self.lanes.get(self.c, &key)?.close(self.c, &key, now)?;
            }
        }
        Ok(())
    }

    fn open_lanes(&self, agent: &AgentId) -> rusqlite::Result<Vec<LaneKey>> {
        let mut rows = self
            .c
            .prepare_cached("SELECT epoch, stream FROM lane WHERE agent = ?1 AND closed = 0")?;
        let keys = rows.query_map([agent.as_str()], |row| {
            let epoch: i64 = row.get(0)?;
            Ok((Epoch(epoch.cast_unsigned()), row.get::<_, u8>(1)?))
        })?;
        let mut found = Vec::new();
        for key in keys {
            let (epoch, code) = key?;
            if let Some(stream) = Stream::from_code(code) {
                found.push(self.key(agent, epoch, stream));
            }
        }
        Ok(found)
    }

    fn duplicate(&mut self, lane: &LaneKey, now: WallMs) -> rusqlite::Result<()> {
        let day = self.local_day(now)?;
        self.c
            .prepare_cached(
                "INSERT INTO duplicate (agent, stream, day, count) VALUES (?1, ?2, ?3, 1)
                 ON CONFLICT (agent, stream, day) DO UPDATE SET count = count + 1",
            )?
            .execute(params![lane.agent.as_str(), lane.stream.code(), day])?;
        Ok(())
    }

    /// The day in the fleet's time zone.
    fn local_day(&mut self, ms: WallMs) -> rusqlite::Result<String> {
        let zone = match &self.zone {
            Some(zone) => zone.clone(),
            None => {
                let name: Option<String> = self
                    .c
                    .query_row("SELECT timezone FROM fleet", [], |row| row.get(0))
                    .optional()?;
                self.zone.insert(fleet::zone(name.as_deref())).clone()
            }
        };
        let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok(time.to_zoned(zone).date().to_string())
    }

    fn key(&self, agent: &AgentId, epoch: Epoch, stream: Stream) -> LaneKey {
        LaneKey {
            agent: agent.clone(),
            epoch,
            stream,
        }
    }

    fn touch(&mut self, key: &LaneKey, now: WallMs) -> &mut Touched {
        if !self.touched.contains_key(key) {
            self.touched.insert(key.clone(), Touched::default());
        }
        let touched = self
            .touched
            .get_mut(key)
            .expect("it was there or was inserted a line above");
        touched.at_ms = now;
        touched
    }

    fn sent(&mut self, key: &RecordKey, now: WallMs) {
        self.touch(&key.lane, now).seqs.push(key.seq);
    }
}
