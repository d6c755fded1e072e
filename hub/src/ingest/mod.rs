//! Ingest: reads envelopes, and is the one writer of the ledger and of media.
//!
//! ```text
//! arrivals ─► run ─┬─ small records, gaps, hello ─────────────────────► committer ─► acks, answers,
//!                  └─ parts, pictures ─► intake (by agent) ─► media ───►    │         notices
//!                                          └► spool                    one transaction
//! ```
//!
//! Promises:
//! - nothing is acknowledged before the database has committed it, and media is durable before its
//!   row is written;
//! - a payload's [`Charge`] is held until its bytes are spooled, or committed and, like *now*, read by
//!   all who listen, so the gate's pool bounds what is in here;
//! - while the database fails, nothing more is taken in and nothing is acknowledged; the same batch
//!   is tried again until it succeeds;
//! - a full media disk pauses pictures and video only;
//! - what the database takes in no form is not acknowledged and is in the [`Status`] until it is stored.
//!
//! Whatever has a valid envelope and checksum is stored; *unreadable* is a state of its row.

mod answer;
mod aside;
mod boot;
mod committer;
mod context;
pub mod import;
mod intake;
mod notice;
mod owed;
mod prepare;
mod reread;
mod spool;
mod stuck;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::{BootOffset, SharedClock, WallMs};
use scc_common::id::{AgentId, BootId, Seq};
use scc_common::wire::{Gap, MAX_INLINE, Now, Records, Up, UpMessage, WireRecord};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::brief;
use crate::gate::{Arrived, Charge, Gate};
use crate::media::{Media, MediaError};
use crate::store::{LaneKey, MAX_SEQ, RecordKey, Store, StoreError, Write};

pub use aside::Aside;
use committer::Entry;
use context::{Context, lock};
use intake::{Task, Workers};
pub use notice::{CommittedRecord, Notice};
use prepare::prepare;

/// Bytes that an agent may have in flight while all is well.
pub const PERMISSION: u32 = 512 * 1024;

/// Where messages down to agents go. The gate in the hub; what records them in a test.
pub trait Downlink: Send + Sync + 'static {
    /// Sends a payload to an agent, or drops it silently: everything down is repeatable.
    fn send(&self, agent: &AgentId, payload: Bytes);
}

impl Downlink for Gate {
    fn send(&self, agent: &AgentId, payload: Bytes) {
        Self::send(self, agent, payload);
    }
}

/// How ingest is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Why the database takes nothing at the moment; none while it does.
    pub database: Option<Trouble>,
    /// Why pictures and video are paused; none while they are not.
    pub media: Option<Trouble>,
    /// Why the database is slow although it takes everything; none while it is not.
    pub slow: Option<Trouble>,
    /// What the database takes in no form and why, while it waits at its agent; none while there is
    /// nothing of the kind. Everything else goes on.
    pub record: Option<Trouble>,
    /// Media files that no record refers to, until they are removed; none while there are none. Nothing
    /// waits for them.
    pub aside: Option<Aside>,
}

/// Something that holds ingest up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What the disk or the database said, for the log and for operators.
    pub why: String,
    /// Since when.
    pub since_ms: WallMs,
    /// What can be done about it.
    pub kind: TroubleKind,
}

/// Kinds of trouble, by what a person can do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TroubleKind {
    /// Another process holds the database.
    Locked,
    /// No room.
    Full,
    /// The disk fails, or cannot be written.
    Failing,
    /// What is on the disk is damaged.
    Damaged,
    /// None of these.
    #[default]
    Other,
}

impl TroubleKind {
    /// Each of them, for a test that every one has its words.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 5] = [
        Self::Locked,
        Self::Full,
        Self::Failing,
        Self::Damaged,
        Self::Other,
    ];

    /// The end of its keys in the language files, if it has words of its own.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Locked => Some("locked"),
            Self::Full => Some("full"),
            Self::Failing => Some("failing"),
            Self::Damaged => Some("damaged"),
            Self::Other => None,
        }
    }
}

impl From<&MediaError> for TroubleKind {
    fn from(error: &MediaError) -> Self {
        match error {
            MediaError::Full(_) => Self::Full,
            MediaError::Io(_) | MediaError::Root { .. } => Self::Failing,
            MediaError::Missing(_) => Self::Other,
        }
    }
}

