//! Hands punches over to the buffer, each once (zk.md §15).
//!
//! The order is always the same: the buffer accepts, then the [`Cursor`] moves.
//!
//! Invariant: the hub's set of punches becomes the log's. It knows a punch by who, when and ordinal,
//! so the ordinal of a record is its place among the log's records of that person and second,
//! whatever their state and verify say: it depends on the log alone, and a record that is handed
//! over twice has the same one twice. A live event is the hub's first of its second until the log
//! tells otherwise. If the log's first record says the same, the punch is not handed over again, and
//! its proof is the read's count per day; if it differs, it is, and takes the event's place there.

use std::collections::{BTreeMap, HashMap, HashSet};

use scc_common::clock::SharedClock;
use scc_common::id::DeviceId;
use scc_common::record::{Content, Punch, PunchBatch, ReadProof, RecordBody, Way};
use scc_common::stream::Stream;

use super::cursor::{Cursor, Key, Keys, Step};
use super::event;
use super::layout::{Layout, Record, Who};
use super::pull::Pulled;
use super::time::{DAY_S, LocalS, day_name};
use super::users::Users;
use crate::buffer::BufferError;
use crate::capture::accept::Keep;

/// Most punches of one batch.
const BATCH_PUNCHES: usize = 200;
/// Most bytes of one batch, before CBOR's own; keeps a body below 32 KiB.
const BATCH_BYTES: usize = 28 * 1024;
/// What CBOR adds to a punch, at most: names of fields, lengths, numbers.
const PUNCH_OVERHEAD: usize = 70;
/// Local days that a proof tells the counts of.
const PROOF_DAYS: usize = 8;

/// What is the same for all punches of one visit.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The terminal's serial number.
    pub serial: String,
    /// Drift as last measured.
    pub drift_ms: Option<i64>,
    /// The latest believable time.
    pub newest: LocalS,
}

/// A log, compared with the cursor.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Records to hand over, in the log's order, with their ordinals.
    fresh: Vec<(&'a [u8], u32, Keys)>,
    /// Live punches that the log has confirmed.
    confirmed: Vec<Step>,
    /// How often each identity stands in the log.
    counts: HashMap<Key, u32>,
    /// Raw records that are not plausible.
    pub set_aside: Vec<&'a [u8]>,
    per_day: BTreeMap<i64, u32>,
    recent: HashSet<Key>,
}

/// A read that is being handed over.
#[derive(Debug)]
pub struct Delivery<'a> {
    fresh: Vec<(&'a [u8], u32, Keys)>,
    /// How many of them have been accepted.
    at: usize,
    proof: Option<ReadProof>,
    counts: HashMap<Key, u32>,
}

/// Hands over the punches of one terminal.
#[derive(Debug)]
pub struct Book<A> {
    accept: A,
    clock: SharedClock,
    device: DeviceId,
    utc_offset_min: i16,
    cursor: Cursor,
    /// Layout and users of the last read, to understand short live events.
    layout: Option<Layout>,
    users: Users,
    /// Punches of the newest day in the log, by who and when: a late event of one of them is no news.
    recent: HashSet<Key>,
}

impl<A: Keep> Book<A> {
    /// A book over an opened cursor.
    pub fn new(
        accept: A,
        clock: SharedClock,
        device: DeviceId,
        utc_offset_min: i16,
        cursor: Cursor,
    ) -> Self {
        Self {
            accept,
            clock,
            device,
            utc_offset_min,
            cursor,
            layout: None,
            users: Users::new(),
            recent: HashSet::new(),
        }
    }

    /// Makes sure that what the cursor calls accepted is what the buffer has or has delivered; to be
    /// called before each [`Self::plan`].
    ///
    /// # Errors
    /// What the buffer said; then nothing may be planned.
    pub async fn settle(&mut self) -> Result<(), BufferError> {
        let life = self.accept.life(Stream::Attendance).await?;
        self.cursor.belong(life).await;
        Ok(())
    }

