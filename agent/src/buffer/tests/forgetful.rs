//! A disk that forgets: after a power cut only what was synced is sure to be there.
//!
//! It is stricter than any real file system, so what survives here survives there. After a cut
//! - each sector of 512 bytes that was written since its file's last fsync holds what it held then or
//!   any of the versions written since, independently of all other sectors;
//! - a file has the length of its last fsync or any length that it had since;
//! - of the changes to the names in a folder since its last fsync any number from the first on are
//!   there, independently of other folders. An fsync of a file does not keep its name.
//!
//! [`super::mount`] puts it under a folder, so that real programs write to it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::mpsc::{Receiver, Sender, channel};

use rand::Rng;
use rustix::io::Errno;

/// What a disk writes whole or not at all, bytes.
const SECTOR: usize = 512;

/// Number of the root folder.
pub(super) const ROOT: u64 = 1;

/// A file or a folder.
#[derive(Debug, Clone)]
enum Node {
    File(FileNode),
    Folder(Folder),
}

#[derive(Debug, Clone, Default)]
struct FileNode {
    now: Vec<u8>,
    /// As of the last fsync.
    safe: Vec<u8>,
    /// What each sector held since, oldest first.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Lengths since, oldest first.
    lengths: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Folder {
    now: BTreeMap<OsString, u64>,
    safe: BTreeMap<OsString, u64>,
    /// Changes since the last fsync, oldest first.
    changes: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Put(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl FileNode {
    /// Notes what `sectors` hold now.
    fn note(&mut self, bytes: std::ops::Range<usize>) {
        for sector in bytes.start / SECTOR..bytes.end.div_ceil(SECTOR) {
            let end = self.now.len().min((sector + 1) * SECTOR);
            let version = self.now.get(sector * SECTOR..end).unwrap_or_default();
            let versions = self.versions.entry(sector).or_default();
            versions.push(version.to_vec());
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        if end > self.now.len() {
            self.set_len(end);
        }
        self.now[offset..end].copy_from_slice(data);
        self.note(offset..end);
    }

    fn set_len(&mut self, len: usize) {
        let former = self.now.len();
        self.now.resize(len, 0);
        self.lengths.push(len);
        if len < former {
            // what is cut off must not come back when the file grows again
            self.note(len..former);
        }
    }

    fn sync(&mut self) {
        self.safe.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.versions).into_keys() {
            let end = self.now.len().min((sector + 1) * SECTOR);
            if let Some(bytes) = self.now.get(sector * SECTOR..end) {
                self.safe[sector * SECTOR..end].copy_from_slice(bytes);
            }
        }
        self.lengths.clear();
    }

    fn forget(&mut self, rng: &mut impl Rng) {
        let kept = rng.random_range(0..=self.lengths.len());
        let len = kept
            .checked_sub(1)
            .map_or(self.safe.len(), |n| self.lengths[n]);
        for (sector, versions) in std::mem::take(&mut self.versions) {
            let kept = rng.random_range(0..=versions.len());
            let Some(version) = kept.checked_sub(1).map(|n| &versions[n]) else {
                continue;
            };
            let start = sector * SECTOR;
            if self.safe.len() < start + version.len() {
                self.safe.resize(start + version.len(), 0);
            }
            let end = self.safe.len().min(start + SECTOR);
            self.safe[start..end].fill(0);
            self.safe[start..start + version.len()].copy_from_slice(version);
        }
        self.safe.resize(len, 0);
        self.now.clone_from(&self.safe);
        self.lengths.clear();
    }
}

/// What is known of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its number.
    pub(super) node: u64,
    /// Whether it is a folder.
    pub(super) folder: bool,
    /// Length in bytes.
    pub(super) len: u64,
}

/// What one disk holds.
#[derive(Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Bytes that fit.
    size: u64,
    /// Changes until the power fails; none if it does not.
    left: Option<u64>,
    off: bool,
    /// Told when the power fails.
    alarm: Option<Sender<()>>,
    /// Fsyncs of files and folders that were asked for.
    pub(super) fsyncs: u64,
    /// For the test of the test: fsyncs are answered and not done.
    pub(super) lies: bool,
}

type Answer<T> = Result<T, Errno>;

impl Disk {
    /// An empty disk for `size` bytes.
    pub(super) fn new(size: u64) -> Self {
        Self {
            nodes: [(ROOT, Node::Folder(Folder::default()))].into(),
            next: ROOT + 1,
            size,
            left: None,
            off: false,
            alarm: None,
            fsyncs: 0,
            lies: false,
        }
    }

    /// The power fails with the change after the next `n`. The alarm then says so; it ends without a
    /// word when another failure is planned.
    pub(super) fn fail_after(&mut self, n: Option<u64>) -> Receiver<()> {
        let (alarm, heard) = channel();
        (self.left, self.alarm) = (n, Some(alarm));
        heard
    }

