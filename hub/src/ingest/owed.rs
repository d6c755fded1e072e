//! What the hub has asked for and does not have yet, although its watermark lies above it: numbers in a
//! gap that their agent holds after all, and rows whose media file is gone. An acknowledgement that
//! covered them would have the agent let go of what it has just been asked for.
//!
//! Kept for one life of the hub, from each answer to the next.

use std::collections::HashMap;

use scc_common::ranges::RangeSet;
use scc_common::wire::{LaneAck, SeqRange};

use crate::store::LaneKey;

/// Ranges of an acknowledgement, of each end of what is covered: what was sent just now is there.
const EACH_END: usize = 32;

/// By lane; at most as many ranges for each as an answer names.
#[derive(Debug, Default)]
pub(super) struct Owed(HashMap<LaneKey, RangeSet>);

impl Owed {
    /// This is missing of the lane now, and nothing else is.
    pub(super) fn asked(&mut self, lane: &LaneKey, missing: &[SeqRange]) {
        if missing.is_empty() {
            self.0.remove(lane);
        } else {
            let missing = RangeSet::of(missing.iter().copied());
            self.0.insert(lane.clone(), missing);
        }
    }

    /// These are here now, or will not come.
    pub(super) fn settled(&mut self, lane: &LaneKey, range: SeqRange) {
        if let Some(missing) = self.0.get_mut(lane) {
            missing.remove(range);
            if missing.is_empty() {
                self.0.remove(lane);
            }
        }
    }

    /// Takes what is owed out of what is acknowledged.
    pub(super) fn spare(&self, lane: &LaneKey, ack: &mut LaneAck) {
        let Some(missing) = self.0.get(lane) else {
            return;
        };
        let below = SeqRange {
            first: 1,
            last: ack.watermark,
        };
        let covered = std::iter::once(below)
            .chain(ack.stored.drain(..))
            .filter(|range| !range.is_empty());
        let covered = RangeSet::of(covered).minus(missing);
        ack.watermark = covered.watermark();
        let above: Vec<SeqRange> = covered.iter().filter(|r| r.first > ack.watermark).collect();
        let (first, rest) = above.split_at(above.len().min(EACH_END));
        let last = &rest[rest.len().saturating_sub(EACH_END)..];
        ack.stored = [first, last].concat();
    }
}

#[cfg(test)]
mod tests {
    use scc_common::id::{AgentId, Epoch, Seq};
    use scc_common::stream::Stream;

    use super::*;

    fn range(first: Seq, last: Seq) -> SeqRange {
        SeqRange { first, last }
    }

    #[test]
    fn what_was_asked_for_is_acknowledged_when_it_has_come() {
        let lane = LaneKey {
            agent: AgentId::new("rsud").unwrap(),
            epoch: Epoch(7),
            stream: Stream::Snapshot,
        };
        let acked = |owed: &Owed| {
            let mut ack = LaneAck {
                epoch: lane.epoch,
                stream: lane.stream,
                watermark: 10,
                stored: vec![range(12, 20)],
                parts: Vec::new(),
            };
            owed.spare(&lane, &mut ack);
            (ack.watermark, ack.stored)
        };
        let mut owed = Owed::default();
        assert_eq!(acked(&owed), (10, vec![range(12, 20)]));
        owed.asked(&lane, &[range(3, 4), range(15, 15)]);
        let spared = vec![range(5, 10), range(12, 14), range(16, 20)];
        assert_eq!(acked(&owed), (2, spared));
        owed.settled(&lane, range(3, 3));
        assert_eq!(acked(&owed).0, 3);
        owed.settled(&lane, range(4, 15));
        assert_eq!(acked(&owed), (10, vec![range(12, 20)]));
        assert!(owed.0.is_empty());
        owed.asked(&lane, &[range(1, 1)]);
        assert_eq!(acked(&owed).0, 0);
        owed.asked(&lane, &[]);
        assert_eq!(acked(&owed).0, 10);
    }

    #[test]
    fn an_acknowledgement_with_many_holes_names_both_ends() {
        let lane = LaneKey {
            agent: AgentId::new("rsud").unwrap(),
            epoch: Epoch(7),
            stream: Stream::Snapshot,
        };
        let mut owed = Owed::default();
        let odd: Vec<SeqRange> = (0..1_000).map(|n| range(2 * n + 1, 2 * n + 1)).collect();
        owed.asked(&lane, &odd);
        let mut ack = LaneAck {
            epoch: lane.epoch,
            stream: lane.stream,
            watermark: 5_000,
            stored: Vec::new(),
            parts: Vec::new(),
        };
        owed.spare(&lane, &mut ack);
        assert_eq!((ack.watermark, ack.stored.len()), (0, 2 * EACH_END));
        assert_eq!(ack.stored.first(), Some(&range(2, 2)));
        assert_eq!(ack.stored.last(), Some(&range(2_000, 5_000)));
    }
}
