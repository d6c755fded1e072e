//! The upload budget: how many bytes per second this agent may send, and when.
//!
//! Promise: in any ten seconds, at most 5 % more than the budget goes out, as long as the exempt
//! streams alone stay below it. Events, punches and health never wait for the budget; their bytes
//! are counted, so that what else is sent leaves them their room. Pictures, video, warehouse and the
//! stills of *now* wait.
//!
//! Hours are those of the site's own time zone, by the wall clock. While nobody has confirmed that
//! clock, the strictest budget of the configuration holds: a box that does not know the time cannot
//! claim that the office is closed.
//!
//! The bucket is a virtual scheduling clock (GCRA): each byte moves the time at which everything is
//! paid for. It allows debt, which the governor crate does not: an exempt record must be counted
//! although it does not wait, and it runs on the runtime's clock, which tests can stop.

use std::time::Duration;

use scc_common::clock::{Clock, ClockQuality, WallMs};
use scc_common::stream::Stream;
use tokio::time::Instant;

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// 1970-01-01 was a Thursday; days of the week count from Monday.
const FIRST_DAY: i64 = 3;

/// What an idle agent may be ahead of the budget. One message more makes 0.35 s, or 3.5 % of ten.
const BURST: Duration = Duration::from_millis(100);

/// Largest message of a budget's traffic, as a share of a second's bytes.
pub(super) const SHARE: u64 = 4;

/// What MQTT and TLS add to a message: topic, headers, record overhead.
const PER_MESSAGE: usize = 96;

/// Hours of the week with a budget of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Whether they begin on this day, Monday first.
    pub days: [bool; 7],
    /// Minute of the day at which they begin.
    pub from: u16,
    /// Minute of the day at which they end. Not after `from`: on the next day.
    pub to: u16,
    /// Bytes per second.
    pub bytes_per_s: u32,
}

impl Hours {
    /// Whether they hold at this minute of this day.
    fn hold(&self, day: usize, minute: u16) -> bool {
        let begins_on = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.from < self.to {
            begins_on(day) && (self.from..self.to).contains(&minute)
        } else {
            (begins_on(day) && minute >= self.from) || (begins_on(day + 6) && minute < self.to)
        }
    }
}

/// The budget as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Budget {
    /// Outside all hours, bytes per second; none = all that the link can.
    pub usual: Option<u32>,
    /// Where several hold at once, the strictest counts.
    pub hours: Vec<Hours>,
    /// Minutes that the site's clocks are ahead of UTC.
    pub utc_offset_min: i16,
}

impl Budget {
    /// Bytes per second at this time; none = no limit.
    #[must_use]
    pub fn at(&self, wall_ms: WallMs, quality: ClockQuality) -> Option<u32> {
        let rates = self.hours.iter().map(|h| h.bytes_per_s);
        if quality == ClockQuality::Unconfirmed {
            return rates.chain(self.usual).min();
        }
        let local = wall_ms.saturating_add(i64::from(self.utc_offset_min) * MINUTE_MS);
        let day = (local.div_euclid(DAY_MS) + FIRST_DAY).rem_euclid(7);
        let minute = local.rem_euclid(DAY_MS) / MINUTE_MS;
        // both are small and not negative
        let (day, minute) = (
            usize::try_from(day).unwrap_or(0),
            u16::try_from(minute).unwrap_or(0),
        );
        let holding = self.hours.iter().filter(|h| h.hold(day, minute));
        holding.map(|h| h.bytes_per_s).min().or(self.usual)
    }
}

/// Whether this stream never waits for the budget. `live`: nothing older than the last minute waits in the
/// lane; the measurements of an outage are backlog like its pictures.
pub(super) const fn is_exempt(stream: Stream, live: bool) -> bool {
    match stream {
        Stream::Event | Stream::Attendance => true,
        Stream::Health => live,
        Stream::Warehouse | Stream::Snapshot | Stream::Segment => false,
    }
}

/// What has been spent of it. Outlives connections: a link that flaps earns nothing.
#[derive(Debug)]
pub(super) struct Spending {
    budget: Budget,
    rate: Option<u32>,
    /// When all that was sent is paid for.
    paid_at: Instant,
}

