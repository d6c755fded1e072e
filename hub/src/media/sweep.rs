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

/// Entries of folders that are looked at in one go, whatever they are: a year of days in which nothing has
/// changed holds no file that is to be looked at, and is as much work.
const STEP: usize = 200;

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

/// Files below a folder, as far as one [`Walk::step`] came.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) found: Vec<Found>,
    /// There is no more; otherwise there may be, even if nothing was found.
    pub(crate) done: bool,
}

/// Goes through the files below a folder, a step at a time.
#[derive(Debug)]
pub(crate) struct Walk {
    /// What comes before the paths that are given out.
    base: PathBuf,
    open: Vec<ReadDir>,
    changed_since: Option<WallMs>,
}

impl Walk {
    fn new(base: PathBuf, top: &str, changed_since: Option<WallMs>) -> io::Result<Self> {
        let top = if_there(fs::read_dir(base.join(top)))?;
        Ok(Self {
            base,
            open: top.into_iter().collect(),
            changed_since,
        })
    }

    /// A bounded number of steps further. Blocks on the disk.
    ///
    /// # Errors
    /// What the system said; what goes meanwhile is none.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        self.look_at(STEP)
    }

    fn look_at(&mut self, entries: usize) -> io::Result<Step> {
        let mut found = Vec::new();
        for _ in 0..entries {
            let Some(folder) = self.open.last_mut() else {
                return Ok(Step { found, done: true });
            };
            let Some(entry) = folder.next().transpose()? else {
                self.open.pop();
                continue;
            };
            let path = entry.path();
            let Some(meta) = if_there(fs::symlink_metadata(&path))? else {
                continue;
            };
            if meta.is_dir() {
                let of_a_day = self.open.len() == DAY_LEVEL;
                let unchanged = |since| modified_ms(&meta) < since;
                if !(of_a_day && self.changed_since.is_some_and(unchanged)) {
                    self.open.extend(if_there(fs::read_dir(&path))?);
                }
            } else if meta.is_file() {
                found.extend(self.found(path, &meta));
            }
        }
        Ok(Step { found, done: false })
    }

    /// None for a name that no file of ours has.
    fn found(&self, file: PathBuf, meta: &fs::Metadata) -> Option<Found> {
        let name = file.strip_prefix(&self.base).ok()?.to_str()?;
        let (path, partial) = match name.rsplit_once(PARTIAL) {
            None => (name, false),
            Some((whole, attempt)) => {
                let number = !attempt.is_empty() && attempt.bytes().all(|b| b.is_ascii_digit());
                Media::whose(whole).filter(|_| number)?;
                (whole, true)
            }
        };
        Some(Found {
            path: path.to_owned(),
            size: meta.len(),
            modified_ms: modified_ms(meta),
            partial,
            identity: identity(meta),
            file,
        })
    }
}

/// None for what is not there, or no longer.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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
        !self.inner.holds.is_held(&found.path)
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
        let holds = &self.inner.holds;
        let done = holds.unless_held(&found.path, || {
            match if_there(fs::symlink_metadata(&found.file))? {
                Some(now) if identity(&now) == found.identity => work().map(|()| true),
                _ => Ok(false),
            }
        });
        done.unwrap_or(Ok(false))
    }

    /// The folder of what is aside.
    pub(crate) fn aside(&self) -> PathBuf {
        self.inner.root.join(ASIDE)
    }

    /// The folders of what is aside, the oldest first.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn days_aside(&self) -> io::Result<Vec<DayAside>> {
        let mut days = Vec::new();
        for entry in if_there(fs::read_dir(self.aside()))?.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(Ok(date)) = name.to_str().map(str::parse) {
                let folder = entry.path();
                days.push(DayAside { date, folder });
            }
        }
        days.sort_unstable_by_key(|day| day.date);
        Ok(days)
    }
}

/// The folder of what was set aside on one day.
#[derive(Debug, Clone)]
pub(crate) struct DayAside {
    /// In UTC.
    pub(crate) date: Date,
    folder: PathBuf,
}

impl DayAside {
    /// The first day on which it is not kept any longer; none beyond the calendar.
    pub(crate) fn removed_from(&self) -> Option<Date> {
        self.date.checked_add((KEPT_DAYS + 1).days()).ok()
    }

    /// Whether it has been aside for long enough, as far as the wall clock can be believed.
    pub(crate) fn is_over(&self, now: WallMs) -> bool {
        self.removed_from().is_some_and(|until| until <= day(now))
    }

    /// Through its files.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn walk(&self) -> io::Result<Walk> {
        Walk::new(self.folder.clone(), "", None)
    }

    /// Removes it with all that is still in it.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn remove(&self) -> io::Result<()> {
        if_there(fs::remove_dir_all(&self.folder)).map(drop)
    }
}

/// Removes a file that has been aside for long enough.
///
/// # Errors
/// What the system said.
pub(crate) fn remove_for_good(found: &Found) -> io::Result<()> {
    if_there(fs::remove_file(&found.file)).map(drop)
}

/// What attempts to write a file have left: their names are counted up from 1. For who holds the file alone
/// ([`Holds::if_alone`](super::held::Holds::if_alone)), since a name does not tell whose attempt it is.
pub(super) fn remove_attempts(file: &Path) {
    for attempt in 1_u32.. {
        let mut name = file.as_os_str().to_owned();
        name.push(format!("{PARTIAL}{attempt}"));
        if fs::remove_file(name).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bounded_by_what_is_looked_at_even_where_nothing_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let days = dir.path().join("agents/rsud/snapshot");
        for day in 0..50 {
            fs::create_dir_all(days.join(day.to_string())).unwrap();
            fs::write(days.join(format!("{day}/ff-7-a.jpg")), "picture").unwrap();
        }
        let media = Media::open(dir.path()).unwrap();
        let steps = |since| {
            let mut walk = media.walk(since).unwrap();
            let (mut steps, mut found) = (1, 0);
            loop {
                let step = walk.look_at(10).unwrap();
                found += step.found.len();
                assert!(step.found.len() <= 10);
                if step.done {
                    return (steps, found);
                }
                steps += 1;
            }
        };
        // 3 levels, of which each begins and ends, and 50 days that are passed over
        assert_eq!(steps(Some(WallMs::MAX)), (6, 0));
        let (steps, found) = steps(None);
        assert!(steps > 15, "{steps}");
        assert_eq!(found, 50);
    }

    #[test]
    fn only_a_numbered_attempt_at_a_records_file_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let day = "agents/rsud/snapshot/2026-01-01";
        fs::create_dir_all(dir.path().join(day)).unwrap();
        for name in [
            "ff-7-a.jpg",
            "ff-7-a.jpg#12",
            "ff-7-a.jpg#",
            "ff-7-a.jpg#1a",
            "notes#1",
            "plan#1 of 2.txt",
        ] {
            fs::write(dir.path().join(day).join(name), "x").unwrap();
        }
        fs::write(dir.path().join("agents/rsud/notes#1"), "x").unwrap();
        let media = Media::open(dir.path()).unwrap();
        let mut found = media.walk(None).unwrap().step().unwrap().found;
        found.sort_by_key(|f| f.partial);
        let seen: Vec<_> = found.iter().map(|f| (f.path.as_str(), f.partial)).collect();
        let file = format!("{day}/ff-7-a.jpg");
        assert_eq!(seen, [(file.as_str(), false), (file.as_str(), true)]);
    }
}
