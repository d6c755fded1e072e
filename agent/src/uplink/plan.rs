//! What to send next.
//!
//! The plan knows every lane, what the hub wants of it and what is in flight, and chooses by
//! priority: the order of [`Stream`], the newest epoch first. A lane that has been passed over
//! [`PATIENT`] times goes first once, so that a long backlog of one stream starves none (health,
//! old epochs, video). It does no input or output: the session reads and sends what it chooses.

use std::collections::{BTreeMap, BTreeSet};

use scc_common::id::{Epoch, Seq};
use scc_common::record::LaneHealth;
use scc_common::stream::Stream;
use scc_common::wire::{
    Answer, Gap, LaneAck, LaneOffer, MAX_BATCH, MAX_INLINE, Part, Records, SeqRange, UpMessage,
    WireRecord,
};
use serde_bytes::ByteBuf;
use tokio::time::Instant;

use super::budget::is_exempt;
use super::lane::{Change, LaneState};
use super::window::{Class, Window};
use crate::buffer::{Lane, Stored};
use scc_common::ranges::RangeSet;

/// How often a lane may be passed over before it goes first once.
const PATIENT: u32 = 16;

/// What one record costs in an envelope besides its body, bytes (measured, rounded up).
const PER_RECORD: usize = 64;

/// What one message costs besides its records, an agent id of 64 bytes included.
const PER_MESSAGE: usize = 256;

/// What one gap costs.
const PER_GAP: usize = 128;

/// What the session is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Send (more of) the record at the head of this lane.
    Head(Lane),
    /// Read these records of this lane.
    Read {
        /// The lane.
        lane: Lane,
        /// The first wanted range that exists.
        range: SeqRange,
        /// Bytes of bodies to read.
        max_bytes: usize,
    },
}

/// What an answer says of one lane that the buffer may be told.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The lane.
    pub(super) lane: Lane,
    /// Certainly at the hub: watermark, and ranges above it.
    pub(super) proven: Option<(Seq, Vec<SeqRange>)>,
    /// Certainly not at the hub, whatever it once acknowledged.
    pub(super) wanted: Vec<SeqRange>,
}

/// The plan of one connection, from one answer to the next hello.
#[derive(Debug)]
pub(super) struct Plan {
    lanes: BTreeMap<Lane, LaneState>,
    current: Option<Epoch>,
    /// Epochs that the buffer had at the last hello.
    known: BTreeSet<Epoch>,
    paused: Vec<Stream>,
    /// What may be in flight.
    pub(super) window: Window,
    /// Whether the budget lets go what is not exempt.
    affordable: bool,
    /// The largest message that the budget allows, bytes.
    most: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            current: None,
            known: BTreeSet::new(),
            paused: Vec::new(),
            window: Window::default(),
            affordable: true,
            most: usize::MAX,
        }
    }
}

