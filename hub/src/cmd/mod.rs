//! The commands of `scc-hub`, a file each.

pub mod backup;
pub mod fleet;
pub mod status;
pub mod tail;
pub mod user;
