//! The commands of `scc-hub`, a file each.

pub mod backup;
pub mod tail;
