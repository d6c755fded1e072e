//! The store: files of records, their index, and what is known of each lane. One thread owns it.
//!
//! Order of durability in [`Store::append`]: payload → fdatasync → names of new files → index →
//! flush → fsync of the index's file. Only then is a record accepted. A step that fails leaves the
//! store [`broken`](Store::broken): what is on the card is then the only truth, and the owner opens
//! it anew (see [`recover`](super::recover)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::{MonoMs, SharedClock, Stamp};
use scc_common::id::{Epoch, Seq};
use scc_common::record::LaneHealth;
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, LaneOffer, SeqRange};

use super::disk::{Disk, FileId, read_or_zeros};
use super::format::{HEADER_LEN, Header};
use super::index::{Changes, Index, IndexError, MAX_ACKED_RANGES, Place};
use super::lane::LaneState;
use super::loss::Losses;
use super::retain::Planned;
use super::{Accepted, BufferError, Damage, Lane, Stored};
use crate::config::BufferLimits;
use scc_common::ranges::RangeSet;

/// Newest records of a lane among which [`Store::holds`] looks: ten minutes of segments of sixteen
/// cameras, and a source asks when it starts.
const SEARCHED: u64 = 1_024;

/// A record on its way in.
#[derive(Debug, Clone)]
pub(super) struct Incoming {
    /// Its stream.
    pub(super) stream: Stream,
    /// When it was captured.
    pub(super) stamp: Stamp,
    /// Its encoded body.
    pub(super) body: Bytes,
}

impl Incoming {
    /// Bytes that it takes in a file.
    pub(super) fn total(&self) -> u64 {
        (HEADER_LEN + self.body.len()) as u64
    }
}

/// One file, as far as the policy must know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileInfo {
    /// Smallest number in it.
    pub(super) first: Seq,
    /// Largest number in it. All records of the lane between the two are in this file, except those
    /// that were damaged in it and came again by an import.
    pub(super) last: Seq,
    /// Its length.
    pub(super) bytes: u64,
    /// Capture time of its newest record.
    pub(super) newest: Stamp,
}

impl FileInfo {
    /// The numbers from the first to the last.
    pub(super) const fn range(&self) -> SeqRange {
        SeqRange {
            first: self.first,
            last: self.last,
        }
    }
}

/// The file that a stream's next record goes to.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) id: FileId,
    pub(super) file: File,
    pub(super) len: u64,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Disk,
    pub(super) index: Index,
    pub(super) limits: BufferLimits,
    pub(super) clock: SharedClock,
    /// The epoch that new records get.
    pub(super) epoch: Epoch,
    pub(super) lanes: BTreeMap<Lane, LaneState>,
    /// Oldest first per stream.
    pub(super) files: BTreeMap<FileId, FileInfo>,
    pub(super) writing: BTreeMap<Stream, Writing>,
    /// Number of the next new file.
    pub(super) next_file: u64,
    /// Files that are gone and whose mark in the index goes with the next commit.
    pub(super) buried: Vec<FileId>,
    /// What could not be read and has not been told yet.
    pub(super) damage: Damage,
    /// A step failed half-way: nothing here may be used any more.
    pub(super) broken: Option<Broken>,
    /// What the step said that broke it.
    pub(super) failure: Option<BufferError>,
    /// Refused records that no source offers again and that no gap tells yet.
    pub(super) losses: Losses,
    /// When housekeeping ran last.
    pub(super) tended_at: Option<MonoMs>,
}

/// Why a store must be opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A write failed; the index is as good as it was.
    Write,
    /// The index cannot be trusted.
    Index,
}

/// A file-system error, as the caller of the buffer sees it.
pub(super) fn from_io(what: &str, e: &io::Error) -> BufferError {
    use rustix::io::Errno;
    match Errno::from_io_error(e) {
        Some(Errno::NOSPC | Errno::DQUOT) => BufferError::Full(format!("{what}: {e}")),
        _ => BufferError::Disk(format!("{what}: {e}")),
    }
}

impl Store {
    /// Takes note of a failure of the index.
    pub(super) fn index_failed(&mut self, e: &IndexError) -> BufferError {
        self.broken = Some(match e {
            IndexError::Damaged(_) => Broken::Index,
            IndexError::NoRoom(_) | IndexError::System(_) => Broken::Write,
        });
        let error = match e {
            IndexError::NoRoom(text) => BufferError::Full(text.clone()),
            other => BufferError::Disk(other.to_string()),
        };
        self.failure = Some(error.clone());
        error
    }

