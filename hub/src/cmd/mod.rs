//! The commands of `scc-hub`, a file each, and [`mod@line`] with their words.

pub mod backup;
pub mod fleet;
pub mod import;
pub mod line;
pub mod status;
pub mod tail;
pub mod user;
