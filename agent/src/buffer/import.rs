//! Taking the records of another card of the same agent ([`scc_common::export`]) into this buffer, from
//! where the uplink delivers them like its own.
//!
//! Promises:
//! - a record keeps its identity and its header for ever; new records never get a number of an
//!   imported lane;
//! - the file is read to its end before anything is taken from it; another agent's is refused;
//! - every step is one commit of the buffer's own kind: killed anywhere and repeated, the buffer holds
//!   each record once. What has not come yet is a gap meanwhile, and stored beats gap;
//! - the caps hold: nothing that the hub has not is dropped for an imported record. First come small
//!   records that the hub has not, then pictures and video, then what it has already.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};

use scc_common::clock::SharedClock;
use scc_common::export::{self, End, ExportError, Item, Reader};
use scc_common::id::{AgentId, Seq};
use scc_common::ranges::RangeSet;
use scc_common::wire::{Gap, GapReason, SeqRange};

use super::disk::FileId;
use super::format::{HEADER_LEN, Header};
use super::index::{Changes, MAX_ACKED_RANGES, Place};
use super::retain::Planned;
use super::steps::Steps;
use super::store::{FileInfo, Store};
use super::{BufferError, Damage, Lane, lock, make_root, owner};
use crate::config::BufferLimits;

/// Records, and bytes of them, that are committed together at most.
const GROUP: (usize, u64) = (500, 16 << 20);

/// Why an import did not end. What it had taken in by then stays and is whole.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// The file cannot be used.
    #[error("{}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: ExportError,
    },
    /// The file is of another agent than this box.
    #[error("the file is of `{file}`, and this box is `{here}`")]
    OtherAgent {
        /// Whose the records are.
        file: AgentId,
        /// Who would send them.
        here: AgentId,
    },
    /// The buffer.
    #[error(transparent)]
    Buffer(#[from] BufferError),
}

/// What became of the records of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Taken in now.
    pub stored: u64,
    /// Held already.
    pub held: u64,
    /// Not taken: this buffer holds another record under the same identity.
    pub conflicts: u64,
    /// Not taken: there is no room beside what the hub has not yet.
    pub no_room: u64,
    /// Not taken: older than media is kept, or dropped here before by policy.
    pub dropped: u64,
    /// What the opening of this buffer found damaged.
    pub damage: Damage,
}

/// Imports a file into the buffer of a state directory; no agent may run on it.
///
/// # Errors
/// [`ImportFailure`].
pub fn import(
    state_dir: &Path,
    limits: BufferLimits,
    clock: &SharedClock,
    agent: &AgentId,
    file: &Path,
) -> Result<Imported, ImportFailure> {
    let export = Export::open(file, agent)?;
    let root = make_root(state_dir)?;
    let _lock = lock(&root)?;
    let store = Store::open(&root, limits, clock, &Steps::default(), false)?;
    owner::note(&root, agent).map_err(|e| super::store::from_io("noting the agent's id", &e))?;
    export.into(store)
}

/// A file that is whole and of this agent.
pub(super) struct Export<'a> {
    path: &'a Path,
    file: File,
    end: End,
}

impl<'a> Export<'a> {
    /// Reads a file to its end.
    pub(super) fn open(path: &'a Path, agent: &AgentId) -> Result<Self, ImportFailure> {
        let unusable = |error| unusable(path, error);
        let file = File::open(path).map_err(|e| unusable(e.into()))?;
        let (begin, end) = export::verify(BufReader::new(&file)).map_err(unusable)?;
        if begin.agent == *agent {
            Ok(Self { path, file, end })
        } else {
            Err(ImportFailure::OtherAgent {
                file: begin.agent,
                here: agent.clone(),
            })
        }
    }

    /// Takes its records into a store that nobody else uses.
    pub(super) fn into(mut self, store: Store) -> Result<Imported, ImportFailure> {
        let unusable = |error| unusable(self.path, error);
        let mut import = Import::begin(store, &self.end)?;
        for turn in [Turn::Small, Turn::Media, Turn::Acked] {
            self.file.rewind().map_err(|e| unusable(e.into()))?;
            let (_, mut reader) = Reader::open(BufReader::new(&self.file)).map_err(unusable)?;
            while let Item::Record(header, body) = reader.step().map_err(unusable)? {
                if import.turn_of(&header) == turn {
                    import.take(&header, &body, turn)?;
                }
            }
        }
        Ok(import.finish()?)
    }
}

fn unusable(file: &Path, error: ExportError) -> ImportFailure {
    ImportFailure::File {
        file: file.to_owned(),
        error,
    }
}

/// Which of the three goes through the file a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Small,
    Media,
    Acked,
}

/// A file of records that is being written.
struct Writing {
    id: FileId,
    file: File,
    len: u64,
    last: Seq,
}

