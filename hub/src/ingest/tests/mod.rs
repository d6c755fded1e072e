//! Tests that need what only this crate can reach; the others are in `hub/tests`.

mod crash;
mod sweep;

#[path = "../../../tests/ingest_harness/mod.rs"]
mod harness;
