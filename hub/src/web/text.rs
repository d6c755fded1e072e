//! Words, numbers and times as people of Soppeng read them.
//!
//! All words come from `locales/id.ftl` and `locales/en.ftl`; a test holds the two to the same keys
//! and every key that the program uses to both. Times are in the register's zone: `09.42` in
//! Indonesian, `09:42` in English. Ages grow while a page is open, so a page carries them as marks:
//! [`T::age`] writes one, [`finish`] fills them in just before the bytes leave.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;

use fluent_templates::{LanguageIdentifier, Loader, fluent_bundle::FluentValue};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use scc_common::clock::WallMs;
use scc_common::lang::Lang;
use scc_common::record::{Cause, State};

use crate::compare;
use crate::store::views::Day;

fluent_templates::static_loader! {
    static LOCALES = {
        locales: "./locales",
        fallback_language: "id",
        // nothing here is written from right to left: no invisible marks in titles and exports
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

static ID: LanguageIdentifier = fluent_templates::langid!("id");
static EN: LanguageIdentifier = fluent_templates::langid!("en");

/// A value in a sentence.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    /// Decides between singular and plural; written without separators.
    Count(u64),
    /// Written as it is.
    Text(String),
}

impl From<u64> for Arg {
    fn from(n: u64) -> Self {
        Self::Count(n)
    }
}

impl From<usize> for Arg {
    fn from(n: usize) -> Self {
        Self::Count(n as u64)
    }
}

impl From<&u64> for Arg {
    fn from(n: &u64) -> Self {
        Self::Count(*n)
    }
}

impl From<&usize> for Arg {
    fn from(n: &usize) -> Self {
        Self::from(*n)
    }
}

impl From<&u32> for Arg {
    fn from(n: &u32) -> Self {
        Self::Count(u64::from(*n))
    }
}

impl From<&String> for Arg {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A language, a zone and a moment: everything that is needed to say something.
#[derive(Debug, Clone)]
pub(crate) struct T {
    pub(crate) lang: Lang,
    pub(crate) zone: TimeZone,
    pub(crate) now_ms: WallMs,
}

impl T {
    pub(crate) fn new(lang: Lang, zone: TimeZone, now_ms: WallMs) -> Self {
        Self { lang, zone, now_ms }
    }

    fn locale(&self) -> &'static LanguageIdentifier {
        match self.lang {
            Lang::Id => &ID,
            Lang::En => &EN,
        }
    }

    /// The words behind a key.
    pub(crate) fn s(&self, key: &str) -> String {
        LOCALES.lookup(self.locale(), key)
    }

    /// A sentence with one value.
    pub(crate) fn a(&self, key: &str, name: &'static str, value: impl Into<Arg>) -> String {
        self.with(key, &[(name, value.into())])
    }

    /// A sentence with several values.
    pub(crate) fn with(&self, key: &str, args: &[(&'static str, Arg)]) -> String {
        let args: HashMap<Cow<'static, str>, FluentValue<'_>> = args
            .iter()
            .map(|(name, arg)| {
                let value = match arg {
                    Arg::Count(n) => FluentValue::from(*n),
                    Arg::Text(text) => FluentValue::from(text.as_str()),
                };
                (Cow::Borrowed(*name), value)
            })
            .collect();
        LOCALES.lookup_with_args(self.locale(), key, &args)
    }

    /// The word for a state.
    pub(crate) fn state(&self, state: impl Borrow<State>) -> String {
        self.s(&format!("state-{}", state.borrow().name()))
    }

    /// The sentence for a cause.
    pub(crate) fn cause(&self, cause: Cause) -> String {
        self.s(&format!("cause-{}", cause.name().replace('_', "-")))
    }

    /// The first thing to do about a cause.
    pub(crate) fn remedy(&self, cause: Cause) -> String {
        self.s(&format!("remedy-{}", cause.name().replace('_', "-")))
    }

    /// A number with the language's separators.
    pub(crate) fn int(&self, n: impl Borrow<u64>) -> String {
        let n = n.borrow();
        let digits = n.to_string();
        let mark = self.lang.pick(".", ",");
        let mut out = String::with_capacity(digits.len() + digits.len() / 3);
        for (i, c) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                out.push_str(mark);
            }
            out.push(c);
        }
        out
    }

    /// One decimal at most.
    pub(crate) fn decimal(&self, n: impl Borrow<f64>) -> String {
        let n = n.borrow();
        let text = format!("{n:.1}");
        let text = text.strip_suffix(".0").unwrap_or(&text);
        text.replace('.', self.lang.pick(",", "."))
    }

    /// A measurement with one decimal at most.
    pub(crate) fn tenth(&self, n: impl Borrow<f32>) -> String {
        self.decimal(f64::from(*n.borrow()))
    }

    /// A size, decimal units.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    pub(crate) fn bytes(&self, n: impl Borrow<u64>) -> String {
        let n = *n.borrow();
        let (unit, name) = match n {
            0..1_000 => return format!("{n} B"),
            1_000..1_000_000 => (1e3, "kB"),
            1_000_000..1_000_000_000 => (1e6, "MB"),
            _ => (1e9, "GB"),
        };
        format!("{} {name}", self.decimal(n as f64 / unit))
    }

    fn civil(&self, ms: WallMs) -> DateTime {
        let stamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        stamp.to_zoned(self.zone.clone()).datetime()
    }

    const fn point(&self) -> char {
        match self.lang {
            Lang::Id => '.',
            Lang::En => ':',
        }
    }

    fn hm_of(&self, at: DateTime) -> String {
        format!("{:02}{}{:02}", at.hour(), self.point(), at.minute())
    }

    /// `09.42`
    pub(crate) fn hm(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        self.hm_of(self.civil(ms))
    }

    /// `09.42.17`
    pub(crate) fn hms(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        let at = self.civil(ms);
        format!("{}{}{:02}", self.hm_of(at), self.point(), at.second())
    }

    /// `24 Nov`
    pub(crate) fn day_short(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        let at = self.civil(ms);
        let month = self.s(&format!("month-short-{}", at.month()));
        format!("{} {month}", at.day())
    }

    /// `Selasa, 24 November 2026`
    pub(crate) fn day_long(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        let at = self.civil(ms);
        let weekday = self.s(&format!("weekday-{}", at.weekday().to_monday_one_offset()));
        let month = self.s(&format!("month-{}", at.month()));
        format!("{weekday}, {} {month} {}", at.day(), at.year())
    }

    /// A time of today as `08.55`, of yesterday as `kemarin 16.20`, older as `12 Nov`.
    pub(crate) fn when(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        let (at, today) = (self.civil(ms).date(), self.civil(self.now_ms).date());
        if at == today {
            self.hm(ms)
        } else if at == today.saturating_sub(1.day()) {
            self.a("yesterday-at", "time", self.hm(ms))
        } else {
            self.day_short(ms)
        }
    }

    /// For `<time datetime>`.
    pub(crate) fn iso(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        let stamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let zoned = stamp.to_zoned(self.zone.clone());
        zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// What the zone calls itself, such as WITA.
    pub(crate) fn zone_name(&self) -> String {
        let stamp = Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        stamp.to_zoned(self.zone.clone()).strftime("%Z").to_string()
    }

    /// Minutes that the zone is ahead of UTC now.
    pub(crate) fn offset_min(&self) -> i32 {
        let stamp = Timestamp::from_millisecond(self.now_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        self.zone.to_offset(stamp).seconds() / 60
    }

    /// Today.
    pub(crate) fn today(&self) -> Day {
        let date = self.civil(self.now_ms).date();
        // no clock shows the last day of the calendar
        self.day(date)
            .unwrap_or_else(|| Day::running(date.to_string(), 0))
    }

    /// A day of the register's zone; none beyond the calendar.
    pub(crate) fn day(&self, date: Date) -> Option<Day> {
        compare::day(&self.zone, date, self.now_ms)
    }

    /// A terminal's own clock: seconds since 2000-01-01 in its zone.
    pub(crate) fn terminal_hms(&self, local_s: i64) -> String {
        let base = jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0);
        let at = base.saturating_add(local_s.clamp(0, 10_000_000_000).seconds());
        format!("{}{}{:02}", self.hm_of(at), self.point(), at.second())
    }

    /// How long ago, in the two largest units that matter: `47 mnt`, `2 j 30 mnt`, `12 hari`.
    pub(crate) fn span(&self, ms: i64) -> String {
        let s = ms.max(0) / 1_000;
        let unit = |key: &str, n: i64| format!("{n} {}", self.s(key));
        match s {
            0..60 => unit("unit-second", s),
            60..3_600 => unit("unit-minute", s / 60),
            3_600..86_400 => {
                let (hours, minutes) = (s / 3_600, s % 3_600 / 60);
                if minutes == 0 || hours >= 10 {
                    unit("unit-hour", hours)
                } else {
                    format!(
                        "{} {}",
                        unit("unit-hour", hours),
                        unit("unit-minute", minutes)
                    )
                }
            }
            _ => {
                let days = u64::try_from(s / 86_400).unwrap_or(0);
                self.a("unit-days", "n", days)
            }
        }
    }

    /// An age that grows while the page is open. HTML.
    pub(crate) fn age(&self, ms: impl Borrow<WallMs>) -> String {
        let ms = *ms.borrow();
        format!("<span class=\"age\" data-age=\"{ms}\">{OPEN}{ms}{CLOSE}</span>")
    }
}

const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// Fills in the ages of a page. Until then the page is a function of what is known alone, and can
/// be compared with what was sent before.
pub(crate) fn finish(html: &str, t: &T) -> String {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    while let Some((before, after)) = rest.split_once(OPEN) {
        out.push_str(before);
        let (ms, after) = after.split_once(CLOSE).unwrap_or(("", after));
        out.push_str(&t.span(t.now_ms - ms.parse::<WallMs>().unwrap_or(t.now_ms)));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn t(lang: Lang) -> T {
        // 2026-11-24 09:42:17 WITA
        T::new(
            lang,
            TimeZone::get("Asia/Makassar").unwrap(),
            1_795_484_537_000,
        )
    }

    #[test]
    fn times_are_written_as_the_county_writes_them() {
        let id = t(Lang::Id);
        assert_eq!(id.hms(id.now_ms), "09.42.17");
        assert_eq!(id.day_long(id.now_ms), "Selasa, 24 November 2026");
        assert_eq!(id.zone_name(), "WITA");
        assert_eq!(id.when(id.now_ms - 47 * 60_000), "08.55");
        assert_eq!(id.when(id.now_ms - 17 * 3_600_000), "kemarin 16.42");
        assert_eq!(id.when(id.now_ms - 12 * 86_400_000), "12 Nov");
        let today = Day {
            name: "2026-11-24".to_owned(),
            from_ms: 1_795_449_600_000,
            to_ms: 1_795_536_000_000,
            ended: false,
        };
        assert_eq!(id.today(), today);
        assert_eq!(id.terminal_hms(7 * 3_600 + 29 * 60 + 5), "07.29.05");
        let en = t(Lang::En);
        assert_eq!(en.hm(en.now_ms), "09:42");
        assert_eq!(en.day_long(en.now_ms), "Tuesday, 24 November 2026");
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let id = t(Lang::Id);
        for (ms, text) in [
            (-5, "0 dtk"),
            (9_999, "9 dtk"),
            (47 * 60_000, "47 mnt"),
            (150 * 60_000, "2 j 30 mnt"),
            (17 * 3_600_000 + 1_000_000, "17 j"),
            (12 * 86_400_000, "12 hari"),
        ] {
            assert_eq!(id.span(ms), text);
        }
        assert_eq!(t(Lang::En).span(86_400_000), "1 day");
    }

    #[test]
    fn numbers_have_the_languages_separators() {
        assert_eq!(t(Lang::Id).int(1_234_567), "1.234.567");
        assert_eq!(t(Lang::En).int(1_309), "1,309");
        assert_eq!(t(Lang::Id).int(384), "384");
        assert_eq!(t(Lang::Id).bytes(1_310_000_000), "1,3 GB");
        assert_eq!(t(Lang::Id).bytes(12), "12 B");
    }

    #[test]
    fn ages_are_filled_in_last() {
        let id = t(Lang::Id);
        let mark = id.age(id.now_ms - 9_000);
        assert_eq!(
            finish(&format!("a{mark}b{mark}"), &id)
                .matches(">9 dtk<")
                .count(),
            2
        );
    }

    fn keys(text: &str) -> BTreeSet<String> {
        text.lines()
            .filter(|l| !l.starts_with([' ', '#', '}', '.']))
            .filter_map(|l| l.split_once(" ="))
            .map(|(k, _)| k.to_owned())
            .collect()
    }

    const ID_FTL: &str = include_str!("../../locales/id.ftl");
    const EN_FTL: &str = include_str!("../../locales/en.ftl");

    #[test]
    fn both_languages_have_every_key_and_no_empty_word() {
        assert_eq!(keys(ID_FTL), keys(EN_FTL));
        let names: BTreeSet<&str> = ID_FTL
            .split("{ $")
            .skip(1)
            .filter_map(|rest| rest.split([' ', '}']).next())
            .collect();
        let args = names
            .iter()
            .map(|n| (Cow::Owned((*n).to_owned()), FluentValue::from(2)));
        let args: HashMap<Cow<'static, str>, FluentValue<'_>> = args.collect();
        for key in keys(ID_FTL) {
            for lang in [Lang::Id, Lang::En] {
                let word = LOCALES.lookup_with_args(t(lang).locale(), &key, &args);
                assert!(
                    !word.trim().is_empty() && !word.contains("Unknown localization"),
                    "{key}: {word}"
                );
            }
        }
    }

    #[test]
    fn every_key_that_the_program_uses_exists() {
        let have = keys(ID_FTL);
        let mut used: BTreeSet<String> = BTreeSet::new();
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut dirs = vec![root.join("src/web"), root.join("templates")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for call in ["t.s(\"", "t.a(\"", "t.with(\"", "self.s(\"", "self.a(\""] {
                    for piece in text.split(call).skip(1) {
                        used.extend(piece.split('"').next().map(str::to_owned));
                    }
                }
            }
        }
        assert!(used.len() > 50, "the search found only {}", used.len());
        let missing: Vec<_> = used.difference(&have).collect();
        assert!(missing.is_empty(), "no words for {missing:?}");
    }

    #[test]
    fn states_causes_streams_and_reasons_have_words() {
        use crate::fleet::judge::SiteCause;
        use scc_common::stream::Stream;
        use scc_common::wire::GapReason;
        let have = keys(ID_FTL);
        let mut wanted: Vec<String> = Vec::new();
        for cause in Cause::ALL {
            wanted.push(format!("cause-{}", cause.name()));
            wanted.push(format!("remedy-{}", cause.name()));
        }
        wanted.extend(SiteCause::ALL.map(|c| format!("site-cause-{}", c.name())));
        wanted.extend(SiteCause::ALL.map(|c| format!("site-remedy-{}", c.name())));
        wanted.extend(Stream::ALL.map(|s| format!("stream-{}", s.name())));
        wanted.extend(GapReason::ALL.map(|r| format!("gap-{}", r.name())));
        for state in ["up", "degraded", "down", "unknown", "maintenance", "never"] {
            wanted.push(format!("state-{state}"));
        }
        for what in crate::web::hub::What::ALL.map(|w| w.name()) {
            for key in [
                "hub-{}",
                "hub-{}-what",
                "hub-{}-remedy",
                "way-hub-{}",
                "broken-{}-title",
                "broken-{}-text",
            ] {
                wanted.push(key.replace("{}", what));
            }
        }
        for what in crate::web::hub::What::TO_DO.map(|w| w.name()) {
            wanted.extend(["", "-what", "-remedy"].map(|end| format!("hub-{what}{end}")));
        }
        let kinds = crate::ingest::TroubleKind::ALL;
        let kinds = kinds.iter().filter_map(|kind| kind.name());
        wanted.extend(kinds.map(|kind| format!("hub-database-remedy-{kind}")));
        wanted.push("hub-media-remedy-full".into());
        for m in 1..=12 {
            wanted.push(format!("month-{m}"));
            wanted.push(format!("month-short-{m}"));
        }
        let missing: Vec<_> = wanted
            .into_iter()
            .map(|k| k.replace('_', "-"))
            .filter(|k| !have.contains(k))
            .collect();
        assert!(missing.is_empty(), "no words for {missing:?}");
    }
}