/// An import under way.
struct Import {
    store: Store,
    done: Imported,
    /// What was acknowledged, here or as the file says, when the import began.
    acked: BTreeMap<Lane, RangeSet>,
    /// What this buffer has dropped by policy: it does not come back by a second import.
    dropped: BTreeMap<Lane, RangeSet>,
    /// Left out because of their age.
    old: BTreeMap<Lane, RangeSet>,
    writing: BTreeMap<Lane, Writing>,
    group: Group,
}

/// Written and not yet committed.
#[derive(Default)]
struct Group {
    changes: Changes,
    records: usize,
    planned: Planned,
    /// Gaps of the touched lanes, as the index has them.
    former: BTreeMap<Lane, Vec<Gap>>,
    /// Files to be synced.
    files: BTreeMap<FileId, FileInfo>,
    /// Some of them are new.
    names: bool,
}

const fn one(seq: Seq) -> SeqRange {
    SeqRange {
        first: seq,
        last: seq,
    }
}

impl Import {
    /// Makes the lanes of the file known, durably, with every number that is not here as a gap.
    fn begin(mut store: Store, end: &End) -> Result<Self, BufferError> {
        let damage = std::mem::take(&mut store.damage);
        if end.lanes.iter().any(|facts| facts.epoch == store.epoch) {
            // a copy of this very card: its numbers are given, so new records need others
            store.begin_epoch()?;
        }
        let now = store.clock.wall_ms();
        let mut changes = Changes::default();
        let (mut acked, mut dropped) = (BTreeMap::new(), BTreeMap::new());
        for facts in &end.lanes {
            let lane = Lane {
                epoch: facts.epoch,
                stream: facts.stream,
            };
            let state = store.lanes.entry(lane).or_default();
            let former = state.gaps.clone();
            let by_policy = former.iter().filter(|gap| {
                matches!(
                    gap.reason,
                    GapReason::EvictedBySize | GapReason::EvictedByAge
                )
            });
            dropped.insert(lane, RangeSet::of(by_policy.map(|gap| gap.range)));
            state.next = state.next.max(facts.next);
            facts
                .acked
                .iter()
                .for_each(|range| state.acked.insert(*range));
            for gap in &facts.gaps {
                let news = RangeSet::of([gap.range]).and(&state.unexplained());
                state.lose(lane, &news, gap.reason, gap.at_ms);
            }
            let rest = state.unexplained();
            state.lose(lane, &rest, GapReason::DiskFull, now);
            acked.insert(lane, state.acked.clone());
            let ranges = state.acked.as_slice();
            changes.next(lane, state.next);
            changes.acked(lane, &ranges[..ranges.len().min(MAX_ACKED_RANGES)]);
            changes.gaps(lane, &former, &state.gaps);
        }
        store.commit(changes)?;
        Ok(Self {
            store,
            done: Imported {
                damage,
                ..Imported::default()
            },
            acked,
            dropped,
            old: BTreeMap::new(),
            writing: BTreeMap::new(),
            group: Group::default(),
        })
    }

    fn turn_of(&self, header: &Header) -> Turn {
        let lane = lane_of(header);
        let has = |set: &BTreeMap<Lane, RangeSet>| {
            set.get(&lane).is_some_and(|set| set.contains(header.seq))
        };
        match (has(&self.acked), header.stream.is_media()) {
            (true, _) => Turn::Acked,
            (false, false) => Turn::Small,
            (false, true) => Turn::Media,
        }
    }

    fn take(&mut self, header: &Header, body: &[u8], turn: Turn) -> Result<(), BufferError> {
        let (lane, seq) = (lane_of(header), header.seq);
        let state = self.store.lanes.entry(lane).or_default();
        if state.held.contains(seq) {
            // of the group that is being written there is no place yet: a second copy in the file
            let place = self.store.index.place(lane, seq);
            let place = place.map_err(|e| self.store.index_failed(&e))?;
            if place.is_some_and(|place| place.sum != header.sum) {
                self.done.conflicts += 1;
            } else {
                self.done.held += 1;
            }
            return Ok(());
        }
        if self.dropped.get(&lane).is_some_and(|set| set.contains(seq)) {
            self.done.dropped += 1;
            return Ok(());
        }
        if self.store.is_past_keeping(lane.stream, &header.stamp) {
            self.old.entry(lane).or_default().insert(one(seq));
            self.done.dropped += 1;
            return Ok(());
        }
        let (planned, need) = (&self.group.planned, header.total());
        let stream = lane.stream;
        let drop_acked = turn != Turn::Acked;
        if !(self.store).fits_beside_unsent(stream, planned, need, drop_acked)? {
            self.done.no_room += 1;
            return Ok(());
        }
        // drops none of the files that are being written: theirs the hub has not, or nothing goes
        self.store.make_room(stream, planned, need)?;
        self.write(lane, header, body)
            .map_err(|e| self.store.step_failed("writing an imported record", &e))?;
        if self.group.records >= GROUP.0 || self.group.planned.values().sum::<u64>() >= GROUP.1 {
            self.commit()?;
        }
        Ok(())
    }