    /// Takes note of a failure of a step on files.
    pub(super) fn step_failed(&mut self, what: &str, e: &io::Error) -> BufferError {
        self.broken = Some(Broken::Write);
        let error = from_io(what, e);
        self.failure = Some(error.clone());
        error
    }

    /// Commits, with the marks of buried files.
    pub(super) fn commit(&mut self, mut changes: Changes) -> Result<(), BufferError> {
        for id in self.buried.drain(..) {
            changes.buried(id);
        }
        let done = self.index.commit(changes);
        done.map_err(|e| self.index_failed(&e))
    }

    /// Numbers and stores a group of records; each gets its own answer, in the same order. Those
    /// for which there is no room are refused alone; a failing card refuses all of them.
    pub(super) fn append(&mut self, group: &[Incoming]) -> Vec<Result<Accepted, BufferError>> {
        let mut answers: Vec<Result<(), BufferError>> = Vec::with_capacity(group.len());
        let mut planned = Planned::new();
        for incoming in group {
            let room = self.make_room(incoming.stream, &planned, incoming.total());
            if room.is_ok() {
                *planned.entry(incoming.stream).or_default() += incoming.total();
            }
            answers.push(room);
            if self.broken.is_some() {
                break;
            }
        }
        let admitted: Vec<&Incoming> = group
            .iter()
            .zip(&answers)
            .filter_map(|(incoming, answer)| answer.is_ok().then_some(incoming))
            .collect();
        let written = match self.broken {
            None => self.write(&admitted),
            Some(_) => Err(self.failure.clone().unwrap_or(BufferError::Closed)),
        };
        let refused = written.as_ref().err().cloned();
        let mut accepted = written.unwrap_or_default().into_iter();
        let fallback = || refused.clone().unwrap_or(BufferError::Closed);
        let mut answers = answers.into_iter();
        group
            .iter()
            .map(|_| match answers.next() {
                Some(Err(e)) => Err(e),
                _ => accepted.next().ok_or_else(fallback),
            })
            .collect()
    }

