//! What a source needs of the buffer: one thing, so that a source can be tested against a buffer
//! that is full, slow or gone.

use std::future::Future;

use scc_common::record::RecordBody;

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

    /// Whether this very record is among the newest that were accepted: for a source that was killed
    /// before it could note the answer.
    ///
    /// # Errors
    /// [`BufferError`] if that cannot be found out.
    fn holds(&self, body: &RecordBody) -> impl Future<Output = Result<bool, BufferError>> + Send;
}

impl Accept for Buffer {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        Self::append(self, body).await
    }

    async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
        Self::holds(self, body).await
    }
}
