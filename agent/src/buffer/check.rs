//! Looking at every record of a buffer, bodies included, without writing anything: for the card of a
//! dead box, mounted read-only or not, and for one that is in use.
//!
//! Only the files of records are read. A number counts as damaged if its record's body does not match
//! its checksum, or if it is missing where bytes lie that are no record; a number that is merely not
//! there may have been dropped by policy or never have been here, and only the index knows. Bytes that
//! belong to no record are told beside that: at the end of a lane's newest file they are usually a
//! record that was being written when the power went.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use scc_common::id::Seq;
use scc_common::ranges::RangeSet;
use scc_common::wire::SeqRange;

use super::disk::{self, FileId};
use super::scan::{Verify, body_is_whole, scan};
use super::{Lane, inspect};

/// One lane, as its files tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneCheck {
    /// Numbers whose records are whole.
    pub whole: RangeSet,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Numbers whose records were here and cannot be read.
    pub damaged: RangeSet,
    /// Bytes that belong to no whole header or body where one should be.
    pub unreadable: u64,
}

/// A lane on the way through its files.
#[derive(Debug, Default)]
struct Look {
    seen: LaneCheck,
    /// The number of the newest record whose header is whole.
    last: Seq,
    /// Bytes that belong to no record have been seen since.
    torn: bool,
}

/// A buffer, as its files tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A running agent has it open.
    pub in_use: bool,
    /// Lanes that have files, by epoch and stream.
    pub lanes: BTreeMap<Lane, LaneCheck>,
}

impl Check {
    /// Whether everything that is there is whole.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lanes
            .values()
            .all(|lane| lane.damaged.is_empty() && lane.unreadable == 0)
    }
}

/// The buffer's folder: `dir` itself, or the `buffer` in it if `dir` is a state directory.
#[must_use]
pub fn folder(dir: &Path) -> PathBuf {
    let below = inspect::root(dir);
    if below.is_dir() {
        below
    } else {
        dir.to_owned()
    }
}

/// Holds a buffer against an agent that would begin to write it, without writing; none if one has it
/// already. A card whose lock file is gone is nobody's.
///
/// # Errors
/// What the system said; [`ErrorKind::NotFound`] if `root` is no folder of a buffer.
pub(super) fn hold(root: &Path) -> io::Result<Option<Held>> {
    match File::open(root.join("lock")) {
        Ok(lock) => match super::in_a_moment(|| lock.try_lock_shared()) {
            Ok(()) => Ok(Some(Held(Some(lock)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => {
            disk::list(root)?;
            Ok(Some(Held(None)))
        }
        Err(e) => Err(e),
    }
}

/// No agent can open the buffer while this lives.
pub(super) struct Held(#[expect(dead_code, reason = "held, never read")] Option<File>);

/// Reads every record of the buffer in the folder `root`.
///
/// # Errors
/// What the system said: that there is no buffer, or that it may not be read.
pub fn check(root: &Path) -> io::Result<Check> {
    // let go at once: an agent that starts meanwhile must not find its own buffer taken
    let in_use = hold(root)?.is_none();
    let files = disk::list(root)?;
    let newest: BTreeMap<_, FileId> = files.iter().map(|(id, _)| (id.stream, *id)).collect();
    let mut lanes: BTreeMap<Lane, Look> = BTreeMap::new();
    for (id, len) in files {
        match File::open(disk::path(root, id)) {
            Ok(file) => {
                let written = in_use && newest.get(&id.stream) == Some(&id);
                let lane = lanes.entry(id.lane()).or_default();
                lane.file(&file, id, len, written);
            }
            // the agent may drop a file while we look
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let told = |look: Look| LaneCheck {
        damaged: look.seen.damaged.minus(&look.seen.whole),
        ..look.seen
    };
    let lanes = lanes.into_iter().map(|(lane, look)| (lane, told(look)));
    Ok(Check {
        in_use,
        lanes: lanes.collect(),
    })
}

impl Look {
    /// `written`: an agent is writing this file, so its end may be a record that is on its way.
    fn file(&mut self, file: &File, id: FileId, len: u64, written: bool) {
        let mut end = 0;
        scan(file, id, 0, len, Verify::None, |found| {
            let header = found.header;
            self.lost_bytes(found.offset - end);
            if self.torn && header.seq > self.last + 1 {
                self.seen.damaged.insert(SeqRange {
                    first: self.last + 1,
                    last: header.seq - 1,
                });
            }
            self.torn = false;
            self.last = self.last.max(header.seq);
            end = found.offset + header.total();
            let one = SeqRange {
                first: header.seq,
                last: header.seq,
            };
            if !body_is_whole(file, found) {
                self.seen.damaged.insert(one);
            } else if !self.seen.whole.contains(header.seq) {
                self.seen.whole.insert(one);
                self.seen.bytes += u64::from(header.len);
            }
        });
        if !written {
            self.lost_bytes(len.saturating_sub(end));
        }
    }

    fn lost_bytes(&mut self, bytes: u64) {
        self.seen.unreadable += bytes;
        self.torn |= bytes > 0;
    }
}
