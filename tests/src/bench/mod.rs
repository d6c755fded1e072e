//! What `make bench-…` measures: the hub beside what a county would build instead of it.
//!
//! ```text
//! ingest.rs (tests/bench) ── starts ──► one stand (`stand.rs`): a hub, or a broker, a consumer and a database
//!                         └─ starts ──► the load program (`load.rs`), the same for all of them
//! ```
//!
//! Promises: everything listens on 127.0.0.1 and writes to a temporary folder of the disk that the
//! sources lie on; what was started is ended by its process id, nothing else is touched; the figures
//! that are compared were taken in one run, in interleaved rounds; each program ends with one line of
//! `key=value` figures.

pub mod agents;
pub mod bodies;
pub mod figures;
pub mod load;
pub mod mqtt;
pub mod place;
pub mod process;
pub mod stand;
