//! The index: where each record is, and the counters, gaps and acknowledgements of each lane.
//!
//! sled 0.34 behind, known to nobody else. Promises: a [`Changes`] is applied whole or not at all;
//! after [`Index::commit`] it survives a power cut (sled's own flush does not: it is
//! `sync_file_range`, so sled's file is fsynced after it); nothing that sled does with a damaged
//! file ends this process: a panic inside it is an [`IndexError::Damaged`].
//!
//! One tree. Keys, all integers big-endian so that order of keys is order of numbers:
//!
//! | key | value |
//! |---|---|
//! | `a` stream epoch | acknowledged ranges: pairs of first, last |
//! | `d` stream epoch file | a file that is to be removed |
//! | `g` stream epoch first | a gap: last, reason, when |
//! | `m` name | `version`; `epoch` that new records get |
//! | `n` stream epoch | next number |
//! | `p` stream epoch seq | a [`Place`] |

use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::{Epoch, Seq};
use scc_common::stream::Stream;
use scc_common::wire::{Gap, GapReason, SeqRange};

use super::Lane;
use super::disk::{FileId, sync_dir};
use super::steps::{Point, Steps};

/// Version of keys and values.
const VERSION: u8 = 1;

/// Memory that sled may use for its pages, bytes.
const CACHE: u64 = 8 << 20;

/// Room that sled's file has ahead of it, bytes: two of its segments.
const RESERVE: u64 = 1 << 20;

/// Acknowledged ranges that are remembered per lane. What is beyond is acknowledged again by the
/// hub when it is sent again.
pub(super) const MAX_ACKED_RANGES: usize = 2_048;

/// Why the index did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum IndexError {
    /// It cannot be trusted any more and must be rebuilt.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The card is full.
    #[error("the index found no room: {0}")]
    NoRoom(String),
    /// The system refused; the index itself may be good.
    #[error("the index cannot be used: {0}")]
    System(String),
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the file; its epoch and stream are those of the lane.
    pub(super) file: u64,
    /// Where the header begins.
    pub(super) offset: u64,
    /// Length of the body.
    pub(super) len: u32,
    /// Checksum of the body.
    pub(super) sum: Checksum,
    /// Wall time of capture.
    pub(super) wall_ms: WallMs,
}

/// One row, as an opening reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    /// The hub has acknowledged this range.
    Acked(Lane, SeqRange),
    /// This file is to be removed.
    Dead(FileId),
    /// These will not come.
    Gap(Lane, Gap),
    /// The next number of a lane.
    Next(Lane, Seq),
    /// Where a record is.
    Place(Lane, Seq, Place),
}

/// Changes that belong together.
#[derive(Debug, Default)]
pub(super) struct Changes(sled::Batch);

impl Changes {
    /// The format and the epoch that new records get. Written last when an index is made, so that
    /// an index without it is known to be unfinished.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.0.insert(b"mversion", &[VERSION]);
        self.0.insert(b"mepoch", &epoch.0.to_be_bytes());
    }

    /// The next number of a lane.
    pub(super) fn next(&mut self, lane: Lane, next: Seq) {
        self.0
            .insert(lane_key(b'n', lane), next.to_be_bytes().to_vec());
    }

    /// The acknowledged ranges of a lane, replacing the former.
    pub(super) fn acked(&mut self, lane: Lane, ranges: &[SeqRange]) {
        let bytes: Vec<u8> = ranges
            .iter()
            .flat_map(|r| [r.first.to_be_bytes(), r.last.to_be_bytes()])
            .flatten()
            .collect();
        self.0.insert(lane_key(b'a', lane), bytes);
    }

    /// The gaps of a lane, replacing the `former`.
    pub(super) fn gaps(&mut self, lane: Lane, former: &[Gap], gaps: &[Gap]) {
        for gap in former {
            self.0.remove(seq_key(b'g', lane, gap.range.first));
        }
        for gap in gaps {
            let mut value = gap.range.last.to_be_bytes().to_vec();
            value.push(reason_code(gap.reason));
            value.extend(gap.at_ms.to_be_bytes());
            self.0.insert(seq_key(b'g', lane, gap.range.first), value);
        }
    }

    /// Where a record is.
    pub(super) fn place(&mut self, lane: Lane, seq: Seq, place: &Place) {
        let mut value = Vec::with_capacity(44);
        value.extend(place.file.to_be_bytes());
        value.extend(place.offset.to_be_bytes());
        value.extend(place.len.to_be_bytes());
        value.extend(place.sum.0);
        value.extend(place.wall_ms.to_be_bytes());
        self.0.insert(seq_key(b'p', lane, seq), value);
    }

    /// A record is nowhere any more.
    pub(super) fn unplace(&mut self, lane: Lane, seq: Seq) {
        self.0.remove(seq_key(b'p', lane, seq));
    }

    /// A file is to be removed, whatever happens now.
    pub(super) fn dead(&mut self, file: FileId) {
        self.0.insert(seq_key(b'd', file.lane(), file.no), &[]);
    }

    /// That file has been removed.
    pub(super) fn buried(&mut self, file: FileId) {
        self.0.remove(seq_key(b'd', file.lane(), file.no));
    }

    /// A lane is not spoken of any more.
    pub(super) fn forget(&mut self, lane: Lane, gaps: &[Gap]) {
        self.gaps(lane, gaps, &[]);
        self.0.remove(lane_key(b'n', lane));
        self.0.remove(lane_key(b'a', lane));
    }
}

