//! Pictures and video, to those who may see their site.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scc_common::id::DeviceId;
use scc_common::stream::Stream;

use super::page::visible_site;
use super::session::Viewer;
use super::{App, Refused};

/// A stored picture or piece of video by its record. It never changes, so the viewer's own browser
/// may keep it for a day; shared caches may not.
pub(crate) async fn stored(
    State(app): State<App>,
    viewer: Viewer,
    Path(record): Path<i64>,
) -> Result<Response, Refused> {
    let at = app
        .store
        .media_at(record)
        .await
        .map_err(Refused::broken)?
        .ok_or(Refused::NotFound)?;
    // a site that is no longer declared is the operators' business alone
    if !viewer.is_operator() {
        visible_site(&viewer, &app.fleet.now(), at.agent.as_str())?;
    }
    let kind = match at.stream {
        Stream::Snapshot => "image/jpeg",
        Stream::Segment => "video/mp4",
        _ => return Err(Refused::NotFound),
    };
    let bytes = app.media.get(&at.path).await.map_err(Refused::broken)?;
    Ok(answer(kind, "private, max-age=86400, immutable", bytes))
}

/// A camera's newest picture as *now* brought it, ahead of the backlog.
pub(crate) async fn still(
    State(app): State<App>,
    viewer: Viewer,
    Path((site, device)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let snapshot = app.fleet.now();
    let site = visible_site(&viewer, &snapshot, &site)?;
    let device = DeviceId::new(device).map_err(|_| Refused::NotFound)?;
    let still = app
        .fleet
        .still(&site.id, &device)
        .ok_or(Refused::NotFound)?;
    Ok(answer("image/jpeg", "private, no-cache", still.jpeg))
}

fn answer(kind: &'static str, cache: &'static str, bytes: Bytes) -> Response {
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)],
        bytes,
    )
        .into_response()
}
