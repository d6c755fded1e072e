//! Opening: making files and index agree, whatever happened to either.
//!
//! - The index is new, unfinished or damaged: it is set aside and rebuilt by a scan of the files'
//!   headers. Old records keep their identities; new ones get a new epoch, because numbers that the
//!   lost index had given may be known to the hub.
//! - Files are ahead of the index (the process ended between payload and index): whole records are
//!   adopted, the torn end is cut off.
//! - The index is ahead of the files (the card lost something): a gap, with the reason *damaged*.
//! - A number is in neither: its lane's files are scanned; what stays missing is a gap. What the hub
//!   had acknowledged is *evicted after ack*, not lost.
//!
//! Invariant at the end: for each lane, held and gaps cover 1 … next − 1, and every file on the card
//! has at least one held record.

use std::collections::BTreeMap;
use std::path::Path;

use scc_common::clock::SharedClock;
use scc_common::id::{Epoch, Seq};
use scc_common::wire::{Gap, GapReason, SeqRange};

use super::disk::{BALLAST, Disk, FileId, read_or_zeros};
use super::format::{HEADER_LEN, Header};
use super::index::{Changes, Index, IndexError, Place, Row};
use super::lane::LaneState;
use super::loss::Losses;
use super::scan::{Found, Verify, scan};
use super::steps::{Point, Steps};
use super::store::{FileInfo, Store, Writing, from_io};
use super::{BufferError, Damage, Lane};
use crate::config::BufferLimits;
use scc_common::ranges::RangeSet;

/// Rows that are applied to the index at once, so that a rebuild needs little memory.
const CHUNK: usize = 2_048;

/// What the index knows of one file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    first: Seq,
    last: Seq,
    /// Where its last record begins.
    last_at: u64,
    /// Where its last record ends.
    end: u64,
}

impl Extent {
    fn grown(old: Option<Self>, seq: Seq, offset: u64, end: u64) -> Self {
        let one = Self {
            first: seq,
            last: seq,
            last_at: offset,
            end,
        };
        old.map_or(one, |old| Self {
            first: old.first.min(seq),
            last: old.last.max(seq),
            last_at: if seq > old.last { offset } else { old.last_at },
            end: old.end.max(end),
        })
    }
}

/// What was read from an index that can be trusted.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) lanes: BTreeMap<Lane, LaneState>,
    dead: Vec<FileId>,
    extents: BTreeMap<FileId, Extent>,
}

/// An opening under way.
struct Recovery {
    store: Store,
    extents: BTreeMap<FileId, Extent>,
    /// Lengths of the files on the card.
    on_card: BTreeMap<FileId, u64>,
    /// Gaps as the index has them.
    former: BTreeMap<Lane, Vec<Gap>>,
    changes: Changes,
    rows: usize,
    /// The index was made anew and everything comes from the files.
    rebuilt: bool,
}

impl Store {
    /// Opens what is in `root`, or makes a new buffer there. `suspect`: the index has shown damage
    /// and is not to be tried again.
    pub(super) fn open(
        root: &Path,
        limits: BufferLimits,
        clock: &SharedClock,
        steps: &Steps,
        suspect: bool,
    ) -> Result<Self, BufferError> {
        let disk =
            Disk::open(root, steps.clone()).map_err(|e| from_io("opening the buffer", &e))?;
        if disk.free().is_ok_and(|free| free < BALLAST) {
            disk.drop_ballast();
        }
        let files = disk
            .list()
            .map_err(|e| from_io("listing the buffer's files", &e))?;
        let mut damage = Damage::default();
        let (index, loaded, epoch) = open_index(&disk, clock, suspect, &mut damage)?;
        let loaded_epoch = epoch.is_some();
        let rebuilt = !loaded_epoch && !files.is_empty();
        let epoch = epoch.unwrap_or_else(Epoch::random);
        if rebuilt {
            damage.add(0, || {
                format!(
                    "the index was lost and rebuilt from {} files; new records get epoch {epoch}",
                    files.len()
                )
            });
        }
        let numbers = files.iter().map(|(id, _)| id.no);
        let indexed = loaded.extents.keys().chain(&loaded.dead).map(|id| id.no);
        let next_file = numbers.chain(indexed).max().unwrap_or(0) + 1;
        let former = loaded
            .lanes
            .iter()
            .map(|(lane, state)| (*lane, state.gaps.clone()))
            .collect();
        let store = Self {
            disk,
            index,
            limits,
            clock: clock.clone(),
            epoch,
            lanes: loaded.lanes,
            files: BTreeMap::new(),
            writing: BTreeMap::new(),
            next_file,
            buried: Vec::new(),
            damage,
            broken: None,
            failure: None,
            losses: Losses::default(),
            tended_at: None,
        };
        let mut recovery = Recovery {
            store,
            extents: loaded.extents,
            on_card: files.into_iter().collect(),
            former,
            changes: Changes::default(),
            rows: 0,
            rebuilt,
        };
        recovery.bury(&loaded.dead)?;
        recovery.drop_what_is_not_there()?;
        recovery.adopt_tails()?;
        recovery.search_for_the_unexplained()?;
        recovery.explain_the_rest();
        if !loaded_epoch {
            recovery.changes.begin(epoch);
        }
        recovery.finish()
    }
}

