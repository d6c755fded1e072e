//! One lane (epoch, stream) of the buffer as the uplink sees it while it is connected.
//!
//! Invariant: of the numbers below `next`, each is in exactly one of these: wanted and not yet sent
//! (`want`), at the head (`head`), on its way (`flight`), or none of the hub's wishes.

use std::collections::{BTreeMap, VecDeque};

use scc_common::id::Seq;
use scc_common::wire::{LaneAck, LaneAnswer, LaneOffer, PartAck, SeqRange};

use super::window::Piece;
use crate::buffer::Stored;
use scc_common::ranges::RangeSet;

/// Newest records of a lane that are of now: health comes every 30 s.
const LIVE: u64 = 2;

/// The record at the head of a lane: read, and not yet sent to its end.
#[derive(Debug)]
pub(super) struct Head {
    /// The record.
    pub(super) stored: Stored,
    /// Bytes of it that have been sent or are spooled at the hub.
    pub(super) offset: usize,
    /// Whether a part of it has been sent, so that it cannot change to a batch any more.
    pub(super) in_parts: bool,
}

/// A record on its way.
#[derive(Debug, Default)]
struct Flying {
    /// Its pieces: where each ends (whole records: at `usize::MAX`), and its weight.
    pieces: VecDeque<(usize, Piece)>,
}

/// What an acknowledgement changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Pieces that are no longer in flight.
    pub(super) pieces: Vec<Piece>,
    /// Whether anything is now stored or spooled that was not before.
    pub(super) progress: bool,
    /// What the buffer may be told, if it is new: watermark, and ranges above it.
    pub(super) commit: Option<(Seq, Vec<SeqRange>)>,
}

/// A lane.
#[derive(Debug)]
pub(super) struct LaneState {
    /// The number that the next record will get.
    pub(super) next: Seq,
    /// Wanted by the hub and not yet sent; open at the end.
    want: RangeSet,
    /// The record that is being sent.
    pub(super) head: Option<Head>,
    flight: BTreeMap<Seq, Flying>,
    /// Large records that the hub has spooled in part.
    resume: BTreeMap<Seq, u32>,
    /// Numbers whose gaps the hub has been told since the hello.
    told: RangeSet,
    /// How often another lane was served while this one could have been.
    pub(super) passed_over: u32,
    /// The hub knows numbers here that this buffer has not given yet, or other bodies under those that
    /// it has: the card went back in time or was copied. What the hub calls stored may be other records under the same numbers.
    pub(super) suspect: bool,
    last_commit: (Seq, Vec<SeqRange>),
}

impl LaneState {
    /// A lane that came into being after the hello: the hub cannot know it.
    pub(super) fn fresh(next: Seq) -> Self {
        Self {
            next,
            want: RangeSet::of([SeqRange {
                first: 1,
                last: Seq::MAX,
            }]),
            head: None,
            flight: BTreeMap::new(),
            resume: BTreeMap::new(),
            told: RangeSet::default(),
            passed_over: 0,
            suspect: false,
            last_commit: (0, Vec::new()),
        }
    }

    /// A lane of the hello, as the hub wants it. `suspect`: the hub has other records under its numbers than this
    /// buffer, which holds these unacknowledged. All of them are sent, wherever they lie: what the hub calls
    /// stored may be another's.
    pub(super) fn answered(
        offer: &LaneOffer,
        told: RangeSet,
        answer: Option<&LaneAnswer>,
        suspect: Option<&[SeqRange]>,
    ) -> Self {
        let mut lane = Self::fresh(offer.next);
        lane.told = told;
        // a hub that forgot to answer for a lane gets all of it: duplicates do no harm
        let Some(answer) = answer else { return lane };
        lane.want = RangeSet::of(answer.missing.iter().copied());
        lane.want.insert(SeqRange {
            first: answer.from.max(1),
            last: Seq::MAX,
        });
        lane.resume = answer.parts.iter().map(|p| (p.seq, p.received)).collect();
        if let Some(unacknowledged) = suspect {
            lane.suspect = true;
            unacknowledged.iter().for_each(|r| lane.want.insert(*r));
        }
        lane
    }

