//! What the database takes in no form. It is a defect of this program, and nothing may be lost by
//! it: what is stuck is not acknowledged, so its agent keeps it and sends it again, and whoever runs
//! the hub sees it until it is stored, or has become a gap because its agent no longer holds it.
//!
//! Of a site that never comes back neither is ever heard, and the hub cannot know that it will not:
//! what was stuck of it is shown until the hub is started again, which begins with nothing stuck.

use std::collections::{BTreeMap, BTreeSet};

use scc_common::id::{AgentId, Seq};
use scc_common::wire::LaneAck;

use crate::store::{LaneKey, Write, is_noted};

/// Lanes and agents that are remembered. Their names are the agents' to invent; when there are more,
/// the trouble is on screen already, and those beyond are told of when they come again.
const REMEMBERED: usize = 1_000;

/// What is stuck at the moment.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// The highest number of each lane that could not be stored or noted. The watermark passes it
    /// only when all below it are stored as well.
    lanes: BTreeMap<LaneKey, Seq>,
    /// Agents whose hello cannot be noted.
    hellos: BTreeSet<AgentId>,
}

impl Stuck {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.hellos.is_empty()
    }

    /// This was refused in every form. Says whether it now waits for better times: only then is it
    /// what the trouble on screen is about.
    pub(super) fn add(&mut self, write: &Write) -> bool {
        if self.lanes.len() + self.hellos.len() >= REMEMBERED {
            return false;
        }
        match write {
            Write::Record(new) | Write::Imported { new, .. } => {
                self.number(new.key.lane.clone(), new.key.seq)
            }
            Write::Seen { key, .. } => self.number(key.lane.clone(), key.seq),
            Write::Gaps { agent, gaps, .. } => {
                // no watermark would ever reach the end of one that is passed over
                for gap in gaps.iter().filter(|gap| is_noted(gap)) {
                    let lane = LaneKey {
                        agent: agent.clone(),
                        epoch: gap.epoch,
                        stream: gap.stream,
                    };
                    self.number(lane, gap.range.last);
                }
            }
            Write::Hello { agent, .. } => {
                self.hellos.insert(agent.clone());
            }
            // It stays stored and counted as unreadable; a boot is measured again at the next answer.
            Write::Again(_) | Write::Boot { .. } => return false,
        }
        true
    }

    fn number(&mut self, lane: LaneKey, seq: Seq) {
        let highest = self.lanes.entry(lane).or_default();
        *highest = seq.max(*highest);
    }

    /// This lane is committed so far.
    pub(super) fn acked(&mut self, agent: &AgentId, lane: &LaneAck) {
        let key = LaneKey {
            agent: agent.clone(),
            epoch: lane.epoch,
            stream: lane.stream,
        };
        if self
            .lanes
            .get(&key)
            .is_some_and(|seq| *seq <= lane.watermark)
        {
            self.lanes.remove(&key);
        }
    }

    /// This agent's hello is noted.
    pub(super) fn greeted(&mut self, agent: &AgentId) {
        self.hellos.remove(agent);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use scc_common::checksum::Checksum;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;
    use scc_common::wire::{Gap, GapReason, SeqRange};

    use super::*;
    use crate::store::{NewRecord, RecordKey, StoredBody};

    fn agent() -> AgentId {
        AgentId::new("rsud").unwrap()
    }

    fn record(seq: Seq) -> Box<NewRecord> {
        Box::new(NewRecord {
            key: RecordKey {
                lane: LaneKey {
                    agent: agent(),
                    epoch: Epoch(7),
                    stream: Stream::Event,
                },
                seq,
            },
            sum: Checksum::of(b""),
            size: 0,
            body: StoredBody::Row(Bytes::new()),
            said: None,
            received_ms: 0,
        })
    }

    #[test]
    fn only_what_waits_at_its_agent_is_taken() {
        let mut stuck = Stuck::default();
        assert!(!stuck.add(&Write::Again(record(1))));
        assert!(stuck.is_empty());
        assert!(stuck.add(&Write::Record(record(2))));
        assert!(
            !stuck.add(&Write::Again(record(1))),
            "another trouble is on screen"
        );
        assert!(!stuck.is_empty());
    }

    #[test]
    fn a_gap_that_the_ledger_passes_over_waits_for_nothing() {
        let gap = |first, last| Gap {
            epoch: Epoch(7),
            stream: Stream::Event,
            range: SeqRange { first, last },
            reason: GapReason::Damaged,
            at_ms: 0,
        };
        let mut stuck = Stuck::default();
        let gaps = vec![gap(1, u64::MAX), gap(0, 9), gap(9, 8), gap(2, 4)];
        assert!(stuck.add(&Write::Gaps {
            agent: agent(),
            gaps,
            received_ms: 0,
        }));
        let mut ack = LaneAck {
            epoch: Epoch(7),
            stream: Stream::Event,
            watermark: 3,
            stored: Vec::new(),
            parts: Vec::new(),
        };
        stuck.acked(&agent(), &ack);
        assert!(!stuck.is_empty());
        ack.watermark = 4;
        stuck.acked(&agent(), &ack);
        assert!(stuck.is_empty(), "{stuck:?}");
    }
}
