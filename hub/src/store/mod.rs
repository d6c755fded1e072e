//! The hub's database: SQLite in WAL mode, synchronous FULL, one writer, a pool of readers. All SQL
//! is in this module; none of its types is in a signature that leaves it.
//!
//! `ledger` is the write path of ingest, `fleet` the register, `people` users and sessions, `views`
//! what pages and API read.
