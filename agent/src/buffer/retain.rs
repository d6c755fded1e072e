//! Policy: what goes when not everything can stay.
//!
//! - Whole files go, oldest first. Each stream has a cap in bytes and one in age; between streams the
//!   configured order decides, and no stream drops one that stands behind it there.
//! - What the hub has goes before what it has not. What it has not of `event`, `attendance` and
//!   `warehouse` (the *protected* ones) goes only after all media, and only because of the caps: if
//!   the file system lacks room, they are refused instead, and their sources offer them again.
//! - Protected streams may grow beyond their cap into the room of those that go before them.
//! - Acknowledged records stay as long as the caps allow: a hub restored from a backup gets them.
//! - An append is refused before anything is dropped if dropping everything that policy allows would
//!   still not make room.
//! - Age is monotonic within a boot, wall time between boots when both clocks were confirmed, and
//!   stands still otherwise. Protected records age only once the hub has them.

use std::collections::BTreeMap;

use scc_common::clock::{ClockQuality, Stamp};
use scc_common::ranges::RangeSet;
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, SeqRange};

use super::BufferError;
use super::disk::{BALLAST, FileId};
use super::index::{Changes, IndexError};
use super::store::{FileInfo, Store, from_io};
use crate::config::BufferLimits;

/// Room that is always left for the index, bytes: sled takes half a MiB at a time and is damaged by
/// a full card.
pub(super) const INDEX_ROOM: u64 = 2 << 20;

/// How often housekeeping runs, milliseconds.
const TEND_EVERY_MS: u64 = 30_000;

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    /// Bytes over the stream's own cap.
    Own(u64),
    /// Bytes over all caps together.
    All(u64),
    /// Bytes that the file system lacks.
    Free(u64),
}

impl Shortage {
    const fn bytes(self) -> u64 {
        match self {
            Self::Own(bytes) | Self::All(bytes) | Self::Free(bytes) => bytes,
        }
    }
}

/// Bytes per stream of a group that are on their way.
pub(super) type Planned = BTreeMap<Stream, u64>;

impl Store {
    /// Makes room for a record of `need` bytes beside `planned` ones that are on their way.
    pub(super) fn make_room(
        &mut self,
        stream: Stream,
        planned: &Planned,
        need: u64,
    ) -> Result<(), BufferError> {
        if let Some(over) = self.over_own(stream, planned, need) {
            self.drop_oldest(stream, over)?;
        }
        let wanted = planned.values().sum::<u64>() + need;
        if let Some(over) = self.over_all(wanted) {
            self.drop_oldest(stream, over)?;
        }
        if let Some(lack) = self.lacking(wanted)? {
            self.drop_oldest(stream, Shortage::Free(lack))?;
            if let Some(lack) = self.lacking(wanted)? {
                return Err(full(stream, Shortage::Free(lack)));
            }
        }
        // the answer above may be old already: somebody else writes to this card too
        self.room_in_the_index()
    }

    /// Asked before anything is changed, so that a full card leaves the store as it was.
    pub(super) fn room_in_the_index(&self) -> Result<(), BufferError> {
        match self.index.reserve() {
            Err(IndexError::NoRoom(text)) => Err(BufferError::Full(text)),
            // what else is wrong with the card, the write will tell
            _ => Ok(()),
        }
    }

    /// Whether a record of `need` bytes beside `planned` ones exceeds its stream's own cap.
    fn over_own(&self, stream: Stream, planned: &Planned, need: u64) -> Option<Shortage> {
        if BufferLimits::is_protected(stream) {
            return None;
        }
        let own = planned.get(&stream).copied().unwrap_or(0) + need;
        let over = self.over(own, self.limits.of(stream).max_bytes, |s| s == stream);
        (over > 0).then_some(Shortage::Own(over))
    }

    /// Whether `wanted` more bytes exceed all caps together.
    fn over_all(&self, wanted: u64) -> Option<Shortage> {
        let over = self.over(wanted, self.limits.all_bytes(), |_| true);
        (over > 0).then_some(Shortage::All(over))
    }

    /// Bytes by which `wanted` more would exceed a cap of some streams.
    fn over(&self, wanted: u64, cap: u64, of: impl Fn(Stream) -> bool) -> u64 {
        let files = self.files.iter().filter(|(id, _)| of(id.stream));
        let there: u64 = files.map(|(_, info)| info.bytes).sum();
        (there + wanted).saturating_sub(cap)
    }