impl From<&StoreError> for TroubleKind {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Busy(_) => Self::Locked,
            StoreError::Full(_) => Self::Full,
            StoreError::Io(_) => Self::Failing,
            StoreError::Damaged(_) => Self::Damaged,
            _ => Self::Other,
        }
    }
}

/// Numbers that a machine's size decides.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Pictures and video are paused while the media disk has less room than this, bytes.
    pub media_reserve: u64,
    /// How often the media disk is looked at.
    pub media_probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            media_reserve: 256 * 1024 * 1024,
            media_probe: Duration::from_secs(5),
        }
    }
}

/// Why ingest has ended although nobody told it to. The hub then ends too and is started again;
/// the agents send once more what was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The folder of unfinished records cannot be used.
    #[error("{}: the spool cannot be used: {why}", folder.display())]
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// The database's writer has ended.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One of ingest's own tasks has ended unexpectedly.
    #[error("a task of ingest has ended: {0}")]
    Task(String),
}

/// What ingest needs to run.
pub struct Ingest {
    /// What the gate lets in.
    pub arrivals: mpsc::Receiver<Arrived>,
    /// Where answers and acknowledgements go.
    pub down: Arc<dyn Downlink>,
    /// The ledger.
    pub store: Store,
    /// Pictures and video.
    pub media: Media,
    /// Folder of unfinished records.
    pub spool: PathBuf,
    /// The time.
    pub clock: SharedClock,
    /// Where committed records and `now` are told.
    pub notices: broadcast::Sender<Arc<Notice>>,
    /// Where trouble is told.
    pub status: watch::Sender<Status>,
    /// Ends it in order: what has been taken in is committed and acknowledged first.
    pub stop: CancellationToken,
    /// Sizes.
    pub limits: Limits,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("spool", &self.spool)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    /// Takes in what arrives until told to stop, or until the gate is gone.
    ///
    /// # Errors
    /// [`IngestError`] if it cannot go on.
    pub async fn run(self) -> Result<(), IngestError> {
        let mut arrivals = self.arrivals;
        let stop = self.stop;
        let spool = context::open_spool(self.spool, self.clock.wall_ms()).await?;
        let context = Arc::new(Context::new(
            self.down,
            self.store,
            self.media,
            spool,
            self.clock,
            self.notices,
            self.status,
        ));
        context.probe_media(&self.limits).await;

        let mut tasks: JoinSet<Result<(), IngestError>> = JoinSet::new();
        let (entries, queue) = mpsc::channel(committer::QUEUE);
        tasks.spawn(committer::run(Arc::clone(&context), queue, stop.clone()));
        let upkeep = CancellationToken::new();
        tasks.spawn(context::upkeep(
            Arc::clone(&context),
            self.limits,
            entries.clone(),
            upkeep.clone(),
        ));
        let workers = Workers::start(&mut tasks, &context, &entries);
        for (key, size) in context.spool.whole() {
            workers.give(Task::Spooled { key, size });
        }
        let router = Router {
            context: Arc::clone(&context),
            entries,
            workers,
            measures: Mutex::default(),
        };
        let ended = loop {
            tokio::select! {
                () = stop.cancelled() => break None,
                // A task ends before it is told to only when it has failed.
                Some(ended) = tasks.join_next() => break Some(ended),
                arrived = arrivals.recv() => match arrived {
                    Some(arrived) => router.take(arrived).await,
                    None => break None,
                },
            }
        };
        // In the order of the way: no more goes in, the workers finish, the committer finishes.
        context.stopping();
        upkeep.cancel();
        drop(router);
        let mut result = ended.map_or(Ok(()), outcome);
        while let Some(ended) = tasks.join_next().await {
            result = result.and(outcome(ended));
        }
        result
    }
}

fn outcome(
    ended: Result<Result<(), IngestError>, tokio::task::JoinError>,
) -> Result<(), IngestError> {
    ended.map_err(|e| IngestError::Task(e.to_string()))?
}

/// Decides where each message goes.
struct Router {
    context: Arc<Context>,
    entries: mpsc::Sender<Entry>,
    workers: Workers,
    /// The measurement that each agent told last: it repeats it with every *now*.
    measures: Mutex<HashMap<AgentId, (BootId, BootOffset)>>,
}

