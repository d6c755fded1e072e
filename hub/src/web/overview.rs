//! *Ringkasan*: one sentence, the rows that wait, the numbers with their denominators, all sites.
//!
//! The rows come from states alone: a site whose link is down is one row with its devices named in
//! it, a device that is not as it should be is a row of its own, sites that never ran are one row
//! together. What is unknown or being worked on waits for nobody and is in the table only.

use std::cmp::Reverse;

use askama::Template;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Html;
use scc_common::clock::WallMs;
use scc_common::record::{Cause, DeviceKind, State};

use super::page::{Menu, Part, Place, full, visible};
use super::session::Viewer;
use super::text::T;
use super::{App, Refused, attendance};
use crate::fleet::Snapshot;
use crate::fleet::judge::{DeviceNow, SiteCause, SiteNow};

/// One thing that waits for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) state: State,
    pub(crate) href: String,
    pub(crate) title: String,
    /// Beginning of the sentence, in bold.
    pub(crate) lead: String,
    pub(crate) what: String,
    pub(crate) facts: Vec<String>,
    pub(crate) since_ms: WallMs,
}

/// Everything that waits, worst first, newest first among equals.
pub(crate) fn items<'a>(t: &T, sites: impl Iterator<Item = &'a SiteNow>) -> Vec<Item> {
    let mut items: Vec<Item> = sites.flat_map(|site| site_items(t, site)).collect();
    items.sort_by_key(|i| (rank(i.state), Reverse(i.since_ms), i.title.clone()));
    items
}

/// 0 is worst; what is well comes last.
pub(crate) const fn rank(state: State) -> u8 {
    match state {
        State::Down => 0,
        State::Degraded => 1,
        State::Never => 2,
        State::Unknown => 3,
        State::Maintenance => 4,
        State::Up => 5,
    }
}

fn site_items(t: &T, site: &SiteNow) -> Vec<Item> {
    let href = format!("/lokasi/{}", site.id);
    let cause = site.cause.unwrap_or(SiteCause::Device);
    match site.state {
        State::Down => {
            let heard = site
                .heard_ms
                .map(|ms| t.a("last-heard-at", "time", t.when(ms)));
            vec![Item {
                state: State::Down,
                href,
                title: t.a("item-link", "site", site.name.as_str()),
                lead: t.s("lead-down"),
                what: t.s("item-link-what"),
                facts: heard.into_iter().collect(),
                since_ms: site.since_ms,
            }]
        }
        State::Never | State::Unknown => Vec::new(),
        State::Degraded | State::Up | State::Maintenance => {
            let mut items: Vec<Item> = site
                .devices
                .iter()
                .filter_map(|d| device_item(t, site, d))
                .collect();
            if site.state == State::Degraded && cause != SiteCause::Device {
                items.push(Item {
                    state: State::Degraded,
                    href,
                    title: t.a("item-box", "site", site.name.as_str()),
                    lead: t.s("lead-degraded"),
                    what: t.s(&format!("site-cause-{}", cause.name().replace('_', "-"))),
                    facts: vec![t.s(&format!("site-remedy-{}", cause.name().replace('_', "-")))],
                    since_ms: site.since_ms,
                });
            }
            items
        }
    }
}

/// What to call a device beside its site.
pub(crate) fn device_name(t: &T, device: &DeviceNow) -> String {
    let key = match device.kind {
        DeviceKind::Camera => "camera-named",
        DeviceKind::Terminal => "terminal-named",
    };
    t.a(key, "name", device.name.as_str())
}

/// The sentence about a device that is not up.
pub(crate) fn device_says(t: &T, device: &DeviceNow) -> (String, String) {
    let what = device.cause.map(|c| t.cause(c));
    match device.state {
        State::Never => (
            t.s("lead-never"),
            what.unwrap_or_else(|| t.a("declared-since", "date", t.day_short(device.since_ms))),
        ),
        State::Degraded if device.cause == Some(Cause::Incomplete) => {
            (t.s("lead-incomplete"), t.cause(Cause::Incomplete))
        }
        State::Degraded => (t.s("lead-degraded"), what.unwrap_or_default()),
        State::Down => (t.s("lead-down"), what.unwrap_or_default()),
        State::Unknown | State::Maintenance | State::Up => (t.state(device.state), String::new()),
    }
}

