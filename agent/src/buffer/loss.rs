//! Losses: records that were refused and that their source cannot offer again.
//!
//! Promise: each of them gets a number and is told as part of a gap, like everything else that will
//! not come. Until the index can be written they are counted in memory, per stream and reason, so
//! that days of a full card need no more room than a minute. They are written ahead of the next
//! record that is accepted, or by themselves every [`TELL_EVERY_MS`] while the file system has room
//! for the index; telling of a full card never fills it.
//!
//! What this does not promise: a kill or a power cut forgets what has not been written.

use std::collections::BTreeMap;

use scc_common::clock::{MonoMs, WallMs};
use scc_common::ranges::RangeSet;
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, SeqRange};

use super::index::Changes;
use super::lane::LaneState;
use super::retain::INDEX_ROOM;
use super::store::Store;
use super::{BufferError, Lane};

/// Between two writings while nothing is accepted, milliseconds: a streak of refusals is few rows.
const TELL_EVERY_MS: u64 = 5_000;

/// Records of one stream that were lost for one reason.
#[derive(Debug, Clone, Copy)]
struct Loss {
    stream: Stream,
    reason: GapReason,
    count: u64,
    /// When the last of them was lost.
    at_ms: WallMs,
}

/// What has not been written yet.
#[derive(Debug, Default)]
pub(super) struct Losses {
    counts: Vec<Loss>,
    /// What a commit that may have failed was to write.
    tried: Vec<(Lane, GapReason, SeqRange)>,
    tried_at: Option<MonoMs>,
}

impl Losses {
    /// One more.
    pub(super) fn add(&mut self, stream: Stream, reason: GapReason, at_ms: WallMs) {
        let same = |loss: &&mut Loss| (loss.stream, loss.reason) == (stream, reason);
        match self.counts.iter_mut().find(same) {
            Some(loss) => {
                loss.count += 1;
                loss.at_ms = loss.at_ms.max(at_ms);
            }
            None => self.counts.push(Loss {
                stream,
                reason,
                count: 1,
                at_ms,
            }),
        }
    }

    /// How many of a stream.
    pub(super) fn of(&self, stream: Stream) -> u64 {
        let of_stream = self.counts.iter().filter(|loss| loss.stream == stream);
        of_stream.map(|loss| loss.count).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The store was opened anew after a commit that may have failed: what had reached the index all
    /// the same is not told twice.
    pub(super) fn settle(&mut self, lanes: &BTreeMap<Lane, LaneState>) {
        for (lane, reason, range) in std::mem::take(&mut self.tried) {
            let told = lanes.get(&lane).is_some_and(|state| {
                let mut same = state.gaps.iter().filter(|gap| gap.reason == reason);
                same.any(|gap| gap.range.contains(range.first) && gap.range.contains(range.last))
            });
            for loss in &mut self.counts {
                if told && (loss.stream, loss.reason) == (lane.stream, reason) {
                    loss.count = loss.count.saturating_sub(range.len());
                }
            }
        }
        self.counts.retain(|loss| loss.count > 0);
    }
}

impl Store {
    /// Gives the losses numbers and makes them gaps, durably; how many.
    pub(super) fn tell_losses(&mut self) -> Result<u64, BufferError> {
        if self.losses.is_empty() {
            return Ok(0);
        }
        self.losses.tried_at = Some(self.clock.mono_ms());
        self.room_in_the_index()?;
        let mut changes = Changes::default();
        let mut told = 0;
        for loss in self.losses.counts.clone() {
            let lane = Lane {
                epoch: self.epoch,
                stream: loss.stream,
            };
            let state = self.lanes.entry(lane).or_default();
            let range = SeqRange {
                first: state.next,
                last: state.next + loss.count - 1,
            };
            let former = state.gaps.clone();
            state.next = range.last + 1;
            state.lose(lane, &RangeSet::of([range]), loss.reason, loss.at_ms);
            changes.gaps(lane, &former, &state.gaps);
            changes.next(lane, state.next);
            self.losses.tried.push((lane, loss.reason, range));
            told += loss.count;
        }
        self.commit(changes)?;
        for loss in std::mem::take(&mut self.losses).counts {
            tracing::warn!(
                stream = %loss.stream, records = loss.count, reason = loss.reason.name(),
                "records were refused and are lost"
            );
        }
        Ok(told)
    }

    /// As [`tell_losses`](Self::tell_losses), if it is time and the card has room for it.
    pub(super) fn tell_losses_in_time(&mut self) -> Result<u64, BufferError> {
        let now = self.clock.mono_ms();
        let tried_at = self.losses.tried_at;
        let due = tried_at.is_none_or(|at| now.saturating_sub(at) >= TELL_EVERY_MS);
        if self.losses.is_empty() || !due {
            return Ok(0);
        }
        if self.disk.free().is_ok_and(|free| free >= INDEX_ROOM) {
            return self.tell_losses();
        }
        Ok(0)
    }

    /// The last chance: the ballast's room is for this.
    pub(super) fn tell_losses_at_the_end(&mut self) -> Result<u64, BufferError> {
        if self.losses.is_empty() {
            return Ok(0);
        }
        if self.disk.free().is_ok_and(|free| free < INDEX_ROOM) {
            self.disk.drop_ballast();
        }
        self.tell_losses()
    }
}