    fn lacking(&self, wanted: u64) -> Result<Option<u64>, BufferError> {
        let free = self.disk.free();
        let free = free.map_err(|e| from_io("asking for free space", &e))?;
        let lack = self
            .limits
            .min_free_bytes
            .saturating_add(wanted + INDEX_ROOM)
            .saturating_sub(free);
        Ok((lack > 0).then_some(lack))
    }

    /// Drops files until `shortage` is made good, or none at all.
    fn drop_oldest(&mut self, stream: Stream, shortage: Shortage) -> Result<(), BufferError> {
        let mut short = shortage.bytes();
        let mut victims = Vec::new();
        for (_, id, bytes) in self.victims(stream, shortage) {
            if short == 0 {
                break;
            }
            short = short.saturating_sub(bytes);
            victims.push(id);
        }
        if short > 0 {
            return Err(full(stream, shortage));
        }
        for id in victims {
            self.evict(id, GapReason::EvictedBySize)?;
        }
        Ok(())
    }

    /// Files that may go to make room for `stream`, in the order in which they go.
    fn victims(&self, stream: Stream, shortage: Shortage) -> Vec<(usize, FileId, u64)> {
        let rank = self.limits.rank(stream);
        let mut victims: Vec<(usize, FileId, u64)> = Vec::new();
        for (id, info) in &self.files {
            let theirs = self.limits.rank(id.stream);
            let unsent_may_go = match shortage {
                Shortage::Own(_) if id.stream != stream => continue,
                Shortage::Own(_) => true,
                Shortage::All(_) => theirs <= rank,
                Shortage::Free(_) => theirs <= rank && !BufferLimits::is_protected(id.stream),
            };
            let class = match (self.is_acked(*id, info), id.stream.is_media()) {
                (true, true) => 0,
                (true, false) => 1,
                (false, _) if unsent_may_go => 2 + theirs,
                (false, _) => continue,
            };
            victims.push((class, *id, info.bytes));
        }
        victims.sort_unstable_by_key(|(class, id, _)| (*class, id.no));
        victims
    }

    /// Whether the hub has every record that a file still holds.
    fn is_acked(&self, id: FileId, info: &FileInfo) -> bool {
        self.lanes.get(&id.lane()).is_none_or(|state| {
            let held = state.held.within(info.range());
            held.minus(&state.acked).is_empty()
        })
    }

    /// The numbers that a file holds. Where a damaged hole of it was filled by an import, there are
    /// numbers between its first and its last that another file holds.
    fn held_in(&mut self, id: FileId, info: &FileInfo) -> Result<RangeSet, BufferError> {
        let mut held = RangeSet::default();
        let looked = self.index.places(id.lane(), info.range(), |seq, place| {
            if place.file == id.no {
                held.insert(SeqRange {
                    first: seq,
                    last: seq,
                });
            }
            true
        });
        looked.map_err(|e| self.index_failed(&e))?;
        Ok(held)
    }

    /// Drops one file: its records become gaps, durably, before it is removed.
    fn evict(&mut self, id: FileId, reason: GapReason) -> Result<(), BufferError> {
        let Some(info) = self.files.get(&id).copied() else {
            return Ok(());
        };
        if self.disk.free().is_ok_and(|free| free < BALLAST) {
            // the index needs a little room to note what is removed
            self.disk.drop_ballast();
        }
        self.room_in_the_index()?;
        let lane = id.lane();
        let lost = self.held_in(id, &info)?;
        let state = self.lanes.get(&lane);
        let unsent = state.map_or(0, |s| lost.minus(&s.acked).count());
        let mut changes = Changes::default();
        self.give_up(lane, &lost, reason, &mut changes)?;
        changes.dead(id);
        self.files.remove(&id);
        if self.writing.get(&id.stream).is_some_and(|w| w.id == id) {
            self.writing.remove(&id.stream);
        }
        self.commit(changes)?;
        if unsent > 0 {
            tracing::warn!(stream = %id.stream, records = unsent, reason = reason.name(), "records dropped before the hub had them");
        }
        if let Err(e) = self.disk.unlink(id) {
            return Err(self.step_failed("removing a file", &e));
        }
        self.buried.push(id);
        Ok(())
    }