fn device_item(t: &T, site: &SiteNow, device: &DeviceNow) -> Option<Item> {
    if !matches!(device.state, State::Down | State::Degraded | State::Never) {
        return None;
    }
    let (lead, what) = device_says(t, device);
    let mut facts: Vec<String> = device.cause.map(|c| t.remedy(c)).into_iter().collect();
    facts.extend(
        device
            .last_good_ms
            .map(|ms| t.a("last-good-at", "time", t.when(ms))),
    );
    Some(Item {
        state: device.state,
        href: format!("/lokasi/{}", site.id),
        title: format!("{} · {}", site.name, device_name(t, device)),
        lead,
        what,
        facts,
        since_ms: device.since_ms,
    })
}

/// A headline number: numerator, denominator, what is missing by name, one mark per unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Figure {
    pub(crate) label: String,
    pub(crate) up: usize,
    pub(crate) of: usize,
    pub(crate) rest: Vec<String>,
    /// Every state with how many are in it, the well ones first.
    pub(crate) marks: Vec<(State, usize)>,
    /// Installed but not declared.
    pub(crate) unlisted: usize,
    /// Said to those who cannot see the marks.
    pub(crate) spoken: String,
}

/// Marks are drawn one by one up to this many units; beyond that a bar.
const UNITS: usize = 60;

impl Figure {
    fn new(t: &T, label: &str, states: impl Iterator<Item = State>, unlisted: usize) -> Self {
        use State::{Degraded, Down, Maintenance, Never, Unknown, Up};
        let mut marks: Vec<(State, usize)> = [Up, Degraded, Down, Unknown, Maintenance, Never]
            .map(|s| (s, 0))
            .into();
        for state in states {
            if let Some(mark) = marks.iter_mut().find(|m| m.0 == state) {
                mark.1 += 1;
            }
        }
        let up = marks.first().map_or(0, |m| m.1);
        let of = marks.iter().map(|m| m.1).sum();
        marks.retain(|m| m.1 > 0);
        let mut rest: Vec<String> = marks
            .iter()
            .filter(|m| m.0 != Up)
            .map(|(state, n)| format!("{} {n}", t.state(*state)))
            .collect();
        if unlisted > 0 {
            rest.push(t.a("unlisted", "n", unlisted));
        }
        let label = t.s(label);
        let spoken = format!("{label}: {up} / {of}. {}", rest.join(", "));
        Self {
            label,
            up,
            of,
            rest,
            marks,
            unlisted,
            spoken,
        }
    }

    /// Marks one by one, unless there are too many.
    pub(crate) fn units(&self) -> Vec<State> {
        if self.of + self.unlisted > UNITS {
            return Vec::new();
        }
        self.marks
            .iter()
            .flat_map(|(s, n)| std::iter::repeat_n(*s, *n))
            .collect()
    }

    /// Slices of a bar, in per cent: begin, width, state.
    pub(crate) fn slices(&self) -> Vec<(f64, f64, &'static str)> {
        let all = self.of + self.unlisted;
        if all <= UNITS {
            return Vec::new();
        }
        let mut at = 0;
        let percent = |n: usize| f64::from(u32::try_from(n * 10_000 / all).unwrap_or(0)) / 100.0;
        self.marks
            .iter()
            .map(|(state, n)| {
                let slice = (percent(at), percent(*n), state.name());
                at += n;
                slice
            })
            .collect()
    }
}

/// The numbers of these sites; `installed` is known to operators only.
pub(crate) fn figures<'a>(
    t: &T,
    sites: impl Iterator<Item = &'a SiteNow> + Clone,
    installed: Option<u32>,
) -> Vec<Figure> {
    let of = |kind| {
        sites
            .clone()
            .flat_map(move |s| s.devices_of(kind))
            .map(|d| d.state)
    };
    let cameras = of(DeviceKind::Camera).count();
    let unlisted = installed
        .and_then(|n| usize::try_from(n).ok())
        .map_or(0, |n| n.saturating_sub(cameras));
    vec![
        Figure::new(t, "cameras-working", of(DeviceKind::Camera), unlisted),
        Figure::new(t, "terminals-working", of(DeviceKind::Terminal), 0),
        Figure::new(t, "sites-working", sites.clone().map(|s| s.state), 0),
    ]
}

/// A row of the table of sites.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) site: &'a SiteNow,
    pub(crate) agencies: String,
    pub(crate) cause: String,
    pub(crate) cameras: (usize, usize),
    pub(crate) terminals: (usize, usize),
}

impl Row<'_> {
    /// How bad it is, to sort by.
    fn rank(&self) -> u8 {
        rank(self.site.state)
    }

    /// What waits there, to sort by.
    fn waiting(&self) -> u64 {
        self.site.backlog.map_or(0, |b| b.records)
    }
}