/// The index of one buffer.
#[derive(Debug)]
pub(super) struct Index {
    db: Db,
    /// sled's own file, to fsync it and to take room for it.
    file: File,
    steps: Steps,
}

impl Index {
    /// Opens the index or makes a new one.
    pub(super) fn open(dir: &Path, steps: Steps) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None);
        let system = |e: io::Error| IndexError::System(e.to_string());
        if let Ok(file) = File::options().write(true).open(dir.join("db")) {
            steps.step(Point::Reserve).map_err(system)?;
            reserve(&file)?;
        }
        steps.step(Point::OpenIndex).map_err(system)?;
        let db = guarded(|| {
            // an earlier handle of this process gives sled's lock back a moment after it is dropped
            let mut tries = 0;
            loop {
                match config.open() {
                    Err(sled::Error::Io(e)) if tries < 50 && is_locked(&e) => {
                        tries += 1;
                        std::thread::sleep(std::time::Duration::from_millis(100));
                    }
                    other => return other,
                }
            }
        })?;
        let mut open = File::options();
        let file = open.read(true).write(true).open(dir.join("db"));
        let file = file.map_err(system)?;
        steps.step(Point::SyncIndexNames).map_err(system)?;
        sync_dir(dir).map_err(system)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent).map_err(system)?;
        }
        let db = Db(Some(db));
        Ok(Self { db, file, steps })
    }

    /// From now on these end it.
    #[cfg(test)]
    pub(super) fn set_steps(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// Renames a damaged index so that a new one can be made in its place. Only the newest damaged
    /// one is kept: it is for the developer, and it must not eat the card.
    pub(super) fn set_aside(
        root: &Path,
        dir: &Path,
        at_ms: WallMs,
        steps: &Steps,
    ) -> io::Result<PathBuf> {
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with("index.damaged-") {
                steps.step(Point::RemoveAside)?;
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        let aside = root.join(format!("index.damaged-{at_ms}"));
        if dir.exists() {
            steps.step(Point::SetAside)?;
            std::fs::rename(dir, &aside)?;
            steps.step(Point::SyncAside)?;
            sync_dir(root)?;
        }
        Ok(aside)
    }

    /// The epoch that new records get; none if this index is new or was never finished.
    pub(super) fn epoch(&self) -> Result<Option<Epoch>, IndexError> {
        let (version, epoch) =
            guarded(|| Ok((self.db.get(b"mversion")?, self.db.get(b"mepoch")?)))?;
        match (version, epoch) {
            (None, _) => Ok(None),
            (Some(version), Some(epoch)) if *version == [VERSION] => {
                let epoch = number(&epoch).ok_or_else(|| damaged("the epoch"))?;
                Ok(Some(Epoch(epoch)))
            }
            (Some(version), _) => Err(IndexError::Damaged(format!(
                "version {version:?}; this program reads [{VERSION}]"
            ))),
        }
    }

    /// Tells every row, lanes' counters before places.
    pub(super) fn rows(&self, mut each: impl FnMut(Row)) -> Result<(), IndexError> {
        let mut bad = None;
        guarded(|| {
            for item in self.db.iter() {
                let (key, value) = item?;
                if key.first() == Some(&b'm') {
                    continue;
                }
                if read_row(&key, &value, &mut each).is_none() {
                    bad = Some(damaged("a row"));
                    break;
                }
            }
            Ok(())
        })?;
        bad.map_or(Ok(()), Err)
    }

    /// Where a record is.
    pub(super) fn place(&self, lane: Lane, seq: Seq) -> Result<Option<Place>, IndexError> {
        let value = guarded(|| self.db.get(seq_key(b'p', lane, seq)))?;
        value
            .map(|value| read_place(&value).ok_or_else(|| damaged("a place")))
            .transpose()
    }

    /// Tells the places of a lane from `range.first` to `range.last`, ascending, until `each` says
    /// to stop.
    pub(super) fn places(
        &self,
        lane: Lane,
        range: SeqRange,
        mut each: impl FnMut(Seq, Place) -> bool,
    ) -> Result<(), IndexError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut bad = None;
        guarded(|| {
            let keys = seq_key(b'p', lane, range.first)..=seq_key(b'p', lane, range.last);
            for item in self.db.range(keys) {
                let (key, value) = item?;
                let seq = key.last_chunk::<8>().map(|b| u64::from_be_bytes(*b));
                let Some((seq, place)) = seq.zip(read_place(&value)) else {
                    bad = Some(damaged("a place"));
                    break;
                };
                if !each(seq, place) {
                    break;
                }
            }
            Ok(())
        })?;
        bad.map_or(Ok(()), Err)
    }

    /// Takes room for sled's file to grow into, so that sled itself never meets a full card: what it
    /// leaves behind then may open as an empty index.
    pub(super) fn reserve(&self) -> Result<(), IndexError> {
        self.steps.step(Point::Reserve).map_err(|e| from_io(&e))?;
        reserve(&self.file)
    }

    /// Applies changes; a crash may undo them (all or none) until the next [`commit`](Self::commit).
    pub(super) fn apply(&self, changes: Changes) -> Result<(), IndexError> {
        self.reserve()?;
        self.steps.step(Point::Apply).map_err(|e| from_io(&e))?;
        guarded(|| self.db.apply_batch(changes.0))
    }

    /// Applies changes and makes them, and all before them, durable.
    pub(super) fn commit(&self, changes: Changes) -> Result<(), IndexError> {
        let system = |e: io::Error| from_io(&e);
        self.apply(changes)?;
        self.steps.step(Point::Flush).map_err(system)?;
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the commit that also fsyncs sled's file"
        )]
        guarded(|| self.db.flush().map(drop))?;
        self.steps.step(Point::SyncIndex).map_err(system)?;
        self.file.sync_all().map_err(system)
    }
}

