//! The one task that owns the facts: it hears the news, judges, and publishes what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::AgentId;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::hear::{committed, live, recall};
use super::judge::{self, Facts};
use super::measure::measure;
use super::{COALESCE, Door, Snapshot, Stills, TICK};
use crate::gate::Presence;
use crate::ingest::Notice;
use crate::store::fleet::Declared;
use crate::store::{Store, StoreError};

/// The one owner of the facts.
#[derive(Debug)]
pub(super) struct Desk {
    store: Store,
    clock: SharedClock,
    pub(super) started_ms: WallMs,
    declared: Option<Arc<Declared>>,
    pub(super) facts: BTreeMap<AgentId, Facts>,
    /// Agents whose past has been read from the database.
    recalled: BTreeSet<AgentId>,
    news: BTreeMap<AgentId, u64>,
    pub(super) heard_ms: Option<WallMs>,
    version: u64,
    waiting_stills: Stills,
}

impl Desk {
    pub(super) fn new(store: Store, clock: SharedClock) -> Self {
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
    pub(super) async fn reload(&mut self) -> Result<(), StoreError> {
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

    pub(super) fn snapshot(&mut self) -> Snapshot {
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

    pub(super) async fn follow(
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
    pub(super) fn count_heads(&mut self, door: &Door) {
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