    /// Whether only the newest records of the lane wait to be sent.
    pub(super) fn is_live(&self) -> bool {
        let head = self.head.as_ref().map(|head| head.stored.seq);
        let oldest = head.or_else(|| self.wanted().map(|range| range.first));
        oldest.is_none_or(|seq| self.next.saturating_sub(seq) <= LIVE)
    }

    /// What an answer proves to be stored: watermark, and ranges above it. Nothing of a suspect lane.
    pub(super) fn proven(&self, answer: &LaneAnswer) -> Option<(Seq, Vec<SeqRange>)> {
        if self.suspect {
            return None;
        }
        let missing = RangeSet::of(answer.missing.iter().copied());
        let below = SeqRange {
            first: 1,
            last: answer.from.saturating_sub(1),
        };
        let mut stored = missing.holes(below);
        let watermark = match stored.first() {
            Some(first) if first.first == 1 => stored.remove(0).last,
            _ => 0,
        };
        Some((watermark, stored))
    }

    /// The first wanted records that exist.
    pub(super) fn wanted(&self) -> Option<SeqRange> {
        self.want.first_below(self.next)
    }

    /// All wanted records that exist.
    pub(super) fn all_wanted(&self) -> Vec<SeqRange> {
        let below = |range: SeqRange| SeqRange {
            last: range.last.min(self.next.saturating_sub(1)),
            ..range
        };
        let wanted = self.want.iter().map(below);
        wanted.filter(|range| !range.is_empty()).collect()
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.head.is_some() || self.wanted().is_some()
    }

    /// Whether anything has been sent and not yet committed.
    pub(super) fn is_waiting(&self) -> bool {
        !self.flight.is_empty()
    }

    /// These numbers were read (or proved not to be there): they are no longer merely wanted.
    pub(super) fn took(&mut self, range: SeqRange) {
        self.want.remove(range);
    }

    /// Gives back what was read but will be read again.
    pub(super) fn give_back(&mut self, range: SeqRange) {
        self.want.insert(range);
    }

    /// A record comes to the head; the hub may have its beginning already.
    pub(super) fn lead(&mut self, stored: Stored) {
        let spooled = self.resume.remove(&stored.seq).unwrap_or(0);
        let spooled = usize::try_from(spooled).unwrap_or(0);
        let total = stored.body.len();
        // an offset beyond the end belongs to another body: begin again
        let offset = if spooled <= total { spooled } else { 0 };
        self.head = Some(Head {
            in_parts: offset > 0,
            stored,
            offset,
        });
    }

    /// Whether the hub holds the beginning of this record.
    pub(super) fn is_spooled(&self, seq: Seq) -> bool {
        self.resume.contains_key(&seq)
    }

    /// A piece of a record went out, which ends at `end`.
    pub(super) fn flew(&mut self, seq: Seq, end: usize, piece: Piece) {
        self.flight
            .entry(seq)
            .or_default()
            .pieces
            .push_back((end, piece));
    }

    /// Of these numbers, the ranges whose gaps were not told yet.
    pub(super) fn untold(&self, range: SeqRange) -> Vec<SeqRange> {
        self.told.holes(range)
    }

    /// A gap has been told.
    pub(super) fn tell(&mut self, range: SeqRange) {
        self.told.insert(range);
    }

    /// The hub has committed or spooled.
    pub(super) fn acknowledge(&mut self, ack: &LaneAck) -> Change {
        let mut change = Change::default();
        for part in &ack.parts {
            self.spooled(*part, &mut change);
        }
        let below = SeqRange {
            first: 1,
            last: ack.watermark,
        };
        let covered = || std::iter::once(below).chain(ack.stored.iter().copied());
        let mut committed = Vec::new();
        self.flight.retain(|seq, flying| {
            if !covered().any(|r| r.contains(*seq)) {
                return true;
            }
            change.progress = true;
            change
                .pieces
                .extend(flying.pieces.drain(..).map(|(_, p)| p));
            committed.push(SeqRange {
                first: *seq,
                last: *seq,
            });
            false
        });
        if self.suspect {
            // only what was sent since the hub's answer is certainly ours
            let committed: Vec<_> = RangeSet::of(committed).iter().collect();
            if !committed.is_empty() {
                change.commit = Some((0, committed));
            }
            return change;
        }
        for range in covered() {
            self.want.remove(range);
            if self
                .head
                .as_ref()
                .is_some_and(|h| range.contains(h.stored.seq))
            {
                self.head = None;
            }
        }
        let commit = (ack.watermark, ack.stored.clone());
        if commit != self.last_commit {
            self.last_commit = commit.clone();
            change.commit = Some(commit);
        }
        change
    }