    /// Whether the power has failed.
    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    /// It was no power cut but a loose contact: everything is there again, and nothing forgotten.
    pub(super) fn mend(&mut self) {
        (self.off, self.left) = (false, None);
    }

    /// Puts the power off, forgets, and puts it on again.
    pub(super) fn cut(&mut self, rng: &mut impl Rng) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.forget(rng),
                Node::Folder(folder) => {
                    let kept = rng.random_range(0..=folder.changes.len());
                    for change in folder.changes.drain(..).take(kept) {
                        change.apply(&mut folder.safe);
                    }
                    folder.now.clone_from(&folder.safe);
                }
            }
        }
        let mut reached = BTreeMap::new();
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            if let Some(node) = self.nodes.remove(&number) {
                if let Node::Folder(folder) = &node {
                    open.extend(folder.now.values());
                }
                reached.insert(number, node);
            }
        }
        self.nodes = reached;
        (self.off, self.left) = (false, None);
    }

    /// Counts one change. The one with which the power fails may still reach the disk, but nobody is
    /// told: `Err` comes after it was done.
    fn change<T>(&mut self, change: impl FnOnce(&mut Self) -> Answer<T>) -> Answer<T> {
        self.alive()?;
        let last = self.left == Some(0);
        self.left = self.left.map(|left| left.saturating_sub(1));
        let answer = change(self);
        if last {
            self.off = true;
            // nobody need listen
            let _ = self.alarm.take().map(|alarm| alarm.send(()));
            return Err(Errno::IO);
        }
        answer
    }

    fn alive(&self) -> Answer<()> {
        if self.off { Err(Errno::IO) } else { Ok(()) }
    }

    fn folder(&mut self, node: u64) -> Answer<&mut Folder> {
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            Some(Node::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn file(&mut self, node: u64) -> Answer<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(Errno::ISDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// What is known of a node.
    pub(super) fn facts(&self, node: u64) -> Answer<Facts> {
        self.alive()?;
        let (folder, len) = match self.nodes.get(&node).ok_or(Errno::NOENT)? {
            Node::File(file) => (false, file.now.len() as u64),
            Node::Folder(_) => (true, 0),
        };
        Ok(Facts { node, folder, len })
    }

    /// The node of a name.
    pub(super) fn lookup(&mut self, folder: u64, name: &OsStr) -> Answer<Facts> {
        self.alive()?;
        let node = *self.folder(folder)?.now.get(name).ok_or(Errno::NOENT)?;
        self.facts(node)
    }

    /// Names of a folder.
    pub(super) fn names(&mut self, folder: u64) -> Answer<Vec<(OsString, Facts)>> {
        self.alive()?;
        let names = self.folder(folder)?.now.clone();
        let facts = |(name, node)| Ok((name, self.facts(node)?));
        names.into_iter().map(facts).collect()
    }

    fn rename_or(&mut self, folder: u64, change: NameChange) -> Answer<()> {
        let folder = self.folder(folder)?;
        change.apply(&mut folder.now);
        folder.changes.push(change);
        Ok(())
    }

    /// Makes an empty file or folder.
    pub(super) fn make(&mut self, parent: u64, name: &OsStr, folder: bool) -> Answer<Facts> {
        self.change(|disk| {
            if disk.folder(parent)?.now.contains_key(name) {
                return Err(Errno::EXIST);
            }
            let node = disk.next;
            disk.next += 1;
            let made = if folder {
                Node::Folder(Folder::default())
            } else {
                Node::File(FileNode::default())
            };
            disk.nodes.insert(node, made);
            disk.rename_or(parent, NameChange::Put(name.to_owned(), node))?;
            disk.facts(node)
        })
    }

    /// Removes a file, or a folder that is empty. Who has it open can still use it.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Answer<()> {
        self.change(|disk| {
            let facts = disk.lookup(parent, name)?;
            if facts.folder && !disk.folder(facts.node)?.now.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            disk.rename_or(parent, NameChange::Remove(name.to_owned()))
        })
    }

    /// Renames within one folder; between folders is not supported.
    pub(super) fn rename(&mut self, parent: u64, from: &OsStr, to: &OsStr) -> Answer<()> {
        self.change(|disk| {
            disk.lookup(parent, from)?;
            disk.rename_or(parent, NameChange::Rename(from.to_owned(), to.to_owned()))
        })
    }

    /// Reads up to `len` bytes.
    pub(super) fn read(&mut self, node: u64, offset: u64, len: usize) -> Answer<Vec<u8>> {
        self.alive()?;
        let bytes = &self.file(node)?.now;
        let start = index(offset)?.min(bytes.len());
        Ok(bytes[start..bytes.len().min(start + len)].to_vec())
    }

    /// Writes.
    pub(super) fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Answer<()> {
        self.change(|disk| {
            disk.room_for(node, offset + data.len() as u64)?;
            disk.file(node)?.write(index(offset)?, data);
            Ok(())
        })
    }

    /// Cuts or lengthens a file.
    pub(super) fn set_len(&mut self, node: u64, len: u64) -> Answer<()> {
        self.change(|disk| {
            disk.room_for(node, len)?;
            disk.file(node)?.set_len(index(len)?);
            Ok(())
        })
    }

    /// What was written to a file, or the names in a folder, are durable from now on.
    pub(super) fn sync(&mut self, node: u64) -> Answer<()> {
        self.fsyncs += 1;
        self.change(|disk| {
            if disk.lies {
                return Ok(());
            }
            match disk.nodes.get_mut(&node).ok_or(Errno::NOENT)? {
                Node::File(file) => file.sync(),
                Node::Folder(folder) => {
                    folder.safe.clone_from(&folder.now);
                    folder.changes.clear();
                }
            }
            Ok(())
        })
    }

    /// Size of the disk and what is free of it, bytes.
    pub(super) fn space(&self) -> Answer<(u64, u64)> {
        self.alive()?;
        Ok((self.size, self.size.saturating_sub(self.used())))
    }

    fn used(&self) -> u64 {
        let of = |node: &Node| match node {
            Node::File(file) => file.now.len() as u64,
            Node::Folder(_) => 0,
        };
        self.nodes.values().map(of).sum()
    }

    fn room_for(&self, node: u64, end: u64) -> Answer<()> {
        let len = self.facts(node)?.len;
        if end > len && self.used() + (end - len) > self.size {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }
}

fn index(offset: u64) -> Answer<usize> {
    usize::try_from(offset).map_err(|_| Errno::FBIG)
}

mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go() {
        let (mut kept, mut gone, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let mut disk = Disk::new(1 << 20);
            let node = disk.make(ROOT, name("a"), false).unwrap().node;
            disk.write(node, 0, &[1; 2000]).unwrap();
            disk.sync(node).unwrap();
            disk.sync(ROOT).unwrap();
            disk.write(node, 100, &[2; 1000]).unwrap();
            disk.cut(&mut StdRng::seed_from_u64(seed));
            let bytes = disk.read(node, 0, 4000).unwrap();
            assert_eq!(bytes.len(), 2000);
            assert!(bytes[..100].iter().chain(&bytes[1100..]).all(|b| *b == 1));
            match bytes[100..1100].iter().filter(|b| **b == 2).count() {
                0 => gone += 1,
                1000 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 0 && gone > 0 && torn > 0, "{kept} {gone} {torn}");
    }

    #[test]
    fn a_name_needs_an_fsync_of_its_folder() {
        let found = |sync: bool| {
            (0..50)
                .filter(|seed| {
                    let mut disk = Disk::new(1 << 20);
                    let node = disk.make(ROOT, name("a"), false).unwrap().node;
                    disk.write(node, 0, b"x").unwrap();
                    disk.sync(node).unwrap();
                    if sync {
                        disk.sync(ROOT).unwrap();
                    }
                    disk.cut(&mut StdRng::seed_from_u64(*seed));
                    disk.lookup(ROOT, name("a")).is_ok()
                })
                .count()
        };
        assert_eq!(found(true), 50);
        assert!((1..50).contains(&found(false)));
    }

    #[test]
    fn a_file_that_was_cut_and_grew_again_does_not_show_what_was_cut_off() {
        for seed in 0..100 {
            let mut disk = Disk::new(1 << 20);
            let node = disk.make(ROOT, name("a"), false).unwrap().node;
            disk.sync(ROOT).unwrap();
            disk.write(node, 0, &[7; 1024]).unwrap();
            disk.set_len(node, 300).unwrap();
            disk.set_len(node, 1024).unwrap();
            assert_eq!(disk.read(node, 300, 724).unwrap(), [0; 724]);
            disk.sync(node).unwrap();
            disk.cut(&mut StdRng::seed_from_u64(seed));
            assert_eq!(disk.read(node, 300, 724).unwrap(), [0; 724]);
        }
    }

    #[test]
    fn after_the_power_has_failed_nothing_answers_until_it_is_back() {
        let mut disk = Disk::new(1 << 20);
        let alarm = disk.fail_after(Some(1));
        let node = disk.make(ROOT, name("a"), false).unwrap().node;
        assert_eq!(disk.write(node, 0, b"x"), Err(Errno::IO));
        assert!(disk.is_off());
        alarm.try_recv().unwrap();
        assert_eq!(disk.read(node, 0, 1), Err(Errno::IO));
        disk.cut(&mut StdRng::seed_from_u64(1));
        assert!(disk.names(ROOT).unwrap().len() <= 1);
        assert_eq!(disk.space().unwrap().0, 1 << 20);
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_what_it_has() {
        let mut disk = Disk::new(1000);
        let node = disk.make(ROOT, name("a"), false).unwrap().node;
        disk.write(node, 0, &[1; 900]).unwrap();
        assert_eq!(disk.write(node, 900, &[1; 200]), Err(Errno::NOSPC));
        disk.write(node, 0, &[2; 900]).unwrap();
        assert_eq!(disk.space().unwrap(), (1000, 100));
    }
}
