//! Sizes and time spans, as every command writes them.

use scc_common::lang::Lang;

/// Bytes with a unit of 1,000, at most four digits.
#[must_use]
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1_000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

/// How long ago something was, in one unit. What lies in the future has `?`: the clock was set back.
#[must_use]
pub fn ago(ms: i64, lang: Lang) -> String {
    // a clock that is being disciplined may be a moment behind its own past
    if ms < -60_000 {
        return "?".into();
    }
    let s = ms.max(0) / 1_000;
    let (n, unit) = match s {
        0..120 => (s, lang.pick("dtk", "s")),
        120..7_200 => (s / 60, lang.pick("mnt", "min")),
        7_200..172_800 => (s / 3_600, lang.pick("jam", "h")),
        _ => return days(s / 86_400, lang),
    };
    format!("{n} {unit}")
}

/// So many days.
#[must_use]
pub fn days(n: i64, lang: Lang) -> String {
    format!("{n} {}", lang.pick("hari", "d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_short_and_have_the_unit_of_the_language() {
        let sizes = [0, 9_999, 10_000, 130 << 20, 32_000_000_000].map(size);
        assert_eq!(sizes, ["0 B", "9999 B", "10 kB", "136 MB", "32 GB"]);
        let spans = [0, 119_999, 120_000, 3 * 3_600_000, 4 * 86_400_000];
        assert_eq!(
            spans.map(|ms| ago(ms, Lang::Id)),
            ["0 dtk", "119 dtk", "2 mnt", "3 jam", "4 hari"]
        );
        assert_eq!(ago(120_000, Lang::En), "2 min");
        assert_eq!(ago(-1, Lang::En), "0 s");
        assert_eq!(ago(-3_600_000, Lang::Id), "?");
    }
}
