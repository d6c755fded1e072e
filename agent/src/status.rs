//! The status file: what the running agent knows, for `scc-agent status` and `doctor`.
//!
//! JSON in the state directory, replaced as a whole so that a reader never sees half of it, and not
//! fsynced: it is worth nothing after a power cut, and the card has better things to do.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use scc_common::clock::{ClockQuality, WallMs};
use scc_common::id::AgentId;
use scc_common::record::{DeviceState, LaneHealth};
use serde::{Deserialize, Serialize};

use crate::uplink::status::LinkStatus;

/// Name of the file in the state directory.
const NAME: &str = "status.json";

/// Seconds between two writings.
pub const EVERY_S: u32 = 10;

/// What the agent knew when it last wrote the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// When it was written.
    pub written_ms: WallMs,
    /// Version of the agent.
    pub version: String,
    /// Which agent.
    pub agent: AgentId,
    /// `HOST:PORT` of the hub.
    pub hub: String,
    /// The link.
    pub link: LinkStatus,
    /// What the wall clock is worth.
    pub clock: ClockQuality,
    /// Each lane of the buffer.
    pub lanes: Vec<LaneHealth>,
    /// Each device.
    pub devices: Vec<DeviceState>,
}

/// Where the status file of this state directory is.
#[must_use]
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

impl Status {
    /// Replaces the file (mode 0640).
    ///
    /// # Errors
    /// What the system said; the old file is still whole.
    pub fn write(&self, state_dir: &Path) -> std::io::Result<()> {
        let temporary = state_dir.join("status.json.new");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        drop(file);
        std::fs::rename(temporary, path(state_dir))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// What the system or the parser said.
    pub fn read(state_dir: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path(state_dir))?)?)
    }

    /// Whether the agent that wrote it certainly ran a moment ago.
    #[must_use]
    pub fn is_fresh(&self, now_ms: WallMs) -> bool {
        let age = now_ms.saturating_sub(self.written_ms);
        (-60_000..i64::from(EVERY_S) * 3_000 + 5_000).contains(&age)
    }
}
