//! The mode that the link is in: told to health and `status`, logged once per change.

use scc_common::clock::{SharedClock, WallMs};
use scc_common::record::LinkMode;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::link::Trouble;

/// How the link is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The mode.
    pub mode: LinkMode,
    /// Since when, by this box's wall clock.
    pub since_ms: WallMs,
    /// What is wrong, if anything is.
    pub trouble: Option<Trouble>,
    /// What was seen of it: one short English sentence.
    pub why: Option<String>,
    /// When the hub last committed something of ours.
    pub last_commit_ms: Option<WallMs>,
    /// Bytes per second that the hub acknowledges, once measured.
    pub rate: Option<u64>,
    /// The upload budget that holds now, bytes per second; none if there is no limit.
    #[serde(default)]
    pub budget: Option<u32>,
}

/// Tells changes of the mode.
#[derive(Debug)]
pub(super) struct Reporter {
    clock: SharedClock,
    status: watch::Sender<LinkStatus>,
}

impl Reporter {
    /// Begins with [`LinkMode::Connecting`].
    pub(super) fn new(clock: SharedClock) -> (Self, watch::Receiver<LinkStatus>) {
        let (status, receiver) = watch::channel(LinkStatus {
            mode: LinkMode::Connecting,
            since_ms: clock.wall_ms(),
            trouble: None,
            why: None,
            last_commit_ms: None,
            rate: None,
            budget: None,
        });
        (Self { clock, status }, receiver)
    }

    /// The mode now.
    pub(super) fn mode(&self) -> LinkMode {
        self.status.borrow().mode
    }

    /// The link is in this mode. Logs if that, or the reason, is new.
    pub(super) fn set(&self, mode: LinkMode, trouble: Option<(Trouble, &str)>) {
        let (trouble, why) = trouble.unzip();
        self.status.send_if_modified(|status| {
            let changed = status.mode != mode;
            if !changed && status.why.as_deref() == why {
                return false;
            }
            if changed {
                status.since_ms = self.clock.wall_ms();
            }
            tracing::info!(from = ?status.mode, to = ?mode, why, "link mode changed");
            status.mode = mode;
            status.trouble = trouble;
            status.why = why.map(str::to_owned);
            true
        });
    }

    /// This upload budget holds. Logs if it is another than before.
    pub(super) fn budget(&self, bytes_per_s: Option<u32>) {
        self.status.send_if_modified(|status| {
            if status.budget == bytes_per_s {
                return false;
            }
            tracing::info!(from = ?status.budget, to = ?bytes_per_s, "upload budget changed");
            status.budget = bytes_per_s;
            true
        });
    }

    /// The hub has committed something.
    pub(super) fn committed(&self, rate: Option<u64>) {
        self.status.send_modify(|status| {
            status.last_commit_ms = Some(self.clock.wall_ms());
            status.rate = rate;
        });
    }
}
