//! What the tasks of ingest share: where things go, and how things are.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::{AgentId, RunId, Seq};
use scc_common::stream::Stream;
use scc_common::wire::{Ack, Down, DownMessage, LaneAck, PartAck, WIRE_VERSION};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::boot;
use super::committer::Entry;
use super::owed::Owed;
use super::reread;
use super::spool::Spool;
use super::stuck::Stuck;
use super::sweep;
use super::{
    Aside, Downlink, IngestError, Limits, Notice, PERMISSION, Status, Trouble, TroubleKind,
};
use crate::media::Media;
use crate::store::{LaneKey, RecordKey, Store, Write};

/// The streams that a full media disk pauses.
const MEDIA: [Stream; 2] = [Stream::Snapshot, Stream::Segment];

pub(super) struct Context {
    /// This life of the hub.
    run: RunId,
    down: Arc<dyn Downlink>,
    pub(super) store: Store,
    pub(super) media: Media,
    pub(super) spool: Spool,
    pub(super) clock: SharedClock,
    notices: broadcast::Sender<Arc<Notice>>,
    status: watch::Sender<Status>,
    stopping: AtomicBool,
    /// Agents that have said anything in this life; at most as many as there are certificates.
    met: Mutex<HashSet<AgentId>>,
    /// Lanes whose files have been looked for in this life.
    pub(super) looked_for: Mutex<HashSet<LaneKey>>,
    /// Newest watermarks, for acks of parts.
    watermarks: Mutex<HashMap<LaneKey, Seq>>,
    /// Asked for in answers and not here yet.
    pub(super) owed: Mutex<Owed>,
    /// What cannot be stored in any form.
    stuck: Mutex<Stuck>,
}

pub(super) async fn open_spool(folder: PathBuf, now: WallMs) -> Result<Spool, IngestError> {
    let root = folder.clone();
    tokio::task::spawn_blocking(move || Spool::open(&root, now))
        .await
        .map_err(|e| IngestError::Task(e.to_string()))?
        .map_err(|why| IngestError::Spool { folder, why })
}

