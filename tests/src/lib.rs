//! Skeleton.

pub mod control;
pub mod proxy;
pub mod terminal;
