//! How long to wait before trying again.
//!
//! Reconnecting: exponential with full jitter (each wait is uniform between a floor and the current
//! ceiling), so that 200 agents do not come back to a restarted hub at the same moment. The ceiling
//! falls back only after a minute of stable connection: a link that flaps every ten seconds is
//! treated as the bad link it is.
//!
//! Resending: 10 s, doubling to 40 s, with a quarter of jitter either way, restarted by any progress.
//!
//! The numbers are [`Pace`]'s.

use std::time::Duration;

use rand::Rng;

use super::pace::Pace;

/// Waits between connections.
#[derive(Debug)]
pub(super) struct Reconnect {
    pace: Pace,
    failures: u32,
}

impl Reconnect {
    /// Nothing has failed yet.
    pub(super) const fn new(pace: Pace) -> Self {
        Self { pace, failures: 0 }
    }

    /// The wait after a connection that flowed for `stable` (zero if it never did).
    pub(super) fn after(&mut self, stable: Duration, rng: &mut impl Rng) -> Duration {
        if stable >= self.pace.stable() {
            self.failures = 0;
        }
        let ceiling = self
            .pace
            .reconnect_first()
            .saturating_mul(1 << self.failures.min(16))
            .min(self.pace.reconnect_last());
        self.failures = self.failures.saturating_add(1);
        rng.random_range(self.pace.reconnect_floor()..=ceiling)
    }
}

/// The wait for an acknowledgement, or for an answer.
#[derive(Debug)]
pub(super) struct Patience {
    pace: Pace,
    doublings: u32,
    current: Duration,
}

impl Patience {
    /// The first wait.
    pub(super) fn new(pace: Pace, rng: &mut impl Rng) -> Self {
        let mut patience = Self {
            pace,
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
        let base = self
            .pace
            .resend_first()
            .saturating_mul(1 << self.doublings.min(8))
            .min(self.pace.resend_last());
        self.current = rng.random_range(base * 3 / 4..=base * 5 / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// When each of 200 agents tries, that lost the hub at the same moment, until this long after.
    fn attempts(until: Duration) -> Vec<Vec<Duration>> {
        let of = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut reconnect = Reconnect::new(Pace::default());
            let (mut at, mut tries) = (Duration::ZERO, Vec::new());
            while at < until {
                at += reconnect.after(Duration::ZERO, &mut rng);
                tries.push(at);
            }
            tries
        };
        (0..200).map(of).collect()
    }

    /// Chi-square of counts that should all be alike.
    fn chi_square(counts: &[u32]) -> f64 {
        let expected = f64::from(counts.iter().sum::<u32>()) / counts.len() as f64;
        let term = |n: &u32| (f64::from(*n) - expected).powi(2) / expected;
        counts.iter().map(term).sum()
    }

    /// The complaints list, row 8. Each attempt's wait is uniform below its ceiling.
    #[test]
    fn the_jitter_of_two_hundred_agents_is_uniform() {
        let pace = Pace::default();
        let all = attempts(Duration::from_secs(300));
        // the first six have ceilings of 1, 2, 4, 8, 15 and 15 s
        for n in 0..6 {
            let ceiling = (pace.reconnect_first() * (1 << n)).min(pace.reconnect_last());
            let span = ceiling - pace.reconnect_floor();
            let mut counts = [0; 10];
            for tries in &all {
                let before = if n == 0 { Duration::ZERO } else { tries[n - 1] };
                let wait = tries[n] - before - pace.reconnect_floor();
                let bin = wait.as_nanos() * 10 / span.as_nanos();
                counts[usize::try_from(bin).unwrap().min(9)] += 1;
            }
            // 9 degrees of freedom: 27.88 is passed by one honest sequence in a thousand
            let chi = chi_square(&counts);
            assert!(
                chi < 27.88,
                "attempt {n}: chi-square {chi:.1} of {counts:?}"
            );
        }
    }

    /// 200 agents while the hub is away, and when it comes back.
    #[test]
    fn no_second_sees_more_than_a_share_of_two_hundred_agents() {
        let all = attempts(Duration::from_secs(300));
        let mut seconds = [0u32; 300];
        for at in all.iter().flatten() {
            if let Some(count) = usize::try_from(at.as_secs())
                .ok()
                .and_then(|s| seconds.get_mut(s))
            {
                *count += 1;
            }
        }
        // everyone's first attempt is within the first second, whoever lost a hub that is there
        // again is back at once; then they drift apart
        assert!(seconds[0] <= 300, "{}", seconds[0]);
        let worst = seconds[8..].iter().max().unwrap();
        // 27 a second on average (a wait of 7.5 s each), Poisson: 60 is six deviations
        assert!(*worst <= 60, "{worst} attempts in one second");
        let chi = chi_square(&seconds[60..]);
        assert!(chi < 318.0, "chi-square {chi:.1} of 240 seconds"); // one in a thousand
        // and a hub that is back after a minute has seen all of them one longest wait later
        let back = Duration::from_secs(60);
        let seen = |tries: &Vec<Duration>| tries.iter().find(|at| **at >= back).copied();
        let last = all.iter().filter_map(seen).max().unwrap();
        assert!(last <= back + Pace::default().reconnect_last(), "{last:?}");
    }

    #[test]
    fn only_a_stable_connection_resets_the_wait() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut reconnect = Reconnect::new(Pace::default());
        for _ in 0..8 {
            reconnect.after(Duration::from_secs(59), &mut rng);
        }
        assert_eq!(reconnect.failures, 8);
        assert!(reconnect.after(Duration::from_secs(60), &mut rng) <= Duration::from_secs(1));
        assert_eq!(reconnect.failures, 1);
    }

    #[test]
    fn an_hour_without_a_hub_costs_few_attempts() {
        let mut rng = StdRng::seed_from_u64(11);
        let mut reconnect = Reconnect::new(Pace::default());
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
        let mut patience = Patience::new(Pace::default(), &mut rng);
        let within = |d: Duration, s: u64| {
            d >= Duration::from_secs(s) * 3 / 4 && d <= Duration::from_secs(s) * 5 / 4
        };
        assert!(within(patience.current(), 10));
        patience.lost(&mut rng);
        assert!(within(patience.current(), 20));
        for _ in 0..20 {
            patience.lost(&mut rng);
        }
        assert!(within(patience.current(), 40));
        patience.progress(&mut rng);
        assert!(within(patience.current(), 10));
    }
}