fn rows<'a>(t: &T, viewer: &'a Viewer, snapshot: &'a Snapshot) -> Vec<Row<'a>> {
    let working = |site: &SiteNow, kind| {
        let up = site
            .devices_of(kind)
            .filter(|d| d.state == State::Up)
            .count();
        (up, site.devices_of(kind).count())
    };
    let mut rows: Vec<Row<'_>> = visible(viewer, snapshot)
        .map(|site| Row {
            site,
            agencies: App::agency_names(snapshot, site).join(", "),
            // that it never ran says why already
            cause: if site.state == State::Never {
                String::new()
            } else {
                site_cause(t, site)
            },
            cameras: working(site, DeviceKind::Camera),
            terminals: working(site, DeviceKind::Terminal),
        })
        .collect();
    rows.sort_by_key(|r| rank(r.site.state));
    rows
}

/// Why a site is not up, with the device named where it is one.
pub(crate) fn site_cause(t: &T, site: &SiteNow) -> String {
    let Some(cause) = site.cause else {
        return String::new();
    };
    if cause == SiteCause::Device {
        let troubled = site
            .devices
            .iter()
            .filter(|d| rank(d.state) <= rank(State::Never))
            .min_by_key(|d| rank(d.state));
        if let Some(device) = troubled {
            return format!("{}: {}", device_name(t, device), t.state(device.state));
        }
    }
    t.s(&format!("site-cause-{}", cause.name().replace('_', "-")))
}

#[derive(Template)]
#[template(path = "overview_head.html")]
struct Head {
    sentence: String,
    hint: String,
}

#[derive(Template)]
#[template(path = "overview_now.html")]
struct Now<'a> {
    t: &'a T,
    items: Vec<Item>,
    never: Vec<&'a SiteNow>,
    maintenance: usize,
    figures: Vec<Figure>,
    punches: Option<(u64, usize, usize)>,
}

impl Now<'_> {
    /// So few rows wait that a column of numbers beside them would stand over an empty page.
    fn few(&self) -> bool {
        self.items.len() + usize::from(!self.never.is_empty()) <= 3
    }
}

#[derive(Template)]
#[template(path = "sites.html")]
struct Sites<'a> {
    t: &'a T,
    rows: Vec<Row<'a>>,
    up: usize,
}

/// What the opening sentence is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Opening {
    /// Rows that wait for somebody.
    waiting: usize,
    /// Sites that never ran.
    never: usize,
    /// Sites that nobody could look at.
    unknown: usize,
    /// All sites.
    sites: usize,
    /// The hub stores nothing, so nobody knows how the rest is.
    blind: bool,
}

impl Opening {
    /// The sentence that opens the page. It never says more than is known.
    fn sentence(self, t: &T) -> String {
        if self.sites == 0 {
            return t.s("sentence-empty");
        }
        let mut said = Vec::new();
        for (n, key) in [
            (self.waiting, "sentence-waiting"),
            (self.never, "sentence-never"),
            (self.unknown, "sentence-unknown"),
        ] {
            if n > 0 {
                said.push(t.a(key, "n", n));
            }
        }
        if self.waiting == 0 && self.never == 0 {
            said.insert(0, t.s("sentence-calm"));
        } else if !self.blind && self.never + self.unknown < self.sites {
            said.push(t.s("sentence-rest"));
        }
        said.join(" ")
    }
}

pub(crate) async fn parts(
    app: &App,
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
) -> Result<Vec<Part>, Refused> {
    let sites = visible(viewer, snapshot);
    let items = items(t, sites.clone());
    let never: Vec<&SiteNow> = sites.clone().filter(|s| s.state == State::Never).collect();
    let installed = snapshot
        .declared
        .as_ref()
        .filter(|_| viewer.is_operator())
        .map(|d| d.register.installed_cameras);
    let hub = app.hub_trouble();
    let opening = Opening {
        // what the hub itself suffers from waits for those who run it
        waiting: items.len()
            + if viewer.is_operator() {
                hub.len() + app.hub_to_do().len()
            } else {
                0
            },
        never: never.len(),
        unknown: sites.clone().filter(|s| s.state == State::Unknown).count(),
        sites: sites.clone().count(),
        blind: hub.iter().any(|h| h.what.is_blind()),
    };
    let head = Head {
        sentence: opening.sentence(t),
        hint: if opening.sites == 0 {
            t.s("sentence-empty-hint")
        } else {
            String::new()
        },
    };
    let maintenance = sites
        .clone()
        .flat_map(|s| &s.devices)
        .filter(|d| d.state == State::Maintenance)
        .count();
    let now = Now {
        t,
        items,
        never,
        maintenance,
        figures: figures(t, sites.clone(), installed),
        punches: punches_today(app, t, sites).await?,
    };
    let mut parts = vec![Part::new("head", &head)?, Part::new("now", &now)?];
    parts.extend(sites_parts(t, viewer, snapshot)?);
    Ok(parts)
}