impl Context {
    pub(super) fn new(
        down: Arc<dyn Downlink>,
        store: Store,
        media: Media,
        spool: Spool,
        clock: SharedClock,
        notices: broadcast::Sender<Arc<Notice>>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            run: RunId::random(),
            down,
            store,
            media,
            spool,
            clock,
            notices,
            status,
            stopping: AtomicBool::new(false),
            met: Mutex::default(),
            looked_for: Mutex::default(),
            watermarks: Mutex::default(),
            owed: Mutex::default(),
            stuck: Mutex::default(),
        }
    }

    /// An agent has said something.
    pub(super) fn met(&self, agent: &AgentId) {
        let mut met = lock(&self.met);
        if !met.contains(agent) {
            met.insert(agent.clone());
        }
    }

    /// Tells the rest of the hub; nobody has to listen.
    pub(super) fn notify(&self, notice: Notice) {
        let _ = self.notices.send(Arc::new(notice));
    }

    pub(super) fn send(&self, agent: &AgentId, new_epoch: bool, msg: DownMessage) {
        let status = self.status.borrow().clone();
        let closed = self.stopping.load(Ordering::Relaxed) || status.database.is_some();
        let down = Down {
            v: WIRE_VERSION,
            run: self.run,
            permission: if closed { 0 } else { PERMISSION },
            paused: status.media.map_or_else(Vec::new, |_| MEDIA.to_vec()),
            new_epoch,
            msg,
        };
        self.down.send(agent, Bytes::from(down.encode()));
    }

    /// Acknowledges lanes as the database has them.
    pub(super) fn ack(&self, agent: &AgentId, new_epoch: bool, mut lanes: Vec<LaneAck>) {
        for lane in &mut lanes {
            let key = LaneKey {
                agent: agent.clone(),
                epoch: lane.epoch,
                stream: lane.stream,
            };
            lane.parts = self.spool.progress(&key);
            if lane.stream.is_media() {
                lock(&self.watermarks).insert(key.clone(), lane.watermark);
            }
            lock(&self.owed).spare(&key, lane);
        }
        self.send(agent, new_epoch, DownMessage::Ack(Ack { lanes }));
    }

    /// Acknowledges that so many bytes of a large record are spooled.
    pub(super) fn ack_part(&self, key: &RecordKey, received: u32) {
        let watermark = lock(&self.watermarks).get(&key.lane).copied().unwrap_or(0);
        let mut lane = LaneAck {
            epoch: key.lane.epoch,
            stream: key.lane.stream,
            watermark,
            stored: Vec::new(),
            parts: vec![PartAck {
                seq: key.seq,
                received,
            }],
        };
        lock(&self.owed).spare(&key.lane, &mut lane);
        let lanes = vec![lane];
        self.send(&key.lane.agent, false, DownMessage::Ack(Ack { lanes }));
    }

    /// Whether records of this stream are not taken in at the moment.
    pub(super) fn paused(&self, stream: Stream) -> bool {
        stream.is_media() && self.status.borrow().media.is_some()
    }

    /// The database takes nothing, or takes again.
    pub(super) fn database(&self, trouble: Option<(String, TroubleKind)>) {
        self.held_up(|status| &mut status.database, trouble, "database");
    }

    /// Pictures and video are paused, or no longer.
    pub(super) fn media_trouble(&self, trouble: Option<(String, TroubleKind)>) {
        self.held_up(|status| &mut status.media, trouble, "media");
    }

    /// The database takes everything, and takes long for it; or no longer. Nothing waits that would not
    /// wait anyhow, so agents are told nothing.
    pub(super) fn slow(&self, trouble: Option<String>) {
        let trouble = trouble.map(|why| (why, TroubleKind::Other));
        if !self.change(|status| &mut status.slow, trouble.as_ref()) {
            return;
        }
        match &trouble {
            Some((why, _)) => tracing::warn!(why, "the database is slow"),
            None => tracing::info!("the database is no longer slow"),
        }
        metrics::gauge!("scc_ingest_slow").set(f64::from(u8::from(trouble.is_some())));
    }

    /// So much is aside in the media folder.
    pub(super) fn aside(&self, aside: Option<Aside>) {
        metrics::gauge!("scc_media_aside_files")
            .set(aside.as_ref().map_or(0.0, |aside| aside.files as f64));
        self.status.send_if_modified(|status| {
            let changed = status.aside != aside;
            status.aside = aside;
            changed
        });
    }

    /// This write is refused in every form; `why` names it.
    pub(super) fn stuck(&self, write: &Write, why: String) {
        if lock(&self.stuck).add(write) {
            self.record(Some(why));
        }
    }

    /// A transaction is durable that has brought lanes so far and has noted these hellos: what was
    /// stuck among them no longer is.
    pub(super) fn unstick<'a>(
        &self,
        lanes: &[(AgentId, LaneAck)],
        hellos: impl Iterator<Item = &'a AgentId>,
    ) {
        {
            let mut stuck = lock(&self.stuck);
            if stuck.is_empty() {
                return;
            }
            lanes
                .iter()
                .for_each(|(agent, lane)| stuck.acked(agent, lane));
            hellos.for_each(|agent| stuck.greeted(agent));
            if !stuck.is_empty() {
                return;
            }
        }
        self.record(None);
    }

    /// Whoever reads the agents' permission from now on reads 0.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell_all();
    }

    /// All or some streams wait, or no longer: logs it, and tells agents that permission or pauses are
    /// others than before.
    fn held_up(
        &self,
        field: impl Fn(&mut Status) -> &mut Option<Trouble>,
        trouble: Option<(String, TroubleKind)>,
        what: &str,
    ) {
        if !self.change(field, trouble.as_ref()) {
            return;
        }
        match &trouble {
            Some((why, _)) => tracing::error!(what, why, "ingest is held up"),
            None => tracing::info!(what, "ingest goes on"),
        }
        metrics::gauge!("scc_ingest_held_up", "by" => what.to_owned())
            .set(f64::from(u8::from(trouble.is_some())));
        self.tell_all();
    }

    /// Something cannot be stored in any form, or nothing of the kind is left. It holds up nothing else,
    /// so agents are told nothing and no stream counts as held up.
    fn record(&self, trouble: Option<String>) {
        let trouble = trouble.map(|why| (why, TroubleKind::Other));
        if !self.change(|status| &mut status.record, trouble.as_ref()) {
            return;
        }
        match &trouble {
            Some((why, _)) => {
                tracing::error!(why, "something waits at its agent until it can be stored")
            }
            None => tracing::info!("nothing waits any longer for being impossible to store"),
        }
        metrics::gauge!("scc_ingest_stuck").set(f64::from(u8::from(trouble.is_some())));
    }

    /// The one place where the status changes. Says whether the trouble has begun or ended.
    fn change(
        &self,
        field: impl Fn(&mut Status) -> &mut Option<Trouble>,
        trouble: Option<&(String, TroubleKind)>,
    ) -> bool {
        let mut turned = false;
        let now = self.clock.wall_ms();
        self.status.send_if_modified(|status| {
            let field = field(status);
            turned = field.is_some() != trouble.is_some();
            let next = trouble.map(|(why, kind)| Trouble {
                why: why.clone(),
                kind: *kind,
                since_ms: field.as_ref().map_or(now, |known| known.since_ms),
            });
            let changed = *field != next;
            *field = next;
            changed
        });
        turned
    }

    fn tell_all(&self) {
        let met: Vec<AgentId> = lock(&self.met).iter().cloned().collect();
        for agent in met {
            self.ack(&agent, false, Vec::new());
        }
    }

    /// Looks at the media disk, and pauses or resumes.
    pub(super) async fn probe_media(&self, limits: &Limits) {
        let media = self.media.clone();
        let free = tokio::task::spawn_blocking(move || media.free_bytes()).await;
        let trouble = match free.ok().flatten() {
            Some(free) if free < limits.media_reserve => Some((
                format!(
                    "{free} bytes are free; pictures and video wait until there are {}",
                    limits.media_reserve
                ),
                TroubleKind::Full,
            )),
            // A disk that failed, or is full for reasons that statvfs does not tell, must take a
            // file before it is trusted again.
            _ if self.status.borrow().media.is_some() => {
                let failed = self.media.probe().await.err();
                failed.map(|e| (e.to_string(), (&e).into()))
            }
            _ => None,
        };
        self.media_trouble(trouble);
    }
}

