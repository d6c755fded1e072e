//! *Lokasi*: the one thing to do first, the cause along the way, pictures with their age, today's
//! punches, what waits at the site, and the delivery receipt.

use askama::Template;
use axum::extract::{Path, State as Shared};
use axum::http::HeaderMap;
use axum::response::Html;
use scc_common::clock::{Dated, TimeQuality, WallMs};
use scc_common::record::{DeviceKind, State};
use scc_common::stream::Stream;

use super::attendance::{Standing, TerminalRow};
use super::hub::HubTrouble;
use super::overview::{device_name, device_says, rank, site_cause};
use super::page::{Column, Menu, Part, Place, full, visible_site};
use super::receipt::ReceiptPart;
use super::session::Viewer;
use super::text::T;
use super::{App, Refused, attendance};
use crate::fleet::Snapshot;
use crate::fleet::judge::{DeviceNow, SiteCause, SiteNow};
use crate::store::views::PunchRow;

/// Where along the way something is: power, link, agent, device, source application, hub.
#[derive(Debug, PartialEq, Eq)]
struct Cell {
    name: String,
    /// None: does not apply here.
    state: Option<State>,
    words: String,
    here: bool,
}

/// The first thing to do.
#[derive(Debug)]
struct First {
    state: State,
    title: String,
    what: String,
    facts: Vec<String>,
    since_ms: Option<WallMs>,
}

#[derive(Template)]
#[template(path = "site_head.html")]
struct Head<'a> {
    t: &'a T,
    site: &'a SiteNow,
    agencies: Vec<String>,
    cause: String,
}

#[derive(Template)]
#[template(path = "site_way.html")]
struct Way<'a> {
    t: &'a T,
    first: First,
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Tile<'a> {
    device: &'a DeviceNow,
    name: String,
    says: String,
    picture: Option<Shot>,
}

/// A picture on a tile.
#[derive(Debug, PartialEq, Eq)]
struct Shot {
    src: String,
    captured_ms: WallMs,
    /// What that time is worth.
    quality: TimeQuality,
    cadence_s: u32,
    /// Older than twice its cadence.
    stale: bool,
}

#[derive(Template)]
#[template(path = "site_cameras.html")]
struct Cameras<'a> {
    t: &'a T,
    tiles: Vec<Tile<'a>>,
    up: usize,
}

#[derive(Template)]
#[template(path = "site_punches.html")]
struct Punches<'a> {
    t: &'a T,
    terminals: Vec<TerminalRow>,
    total: u64,
    newest: Vec<(String, String, PunchRow)>,
}

#[derive(Template)]
#[template(path = "site_box.html")]
struct BoxPart<'a> {
    t: &'a T,
    site: &'a SiteNow,
}

/// Punches that are listed.
const LISTED: u32 = 8;
/// Assumed where a picture does not say how often it comes.
const CADENCE_S: u32 = 60;

pub(crate) async fn parts(
    app: &App,
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
    id: &str,
) -> Result<Vec<Part>, Refused> {
    let site = visible_site(viewer, snapshot, id)?;
    let day = t.today();
    let terminals: Vec<_> = site
        .devices_of(DeviceKind::Terminal)
        .map(|d| d.id.clone())
        .collect();
    let rows = attendance::rows(app, site, &day).await?;
    let newest = app
        .store
        .punches(site.id.clone(), terminals, day.name.clone(), LISTED)
        .await
        .map_err(Refused::broken)?;
    let receipt = ReceiptPart::of(app, t, site, day, rows.clone(), None).await?;
    let head = Head {
        t,
        site,
        agencies: App::agency_names(snapshot, site)
            .into_iter()
            .filter(|agency| *agency != site.name)
            .collect(),
        cause: site_cause(t, site),
    };
    let way = Way {
        t,
        first: first(t, site, &rows),
        cells: chain(t, site, app.hub_trouble().first()),
    };
    // several pictures stand side by side across the page, one beside the receipt
    let pictures = match site.devices_of(DeviceKind::Camera).count() {
        0 | 1 => Column::Side,
        _ => Column::Both,
    };
    let mut parts = vec![
        Part::new("head", &head)?,
        Part::new("way", &way)?,
        Part::new("cameras", &cameras(app, t, site).await?)?.in_column(pictures),
        Part::new("receipt", &receipt)?.in_column(Column::Main),
    ];
    if !rows.is_empty() {
        let named = |device: &DeviceNow| device.name.clone();
        let newest = newest
            .into_iter()
            .map(|p| {
                let name = site.devices.iter().find(|d| d.id == p.device).map(named);
                (t.terminal_hms(p.local_s), name.unwrap_or_default(), p)
            })
            .collect();
        let total = rows.iter().map(|r| r.stored).sum();
        parts.push(
            Part::new(
                "punches",
                &Punches {
                    t,
                    terminals: rows,
                    total,
                    newest,
                },
            )?
            .in_column(Column::Side),
        );
    }
    parts.push(Part::new("box", &BoxPart { t, site })?.in_column(Column::Main));
    Ok(parts)
}

