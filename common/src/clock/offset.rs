//! From a box's monotonic time to the true time.
//!
//! A boot's *offset* is the true time minus the monotonic time of that boot. The monotonic clock
//! cannot be stepped, so one honest measurement dates every record of the boot, whatever the wall
//! clock claimed before or after.
//!
//! Invariants:
//! - what a record said of its time is never changed; a corrected time stands beside it;
//! - a corrected time is monotonic time + one offset for the whole boot, so records keep their order;
//! - where two measurements of a boot exclude each other ([`BootOffset::excludes`]), nobody knows which is
//!   right, and nothing is corrected by either, for ever.

use serde::{Deserialize, Serialize};

use super::{ClockQuality, MonoMs, Stamp, WallMs};

/// How far a crystal may run from the true time, parts per million: twice what the boxes' makers allow.
const DRIFT_PPM: u64 = 200;

/// What two measurements may differ by beyond their own uncertainty, milliseconds: pauses between the
/// readings of two clocks on a busy box.
const SLACK_MS: u64 = 2_000;

/// One measurement of a boot's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootOffset {
    /// True time − monotonic time, milliseconds.
    pub ahead_ms: i64,
    /// The truth is at most this far away.
    pub within_ms: u32,
    /// Monotonic time of the measurement.
    pub mono_ms: MonoMs,
}

impl BootOffset {
    /// What a record with a confirmed clock tells of its boot; none if its clock was not confirmed.
    #[must_use]
    pub fn of(stamp: &Stamp) -> Option<Self> {
        let within_ms = match stamp.quality {
            ClockQuality::Unconfirmed => return None,
            ClockQuality::Hub => 2_000,
            ClockQuality::Ntp => 500,
        };
        Some(Self {
            ahead_ms: super::ahead(stamp.wall_ms, stamp.mono_ms),
            within_ms,
            mono_ms: stamp.mono_ms,
        })
    }

    /// Whether not both can be right: they differ by more than their uncertainties, two seconds, and
    /// what a crystal may drift between them.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        let drift = self.mono_ms.abs_diff(other.mono_ms) / 1_000_000 * DRIFT_PPM;
        let bound = u64::from(self.within_ms) + u64::from(other.within_ms) + SLACK_MS;
        self.ahead_ms.abs_diff(other.ahead_ms) > bound.saturating_add(drift)
    }

    /// The true time at this monotonic time.
    #[must_use]
    pub fn at(&self, mono_ms: MonoMs) -> WallMs {
        self.ahead_ms
            .saturating_add(i64::try_from(mono_ms).unwrap_or(i64::MAX))
    }
}

/// What is known of a boot's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Nobody has measured it.
    #[default]
    Nothing,
    /// The best measurement; none has excluded another.
    Measured(BootOffset),
    /// Measurements exclude each other. Nothing ends this: more of them do not say which was wrong.
    Disputed,
}

impl Known {
    /// With one more measurement. A better one replaces a worse one only if it is at least twice as
    /// good, so that what is corrected already is not corrected again and again.
    #[must_use]
    pub fn learn(self, new: BootOffset) -> Self {
        match self {
            Self::Nothing => Self::Measured(new),
            Self::Disputed => Self::Disputed,
            Self::Measured(old) if old.excludes(&new) => Self::Disputed,
            Self::Measured(old)
                if new.within_ms < old.within_ms && new.within_ms <= old.within_ms / 2 =>
            {
                Self::Measured(new)
            }
            Self::Measured(_) => self,
        }
    }

    /// The corrected time of a record; none where its own word holds, or where nothing better is known.
    #[must_use]
    pub fn correct(&self, stamp: &Stamp) -> Option<WallMs> {
        match self {
            Self::Measured(offset) if stamp.quality == ClockQuality::Unconfirmed => {
                Some(offset.at(stamp.mono_ms))
            }
            _ => None,
        }
    }
}

/// What the time that is shown for a record is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeQuality {
    /// As told: the box's clock was confirmed.
    Confirmed,
    /// Not as told: from the monotonic time and the boot's offset.
    Corrected,
    /// As told by a clock that nobody has confirmed.
    Unknown,
}