fn cost(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Plan {
    /// Nothing is wanted or in flight until the next answer; what was measured stays.
    pub(super) fn forget(&mut self) {
        self.lanes.clear();
        self.window.clear();
    }

    /// The hub answered: makes the lanes anew. `known`: the epochs that the buffer had when it
    /// asked. `suspect`: lanes in which the hub has other records than this buffer, with what the buffer
    /// holds of them unacknowledged. Returns what the buffer may be told of them.
    pub(super) fn begin(
        &mut self,
        current: Epoch,
        known: BTreeSet<Epoch>,
        offers: &[LaneOffer],
        answer: &Answer,
        stat: &[LaneHealth],
        suspect: &BTreeMap<Lane, Vec<SeqRange>>,
    ) -> Vec<Verdict> {
        self.lanes.clear();
        self.current = Some(current);
        self.known = known;
        let mut verdicts = Vec::new();
        for offer in offers {
            let of = |epoch, stream| (epoch, stream) == (offer.epoch, offer.stream);
            let answered = answer.lanes.iter().find(|l| of(l.epoch, l.stream));
            let told = RangeSet::of(offer.gaps.iter().map(|g| g.range));
            let lane = Lane {
                epoch: offer.epoch,
                stream: offer.stream,
            };
            let suspect = suspect.get(&lane).map(Vec::as_slice);
            let state = LaneState::answered(offer, told, answered, suspect);
            if let Some(answer) = answered {
                verdicts.push(Verdict {
                    lane,
                    proven: state.proven(answer),
                    wanted: state.all_wanted(),
                });
            }
            self.lanes.insert(lane, state);
        }
        self.extend(stat);
        verdicts
    }

    /// Whether the buffer has begun an epoch since the last hello: it does so by itself
    /// when its index had to be rebuilt.
    pub(super) fn is_outdated(&self) -> bool {
        self.lanes
            .keys()
            .any(|lane| !self.known.contains(&lane.epoch))
    }

    /// Whether the hub knows numbers of the current epoch that this buffer has not given yet, or other
    /// bodies under them.
    pub(super) fn is_copied(&self) -> bool {
        self.lanes
            .iter()
            .any(|(lane, state)| Some(lane.epoch) == self.current && state.suspect)
    }

    /// Records were appended: the lanes reach further, or are new.
    pub(super) fn extend(&mut self, stat: &[LaneHealth]) {
        for lane in stat {
            let state = self
                .lanes
                .entry(Lane {
                    epoch: lane.epoch,
                    stream: lane.stream,
                })
                .or_insert_with(|| LaneState::fresh(lane.next));
            state.next = state.next.max(lane.next);
        }
    }

    /// The hub cannot take these streams at the moment.
    pub(super) fn pause(&mut self, streams: Vec<Stream>) {
        self.paused = streams;
    }

    /// Whether anything that the hub would take waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.lanes
            .iter()
            .any(|(lane, state)| self.is_open(*lane) && state.has_unsent())
    }

    /// Whether pictures wait to be sent, so that the newest may be told with *now*.
    pub(super) fn has_unsent_of(&self, stream: Stream) -> bool {
        self.lanes
            .iter()
            .any(|(lane, state)| lane.stream == stream && state.has_unsent())
    }

    /// Whether anything was sent and is not committed.
    pub(super) fn is_waiting(&self) -> bool {
        self.lanes.values().any(LaneState::is_waiting)
    }

    fn is_open(&self, lane: Lane) -> bool {
        !self.paused.contains(&lane.stream)
    }

    /// What the budget allows until the next word: anything or only what is exempt, and the size of
    /// one message.
    pub(super) fn afford(&mut self, anything: bool, most: usize) {
        self.affordable = anything;
        self.most = most;
    }

    /// Largest part to send now.
    fn part(&self) -> usize {
        self.window.part().min(self.most)
    }

    /// Chooses what goes next, if the window has room for anything.
    pub(super) fn choose(&mut self) -> Option<Choice> {
        let mut able: Vec<(Lane, Choice)> = self
            .lanes
            .iter()
            .filter(|(lane, _)| self.is_open(**lane))
            .filter(|(lane, state)| self.affordable || is_exempt(lane.stream, state.is_live()))
            .filter_map(|(lane, state)| Some((*lane, self.ready(*lane, state)?)))
            .collect();
        able.sort_by_key(|(lane, _)| {
            let hungry = self
                .lanes
                .get(lane)
                .is_some_and(|s| s.passed_over >= PATIENT);
            (
                !hungry,
                lane.stream,
                Some(lane.epoch) != self.current,
                lane.epoch,
            )
        });
        let (chosen, choice) = *able.first()?;
        for (lane, _) in able {
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.passed_over = if lane == chosen {
                    0
                } else {
                    state.passed_over + 1
                };
            }
        }
        Some(choice)
    }

    /// What this lane could do within the window.
    fn ready(&self, lane: Lane, state: &LaneState) -> Option<Choice> {
        if state.suspect && state.is_waiting() {
            return None; // one message at a time, so that each acknowledgement is certainly of it
        }
        if let Some(head) = &state.head {
            let left = head.stored.body.len() - head.offset;
            let class = self.class(lane, head.in_parts, head.stored.body.len());
            return self.fits(class, left).then_some(Choice::Head(lane));
        }
        let range = state.wanted()?;
        let class = if lane.stream.is_media() || state.is_spooled(range.first) {
            Class::Bulk
        } else {
            Class::Small
        };
        // how large the record is will be seen when it has been read
        let room = self.window.room(class);
        (room > cost(PER_MESSAGE + PER_RECORD)).then(|| Choice::Read {
            lane,
            range,
            max_bytes: MAX_BATCH
                .min(usize::try_from(room).unwrap_or(MAX_BATCH))
                .min(self.most),
        })
    }

    /// How a body of this size travels.
    fn class(&self, lane: Lane, in_parts: bool, body: usize) -> Class {
        let fits_inline = body <= MAX_INLINE
            && cost(body + PER_MESSAGE + PER_RECORD) <= self.window.permission() / 2;
        if !in_parts && fits_inline && !lane.stream.is_media() {
            Class::Small
        } else {
            Class::Bulk
        }
    }

    /// Whether a message with `left` bytes of body may go now. A part is cut to a quarter of its
    /// size at most to fill a window; but what is alone in its class goes as large as it may.
    fn fits(&self, class: Class, left: usize) -> bool {
        let room = self.window.room(class);
        let overhead = cost(PER_MESSAGE + PER_RECORD);
        match class {
            Class::Small => {
                let need = cost(left) + overhead;
                room >= need || (self.window.idle(class) && self.window.permitted() >= need)
            }
            Class::Bulk => {
                let piece = cost(left.min(self.part() / 4));
                room >= piece + overhead || (self.window.idle(class) && room > overhead)
            }
        }
    }

    /// The holes before, between and (if nothing came) behind the records that were read for a
    /// choice, whose gaps the hub has not been told.
    pub(super) fn untold(&self, lane: Lane, range: SeqRange, read: &[Stored]) -> Vec<SeqRange> {
        let Some(state) = self.lanes.get(&lane) else {
            return Vec::new();
        };
        let last = read.last().map_or(range.last, |r| r.seq);
        let mut there = RangeSet::of([SeqRange {
            first: range.first,
            last,
        }]);
        for record in read {
            there.remove(SeqRange {
                first: record.seq,
                last: record.seq,
            });
        }
        there.iter().flat_map(|hole| state.untold(hole)).collect()
    }

    /// Turns what was read for a choice into a message, as far as the window allows; the rest stays
    /// wanted or becomes the lane's head.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        range: SeqRange,
        read: Vec<Stored>,
        gaps: Vec<Gap>,
        now: Instant,
    ) -> Option<UpMessage> {
        let covered = SeqRange {
            first: range.first,
            last: read.last().map_or(range.last, |r| r.seq),
        };
        let room = usize::try_from(self.window.room(Class::Small)).unwrap_or(usize::MAX);
        let mut budget = room.saturating_sub(PER_MESSAGE + PER_GAP * gaps.len());
        let mut batch = Vec::new();
        let mut bodies = 0;
        let mut rest = read.into_iter();
        let mut head = None;
        for record in rest.by_ref() {
            let spooled = self
                .lanes
                .get(&lane)
                .is_some_and(|s| s.is_spooled(record.seq));
            let class = self.class(lane, spooled, record.body.len());
            let weight = record.body.len() + PER_RECORD;
            let fits = class == Class::Small
                && weight <= budget
                && bodies + record.body.len() <= MAX_BATCH;
            if !fits {
                head = Some(record);
                break;
            }
            budget -= weight;
            bodies += record.body.len();
            batch.push(record);
        }
        let state = self.lanes.get_mut(&lane)?;
        state.took(covered);
        // what was read behind the head is read again in its turn
        for record in rest {
            state.give_back(SeqRange {
                first: record.seq,
                last: record.seq,
            });
        }
        if let Some(record) = head {
            state.lead(record);
        }
        if batch.is_empty() && gaps.is_empty() {
            return None;
        }
        Some(self.records(lane, batch, gaps, now))
    }

    /// The next piece of the record at the head of a lane.
    pub(super) fn lead(&mut self, lane: Lane, now: Instant) -> Option<UpMessage> {
        let state = self.lanes.get(&lane)?;
        let head = state.head.as_ref()?;
        let class = self.class(lane, head.in_parts, head.stored.body.len());
        if class == Class::Small {
            let head = self.lanes.get_mut(&lane)?.head.take()?;
            return Some(self.records(lane, vec![head.stored], Vec::new(), now));
        }
        let room = usize::try_from(self.window.room(class)).unwrap_or(usize::MAX);
        let most = room
            .saturating_sub(PER_MESSAGE + PER_RECORD)
            .min(self.part());
        let state = self.lanes.get_mut(&lane)?;
        let head = state.head.as_mut()?;
        let total = head.stored.body.len();
        let end = total.min(head.offset + most);
        let part = Part {
            epoch: lane.epoch,
            stream: lane.stream,
            seq: head.stored.seq,
            sum: head.stored.sum,
            // bodies are at most MAX_BODY, far below 2^32
            total: u32::try_from(total).unwrap_or(u32::MAX),
            offset: u32::try_from(head.offset).unwrap_or(u32::MAX),
            gaps: Vec::new(),
            data: ByteBuf::from(head.stored.body.slice(head.offset..end).to_vec()),
        };
        let seq = head.stored.seq;
        let weight = cost(end - head.offset + PER_MESSAGE + PER_RECORD);
        head.offset = end;
        head.in_parts = true;
        if end == total {
            state.head = None;
        }
        let piece = self.window.sent(class, weight, now);
        state.flew(seq, end, piece);
        Some(UpMessage::Part(part))
    }

    fn records(
        &mut self,
        lane: Lane,
        batch: Vec<Stored>,
        gaps: Vec<Gap>,
        now: Instant,
    ) -> UpMessage {
        let mut overhead = PER_MESSAGE + PER_GAP * gaps.len();
        for record in &batch {
            let weight = cost(record.body.len() + PER_RECORD + overhead);
            overhead = 0;
            let piece = self.window.sent(Class::Small, weight, now);
            if let Some(state) = self.lanes.get_mut(&lane) {
                state.flew(record.seq, usize::MAX, piece);
            }
        }
        if let Some(state) = self.lanes.get_mut(&lane) {
            for gap in &gaps {
                state.tell(gap.range);
            }
        }
        UpMessage::Records(Records {
            epoch: lane.epoch,
            stream: lane.stream,
            gaps,
            records: batch.into_iter().map(wire_record).collect(),
        })
    }

    /// The hub has committed or spooled something of a lane. None: not a lane of ours.
    pub(super) fn acknowledge(&mut self, ack: &LaneAck, now: Instant) -> Option<(Lane, Change)> {
        let lane = Lane {
            epoch: ack.epoch,
            stream: ack.stream,
        };
        let change = self.lanes.get_mut(&lane)?.acknowledge(ack);
        self.window.acknowledged(&change.pieces, now);
        Some((lane, change))
    }
}

fn wire_record(stored: Stored) -> WireRecord {
    WireRecord {
        seq: stored.seq,
        sum: stored.sum,
        body: ByteBuf::from(Vec::from(stored.body)),
    }
}
