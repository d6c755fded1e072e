//! What needs more than one crate: the stand-ins for hardware, end to end, faults, the browser,
//! what is measured.

pub mod bench;
pub mod camera;
pub mod child;
pub mod control;
pub mod demo;
pub mod mutants;
pub mod ordeal;
pub mod proxy;
pub mod small_card;
pub mod terminal;
