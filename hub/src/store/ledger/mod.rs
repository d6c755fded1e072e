//! The write path: records, gaps and watermarks, in one transaction per batch.
//!
//! Invariants, each kept by one transaction:
//! - a key (agent, epoch, stream, seq) has at most one row; another checksum under it is a conflict
//!   and is kept beside it;
//! - the watermark of a lane is the largest W such that each of 1 … W is stored or covered by a gap;
//! - stored beats gap: a gap never holds a stored number, and gaps of a lane do not overlap;
//! - what is derived (punches, pictures, states) is there exactly when its record is, under the best time
//!   that is known of it.

mod batch;
mod boots;
mod derive;
mod files;
mod lanes;
mod record;
mod unreadable;
mod wants;

use std::sync::Arc;

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::{BootOffset, Dated, WallMs};
use scc_common::id::{AgentId, BootId, Epoch, Seq};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use scc_common::wire::{Gap, Hello, LaneAck};

use super::{Store, StoreError, lock};
use crate::crash::{self, Point};

pub(super) use lanes::Lanes;
pub use unreadable::Unreadable;
pub use wants::LaneWants;

/// Largest number that a record or a gap may have: SQLite's integers are signed.
pub const MAX_SEQ: Seq = (i64::MAX - 1).cast_unsigned();

/// Whether the ledger notes such a gap at all; it passes over any other.
#[must_use]
pub const fn is_noted(gap: &Gap) -> bool {
    !gap.range.is_empty() && gap.range.first > 0 && gap.range.last <= MAX_SEQ
}

/// One lane of one agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey {
    /// Whose.
    pub agent: AgentId,
    /// The life of the buffer.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
}

/// The identity of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordKey {
    /// Its lane.
    pub lane: LaneKey,
    /// Its number, 1 … [`MAX_SEQ`].
    pub seq: Seq,
}

/// Where the bytes of a body are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBody {
    /// In the row.
    Row(Bytes),
    /// In a media file that is durable already.
    File(String),
    /// The picture or video in a media file that is durable already, the rest in the row.
    Split {
        /// The body with the bytes of the picture or video left out.
        rest: Bytes,
        /// Path of the file.
        media: String,
        /// Its size, bytes.
        media_size: u64,
    },
}

impl StoredBody {
    /// What of the body is in the row.
    fn row(&self) -> Option<&[u8]> {
        match self {
            Self::Row(bytes) | Self::Split { rest: bytes, .. } => Some(bytes),
            Self::File(_) => None,
        }
    }

    /// Path of the media file, if there is one.
    #[must_use]
    pub fn media(&self) -> Option<&str> {
        match self {
            Self::Row(_) => None,
            Self::File(media) | Self::Split { media, .. } => Some(media),
        }
    }
}

/// A record on its way into the ledger.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Its identity.
    pub key: RecordKey,
    /// Checksum of the whole body.
    pub sum: Checksum,
    /// Length of the whole body, bytes.
    pub size: u64,
    /// Where its bytes are.
    pub body: StoredBody,
    /// What it says, with picture or video left out; none if it is unreadable.
    pub said: Option<Arc<RecordBody>>,
    /// When the hub received it.
    pub received_ms: WallMs,
}

/// One thing to be written.
#[derive(Debug, Clone)]
pub enum Write {
    /// Store a record.
    Record(Box<NewRecord>),
    /// Store a record that an operator brings in. One that is stored before is no duplicate: nobody sent
    /// it twice.
    Imported {
        /// The record.
        new: Box<NewRecord>,
        /// The import that it is marked with.
        import: i64,
    },
    /// A stored record that was unreadable and is no longer.
    Again(Box<NewRecord>),
    /// Count a record that was found to be stored before its bytes were taken in again.
    Seen {
        /// The record.
        key: RecordKey,
        /// When it came again.
        received_ms: WallMs,
    },
    /// Note what an agent has measured of its boot.
    Boot {
        /// Whose.
        agent: AgentId,
        /// Which boot.
        boot: BootId,
        /// How far the hub's time is ahead of its monotonic time.
        offset: BootOffset,
        /// When the hub received this.
        received_ms: WallMs,
    },
    /// Note records that will not come.
    Gaps {
        /// Whose.
        agent: AgentId,
        /// As the agent tells them.
        gaps: Vec<Gap>,
        /// When the hub received this.
        received_ms: WallMs,
    },
    /// Note what an agent holds: gaps, next numbers, and which epochs are over.
    Hello {
        /// Whose.
        agent: AgentId,
        /// What it says.
        hello: Arc<Hello>,
        /// When the hub received this.
        received_ms: WallMs,
    },
}

/// What became of one [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The record is stored now.
    Stored {
        /// Under this id.
        id: i64,
        /// Its time; none if it is unreadable.
        dated: Option<Dated>,
    },
    /// The record was stored before; counted, unless it was imported.
    Duplicate,
    /// Something else is stored under this identity; both are kept.
    Conflict,
    /// Noted.
    Noted,
}

/// What one transaction has done.
#[derive(Debug)]
pub struct Commit {
    /// One for each write that was done, from the first on. Fewer than asked for when the
    /// transaction had been open for long; the rest is to be asked for again.
    pub outcomes: Vec<Outcome>,
    /// The lanes of those writes, as they are now.
    pub lanes: Vec<(AgentId, LaneAck)>,
}

impl Store {
    /// Writes a batch in one transaction, in its order. Ends early, but never before the first
    /// write is done, when the transaction has been open for 50 ms.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch is written and the same batch may be tried again.
    pub async fn commit(&self, writes: Vec<Arc<Write>>) -> Result<Commit, StoreError> {
        let inner = Arc::clone(&self.inner);
        let commit = self
            .write(move |tx| {
                let mut lanes = lock(&inner.lanes);
                lanes.begin();
                let done = batch::run(tx, &mut lanes, &writes);
                crash::here(Point::Uncommitted);
                done
            })
            .await?;
        crash::here(Point::Committed);
        lock(&self.inner.lanes).committed();
        Ok(commit)
    }

    /// Checksum and media path of a record, if it is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stored(
        &self,
        key: RecordKey,
    ) -> Result<Option<(Checksum, Option<String>)>, StoreError> {
        self.read_for_ingest(move |c| record::stored(c, &key)).await
    }
}