/// What goes on beside the way of the records: reads again what was unreadable, dates again what more
/// has become known of, looks at the media disk again and again, sweeps it, and looks now and then at the
/// age of what is spooled.
pub(super) async fn upkeep(
    context: Arc<Context>,
    limits: Limits,
    entries: mpsc::Sender<Entry>,
    stop: CancellationToken,
) -> Result<(), IngestError> {
    let reread = async {
        reread::run(&context, &entries).await;
        // The committer ends when nobody can send to it any longer.
        drop(entries);
    };
    let all = async {
        tokio::join!(
            reread,
            look_around(&context, &limits),
            boot::keep_dated(&context),
            sweep::run(&context)
        )
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        _ = all => Ok(()),
    }
}

async fn look_around(context: &Arc<Context>, limits: &Limits) {
    const SPOOL_EVERY: u32 = 720;
    let mut round = 0;
    loop {
        tokio::time::sleep(limits.media_probe).await;
        context.probe_media(limits).await;
        round = (round + 1) % SPOOL_EVERY;
        if round == 0 {
            let context = Arc::clone(context);
            let now = context.clock.wall_ms();
            let done = tokio::task::spawn_blocking(move || context.spool.remove_expired(now)).await;
            if let Ok(Err(error)) = done {
                tracing::warn!(%error, "old parts cannot be removed from the spool");
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
