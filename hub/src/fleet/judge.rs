//! From facts to states: a pure function of what is declared, what is known and the time.
//!
//! Invariants:
//! - a device of a site whose link is down is `unknown`, never `down`: nobody could look;
//! - what is declared and has never delivered is `never`, whatever else is the matter with its site;
//! - while the hub itself has only just begun to look ([`SETTLE_MS`]), nobody is called down.

use std::collections::{BTreeMap, BTreeSet};

use scc_common::clock::WallMs;
use scc_common::id::{AgencyId, AgentId, DeviceId};
use scc_common::record::{Cause, DeviceKind, DeviceState, Health, LinkMode, State};
use scc_common::register::SiteKind;

use crate::store::fleet::Declared;

/// A link may be away for this long (a reconnect) before its site is called down.
pub const GRACE_MS: i64 = 10_000;

/// After its own start the hub waits this long for agents to come back before it calls any down.
pub const SETTLE_MS: i64 = 30_000;

/// Undeclared devices of one agent that are remembered.
pub const UNDECLARED: usize = 64;

/// Everything known of one site.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The devices that the register has at this site.
    pub declared: BTreeSet<DeviceId>,
    /// Whether its agent is connected, and since when it is or is not.
    pub link: Option<(bool, WallMs)>,
    /// When anything last arrived from it.
    pub heard_ms: Option<WallMs>,
    /// Newest known state of each device, with the time of the observation.
    pub devices: BTreeMap<DeviceId, (DeviceState, WallMs)>,
    /// Devices that have delivered at least once.
    pub proven: BTreeSet<DeviceId>,
    /// The newest health record and when it was captured.
    pub health: Option<(Health, WallMs)>,
    /// What waits at the site.
    pub backlog: Option<Backlog>,
    /// The mode that the agent says its link is in.
    pub mode: Option<LinkMode>,
}

impl Facts {
    /// Whether news of this device is kept: of what is declared always, of what is not for the first
    /// [`UNDECLARED`] only, because their names are the agent's to invent.
    pub(super) fn has_room(&self, device: &DeviceId) -> bool {
        let known = |id: &DeviceId| self.devices.contains_key(id) || self.proven.contains(id);
        if self.declared.contains(device) || known(device) {
            return true;
        }
        let others: BTreeSet<_> = self.devices.keys().chain(&self.proven).collect();
        let others = others.iter().filter(|id| !self.declared.contains(**id));
        others.count() < UNDECLARED
    }
}

/// What waits at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Capture time of the oldest.
    pub oldest_ms: Option<WallMs>,
    /// When this was so.
    pub at_ms: WallMs,
}

/// Why a site is not `up`: the first broken step of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteCause {
    /// Nothing has ever arrived.
    NeverSent,
    /// No connection.
    Link,
    /// Connected, but acknowledgements are late.
    SlowLink,
    /// The supply is too weak.
    Power,
    /// The box is nearly out of disk.
    Disk,
    /// The box is too hot.
    Heat,
    /// At least one device is not as it should be.
    Device,
    /// The hub has only just begun to look.
    HubStarting,
    /// The agent has not yet told about its devices.
    AgentStarting,
}

impl SiteCause {
    /// Every cause, for pages and tests that must have a word for each.
    pub const ALL: [Self; 9] = [
        Self::NeverSent,
        Self::Link,
        Self::SlowLink,
        Self::Power,
        Self::Disk,
        Self::Heat,
        Self::Device,
        Self::HubStarting,
        Self::AgentStarting,
    ];

    /// The word in the API and in the language files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverSent => "never_sent",
            Self::Link => "link",
            Self::SlowLink => "slow_link",
            Self::Power => "power",
            Self::Disk => "disk",
            Self::Heat => "heat",
            Self::Device => "device",
            Self::HubStarting => "hub_starting",
            Self::AgentStarting => "agent_starting",
        }
    }
}

/// A site as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteNow {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SiteKind,
    /// The agencies that it belongs to.
    pub agencies: Vec<AgencyId>,
    /// Its state.
    pub state: State,
    /// Why it is not `up`.
    pub cause: Option<SiteCause>,
    /// Since when it has been in this state.
    pub since_ms: WallMs,
    /// First declared.
    pub declared_ms: WallMs,
    /// Whether its agent is connected, and since when it is or is not.
    pub link: Option<(bool, WallMs)>,
    /// When anything last arrived from it.
    pub heard_ms: Option<WallMs>,
    /// What waits there, as last told.
    pub backlog: Option<Backlog>,
    /// The newest health record and when it was captured.
    pub health: Option<(Health, WallMs)>,
    /// Its declared devices, in the order of the register.
    pub devices: Vec<DeviceNow>,
    /// Devices that told a state and are not declared.
    pub undeclared: Vec<DeviceId>,
    /// Counts up with every piece of news from this site, whether or not a state changed.
    pub news: u64,
}

impl SiteNow {
    /// Devices of one kind.
    pub fn devices_of(&self, kind: DeviceKind) -> impl Iterator<Item = &DeviceNow> {
        self.devices.iter().filter(move |d| d.kind == kind)
    }
}

/// A device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceNow {
    /// Its id.
    pub id: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Why it is not `up`, as the agent last saw it.
    pub cause: Option<Cause>,
    /// Since when it has been in this state.
    pub since_ms: WallMs,
    /// When it last delivered something good.
    pub last_good_ms: Option<WallMs>,
    /// What the agent saw, one short English sentence.
    pub detail: Option<String>,
}

