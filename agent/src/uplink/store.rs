//! What the uplink needs of the buffer, and nothing else of it.
//!
//! The trait exists for one reason: the model test runs the uplink against a hostile peer for
//! thousands of rounds, which a card that fsyncs cannot keep up with.

use std::future::Future;

use scc_common::id::{Epoch, Seq};
use scc_common::record::LaneHealth;
use scc_common::wire::{LaneOffer, SeqRange};
use tokio::sync::watch;

use crate::buffer::{Buffer, BufferError, Lane, Stored};

/// The uplink's view of the buffer; each method as in [`Buffer`].
pub trait Store: Send + Sync + 'static {
    /// As [`Buffer::offers`].
    fn offers(&self) -> impl Future<Output = Result<Vec<LaneOffer>, BufferError>> + Send;
    /// As [`Buffer::epoch`].
    fn epoch(&self) -> impl Future<Output = Result<Epoch, BufferError>> + Send;
    /// As [`Buffer::read`].
    fn read(
        &self,
        lane: Lane,
        range: SeqRange,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Vec<Stored>, BufferError>> + Send;
    /// As [`Buffer::acknowledge`].
    fn acknowledge(
        &self,
        lane: Lane,
        watermark: Seq,
        stored: Vec<SeqRange>,
    ) -> impl Future<Output = Result<(), BufferError>> + Send;
    /// As [`Buffer::want_again`].
    fn want_again(
        &self,
        lane: Lane,
        wanted: Vec<SeqRange>,
    ) -> impl Future<Output = Result<(), BufferError>> + Send;
    /// As [`Buffer::unacknowledged`].
    fn unacknowledged(
        &self,
        lane: Lane,
    ) -> impl Future<Output = Result<Vec<SeqRange>, BufferError>> + Send;
    /// As [`Buffer::begin_epoch`].
    fn begin_epoch(&self, reason: &str) -> impl Future<Output = Result<Epoch, BufferError>> + Send;
    /// As [`Buffer::stat`].
    fn stat(&self) -> impl Future<Output = Result<Vec<LaneHealth>, BufferError>> + Send;
    /// As [`Buffer::appended`].
    fn appended(&self) -> watch::Receiver<u64>;
}

impl Store for Buffer {
    async fn offers(&self) -> Result<Vec<LaneOffer>, BufferError> {
        Self::offers(self).await
    }
    async fn epoch(&self) -> Result<Epoch, BufferError> {
        Self::epoch(self).await
    }
    async fn read(
        &self,
        lane: Lane,
        range: SeqRange,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, BufferError> {
        Self::read(self, lane, range, max_bytes).await
    }
    async fn acknowledge(
        &self,
        lane: Lane,
        watermark: Seq,
        stored: Vec<SeqRange>,
    ) -> Result<(), BufferError> {
        Self::acknowledge(self, lane, watermark, stored).await
    }
    async fn want_again(&self, lane: Lane, wanted: Vec<SeqRange>) -> Result<(), BufferError> {
        Self::want_again(self, lane, wanted).await
    }
    async fn unacknowledged(&self, lane: Lane) -> Result<Vec<SeqRange>, BufferError> {
        Self::unacknowledged(self, lane).await
    }
    async fn begin_epoch(&self, reason: &str) -> Result<Epoch, BufferError> {
        Self::begin_epoch(self, reason).await
    }
    async fn stat(&self) -> Result<Vec<LaneHealth>, BufferError> {
        Self::stat(self).await
    }
    fn appended(&self) -> watch::Receiver<u64> {
        Self::appended(self)
    }
}
