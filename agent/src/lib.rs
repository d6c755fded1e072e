//! The program on the box at a site.
//!
//! The way of a record is one direction, one owner per step:
//! [`capture`] yields records, [`buffer`] accepts and numbers them, [`uplink`] sends them until the
//! hub has committed. A module knows its right-hand neighbour's interface and nothing else.

pub mod buffer;
pub mod capture;
pub mod cmd;
pub mod config;
pub mod dial;
mod durable;
pub mod runtime;
pub mod status;
pub mod uplink;
