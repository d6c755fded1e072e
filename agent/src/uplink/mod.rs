//! The uplink: brings what the buffer holds to the hub, and tells the buffer what has arrived.
//!
//! Promises (docs/design/delivery.md): every record that the buffer has accepted is sent until the
//! hub says that it is committed; nothing else deletes it. The hub's permission is obeyed. A record
//! appended while the link is idle goes out at once; while a backlog drains, it finds at most half a
//! second of it in front.
//!
//! The way through this folder: [`link`] is one connection, [`mqtt`] makes it; `session` speaks on
//! it; `plan` (with `lane` and `window`) chooses what to send within the [`budget`]; `now` and `hello`
//! write the messages that are no records; `backoff` says how long to wait, in the measures of [`pace`];
//! [`floor`] keeps the time that the hub has told; [`status`] tells others how it goes.

mod backoff;
pub mod budget;
pub mod drain;
pub mod floor;
mod hello;
mod lane;
pub mod link;
pub mod mqtt;
mod now;
pub mod pace;
mod plan;
mod session;
pub mod status;
pub mod store;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use scc_common::clock::{MonoMs, SharedClock};
use scc_common::id::AgentId;
use scc_common::record::{Event, LinkMode};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::capture::board::Board;
use backoff::Reconnect;
use budget::{Budget, Spending};
use link::{Closed, Dial, Link};
use pace::Pace;
use session::{End, Session};
use status::{LinkStatus, Reporter};
use store::Store;

/// A stop waits this long for the goodbye to go out; it has five seconds in all.
const GOODBYE: Duration = Duration::from_millis(400);

/// What the uplink is given.
#[derive(Debug)]
pub struct Given<S> {
    /// Who we are.
    pub agent: AgentId,
    /// Version of this program.
    pub version: String,
    /// The buffer.
    pub store: S,
    /// The states and stills for *now*.
    pub board: Board,
    /// The time.
    pub clock: SharedClock,
    /// Where the uplink's own events go ([`Event::EpochBegun`]).
    pub events: mpsc::UnboundedSender<Event>,
    /// Told when something on the board has changed.
    pub poke: Arc<Notify>,
    /// The uplink ends soon after this is cancelled.
    pub stop: CancellationToken,
    /// Monotonic time of the last sign of life, for the watchdog.
    pub alive: Arc<AtomicU64>,
}

impl<S> Given<S> {
    fn beat(&self) {
        self.alive.store(self.clock.mono_ms(), Ordering::Relaxed);
    }
}

/// What others may ask of a running uplink.
#[derive(Debug, Clone)]
pub struct Handle {
    /// How the link is doing.
    pub status: watch::Receiver<LinkStatus>,
    alive: Arc<AtomicU64>,
}

impl Handle {
    /// Monotonic time of the last sign of life.
    #[must_use]
    pub fn alive_ms(&self) -> MonoMs {
        self.alive.load(Ordering::Relaxed)
    }
}

/// The uplink, before it runs.
pub struct Uplink<S, D> {
    given: Given<S>,
    dialer: D,
    rng: StdRng,
    reporter: Reporter,
    pace: Pace,
    spending: Spending,
}

impl<S: Store, D: Dial> Uplink<S, D> {
    /// Does nothing yet. All randomness (waits, nonces) comes from `seed`.
    pub fn new(given: Given<S>, dialer: D, seed: u64) -> (Self, Handle) {
        let (reporter, status) = Reporter::new(given.clock.clone());
        given.beat();
        let handle = Handle {
            status,
            alive: Arc::clone(&given.alive),
        };
        let uplink = Self {
            given,
            dialer,
            rng: StdRng::seed_from_u64(seed),
            reporter,
            pace: Pace::default(),
            spending: Spending::new(Budget::default()),
        };
        (uplink, handle)
    }

    /// More or less patient than usual; its dialer should be so too.
    #[must_use]
    pub const fn at_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Keeps to this budget; without it, there is none.
    #[must_use]
    pub fn within(mut self, budget: Budget) -> Self {
        self.spending = Spending::new(budget);
        self
    }

    /// Connects and sends until it is told to stop, or the buffer closes.
    pub async fn run(mut self) {
        let stop = self.given.stop.clone();
        let mut reconnect = Reconnect::new(self.pace);
        while !stop.is_cancelled() {
            let budget = self.spending.look(&*self.given.clock);
            self.reporter.budget(budget);
            let (end, stable) = match self.dial().await {
                Ok(link) => self.connected(&*link).await,
                Err(end) => (end, Duration::ZERO),
            };
            match end {
                End::Stopped | End::Buffer(crate::buffer::BufferError::Closed) => break,
                End::Closed(_) | End::Buffer(_) => {}
            }
            let why = end.to_string();
            let trouble = end.trouble().map(|trouble| (trouble, why.as_str()));
            self.reporter.set(LinkMode::Down, trouble);
            let wait = reconnect.after(stable, &mut self.rng);
            tracing::debug!(?wait, "reconnecting later");
            let _ = self.while_alive(tokio::time::sleep(wait)).await;
        }
    }

    async fn dial(&self) -> Result<Box<dyn Link>, End> {
        let dialed = tokio::time::timeout(self.pace.connect(), self.dialer.dial());
        match self.while_alive(dialed).await {
            None => Err(End::Stopped),
            Some(Ok(dialed)) => Ok(dialed?),
            Some(Err(_)) => Err(Closed::Silent("connecting took too long".into()).into()),
        }
    }

    async fn connected(&mut self, link: &dyn Link) -> (End, Duration) {
        self.reporter.set(LinkMode::Connecting, None);
        let mut session = Session::new(
            &self.given,
            link,
            &mut self.rng,
            &self.reporter,
            self.pace,
            &mut self.spending,
        );
        let end = session.run().await;
        let stable = session
            .flowing_since
            .map_or(Duration::ZERO, |s| s.elapsed());
        if matches!(end, End::Stopped) {
            // a hub that does not take it will find out by itself
            let _ = tokio::time::timeout(GOODBYE, link.close()).await;
        }
        (end, stable)
    }

    /// Waits, with a sign of life every second; none if the agent stops meanwhile.
    async fn while_alive<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        tokio::pin!(future);
        loop {
            tokio::select! {
                () = self.given.stop.cancelled() => return None,
                _ = beat.tick() => self.given.beat(),
                output = &mut future => return Some(output),
            }
        }
    }
}
