//! How long a backlog takes to be sent under the upload budget.
//!
//! Everything that is sent counts against the budget, whether it waits for it or not: so a backlog shrinks
//! by what the budget of each minute leaves beside what is captured meanwhile. The clock is taken for
//! confirmed, and what the link can is not known: where the budget sets no limit, all goes at once.

use scc_common::clock::{ClockQuality, WallMs};

use super::budget::Budget;

const MINUTE_MS: WallMs = 60_000;
const WEEK_MINUTES: i64 = 7 * 24 * 60;

/// A backlog that takes longer is as good as one that never goes.
const MOST_WEEKS: i64 = 520;

/// What becomes of a backlog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Drained {
    /// It is sent within so many hours.
    Within(f64),
    /// After so many hours (0: at once) the budget sets no limit, and what is left goes as fast as the link
    /// can.
    ByTheLink(f64),
    /// More is captured than the budget lets through.
    Never,
}

/// Sends `backlog` bytes from `from` on while `per_s` more come each second.
#[must_use]
pub fn drain(budget: &Budget, backlog: f64, per_s: f64, from: WallMs) -> Drained {
    let mut left = backlog.max(0.0);
    for week in 0..MOST_WEEKS {
        let before = left;
        for minute in week * WEEK_MINUTES..(week + 1) * WEEK_MINUTES {
            let at = from.saturating_add(minute * MINUTE_MS);
            let Some(rate) = budget.at(at, ClockQuality::Ntp) else {
                return Drained::ByTheLink(hours(minute, 0.0));
            };
            let net = f64::from(rate) - per_s;
            let after = net.mul_add(-60.0, left);
            if after <= 0.0 {
                // nothing waits, or it is gone within this minute
                let part = if left > 0.0 { left / (net * 60.0) } else { 0.0 };
                return Drained::Within(hours(minute, part));
            }
            left = after;
        }
        // the weeks are all alike
        if left >= before {
            return Drained::Never;
        }
    }
    Drained::Never
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ten years have five million minutes"
)]
const fn hours(minutes: i64, part: f64) -> f64 {
    (minutes as f64 + part) / 60.0
}

/// Bytes that the budget lets through in a day, in the mean of a week; none where it sets no limit at some
/// time.
#[must_use]
pub fn per_day(budget: &Budget) -> Option<f64> {
    (0..WEEK_MINUTES)
        .map(|minute| budget.at(minute * MINUTE_MS, ClockQuality::Ntp))
        .map(|rate| Some(f64::from(rate?) * 60.0 / 7.0))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::budget::Hours;

    /// 2026-11-24 (a Tuesday) 00:00 UTC.
    const TUESDAY: WallMs = 1_795_478_400_000;

    fn office(usual: Option<u32>) -> Budget {
        Budget {
            usual,
            hours: vec![Hours {
                days: [true, true, true, true, true, false, false],
                from: 8 * 60,
                to: 16 * 60,
                bytes_per_s: 10_000,
            }],
            utc_offset_min: 0,
        }
    }

    fn within(drained: Drained) -> f64 {
        match drained {
            Drained::Within(hours) => (hours * 1_000.0).round() / 1_000.0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_backlog_shrinks_by_what_the_budget_leaves_beside_what_comes() {
        let flat = Budget {
            usual: Some(30_000),
            ..Budget::default()
        };
        // 20 kB/s are left for 72 MB
        assert_eq!(within(drain(&flat, 72e6, 10_000.0, TUESDAY)), 1.0);
        assert_eq!(within(drain(&flat, 0.0, 10_000.0, TUESDAY)), 0.0);
        assert_eq!(drain(&flat, 1.0, 30_000.0, TUESDAY), Drained::Never);
        assert_eq!(drain(&flat, 1.0, 40_000.0, TUESDAY), Drained::Never);
    }

    #[test]
    fn the_office_hours_hold_it_up_and_the_night_makes_up_for_them() {
        let budget = office(Some(50_000));
        // from 15:00: for an hour 10 kB/s for 20 that come, then 30 kB/s are left
        let from = TUESDAY + 15 * 3_600_000;
        let drained = drain(&budget, 72e6, 20_000.0, from);
        assert_eq!(within(drained), 1.0 + (72.0 + 36.0) / 108.0);
        // from 00:00 the night does not suffice, and the next day's office hours come between
        let drained = drain(&budget, 8.0 * 108e6 + 54e6, 20_000.0, TUESDAY);
        let hours: f64 = 16.0 + (8.0 * 36.0 + 54.0) / 108.0;
        assert_eq!(within(drained), (hours * 1_000.0).round() / 1_000.0);
        // more than a week, and it comes to an end all the same
        let drained = within(drain(&budget, 20e9, 20_000.0, TUESDAY));
        assert!((200.0..400.0).contains(&drained), "{drained}");
        // the mean of the week is below what comes
        assert_eq!(drain(&budget, 20e9, 41_000.0, TUESDAY), Drained::Never);
        let mean = per_day(&budget).unwrap();
        assert!((mean - 86_400.0 * (128.0 * 50_000.0 + 40.0 * 10_000.0) / 168.0).abs() < 1.0);
    }

    #[test]
    fn where_nothing_limits_it_only_the_link_does() {
        let none = Budget::default();
        assert_eq!(drain(&none, 1e9, 1e6, TUESDAY), Drained::ByTheLink(0.0));
        assert_eq!(per_day(&none), None);
        let at_noon = TUESDAY + 12 * 3_600_000;
        let drained = drain(&office(None), 1e12, 1e6, at_noon);
        assert_eq!(drained, Drained::ByTheLink(4.0));
        // and a little is gone before that
        let drained = drain(&office(None), 36e6, 5_000.0, at_noon);
        assert_eq!(within(drained), 2.0);
    }
}
