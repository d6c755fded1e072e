//! *Tanda terima*: what a site has taken on a day and what became of it, as a part of the site's page,
//! as a page of any day, and as a file for a spreadsheet.

use askama::Template;
use axum::extract::{Path, Query, State as Shared};
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use jiff::ToSpan;
use jiff::civil::Date;
use scc_common::record::{DeviceKind, State};
use scc_common::stream::Stream;
use serde::{Deserialize, Serialize};

use super::attendance::{self, TerminalRow};
use super::page::{Menu, Part, Place, full, visible_site};
use super::session::Viewer;
use super::text::T;
use super::{App, Refused};
use crate::fleet::Snapshot;
use crate::fleet::judge::SiteNow;
use crate::store::views::{Basis, Day, Receipt, StreamReceipt};

/// The receipt of one day, on its own page and on the site's.
#[derive(Template)]
#[template(path = "receipt.html")]
pub(crate) struct ReceiptPart<'a> {
    t: &'a T,
    site: &'a SiteNow,
    day: Day,
    terminals: Vec<TerminalRow>,
    receipt: Receipt,
    total: StreamReceipt,
    /// On the day's own page, where the way to other days is; none on the site's.
    days: Option<Neighbours>,
}

/// The days beside one, as far as they have receipts.
#[derive(Debug, Clone)]
pub(crate) struct Neighbours {
    before: Option<Day>,
    after: Option<Day>,
}

impl<'a> ReceiptPart<'a> {
    pub(crate) async fn of(
        app: &App,
        t: &'a T,
        site: &'a SiteNow,
        day: Day,
        terminals: Vec<TerminalRow>,
        days: Option<Neighbours>,
    ) -> Result<Self, Refused> {
        let receipt = of_day(app, site, &day).await?;
        let total = receipt.total();
        Ok(Self {
            t,
            site,
            day,
            terminals,
            receipt,
            total,
            days,
        })
    }
}

/// The receipt with a line for each stream that the site may send.
async fn of_day(app: &App, site: &SiteNow, day: &Day) -> Result<Receipt, Refused> {
    let mut receipt = app
        .store
        .receipt(site.id.clone(), day.clone())
        .await
        .map_err(Refused::broken)?;
    receipt.streams = every_stream(site, &receipt.streams);
    Ok(receipt)
}

/// What the site may send, with its zeros: a zero is the proof that nothing was lost.
fn every_stream(site: &SiteNow, told: &[(Stream, StreamReceipt)]) -> Vec<(Stream, StreamReceipt)> {
    let has = |kind| site.devices_of(kind).next().is_some();
    let lines = Stream::ALL.into_iter().filter_map(|stream| {
        let line = told.iter().find(|(s, _)| *s == stream).map(|(_, r)| *r);
        let expected = match stream {
            Stream::Event | Stream::Health => true,
            Stream::Attendance => has(DeviceKind::Terminal),
            Stream::Snapshot | Stream::Segment => has(DeviceKind::Camera),
            Stream::Warehouse => false,
        };
        (expected || line.is_some()).then(|| (stream, line.unwrap_or_default()))
    });
    lines.collect()
}

#[derive(Template)]
#[template(path = "receipt_head.html")]
struct Head<'a> {
    t: &'a T,
    site: &'a SiteNow,
    day: &'a Day,
    days: Neighbours,
}

/// The parts of the page of one day.
pub(crate) async fn parts(
    app: &App,
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
    id: &str,
    day: &str,
) -> Result<Vec<Part>, Refused> {
    let site = visible_site(viewer, snapshot, id)?;
    let (date, day) = t.chosen(day)?;
    let terminals = attendance::rows(app, site, &day).await?;
    let neighbour = |days: i32| t.day(date.checked_add(days.days()).ok()?);
    let days = Neighbours {
        before: neighbour(-1),
        after: neighbour(1).filter(|next| next.from_ms <= t.now_ms),
    };
    let head = Head {
        t,
        site,
        day: &day,
        days: days.clone(),
    };
    let head = Part::new("head", &head)?;
    let receipt = ReceiptPart::of(app, t, site, day, terminals, Some(days)).await?;
    Ok(vec![head, Part::new("receipt", &receipt)?])
}

pub(crate) async fn page(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path((id, day)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Html<String>, Refused> {
    let (t, snapshot) = (app.t(&headers), app.fleet.now());
    let parts = parts(&app, &t, &viewer, &snapshot, &id, &day).await?;
    let site = visible_site(&viewer, &snapshot, &id)?;
    let place = Place {
        title: format!("{} · {} {day}", site.name, t.s("receipt")),
        menu: Menu::Sites,
        path: &format!("/lokasi/{id}/tanda-terima/{day}"),
        watch: &format!("tanda-terima/{id}/{day}"),
    };
    full(&app, &t, &viewer, &snapshot, place, parts)
}

/// What the form sends, as it is called in the address.
#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    hari: Option<String>,
}

/// From the form to the day's own address, which can be kept and passed on.
pub(crate) async fn choose(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(chosen): Query<Chosen>,
    headers: HeaderMap,
) -> Result<Redirect, Refused> {
    let t = app.t(&headers);
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &id)?;
    let day = match chosen.hari.as_deref().filter(|day| !day.is_empty()) {
        Some(day) => t.chosen(day)?.1,
        None => t.today(),
    };
    Ok(Redirect::to(&format!(
        "/lokasi/{}/tanda-terima/{}",
        site.id, day.name
    )))
}

/// A line of the file; the names are the API's.
#[derive(Debug, Serialize)]
struct Line<'a> {
    site: &'a str,
    day: &'a str,
    basis: &'static str,
    stream: &'static str,
    taken: u64,
    stored: u64,
    queued: u64,
    lost: u64,
    missing: u64,
    duplicates: u64,
    /// `reason:records`, one for each reason.
    gaps: String,
}

/// The receipt of a day as comma-separated values, a line per stream.
pub(super) async fn csv(
    app: &App,
    viewer: &Viewer,
    id: &str,
    day: &Day,
) -> Result<Response, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(viewer, &snapshot, id)?;
    let receipt = of_day(app, site, day).await?;
    let mut file = csv::Writer::from_writer(Vec::new());
    for (stream, line) in &receipt.streams {
        let gaps: Vec<String> = receipt
            .reasons
            .iter()
            .filter(|(of, ..)| of == stream)
            .map(|(_, reason, lost)| format!("{}:{lost}", reason.name()))
            .collect();
        let line = Line {
            site: site.id.as_str(),
            day: &day.name,
            basis: receipt.basis.name(),
            stream: stream.name(),
            taken: line.taken(),
            stored: line.stored,
            queued: line.queued,
            lost: line.lost,
            missing: line.missing,
            duplicates: line.duplicates,
            gaps: gaps.join(" "),
        };
        file.serialize(line).map_err(Refused::broken)?;
    }
    let bytes = file.into_inner().map_err(Refused::broken)?;
    let name = format!(
        "attachment; filename=\"tanda-terima_{}_{}.csv\"",
        site.id, day.name
    );
    let about = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, name),
    ];
    Ok((about, bytes).into_response())
}

impl T {
    /// The day that somebody names, `yyyy-mm-dd`; nobody has a receipt of a day to come.
    pub(crate) fn chosen(&self, day: &str) -> Result<(Date, Day), Refused> {
        let date: Date = day.parse().map_err(|_| Refused::Bad)?;
        let day = self.day(date).filter(|day| day.from_ms <= self.now_ms);
        day.map(|day| (date, day)).ok_or(Refused::Bad)
    }
}