/// Punches of today, terminals that have been read, terminals; none where there is no terminal.
async fn punches_today<'a>(
    app: &App,
    t: &T,
    sites: impl Iterator<Item = &'a SiteNow>,
) -> Result<Option<(u64, usize, usize)>, Refused> {
    let days = attendance::days(app, &t.today(), sites).await?;
    if days.is_empty() {
        return Ok(None);
    }
    let punches = days.values().map(|d| d.stored).sum();
    let read = days.values().filter(|d| d.read.is_some()).count();
    Ok(Some((punches, read, days.len())))
}

pub(crate) fn sites_parts(
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
) -> Result<Vec<Part>, Refused> {
    let rows = rows(t, viewer, snapshot);
    let up = rows.iter().filter(|r| r.site.state == State::Up).count();
    Ok(vec![Part::new("sites", &Sites { t, rows, up })?])
}

pub(crate) async fn page(
    Shared(app): Shared<App>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Html<String>, Refused> {
    let (t, snapshot) = (app.t(&headers), app.fleet.now());
    let parts = parts(&app, &t, &viewer, &snapshot).await?;
    let place = Place {
        title: t.s("menu-overview"),
        menu: Menu::Overview,
        path: "/",
        watch: "ringkasan",
    };
    full(&app, &t, &viewer, &snapshot, place, parts)
}

pub(crate) async fn sites_page(
    Shared(app): Shared<App>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Html<String>, Refused> {
    let (t, snapshot) = (app.t(&headers), app.fleet.now());
    let parts = sites_parts(&t, &viewer, &snapshot)?;
    let place = Place {
        title: t.s("menu-sites"),
        menu: Menu::Sites,
        path: "/lokasi",
        watch: "lokasi",
    };
    full(&app, &t, &viewer, &snapshot, place, parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use scc_common::lang::Lang;

    fn t(lang: Lang) -> T {
        T::new(
            lang,
            TimeZone::get("Asia/Makassar").unwrap(),
            1_795_484_537_000,
        )
    }

    #[test]
    fn the_sentence_says_what_waits_or_that_nothing_does() {
        let id = t(Lang::Id);
        let of = |waiting, never, unknown| Opening {
            waiting,
            never,
            unknown,
            sites: 12,
            blind: false,
        };
        for (opening, words) in [
            (of(3, 0, 0), "3 hal menunggu tindakan. Selebihnya berjalan."),
            (
                of(1, 8, 0),
                "1 hal menunggu tindakan. 8 lokasi belum pernah jalan. Selebihnya berjalan.",
            ),
            (of(0, 12, 0), "12 lokasi belum pernah jalan."),
            (of(0, 0, 0), "Tidak ada yang menunggu tindakan."),
            (
                of(0, 0, 4),
                "Tidak ada yang menunggu tindakan. 4 lokasi belum diketahui keadaannya.",
            ),
            (
                of(0, 8, 4),
                "8 lokasi belum pernah jalan. 4 lokasi belum diketahui keadaannya.",
            ),
            (
                Opening {
                    blind: true,
                    ..of(1, 8, 0)
                },
                "1 hal menunggu tindakan. 8 lokasi belum pernah jalan.",
            ),
        ] {
            assert_eq!(opening.sentence(&id), words);
        }
        let en = t(Lang::En);
        assert_eq!(
            of(1, 0, 0).sentence(&en),
            "1 thing needs action. The rest is running."
        );
        assert_eq!(
            of(2, 0, 1).sentence(&en),
            "2 things need action. The state of 1 site is not known yet. The rest is running."
        );
    }

    #[test]
    fn day_one_names_every_camera_that_is_missing() {
        let states = [State::Up; 7].into_iter().chain([State::Never; 9]);
        let figure = Figure::new(&t(Lang::Id), "cameras-working", states, 24);
        assert_eq!((figure.up, figure.of), (7, 16));
        assert_eq!(figure.rest, ["belum pernah jalan 9", "belum terdaftar 24"]);
        assert_eq!(figure.units().len(), 16);
        assert!(figure.slices().is_empty());
    }

    #[test]
    fn beyond_sixty_units_a_bar_takes_over_and_adds_up() {
        let states = [State::Up; 300].into_iter().chain([State::Down; 100]);
        let figure = Figure::new(&t(Lang::Id), "cameras-working", states, 0);
        assert!(figure.units().is_empty());
        assert_eq!(figure.slices(), [(0.0, 75.0, "up"), (75.0, 25.0, "down")]);
    }
}