fn reserve(file: &File) -> Result<(), IndexError> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    let len = file.metadata().map_err(|e| from_io(&e))?.len();
    match fallocate(file, FallocateFlags::KEEP_SIZE, len, RESERVE) {
        // not every file system can; then the free space that was asked for must do
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(e) => Err(from_io(&e.into())),
    }
}

/// sled's handle. It writes once more when it ends, and where the card fails it panics then too: that
/// would end the buffer's thread.
#[derive(Debug)]
struct Db(Option<sled::Db>);

impl std::ops::Deref for Db {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        match &self.0 {
            Some(db) => db,
            None => unreachable!("only its end takes it"),
        }
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        let db = self.0.take();
        let ended = guarded(move || {
            drop(db);
            Ok(())
        });
        if let Err(e) = ended {
            tracing::warn!(error = %e, "the index did not end well");
        }
    }
}

/// Runs something of sled's. It panics on some kinds of damage; that must cost the index only.
fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(e))) => Err(from_io(&e)),
        Ok(Err(e)) => Err(IndexError::Damaged(e.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("sled gave up");
            Err(IndexError::Damaged(text.to_owned()))
        }
    }
}

fn damaged(what: &str) -> IndexError {
    IndexError::Damaged(format!("{what} cannot be read"))
}

fn is_locked(e: &io::Error) -> bool {
    e.to_string().contains("could not acquire lock")
}

fn from_io(e: &io::Error) -> IndexError {
    use rustix::io::Errno;
    let code = Errno::from_io_error(e);
    match code {
        Some(Errno::NOSPC | Errno::DQUOT) => IndexError::NoRoom(e.to_string()),
        Some(
            Errno::ACCESS
            | Errno::PERM
            | Errno::ROFS
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::AGAIN,
        ) => IndexError::System(e.to_string()),
        // sled tells an earlier error again as one of its own, without the system's number
        _ if matches!(
            e.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) =>
        {
            IndexError::NoRoom(e.to_string())
        }
        // The buffer's own lock keeps other processes out, so a handle of this one has it, and longer
        // than a handle that ends: sled does not come back from a write that failed, and might yet
        // write. In a file that is set aside it may.
        _ => IndexError::Damaged(e.to_string()),
    }
}

fn lane_key(kind: u8, lane: Lane) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.push(kind);
    key.push(lane.stream.code());
    key.extend(lane.epoch.0.to_be_bytes());
    key
}

