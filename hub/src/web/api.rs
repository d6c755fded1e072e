//! The API, version 1: what the pages show, as JSON, to the same people under the same rules. The
//! OpenAPI document is made from the types and handlers below, so it cannot drift from them.

use axum::extract::{Path, Query, State as Shared};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use scc_common::clock::{Dated, TimeQuality};
use scc_common::record::{DeviceKind, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::page::{visible, visible_site};
use super::session::Viewer;
use super::text::T;
use super::{App, Refused, attendance, receipt as receipts};
use crate::fleet::judge::{DeviceNow, SiteNow};
use crate::store::views::Day;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Soppeng Command Center",
        version = "1",
        description = "Read-only. Log in on the web page first; the session cookie authorises. Times are milliseconds since 1970-01-01 UTC."
    ),
    paths(
        overview,
        sites,
        site,
        devices,
        pictures,
        punches,
        receipt,
        receipt_csv
    ),
    components(schemas(
        Overview, Count, Site, Device, Punch, Receipt, StreamLine, GapLine, Terminal
    ))
)]
struct Document;

pub(crate) fn router() -> Router<App> {
    Router::new()
        .route("/overview", get(overview))
        .route("/sites", get(sites))
        .route("/sites/{site}", get(site))
        .route("/sites/{site}/devices", get(devices))
        .route("/sites/{site}/punches", get(punches))
        .route("/sites/{site}/pictures", get(pictures))
        .route("/sites/{site}/receipt", get(receipt))
        .route("/sites/{site}/receipt.csv", get(receipt_csv))
        .route("/openapi.json", get(document))
}

/// How many there are in each state.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Count {
    declared: usize,
    up: usize,
    degraded: usize,
    down: usize,
    unknown: usize,
    maintenance: usize,
    never: usize,
}

impl Count {
    fn of(states: impl Iterator<Item = State>) -> Self {
        states.fold(Self::default(), |mut count, state| {
            count.declared += 1;
            *match state {
                State::Up => &mut count.up,
                State::Degraded => &mut count.degraded,
                State::Down => &mut count.down,
                State::Unknown => &mut count.unknown,
                State::Maintenance => &mut count.maintenance,
                State::Never => &mut count.never,
            } += 1;
            count
        })
    }
}

/// The fleet in numbers, with denominators from the register.
#[derive(Debug, Serialize, ToSchema)]
struct Overview {
    at_ms: i64,
    sites: Count,
    cameras: Count,
    terminals: Count,
    /// Cameras that the county has installed and the register does not list; operators only.
    cameras_unlisted: Option<usize>,
}

/// A site as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct Site {
    id: String,
    name: String,
    kind: &'static str,
    agencies: Vec<String>,
    /// up, degraded, down, unknown, maintenance, never
    state: &'static str,
    cause: Option<&'static str>,
    since_ms: i64,
    connected: bool,
    last_heard_ms: Option<i64>,
    backlog_records: Option<u64>,
    backlog_bytes: Option<u64>,
    backlog_oldest_ms: Option<i64>,
}

impl Site {
    fn of(site: &SiteNow) -> Self {
        Self {
            id: site.id.to_string(),
            name: site.name.clone(),
            kind: site.kind.name(),
            agencies: site.agencies.iter().map(ToString::to_string).collect(),
            state: site.state.name(),
            cause: site.cause.map(crate::fleet::judge::SiteCause::name),
            since_ms: site.since_ms,
            connected: matches!(site.link, Some((true, _))),
            last_heard_ms: site.heard_ms,
            backlog_records: site.backlog.map(|b| b.records),
            backlog_bytes: site.backlog.map(|b| b.bytes),
            backlog_oldest_ms: site.backlog.and_then(|b| b.oldest_ms),
        }
    }
}

/// A declared device as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct Device {
    id: String,
    kind: &'static str,
    name: String,
    state: &'static str,
    cause: Option<&'static str>,
    since_ms: i64,
    last_good_ms: Option<i64>,
}

impl Device {
    fn of(device: &DeviceNow) -> Self {
        Self {
            id: device.id.to_string(),
            kind: device.kind.name(),
            name: device.name.clone(),
            state: device.state.name(),
            cause: device.cause.map(scc_common::record::Cause::name),
            since_ms: device.since_ms,
            last_good_ms: device.last_good_ms,
        }
    }
}

/// A camera's newest stored still.
#[derive(Debug, Serialize, ToSchema)]
struct Picture {
    device: String,
    /// Its bytes are at `/media/<record>`.
    record: i64,
    /// When it was taken, by the best that is known, and not after its arrival.
    captured_ms: i64,
    /// What the box's own clock said.
    told_ms: Option<i64>,
    /// From the monotonic time of the box's boot; only where its clock was not confirmed.
    corrected_ms: Option<i64>,
    /// confirmed, corrected, unknown
    quality: &'static str,
}

