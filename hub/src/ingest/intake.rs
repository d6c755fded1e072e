//! Intake of what is large: spools parts, makes pictures and video durable, and only then hands
//! their records to the committer.
//!
//! Each agent belongs to one worker, so its parts stay in order; a slow file holds up some agents'
//! pictures, and nobody's punches. The queues are as long as the gate's pool allows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::id::AgentId;
use scc_common::wire::{MAX_BODY, Part};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::committer::Entry;
use super::context::Context;
use super::prepare::{Prepared, prepare};
use super::spool::Added;
use super::{IngestError, refused};
use crate::crash::{self, Point};
use crate::gate::Charge;
use crate::media::{Media, MediaError};
use crate::store::{LaneKey, MAX_SEQ, RecordKey, Store, Write};

/// Workers: enough to keep a disk's queue busy with fsyncs.
const WORKERS: usize = 4;

/// Memory for large bodies that are being taken apart, MiB.
const LARGE_MIB: usize = 32;

/// Something for a worker to do.
pub(super) enum Task {
    /// A piece of a large record.
    Part {
        agent: AgentId,
        part: Part,
        charge: Arc<Charge>,
    },
    /// A record that came in one piece and may have a file.
    Record {
        key: RecordKey,
        sum: Checksum,
        body: Bytes,
        charge: Arc<Charge>,
    },
    /// A record that was whole in the spool when the hub stopped.
    Spooled { key: RecordKey, size: u32 },
}

impl Task {
    fn agent(&self) -> &AgentId {
        match self {
            Self::Part { agent, .. } => agent,
            Self::Record { key, .. } | Self::Spooled { key, .. } => &key.lane.agent,
        }
    }
}

/// The workers' queues.
pub(super) struct Workers(Vec<mpsc::UnboundedSender<Task>>);

impl Workers {
    pub(super) fn start(
        tasks: &mut JoinSet<Result<(), IngestError>>,
        context: &Arc<Context>,
        entries: &mpsc::Sender<Entry>,
    ) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_MIB));
        let start = |_| {
            let (give, mut queue) = mpsc::unbounded_channel();
            let worker = Worker {
                context: Arc::clone(context),
                entries: entries.clone(),
                large: Arc::clone(&large),
            };
            tasks.spawn(async move {
                while let Some(task) = queue.recv().await {
                    worker.work(task).await;
                }
                Ok(())
            });
            give
        };
        Self((0..WORKERS).map(start).collect())
    }

    pub(super) fn give(&self, task: Task) {
        let mut hasher = DefaultHasher::new();
        task.agent().hash(&mut hasher);
        let index = hasher.finish() % self.0.len() as u64;
        if let Some(worker) = usize::try_from(index).ok().and_then(|i| self.0.get(i)) {
            // A worker that is gone has ended ingest; what is lost here was not acknowledged.
            let _ = worker.send(task);
        }
    }
}

struct Worker {
    context: Arc<Context>,
    entries: mpsc::Sender<Entry>,
    /// One permit per MiB of a large body in memory.
    large: Arc<Semaphore>,
}

impl Worker {
    async fn work(&self, task: Task) {
        match task {
            Task::Part {
                agent,
                part,
                charge,
            } => self.part(agent, part, charge).await,
            Task::Record {
                key,
                sum,
                body,
                charge,
            } => {
                if self.context.paused(key.lane.stream) {
                    return self.context.ack(&key.lane.agent, false, Vec::new());
                }
                let now = self.context.clock.wall_ms();
                self.store(prepare(key, sum, body, now), charge, false)
                    .await;
            }
            Task::Spooled { key, size } => self.spooled(key, size, Arc::default()).await,
        }
    }

