//! Capture: everything that yields records.
//!
//! A [`Source`] opens its device, yields records into the buffer, names its own faults on the
//! [`board`] and stops when told. A source that fails costs that source only.

pub mod accept;
pub mod attendance;
pub mod board;
pub mod camera;
pub mod health;
pub mod recorder;
pub mod tally;

use scc_common::clock::SharedClock;
use tokio_util::sync::CancellationToken;

use crate::buffer::Buffer;
use board::Board;

/// What a source is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where records go.
    pub buffer: Buffer,
    /// Where the source tells its state; it is also where health reads it.
    pub board: Board,
    /// The time.
    pub clock: SharedClock,
    /// The source ends soon after this is cancelled.
    pub stop: CancellationToken,
}

/// Something that captures.
pub trait Source: Send + 'static {
    /// Runs until [`Context::stop`] is cancelled. Never returns for a fault of the device: it tells
    /// the board and tries again.
    fn run(self: Box<Self>, context: Context) -> futures::future::BoxFuture<'static, ()>;
}
