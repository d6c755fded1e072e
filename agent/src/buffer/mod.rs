//! The buffer: what has been captured and is not yet known to be in the hub's database.
//!
//! Promises (docs/design/delivery.md): a record whose [`Buffer::append`] has returned is durable
//! and numbered; records of one lane have the numbers 1, 2, 3 … without holes; what cannot be kept
//! is a gap that can be told; damage never stops the agent.
//!
//! The way down: [`Buffer`] (this file) asks the one thread of [`worker`], which owns the [`store`];
//! that writes files through [`disk`] in the [`format`](mod@format) of a record, and notes places,
//! counters and gaps in the [`index`]. [`retain`] decides what goes, [`loss`] tells
//! what was refused for good, [`recover`] makes files and index agree at an opening, [`scan`] reads files without an index.

pub mod check;
mod disk;
pub mod export;
pub mod import;
mod index;
pub mod inspect;
mod lane;
mod loss;
pub mod owner;
pub mod plan;
mod recover;
mod retain;
mod scan;
mod steps;
mod store;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::{Epoch, Seq};
use scc_common::record::{LaneHealth, RecordBody};
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, LaneOffer, MAX_BODY, SeqRange};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::config::BufferLimits;
pub(crate) use disk::sync_dir;
pub use scc_common::header as format;
use steps::Steps;
use store::{Incoming, Store};
use worker::{Request, Worker};

/// Requests that may wait for the store's thread.
const MAX_WAITING: usize = 64;

/// KiB of bodies that may wait to be stored: the largest record and some small ones.
const MAX_WAITING_KIB: u32 = 20 * 1024;

/// How often the lock of a buffer is tried, and the pause between.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// A record that the buffer has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The epoch that numbered it.
    pub epoch: Epoch,
    /// Its stream.
    pub stream: Stream,
    /// Its number.
    pub seq: Seq,
}

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number.
    pub seq: Seq,
    /// Checksum of `body`, verified when it was read.
    pub sum: Checksum,
    /// When it was captured, by the wall clock of that moment.
    pub wall_ms: WallMs,
    /// The encoded [`RecordBody`].
    pub body: Bytes,
}

/// Why a record was not accepted, or could not be read back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BufferError {
    /// There is no room that policy may free for this stream. Nothing was written.
    #[error("the buffer is full: {0}")]
    Full(String),
    /// The body is larger than [`scc_common::wire::MAX_BODY`].
    #[error("the record has {0} bytes, more than a record may have")]
    TooLarge(usize),
    /// The disk failed; the text is the system's.
    #[error("the buffer's disk failed: {0}")]
    Disk(String),
    /// Another process has the buffer open.
    #[error("the buffer in {0} is in use by another process")]
    InUse(String),
    /// The buffer has been closed.
    #[error("the buffer is closed")]
    Closed,
}

/// One lane is one (epoch, stream).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
}

/// What could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damage {
    /// Records that are lost by it and were not yet at the hub.
    pub records: u64,
    /// What was found, in English, for the developer; none if nothing was.
    pub detail: Option<String>,
}

impl Damage {
    /// Longest detail that is kept, bytes.
    const MAX_DETAIL: usize = 1_000;

    fn add(&mut self, records: u64, detail: impl FnOnce() -> String) {
        self.records += records;
        let detail = detail();
        match &mut self.detail {
            None => self.detail = Some(detail),
            Some(text) if text.len() + detail.len() <= Self::MAX_DETAIL => {
                text.push_str("; ");
                text.push_str(&detail);
            }
            Some(_) => {}
        }
    }
}

/// The handle on the buffer that sources and the uplink share. Cheap to clone; the store itself
/// lives in one thread of its own, so that nothing else ever waits for the card.
#[derive(Debug, Clone)]
pub struct Buffer {
    requests: mpsc::Sender<Request>,
    /// KiB of bodies that may still be on their way in.
    room: Arc<Semaphore>,
    appended: watch::Receiver<u64>,
    damage: Arc<Mutex<Damage>>,
}