impl TimeQuality {
    /// Every quality, for pages and tests that must have a word for each.
    pub const ALL: [Self; 3] = [Self::Confirmed, Self::Corrected, Self::Unknown];

    /// The word in the API and in the language files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Corrected => "corrected",
            Self::Unknown => "unknown",
        }
    }
}

/// The three forms of a record's time: as told, corrected, and what the better of them is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dated {
    /// What the box's wall clock said.
    pub told_ms: WallMs,
    /// From the monotonic time of its boot; only where the box's clock was not confirmed.
    pub corrected_ms: Option<WallMs>,
    /// What the box's clock was worth to the box.
    pub clock: ClockQuality,
}

impl Dated {
    /// The time of a record by what is known of its boot.
    #[must_use]
    pub fn of(stamp: &Stamp, known: &Known) -> Self {
        Self {
            told_ms: stamp.wall_ms,
            corrected_ms: known.correct(stamp),
            clock: stamp.quality,
        }
    }

    /// The time to show and to sort by.
    #[must_use]
    pub fn best_ms(&self) -> WallMs {
        self.corrected_ms.unwrap_or(self.told_ms)
    }

    /// What [`best_ms`](Self::best_ms) is worth.
    #[must_use]
    pub const fn quality(&self) -> TimeQuality {
        match (self.clock, self.corrected_ms) {
            (ClockQuality::Hub | ClockQuality::Ntp, _) => TimeQuality::Confirmed,
            (ClockQuality::Unconfirmed, Some(_)) => TimeQuality::Corrected,
            (ClockQuality::Unconfirmed, None) => TimeQuality::Unknown,
        }
    }