    /// Which records of this log are new. Memory: the log's length and about 100 bytes a record.
    #[must_use]
    pub fn plan<'a>(&self, visit: &Visit, pulled: &'a Pulled) -> Plan<'a> {
        let mut plan = Plan {
            fresh: Vec::new(),
            confirmed: Vec::new(),
            counts: HashMap::new(),
            set_aside: Vec::new(),
            per_day: BTreeMap::new(),
            recent: HashSet::new(),
        };
        let Some(layout) = pulled.layout else {
            return plan;
        };
        let mut newest_day = i64::MIN;
        let mut ordinals = HashMap::new();
        for raw in pulled.raw() {
            let Some(record) = layout.read(raw, visit.newest) else {
                plan.set_aside.push(raw);
                continue;
            };
            let keys = Keys::of(&visit.serial, &record);
            let day = record.local_s.div_euclid(DAY_S);
            *plan.per_day.entry(day).or_default() += 1;
            if day > newest_day {
                newest_day = day;
                plan.recent.clear();
            }
            if day == newest_day {
                plan.recent.insert(keys.punch);
            }
            let ordinal = next(&mut ordinals, keys.punch);
            let nth = next(&mut plan.counts, keys.exact);
            if nth < self.cursor.seen(keys.exact) {
                continue;
            }
            // where records do not tell state and verify, the event knows better
            let settled = ordinal == 0
                && self
                    .cursor
                    .live(keys.punch)
                    .is_some_and(|live| live == keys.exact || !layout.tells_state());
            if settled {
                plan.confirmed.push(Step::Confirmed(keys));
            } else {
                plan.fresh.push((raw, ordinal, keys));
            }
        }
        plan
    }

    /// Begins to hand a read over: live punches that it confirms are settled here.
    pub async fn begin<'a>(&mut self, pulled: &Pulled, plan: Plan<'a>) -> Delivery<'a> {
        self.layout = pulled.layout.or(self.layout);
        self.users.clone_from(&pulled.users);
        self.recent = plan.recent;
        self.cursor.advance(&plan.confirmed).await;
        let proof = ReadProof {
            counter_before: pulled.before,
            counter_after: pulled.after,
            records: pulled.records,
            complete: pulled.is_complete(),
            quarantined: u32::try_from(plan.set_aside.len()).unwrap_or(u32::MAX),
            per_day: plan
                .per_day
                .iter()
                .rev()
                .take(PROOF_DAYS)
                .map(|(day, n)| (day_name(*day), *n))
                .collect(),
            layout: pulled.layout.map(Layout::name).unwrap_or_default(),
        };
        Delivery {
            fresh: plan.fresh,
            at: 0,
            proof: Some(proof),
            counts: plan.counts,
        }
    }

    /// Hands the next batch over; the proof goes with the last, also when nothing is new. `false`
    /// when that was the last. Batch by batch, so that the caller can look after live events in
    /// between.
    ///
    /// # Errors
    /// What the buffer said. What it accepted before is kept as such; the rest comes with the next
    /// read.
    pub async fn step(
        &mut self,
        visit: &Visit,
        pulled: &Pulled,
        delivery: &mut Delivery<'_>,
    ) -> Result<bool, BufferError> {
        let rest = delivery.fresh.get(delivery.at..).unwrap_or_default();
        let now = rest.get(..batch_len(rest)).unwrap_or_default();
        let last = now.len() == rest.len();
        let punches = now
            .iter()
            .filter_map(|(raw, ordinal, _)| {
                let record = pulled.layout?.read(raw, visit.newest)?;
                Some(self.punch(&record, *ordinal, raw))
            })
            .collect();
        let proof = delivery.proof.as_ref().filter(|_| last).cloned();
        self.append(visit, Way::Pull, proof, punches).await?;
        let steps: Vec<Step> = now
            .iter()
            .map(|(_, ordinal, keys)| match self.cursor.live(keys.punch) {
                Some(_) if *ordinal == 0 => Step::Confirmed(*keys),
                _ => Step::Seen(keys.exact),
            })
            .collect();
        self.cursor.advance(&steps).await;
        delivery.at += now.len();
        if last && delivery.proof.take().is_some_and(|proof| proof.complete) {
            self.cursor.retain(&delivery.counts).await;
        }
        Ok(!last)
    }

    /// Hands one live event over, unless its punch has been already. `false` if it is no plausible
    /// punch.
    ///
    /// # Errors
    /// What the buffer said; the log will bring the punch.
    pub async fn live(&mut self, visit: &Visit, data: &[u8]) -> Result<bool, BufferError> {
        let uid_only = self.layout.is_some_and(Layout::needs_users);
        let Some(record) = event::decode(data, visit.newest, uid_only) else {
            return Ok(false);
        };
        let keys = Keys::of(&visit.serial, &record);
        // the same event twice is one whose confirmation was lost; real doubles come with the log
        if self.cursor.seen(keys.exact) > 0
            || self.cursor.live(keys.punch).is_some()
            || self.recent.contains(&keys.punch)
        {
            return Ok(true);
        }
        let punch = self.punch(&record, 0, data);
        self.append(visit, Way::Live, None, vec![punch]).await?;
        self.cursor.advance(&[Step::Live(keys)]).await;
        Ok(true)
    }

    fn punch(&self, record: &Record<'_>, ordinal: u32, raw: &[u8]) -> Punch {
        let user = match &record.who {
            Who::User(id) => id.clone().into_owned(),
            Who::Uid(uid) => match self.users.get(uid) {
                Some(id) => id.clone(),
                None => format!("uid:{uid}"),
            },
        };
        Punch {
            user,
            local_s: record.local_s,
            state: record.state,
            verify: record.verify,
            ordinal: u16::try_from(ordinal).unwrap_or(u16::MAX),
            raw: raw.to_vec(),
        }
    }

    async fn append(
        &self,
        visit: &Visit,
        way: Way,
        read: Option<ReadProof>,
        punches: Vec<Punch>,
    ) -> Result<(), BufferError> {
        let body = RecordBody::new(
            self.clock.stamp(),
            Some(self.device.clone()),
            Content::Punches(PunchBatch {
                serial: visit.serial.clone(),
                way,
                utc_offset_min: self.utc_offset_min,
                drift_ms: visit.drift_ms,
                read,
                punches,
            }),
        );
        self.accept.append(&body).await.map(|_| ())
    }
}

/// Counts one more of these, and says how many there were before.
fn next(counts: &mut HashMap<Key, u32>, key: Key) -> u32 {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count - 1
}

/// How many of these records fit in one batch; at least one if there is one.
fn batch_len(records: &[(&[u8], u32, Keys)]) -> usize {
    let mut bytes = 0;
    let fitting = records
        .iter()
        .take(BATCH_PUNCHES)
        .take_while(|(raw, _, _)| {
            // the user id is part of the raw record, or shorter than the overhead allows for
            bytes += 2 * raw.len().min(24) + raw.len() + PUNCH_OVERHEAD;
            bytes <= BATCH_BYTES
        })
        .count();
    fitting.max(1).min(records.len())
}
