//! A [forgetful disk](super::forgetful) under a folder, through FUSE: what writes to it is the real
//! code with its real system calls, sled's included. The kernel keeps nothing of it (direct I/O, no
//! caches of names), so that a cut decides alone what is left.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rand::Rng;
use rustix::io::Errno;

use super::forgetful::{Disk, Facts};

/// How long the kernel may believe what it was told: not at all.
const TTL: Duration = Duration::ZERO;

const BLOCK: u32 = 4096;

type SharedDisk = Arc<Mutex<Disk>>;

fn locked(disk: &SharedDisk) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mounted disk. Unmounted when dropped.
#[derive(Debug)]
pub(super) struct Mounted {
    disk: SharedDisk,
    /// Before the folder: it can be removed only when nothing is mounted there.
    session: Option<BackgroundSession>,
    folder: tempfile::TempDir,
}

impl Mounted {
    /// An empty disk of `size` bytes under a folder of its own; none where this machine cannot mount
    /// (no `/dev/fuse`, or no right to).
    pub(super) fn new(size: u64) -> Option<Self> {
        let mut mounted = Self {
            disk: Arc::new(Mutex::new(Disk::new(size))),
            folder: tempfile::tempdir().unwrap(),
            session: None,
        };
        match mounted.mount() {
            Ok(()) => Some(mounted),
            Err(e) => {
                assert!(
                    std::env::var_os("SCC_ALLOW_SKIP").is_some(),
                    "no FUSE here, so nothing was tested (SCC_ALLOW_SKIP=1 goes on without): {e}"
                );
                println!("SKIPPED: no FUSE here: {e}");
                None
            }
        }
    }

    fn mount(&mut self) -> std::io::Result<()> {
        let view = View(self.disk.clone());
        let session = fuser::spawn_mount(view, self.folder.path(), &Config::default())?;
        self.session = Some(session);
        Ok(())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The disk itself.
    pub(super) fn disk(&self) -> MutexGuard<'_, Disk> {
        locked(&self.disk)
    }

    /// A disk on which this process has a file open is not unmounted, and stays for ever. sled closes
    /// its own in a thread, a moment after it was dropped.
    fn wait_until_unused(&self) {
        for _ in 0..500 {
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            let mut files = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
            if !files.any(|file| file.starts_with(self.folder.path())) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Cuts the power and puts it on again. Nobody may have a file of it open.
    pub(super) fn cut(&mut self, rng: &mut impl Rng) {
        self.wait_until_unused();
        if let Some(session) = self.session.take() {
            session.umount_and_join().unwrap();
        }
        locked(&self.disk).cut(rng);
        self.mount().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.wait_until_unused();
        drop(self.session.take());
    }
}

/// What the kernel asks.
#[derive(Debug)]
struct View(SharedDisk);

fn errno(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}

fn attr(facts: Facts) -> FileAttr {
    let at = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(facts.node),
        size: facts.len,
        blocks: facts.len.div_ceil(512),
        atime: at,
        mtime: at,
        ctime: at,
        crtime: at,
        kind: kind(facts),
        perm: if facts.folder { 0o700 } else { 0o600 },
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

fn kind(facts: Facts) -> FileType {
    if facts.folder {
        FileType::Directory
    } else {
        FileType::RegularFile
    }
}

fn done(reply: ReplyEmpty, answer: Result<(), Errno>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn entry(reply: ReplyEntry, answer: Result<Facts, Errno>) {
    match answer {
        Ok(facts) => reply.entry(&TTL, &attr(facts), Generation(0)),
        Err(e) => reply.error(errno(e)),
    }
}

impl Filesystem for View {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, locked(&self.0).lookup(parent.0, name));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match locked(&self.0).facts(ino.0) {
            Ok(facts) => reply.attr(&TTL, &attr(facts)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = locked(&self.0);
        let set = size.map_or(Ok(()), |len| disk.set_len(ino.0, len));
        match set.and_then(|()| disk.facts(ino.0)) {
            Ok(facts) => reply.attr(&TTL, &attr(facts)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(reply, locked(&self.0).make(parent.0, name, true));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, locked(&self.0).remove(parent.0, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, locked(&self.0).remove(parent.0, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let answer = if parent == newparent && flags.is_empty() {
            locked(&self.0).rename(parent.0, name, newname)
        } else {
            Err(Errno::XDEV)
        };
        done(reply, answer);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match locked(&self.0).make(parent.0, name, false) {
            Ok(facts) => reply.created(
                &TTL,
                &attr(facts),
                Generation(0),
                FileHandle(0),
                FopenFlags::FOPEN_DIRECT_IO,
            ),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match locked(&self.0).read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match locked(&self.0).write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close() is no promise of anything
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, locked(&self.0).sync(ino.0));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, locked(&self.0).sync(ino.0));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = match locked(&self.0).names(ino.0) {
            Ok(names) => names,
            Err(e) => return reply.error(errno(e)),
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (name, facts)) in names.iter().enumerate().skip(skipped) {
            if reply.add(INodeNo(facts.node), at as u64 + 1, kind(*facts), name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match locked(&self.0).space() {
            Ok((size, free)) => {
                let blocks = |bytes: u64| bytes / u64::from(BLOCK);
                let free = blocks(free);
                reply.statfs(
                    blocks(size),
                    free,
                    free,
                    1 << 20,
                    1 << 20,
                    BLOCK,
                    255,
                    BLOCK,
                );
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // room beyond the end of a file is more than this disk knows of, and others do not either
        if mode != 0 {
            return done(reply, Err(Errno::OPNOTSUPP));
        }
        let mut disk = locked(&self.0);
        let longer = |facts: Facts| (offset + length > facts.len).then_some(offset + length);
        let answer = match disk.facts(ino.0).map(longer) {
            Ok(Some(len)) => disk.set_len(ino.0, len),
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        done(reply, answer);
    }
}

#[test]
fn a_disk_whose_last_file_is_closed_a_moment_later_is_unmounted_all_the_same() {
    let Some(card) = Mounted::new(1 << 20) else {
        return;
    };
    let folder = card.path().to_owned();
    let late = std::fs::File::create(folder.join("late")).unwrap();
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(late);
    });
    drop(card);
    closing.join().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(folder.to_str().unwrap()),
        "it is still there"
    );
    assert!(!folder.exists());
}
