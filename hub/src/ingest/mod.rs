//! Ingest: reads envelopes, and is the one writer of the ledger and of media.

mod notice;

pub use notice::{CommittedRecord, Notice};