async fn cameras<'a>(app: &App, t: &'a T, site: &'a SiteNow) -> Result<Cameras<'a>, Refused> {
    let ids = site
        .devices_of(DeviceKind::Camera)
        .map(|d| d.id.clone())
        .collect();
    let stored = app
        .store
        .newest_pictures(site.id.clone(), ids)
        .await
        .map_err(Refused::broken)?;
    let tiles: Vec<Tile<'_>> = site
        .devices_of(DeviceKind::Camera)
        .map(|device| {
            let stored = stored.get(&device.id).map(|p| {
                let cadence_s = p.cadence_s.unwrap_or(CADENCE_S);
                let quality = p
                    .dated
                    .as_ref()
                    .map_or(TimeQuality::Confirmed, Dated::quality);
                let src = format!("/media/{}", p.record);
                shot(t, src, (p.captured_ms, quality), cadence_s)
            });
            let live = app.fleet.still(&site.id, &device.id).map(|s| {
                let src = format!("/media/kini/{}/{}?t={}", site.id, device.id, s.captured_ms);
                shot(t, src, (s.captured_ms, s.dated.quality()), s.cadence_s)
            });
            let (lead, what) = device_says(t, device);
            Tile {
                device,
                name: device_name(t, device),
                says: format!("{lead} {what}").trim().to_owned(),
                picture: [stored, live]
                    .into_iter()
                    .flatten()
                    .max_by_key(|s| s.captured_ms),
            }
        })
        .collect();
    let up = tiles.iter().filter(|t| t.device.state == State::Up).count();
    Ok(Cameras { t, tiles, up })
}

fn shot(t: &T, src: String, at: (WallMs, TimeQuality), cadence_s: u32) -> Shot {
    let (captured_ms, quality) = at;
    // a box may claim any time at all
    let age_ms = t.now_ms.saturating_sub(captured_ms);
    let stale = age_ms > 2_000 * i64::from(cadence_s.max(1));
    Shot {
        src,
        captured_ms,
        quality,
        cadence_s,
        stale,
    }
}

fn first(t: &T, site: &SiteNow, terminals: &[TerminalRow]) -> First {
    let cause = site.cause.unwrap_or(SiteCause::Device);
    let key = cause.name().replace('_', "-");
    if site.state == State::Up {
        if let Some(short) = terminals.iter().find(|r| r.standing == Standing::Partial) {
            return First {
                state: State::Degraded,
                title: t.a("first-read-again", "name", short.name.as_str()),
                what: t.s("first-read-again-what"),
                facts: Vec::new(),
                since_ms: short.at_ms,
            };
        }
        return First {
            state: State::Up,
            title: t.s("first-nothing"),
            what: t.s("first-nothing-what"),
            facts: Vec::new(),
            since_ms: None,
        };
    }
    let worst = site
        .devices
        .iter()
        .filter(|d| rank(d.state) <= rank(State::Never))
        .min_by_key(|d| rank(d.state));
    match worst {
        Some(device) if cause == SiteCause::Device => {
            let remedy = device
                .cause
                .map_or_else(|| t.s("site-remedy-device"), |c| t.remedy(c));
            let (lead, what) = device_says(t, device);
            First {
                state: device.state,
                title: t.with(
                    "first-device",
                    &[
                        ("name", device_name(t, device).into()),
                        ("todo", remedy.into()),
                    ],
                ),
                what: format!("{lead} {what}").trim().to_owned(),
                facts: device.detail.iter().cloned().collect(),
                since_ms: Some(device.since_ms),
            }
        }
        _ => First {
            state: site.state,
            title: t.s(&format!("site-remedy-{key}")),
            what: t.s(&format!("site-cause-{key}")),
            facts: Vec::new(),
            since_ms: Some(site.since_ms),
        },
    }
}