/// Opens the index and reads it; a damaged or unfinished one is replaced by an empty one.
fn open_index(
    disk: &Disk,
    clock: &SharedClock,
    suspect: bool,
    damage: &mut Damage,
) -> Result<(Index, Loaded, Option<Epoch>), BufferError> {
    let dir = disk.index_dir();
    let open = || Index::open(&dir, disk.steps.clone());
    let trouble = if suspect {
        Some("it failed while it was used".to_owned())
    } else {
        let mut opened = open().and_then(load);
        if matches!(opened, Err(IndexError::NoRoom(_))) && disk.drop_ballast() {
            opened = open().and_then(load);
        }
        match opened {
            Ok((index, loaded, Some(epoch))) => return Ok((index, loaded, Some(epoch))),
            // new, or its making was interrupted: nothing in it counts
            Ok((_, _, None)) => None,
            Err(IndexError::Damaged(text)) => Some(text),
            Err(IndexError::NoRoom(text)) => return Err(BufferError::Full(text)),
            Err(IndexError::System(text)) => return Err(BufferError::Disk(text)),
        }
    };
    let removed = match trouble {
        Some(text) => Index::set_aside(disk.root(), &dir, clock.wall_ms(), &disk.steps).map(|aside| {
            tracing::error!(cause = %text, aside = %aside.display(), "the buffer's index is damaged; rebuilding it");
            damage.add(0, || format!("the index was set aside: {text}"));
        }),
        None => disk
            .steps
            .step(Point::RemoveUnfinished)
            .and_then(|()| std::fs::remove_dir_all(&dir)),
    };
    removed.map_err(|e| from_io("setting the index aside", &e))?;
    match open() {
        Ok(index) => Ok((index, Loaded::default(), None)),
        Err(IndexError::NoRoom(text)) => Err(BufferError::Full(text)),
        Err(e) => Err(BufferError::Disk(e.to_string())),
    }
}

pub(super) fn load(index: Index) -> Result<(Index, Loaded, Option<Epoch>), IndexError> {
    let Some(epoch) = index.epoch()? else {
        return Ok((index, Loaded::default(), None));
    };
    let mut loaded = Loaded::default();
    index.rows(|row| match row {
        Row::Acked(lane, range) => loaded.lane(lane).acked.insert(range),
        Row::Dead(file) => loaded.dead.push(file),
        Row::Gap(lane, gap) => {
            let state = loaded.lane(lane);
            state.next = state.next.max(gap.range.last.saturating_add(1));
            state.gaps.push(gap);
        }
        Row::Next(lane, next) => {
            let state = loaded.lane(lane);
            state.next = state.next.max(next);
        }
        Row::Place(lane, seq, place) => {
            let state = loaded.lane(lane);
            state.next = state.next.max(seq + 1);
            state.held.insert(SeqRange {
                first: seq,
                last: seq,
            });
            let id = FileId {
                stream: lane.stream,
                epoch: lane.epoch,
                no: place.file,
            };
            let old = loaded.extents.get(&id).copied();
            let grown = Extent::grown(old, seq, place.offset, end_of(&place));
            loaded.extents.insert(id, grown);
        }
    })?;
    for state in loaded.lanes.values_mut() {
        state.settle();
    }
    Ok((index, loaded, Some(epoch)))
}

impl Loaded {
    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        self.lanes.entry(lane).or_default()
    }
}