    fn write(&mut self, lane: Lane, header: &Header, body: &[u8]) -> io::Result<()> {
        let seq = header.seq;
        if self.must_rotate(lane, header) {
            self.rotate(lane)?;
        }
        let Some(writing) = self.writing.get_mut(&lane) else {
            return Err(io::Error::other("no file is open"));
        };
        let (disk, offset) = (&self.store.disk, writing.len);
        disk.write_at(&writing.file, &header.encode(), offset)?;
        disk.write_at(&writing.file, body, offset + HEADER_LEN as u64)?;
        writing.len += header.total();
        writing.last = seq;
        let state = self.store.lanes.entry(lane).or_default();
        let group = &mut self.group;
        group
            .former
            .entry(lane)
            .or_insert_with(|| state.gaps.clone());
        state.hold(seq);
        if !state.acked.contains(seq) {
            state.unacked_bytes += u64::from(header.len);
        }
        let place = Place {
            file: writing.id.no,
            offset,
            len: header.len,
            sum: header.sum,
            wall_ms: header.stamp.wall_ms,
        };
        group.changes.place(lane, seq, &place);
        group.records += 1;
        *group.planned.entry(lane.stream).or_default() += header.total();
        let known = self.store.files.get(&writing.id).copied();
        let info = group.files.entry(writing.id).or_insert(FileInfo {
            first: known.map_or(seq, |known| known.first),
            last: seq,
            bytes: 0,
            newest: header.stamp,
        });
        info.last = seq;
        info.bytes = writing.len;
        info.newest = header.stamp;
        Ok(())
    }

    /// The policy drops whole files with all numbers between their first and last record: what is not
    /// here yet may come by another import into another file, so a file has no holes.
    fn must_rotate(&self, lane: Lane, header: &Header) -> bool {
        self.writing.get(&lane).is_none_or(|writing| {
            let most = self.store.limits.file_size(lane.stream);
            let full = writing.len > 0 && writing.len + header.total() > most;
            full || header.seq != writing.last + 1
        })
    }

    fn rotate(&mut self, lane: Lane) -> io::Result<()> {
        if let Some(full) = self.writing.remove(&lane)
            && self.group.files.contains_key(&full.id)
        {
            self.store.disk.sync(&full.file)?;
        }
        let id = FileId {
            stream: lane.stream,
            no: self.store.next_file,
            epoch: lane.epoch,
        };
        self.store.next_file += 1;
        let writing = Writing {
            id,
            file: self.store.disk.create(id)?,
            len: 0,
            last: 0,
        };
        self.writing.insert(lane, writing);
        self.group.names = true;
        Ok(())
    }

    /// Payload, names, index: in this order, as an append does it.
    fn commit(&mut self) -> Result<(), BufferError> {
        let mut group = std::mem::take(&mut self.group);
        if group.records == 0 {
            return Ok(());
        }
        let store = &mut self.store;
        for writing in self.writing.values() {
            if group.files.contains_key(&writing.id) {
                let synced = store.disk.sync(&writing.file);
                synced.map_err(|e| store.step_failed("syncing imported records", &e))?;
            }
        }
        if group.names {
            for lane in group.former.keys() {
                let synced = store.disk.sync_names(lane.stream);
                synced.map_err(|e| store.step_failed("syncing a folder", &e))?;
            }
        }
        for (lane, former) in &group.former {
            if let Some(state) = store.lanes.get(lane) {
                group.changes.gaps(*lane, former, &state.gaps);
            }
        }
        store.commit(group.changes)?;
        store.files.extend(group.files);
        self.done.stored += group.records as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<Imported, BufferError> {
        self.commit()?;
        let now = self.store.clock.wall_ms();
        let mut changes = Changes::default();
        for (lane, old) in std::mem::take(&mut self.old) {
            let Some(state) = self.store.lanes.get_mut(&lane) else {
                continue;
            };
            // they are a gap already; the reason is another
            let former = state.gaps.clone();
            for range in old.as_slice() {
                (range.first..=range.last).for_each(|seq| state.hold(seq));
            }
            state.lose(lane, &old, GapReason::EvictedByAge, now);
            changes.gaps(lane, &former, &state.gaps);
        }
        self.store.commit(changes)?;
        Ok(self.done)
    }
}

fn lane_of(header: &Header) -> Lane {
    Lane {
        epoch: header.epoch,
        stream: header.stream,
    }
}
