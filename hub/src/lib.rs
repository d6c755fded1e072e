//! The central aggregator of the command center.
//!
//! The way of a record is one direction, one owner per step: [`gate`] lets agents in and their
//! bytes on, [`ingest`] reads envelopes and is the one writer of [`store`] and [`media`], [`fleet`]
//! turns what was committed into states, [`web`] shows them to those who may see them.

// the harness of the integration tests calls the crate by its name
#[cfg(test)]
extern crate self as scc_hub;

mod brief;
pub mod cmd;
pub mod compare;
pub mod config;
pub(crate) mod crash;
pub mod fleet;
pub mod gate;
pub mod ingest;
pub mod lock;
pub mod media;
pub mod renewal;
pub mod serve;
pub mod store;
pub mod web;