impl Picture {
    fn of(picture: &crate::store::views::Picture) -> Self {
        let dated = picture.dated.as_ref();
        Self {
            device: picture.device.to_string(),
            record: picture.record,
            captured_ms: picture.captured_ms,
            told_ms: dated.map(|d| d.told_ms),
            corrected_ms: dated.and_then(|d| d.corrected_ms),
            quality: dated.map_or(TimeQuality::Unknown, Dated::quality).name(),
        }
    }
}

/// One check by one person at one terminal.
#[derive(Debug, Serialize, ToSchema)]
struct Punch {
    device: String,
    user: String,
    /// The terminal's own clock, seconds since 2000-01-01 00:00 in its zone.
    local_s: i64,
    state: u8,
    verify: u8,
    received_ms: i64,
}

/// The delivery receipt of a site and day.
#[derive(Debug, Serialize, ToSchema)]
struct Receipt {
    day: String,
    /// `running`: captured and arrived since the day began, lost since, waiting now. `counted`: the box's
    /// own count of what it took on the day, and what became of it. `seen`: the day is over and the box
    /// has not told its count.
    basis: &'static str,
    /// When the box last told how far it has numbered what it took, which `taken` and `queued` go by.
    /// None: not since the day began, so that more may wait there.
    told_at_ms: Option<i64>,
    streams: Vec<StreamLine>,
    terminals: Vec<Terminal>,
    gaps: Vec<GapLine>,
    unreadable: u64,
    /// Stored records whose time is corrected, because their box's clock was not confirmed.
    corrected: u64,
    /// Stored records of which nobody knows when they were taken; they count on the day of their arrival.
    undated: u64,
    /// Records under whose number something else is stored; both are kept.
    conflicts: u64,
}

/// One stream of a receipt, by its basis. `missing`: acknowledged by the hub, and neither in the
/// database nor a gap. `taken` is the sum of stored, queued, lost and missing.
#[derive(Debug, Serialize, ToSchema)]
struct StreamLine {
    stream: &'static str,
    taken: u64,
    stored: u64,
    queued: u64,
    lost: u64,
    missing: u64,
    duplicates: u64,
}

/// What the machine's own log has, and what is here.
#[derive(Debug, Serialize, ToSchema)]
struct Terminal {
    device: String,
    /// None: not read that day.
    machine: Option<u64>,
    hub: u64,
    complete: Option<bool>,
    read_at_ms: Option<i64>,
}

/// Records that are lost, and why.
#[derive(Debug, Serialize, ToSchema)]
struct GapLine {
    stream: &'static str,
    lost: u64,
    reason: &'static str,
    at_ms: i64,
}

/// A day, `yyyy-mm-dd`; today where none is given.
#[derive(Debug, Deserialize, IntoParams)]
struct DayOf {
    day: Option<String>,
}

impl DayOf {
    fn of(&self, t: &T) -> Result<Day, Refused> {
        match &self.day {
            Some(day) => t.chosen(day).map(|(_, day)| day),
            None => Ok(t.today()),
        }
    }
}

#[utoipa::path(get, path = "/api/v1/overview", responses((status = 200, body = Overview), (status = 401)))]
async fn overview(Shared(app): Shared<App>, viewer: Viewer) -> Json<Overview> {
    let snapshot = app.fleet.now();
    let of = |kind| {
        Count::of(
            visible(&viewer, &snapshot)
                .flat_map(move |s| s.devices_of(kind))
                .map(|d| d.state),
        )
    };
    let cameras = of(DeviceKind::Camera);
    let installed = snapshot
        .declared
        .as_ref()
        .map(|d| d.register.installed_cameras);
    let unlisted = installed
        .filter(|_| viewer.is_operator())
        .and_then(|n| usize::try_from(n).ok())
        .map(|n| n.saturating_sub(cameras.declared));
    Json(Overview {
        at_ms: snapshot.at_ms,
        sites: Count::of(visible(&viewer, &snapshot).map(|s| s.state)),
        cameras,
        terminals: of(DeviceKind::Terminal),
        cameras_unlisted: unlisted,
    })
}

#[utoipa::path(get, path = "/api/v1/sites", responses((status = 200, body = Vec<Site>), (status = 401)))]
async fn sites(Shared(app): Shared<App>, viewer: Viewer) -> Json<Vec<Site>> {
    let snapshot = app.fleet.now();
    Json(visible(&viewer, &snapshot).map(Site::of).collect())
}