fn end_of(place: &Place) -> u64 {
    place
        .offset
        .saturating_add(HEADER_LEN as u64)
        .saturating_add(u64::from(place.len))
}

impl Recovery {
    /// Removes files whose removal had been decided.
    fn bury(&mut self, dead: &[FileId]) -> Result<(), BufferError> {
        for &id in dead {
            let gone = self.store.disk.unlink(id);
            gone.map_err(|e| from_io("removing a file", &e))?;
            self.on_card.remove(&id);
            self.store.buried.push(id);
        }
        Ok(())
    }

    /// Takes rows back that point to files, or parts of files, that are not on the card.
    fn drop_what_is_not_there(&mut self) -> Result<(), BufferError> {
        for (id, extent) in std::mem::take(&mut self.extents) {
            let len = self.on_card.get(&id).copied().unwrap_or(0);
            if extent.end <= len {
                self.extents.insert(id, extent);
                continue;
            }
            let range = SeqRange {
                first: extent.first,
                last: extent.last,
            };
            let mut kept: Option<Extent> = None;
            let mut missing = RangeSet::default();
            let places = self.store.index.places(id.lane(), range, |seq, place| {
                if place.file == id.no {
                    let end = end_of(&place);
                    if end <= len {
                        kept = Some(Extent::grown(kept, seq, place.offset, end));
                    } else {
                        missing.insert(SeqRange {
                            first: seq,
                            last: seq,
                        });
                    }
                }
                true
            });
            places.map_err(|e| self.store.index_failed(&e))?;
            if let Some(kept) = kept {
                self.extents.insert(id, kept);
            }
            for range in missing.as_slice() {
                self.lane(id.lane()).held.remove(*range);
                for seq in range.first..=range.last {
                    self.changes.unplace(id.lane(), seq);
                    self.row()?;
                }
            }
        }
        Ok(())
    }

    /// Adopts whole records beyond what the index knows and cuts off torn ends.
    fn adopt_tails(&mut self) -> Result<(), BufferError> {
        let verify = if self.rebuilt {
            Verify::Last
        } else {
            Verify::All
        };
        for (id, len) in self.on_card.clone() {
            let known = self.extents.get(&id).map_or(0, |extent| extent.end);
            if len > known {
                let end = self.adopt(id, known, len, verify)?;
                if end < len && self.extents.contains_key(&id) {
                    let cut = self.store.disk.truncate(id, end);
                    cut.map_err(|e| from_io("cutting a torn file", &e))?;
                    self.on_card.insert(id, end);
                }
            }
        }
        Ok(())
    }

    /// Scans a part of a file and adopts every record that its lane does not hold; where the last
    /// good one ends.
    fn adopt(
        &mut self,
        id: FileId,
        from: u64,
        len: u64,
        verify: Verify,
    ) -> Result<u64, BufferError> {
        let file = self.store.disk.open_file(id);
        let file = file.map_err(|e| from_io("opening a file of records", &e))?;
        let mut failed = None;
        let scanned = scan(&file, id, from, len, verify, |found| {
            failed = failed.take().or_else(|| self.adopt_one(id, found).err());
        });
        failed.map_or(Ok(scanned.end), Err)
    }

    fn adopt_one(&mut self, id: FileId, found: Found) -> Result<(), BufferError> {
        let header = found.header;
        let rebuilt = self.rebuilt;
        let state = self.lane(id.lane());
        if state.held.contains(header.seq) {
            return Ok(());
        }
        state.hold(header.seq);
        if rebuilt {
            state.acked.insert(SeqRange {
                first: 1,
                last: header.acked.min(header.seq - 1),
            });
        }
        let place = Place {
            file: id.no,
            offset: found.offset,
            len: header.len,
            sum: header.sum,
            wall_ms: header.stamp.wall_ms,
        };
        self.changes.place(id.lane(), header.seq, &place);
        let old = self.extents.get(&id).copied();
        let grown = Extent::grown(old, header.seq, found.offset, end_of(&place));
        self.extents.insert(id, grown);
        self.row()
    }

