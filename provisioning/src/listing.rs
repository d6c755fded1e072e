//! `site list`: what was issued, until when it is valid, and what must be renewed soon.
//!
//! Dates are the county's (WITA, UTC+8, no daylight saving), whatever the laptop is set to.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::{self, TimeZone};
use scc_common::clock::WallMs;
use scc_common::lang::Lang;

use crate::authority::{Authority, Level};
use crate::error::Error;
use crate::hint;
use crate::index::{Entry, Kind};
use crate::profile::days_between;

/// What ends within so many days is warned of.
pub const WARN_DAYS: i64 = 60;

/// The whole table, followed by a line for each thing that ends soon.
///
/// # Errors
/// [`Error::Identity`] if a level's certificate cannot be read.
pub fn listing(authority: &Authority, now_ms: WallMs, lang: Lang) -> Result<String, Error> {
    let mut entries: Vec<&Entry> = authority
        .index
        .entries()
        .iter()
        .filter(|e| e.kind == Kind::Agent)
        .collect();
    entries.sort_by(|a, b| (&a.id, a.issued).cmp(&(&b.id, b.issued)));
    let mut text = if entries.is_empty() {
        nothing_yet(authority, lang)
    } else {
        table(&entries, now_ms, lang)
    };
    for warning in warnings(authority, &entries, now_ms, lang)? {
        let _ = write!(text, "\n! {warning}");
    }
    Ok(text)
}

fn nothing_yet(authority: &Authority, lang: Lang) -> String {
    let first = hint::site_issue(authority.dir(), "salotungo", "salotungo");
    match lang {
        Lang::Id => {
            format!("Belum ada sertifikat lokasi. Yang pertama, misalnya untuk salotungo: {first}")
        }
        Lang::En => {
            format!("No site has a certificate yet. The first, for salotungo say: {first}")
        }
    }
}

fn table(entries: &[&Entry], now_ms: WallMs, lang: Lang) -> String {
    let head = match lang {
        Lang::Id => [
            "LOKASI",
            "NOMOR SERI",
            "DITERBITKAN",
            "BERLAKU S.D.",
            "KETERANGAN",
        ],
        Lang::En => ["SITE", "SERIAL", "ISSUED", "EXPIRES", "NOTE"],
    };
    let mut rows = vec![head.map(str::to_owned)];
    for e in entries {
        rows.push([
            e.id.clone(),
            e.serial.hex(),
            day(e.issued),
            day(e.expires),
            note(e, now_ms, lang),
        ]);
    }
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 5] = std::array::from_fn(width);
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

fn note(e: &Entry, now_ms: WallMs, lang: Lang) -> String {
    if let Some(at) = e.revoked {
        return format!("{} {}", lang.pick("dicabut", "revoked"), day(at));
    }
    let left = days_between(now_ms, e.expires.as_millisecond());
    match (left, lang) {
        (..0, Lang::Id) => "KEDALUWARSA".into(),
        (..0, Lang::En) => "EXPIRED".into(),
        (_, Lang::Id) => format!("{left} hari lagi"),
        (_, Lang::En) => format!("{left} days left"),
    }
}

/// A site is warned of by its longest-living certificate: an old one that runs out beside a new
/// one is no news.
fn warnings(
    authority: &Authority,
    entries: &[&Entry],
    now_ms: WallMs,
    lang: Lang,
) -> Result<Vec<String>, Error> {
    let dir = authority.dir();
    // the folder of the certificate before may still be there, with its key
    let out = |id: &str| format!("{id}-{}", timestamp_day(now_ms));
    let mut ends: Vec<(String, WallMs, String)> = Vec::new();
    for e in newest_ends(entries.iter().copied()) {
        ends.push((
            format!("{} {}", lang.pick("sertifikat", "the certificate of"), e.id),
            e.expires.as_millisecond(),
            hint::site_issue(dir, &e.id, &out(&e.id)),
        ));
    }
    let hubs = authority.index.entries().iter();
    for e in newest_ends(hubs.filter(|e| e.kind == Kind::Hub)) {
        ends.push((
            format!(
                "{} {}",
                lang.pick("sertifikat pusat", "the hub's certificate"),
                e.id
            ),
            e.expires.as_millisecond(),
            hint::hub_issue(dir, e, &out(&e.id), lang),
        ));
    }
    ends.push((
        lang.pick("daftar pencabutan", "the revocation list").into(),
        authority.index.crl_until_ms(),
        hint::crl(dir),
    ));
    for (level, id, en) in [
        (
            Level::Agents,
            "tingkat penerbit agen",
            "the agents' issuing level",
        ),
        (
            Level::Hub,
            "tingkat penerbit pusat",
            "the hub's issuing level",
        ),
    ] {
        ends.push((
            lang.pick(id, en).into(),
            authority.level_until_ms(level)?,
            lang.pick(
                "otoritas baru, lihat docs/design/identity.md",
                "a new authority, see docs/design/identity.md",
            )
            .into(),
        ));
    }
    Ok(ends
        .into_iter()
        .filter_map(|(what, until_ms, remedy)| {
            let left = days_between(now_ms, until_ms);
            let date = timestamp_day(until_ms);
            match (left, lang) {
                (WARN_DAYS.., _) => None,
                (..0, Lang::Id) => Some(format!("{what} sudah berakhir {date}: {remedy}")),
                (..0, Lang::En) => Some(format!("{what} ended on {date}: {remedy}")),
                (_, Lang::Id) => Some(format!(
                    "{what} berakhir {date}, {left} hari lagi: {remedy}"
                )),
                (_, Lang::En) => Some(format!("{what} ends on {date}, in {left} days: {remedy}")),
            }
        })
        .collect())
}

/// Per name, the certificate not withdrawn that lives longest.
fn newest_ends<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<&'a Entry> {
    let mut newest = std::collections::BTreeMap::<&str, &Entry>::new();
    for e in entries.filter(|e| e.revoked.is_none()) {
        let held = newest.entry(&e.id).or_insert(e);
        if e.expires > held.expires {
            *held = e;
        }
    }
    newest.into_values().collect()
}

fn timestamp_day(ms: WallMs) -> String {
    day(crate::index::timestamp(ms))
}

fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::fixed(tz::offset(8)))
        .strftime("%Y-%m-%d")
        .to_string()
}
