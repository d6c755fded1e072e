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
/// after a stable while. A plain fault never costs more than [`Pace::retry_max`] once it is over. A
/// refused key is not hammered (zk.md §5): each try may take the only session from a program that has
/// the right one. The count lives as long as the source, so a corrected configuration is tried at once.
#[derive(Debug, Default)]
pub struct Backoff {
    plain: u32,
    hopeless: u32,
}

impl Backoff {
    /// The last visit was long and good.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The wait after this failure.
    pub fn after(&mut self, cause: Cause, pace: &Pace) -> Duration {
        let longest = match cause {
            Cause::KeyRefused | Cause::Encrypted => {
                doubled(&mut self.hopeless, pace.hopeless_min, pace.hopeless_max)
            }
            Cause::Busy => pace.retry_busy,
            _ => doubled(&mut self.plain, pace.retry_min, pace.retry_max),
        };
        longest.mul_f64(rand::rng().random_range(0.5..1.0))
    }
}

fn doubled(failures: &mut u32, least: Duration, most: Duration) -> Duration {
    let wait = least.saturating_mul(2u32.saturating_pow(*failures));
    *failures = failures.saturating_add(1);
    wait.min(most)
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
        let mut told = Duration::ZERO;
        for n in 0..100u32 {
            let least = Duration::from_secs(60 * 2u64.pow(n.min(5)));
            let wait = backoff.after(Cause::KeyRefused, &pace);
            assert!(
                wait >= least.min(Duration::from_secs(15 * 60)) && wait <= pace.hopeless_max,
                "{n}: {wait:?}"
            );
            told += wait;
            // the link failing in between is no reason to try the key sooner
            backoff.after(Cause::Offline, &pace);
        }
        assert!(told > Duration::from_secs(24 * 3_600), "{told:?}");
        // and what was told of the key does not slow a plain fault down
        assert!(backoff.after(Cause::Offline, &pace) <= pace.retry_max);
        backoff.reset();
        assert!(backoff.after(Cause::KeyRefused, &pace) <= pace.hopeless_min);
    }
}
