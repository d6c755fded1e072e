//! What a source needs of the buffer: one thing, so that a source can be tested against a buffer
//! that is full, slow or gone.

use std::future::Future;

use scc_common::checksum::Checksum;
use scc_common::id::Epoch;
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use scc_common::wire::GapReason;

use crate::buffer::{Accepted, Buffer, BufferError};

/// Takes records over for good.
pub trait Accept: Send + Sync + 'static {
    /// Resolves with `Ok` only once the record is durable; only then may a source forget where it
    /// came from.
    ///
    /// # Errors
    /// [`BufferError`]; nothing was accepted.
    fn append(
        &self,
        body: &RecordBody,
    ) -> impl Future<Output = Result<Accepted, BufferError>> + Send;

    /// The source will not offer this record again, which was refused: a loss that must be counted.
    fn give_up(&self, body: &RecordBody, refused: &BufferError) -> impl Future<Output = ()> + Send;

    /// Whether this very record is among the newest that were accepted: for a source that was killed
    /// before it could note the answer.
    ///
    /// # Errors
    /// [`BufferError`] if that cannot be found out.
    fn holds(&self, body: &RecordBody) -> impl Future<Output = Result<bool, BufferError>> + Send;
}

/// What says whether a buffer still has, or has had delivered, all that it accepted of a stream. As
/// long as it stays the same, it has; after a change it may have lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The epoch that new records get: a buffer that was lost or emptied begins another.
    pub epoch: Epoch,
    /// Of the numbers whose records the card has damaged.
    pub damage: Checksum,
}

/// What a source also needs if its device keeps what it has told and can be asked for it again.
pub trait Keep: Accept {
    /// The buffer's life, for this stream. What policy has dropped is no part of it: offering that
    /// again to a card that has no room for it would only drop the next.
    ///
    /// # Errors
    /// [`BufferError`] while the card fails.
    fn life(&self, stream: Stream) -> impl Future<Output = Result<Life, BufferError>> + Send;
}

impl Keep for Buffer {
    async fn life(&self, stream: Stream) -> Result<Life, BufferError> {
        let epoch = self.epoch().await?;
        let lanes = self.offers().await?;
        let damaged: Vec<u8> = lanes
            .iter()
            .filter(|lane| lane.stream == stream)
            .flat_map(|lane| &lane.gaps)
            .filter(|gap| gap.reason == GapReason::Damaged)
            .flat_map(|gap| [gap.epoch.0, gap.range.first, gap.range.last])
            .flat_map(u64::to_be_bytes)
            .collect();
        Ok(Life {
            epoch,
            damage: Checksum::of(&damaged),
        })
    }
}

impl Accept for Buffer {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        Self::append(self, body).await
    }

    async fn give_up(&self, body: &RecordBody, refused: &BufferError) {
        Self::give_up(self, body, refused).await;
    }

    async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
        Self::holds(self, body).await
    }
}
