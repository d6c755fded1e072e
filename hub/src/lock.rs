//! The lock of the state directory: one process at a time writes the ledger. `serve` holds it as long as
//! it runs, `import` as long as it imports. Commands that change the register or users do without: they
//! touch nothing that ingest keeps in memory.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{}: another `scc-hub serve` or `scc-hub import` is writing here", .0.display())]
    Taken(PathBuf),
    /// The file cannot be used.
    #[error("{}: it cannot be locked: {why}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// Takes the lock of a state directory, which is made if it is missing. Given back when the file is
/// dropped or the process ends, however it ends.
///
/// # Errors
/// [`LockError`].
pub fn take(state_dir: &Path) -> Result<File, LockError> {
    let file = state_dir.join("hub.lock");
    let failed = |why| LockError::Io {
        file: file.clone(),
        why,
    };
    let mut folder = DirBuilder::new();
    folder.recursive(true).mode(0o700);
    folder.create(state_dir).map_err(failed)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(&file).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LockError::Taken(file)),
        Err(TryLockError::Error(why)) => Err(failed(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_next_when_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let held = take(&state).unwrap();
        assert!(matches!(take(&state), Err(LockError::Taken(_))));
        drop(held);
        take(&state).unwrap();
    }
}
