//! Files that survive a power cut.
//!
//! Promise: after any crash a file has either its old content or the whole new one, and once a
//! function here has returned, a power cut does not undo it. Way: a temporary file in the same
//! folder, fsync, rename over the old name, fsync of the folder.
//! A private file is created with its mode, so there is no instant in which others may read it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::error::Error;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only its owner (0600): private keys.
    Private,
    /// Everybody (0644): certificates and revocation lists.
    Public,
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Writes a whole file, replacing an older one of that name.
///
/// # Errors
/// [`Error::File`] names the file; the old content is then untouched.
pub fn write(file: &Path, content: &[u8], access: Access) -> Result<(), Error> {
    put(file, content, access).map_err(|e| Error::file(file, &e))
}

fn put(file: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let folder = above(file);
    let mut name = file
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?
        .to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    // What a crash left behind may have another mode: never write into it.
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(access.mode())
        .open(&temporary)?;
    let written = new
        // the umask may have taken bits from a public file, which other users must read
        .set_permissions(std::fs::Permissions::from_mode(access.mode()))
        .and_then(|()| new.write_all(content))
        .and_then(|()| new.sync_all())
        .and_then(|()| std::fs::rename(&temporary, file));
    if let Err(error) = written {
        // Best effort: the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// Makes a folder that only its owner may enter (0700), with the folders above it; one that is
/// there already stays as it is.
///
/// # Errors
/// [`Error::File`] names the folder.
pub fn private_folder(folder: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|f| !f.exists()).collect();
    let make = || -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        // a new folder is only there for good once the folder above it says so
        for new in missing {
            File::open(above(new))?.sync_all()?;
        }
        Ok(())
    };
    make().map_err(|e| Error::file(folder, &e))
}

/// The folder that something lies in; `.` for a bare name.
fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Reads a whole text file.
///
/// # Errors
/// [`Error::File`] names the file.
pub fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|e| Error::file(file, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(file: &Path) -> u32 {
        file.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_has_the_mode_of_its_kind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        write(&file, b"one", Access::Public).unwrap();
        assert_eq!(mode(&file), 0o644);
        write(&file, b"two", Access::Private).unwrap();
        assert_eq!((read(&file).unwrap().as_str(), mode(&file)), ("two", 0o600));
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file stays behind");
    }

    #[test]
    fn what_a_crash_left_behind_is_neither_used_nor_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.key");
        write(&file, b"old", Access::Private).unwrap();
        // a crash between writing and renaming: half a file, open to all
        let half = dir.path().join("a.key.new");
        std::fs::write(&half, b"ha").unwrap();
        std::fs::set_permissions(&half, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(read(&file).unwrap(), "old");
        write(&file, b"new", Access::Private).unwrap();
        assert_eq!((read(&file).unwrap().as_str(), mode(&file)), ("new", 0o600));
        assert!(!half.exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        // renaming a file over a folder fails after the new content is on disk
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("inside"), b"old").unwrap();
        let error = write(&taken, b"new", Access::Public).unwrap_err();
        assert!(error.to_string().contains("taken"), "{error}");
        assert_eq!(std::fs::read(taken.join("inside")).unwrap(), b"old");
        assert!(!dir.path().join("taken.new").exists());
    }

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        private_folder(&folder).unwrap();
        private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
    }
}
