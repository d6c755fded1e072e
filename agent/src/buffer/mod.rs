//! The buffer: what has been captured and is not yet known to be in the hub's database.
//!
//! Promises (docs/design/delivery.md): a record whose [`Buffer::append`] has returned is durable
//! and numbered; records of one lane have the numbers 1, 2, 3 … without holes; what cannot be kept
//! is a gap that can be told; damage never stops the agent.

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::{Epoch, Seq};
use scc_common::record::{LaneHealth, RecordBody};
use scc_common::stream::Stream;
use scc_common::wire::{LaneOffer, SeqRange};

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

/// The handle on the buffer that sources and the uplink share. Cheap to clone; the store itself
/// lives in one thread of its own, so that nothing else ever waits for the card.
#[derive(Debug, Clone)]
pub struct Buffer {}

impl Buffer {
    /// Numbers and stores a record; returns when it is durable (payload, index, directories), which
    /// takes up to the group commit's 200 ms.
    ///
    /// # Errors
    /// [`BufferError`]; nothing was accepted.
    pub async fn append(&self, _body: &RecordBody) -> Result<Accepted, BufferError> {
        Err(BufferError::Closed)
    }

    /// What a hello tells: every lane with its next number, what it holds, and its gaps.
    pub async fn offers(&self) -> Result<Vec<LaneOffer>, BufferError> {
        Err(BufferError::Closed)
    }

    /// The epoch that new records get.
    pub async fn epoch(&self) -> Result<Epoch, BufferError> {
        Err(BufferError::Closed)
    }

    /// Records of a lane with numbers ≥ `from` and ≤ `upto`, in order, skipping gaps, until
    /// `max_bytes` of bodies are reached; always at least one record if there is one. A record that
    /// turns out damaged becomes a gap and is skipped.
    pub async fn read(
        &self,
        _lane: Lane,
        _range: SeqRange,
        _max_bytes: usize,
    ) -> Result<Vec<Stored>, BufferError> {
        Err(BufferError::Closed)
    }

    /// The hub has committed 1 ..= watermark of a lane and the ranges above it. Space is freed file
    /// by file. Never forgets a record that the hub later asks for again while its file lives.
    pub async fn acknowledge(
        &self,
        _lane: Lane,
        _watermark: Seq,
        _stored: Vec<SeqRange>,
    ) -> Result<(), BufferError> {
        Err(BufferError::Closed)
    }

    /// Begins a new epoch for new records; the old ones keep theirs.
    pub async fn begin_epoch(&self, _reason: &str) -> Result<Epoch, BufferError> {
        Err(BufferError::Closed)
    }

    /// Depth and age of each lane.
    pub async fn stat(&self) -> Result<Vec<LaneHealth>, BufferError> {
        Err(BufferError::Closed)
    }

    /// Resolves when something has been appended since the last call with the same counter.
    pub fn appended(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
}
