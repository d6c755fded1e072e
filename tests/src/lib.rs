//! What needs more than one crate: stand-ins for hardware, end to end, faults.

pub mod camera;
