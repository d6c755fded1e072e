//! Finding files that no record refers to, setting them aside, and removing what has been aside for long.
//!
//! `aside/<yyyy-mm-dd>/…` below the media folder holds what was set aside on that day (UTC), each file
//! under its own path. After a restore such files may be all that is left of a day, so they are kept for
//! [`KEPT_DAYS`] and can be looked at and put back.
//!
//! What keeps a file from being taken while its row is being written, whatever any clock says, is the
//! order: listed ([`Walk`]) → not [held](super::Held) → not in the ledger → and again not held *and* still
//! the same file. A row that was committed before the ledger was asked is found there; one that was
//! committed later had its file held or written anew in between.

use std::fs::{self, ReadDir};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use scc_common::clock::WallMs;

use super::Media;

/// How long a file stays aside, days.
pub(crate) const KEPT_DAYS: i32 = 30;

const RECORDS: &str = "agents";
const ASIDE: &str = "aside";

/// Between a file's name and the number of an attempt to write it: `object_store`'s sign.
const PARTIAL: char = '#';

/// Levels below [`RECORDS`] down to the folder of a day, which holds the files.
const DAY_LEVEL: usize = 3;

/// A file as it was when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its path, as rows have it; of an attempt, the path that it would have got.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) modified_ms: WallMs,
    /// It was being written when the hub ended: nothing ever refers to it.
    pub(crate) partial: bool,
    file: PathBuf,
    identity: Identity,
}

/// Device, inode, and when its bytes last changed.
type Identity = (u64, u64, i64, i64);

/// Goes through the files below a folder, some at a time. Reads no more of a folder than is asked for.
#[derive(Debug)]
pub(crate) struct Walk {
    /// What comes before the paths that are given out.
    base: PathBuf,
    open: Vec<ReadDir>,
    changed_since: Option<WallMs>,
}

impl Walk {
    fn new(base: PathBuf, top: &str, changed_since: Option<WallMs>) -> io::Result<Self> {
        let open = match fs::read_dir(base.join(top)) {
            Ok(folder) => vec![folder],
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            base,
            open,
            changed_since,
        })
    }

    /// At most so many of the next files; empty when there are no more. Blocks on the disk.
    ///
    /// # Errors
    /// What the system said; a file that goes meanwhile is none.
    pub(crate) fn next(&mut self, most: usize) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(folder) = self.open.last_mut() else {
                break;
            };
            let Some(entry) = folder.next().transpose()? else {
                self.open.pop();
                continue;
            };
            let path = entry.path();
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if meta.is_dir() {
                let of_a_day = self.open.len() == DAY_LEVEL;
                let unchanged = |since| modified_ms(&meta) < since;
                if !(of_a_day && self.changed_since.is_some_and(unchanged)) {
                    self.open.push(fs::read_dir(&path)?);
                }
            } else if meta.is_file() {
                found.extend(self.found(path, &meta));
            }
        }
        Ok(found)
    }

    /// None for a name that no file of ours has.
    fn found(&self, file: PathBuf, meta: &fs::Metadata) -> Option<Found> {
        let path = file.strip_prefix(&self.base).ok()?.to_str()?;
        let whole = path.split_once(PARTIAL).map(|(whole, _)| whole);
        Some(Found {
            path: whole.unwrap_or(path).to_owned(),
            size: meta.len(),
            modified_ms: modified_ms(meta),
            partial: whole.is_some(),
            identity: identity(meta),
            file,
        })
    }
}

fn modified_ms(meta: &fs::Metadata) -> WallMs {
    meta.mtime()
        .saturating_mul(1_000)
        .saturating_add(meta.mtime_nsec() / 1_000_000)
}

fn identity(meta: &fs::Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec())
}

/// The name of the folder of what is set aside at this time.
fn day(at_ms: WallMs) -> Date {
    let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::UTC).date()
}

impl Media {
    /// Through all files of records. With `changed_since`, folders of a day in which nothing has come or
    /// gone since then are passed over.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn walk(&self, changed_since: Option<WallMs>) -> io::Result<Walk> {
        Walk::new(self.inner.root.clone(), RECORDS, changed_since)
    }

    /// Whether nobody is about to refer to this file.
    pub(crate) fn is_free(&self, found: &Found) -> bool {
        let holds = &self.inner.holds;
        holds.unless_held(&found.path, || ()).is_some()
    }

    /// Sets a file aside that no row refers to; false if it is in use after all, or another than it was.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn set_aside(&self, found: &Found, now: WallMs) -> io::Result<bool> {
        let aside = self.inner.root.join(ASIDE).join(day(now).to_string());
        let to = aside.join(&found.path);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        self.if_the_same(found, || fs::rename(&found.file, &to))
    }

    /// Removes what is left of an attempt to write a file; false if somebody is writing it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove_partial(&self, found: &Found) -> io::Result<bool> {
        self.if_the_same(found, || fs::remove_file(&found.file))
    }

    fn if_the_same(
        &self,
        found: &Found,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<bool> {
        let done =
            self.inner
                .holds
                .unless_held(&found.path, || match fs::symlink_metadata(&found.file) {
                    Ok(now) if identity(&now) == found.identity => work().map(|()| true),
                    Ok(_) => Ok(false),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(error),
                });
        done.unwrap_or(Ok(false))
    }

    /// The folders of what has been aside for longer than [`KEPT_DAYS`].
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn long_aside(&self, now: WallMs) -> io::Result<Vec<PathBuf>> {
        let Ok(first_kept) = day(now).checked_sub(KEPT_DAYS.days()) else {
            return Ok(Vec::new());
        };
        let folders = match fs::read_dir(self.inner.root.join(ASIDE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            folders => folders?,
        };
        let mut long = Vec::new();
        for folder in folders {
            let folder = folder?;
            let day = folder
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<Date>().ok());
            if day.is_some_and(|day| day < first_kept) {
                long.push(folder.path());
            }
        }
        Ok(long)
    }
}

/// Through the files of a folder of what is aside.
///
/// # Errors
/// What the system said.
pub(crate) fn walk_aside(folder: &Path) -> io::Result<Walk> {
    Walk::new(folder.to_path_buf(), "", None)
}

/// Removes a file that has been aside for long enough.
///
/// # Errors
/// What the system said.
pub(crate) fn remove_for_good(found: &Found) -> io::Result<()> {
    fs::remove_file(&found.file)
}

/// What an attempt to write a file has left when nobody else writes it: its names are counted up from 1.
pub(super) fn remove_attempts(file: &Path) {
    for attempt in 1_u32.. {
        let mut name = file.as_os_str().to_owned();
        name.push(format!("{PARTIAL}{attempt}"));
        if fs::remove_file(name).is_err() {
            return;
        }
    }
}
