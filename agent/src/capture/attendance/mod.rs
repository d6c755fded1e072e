//! Attendance terminals of the ZKTeco family, read over their own protocol on TCP
//! (docs: zk.md; TCP port 4370).
//!
//! Promises
//! - The terminal's own log is the truth. It is read whole, again at every reconnect, and what was
//!   read is proven by the terminal's counters or named incomplete.
//! - Live events are hints: handed over at once, merged with the log so that a punch is one punch.
//! - A punch counts as handed over only after the buffer has accepted it.
//! - Nothing that changes a terminal, opens a door or reads a fingerprint can be said: see
//!   [`command::Request`]. The terminal is never disabled.
//! - Bytes of a terminal never panic the agent, and no length of theirs is believed unchecked.
//!
//! The way of a punch: [`source`] connects, [`visit`] stays connected, [`session`] asks and hears
//! through [`frame`] and [`command`], [`pull`] reads the log and proves it, [`layout`] reads its
//! records, [`book`] hands over what the [`cursor`] has not seen.

pub mod auth;
pub mod book;
pub mod command;
pub mod cursor;
pub mod diagnosis;
pub mod event;
pub mod fault;
pub mod frame;
pub mod layout;
pub mod pace;
pub mod pull;
pub mod session;
pub mod source;
pub mod time;
pub mod users;
pub mod visit;

pub use pace::Pace;
pub use source::{TerminalSource, probe};