    /// Housekeeping: age, ballast, lanes that nobody needs. Cheap when there is nothing to do.
    pub(super) fn tend(&mut self) -> Result<(), BufferError> {
        let now = self.clock.mono_ms();
        let due = self
            .tended_at
            .is_none_or(|at| now.saturating_sub(at) >= TEND_EVERY_MS);
        if !due {
            return Ok(());
        }
        self.tended_at = Some(now);
        let limit = |stream| u64::from(self.limits.of(stream).max_hours) * 3_600_000;
        let old: Vec<FileId> = self
            .files
            .iter()
            .filter(|(id, info)| {
                let age = self.age_ms(&info.newest);
                let old = age.is_some_and(|age| age > limit(id.stream));
                old && (!BufferLimits::is_protected(id.stream) || self.is_acked(**id, info))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in old {
            self.evict(id, GapReason::EvictedByAge)?;
        }
        self.forget_finished_lanes()?;
        let roomy = self.limits.min_free_bytes.saturating_add(2 * BALLAST);
        if self.disk.free().is_ok_and(|free| free >= roomy)
            && let Err(e) = self.disk.take_ballast()
        {
            tracing::debug!(error = %e, "no ballast could be taken");
        }
        Ok(())
    }

    /// Whether a record of `need` bytes beside `planned` ones fits without dropping anything that the
    /// hub does not have; with `drop_acked`, what it has may go. Then [`make_room`](Self::make_room)
    /// drops nothing else.
    pub(super) fn fits_beside_unsent(
        &self,
        stream: Stream,
        planned: &Planned,
        need: u64,
        drop_acked: bool,
    ) -> Result<bool, BufferError> {
        let wanted = planned.values().sum::<u64>() + need;
        let freed = |shortage| -> u64 {
            let victims = self.victims(stream, shortage).into_iter();
            let gone = victims.filter(|(class, ..)| drop_acked && *class < 2);
            gone.map(|(.., bytes)| bytes).sum()
        };
        let lack = self.lacking(wanted)?.map(Shortage::Free);
        let own = self.over_own(stream, planned, need);
        let short = [own, self.over_all(wanted), lack];
        Ok(short
            .into_iter()
            .flatten()
            .all(|shortage| freed(shortage) >= shortage.bytes()))
    }

    /// Whether a record is older than its stream is kept, by the wall clock alone: it comes from
    /// another box, and a command cannot know what this box's clock is worth.
    pub(super) fn is_past_keeping(&self, stream: Stream, stamp: &Stamp) -> bool {
        let limit = i64::from(self.limits.of(stream).max_hours) * 3_600_000;
        !BufferLimits::is_protected(stream)
            && stamp.quality > ClockQuality::Unconfirmed
            && self.clock.wall_ms() - stamp.wall_ms > limit
    }

    fn age_ms(&self, stamp: &Stamp) -> Option<u64> {
        let now = self.clock.stamp();
        if now.boot == stamp.boot {
            return Some(now.mono_ms.saturating_sub(stamp.mono_ms));
        }
        let confirmed = |quality| quality > ClockQuality::Unconfirmed;
        (confirmed(now.quality) && confirmed(stamp.quality))
            .then(|| u64::try_from(now.wall_ms - stamp.wall_ms).unwrap_or(0))
    }

    /// A lane of a former epoch that holds nothing, and of which the hub knows everything, has
    /// nothing left to tell.
    fn forget_finished_lanes(&mut self) -> Result<(), BufferError> {
        let mut changes = Changes::default();
        let before = self.lanes.len();
        let epoch = self.epoch;
        self.lanes.retain(|lane, state| {
            let keep = lane.epoch == epoch
                || !state.held.is_empty()
                || state.acked.watermark() + 1 < state.next;
            if !keep {
                changes.forget(*lane, &state.gaps);
            }
            keep
        });
        if self.lanes.len() < before {
            self.commit(changes)?;
        }
        Ok(())
    }
}

fn full(stream: Stream, shortage: Shortage) -> BufferError {
    BufferError::Full(match shortage {
        Shortage::Own(bytes) | Shortage::All(bytes) => {
            format!("{stream} is {bytes} bytes over its cap and nothing may be dropped for it")
        }
        Shortage::Free(bytes) => {
            format!("the card lacks {bytes} bytes and nothing may be dropped for {stream}")
        }
    })
}