/// Judges one declared site.
#[must_use]
pub fn site(
    declared: &Declared,
    index: usize,
    facts: &Facts,
    started_ms: WallMs,
    now_ms: WallMs,
    news: u64,
) -> Option<SiteNow> {
    let site = declared.register.sites.get(index)?;
    let declared_ms = declared
        .sites
        .get(&site.id)
        .copied()
        .unwrap_or(declared.applied_ms);
    let (reach, away_since) = reach(facts, started_ms, now_ms);
    let devices: Vec<DeviceNow> = site
        .devices
        .iter()
        .map(|d| {
            let since = declared
                .devices
                .get(&(site.id.clone(), d.id.clone()))
                .copied();
            device(d, since.unwrap_or(declared_ms), facts, reach, away_since)
        })
        .collect();
    let undeclared = facts
        .devices
        .keys()
        .filter(|id| !site.devices.iter().any(|d| &d.id == *id))
        .cloned()
        .collect();
    let (state, cause, since_ms) = match reach {
        Reach::Never => (State::Never, Some(SiteCause::NeverSent), declared_ms),
        Reach::Gone => (State::Down, Some(SiteCause::Link), away_since),
        Reach::Settling => (State::Unknown, Some(SiteCause::HubStarting), away_since),
        Reach::Here => here(facts, &devices),
    };
    Some(SiteNow {
        id: site.id.clone(),
        name: site.name.clone(),
        kind: site.kind,
        agencies: site.agencies.clone(),
        state,
        cause,
        since_ms,
        declared_ms,
        link: facts.link,
        heard_ms: facts.heard_ms,
        backlog: facts.backlog,
        health: facts.health.clone(),
        devices,
        undeclared,
        news,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing has ever come and nobody is connected.
    Never,
    /// Connected, or away for a moment only.
    Here,
    /// Not connected, and the hub has only just begun to look.
    Settling,
    /// Not connected.
    Gone,
}

fn reach(facts: &Facts, started_ms: WallMs, now_ms: WallMs) -> (Reach, WallMs) {
    match facts.link {
        Some((true, since)) => (Reach::Here, since),
        Some((false, since)) if now_ms - since <= GRACE_MS => (Reach::Here, since),
        Some((false, since)) => (Reach::Gone, since),
        // not seen by this process: silent since the last thing that arrived
        None => match facts.heard_ms {
            None => (Reach::Never, now_ms),
            Some(heard) if now_ms - started_ms <= SETTLE_MS => (Reach::Settling, heard),
            Some(heard) => (Reach::Gone, heard),
        },
    }
}

fn device(
    declared: &scc_common::register::Device,
    declared_ms: WallMs,
    facts: &Facts,
    reach: Reach,
    away_since: WallMs,
) -> DeviceNow {
    let told = facts.devices.get(&declared.id).map(|(state, _)| state);
    let proven = facts.proven.contains(&declared.id)
        || told.is_some_and(|d| d.last_good_ms.is_some() || d.state == State::Up);
    let (state, since_ms) = match (reach, told) {
        _ if !proven => (State::Never, declared_ms),
        (Reach::Here, Some(d)) => (d.state, d.since_ms),
        (Reach::Here, None) => (
            State::Unknown,
            facts.link.map_or(declared_ms, |(_, since)| since),
        ),
        _ => (State::Unknown, away_since),
    };
    DeviceNow {
        id: declared.id.clone(),
        kind: declared.kind,
        name: declared.name.clone(),
        state,
        cause: told.and_then(|d| d.cause),
        since_ms,
        last_good_ms: told.and_then(|d| d.last_good_ms),
        detail: told.and_then(|d| d.detail.clone()),
    }
}

fn here(facts: &Facts, devices: &[DeviceNow]) -> (State, Option<SiteCause>, WallMs) {
    let connected_ms = facts.link.map_or(0, |(_, since)| since);
    if let Some((cause, at)) = box_trouble(facts) {
        return (State::Degraded, Some(cause), at);
    }
    let troubled = devices
        .iter()
        .filter(|d| !matches!(d.state, State::Up | State::Maintenance));
    let oldest = troubled.clone().map(|d| d.since_ms).min();
    match oldest {
        None => {
            // up since the last of its parts came back
            let since = devices
                .iter()
                .map(|d| d.since_ms)
                .chain([connected_ms])
                .max();
            (State::Up, None, since.unwrap_or(connected_ms))
        }
        Some(_) if troubled.clone().all(|d| d.state == State::Unknown) => {
            (State::Unknown, Some(SiteCause::AgentStarting), connected_ms)
        }
        Some(since) => (State::Degraded, Some(SiteCause::Device), since),
    }
}

/// What the box itself says is wrong with it.
fn box_trouble(facts: &Facts) -> Option<(SiteCause, WallMs)> {
    let (health, at) = facts.health.as_ref()?;
    let twentieth = health.disk_total / 20;
    let cause = if health.under_voltage == Some(true) {
        SiteCause::Power
    } else if health.disk_total > 0 && health.disk_free < twentieth {
        SiteCause::Disk
    } else if health.temperature_c.is_some_and(|t| t >= 80.0) {
        SiteCause::Heat
    } else if facts.mode == Some(LinkMode::Slow) {
        SiteCause::SlowLink
    } else {
        return None;
    };
    Some((cause, *at))
}
