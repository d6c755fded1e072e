//! What others have told of the time, kept against the monotonic clock, which nobody can step. So a
//! wall clock that is stepped after it was confirmed is confirmed no longer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::offset::BootOffset;
use super::{CONFIRM_WITHIN_MS, MonoMs, WallMs, ahead};

/// What the hub last told.
#[derive(Debug, Default)]
pub(super) struct HubTime(Mutex<Option<BootOffset>>);

impl HubTime {
    pub(super) fn told(&self, wall_ms: WallMs, mono_ms: MonoMs, offset_ms: i64, within_ms: u32) {
        let new = BootOffset {
            ahead_ms: ahead(wall_ms.saturating_add(offset_ms), mono_ms),
            within_ms,
            mono_ms,
        };
        let mut known = lock(&self.0);
        // the newest good exchange holds; a slow one only where there has been no better
        if good(&new) || known.is_none_or(|old| !good(&old)) {
            *known = Some(new);
        }
    }

    pub(super) fn forget(&self) {
        *lock(&self.0) = None;
    }

    pub(super) fn known(&self) -> Option<BootOffset> {
        *lock(&self.0)
    }

    pub(super) fn confirms(&self, wall_ms: WallMs, mono_ms: MonoMs) -> bool {
        let near = |hub: BootOffset| good(&hub) && close(ahead(wall_ms, mono_ms), hub.ahead_ms);
        self.known().is_some_and(near)
    }
}

/// Whether an exchange was short enough to confirm a clock by it.
fn good(told: &BootOffset) -> bool {
    i64::from(told.within_ms) <= CONFIRM_WITHIN_MS
}

/// What the wall clock was when NTP was last seen to have set it. `M` tells one setting from the next.
#[derive(Debug)]
pub(super) struct NtpTime<M>(Mutex<Option<(M, i64)>>);

impl<M> Default for NtpTime<M> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<M: PartialEq> NtpTime<M> {
    /// Whether the wall clock still is what the newest setting made it.
    pub(super) fn confirms(&self, setting: Option<M>, wall_ms: WallMs, mono_ms: MonoMs) -> bool {
        let now = ahead(wall_ms, mono_ms);
        let mut known = lock(&self.0);
        match (setting, &*known) {
            (None, _) => {
                *known = None;
                false
            }
            (Some(setting), Some((seen, set))) if *seen == setting => close(now, *set),
            (Some(setting), _) => {
                *known = Some((setting, now));
                true
            }
        }
    }
}

fn close(a: i64, b: i64) -> bool {
    a.abs_diff(b) <= CONFIRM_WITHIN_MS.unsigned_abs()
}

/// The guarded values are replaced as a whole, so a panic elsewhere leaves them usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_exchange_dates_a_boot_but_confirms_no_clock_and_replaces_no_better_one() {
        let hub = HubTime::default();
        hub.told(1_000_000, 1_000, 0, 9_000);
        assert!(!hub.confirms(1_000_000, 1_000));
        assert_eq!(hub.known().map(|o| o.within_ms), Some(9_000));
        hub.told(1_000_000, 1_000, 300, 40);
        assert!(hub.confirms(1_000_000, 1_000));
        hub.told(1_000_000, 1_000, 5_000, 9_000);
        assert_eq!(hub.known().map(|o| o.within_ms), Some(40));
    }

    #[test]
    fn what_ntp_has_set_is_confirmed_until_somebody_steps_it_and_again_when_ntp_has_set_it_anew() {
        let ntp = NtpTime::default();
        assert!(!ntp.confirms(None, 0, 0));
        assert!(ntp.confirms(Some(1), 1_000_000, 1_000));
        assert!(
            ntp.confirms(Some(1), 4_600_000, 3_601_000),
            "time has passed"
        );
        assert!(
            !ntp.confirms(Some(1), 8_200_000, 3_601_000),
            "an hour ahead"
        );
        assert!(ntp.confirms(Some(2), 4_601_000, 3_602_000));
    }
}