    /// An index that lost rows in the middle: the files still have the records.
    fn search_for_the_unexplained(&mut self) -> Result<(), BufferError> {
        if self.rebuilt {
            return Ok(());
        }
        let lanes = self.store.lanes.iter();
        let open: Vec<Lane> = lanes
            .filter(|(_, state)| !state.unexplained().is_empty())
            .map(|(lane, _)| *lane)
            .collect();
        for (id, len) in self.on_card.clone() {
            if open.contains(&id.lane()) {
                self.adopt(id, 0, len, Verify::Last)?;
            }
        }
        Ok(())
    }

    /// What is nowhere is a gap.
    fn explain_the_rest(&mut self) {
        let at_ms = self.store.clock.wall_ms();
        for (&lane, state) in &mut self.store.lanes {
            let missing = state.unexplained();
            if missing.is_empty() {
                continue;
            }
            let lost = missing.minus(&state.acked).count();
            state.lose(lane, &missing, GapReason::Damaged, at_ms);
            if lost > 0 {
                let detail = || {
                    format!(
                        "{} of epoch {}: {lost} are not on the card",
                        lane.stream, lane.epoch
                    )
                };
                self.store.damage.add(lost, detail);
            }
        }
    }

    /// Writes what was found, and makes the store ready.
    fn finish(mut self) -> Result<Store, BufferError> {
        let none = Vec::new();
        for (&lane, state) in &self.store.lanes {
            let former = self.former.get(&lane).unwrap_or(&none);
            if *former != state.gaps {
                self.changes.gaps(lane, former, &state.gaps);
            }
            self.changes.next(lane, state.next);
            if self.rebuilt {
                self.changes.acked(lane, state.acked.as_slice());
            }
        }
        let changes = std::mem::take(&mut self.changes);
        self.store.commit(changes)?;
        for (id, len) in std::mem::take(&mut self.on_card) {
            if self.extents.contains_key(&id) {
                continue;
            }
            // with a good index this is only the torn beginning of a file
            if len > 0 && self.rebuilt {
                let path = self.store.disk.path(id);
                let detail = || format!("{}: nothing in it can be read", path.display());
                self.store.damage.add(0, detail);
            }
            let gone = self.store.disk.unlink(id);
            gone.map_err(|e| from_io("removing an empty file", &e))?;
        }
        self.count()?;
        self.go_on_writing()?;
        Ok(self.store)
    }

    /// Sums up what the policy needs to know.
    fn count(&mut self) -> Result<(), BufferError> {
        let store = &mut self.store;
        for (id, extent) in &self.extents {
            let newest = store.disk.open_file(*id).ok().and_then(|file| {
                let mut head = [0; HEADER_LEN];
                read_or_zeros(&file, &mut head, extent.last_at);
                Header::decode(&head).ok()
            });
            let info = FileInfo {
                first: extent.first,
                last: extent.last,
                bytes: extent.end,
                // a file that cannot tell its age is as if written now: size, not age, removes it
                newest: newest.map_or_else(|| store.clock.stamp(), |header| header.stamp),
            };
            store.files.insert(*id, info);
        }
        let mut failed = None;
        for (&lane, state) in &mut store.lanes {
            let mut bytes = 0;
            for range in state.unacked().as_slice() {
                let sum = store.index.places(lane, *range, |_, place| {
                    bytes += u64::from(place.len);
                    true
                });
                failed = failed.or(sum.err());
            }
            state.unacked_bytes = bytes;
        }
        failed.map_or(Ok(()), |e| Err(store.index_failed(&e)))
    }

    /// The newest file of each stream is written on, so that restarts do not leave many small ones.
    fn go_on_writing(&mut self) -> Result<(), BufferError> {
        let store = &mut self.store;
        for (&id, info) in &store.files {
            // files of a stream come oldest first: the last one stays
            if id.epoch == store.epoch {
                let file = store.disk.reopen(id);
                let file = file.map_err(|e| from_io("opening a file of records", &e))?;
                let len = info.bytes;
                store.writing.insert(id.stream, Writing { id, file, len });
            }
        }
        Ok(())
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        self.store.lanes.entry(lane).or_default()
    }

    /// Counts a row and applies the pending ones when they are many. Every step of a recovery may
    /// be repeated, so this need be neither durable nor whole.
    fn row(&mut self) -> Result<(), BufferError> {
        self.rows += 1;
        if self.rows < CHUNK {
            return Ok(());
        }
        self.rows = 0;
        let changes = std::mem::take(&mut self.changes);
        let done = self.store.index.apply(changes);
        done.map_err(|e| self.store.index_failed(&e))
    }
}