    /// A time that the box read off the same clock at about the same moment, moved as this one was.
    #[must_use]
    pub fn moved(&self, told_ms: WallMs) -> WallMs {
        told_ms.saturating_add(self.best_ms().saturating_sub(self.told_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BootId;
    use proptest::prelude::*;

    const NOW: WallMs = 1_795_000_000_000;
    const YEAR: i64 = 365 * 86_400_000;

    fn stamp(mono_ms: MonoMs, wall_ms: WallMs, quality: ClockQuality) -> Stamp {
        Stamp {
            boot: BootId([1; 16]),
            mono_ms,
            wall_ms,
            quality,
        }
    }

    fn measured(true_ms: WallMs, mono_ms: MonoMs, within_ms: u32) -> BootOffset {
        BootOffset {
            ahead_ms: true_ms - i64::try_from(mono_ms).unwrap(),
            within_ms,
            mono_ms,
        }
    }

    #[test]
    fn a_record_of_1970_is_dated_by_what_was_measured_later() {
        let known = Known::default().learn(measured(NOW, 600_000, 100));
        let early = stamp(60_000, 12_345, ClockQuality::Unconfirmed);
        let dated = Dated::of(&early, &known);
        assert_eq!(dated.best_ms(), NOW - 540_000);
        assert_eq!(dated.told_ms, 12_345, "what it said stays");
        assert_eq!(dated.quality(), TimeQuality::Corrected);
        assert_eq!(
            dated.moved(12_345 - 1_000),
            NOW - 541_000,
            "a state that began a second before"
        );
    }

    #[test]
    fn a_boot_that_nobody_measured_stays_unknown_and_a_confirmed_time_stays_as_told() {
        let unknown = Dated::of(&stamp(1, 2, ClockQuality::Unconfirmed), &Known::Nothing);
        assert_eq!(
            (unknown.best_ms(), unknown.quality()),
            (2, TimeQuality::Unknown)
        );
        let known = Known::default().learn(measured(NOW, 1_000, 100));
        for quality in [ClockQuality::Hub, ClockQuality::Ntp] {
            let dated = Dated::of(&stamp(1_000, NOW + 1_900, quality), &known);
            assert_eq!(
                (dated.best_ms(), dated.quality()),
                (NOW + 1_900, TimeQuality::Confirmed)
            );
        }
    }

    #[test]
    fn a_better_measurement_replaces_a_worse_one_and_not_the_other_way_round() {
        let (worse, better) = (
            measured(NOW, 1_000, 8_000),
            measured(NOW + 3_000, 9_000, 50),
        );
        let both = Known::Measured(better);
        assert_eq!(Known::default().learn(worse).learn(better), both);
        assert_eq!(Known::default().learn(better).learn(worse), both);
    }

    proptest! {
        /// Whatever steps the wall clock makes between the records.
        #[test]
        fn corrected_times_keep_the_order_of_the_boot_and_the_distances(
            monos in proptest::collection::vec(0u64..100_000_000_000, 2..40),
            walls in proptest::collection::vec(any::<i64>(), 40),
            at in 0u64..100_000_000_000,
        ) {
            let known = Known::default().learn(measured(NOW, at, 20));
            let of = |i: usize| {
                let stamp = stamp(monos[i], walls[i], ClockQuality::Unconfirmed);
                Dated::of(&stamp, &known)
            };
            for i in 1..monos.len() {
                let (a, b) = (of(i - 1), of(i));
                prop_assert_eq!(monos[i - 1].cmp(&monos[i]), a.best_ms().cmp(&b.best_ms()));
                prop_assert_eq!(monos[i].abs_diff(monos[i - 1]), a.best_ms().abs_diff(b.best_ms()));
                prop_assert_eq!(a.quality(), TimeQuality::Corrected);
            }
        }

        /// A step of the wall clock changes no measurement: it lies between monotonic and true time.
        #[test]
        fn a_step_between_two_measurements_does_not_make_them_disagree(
            monos in proptest::collection::vec(0u64..10_000_000_000, 1..20),
            errors in proptest::collection::vec(-500i64..=500, 20),
            drift_ppm in -100i64..=100,
            steps in proptest::collection::vec(-50 * YEAR..50 * YEAR, 20),
        ) {
            let mut known = Known::default();
            for ((mono, error), step) in monos.iter().zip(&errors).zip(&steps) {
                let elapsed = i64::try_from(*mono).unwrap();
                let truth = NOW + elapsed + elapsed / 1_000_000 * drift_ppm + error;
                // as the agent measures: its wall clock, however wrong, and the hub's distance from it
                let wall = truth.saturating_add(*step);
                let hub = truth - wall;
                let mut new = measured(NOW, 0, 500);
                new.ahead_ms = wall + hub - elapsed;
                new.mono_ms = *mono;
                known = known.learn(new);
            }
            prop_assert!(matches!(known, Known::Measured(_)), "{:?}", known);
        }

        #[test]
        fn where_measurements_exclude_each_other_nothing_is_corrected_ever_again(
            apart in 60_000i64..50 * YEAR,
            mono in 0u64..1_000_000_000,
            later in proptest::collection::vec((0u64..1_000_000_000, -100_000i64..100_000), 0..10),
        ) {
            let mut known = Known::default()
                .learn(measured(NOW, mono, 2_000))
                .learn(measured(NOW + apart, mono, 500));
            for (at, error) in later {
                known = known.learn(measured(NOW + error, at, 100));
            }
            let record = stamp(mono, 7, ClockQuality::Unconfirmed);
            prop_assert_eq!(Dated::of(&record, &known).quality(), TimeQuality::Unknown);
            prop_assert_eq!(Dated::of(&record, &known).best_ms(), 7);
        }

        #[test]
        fn no_numbers_that_a_box_can_send_overflow(
            (mono, wall, ahead) in (any::<u64>(), any::<i64>(), any::<i64>()),
            (other_mono, within, told) in (any::<u64>(), any::<u32>(), any::<i64>()),
        ) {
            let offset = BootOffset { ahead_ms: ahead, within_ms: within, mono_ms: other_mono };
            let claimed = BootOffset::of(&stamp(mono, wall, ClockQuality::Ntp)).unwrap();
            let known = Known::default().learn(offset).learn(claimed);
            let dated = Dated::of(&stamp(mono, wall, ClockQuality::Unconfirmed), &known);
            let _ = (dated.moved(told), claimed.excludes(&offset));
        }
    }
}
