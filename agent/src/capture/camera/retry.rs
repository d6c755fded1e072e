//! When to try a camera again.
//!
//! A camera that is well again must be seen within five seconds: the rest of a look that began too
//! early, a wait, and the start of a reader with its first picture have to fit. So the waits stay
//! short; they are jittered, so that forty cameras behind one switch do not all come at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(2);

/// A session that went well for this long earns an attempt without a wait.
const STABLE_MS: u64 = 10_000;

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// A session ended after it had delivered for `played_ms`. True if that was long enough to call
    /// it an accident: the next attempt is free.
    pub(super) fn failed(&mut self, played_ms: u64) -> bool {
        let accident = played_ms >= STABLE_MS;
        self.failures = if accident {
            0
        } else {
            self.failures.saturating_add(1)
        };
        accident
    }

    /// How long to wait now. `chance` in 0..=1 spreads the waits.
    #[must_use]
    pub(super) fn wait(&self, chance: f64) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let longest = FIRST
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(LONGEST);
        longest.mul_f64(0.7 + 0.3 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::camera::reach::CONNECT;

    #[test]
    fn a_camera_that_is_well_again_leaves_two_seconds_for_its_first_picture() {
        // it comes up just after the system's second question of a look, at 1 s
        let rest = CONNECT.saturating_sub(Duration::from_secs(1));
        assert!(rest + LONGEST <= Duration::from_secs(3));
    }

    #[test]
    fn waits_grow_to_two_seconds_and_no_further() {
        let mut retry = Retry::default();
        assert_eq!(retry.wait(1.0), Duration::ZERO);
        let waits: Vec<_> = (0..40)
            .map(|_| {
                assert!(!retry.failed(0));
                retry.wait(1.0).as_millis()
            })
            .collect();
        assert_eq!(waits[..4], [1_000, 2_000, 2_000, 2_000]);
        assert!(waits.iter().all(|ms| *ms <= 2_000));
        assert!(retry.wait(0.0) >= Duration::from_secs(1));
    }

    #[test]
    fn only_a_session_that_went_well_earns_a_free_attempt() {
        let mut retry = Retry::default();
        retry.failed(0);
        retry.failed(9_999);
        assert_eq!(retry.wait(1.0), Duration::from_secs(2));
        assert!(retry.failed(10_000));
        assert_eq!(retry.wait(1.0), Duration::ZERO);
        retry.failed(0);
        assert_eq!(retry.wait(1.0), Duration::from_secs(1));
    }
}