impl Buffer {
    /// Opens the buffer in `state_dir/buffer`, or makes it. Blocks for as long as it takes to make
    /// files and index agree: well below a second after a clean stop, seconds when the index has to
    /// be rebuilt.
    ///
    /// # Errors
    /// [`BufferError::InUse`] if another process has it; [`BufferError::Disk`] and
    /// [`BufferError::Full`] if the card cannot be used. Damage is no error: see [`Self::damage`].
    pub fn open(
        state_dir: &Path,
        limits: BufferLimits,
        clock: SharedClock,
    ) -> Result<Self, BufferError> {
        let root = make_root(state_dir)?;
        let lock = lock(&root)?;
        let store = Store::open(&root, limits, &clock, &Steps::default(), false)?;
        let (requests, incoming) = mpsc::channel(MAX_WAITING);
        let (appended, watcher) = watch::channel(0);
        let damage = Arc::new(Mutex::new(Damage::default()));
        let mut worker = Worker {
            root,
            limits,
            clock,
            store: None,
            appended,
            damage: damage.clone(),
            lock,
            retry: worker::Retry::default(),
            suspect: false,
            losses: loss::Losses::default(),
            unsettled: Vec::new(),
        };
        let mut store = store;
        worker.take_damage(&mut store);
        worker.store = Some(store);
        std::thread::Builder::new()
            .name("buffer".into())
            .spawn(move || worker.run(incoming))
            .map_err(|e| store::from_io("starting the buffer's thread", &e))?;
        Ok(Self {
            requests,
            room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)),
            appended: watcher,
            damage,
        })
    }

    /// Numbers and stores a record; returns when it is durable (payload, index, directories). Whoever
    /// waits alone is committed at once. If the future is dropped before it returns, the record may
    /// or may not be stored.
    ///
    /// # Errors
    /// [`BufferError`]; nothing was accepted. After [`BufferError::Disk`] the record may turn up all
    /// the same, under a number of its own, as after a crash.
    pub async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        let bytes = Bytes::from(body.encode());
        if bytes.len() > MAX_BODY {
            return Err(BufferError::TooLarge(bytes.len()));
        }
        let kib = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(MAX_WAITING_KIB);
        let permit = self.room.clone().acquire_many_owned(kib).await;
        let permit = permit.map_err(|_| BufferError::Closed)?;
        let incoming = Incoming {
            stream: body.stream(),
            stamp: body.stamp,
            body: bytes,
        };
        self.ask(|reply| Request::Append(incoming, permit, reply))
            .await
    }

    /// The source of a record that was `refused` will not offer it again: it is counted as lost, in
    /// [`Self::stat`] at once and as a gap as soon as the index can be written. A record that a
    /// failing card has stored all the same is no loss.
    pub async fn give_up(&self, body: &RecordBody, refused: &BufferError) {
        let reason = match refused {
            BufferError::Full(_) => GapReason::DiskFull,
            BufferError::Disk(_) => GapReason::Damaged,
            BufferError::TooLarge(_) => GapReason::Other,
            // there is nobody left to count
            BufferError::InUse(_) | BufferError::Closed => return,
        };
        let request = Request::GiveUp(body.stream(), Checksum::of(&body.encode()), reason);
        if self.requests.send(request).await.is_err() {
            tracing::warn!(stream = %body.stream(), "a record was lost while the buffer closed");
        }
    }

    /// Whether one of the newest 1,024 records of its stream (in each epoch) has the bytes of this
    /// one: for a source that was killed before it had the answer to an append.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
        let (stream, sum) = (body.stream(), Checksum::of(&body.encode()));
        self.ask(|reply| Request::Holds(stream, sum, reply)).await
    }

    /// What a hello tells: every lane with its next number, what it holds, and its gaps.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn offers(&self) -> Result<Vec<LaneOffer>, BufferError> {
        self.ask(Request::Offers).await
    }

    /// The epoch that new records get.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn epoch(&self) -> Result<Epoch, BufferError> {
        self.ask(Request::Epoch).await
    }

    /// Records of a lane with numbers in `range`, in order, skipping gaps, until `max_bytes` of
    /// bodies are reached; always at least one record if there is one. A record that turns out
    /// damaged becomes a gap and is skipped.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn read(
        &self,
        lane: Lane,
        range: SeqRange,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, BufferError> {
        self.ask(|reply| Request::Read(lane, range, max_bytes, reply))
            .await
    }

    /// The hub has committed 1 ..= watermark of a lane and the ranges above it. The records stay on
    /// the card as long as the caps allow: a restored hub may ask for them again.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn acknowledge(
        &self,
        lane: Lane,
        watermark: Seq,
        stored: Vec<SeqRange>,
    ) -> Result<(), BufferError> {
        self.ask(|reply| Request::Acknowledge(lane, watermark, stored, reply))
            .await
    }

    /// The hub wants these again although it had acknowledged them (it was restored from a backup,
    /// or lost a media file): they count as not acknowledged from now on.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn want_again(&self, lane: Lane, wanted: Vec<SeqRange>) -> Result<(), BufferError> {
        self.ask(|reply| Request::WantAgain(lane, wanted, reply))
            .await
    }

    /// What of a lane is held and waits for its acknowledgement, ascending.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn unacknowledged(&self, lane: Lane) -> Result<Vec<SeqRange>, BufferError> {
        self.ask(|reply| Request::Unacknowledged(lane, reply)).await
    }

    /// Begins a new epoch for new records; the old ones keep theirs.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails; the epoch is then the old one.
    pub async fn begin_epoch(&self, reason: &str) -> Result<Epoch, BufferError> {
        self.ask(|reply| Request::BeginEpoch(reason.to_owned(), reply))
            .await
    }

    /// Depth and age of each lane.
    ///
    /// # Errors
    /// [`BufferError::Disk`] while the card fails.
    pub async fn stat(&self) -> Result<Vec<LaneHealth>, BufferError> {
        self.ask(Request::Stat).await
    }

    /// Resolves when something has been appended since the last call with the same counter.
    #[must_use]
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.clone()
    }

    /// Damage that was found since the last call, at the opening or while reading; none if there was
    /// none. Whoever takes it tells it as an event.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        let mut found = self
            .damage
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        found.detail.is_some().then(|| std::mem::take(&mut *found))
    }

    /// Stops the store's thread; returns when everything is closed and another process may open the
    /// buffer. All handles answer [`BufferError::Closed`] from now on.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.requests.send(Request::Close(done)).await.is_ok() {
            // an error means that the thread has ended already, which is what is wanted
            let _ = closed.await;
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(worker::Reply<T>) -> Request,
    ) -> Result<T, BufferError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.requests.send(request(reply)).await;
        sent.map_err(|_| BufferError::Closed)?;
        answer.await.map_err(|_| BufferError::Closed)?
    }
}

/// Makes the buffer's folder, durably.
fn make_root(state_dir: &Path) -> Result<PathBuf, BufferError> {
    let root = inspect::root(state_dir);
    std::fs::create_dir_all(&root)
        .and_then(|()| sync_dir(state_dir))
        .map_err(|e| store::from_io("making the buffer's folder", &e))?;
    Ok(root)
}

/// Takes the lock that only one process can have.
fn lock(root: &Path) -> Result<File, BufferError> {
    let open = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join("lock"));
    let lock = open.map_err(|e| store::from_io("opening the buffer's lock", &e))?;
    match in_a_moment(|| lock.try_lock()) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BufferError::InUse(root.display().to_string())),
        Err(TryLockError::Error(e)) => Err(store::from_io("locking the buffer", &e)),
    }
}

/// Tries to take a lock for a second: a process that forks holds its locks twice, until the child has
/// become another program.
fn in_a_moment(take: impl Fn() -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    for _ in 0..LOCK_TRIES {
        match take() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            answer => return answer,
        }
    }
    take()
}
