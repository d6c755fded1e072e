//! How long to wait before trying again.
//!
//! Reconnecting: exponential with full jitter (each wait is uniform between a floor and the current
//! ceiling), so that 200 agents do not come back to a restarted hub at the same moment. The ceiling
//! falls back only after a minute of stable connection: a link that flaps every ten seconds is
//! treated as the bad link it is.
//!
//! Resending: 10 s, doubling, with a quarter of jitter either way, restarted by any progress.

use std::time::Duration;

use rand::Rng;

/// First ceiling of the wait before reconnecting.
const RECONNECT_FIRST: Duration = Duration::from_secs(1);
/// Last ceiling of the wait before reconnecting. A punch made when the hub is back waits for this, so
/// it is short; 200 agents spread over it are 14 handshakes a second, which the gate does not notice.
const RECONNECT_LAST: Duration = Duration::from_secs(15);
/// Even full jitter does not make a hot loop.
const RECONNECT_FLOOR: Duration = Duration::from_millis(100);
/// A connection that flowed this long was a good one.
pub(super) const STABLE: Duration = Duration::from_secs(60);

const RESEND_FIRST: Duration = Duration::from_secs(10);
const RESEND_LAST: Duration = Duration::from_secs(120);

/// Waits between connections.
#[derive(Debug, Default)]
pub(super) struct Reconnect {
    failures: u32,
}

impl Reconnect {
    /// The wait after a connection that flowed for `stable` (zero if it never did).
    pub(super) fn after(&mut self, stable: Duration, rng: &mut impl Rng) -> Duration {
        if stable >= STABLE {
            self.failures = 0;
        }
        let ceiling = RECONNECT_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(RECONNECT_LAST);
        self.failures = self.failures.saturating_add(1);
        rng.random_range(RECONNECT_FLOOR..=ceiling)
    }
}

/// The wait for an acknowledgement, or for an answer.
#[derive(Debug)]
pub(super) struct Patience {
    doublings: u32,
    current: Duration,
}

impl Patience {
    /// The first wait.
    pub(super) fn new(rng: &mut impl Rng) -> Self {
        let mut patience = Self {
            doublings: 0,
            current: Duration::ZERO,
        };
        patience.draw(rng);
        patience
    }

    /// How long to wait this time.
    pub(super) const fn current(&self) -> Duration {
        self.current
    }

    /// It was in vain: the next wait is twice as long.
    pub(super) fn lost(&mut self, rng: &mut impl Rng) {
        self.doublings = self.doublings.saturating_add(1);
        self.draw(rng);
    }

    /// There was progress: back to the first wait.
    pub(super) fn progress(&mut self, rng: &mut impl Rng) {
        if self.doublings > 0 {
            self.doublings = 0;
            self.draw(rng);
        }
    }

    fn draw(&mut self, rng: &mut impl Rng) {
        let base = RESEND_FIRST
            .saturating_mul(1 << self.doublings.min(8))
            .min(RESEND_LAST);
        self.current = rng.random_range(base * 3 / 4..=base * 5 / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn two_hundred_agents_do_not_come_back_together() {
        let mut waits: Vec<Duration> = (0..200)
            .map(|seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut reconnect = Reconnect::default();
                for _ in 0..6 {
                    reconnect.after(Duration::ZERO, &mut rng);
                }
                reconnect.after(Duration::ZERO, &mut rng)
            })
            .collect();
        waits.sort();
        // uniform: 20 in each tenth of the time, with six standard deviations of room
        let tenth = RECONNECT_LAST / 10;
        for n in 0..10u32 {
            let from = tenth * n;
            let within = waits
                .iter()
                .filter(|w| **w >= from && **w < from + tenth)
                .count();
            assert!((1..=46).contains(&within), "tenth {n}: {within}");
        }
        assert!(waits[199] <= RECONNECT_LAST);
    }

    #[test]
    fn only_a_stable_connection_resets_the_wait() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut reconnect = Reconnect::default();
        for _ in 0..8 {
            reconnect.after(Duration::from_secs(59), &mut rng);
        }
        assert_eq!(reconnect.failures, 8);
        assert!(reconnect.after(STABLE, &mut rng) <= RECONNECT_FIRST);
        assert_eq!(reconnect.failures, 1);
    }

    #[test]
    fn an_hour_without_a_hub_costs_few_attempts() {
        let mut rng = StdRng::seed_from_u64(11);
        let mut reconnect = Reconnect::default();
        let mut passed = Duration::ZERO;
        let mut attempts = 0;
        while passed < Duration::from_secs(3_600) {
            passed += reconnect.after(Duration::ZERO, &mut rng);
            attempts += 1;
        }
        // half the ceiling on average
        assert!((400..=560).contains(&attempts), "{attempts} attempts");
    }

    #[test]
    fn patience_doubles_and_progress_restores_it() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut patience = Patience::new(&mut rng);
        let within = |d: Duration, s: u64| {
            d >= Duration::from_secs(s) * 3 / 4 && d <= Duration::from_secs(s) * 5 / 4
        };
        assert!(within(patience.current(), 10));
        patience.lost(&mut rng);
        assert!(within(patience.current(), 20));
        for _ in 0..20 {
            patience.lost(&mut rng);
        }
        assert!(within(patience.current(), 120));
        patience.progress(&mut rng);
        assert!(within(patience.current(), 10));
    }
}