impl Router {
    /// Waits while the committer's queue is full: that is the back-pressure.
    async fn take(&self, arrived: Arrived) {
        let Arrived {
            agent,
            payload,
            charge,
        } = arrived;
        let up = match Up::decode(&payload) {
            Ok(up) => up,
            Err(error) => return refused(&agent, &error.to_string()),
        };
        if up.agent != agent {
            return refused(
                &agent,
                &format!("the envelope says it is of `{}`", up.agent),
            );
        }
        self.context.met(&agent);
        let charge = Arc::new(charge);
        let received_ms = self.context.clock.wall_ms();
        match up.msg {
            UpMessage::Hello(hello) => {
                let hello = Arc::new(hello);
                let write = Write::Hello {
                    agent,
                    hello: Arc::clone(&hello),
                    received_ms,
                };
                self.commit(Entry::new(write, charge).answering(hello))
                    .await;
            }
            UpMessage::Records(records) => self.records(agent, records, charge).await,
            UpMessage::Part(mut part) => {
                let gaps = std::mem::take(&mut part.gaps);
                self.gaps(&agent, gaps, &charge).await;
                self.workers.give(Task::Part {
                    agent,
                    part,
                    charge,
                });
            }
            UpMessage::Now(mut now) => {
                self.measure(&agent, &now, received_ms);
                now.devices.iter_mut().for_each(brief::shorten_detail);
                self.context.notify(Notice::Now {
                    agent,
                    now: Box::new(now),
                    charge,
                });
            }
        }
    }

    async fn records(&self, agent: AgentId, records: Records, charge: Arc<Charge>) {
        self.gaps(&agent, records.gaps, &charge).await;
        let lane = LaneKey {
            agent,
            epoch: records.epoch,
            stream: records.stream,
        };
        let received_ms = self.context.clock.wall_ms();
        for WireRecord { seq, sum, body } in records.records {
            let body = Bytes::from(body.into_vec());
            let key = RecordKey {
                lane: lane.clone(),
                seq,
            };
            if let Err(why) = valid(seq, sum, &body) {
                refused(&lane.agent, why);
                continue;
            }
            let charge = Arc::clone(&charge);
            if lane.stream.is_media() || body.len() > MAX_INLINE {
                self.workers.give(Task::Record {
                    key,
                    sum,
                    body,
                    charge,
                });
            } else {
                let ready = prepare(key, sum, body, received_ms);
                self.commit(Entry::new(Write::Record(Box::new(ready.new)), charge))
                    .await;
            }
        }
    }

    async fn gaps(&self, agent: &AgentId, gaps: Vec<Gap>, charge: &Arc<Charge>) {
        if !gaps.is_empty() {
            let write = Write::Gaps {
                agent: agent.clone(),
                gaps,
                received_ms: self.context.clock.wall_ms(),
            };
            self.commit(Entry::new(write, Arc::clone(charge))).await;
        }
    }

    /// Has a new measurement noted. A *now* waits for no database and holds nothing while one is held up:
    /// what finds no place is told again with the next.
    fn measure(&self, agent: &AgentId, now: &Now, received_ms: WallMs) {
        let told = now.offset.map(|offset| (now.stamp.boot, offset));
        let mut measures = lock(&self.measures);
        if told.is_none() || measures.get(agent).copied() == told {
            return;
        }
        let noted = boot::measured(agent, now, received_ms).is_none_or(|write| {
            self.entries
                .try_send(Entry::new(write, Arc::default()))
                .is_ok()
        });
        if noted && let Some(told) = told {
            measures.insert(agent.clone(), told);
        }
    }

    async fn commit(&self, entry: Entry) {
        // The committer has ended: the loop above sees why; what is lost here was not acknowledged.
        let _ = self.entries.send(entry).await;
    }
}

/// Why a record in a valid envelope cannot be taken in.
fn valid(seq: Seq, sum: Checksum, body: &[u8]) -> Result<(), &'static str> {
    if seq == 0 || seq > MAX_SEQ {
        Err("a record's number is out of range")
    } else if Checksum::of(body) != sum {
        Err("a record does not match its checksum")
    } else {
        Ok(())
    }
}

fn refused(agent: &AgentId, why: &str) {
    metrics::counter!("scc_ingest_refused_total").increment(1);
    tracing::warn!(%agent, why, "payload refused");
}
