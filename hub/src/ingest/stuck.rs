//! What the database takes in no form. It is a defect of this program, and nothing may be lost by
//! it: what is stuck is not acknowledged, so its agent keeps it and sends it again, and whoever runs
//! the hub sees it until it is stored.

use std::collections::{BTreeMap, BTreeSet};

use scc_common::id::{AgentId, Seq};
use scc_common::wire::LaneAck;

use crate::store::{LaneKey, Write};

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

    /// This was refused in every form.
    pub(super) fn add(&mut self, write: &Write) {
        if self.lanes.len() + self.hellos.len() >= REMEMBERED {
            return;
        }
        match write {
            Write::Record(new) | Write::Imported { new, .. } => {
                self.number(new.key.lane.clone(), new.key.seq)
            }
            Write::Seen { key, .. } => self.number(key.lane.clone(), key.seq),
            Write::Gaps { agent, gaps, .. } => {
                for gap in gaps {
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
            // It stays stored and counted as unreadable.
            Write::Again(_) => {}
        }
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
