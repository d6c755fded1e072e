//! Pictures and video, to those who may see their site.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use scc_common::id::DeviceId;
use scc_common::stream::Stream;

use super::page::visible_site;
use super::session::Viewer;
use super::{App, Refused};

/// Kept by the viewer's own browser, and shown only after the hub has said again that it may be.
const ASK: &str = "private, no-cache";

/// A stored picture or piece of video by its record. It never changes, so the viewer's own browser
/// may keep it, but asks each time: whoever sits there next may not see what this one saw.
pub(crate) async fn stored(
    State(app): State<App>,
    viewer: Viewer,
    Path(record): Path<i64>,
    headers: HeaderMap,
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
    let tag = format!("\"{record}\"");
    let kept = headers.get(header::IF_NONE_MATCH);
    if kept.is_some_and(|k| k.as_bytes() == tag.as_bytes()) {
        let same = [(header::ETAG, tag), (header::CACHE_CONTROL, ASK.to_owned())];
        return Ok((StatusCode::NOT_MODIFIED, same).into_response());
    }
    let bytes = app.media.get(&at.path).await.map_err(Refused::broken)?;
    Ok(([(header::ETAG, tag)], answer(kind, bytes)).into_response())
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
    Ok(answer("image/jpeg", still.jpeg))
}

fn answer(kind: &'static str, bytes: Bytes) -> Response {
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, ASK)],
        bytes,
    )
        .into_response()
}
