//! Policy: what goes when not everything can stay.
//!
//! - Whole files go, oldest first. What the hub has goes before what it has not; pictures and video
//!   go before anything small, video before pictures.
//! - Small streams may grow into the room of the media. Only when no media is left do small records
//!   go that the hub has not, and never a more precious one for a less precious one.
//! - Acknowledged records stay as long as the caps allow: a hub restored from a backup gets them.
//! - An append is refused before anything is dropped if dropping everything that policy allows would
//!   still not make room.
//! - Age is monotonic within a boot, wall time between boots when both clocks were confirmed, and
//!   stands still otherwise.

use scc_common::clock::{ClockQuality, Stamp};
use scc_common::stream::Stream;
use scc_common::wire::GapReason;

use super::BufferError;
use super::disk::{BALLAST, FileId};
use super::index::Changes;
use super::store::{FileInfo, Store, from_io};

/// Largest and smallest size of a file of records, bytes; between them it is 1/16 of the cap.
const FILE_SIZE: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

/// Room that is always left for the index, bytes: sled takes half a MiB at a time and is damaged by
/// a full card.
const INDEX_ROOM: u64 = 2 << 20;

/// How often housekeeping runs, milliseconds.
const TEND_EVERY_MS: u64 = 30_000;

/// What is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shortage {
    /// Bytes over the caps.
    Cap(u64),
    /// Bytes that the file system lacks.
    Free(u64),
}

/// How precious a small stream is when not even all small records can stay: health repeats itself,
/// a punch never does.
const fn worth(stream: Stream) -> u8 {
    match stream {
        Stream::Segment => 0,
        Stream::Snapshot => 1,
        Stream::Health => 2,
        Stream::Event => 3,
        Stream::Warehouse => 4,
        Stream::Attendance => 5,
    }
}

impl Store {
    /// Size at which a stream's file is full.
    pub(super) fn file_size(&self, stream: Stream) -> u64 {
        let cap = if stream.is_media() {
            self.limits.media_bytes
        } else {
            self.limits.small_bytes
        };
        (cap / 16).clamp(*FILE_SIZE.start(), *FILE_SIZE.end())
    }

    /// Makes room for a record of `need` bytes beside `planned` ones that are on their way.
    pub(super) fn make_room(
        &mut self,
        stream: Stream,
        planned: u64,
        need: u64,
    ) -> Result<(), BufferError> {
        let wanted = planned + need;
        if let Some(over) = self.over_cap(stream, wanted) {
            self.drop_oldest(stream, Shortage::Cap(over))?;
        }
        if let Some(lack) = self.lacking(wanted)? {
            self.drop_oldest(stream, Shortage::Free(lack))?;
            if let Some(lack) = self.lacking(wanted)? {
                return Err(full(stream, Shortage::Free(lack)));
            }
        }
        Ok(())
    }

    fn over_cap(&self, stream: Stream, wanted: u64) -> Option<u64> {
        let (mut media, mut small) = (0, 0);
        for (id, info) in &self.files {
            if id.stream.is_media() {
                media += info.bytes;
            } else {
                small += info.bytes;
            }
        }
        let all = self
            .limits
            .media_bytes
            .saturating_add(self.limits.small_bytes);
        let over = if stream.is_media() {
            let share = self.limits.media_bytes.min(all.saturating_sub(small));
            (media + wanted).saturating_sub(share)
        } else {
            (media + small + wanted).saturating_sub(all)
        };
        (over > 0).then_some(over)
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
        let (Shortage::Cap(mut short) | Shortage::Free(mut short)) = shortage;
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
    fn victims(&self, stream: Stream, shortage: Shortage) -> Vec<(u8, FileId, u64)> {
        let cap = matches!(shortage, Shortage::Cap(_));
        let mut victims: Vec<(u8, FileId, u64)> = Vec::new();
        for (id, info) in &self.files {
            let media = id.stream.is_media();
            // dropping a small record does not bring media below its own cap
            let of_use = media || !cap || !stream.is_media();
            let class = match (self.is_acked(*id, info), media) {
                (true, true) => 0,
                (true, false) => 1,
                (false, true) => 2 + worth(id.stream),
                (false, false)
                    if cap && !stream.is_media() && worth(id.stream) <= worth(stream) =>
                {
                    2 + worth(id.stream)
                }
                (false, false) => continue,
            };
            if of_use {
                victims.push((class, *id, info.bytes));
            }
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

    /// Drops one file: its records become gaps, durably, before it is removed.
    fn evict(&mut self, id: FileId, reason: GapReason) -> Result<(), BufferError> {
        let Some(info) = self.files.get(&id).copied() else {
            return Ok(());
        };
        if self.disk.free().is_ok_and(|free| free < BALLAST) {
            // the index needs a little room to note what is removed
            self.disk.drop_ballast();
        }
        let lane = id.lane();
        let state = self.lanes.get(&lane);
        let lost = state
            .map(|s| s.held.within(info.range()))
            .unwrap_or_default();
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
        let limit = u64::from(self.limits.media_hours) * 3_600_000;
        let old: Vec<FileId> = self
            .files
            .iter()
            .filter(|(id, info)| id.stream.is_media() || self.is_acked(**id, info))
            .filter(|(_, info)| self.age_ms(&info.newest).is_some_and(|age| age > limit))
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
        planned: u64,
        need: u64,
        drop_acked: bool,
    ) -> Result<bool, BufferError> {
        let wanted = planned + need;
        let freed = |shortage| -> u64 {
            let victims = self.victims(stream, shortage).into_iter();
            let gone = victims.filter(|(class, ..)| drop_acked && *class < 2);
            gone.map(|(.., bytes)| bytes).sum()
        };
        let over = self.over_cap(stream, wanted).map(Shortage::Cap);
        let lack = self.lacking(wanted)?.map(Shortage::Free);
        Ok([over, lack].into_iter().flatten().all(|shortage| {
            let (Shortage::Cap(short) | Shortage::Free(short)) = shortage;
            freed(shortage) >= short
        }))
    }

    /// Whether a record is older than its stream is kept, by the wall clock alone: it comes from
    /// another box, and a command cannot know what this box's clock is worth.
    pub(super) fn is_past_keeping(&self, stream: Stream, stamp: &Stamp) -> bool {
        let limit = i64::from(self.limits.media_hours) * 3_600_000;
        stream.is_media()
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
        Shortage::Cap(bytes) => {
            format!("{stream} is {bytes} bytes over its cap and nothing may be dropped for it")
        }
        Shortage::Free(bytes) => {
            format!("the card lacks {bytes} bytes and nothing may be dropped for {stream}")
        }
    })
}