    fn spooled(&mut self, part: PartAck, change: &mut Change) {
        let received = usize::try_from(part.received).unwrap_or(usize::MAX);
        if let Some(flying) = self.flight.get_mut(&part.seq) {
            while flying
                .pieces
                .front()
                .is_some_and(|(end, _)| *end <= received)
            {
                change
                    .pieces
                    .extend(flying.pieces.pop_front().map(|(_, p)| p));
                change.progress = true;
            }
        }
        if let Some(head) = &mut self.head
            && head.stored.seq == part.seq
            && received <= head.stored.body.len()
        {
            // the hub had more of it than we knew
            head.offset = head.offset.max(received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;

    fn answer(from: Seq, missing: &[(Seq, Seq)]) -> LaneAnswer {
        LaneAnswer {
            epoch: Epoch(1),
            stream: Stream::Attendance,
            from,
            missing: missing
                .iter()
                .map(|(first, last)| SeqRange {
                    first: *first,
                    last: *last,
                })
                .collect(),
            parts: Vec::new(),
            mark: None,
        }
    }

    fn offer(next: Seq) -> LaneOffer {
        LaneOffer {
            epoch: Epoch(1),
            stream: Stream::Attendance,
            next,
            held: Vec::new(),
            gaps: Vec::new(),
        }
    }

    fn lane(next: Seq, answer: &LaneAnswer) -> LaneState {
        LaneState::answered(&offer(next), RangeSet::default(), Some(answer), None)
    }

    #[test]
    fn an_answer_proves_what_lies_between_the_missing() {
        for (from, missing, expected) in [
            (1, vec![], (0, vec![])),
            (11, vec![], (10, vec![])),
            (11, vec![(4, 6)], (3, vec![(7, 10)])),
            (11, vec![(1, 2), (10, 10)], (0, vec![(3, 9)])),
        ] {
            let answer = answer(from, &missing);
            let (watermark, stored) = lane(20, &answer).proven(&answer).unwrap();
            let stored: Vec<_> = stored.iter().map(|r| (r.first, r.last)).collect();
            assert_eq!((watermark, stored), expected, "from {from} {missing:?}");
        }
    }

    #[test]
    fn a_restored_hub_gets_again_what_was_acknowledged_once() {
        let lane = lane(100, &answer(50, &[(10, 12)]));
        assert_eq!(
            lane.wanted(),
            Some(SeqRange {
                first: 10,
                last: 12
            })
        );
    }

    /// A clone of the card has delivered as many records as this one has taken, or fewer.
    #[test]
    fn a_lane_in_which_the_hub_has_other_bodies_proves_nothing() {
        for from in [61, 55] {
            let answer = answer(from, &[]);
            // 55 is a gap: what waits is no range that ends at the newest
            let waiting = [(51, 54), (56, 60)].map(|(first, last)| SeqRange { first, last });
            let lane = LaneState::answered(
                &offer(61),
                RangeSet::default(),
                Some(&answer),
                Some(&waiting),
            );
            assert_eq!(lane.proven(&answer), None);
            let wanted = lane.all_wanted();
            for range in waiting {
                assert!((range.first..=range.last).all(|n| wanted.iter().any(|w| w.contains(n))));
            }
        }
    }

    #[test]
    fn a_lane_that_the_hub_knows_better_than_we_do_proves_nothing() {
        let answer = answer(101, &[]);
        let lane = LaneState::answered(
            &offer(61),
            RangeSet::default(),
            Some(&answer),
            Some(&[SeqRange {
                first: 51,
                last: 60,
            }]),
        );
        assert!(lane.suspect);
        assert_eq!(lane.proven(&answer), None);
        assert_eq!(
            lane.wanted(),
            Some(SeqRange {
                first: 51,
                last: 60
            }),
            "what only this card holds must still be sent"
        );
    }
}
