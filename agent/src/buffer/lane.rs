//! What the buffer knows of one lane, in memory: a few ranges, however long the backlog is.
//!
//! Invariant: `held` and `gaps` never overlap, and together they cover 1 … next − 1.

use scc_common::clock::WallMs;
use scc_common::id::Seq;
use scc_common::wire::{Gap, GapReason, SeqRange};

use super::Lane;
use scc_common::ranges::RangeSet;

/// One lane.
#[derive(Debug, Clone)]
pub(super) struct LaneState {
    /// The number that the next record gets.
    pub(super) next: Seq,
    /// Records on the card, acknowledged or not.
    pub(super) held: RangeSet,
    /// Numbers that the hub has acknowledged (stored there, or a gap that it knows).
    pub(super) acked: RangeSet,
    /// Numbers that will not come, ascending, neighbours of one reason merged.
    pub(super) gaps: Vec<Gap>,
    /// Bytes of the bodies that are held and not acknowledged.
    pub(super) unacked_bytes: u64,
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            next: 1,
            held: RangeSet::default(),
            acked: RangeSet::default(),
            gaps: Vec::new(),
            unacked_bytes: 0,
        }
    }
}

impl LaneState {
    /// Records that are held and not acknowledged.
    pub(super) fn unacked(&self) -> RangeSet {
        self.held.minus(&self.acked)
    }

    /// Numbers that are neither held nor a gap: what an opening has to explain.
    pub(super) fn unexplained(&self) -> RangeSet {
        let mut rest = self.held.clone();
        for gap in &self.gaps {
            rest.insert(gap.range);
        }
        let all = SeqRange {
            first: 1,
            last: self.next - 1,
        };
        RangeSet::of([all]).minus(&rest)
    }

    /// Takes note that `lost` will not come. Records that were acknowledged get the reason that
    /// says so, the others `reason`.
    pub(super) fn lose(&mut self, lane: Lane, lost: &RangeSet, reason: GapReason, at_ms: WallMs) {
        let acked = lost.and(&self.acked);
        let parts = [
            (lost.minus(&acked), reason),
            (acked, GapReason::EvictedAfterAck),
        ];
        for (part, reason) in parts {
            for &range in part.as_slice() {
                self.held.remove(range);
                self.gaps.push(Gap {
                    epoch: lane.epoch,
                    stream: lane.stream,
                    range,
                    reason,
                    at_ms,
                });
            }
        }
        self.gaps.sort_unstable_by_key(|gap| gap.range.first);
        self.gaps.dedup_by(|later, earlier| {
            let touching = earlier.range.last + 1 == later.range.first;
            let same = touching && earlier.reason == later.reason;
            if same {
                earlier.range.last = later.range.last;
                earlier.at_ms = earlier.at_ms.max(later.at_ms);
            }
            same
        });
    }

    /// Takes note that a record is on the card. Stored beats gap.
    pub(super) fn hold(&mut self, seq: Seq) {
        let one = SeqRange {
            first: seq,
            last: seq,
        };
        self.next = self.next.max(seq + 1);
        self.held.insert(one);
        if let Some(at) = self.gaps.iter().position(|gap| gap.range.contains(seq)) {
            let old = self.gaps.remove(at);
            let before = SeqRange {
                last: seq - 1,
                ..old.range
            };
            let after = SeqRange {
                first: seq + 1,
                ..old.range
            };
            for range in [after, before] {
                if !range.is_empty() {
                    self.gaps.insert(at, Gap { range, ..old });
                }
            }
        }
    }

    /// Puts what an index told in order: stored beats gap.
    pub(super) fn settle(&mut self) {
        let held = &self.held;
        let whole = std::mem::take(&mut self.gaps);
        let without_held = |gap: Gap| {
            let rest = RangeSet::of([gap.range]).minus(held);
            let parts: Vec<Gap> = rest
                .as_slice()
                .iter()
                .map(|range| Gap {
                    range: *range,
                    ..gap
                })
                .collect();
            parts
        };
        self.gaps = whole.into_iter().flat_map(without_held).collect();
    }

    /// Records lost before the hub had them.
    pub(super) fn lost(&self) -> u64 {
        self.gaps
            .iter()
            .filter(|gap| gap.reason != GapReason::EvictedAfterAck)
            .map(|gap| gap.range.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;

    const LANE: Lane = Lane {
        epoch: Epoch(1),
        stream: Stream::Segment,
    };

    fn range(first: Seq, last: Seq) -> SeqRange {
        SeqRange { first, last }
    }

    #[test]
    fn a_loss_is_told_apart_by_what_the_hub_has_and_neighbours_become_one_gap() {
        let mut lane = LaneState::default();
        (1..=9).for_each(|seq| lane.hold(seq));
        lane.acked.insert(range(1, 4));
        lane.lose(
            LANE,
            &RangeSet::of([range(1, 3)]),
            GapReason::EvictedBySize,
            5,
        );
        lane.lose(
            LANE,
            &RangeSet::of([range(4, 6)]),
            GapReason::EvictedBySize,
            6,
        );
        let gaps: Vec<_> = lane.gaps.iter().map(|g| (g.range, g.reason)).collect();
        assert_eq!(
            gaps,
            [
                (range(1, 4), GapReason::EvictedAfterAck),
                (range(5, 6), GapReason::EvictedBySize),
            ]
        );
        assert_eq!(lane.lost(), 2);
        assert_eq!(lane.held.as_slice(), [range(7, 9)]);
        assert!(lane.unexplained().is_empty());
    }

    #[test]
    fn a_record_that_turns_up_splits_its_gap() {
        let mut lane = LaneState {
            next: 8,
            ..LaneState::default()
        };
        assert_eq!(lane.unexplained().as_slice(), [range(1, 7)]);
        lane.lose(LANE, &RangeSet::of([range(1, 7)]), GapReason::Damaged, 0);
        lane.hold(4);
        let gaps: Vec<_> = lane.gaps.iter().map(|g| g.range).collect();
        assert_eq!(gaps, [range(1, 3), range(5, 7)]);
        lane.hold(1);
        lane.hold(7);
        assert_eq!(lane.lost(), 4);
        assert!(lane.unexplained().is_empty());
    }
}