    async fn part(&self, agent: AgentId, part: Part, charge: Arc<Charge>) {
        let lane = LaneKey {
            agent,
            epoch: part.epoch,
            stream: part.stream,
        };
        let agent = lane.agent.clone();
        let key = RecordKey {
            lane,
            seq: part.seq,
        };
        let total = usize::try_from(part.total).unwrap_or(usize::MAX);
        if part.seq == 0 || part.seq > MAX_SEQ || total == 0 || total > MAX_BODY {
            return refused(&agent, "a part's number or length is out of range");
        }
        if self.context.paused(part.stream) {
            return self.context.ack(&agent, false, Vec::new());
        }
        let (store, media) = (&self.context.store, &self.context.media);
        if !self.context.spool.knows(&key, part.sum)
            && is_stored(store, media, &key, part.sum).await
        {
            let received_ms = self.context.clock.wall_ms();
            let entry = Entry::new(Write::Seen { key, received_ms }, charge);
            return self.commit(entry).await;
        }
        let total = part.total;
        let context = Arc::clone(&self.context);
        let now = context.clock.wall_ms();
        let added = blocking(move || context.spool.add(&agent, &part, now)).await;
        match added {
            Ok(Added::Progress(received)) => self.context.ack_part(&key, received),
            Ok(Added::Whole) => self.spooled(key, total, charge).await,
            Err(error) => {
                let error = MediaError::from(&error);
                let trouble = (format!("spool: {error}"), (&error).into());
                self.context.media_trouble(Some(trouble));
                self.context.ack(&key.lane.agent, false, Vec::new());
            }
        }
    }

    /// Takes a whole record out of the spool and stores it.
    async fn spooled(&self, key: RecordKey, size: u32, charge: Arc<Charge>) {
        let mib = (size.div_ceil(1 << 20)).max(1);
        let Ok(_memory) = self.large.acquire_many(mib).await else {
            return;
        };
        let context = Arc::clone(&self.context);
        let wanted = key.clone();
        let now = context.clock.wall_ms();
        let read = blocking(move || {
            let (bytes, sum) = context.spool.read(&wanted)?;
            let right = Checksum::of(&bytes) == sum;
            Ok(right.then(|| prepare(wanted, sum, bytes.into(), now)))
        });
        match read.await {
            Ok(Some(ready)) => self.store(ready, charge, true).await,
            Ok(None) => {
                refused(
                    &key.lane.agent,
                    "a large record does not match its checksum",
                );
                self.discard(&key).await;
            }
            Err(error) => {
                tracing::warn!(%error, agent = %key.lane.agent, seq = key.seq, "a spooled record cannot be read");
                self.discard(&key).await;
            }
        }
    }

    /// Makes the file durable, then hands the record on.
    async fn store(&self, ready: Prepared, charge: Arc<Charge>, spooled: bool) {
        let key = ready.new.key.clone();
        let mut file = None;
        if let Some((path, bytes)) = ready.file {
            match self.context.media.put(&path, bytes).await {
                Ok(held) => file = Some(held),
                Err(error) => return self.not_written(&key, &error, spooled).await,
            }
        }
        crash::here(Point::MediaDurable);
        let entry = Entry::new(Write::Record(Box::new(ready.new)), charge).holding(file);
        self.commit(entry.spooled(spooled.then_some(key))).await;
    }

    async fn not_written(&self, key: &RecordKey, error: &MediaError, spooled: bool) {
        self.context
            .media_trouble(Some((error.to_string(), error.into())));
        if let MediaError::Full(_) | MediaError::Io(_) = error {
            metrics::counter!("scc_ingest_media_failed_total").increment(1);
        }
        // The spooled copy takes room that is needed; the agent still has the record.
        if spooled {
            self.discard(key).await;
        } else {
            self.context.ack(&key.lane.agent, false, Vec::new());
        }
    }

    /// Forgets what is spooled of a record, and asks for it from the beginning.
    async fn discard(&self, key: &RecordKey) {
        let context = Arc::clone(&self.context);
        let gone = key.clone();
        if let Err(error) = blocking(move || context.spool.remove(&gone)).await {
            tracing::warn!(%error, agent = %key.lane.agent, "a file cannot be removed from the spool");
        }
        self.context.ack_part(key, 0);
    }

    async fn commit(&self, entry: Entry) {
        // The committer has ended and ingest with it; what is lost here was not acknowledged.
        let _ = self.entries.send(entry).await;
    }
}

/// Whether the record is in the ledger with this very body, and its file is there.
pub(super) async fn is_stored(
    store: &Store,
    media: &Media,
    key: &RecordKey,
    sum: Checksum,
) -> bool {
    match store.stored(key.clone()).await {
        Ok(Some((stored, None))) => stored == sum,
        Ok(Some((stored, Some(path)))) if stored == sum => {
            let files = media.clone();
            blocking(move || Ok(files.is_there(&path)))
                .await
                .unwrap_or(false)
        }
        // When in doubt it is taken in again; the ledger decides.
        _ => false,
    }
}

/// Runs what waits for the disk where waiting is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