impl Spending {
    /// Nothing has been spent.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            rate: budget.at(0, ClockQuality::Unconfirmed),
            budget,
            paid_at: Instant::now(),
        }
    }

    /// Looks at the clock; the budget that holds now.
    pub(super) fn look(&mut self, clock: &dyn Clock) -> Option<u32> {
        if !self.budget.hours.is_empty() {
            self.rate = self.budget.at(clock.wall_ms(), clock.quality());
        }
        self.rate
    }

    /// The budget that holds now.
    pub(super) const fn rate(&self) -> Option<u32> {
        self.rate
    }

    /// How long what is not exempt must wait; none if it need not.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.rate?;
        let wait = self.paid_at.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Largest message that may go at once, bytes.
    pub(super) fn most(&self) -> usize {
        self.rate.map_or(usize::MAX, |rate| {
            usize::try_from(u64::from(rate) / SHARE).unwrap_or(usize::MAX)
        })
    }

    /// A message of this many bytes goes out.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let Some(rate) = self.rate else { return };
        let bytes = u64::try_from(bytes + PER_MESSAGE).unwrap_or(u64::MAX);
        let cost = bytes.saturating_mul(1_000_000_000) / u64::from(rate.max(1));
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.paid_at = self.paid_at.max(earliest) + Duration::from_nanos(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::Weekday;
    use jiff::tz::{Offset, TimeZone};
    use proptest::prelude::*;

    const WITA: i16 = 8 * 60;

    fn office() -> Budget {
        Budget {
            usual: Some(200_000),
            hours: vec![Hours {
                days: [true, true, true, true, true, false, false],
                from: 7 * 60 + 30,
                to: 16 * 60,
                bytes_per_s: 40_000,
            }],
            utc_offset_min: WITA,
        }
    }

    fn at(budget: &Budget, local: &str) -> Option<u32> {
        let local: jiff::civil::DateTime = local.parse().unwrap();
        let wita = TimeZone::fixed(Offset::from_hours(8).unwrap());
        let instant = local.to_zoned(wita).unwrap().timestamp();
        budget.at(instant.as_millisecond(), ClockQuality::Ntp)
    }

    #[test]
    fn office_hours_begin_and_end_on_the_minute_in_the_sites_own_time() {
        let budget = office();
        for (local, rate) in [
            ("2026-11-24T07:29:59", 200_000), // a Tuesday
            ("2026-11-24T07:30:00", 40_000),
            ("2026-11-24T15:59:59", 40_000),
            ("2026-11-24T16:00:00", 200_000),
            ("2026-11-28T10:00:00", 200_000), // a Saturday
        ] {
            assert_eq!(at(&budget, local), Some(rate), "{local}");
        }
    }

    #[test]
    fn while_the_clock_is_unconfirmed_the_strictest_holds() {
        let budget = office();
        let night = 1_795_000_000_000;
        assert_eq!(budget.at(night, ClockQuality::Unconfirmed), Some(40_000));
        let open = Budget {
            usual: None,
            ..budget
        };
        assert_eq!(open.at(night, ClockQuality::Unconfirmed), Some(40_000));
        assert_eq!(Budget::default().at(0, ClockQuality::Unconfirmed), None);
    }

    fn hours() -> impl Strategy<Value = Hours> {
        (any::<[bool; 7]>(), 0..1_440u16, 1..=1_440u16, 1..4u32).prop_map(|(days, from, to, n)| {
            Hours {
                days,
                from,
                to,
                bytes_per_s: n * 10_000,
            }
        })
    }

    proptest! {
        /// Against a calendar: hours are laid out as civil times of the day before and of the day
        /// itself, and the strictest that contains the instant holds.
        #[test]
        fn hours_hold_as_a_calendar_says(
            hours in proptest::collection::vec(hours(), 0..4),
            usual in proptest::option::of(1..9u32),
            second in 1_735_689_600i64..1_900_000_000,
            offset in -720i16..=840,
        ) {
            let usual = usual.map(|n| n * 5_000);
            let budget = Budget { usual, hours: hours.clone(), utc_offset_min: offset };
            let zone = TimeZone::fixed(Offset::from_seconds(i32::from(offset) * 60).unwrap());
            let instant = jiff::Timestamp::from_second(second).unwrap();
            let local = instant.to_zoned(zone).datetime();
            let mut rates = Vec::new();
            for h in &hours {
                for date in [local.date(), local.date().yesterday().unwrap()] {
                    let monday = usize::try_from(date.weekday().since(Weekday::Monday)).unwrap();
                    if !h.days[monday] {
                        continue;
                    }
                    let minutes = |n: u16| jiff::Span::new().minutes(n);
                    let midnight = date.at(0, 0, 0, 0);
                    let begin = midnight.checked_add(minutes(h.from)).unwrap();
                    let mut end = midnight.checked_add(minutes(h.to)).unwrap();
                    if h.to <= h.from {
                        end = end.checked_add(jiff::Span::new().days(1)).unwrap();
                    }
                    if begin <= local && local < end {
                        rates.push(h.bytes_per_s);
                    }
                }
            }
            let expected = rates.into_iter().min().or(usual);
            prop_assert_eq!(budget.at(second * 1_000, ClockQuality::Hub), expected);
        }

        /// Whoever sends whenever allowed keeps to the budget in every window of ten seconds, and
        /// uses it.
        #[test]
        fn no_ten_seconds_hold_more_than_five_percent_too_much(
            rate in 4_000..1_000_000u32,
            idle_ms in 0..5_000u64,
            late_us in 0..20_000u64,
        ) {
            let budget = Budget { usual: Some(rate), ..Budget::default() };
            let mut spending = Spending::new(budget);
            let begin = Instant::now();
            let mut now = begin + Duration::from_millis(idle_ms);
            let mut sent = Vec::new();
            while now < begin + Duration::from_secs(30) {
                while spending.wait(now).is_none() {
                    let bytes = spending.most();
                    spending.spend(bytes - PER_MESSAGE, now);
                    sent.push((now, u64::try_from(bytes).unwrap()));
                }
                // timers are late
                now += spending.wait(now).unwrap() + Duration::from_micros(late_us);
            }
            let allowed = u64::from(rate) * 10;
            for (i, (from, _)) in sent.iter().enumerate() {
                let window = sent[i..].iter().take_while(|(at, _)| *at < *from + Duration::from_secs(10));
                let bytes: u64 = window.map(|(_, bytes)| bytes).sum();
                prop_assert!(bytes * 100 <= allowed * 105, "{} of {}", bytes, allowed);
            }
            let all: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
            let worth = u64::from(rate) * (30_000 - idle_ms) / 1_000;
            prop_assert!(all * 100 >= worth * 97, "{} of {}", all, worth);
        }
    }
}
