//! The card below the buffer: every durable step on files goes through here.
//!
//! Layout of `state_dir/buffer/`: `lock` (held by the one process that may write), `ballast` (room
//! for deleting on a full card), `index/` (sled), and per stream a folder with files named
//! `<number>-<epoch>.rec`. Numbers grow over all streams, so a lower number is an older file.
//!
//! Each step first asks [`Steps`], which a test can tell to fail or to kill the process there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use scc_common::id::Epoch;
use scc_common::stream::Stream;

use super::Lane;
use super::steps::{Point, Steps};

/// Size of the ballast, bytes.
pub(super) const BALLAST: u64 = 4 << 20;

/// One file of records. All its records are of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    /// Stream of its records.
    pub(super) stream: Stream,
    /// Its number.
    pub(super) no: u64,
    /// Epoch of its records.
    pub(super) epoch: Epoch,
}

impl FileId {
    /// The lane of its records.
    pub(super) const fn lane(self) -> Lane {
        Lane {
            epoch: self.epoch,
            stream: self.stream,
        }
    }

    fn name(self) -> String {
        format!("{:010}-{:016x}.rec", self.no, self.epoch.0)
    }

    fn parse(stream: Stream, name: &str) -> Option<Self> {
        let (no, epoch) = name.strip_suffix(".rec")?.split_once('-')?;
        Some(Self {
            stream,
            no: no.parse().ok()?,
            epoch: Epoch(u64::from_str_radix(epoch, 16).ok()?),
        })
    }
}

/// The folder of one buffer.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Asked before each durable step.
    pub(super) steps: Steps,
}

impl Disk {
    /// Makes the folders that are missing and makes them durable.
    pub(super) fn open(root: &Path, steps: Steps) -> io::Result<Self> {
        let disk = Self {
            root: root.to_owned(),
            steps,
        };
        for stream in Stream::ALL {
            let dir = disk.dir(stream);
            if !dir.is_dir() {
                disk.steps.step(Point::MakeFolder)?;
                fs::create_dir_all(&dir)?;
                disk.steps.step(Point::SyncFolder)?;
                sync_dir(root)?;
            }
        }
        Ok(disk)
    }

    /// The folder of the index.
    pub(super) fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    /// The folder that all others are in.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn dir(&self, stream: Stream) -> PathBuf {
        self.root.join(stream.name())
    }

    /// Where a file is.
    pub(super) fn path(&self, id: FileId) -> PathBuf {
        path(&self.root, id)
    }

    /// Every file of records with its length; see [`list`].
    pub(super) fn list(&self) -> io::Result<Vec<(FileId, u64)>> {
        list(&self.root)
    }

    /// Makes a new, empty file.
    pub(super) fn create(&self, id: FileId) -> io::Result<File> {
        self.steps.step(Point::Create)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(id))
    }

    /// Opens a file to read it.
    pub(super) fn open_file(&self, id: FileId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Opens a file to go on writing it.
    pub(super) fn reopen(&self, id: FileId) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(id))
    }

    /// Writes at an offset.
    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.steps.step(Point::Write)?;
        file.write_all_at(bytes, offset)
    }

    /// Makes what was written to a file durable.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.steps.step(Point::Sync)?;
        file.sync_data()
    }

    /// Makes the names in a stream's folder durable.
    pub(super) fn sync_names(&self, stream: Stream) -> io::Result<()> {
        self.steps.step(Point::SyncNames)?;
        sync_dir(&self.dir(stream))
    }

    /// Cuts a file, durably.
    pub(super) fn truncate(&self, id: FileId, len: u64) -> io::Result<()> {
        self.steps.step(Point::Cut)?;
        let file = OpenOptions::new().write(true).open(self.path(id))?;
        file.set_len(len)?;
        self.steps.step(Point::SyncCut)?;
        file.sync_data()
    }

    /// Removes a file, durably. One that is not there is removed already.
    pub(super) fn unlink(&self, id: FileId) -> io::Result<()> {
        self.steps.step(Point::Unlink)?;
        match fs::remove_file(self.path(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.sync_names(id.stream)
    }

    /// Room that is left for this program on the file system, bytes.
    pub(super) fn free(&self) -> io::Result<u64> {
        let vfs = rustix::fs::statvfs(&self.root)?;
        Ok(vfs.f_bavail.saturating_mul(vfs.f_frsize))
    }

    /// Gives the ballast's room back to the card; whether there was any.
    pub(super) fn drop_ballast(&self) -> bool {
        self.steps
            .step(Point::DropBallast)
            .and_then(|()| fs::remove_file(self.root.join("ballast")))
            .is_ok()
    }

    /// Takes the ballast's room, unless it has it already.
    pub(super) fn take_ballast(&self) -> io::Result<()> {
        let path = self.root.join("ballast");
        if fs::metadata(&path).is_ok_and(|m| m.len() == BALLAST) {
            return Ok(());
        }
        self.steps.step(Point::MakeBallast)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        self.steps.step(Point::FillBallast)?;
        if let Err(e) =
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST)
        {
            let _ = fs::remove_file(&path);
            return Err(e.into());
        }
        Ok(())
    }
}

/// Where a file of the buffer in `root` is.
pub(super) fn path(root: &Path, id: FileId) -> PathBuf {
    root.join(id.stream.name()).join(id.name())
}

/// Every file of records of the buffer in `root` with its length, oldest first per stream. What has
/// another name is left alone.
pub(super) fn list(root: &Path) -> io::Result<Vec<(FileId, u64)>> {
    let mut files = Vec::new();
    for stream in Stream::ALL {
        for entry in fs::read_dir(root.join(stream.name()))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| FileId::parse(stream, name)) else {
                continue;
            };
            match entry.metadata() {
                Ok(meta) => files.push((id, meta.len())),
                // dropped by the agent while another process looks
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Fills `buf` from `offset`. What the card does not give reads as zeros: a hole in the data is
/// then found by the checksums, in one place, whatever its cause.
pub(super) fn read_or_zeros(file: &File, buf: &mut [u8], offset: u64) {
    if file.read_exact_at(buf, offset).is_ok() {
        return;
    }
    // a bad sector must cost its own block only
    let mut at = offset;
    for block in buf.chunks_mut(4096) {
        if file.read_exact_at(block, at).is_err() {
            block.fill(0);
        }
        at += block.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_again_by_its_name_and_foreign_names_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), Steps::default()).unwrap();
        let id = FileId {
            stream: Stream::Segment,
            no: 12,
            epoch: Epoch(0xabc),
        };
        disk.create(id).unwrap();
        fs::write(disk.dir(Stream::Segment).join("notes.txt"), "x").unwrap();
        assert_eq!(disk.list().unwrap(), vec![(id, 0)]);
        disk.unlink(id).unwrap();
        disk.unlink(id).unwrap();
        assert_eq!(disk.list().unwrap(), vec![]);
    }

    #[test]
    fn the_ballast_is_taken_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), Steps::default()).unwrap();
        disk.take_ballast().unwrap();
        disk.take_ballast().unwrap();
        assert!(disk.drop_ballast());
        assert!(!disk.drop_ballast());
    }
}