    fn write(&mut self, group: &[&Incoming]) -> Result<Vec<Accepted>, BufferError> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        // what was lost before these were offered gets the numbers before theirs
        self.tell_losses()?;
        // how long each touched file was before, to undo
        let mut before: BTreeMap<FileId, u64> = BTreeMap::new();
        let mut changes = Changes::default();
        let payload = self.write_payload(group, &mut before, &mut changes);
        let placed = match payload {
            Ok(placed) => placed,
            Err(e) => {
                // Nothing of the group has a number yet. On a full card the index is as good as it
                // was, and opening it there is what must not be. What cannot be cut now is adopted by
                // the next opening, and then the caller's second try is a second record.
                let undone = before.into_iter().map(|(id, len)| self.cut(id, len));
                let undone: io::Result<Vec<()>> = undone.collect();
                return Err(match (from_io("writing a record", &e), undone) {
                    (full @ BufferError::Full(_), Ok(_)) => full,
                    _ => self.step_failed("writing a record", &e),
                });
            }
        };
        let mut next: BTreeMap<Lane, Seq> = BTreeMap::new();
        for (id, header) in &placed {
            next.insert(id.lane(), header.seq + 1);
        }
        for (lane, next) in next {
            changes.next(lane, next);
        }
        self.commit(changes)?;
        let mut accepted = Vec::with_capacity(placed.len());
        for (id, header) in placed {
            let lane = self.lanes.entry(id.lane()).or_default();
            lane.hold(header.seq);
            lane.unacked_bytes += u64::from(header.len);
            let info = self.files.entry(id).or_insert(FileInfo {
                first: header.seq,
                last: header.seq,
                bytes: 0,
                newest: header.stamp,
            });
            info.last = header.seq;
            info.bytes += header.total();
            info.newest = header.stamp;
            // what the buffer has accepted, told to somebody outside: `tests/src/ordeal` holds it
            // against the hub's ledger (SCC_LOG=scc_agent::accepted=debug)
            tracing::debug!(
                target: "scc_agent::accepted",
                epoch = %header.epoch, stream = %header.stream, seq = header.seq, sum = %header.sum,
                "accepted"
            );
            accepted.push(Accepted {
                epoch: header.epoch,
                stream: header.stream,
                seq: header.seq,
            });
        }
        Ok(accepted)
    }

    /// Takes back what was written to a file beyond `len`, or the whole file if it was new.
    fn cut(&mut self, id: FileId, len: u64) -> io::Result<()> {
        if self.writing.get(&id.stream).is_some_and(|w| w.id == id) {
            self.writing.remove(&id.stream);
        }
        self.disk.truncate(id, len)?;
        if self.files.contains_key(&id) {
            return Ok(());
        }
        self.disk.unlink(id)
    }

    fn write_payload(
        &mut self,
        group: &[&Incoming],
        before: &mut BTreeMap<FileId, u64>,
        changes: &mut Changes,
    ) -> io::Result<Vec<(FileId, Header)>> {
        let mut placed = Vec::with_capacity(group.len());
        let mut taken: BTreeMap<Stream, Seq> = BTreeMap::new();
        let mut unsynced: BTreeSet<FileId> = BTreeSet::new();
        let mut new_names: BTreeSet<Stream> = BTreeSet::new();
        for incoming in group {
            let lane = Lane {
                epoch: self.epoch,
                stream: incoming.stream,
            };
            let (next, acked) = self
                .lanes
                .get(&lane)
                .map_or((1, 0), |l| (l.next, l.acked.watermark()));
            let seq = *taken
                .entry(incoming.stream)
                .and_modify(|seq| *seq += 1)
                .or_insert(next);
            let header = Header {
                stream: incoming.stream,
                epoch: self.epoch,
                seq,
                stamp: incoming.stamp,
                acked,
                len: u32::try_from(incoming.body.len()).map_err(io::Error::other)?,
                sum: Checksum::of(&incoming.body),
            };
            if self.must_rotate(incoming) {
                if let Some(full) = self.writing.remove(&incoming.stream)
                    && unsynced.remove(&full.id)
                {
                    self.disk.sync(&full.file)?;
                }
                self.begin_file(lane, before)?;
                new_names.insert(incoming.stream);
            }
            let Some(writing) = self.writing.get_mut(&incoming.stream) else {
                return Err(io::Error::other("no file is open"));
            };
            before.entry(writing.id).or_insert(writing.len);
            let offset = writing.len;
            self.disk
                .write_at(&writing.file, &header.encode(), offset)?;
            self.disk
                .write_at(&writing.file, &incoming.body, offset + HEADER_LEN as u64)?;
            writing.len += header.total();
            unsynced.insert(writing.id);
            let place = Place {
                file: writing.id.no,
                offset,
                len: header.len,
                sum: header.sum,
                wall_ms: header.stamp.wall_ms,
            };
            changes.place(lane, seq, &place);
            placed.push((writing.id, header));
        }
        for writing in self.writing.values() {
            if unsynced.contains(&writing.id) {
                self.disk.sync(&writing.file)?;
            }
        }
        for stream in new_names {
            self.disk.sync_names(stream)?;
        }
        Ok(placed)
    }

    fn must_rotate(&self, incoming: &Incoming) -> bool {
        self.writing.get(&incoming.stream).is_none_or(|writing| {
            let most = self.limits.file_size(incoming.stream);
            writing.id.epoch != self.epoch
                || (writing.len > 0 && writing.len + incoming.total() > most)
        })
    }

    fn begin_file(&mut self, lane: Lane, before: &mut BTreeMap<FileId, u64>) -> io::Result<()> {
        let id = FileId {
            stream: lane.stream,
            no: self.next_file,
            epoch: lane.epoch,
        };
        self.next_file += 1;
        let file = self.disk.create(id)?;
        before.insert(id, 0);
        self.writing
            .insert(lane.stream, Writing { id, file, len: 0 });
        Ok(())
    }

    /// Whether one of the newest records of a stream, in whichever epoch, has this checksum.
    pub(super) fn holds(&mut self, stream: Stream, sum: Checksum) -> Result<bool, BufferError> {
        let mut found = false;
        for (lane, state) in self.lanes.iter().filter(|(lane, _)| lane.stream == stream) {
            let newest = SeqRange {
                first: state.next.saturating_sub(SEARCHED).max(1),
                last: state.next - 1,
            };
            let looked = self.index.places(*lane, newest, |_, place| {
                found = place.sum == sum;
                !found
            });
            if let Err(e) = looked {
                return Err(self.index_failed(&e));
            }
            if found {
                break;
            }
        }
        Ok(found)
    }

    /// Records of a lane in `range`, verified; what turns out damaged becomes a gap.
    pub(super) fn read(
        &mut self,
        lane: Lane,
        range: SeqRange,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, BufferError> {
        let mut records = Vec::new();
        let mut bytes = 0usize;
        let mut open: Option<(u64, File)> = None;
        let mut bad = RangeSet::default();
        let disk = &self.disk;
        let each = |seq: Seq, place: Place| {
            let len = usize::try_from(place.len).unwrap_or(usize::MAX);
            if !records.is_empty() && bytes.saturating_add(len) > max_bytes {
                return false;
            }
            let id = FileId {
                stream: lane.stream,
                epoch: lane.epoch,
                no: place.file,
            };
            if open.as_ref().is_none_or(|(no, _)| *no != place.file) {
                open = disk.open_file(id).ok().map(|file| (place.file, file));
            }
            let record = open
                .as_ref()
                .and_then(|(_, file)| read_record(file, lane, seq, &place));
            match record {
                Some(record) => {
                    bytes += record.body.len();
                    records.push(record);
                }
                None => bad.insert(SeqRange {
                    first: seq,
                    last: seq,
                }),
            }
            bytes < max_bytes
        };
        let read = self.index.places(lane, range, each);
        read.map_err(|e| self.index_failed(&e))?;
        if !bad.is_empty() {
            let unacked = self.lanes.get(&lane).map(|state| bad.minus(&state.acked));
            self.lose(lane, &bad, GapReason::Damaged)?;
            let lost = unacked.map_or(0, |set| set.count());
            self.damage.add(lost, || {
                format!(
                    "{} of epoch {}: damaged on the card",
                    lane.stream, lane.epoch
                )
            });
        }
        Ok(records)
    }

    /// Makes numbers that were held a gap, durably.
    fn lose(&mut self, lane: Lane, lost: &RangeSet, reason: GapReason) -> Result<(), BufferError> {
        let mut changes = Changes::default();
        self.give_up(lane, lost, reason, &mut changes)?;
        self.commit(changes)
    }

    /// Moves held numbers of a lane to its gaps, in memory and in `changes`.
    pub(super) fn give_up(
        &mut self,
        lane: Lane,
        lost: &RangeSet,
        reason: GapReason,
        changes: &mut Changes,
    ) -> Result<(), BufferError> {
        let at_ms = self.clock.wall_ms();
        let Some(state) = self.lanes.get_mut(&lane) else {
            return Ok(());
        };
        let unacked = lost.minus(&state.acked);
        let mut bytes = 0;
        let mut failed = None;
        for range in unacked.as_slice() {
            let sum = self.index.places(lane, *range, |_, place| {
                bytes += u64::from(place.len);
                true
            });
            failed = failed.or(sum.err());
        }
        let former = state.gaps.clone();
        state.lose(lane, lost, reason, at_ms);
        state.unacked_bytes = state.unacked_bytes.saturating_sub(bytes);
        for range in lost.as_slice() {
            (range.first..=range.last).for_each(|seq| changes.unplace(lane, seq));
        }
        changes.gaps(lane, &former, &state.gaps);
        failed.map_or(Ok(()), |e| Err(self.index_failed(&e)))
    }

    /// The hub has 1 ..= watermark and the ranges above it.
    pub(super) fn acknowledge(
        &mut self,
        lane: Lane,
        watermark: Seq,
        stored: &[SeqRange],
    ) -> Result<(), BufferError> {
        let Some(state) = self.lanes.get_mut(&lane) else {
            return Ok(());
        };
        let given = SeqRange {
            first: 1,
            last: state.next - 1,
        };
        let mut said = RangeSet::of([SeqRange {
            first: 1,
            last: watermark,
        }]);
        stored.iter().for_each(|range| said.insert(*range));
        let news = said.within(given).minus(&state.acked);
        if news.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        let mut failed = None;
        for range in news.and(&state.held).as_slice() {
            let sum = self.index.places(lane, *range, |_, place| {
                bytes += u64::from(place.len);
                true
            });
            failed = failed.or(sum.err());
        }
        for range in news.as_slice() {
            state.acked.insert(*range);
        }
        state.unacked_bytes = state.unacked_bytes.saturating_sub(bytes);
        if let Some(e) = failed {
            return Err(self.index_failed(&e));
        }
        self.remember_acked(lane)
    }

    /// The hub wants these again, although it had them once.
    pub(super) fn want_again(
        &mut self,
        lane: Lane,
        wanted: &[SeqRange],
    ) -> Result<(), BufferError> {
        let Some(state) = self.lanes.get_mut(&lane) else {
            return Ok(());
        };
        let mut set = RangeSet::default();
        wanted.iter().for_each(|range| set.insert(*range));
        let again = set.and(&state.acked);
        if again.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        let mut failed = None;
        for range in again.as_slice() {
            let sum = self.index.places(lane, *range, |_, place| {
                bytes += u64::from(place.len);
                true
            });
            failed = failed.or(sum.err());
            state.acked.remove(*range);
        }
        state.unacked_bytes += bytes;
        if let Some(e) = failed {
            return Err(self.index_failed(&e));
        }
        self.remember_acked(lane)
    }

    /// Not made durable at once: an acknowledgement that a crash forgets is only given again.
    fn remember_acked(&mut self, lane: Lane) -> Result<(), BufferError> {
        let Some(state) = self.lanes.get(&lane) else {
            return Ok(());
        };
        let ranges = state.acked.as_slice();
        let mut changes = Changes::default();
        changes.acked(lane, &ranges[..ranges.len().min(MAX_ACKED_RANGES)]);
        let done = self.index.apply(changes);
        done.map_err(|e| self.index_failed(&e))
    }

    /// What a hello tells.
    pub(super) fn offers(&self) -> Vec<LaneOffer> {
        self.lanes
            .iter()
            .map(|(lane, state)| LaneOffer {
                epoch: lane.epoch,
                stream: lane.stream,
                next: state.next,
                held: state.held.as_slice().to_vec(),
                gaps: state.gaps.clone(),
            })
            .collect()
    }

    /// Depth and age of each lane.
    pub(super) fn stat(&mut self) -> Result<Vec<LaneHealth>, BufferError> {
        let untold = |lane: Lane| match lane.epoch == self.epoch {
            true => self.losses.of(lane.stream),
            false => 0,
        };
        let mut lanes = Vec::with_capacity(self.lanes.len());
        let mut failed = None;
        for (&lane, state) in &self.lanes {
            let unacked = state.unacked();
            let oldest = unacked.as_slice().first().map(|range| range.first);
            let place = oldest.map(|seq| self.index.place(lane, seq)).transpose();
            let oldest_ms = match place {
                Ok(place) => place.flatten().map(|place| place.wall_ms),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            };
            lanes.push(LaneHealth {
                epoch: lane.epoch,
                stream: lane.stream,
                next: state.next,
                records: unacked.count(),
                bytes: state.unacked_bytes,
                oldest_ms,
                lost: state.lost() + untold(lane),
            });
        }
        failed.map_or(Ok(lanes), |e| Err(self.index_failed(&e)))
    }

    /// What of a lane is held and not acknowledged.
    pub(super) fn unacknowledged(&self, lane: Lane) -> Vec<SeqRange> {
        let state = self.lanes.get(&lane);
        state.map_or_else(Vec::new, |state| state.unacked().iter().collect())
    }

    /// Begins a new epoch for new records.
    pub(super) fn begin_epoch(&mut self) -> Result<Epoch, BufferError> {
        let epoch = Epoch::random();
        let mut changes = Changes::default();
        changes.begin(epoch);
        self.commit(changes)?;
        self.epoch = epoch;
        Ok(epoch)
    }
}

/// Reads one record and believes it only if header, identity and checksum agree with the index.
fn read_record(file: &File, lane: Lane, seq: Seq, place: &Place) -> Option<Stored> {
    let mut head = [0; HEADER_LEN];
    read_or_zeros(file, &mut head, place.offset);
    let header = Header::decode(&head).ok()?;
    let same = header.stream == lane.stream
        && header.epoch == lane.epoch
        && header.seq == seq
        && header.len == place.len
        && header.sum == place.sum;
    if !same {
        return None;
    }
    let mut body = vec![0; usize::try_from(header.len).ok()?];
    read_or_zeros(file, &mut body, place.offset + HEADER_LEN as u64);
    (Checksum::of(&body) == header.sum).then(|| Stored {
        seq,
        sum: header.sum,
        wall_ms: header.stamp.wall_ms,
        body: Bytes::from(body),
    })
}
