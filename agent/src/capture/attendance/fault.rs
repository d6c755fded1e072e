//! What went wrong with a terminal, as the board tells it, and how long to wait before the next try.

use std::time::Duration;

use rand::Rng;
use scc_common::record::{Cause, State};

use super::frame::FrameError;
use super::pace::Pace;
use super::session::SessionError;
use crate::dial::DialError;

/// Why a visit ended.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The terminal took the connection and dropped it before it said anything.
    #[error("the terminal drops new connections; another program may hold its only session")]
    Dropped,
    /// The session broke.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// One thing for the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The state it puts the terminal in.
    pub state: State,
    /// Its cause.
    pub cause: Cause,
    /// One sentence, without secrets.
    pub detail: String,
}

impl VisitError {
    /// What the board is told.
    #[must_use]
    pub fn finding(&self) -> Finding {
        let (state, cause) = match self {
            Self::Dial(error) => (State::Down, error.cause()),
            Self::Dropped => (State::Down, Cause::Busy),
            Self::Session(error) => match error {
                SessionError::Closed | SessionError::Io(_) => (State::Down, Cause::Offline),
                SessionError::Silent(_) => (State::Down, Cause::Silent),
                SessionError::Busy(_) => (State::Down, Cause::Busy),
                SessionError::KeyRefused => (State::Down, Cause::KeyRefused),
                SessionError::Partial { .. } => (State::Degraded, Cause::Incomplete),
                SessionError::Frame(FrameError::Encrypted) => (State::Down, Cause::Encrypted),
                SessionError::Frame(_) | SessionError::Refused { .. } => {
                    (State::Down, Cause::Garbage)
                }
            },
        };
        Finding {
            state,
            cause,
            detail: self.to_string(),
        }
    }
}

/// The wait before the next visit: exponential with jitter, and forgetting earlier failures only
/// after a stable while. A plain fault never costs more than [`Pace::retry_max`] once it is over.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The last visit was long and good.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after this failure.
    pub fn after(&mut self, cause: Cause, pace: &Pace) -> Duration {
        let longest = match cause {
            Cause::KeyRefused | Cause::Encrypted => pace.retry_hopeless,
            Cause::Busy => pace.retry_busy,
            _ => {
                let doubled = pace.retry_min * 2u32.saturating_pow(self.failures.min(16));
                doubled.min(pace.retry_max)
            }
        };
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_fault_is_retried_within_seconds_and_a_refused_key_is_not_hammered() {
        let pace = Pace::default();
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            let wait = backoff.after(Cause::Offline, &pace);
            assert!(
                wait >= pace.retry_min / 2 && wait <= pace.retry_max,
                "{wait:?}"
            );
        }
        // a terminal that comes back while a connect hangs is met by the SYN at 3 s of the next
        assert!(pace.connect - Duration::from_secs(3) + pace.retry_max < Duration::from_secs(5));
        for _ in 0..100 {
            let wait = backoff.after(Cause::KeyRefused, &pace);
            assert!((10..=25).contains(&wait.as_secs()), "{wait:?}");
        }
    }
}
