//! The terminal's wall clock (zk.md §8).
//!
//! A terminal knows no zone; it counts months of 31 days, so it can name days that do not exist.
//! Here every time is *local seconds*: seconds since 2000-01-01 00:00 on the terminal's own wall,
//! on the true calendar. What is no day of the calendar is `None`, never a neighbouring day.

use jiff::civil::{Date, DateTime, date};
use scc_common::clock::WallMs;

/// Seconds since 2000-01-01 00:00 of the terminal's own wall clock.
pub type LocalS = i64;

/// 2005-01-01 00:00: no terminal of this family stored punches before.
pub const OLDEST_PLAUSIBLE: LocalS = 157_852_800;

/// A day.
pub const DAY_S: i64 = 86_400;

/// 2000-01-01 00:00 UTC, seconds since 1970.
const EPOCH_UNIX_S: i64 = 946_684_800;

fn epoch() -> DateTime {
    date(2000, 1, 1).at(0, 0, 0, 0)
}

fn local(y: i16, m: i8, d: i8, h: i8, min: i8, s: i8) -> Option<LocalS> {
    let at = DateTime::new(y, m, d, h, min, s, 0).ok()?;
    Some(at.duration_since(epoch()).as_secs())
}

/// Reads an encoded time. `None` for a day that the calendar does not have.
#[must_use]
pub fn decode(encoded: u32) -> Option<LocalS> {
    let (minutes, s) = (encoded / 60, encoded % 60);
    let (hours, min) = (minutes / 60, minutes % 60);
    let (days, h) = (hours / 24, hours % 24);
    let (months, d) = (days / 31, days % 31 + 1);
    let (y, m) = (months / 12 + 2000, months % 12 + 1);
    local(
        i16::try_from(y).ok()?,
        i8::try_from(m).ok()?,
        i8::try_from(d).ok()?,
        i8::try_from(h).ok()?,
        i8::try_from(min).ok()?,
        i8::try_from(s).ok()?,
    )
}

/// Reads the six bytes of a live event: year − 2000, month, day, hour, minute, second.
#[must_use]
pub fn from_event(bytes: [u8; 6]) -> Option<LocalS> {
    let [y, m, d, h, min, s] = bytes;
    local(
        2000 + i16::from(y),
        i8::try_from(m).ok()?,
        i8::try_from(d).ok()?,
        i8::try_from(h).ok()?,
        i8::try_from(min).ok()?,
        i8::try_from(s).ok()?,
    )
}

/// The instant, if the terminal's clock were right.
#[must_use]
pub fn wall_ms(local_s: LocalS, utc_offset_min: i16) -> WallMs {
    (EPOCH_UNIX_S + local_s - i64::from(utc_offset_min) * 60) * 1_000
}

/// What a terminal's wall would show at this instant, if it were right.
#[must_use]
pub fn local_s(wall_ms: WallMs, utc_offset_min: i16) -> LocalS {
    wall_ms.div_euclid(1_000) - EPOCH_UNIX_S + i64::from(utc_offset_min) * 60
}

/// The local day as `yyyy-mm-dd`, from the number of days since 2000-01-01. Numbers that no
/// terminal can name saturate at the calendar's ends.
#[must_use]
pub fn day_name(day: i64) -> String {
    let start = date(2000, 1, 1);
    // no calendar day is further away than this
    let hours = day.clamp(-4_000_000, 4_000_000) * 24;
    start
        .checked_add(jiff::SignedDuration::from_hours(hours))
        .unwrap_or(if day < 0 { Date::MIN } else { Date::MAX })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> LocalS {
        text.parse::<DateTime>()
            .unwrap()
            .duration_since(epoch())
            .as_secs()
    }

    #[test]
    fn the_sheets_times_read_as_the_sheet_says() {
        for (bytes, text) in [
            ([0xF6, 0x98, 0x86, 0x33], "2026-11-24T07:29:58"),
            ([0x40, 0xC1, 0x48, 0x2E], "2024-02-29T12:00:00"),
            ([0x6B, 0xB3, 0x68, 0x23], "2018-06-25T17:50:35"),
            ([0xB8, 0xEB, 0xC9, 0x29], "2021-10-24T13:42:16"),
            ([0, 0, 0, 0], "2000-01-01T00:00:00"),
            ([0xFF, 0xF7, 0x92, 0xBF], "2099-12-31T23:59:59"),
        ] {
            assert_eq!(decode(u32::from_le_bytes(bytes)), Some(at(text)), "{text}");
        }
        assert_eq!(OLDEST_PLAUSIBLE, at("2005-01-01T00:00:00"));
    }

    #[test]
    fn a_day_that_does_not_exist_is_no_time() {
        // 31 February 2026, 08:00:00, in months of 31 days
        let t = ((26 * 12 + 1) * 31 + 30) * 86_400 + 8 * 3_600;
        assert_eq!(decode(t), None);
        assert_eq!(from_event([26, 2, 30, 8, 0, 0]), None);
        assert_eq!(from_event([26, 13, 1, 8, 0, 0]), None);
        assert_eq!(from_event([26, 1, 1, 24, 0, 0]), None);
        assert_eq!(from_event([255; 6]), None);
    }

    #[test]
    fn an_events_time_is_the_same_as_the_logs() {
        assert_eq!(
            from_event([0x12, 0x06, 0x19, 0x11, 0x29, 0x05]),
            Some(at("2018-06-25T17:41:05"))
        );
        assert_eq!(
            from_event([0x12, 0x0B, 0x1D, 0x0C, 0x37, 0x03]),
            Some(at("2018-11-29T12:55:03"))
        );
    }

    #[test]
    fn soppeng_is_eight_hours_ahead() {
        let local = at("2026-11-24T07:29:58");
        let utc: jiff::Timestamp = "2026-11-23T23:29:58Z".parse().unwrap();
        assert_eq!(wall_ms(local, 480), utc.as_millisecond());
        assert_eq!(local_s(wall_ms(local, 480) + 999, 480), local);
        assert_eq!(day_name(local.div_euclid(DAY_S)), "2026-11-24");
        assert_eq!(day_name(i64::MAX), "9999-12-31");
    }

    proptest! {
        #[test]
        fn no_time_panics_and_each_lies_in_its_century(encoded: u32, bytes: [u8; 6], day: i64) {
            if let Some(s) = decode(encoded) {
                // 2^32 seconds of 31-day months end in early 2133
                prop_assert!((0..4_230_000_000).contains(&s));
            }
            let _ = from_event(bytes);
            let _ = day_name(day);
        }
    }
}
