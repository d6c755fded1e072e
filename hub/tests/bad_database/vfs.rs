//! SQLite's own files on a disk that does as the test says: slow, or failing.
//!
//! The default way to the disk (SQLite calls it VFS) is replaced, for this process, by a copy of it whose
//! files first look at the mode when they write or sync. Everything else is SQLite's own.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rusqlite::ffi;

/// How the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Disk {
    Well,
    /// A sync takes 500 ms.
    Slow,
    /// Nothing can be written: an I/O error, or a disk that the kernel has made read-only.
    Unwritable,
    /// What is written cannot be synced.
    Unsyncable,
}

const SYNC: Duration = Duration::from_millis(500);

static DISK: AtomicU8 = AtomicU8::new(Disk::Well as u8);

struct Real(*mut ffi::sqlite3_vfs, ffi::sqlite3_vfs);
struct Methods(ffi::sqlite3_io_methods);
// SAFETY: both are written once and only read afterwards; what they point to is static in SQLite.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}
// SAFETY: as above.
unsafe impl Send for Methods {}
// SAFETY: as above.
unsafe impl Sync for Methods {}

static REAL: OnceLock<Real> = OnceLock::new();
/// Writing and syncing are the same for every file.
static THEIRS: OnceLock<Methods> = OnceLock::new();
/// Ours for each of theirs: a log is closed and locked by other methods than a database.
static OURS: Mutex<Vec<(usize, &'static Methods)>> = Mutex::new(Vec::new());

/// The disk of every database of this process is so from now on.
pub(crate) fn the_disk_is(disk: Disk) {
    DISK.store(disk as u8, Ordering::SeqCst);
}

/// Takes effect for databases that are opened afterwards.
pub(crate) fn install() {
    REAL.get_or_init(|| {
        // SAFETY: finds the default VFS, which SQLite keeps for the process's life; the copy lives in a
        // static and has the layout and version of what it was copied from.
        unsafe {
            let real = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!real.is_null());
            let mut copy = *real;
            copy.zName = c"bad".as_ptr();
            copy.pNext = std::ptr::null_mut();
            copy.xOpen = Some(open);
            Real(real, copy)
        }
    });
    let real = REAL.get().unwrap();
    let ours = std::ptr::from_ref(&real.1).cast_mut();
    // SAFETY: `ours` lives as long as the process. SQLite writes its `pNext` under its own lock.
    assert_eq!(
        unsafe { ffi::sqlite3_vfs_register(ours, 1) },
        ffi::SQLITE_OK
    );
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let (Some(real), watched) = (REAL.get(), ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL)
    else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite calls this as it would call the real one, with the same room for the file.
    unsafe {
        let Some(theirs) = (*real.0).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let opened = theirs(real.0, name, file, flags, out);
        if opened == ffi::SQLITE_OK && flags & watched != 0 {
            THEIRS.get_or_init(|| Methods(*(*file).pMethods));
            (*file).pMethods = ours(&*(*file).pMethods);
        }
        opened
    }
}

fn ours(theirs: &ffi::sqlite3_io_methods) -> *const ffi::sqlite3_io_methods {
    let at = std::ptr::from_ref(theirs) as usize;
    let mut known = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ours)) = known.iter().find(|(theirs, _)| *theirs == at) {
        return &raw const ours.0;
    }
    let mut methods = *theirs;
    methods.xWrite = Some(write);
    methods.xSync = Some(sync);
    // two of them in all, for the life of the process
    let ours: &'static Methods = Box::leak(Box::new(Methods(methods)));
    known.push((at, ours));
    &raw const ours.0
}

fn is(disk: Disk) -> bool {
    DISK.load(Ordering::SeqCst) == disk as u8
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    match THEIRS.get().and_then(|theirs| theirs.0.xWrite) {
        // SAFETY: passed on as it came.
        Some(theirs) if !is(Disk::Unwritable) => unsafe { theirs(file, from, amount, at) },
        _ => ffi::SQLITE_IOERR_WRITE,
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    if is(Disk::Slow) {
        std::thread::sleep(SYNC);
    }
    match THEIRS.get().and_then(|theirs| theirs.0.xSync) {
        // SAFETY: passed on as it came.
        Some(theirs) if !is(Disk::Unsyncable) => unsafe { theirs(file, flags) },
        _ => ffi::SQLITE_IOERR_FSYNC,
    }
}
