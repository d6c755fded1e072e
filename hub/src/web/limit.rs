//! How often somebody may try to log in: five tries at once per name and address, then one a
//! minute; sixty at once per address, then one a second. A name alone is never locked, so nobody can
//! lock a colleague out from elsewhere.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Tries at once per name and address.
pub(crate) const BURST: u32 = 5;

const PER_NAME: Duration = Duration::from_secs(60);
const PER_ADDRESS: Duration = Duration::from_secs(1);
const ADDRESS_BURST: u32 = 60;
/// Names and addresses remembered before the settled ones are forgotten.
const REMEMBERED: usize = 10_000;

/// The limits on logging in.
#[derive(Debug)]
pub(crate) struct LoginLimit {
    names: DefaultKeyedRateLimiter<(String, IpAddr)>,
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl LoginLimit {
    pub(crate) fn new() -> Self {
        let quota = |every: Duration, burst: u32| {
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            // a period above zero always makes a quota
            Quota::with_period(every)
                .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
                .allow_burst(burst)
        };
        Self {
            names: RateLimiter::keyed(quota(PER_NAME, BURST)),
            addresses: RateLimiter::keyed(quota(PER_ADDRESS, ADDRESS_BURST)),
            clock: DefaultClock::default(),
        }
    }

    /// Counts one try.
    ///
    /// # Errors
    /// How long to wait if there have been too many.
    pub(crate) fn try_once(&self, name: &str, address: IpAddr) -> Result<(), Duration> {
        if self.names.len() > REMEMBERED {
            self.names.retain_recent();
            self.addresses.retain_recent();
        }
        let now = self.clock.now();
        self.addresses
            .check_key(&address)
            .map_err(|e| e.wait_time_from(now))?;
        let name: String = name.chars().take(64).collect();
        self.names
            .check_key(&(name, address))
            .map_err(|e| e.wait_time_from(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_try_waits_and_neither_other_names_nor_other_places_do() {
        let limit = LoginLimit::new();
        let here: IpAddr = [10, 0, 0, 1].into();
        for _ in 0..BURST {
            assert!(limit.try_once("meja-2", here).is_ok());
        }
        let wait = limit.try_once("meja-2", here).unwrap_err();
        assert!(
            wait <= Duration::from_secs(60) && wait > Duration::from_secs(50),
            "{wait:?}"
        );
        assert!(limit.try_once("meja-1", here).is_ok());
        assert!(limit.try_once("meja-2", [10, 0, 0, 2].into()).is_ok());
    }
}
