//! The fleet's live state: what was committed, what agents say of now and who is connected, turned
//! into the six states of the glossary.
//!
//! One task owns the facts; everybody else holds a [`Fleet`] and reads the newest [`Snapshot`]. A
//! change is published at once, coalesced over [`COALESCE`], so a page has it within two seconds.
//! Observations that are older than what is known (a backlog that drains) never overwrite it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{Content, DeviceState, Event, Health, RecordBody, State};
use scc_common::wire;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::gate::{Gate, Presence};
use crate::ingest::{CommittedRecord, Notice};
use crate::store::fleet::Declared;
use crate::store::views::Remembered;
use crate::store::{Store, StoreError};

pub mod diff;
pub mod judge;

use judge::{Backlog, Facts, SiteNow};

/// News that arrives within this time is published together.
pub const COALESCE: Duration = Duration::from_millis(200);

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
    /// When it was captured.
    pub captured_ms: WallMs,
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

/// The one owner of the facts.
#[derive(Debug)]
struct Desk {
    store: Store,
    clock: SharedClock,
    started_ms: WallMs,
    declared: Option<Arc<Declared>>,
    facts: BTreeMap<AgentId, Facts>,
    /// Agents whose past has been read from the database.
    recalled: BTreeSet<AgentId>,
    news: BTreeMap<AgentId, u64>,
    heard_ms: Option<WallMs>,
    version: u64,
    waiting_stills: Stills,
}

impl Desk {
    fn new(store: Store, clock: SharedClock) -> Self {
        Self {
            started_ms: clock.wall_ms(),
            store,
            clock,
            declared: None,
            facts: BTreeMap::new(),
            recalled: BTreeSet::new(),
            news: BTreeMap::new(),
            heard_ms: None,
            version: 0,
            waiting_stills: Stills::new(),
        }
    }

    /// Reads the register, and what is remembered of sites that are new in it.
    async fn reload(&mut self) -> Result<(), StoreError> {
        let Some(declared) = self.store.declared().await? else {
            return Ok(());
        };
        let unknown = declared.register.sites.iter().map(|s| s.id.clone());
        let unknown: Vec<_> = unknown.filter(|id| !self.recalled.contains(id)).collect();
        for (agent, remembered) in self.store.remembered(unknown).await? {
            self.heard_ms = self.heard_ms.max(remembered.heard_ms);
            self.recalled.insert(agent.clone());
            recall(self.facts.entry(agent).or_default(), remembered);
        }
        for site in &declared.register.sites {
            let facts = self.facts.entry(site.id.clone()).or_default();
            facts.declared = site.devices.iter().map(|d| d.id.clone()).collect();
        }
        self.declared = Some(Arc::new(declared));
        Ok(())
    }

    fn snapshot(&mut self) -> Snapshot {
        let now_ms = self.clock.wall_ms();
        self.version += 1;
        let nothing = Facts::default();
        let sites = self.declared.as_deref().map_or_else(Vec::new, |declared| {
            let judged = declared
                .register
                .sites
                .iter()
                .enumerate()
                .filter_map(|(i, site)| {
                    let facts = self.facts.get(&site.id).unwrap_or(&nothing);
                    let news = self.news.get(&site.id).copied().unwrap_or(0);
                    judge::site(declared, i, facts, self.started_ms, now_ms, news).map(Arc::new)
                });
            judged.collect()
        });
        Snapshot {
            declared: self.declared.clone(),
            sites,
            at_ms: now_ms,
            heard_ms: self.heard_ms,
            version: self.version,
        }
    }

