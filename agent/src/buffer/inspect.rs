//! Looking into a buffer from another process, without touching it.
//!
//! Only the files of records are read, never the index, so that it is safe while the agent runs and
//! leaves nothing behind that the agent's user could not open. What the hub has acknowledged is
//! known up to the newest record's header; gaps are the numbers that are not there.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use scc_common::clock::WallMs;
use scc_common::id::Seq;
use scc_common::wire::SeqRange;

use super::Lane;
use super::disk::{self, FileId};
use super::scan::{Verify, scan};
use scc_common::ranges::RangeSet;

/// One lane, as its files tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneFiles {
    /// The lane.
    pub lane: Lane,
    /// The number after the newest that was seen.
    pub next: Seq,
    /// Records on the card, acknowledged or not.
    pub held: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Capture time of the oldest that was not known to be acknowledged when the newest was written.
    pub oldest_ms: Option<WallMs>,
    /// Numbers above that watermark which are not on the card.
    pub lost: u64,
}

/// A buffer, as its files tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// A running agent has it open.
    pub in_use: bool,
    /// Lanes that have records, by epoch and stream.
    pub lanes: Vec<LaneFiles>,
}

#[derive(Debug, Default)]
struct Seen {
    held: RangeSet,
    bytes: u64,
    acked: Seq,
    walls: Vec<(Seq, WallMs)>,
}

/// Where the buffer of this state directory is.
#[must_use]
pub fn root(state_dir: &Path) -> PathBuf {
    state_dir.join("buffer")
}

/// Reads the headers of every record in the buffer of a state directory.
///
/// # Errors
/// What the system said: that there is no buffer, or that it may not be read.
pub fn inspect(state_dir: &Path) -> std::io::Result<Inspection> {
    let root = root(state_dir);
    let in_use = match File::open(root.join("lock"))?.try_lock_shared() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(e)) => return Err(e),
    };
    let mut lanes: BTreeMap<Lane, Seen> = BTreeMap::new();
    for (id, len) in disk::list(&root)? {
        match File::open(disk::path(&root, id)) {
            Ok(file) => look(&file, id, len, lanes.entry(id.lane()).or_default()),
            // the agent may drop a file while we look
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let lanes = lanes.into_iter().filter(|(_, seen)| !seen.held.is_empty());
    Ok(Inspection {
        in_use,
        lanes: lanes.map(|(lane, seen)| seen.told(lane)).collect(),
    })
}

fn look(file: &File, id: FileId, len: u64, seen: &mut Seen) {
    scan(file, id, 0, len, Verify::Last, |found| {
        let header = found.header;
        seen.acked = seen.acked.max(header.acked);
        if !seen.held.contains(header.seq) {
            seen.held.insert(SeqRange {
                first: header.seq,
                last: header.seq,
            });
            seen.bytes += u64::from(header.len);
            seen.walls.push((header.seq, header.stamp.wall_ms));
        }
    });
}

impl Seen {
    fn told(self, lane: Lane) -> LaneFiles {
        let last = self.held.as_slice().last().map_or(0, |range| range.last);
        let open = SeqRange {
            first: self.acked + 1,
            last,
        };
        let unacked = self.walls.into_iter().filter(|(seq, _)| *seq > self.acked);
        let oldest = unacked.min_by_key(|(seq, _)| *seq);
        LaneFiles {
            lane,
            next: last + 1,
            held: self.held.count(),
            bytes: self.bytes,
            oldest_ms: oldest.map(|(_, wall_ms)| wall_ms),
            lost: open.len() - self.held.within(open).count(),
        }
    }
}