/// The six cells, in the order of the way.
fn chain(t: &T, site: &SiteNow, hub: Option<&HubTrouble>) -> Vec<Cell> {
    let blind = matches!(site.state, State::Down | State::Never)
        || site.cause == Some(SiteCause::HubStarting);
    let health = site.health.as_ref().map(|(h, _)| h);
    let cell = |key: &str, state: Option<State>, words: String, here: bool| Cell {
        name: t.s(key),
        state,
        words,
        here,
    };
    let unseen = || (Some(State::Unknown), t.s("way-unseen"));
    let (power, power_words) = match health.and_then(|h| h.under_voltage) {
        _ if blind => unseen(),
        Some(true) => (Some(State::Degraded), t.s("way-power-weak")),
        Some(false) => (Some(State::Up), t.s("way-power-good")),
        None => (None, t.s("way-power-unmeasured")),
    };
    let (link, link_words) = match (site.state, site.link) {
        (State::Never, _) => (State::Never, t.s("way-link-never")),
        (State::Down, _) => (
            State::Down,
            t.a("way-link-down", "time", t.when(site.since_ms)),
        ),
        (_, Some((true, since))) if site.cause == Some(SiteCause::SlowLink) => {
            (State::Degraded, t.a("way-link-slow", "time", t.when(since)))
        }
        (_, Some((true, since))) => (State::Up, t.a("way-link-up", "time", t.when(since))),
        (_, Some((false, since))) => (State::Unknown, t.a("way-link-away", "time", t.when(since))),
        (_, None) => (State::Unknown, t.s("way-unseen")),
    };
    let agent_bad = matches!(site.cause, Some(SiteCause::Disk | SiteCause::Heat));
    let (agent, agent_words) = match health {
        Some(h) if !blind => {
            let mut words = vec![t.a("way-agent-version", "version", h.version.as_str())];
            words.extend(
                h.temperature_c
                    .map(|c| format!("{} °C", t.decimal(f64::from(c)))),
            );
            words.push(t.a(
                "way-agent-uptime",
                "span",
                t.span(i64::try_from(h.uptime_s).unwrap_or(0) * 1_000),
            ));
            (
                Some(if agent_bad {
                    State::Degraded
                } else {
                    State::Up
                }),
                words.join(", "),
            )
        }
        _ => unseen(),
    };
    let worst = site
        .devices
        .iter()
        .map(|d| d.state)
        .min_by_key(|s| rank(*s));
    let up = site.devices.iter().filter(|d| d.state == State::Up).count();
    let device_words = t.with(
        "way-devices",
        &[("up", up.into()), ("of", site.devices.len().into())],
    );
    let (hub_state, hub_words) = hub.map_or_else(
        || (State::Up, t.s("way-hub-up")),
        |h| (h.what.state(), t.s(&format!("way-hub-{}", h.what.name()))),
    );
    let device_here = site.cause == Some(SiteCause::Device);
    vec![
        cell(
            "way-power",
            power,
            power_words,
            site.cause == Some(SiteCause::Power),
        ),
        cell(
            "way-link",
            Some(link),
            link_words,
            matches!(
                site.cause,
                Some(SiteCause::Link | SiteCause::SlowLink | SiteCause::NeverSent)
            ),
        ),
        cell(
            "way-agent",
            agent,
            agent_words,
            agent_bad || site.cause == Some(SiteCause::AgentStarting),
        ),
        cell("way-device", worst, device_words, device_here),
        cell("way-source", None, t.s("way-source-none"), false),
        cell("way-hub", Some(hub_state), hub_words, hub.is_some()),
    ]
}

pub(crate) async fn page(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Html<String>, Refused> {
    let (t, snapshot) = (app.t(&headers), app.fleet.now());
    let parts = parts(&app, &t, &viewer, &snapshot, &id).await?;
    let site = visible_site(&viewer, &snapshot, &id)?;
    let (path, watch) = (format!("/lokasi/{id}"), format!("lokasi/{id}"));
    let place = Place {
        title: site.name.clone(),
        menu: Menu::Sites,
        path: &path,
        watch: &watch,
    };
    full(&app, &t, &viewer, &snapshot, place, parts)
}

impl T {
    /// The word for a stream.
    pub(crate) fn stream(&self, stream: &Stream) -> String {
        self.s(&format!("stream-{}", stream.name()))
    }

    /// What a box's clock is worth.
    pub(crate) fn clock_quality(&self, quality: &scc_common::clock::ClockQuality) -> String {
        use scc_common::clock::ClockQuality;
        self.s(match quality {
            ClockQuality::Ntp => "clock-ntp",
            ClockQuality::Hub => "clock-hub",
            ClockQuality::Unconfirmed => "clock-unconfirmed",
        })
    }

    /// The mark beside a time that is not as its box told it, with the words for it; nothing beside one that is.
    pub(crate) fn time_mark(&self, quality: &TimeQuality) -> String {
        let key = match quality {
            TimeQuality::Confirmed => return String::new(),
            TimeQuality::Corrected => "time-corrected",
            TimeQuality::Unknown => "time-unknown",
        };
        let (words, why) = (self.s(key), self.s(&format!("{key}-why")));
        format!(
            r#"<span class="time-mark" data-q="{}" title="{why}">{words}</span>"#,
            quality.name()
        )
    }

    /// The word for a stream inside a sentence.
    pub(crate) fn stream_within(&self, stream: &Stream) -> String {
        self.stream(stream).to_lowercase()
    }

    /// Why records are missing.
    pub(crate) fn gap(&self, reason: &scc_common::wire::GapReason) -> String {
        self.s(&format!("gap-{}", reason.name().replace('_', "-")))
    }
}