    async fn follow(
        mut self,
        mut door: Door,
        mut notices: broadcast::Receiver<Arc<Notice>>,
        publish: watch::Sender<Arc<Snapshot>>,
        stills: Arc<ArcSwap<Stills>>,
        stop: CancellationToken,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due: Option<tokio::time::Instant> = None;
        loop {
            let publish_at = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let news = tokio::select! {
                () = stop.cancelled() => return,
                () = publish_at => {
                    due = None;
                    self.publish(&publish, &stills);
                    continue;
                }
                _ = tick.tick() => self.tick(&publish).await,
                heard = notices.recv() => match heard {
                    Ok(notice) => { self.hear(&notice); true }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        // nothing is lost for good: health and *now* repeat every state
                        tracing::warn!(missed, "the live state fell behind the news");
                        self.forget_and_reload().await;
                        true
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                came = door.changes.recv() => match came {
                    Ok(change) => { self.came_or_went(&change); true }
                    Err(broadcast::error::RecvError::Lagged(_)) => { self.count_heads(&door); true }
                    // the gate has ended: the hub is about to
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            };
            if news && due.is_none() {
                due = Some(tokio::time::Instant::now() + COALESCE);
            }
        }
    }

    fn publish(&mut self, publish: &watch::Sender<Arc<Snapshot>>, stills: &ArcSwap<Stills>) {
        if !self.waiting_stills.is_empty() {
            let mut all = Stills::clone(&stills.load());
            all.extend(self.waiting_stills.drain());
            stills.store(Arc::new(all));
        }
        let snapshot = Arc::new(self.snapshot());
        measure(&snapshot);
        let before = publish.borrow().clone();
        for (was, is) in before.sites.iter().zip(&snapshot.sites) {
            if was.id == is.id && was.state != is.state {
                tracing::info!(
                    site = %is.id, from = was.state.name(), to = is.state.name(),
                    cause = is.cause.map(judge::SiteCause::name), "a site changed its state"
                );
            }
        }
        publish.send_replace(snapshot);
    }

    /// Whether time alone changed something that is worth publishing.
    async fn tick(&mut self, publish: &watch::Sender<Arc<Snapshot>>) -> bool {
        match self.store.applied_ms().await {
            Ok(applied) if applied != self.declared.as_ref().map(|d| d.applied_ms) => {
                if let Err(error) = self.reload().await {
                    tracing::warn!(%error, "the register could not be read again");
                }
                return true;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the register could not be looked at"),
        }
        let before = publish.borrow().clone();
        let now = self.snapshot();
        before.sites.len() != now.sites.len()
            || before
                .sites
                .iter()
                .zip(&now.sites)
                .any(|(a, b)| a.state != b.state)
    }

    async fn forget_and_reload(&mut self) {
        self.recalled.clear();
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "the live state could not be read again");
        }
    }

    /// Takes stock of who is connected, after comings and goings may have been missed.
    fn count_heads(&mut self, door: &Door) {
        let here = (door.connected)();
        let now_ms = self.clock.wall_ms();
        for (agent, facts) in &mut self.facts {
            let is_here = here.iter().any(|p| &p.agent == agent);
            if !is_here && matches!(facts.link, Some((true, _))) {
                facts.link = Some((false, now_ms));
            }
        }
        for presence in here {
            self.came_or_went(&presence);
        }
    }

    fn came_or_went(&mut self, presence: &Presence) {
        *self.news.entry(presence.agent.clone()).or_insert(0) += 1;
        let facts = self.facts.entry(presence.agent.clone()).or_default();
        facts.link = Some((presence.connected, presence.at_ms));
        if presence.connected {
            facts.heard_ms = facts.heard_ms.max(Some(presence.at_ms));
        }
    }

    fn hear(&mut self, notice: &Notice) {
        let now_ms = self.clock.wall_ms();
        self.heard_ms = Some(now_ms);
        let (Notice::Committed { agent, .. } | Notice::Now { agent, .. }) = notice;
        *self.news.entry(agent.clone()).or_insert(0) += 1;
        let facts = self.facts.entry(agent.clone()).or_default();
        facts.heard_ms = Some(now_ms);
        match notice {
            Notice::Committed { records, .. } => {
                for record in records {
                    committed(facts, record);
                }
            }
            Notice::Now { now, .. } => {
                let stills = live(facts, now, now_ms);
                self.waiting_stills.extend(
                    stills
                        .into_iter()
                        .map(|(device, still)| ((agent.clone(), device), still)),
                );
            }
        }
    }
}

fn recall(facts: &mut Facts, remembered: Remembered) {
    facts.heard_ms = facts.heard_ms.max(remembered.heard_ms);
    facts.proven.extend(remembered.proven);
    for (state, at) in remembered.devices {
        observe(facts, state, at);
    }
    if let Some((mut health, at)) = remembered.health {
        let heard_ms = facts.heard_ms.unwrap_or(at);
        health.devices.iter_mut().for_each(|d| arrived(d, heard_ms));
        take_health(facts, health, at);
    }
}

fn committed(facts: &mut Facts, record: &CommittedRecord) {
    let Some(RecordBody {
        stamp,
        device,
        content,
        ..
    }) = &record.body
    else {
        return;
    };
    // As in the ledger: a clock that runs ahead does not make its record the newest for a day.
    let at_ms = stamp.wall_ms.min(record.received_ms);
    match content {
        Content::Event(Event::DeviceState(state)) => {
            let mut state = state.clone();
            arrived(&mut state, record.received_ms);
            observe(facts, state, at_ms);
        }
        Content::Health(health) => {
            let mut health = (**health).clone();
            for state in &mut health.devices {
                arrived(state, record.received_ms);
            }
            take_health(facts, health, at_ms);
        }
        Content::Snapshot(_) | Content::Segment(_) | Content::Punches(_) => {
            proven(facts, device.as_ref());
        }
        Content::Event(_) => {}
    }
}

/// Nothing that has arrived is of later.
fn arrived(state: &mut DeviceState, received_ms: WallMs) {
    state.since_ms = state.since_ms.min(received_ms);
    state.last_good_ms = state.last_good_ms.map(|ms| ms.min(received_ms));
}

fn take_health(facts: &mut Facts, health: Health, at_ms: WallMs) {
    if facts
        .health
        .as_ref()
        .is_some_and(|(_, known)| *known > at_ms)
    {
        return;
    }
    for state in &health.devices {
        observe(facts, state.clone(), at_ms);
    }
    let backlog = Backlog {
        records: health.lanes.iter().map(|l| l.records).sum(),
        bytes: health.lanes.iter().map(|l| l.bytes).sum(),
        oldest_ms: health.lanes.iter().filter_map(|l| l.oldest_ms).min(),
        at_ms,
    };
    take_backlog(facts, backlog);
    facts.mode = Some(health.link);
    facts.health = Some((health, at_ms));
}

fn take_backlog(facts: &mut Facts, backlog: Backlog) {
    if facts
        .backlog
        .is_none_or(|known| known.at_ms <= backlog.at_ms)
    {
        facts.backlog = Some(backlog);
    }
}

/// What an agent says of now is newest by definition, even if its clock was set back meanwhile.
fn live(facts: &mut Facts, now: &wire::Now, now_ms: WallMs) -> Vec<(DeviceId, Still)> {
    for state in &now.devices {
        let mut state = state.clone();
        arrived(&mut state, now_ms);
        if facts.has_room(&state.device) {
            facts.devices.remove(&state.device);
            observe(facts, state, now.stamp.wall_ms.min(now_ms));
        }
    }
    facts.mode = Some(now.link);
    facts.backlog = Some(Backlog {
        records: now.backlog,
        bytes: now.backlog_bytes,
        oldest_ms: now.oldest_ms,
        at_ms: now_ms,
    });
    let mut stills = Vec::new();
    for s in &now.stills {
        proven(facts, Some(&s.device));
        // The ledger keeps what nobody declared; memory does not.
        if facts.declared.contains(&s.device) {
            let still = Still {
                captured_ms: s.stamp.wall_ms.min(now_ms),
                cadence_s: s.picture.cadence_s,
                jpeg: Bytes::copy_from_slice(&s.picture.jpeg),
            };
            stills.push((s.device.clone(), still));
        }
    }
    stills
}

fn proven(facts: &mut Facts, device: Option<&DeviceId>) {
    if let Some(device) = device.filter(|device| facts.has_room(device)) {
        facts.proven.insert(device.clone());
    }
}

fn observe(facts: &mut Facts, state: DeviceState, at_ms: WallMs) {
    if !facts.has_room(&state.device) {
        return;
    }
    if state.state == State::Up || state.last_good_ms.is_some() {
        facts.proven.insert(state.device.clone());
    }
    match facts.devices.get(&state.device) {
        Some((_, known)) if *known > at_ms => {}
        _ => {
            facts.devices.insert(state.device.clone(), (state, at_ms));
        }
    }
}

/// Gauges for Prometheus.
fn measure(snapshot: &Snapshot) {
    use scc_common::record::DeviceKind;
    let mut sites: BTreeMap<&str, u32> = BTreeMap::new();
    let mut devices: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let all = [
        State::Up,
        State::Degraded,
        State::Down,
        State::Unknown,
        State::Maintenance,
        State::Never,
    ];
    for state in all {
        sites.insert(state.name(), 0);
        for kind in [DeviceKind::Camera, DeviceKind::Terminal] {
            devices.insert((kind.name(), state.name()), 0);
        }
    }
    let mut backlog = 0.0;
    for site in &snapshot.sites {
        *sites.entry(site.state.name()).or_default() += 1;
        for device in &site.devices {
            *devices
                .entry((device.kind.name(), device.state.name()))
                .or_default() += 1;
        }
        backlog += site.backlog.map_or(0.0, |b| {
            f64::from(u32::try_from(b.records).unwrap_or(u32::MAX))
        });
    }
    for (state, n) in sites {
        metrics::gauge!("scc_hub_sites", "state" => state).set(f64::from(n));
    }
    for ((kind, state), n) in devices {
        metrics::gauge!("scc_hub_devices", "kind" => kind, "state" => state).set(f64::from(n));
    }
    metrics::gauge!("scc_hub_backlog_records").set(backlog);
}

#[cfg(test)]
mod tests;
