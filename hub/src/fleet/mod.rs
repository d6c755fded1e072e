//! The fleet's live state: what was committed, what agents say of now and who is connected, turned
//! into the six states of the glossary.
//!
//! One task owns the facts; everybody else holds a [`Fleet`] and reads the newest [`Snapshot`]. A
//! change is published at once, coalesced over [`COALESCE`], so a page has it within two seconds.
//! Observations that are older than what is known (a backlog that drains) never overwrite it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use scc_common::clock::{Dated, SharedClock, WallMs};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::State;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Presence};
use crate::ingest::Notice;
use crate::store::fleet::Declared;
use crate::store::{Store, StoreError};

mod desk;
pub mod diff;
mod hear;
pub mod judge;
mod measure;

use desk::Desk;
use judge::SiteNow;
use measure::measure;

/// News that arrives within this time is published together.
pub const COALESCE: Duration = Duration::from_millis(100);

/// Ages, grace periods and a newly applied register are looked at this often.
pub const TICK: Duration = Duration::from_secs(1);

/// Beside a running hub, who has sent nothing for this long (three health records) counts as gone.
pub const SILENT_MS: i64 = 90_000;

/// The whole fleet at one moment. Immutable; a page is rendered from one of these.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The register that it was judged by; none before the first `fleet apply`.
    pub declared: Option<Arc<Declared>>,
    /// Declared sites, in the order of the register.
    pub sites: Vec<Arc<SiteNow>>,
    /// When it was judged.
    pub at_ms: WallMs,
    /// When anything last arrived from anybody.
    pub heard_ms: Option<WallMs>,
    /// Counts up with every published snapshot.
    pub version: u64,
}

impl Snapshot {
    /// The site with this id.
    #[must_use]
    pub fn site(&self, id: &str) -> Option<&Arc<SiteNow>> {
        self.sites.iter().find(|s| s.id.as_str() == id)
    }
}

/// A camera's newest picture as *now* brought it, ahead of the backlog.
#[derive(Debug, Clone)]
pub struct Still {
    /// When it was captured, by the best that is known, and not after its arrival.
    pub captured_ms: WallMs,
    /// That time as told, corrected, and what it is worth.
    pub dated: Dated,
    /// Seconds between two stills.
    pub cadence_s: u32,
    /// JPEG.
    pub jpeg: Bytes,
}

type Stills = HashMap<(AgentId, DeviceId), Still>;

/// A handle on the live state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    stills: Arc<ArcSwap<Stills>>,
}

impl Fleet {
    /// Reads what the database remembers and begins to follow the news until `stop`.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn start(
        store: Store,
        door: Door,
        notices: broadcast::Receiver<Arc<Notice>>,
        clock: SharedClock,
        stop: CancellationToken,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        let mut desk = Desk::new(store, clock);
        desk.reload().await?;
        desk.count_heads(&door);
        let first = Arc::new(desk.snapshot());
        measure(&first);
        let (publish, snapshot) = watch::channel(first);
        let stills = Arc::new(ArcSwap::from_pointee(Stills::new()));
        let fleet = Self {
            snapshot,
            stills: Arc::clone(&stills),
        };
        let task = tokio::spawn(desk.follow(door, notices, publish, stills, stop));
        Ok((fleet, task))
    }

    /// The fleet as the database alone shows it, for commands beside a running hub: an agent counts
    /// as connected when something of it arrived within [`SILENT_MS`]. If nothing arrived from any,
    /// the hub takes nothing in, and every site that ever told anything is unknown. Since when is not
    /// in the database; as its devices' states are told from then on, these stand for it.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn from_store(store: &Store, clock: &SharedClock) -> Result<Snapshot, StoreError> {
        let mut desk = Desk::new(store.clone(), Arc::clone(clock));
        desk.reload().await?;
        let now_ms = clock.wall_ms();
        let recent = |heard: &WallMs| now_ms - heard <= SILENT_MS;
        if desk.heard_ms.as_ref().is_some_and(recent) {
            desk.started_ms -= judge::SETTLE_MS + 1;
        } else {
            // Nobody took anything in, so nobody can be called down.
            let mut snapshot = desk.snapshot();
            for site in &mut snapshot.sites {
                if site.state == State::Unknown {
                    Arc::make_mut(site).cause = None;
                }
            }
            return Ok(snapshot);
        }
        for facts in desk.facts.values_mut() {
            if let Some(heard) = facts.heard_ms.filter(recent) {
                let since = facts.devices.values().map(|(told, _)| told.since_ms).min();
                facts.link = Some((true, since.unwrap_or(heard)));
            }
        }
        Ok(desk.snapshot())
    }

    /// The newest snapshot.
    #[must_use]
    pub fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Tells of each new snapshot; a slow reader skips to the newest.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// A camera's newest picture as *now* brought it, if it did.
    #[must_use]
    pub fn still(&self, site: &AgentId, device: &DeviceId) -> Option<Still> {
        self.stills
            .load()
            .get(&(site.clone(), device.clone()))
            .cloned()
    }
}

/// Who comes and goes, and who is there now: the gate's side of the live state.
pub struct Door {
    /// Comings and goings from now on.
    pub changes: broadcast::Receiver<Presence>,
    /// Who is connected at this moment.
    pub connected: Box<dyn Fn() -> Vec<Presence> + Send>,
}

impl Door {
    /// The door of this gate.
    #[must_use]
    pub fn of(gate: &Gate) -> Self {
        // subscribed before anybody asks who is there, so that nobody slips through between the two
        let changes = gate.presence();
        let gate = gate.clone();
        Self {
            changes,
            connected: Box::new(move || gate.connected()),
        }
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