#[utoipa::path(get, path = "/api/v1/sites/{site}", params(("site" = String, Path)),
    responses((status = 200, body = Site), (status = 401), (status = 404)))]
async fn site(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Json<Site>, Refused> {
    let snapshot = app.fleet.now();
    Ok(Json(Site::of(visible_site(&viewer, &snapshot, &id)?)))
}

#[utoipa::path(get, path = "/api/v1/sites/{site}/devices", params(("site" = String, Path)),
    responses((status = 200, body = Vec<Device>), (status = 401), (status = 404)))]
async fn devices(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Json<Vec<Device>>, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &id)?;
    Ok(Json(site.devices.iter().map(Device::of).collect()))
}

#[utoipa::path(get, path = "/api/v1/sites/{site}/pictures", params(("site" = String, Path)),
    responses((status = 200, body = Vec<Picture>), (status = 401), (status = 404)))]
async fn pictures(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Json<Vec<Picture>>, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &id)?;
    let cameras = site
        .devices_of(DeviceKind::Camera)
        .map(|d| d.id.clone())
        .collect();
    let newest = app
        .store
        .newest_pictures(site.id.clone(), cameras)
        .await
        .map_err(Refused::broken)?;
    Ok(Json(newest.values().map(Picture::of).collect()))
}

/// Most punches of one answer: a terminal's whole log holds 100,000 or fewer.
const PUNCHES: u32 = 100_000;

#[utoipa::path(get, path = "/api/v1/sites/{site}/punches", params(("site" = String, Path), DayOf),
    responses((status = 200, body = Vec<Punch>), (status = 400), (status = 401), (status = 404)))]
async fn punches(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(day): Query<DayOf>,
    headers: HeaderMap,
) -> Result<Json<Vec<Punch>>, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &id)?;
    let day = day.of(&app.t(&headers))?;
    let terminals = site
        .devices_of(DeviceKind::Terminal)
        .map(|d| d.id.clone())
        .collect();
    let rows = app
        .store
        .punches(site.id.clone(), terminals, day.name, PUNCHES)
        .await
        .map_err(Refused::broken)?;
    let line = |p: crate::store::views::PunchRow| Punch {
        device: p.device.to_string(),
        user: p.user,
        local_s: p.local_s,
        state: p.state,
        verify: p.verify,
        received_ms: p.received_ms,
    };
    Ok(Json(rows.into_iter().map(line).collect()))
}

#[utoipa::path(get, path = "/api/v1/sites/{site}/receipt", params(("site" = String, Path), DayOf),
    responses((status = 200, body = Receipt), (status = 400), (status = 401), (status = 404)))]
async fn receipt(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(day): Query<DayOf>,
    headers: HeaderMap,
) -> Result<Json<Receipt>, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &id)?;
    let day = day.of(&app.t(&headers))?;
    let found = app
        .store
        .receipt(site.id.clone(), day.clone())
        .await
        .map_err(Refused::broken)?;
    let days = attendance::days(&app, &day, std::iter::once(site)).await?;
    Ok(Json(Receipt {
        day: day.name,
        basis: found.basis.name(),
        told_at_ms: found.told_ms,
        streams: found
            .streams
            .iter()
            .map(|(stream, r)| StreamLine {
                stream: stream.name(),
                taken: r.taken(),
                stored: r.stored,
                queued: r.queued,
                lost: r.lost,
                missing: r.missing,
                duplicates: r.duplicates,
            })
            .collect(),
        terminals: days
            .into_iter()
            .map(|((_, device), d)| Terminal {
                device: device.to_string(),
                machine: d.read.as_ref().map(|r| r.machine),
                hub: d.stored,
                complete: d.read.as_ref().map(|r| r.complete),
                read_at_ms: d.read.as_ref().map(|r| r.at_ms),
            })
            .collect(),
        gaps: found
            .gaps
            .iter()
            .map(|g| GapLine {
                stream: g.stream.name(),
                lost: g.lost,
                reason: g.reason.name(),
                at_ms: g.at_ms,
            })
            .collect(),
        unreadable: found.unreadable,
        corrected: found.corrected,
        undated: found.undated,
        conflicts: found.conflicts,
    }))
}

#[utoipa::path(get, path = "/api/v1/sites/{site}/receipt.csv", params(("site" = String, Path), DayOf),
    responses((status = 200, body = String, content_type = "text/csv"), (status = 400), (status = 401), (status = 404)))]
async fn receipt_csv(
    Shared(app): Shared<App>,
    viewer: Viewer,
    Path(id): Path<String>,
    Query(day): Query<DayOf>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let day = day.of(&app.t(&headers))?;
    receipts::csv(&app, &viewer, &id, &day).await
}

async fn document(_viewer: Viewer) -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