fn seq_key(kind: u8, lane: Lane, seq: u64) -> Vec<u8> {
    let mut key = lane_key(kind, lane);
    key.extend(seq.to_be_bytes());
    key
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn read_row(key: &[u8], value: &[u8], each: &mut impl FnMut(Row)) -> Option<()> {
    let (head, tail) = key.split_first_chunk::<10>()?;
    let lane = Lane {
        stream: Stream::from_code(head[1])?,
        epoch: Epoch(number(&head[2..])?),
    };
    match (head[0], tail.len()) {
        (b'a', 0) => {
            let (pairs, rest) = value.as_chunks::<16>();
            if !rest.is_empty() {
                return None;
            }
            for pair in pairs {
                let first = number(&pair[..8])?;
                let last = number(&pair[8..])?;
                each(Row::Acked(lane, SeqRange { first, last }));
            }
        }
        (b'd', 8) => each(Row::Dead(FileId {
            stream: lane.stream,
            epoch: lane.epoch,
            no: number(tail)?,
        })),
        (b'g', 8) => {
            let (last, rest) = value.split_first_chunk::<8>()?;
            let (reason, at_ms) = rest.split_first()?;
            let range = SeqRange {
                first: number(tail)?,
                last: u64::from_be_bytes(*last),
            };
            each(Row::Gap(
                lane,
                Gap {
                    epoch: lane.epoch,
                    stream: lane.stream,
                    range: (range.first > 0 && !range.is_empty()).then_some(range)?,
                    reason: reason_from(*reason),
                    at_ms: i64::from_be_bytes(at_ms.try_into().ok()?),
                },
            ));
        }
        (b'n', 0) => each(Row::Next(lane, number(value).filter(|n| *n > 0)?)),
        (b'p', 8) => {
            let seq = number(tail).filter(|n| *n > 0 && *n < Seq::MAX)?;
            each(Row::Place(lane, seq, read_place(value)?));
        }
        _ => return None,
    }
    Some(())
}

fn read_place(value: &[u8]) -> Option<Place> {
    let value: &[u8; 44] = value.try_into().ok()?;
    let mut sum = [0; 16];
    sum.copy_from_slice(&value[20..36]);
    Some(Place {
        file: number(&value[0..8])?,
        offset: number(&value[8..16])?,
        len: u32::from_be_bytes(value[16..20].try_into().ok()?),
        sum: Checksum(sum),
        wall_ms: i64::from_be_bytes(value[36..44].try_into().ok()?),
    })
}

/// Never reassign one.
const fn reason_code(reason: GapReason) -> u8 {
    match reason {
        GapReason::Other => 0,
        GapReason::Damaged => 1,
        GapReason::EvictedBySize => 2,
        GapReason::EvictedByAge => 3,
        GapReason::EvictedAfterAck => 4,
        GapReason::DiskFull => 5,
        GapReason::EpochClosed => 6,
    }
}

fn reason_from(code: u8) -> GapReason {
    GapReason::ALL
        .into_iter()
        .find(|reason| reason_code(*reason) == code)
        .unwrap_or(GapReason::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: Lane = Lane {
        epoch: Epoch(u64::MAX),
        stream: Stream::Segment,
    };

    #[test]
    fn every_kind_of_row_comes_back_after_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let place = Place {
            file: 3,
            offset: 1 << 33,
            len: 9,
            sum: Checksum([7; 16]),
            wall_ms: -1,
        };
        let gap = Gap {
            epoch: LANE.epoch,
            stream: LANE.stream,
            range: SeqRange { first: 2, last: 4 },
            reason: GapReason::EvictedByAge,
            at_ms: 99,
        };
        let dead = FileId {
            stream: LANE.stream,
            epoch: LANE.epoch,
            no: 2,
        };
        let acked = SeqRange { first: 1, last: 6 };
        {
            let index = Index::open(&path, Steps::default()).unwrap();
            assert_eq!(index.epoch().unwrap(), None);
            let mut changes = Changes::default();
            changes.begin(Epoch(5));
            changes.next(LANE, 8);
            changes.acked(LANE, &[acked]);
            changes.gaps(LANE, &[], &[gap]);
            changes.place(LANE, 5, &place);
            changes.place(LANE, 6, &place);
            changes.unplace(LANE, 6);
            changes.dead(dead);
            index.commit(changes).unwrap();
        }
        let index = Index::open(&path, Steps::default()).unwrap();
        assert_eq!(index.epoch().unwrap(), Some(Epoch(5)));
        let mut rows = Vec::new();
        index.rows(|row| rows.push(row)).unwrap();
        assert_eq!(
            rows,
            [
                Row::Acked(LANE, acked),
                Row::Dead(dead),
                Row::Gap(LANE, gap),
                Row::Next(LANE, 8),
                Row::Place(LANE, 5, place),
            ]
        );
    }

    #[test]
    fn reasons_have_distinct_codes_that_lead_back() {
        for reason in GapReason::ALL {
            assert_eq!(reason_from(reason_code(reason)), reason);
        }
    }
}
