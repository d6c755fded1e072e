//! `[uplink]`: how much of the link this agent may use, and when ([`crate::uplink::budget`]).

use scc_common::config::{ConfigError, Document};
use serde::Deserialize;
use toml::Spanned;

use super::{Shape, offset, wita};
use crate::uplink::budget::{Budget, Hours};

/// Less would not carry one still of a camera in a minute.
const LEAST: u32 = 4_000;

/// 8 Gbit/s: whoever writes more has miscounted the zeros.
const MOST: u32 = 1_000_000_000;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const RIGHT_DAYS: &str = "write \"mon-fri\", \"sat,sun\" or \"mon-sun\"";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UplinkShape {
    bytes_per_s: Option<Spanned<u32>>,
    #[serde(default)]
    budget: Vec<HoursShape>,
    #[serde(default = "wita")]
    utc_offset: Spanned<String>,
}

impl Default for UplinkShape {
    fn default() -> Self {
        Self {
            bytes_per_s: None,
            budget: Vec::new(),
            utc_offset: wita(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursShape {
    days: Spanned<String>,
    from: Spanned<String>,
    to: Spanned<String>,
    bytes_per_s: Spanned<u32>,
}

pub(super) fn budget(doc: &Document<Shape>, shape: &UplinkShape) -> Result<Budget, ConfigError> {
    let usual = match &shape.bytes_per_s {
        Some(n) if *n.get_ref() != 0 => Some(rate(doc, n, ", or 0 for no limit")?),
        _ => None,
    };
    let hours = shape.budget.iter().map(|h| {
        let days = days(h.days.get_ref()).map_err(|what| {
            let what = format!("{what}; {RIGHT_DAYS}");
            doc.wrong(h.days.span().start, "days", what)
        })?;
        Ok(Hours {
            days,
            from: minute(doc, &h.from, "from", 23 * 60 + 59)?,
            to: minute(doc, &h.to, "to", 24 * 60)?,
            bytes_per_s: rate(doc, &h.bytes_per_s, "")?,
        })
    });
    Ok(Budget {
        usual,
        hours: hours.collect::<Result<_, _>>()?,
        utc_offset_min: offset(doc, &shape.utc_offset)?,
    })
}

fn rate(doc: &Document<Shape>, n: &Spanned<u32>, or: &str) -> Result<u32, ConfigError> {
    let most = format!("{MOST}{or}");
    match n.get_ref() {
        LEAST..=MOST => Ok(*n.get_ref()),
        given => {
            let what = format!("{given} is out of range; give {LEAST} to {most}");
            Err(doc.wrong(n.span().start, "bytes_per_s", what))
        }
    }
}

/// Minute of the day of `HH:MM`.
fn minute(
    doc: &Document<Shape>,
    text: &Spanned<String>,
    key: &str,
    most: u16,
) -> Result<u16, ConfigError> {
    let digits = |s: &str| (s.len() == 2).then(|| s.parse::<u16>().ok()).flatten();
    let parse = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        (minute < 60).then(|| hour * 60 + minute)
    };
    parse(text.get_ref()).filter(|m| *m <= most).ok_or_else(|| {
        let latest = format!("{:02}:{:02}", most / 60, most % 60);
        let what = format!(
            "`{}` is no time of day; write 00:00 to {latest}, such as \"07:30\"",
            text.get_ref()
        );
        doc.wrong(text.span().start, key, what)
    })
}

/// `mon-fri`, `sat,sun`, `fri-mon`: days and ranges of them, with commas between.
fn days(text: &str) -> Result<[bool; 7], String> {
    let day = |word: &str| {
        let place = DAYS.iter().position(|d| *d == word);
        place.ok_or_else(|| format!("`{word}` is no day"))
    };
    let mut days = [false; 7];
    for item in text.split(',').map(str::trim) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (day(first.trim())?, day(last.trim())?);
        // a range may go over the end of the week
        let length = (last + 7 - first) % 7;
        for n in 0..=length {
            if let Some(holds) = days.get_mut((first + n) % 7) {
                *holds = true;
            }
        }
    }
    Ok(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_single_listed_or_ranges_over_the_weekend_too() {
        let on = |text: &str| {
            let days = days(text).unwrap();
            let names = DAYS.iter().zip(days).filter(|(_, on)| *on);
            names.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(on("mon-fri"), "mon tue wed thu fri");
        assert_eq!(on("sat, sun"), "sat sun");
        assert_eq!(on("fri-mon"), "mon fri sat sun");
        assert_eq!(on("mon-sun"), DAYS.join(" "));
        assert_eq!(days("senin").unwrap_err(), "`senin` is no day");
        assert_eq!(days("").unwrap_err(), "`` is no day");
    }
}
