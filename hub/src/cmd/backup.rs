//! `scc-hub backup FILE`: a copy of the database while the hub runs.
//!
//! Pictures and video are not in it: copy the media folder with what copies files (rsync, restic).
//! A hub that is restored from such a copy asks its agents for what is newer, and for the records
//! whose files are missing, as long as they still hold them.

use std::path::Path;

use crate::config::Config;
use crate::store::{BackupReport, StoreError, backup};

/// Writes a backup; the file appears only when it is whole and durable.
///
/// # Errors
/// [`StoreError`]; then no file has appeared.
pub fn run(config: &Config, file: &Path) -> Result<BackupReport, StoreError> {
    backup(&config.database(), file)
}
