//! The event stream: what differs on the page that somebody has open.
//!
//! The page names itself (`?di=ringkasan`, `?di=lokasi/rsud` …). Its parts are rendered again when
//! there is news, at most twice a second, and every five seconds for what time alone changes; parts
//! that differ from what this viewer has are sent as `part` events, and a `beat` tells that the hub
//! is alive. The session is looked at again every minute, so that a session that has ended goes dark.
//!
//! Who comes when all places are taken gets everything once, and the stream ends with the word to ask
//! again in a moment: such a page is some seconds behind and never stands still.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::page::Part;
use super::session::Viewer;
use super::text::{T, finish};
use super::{App, REQUEST, Refused, attendance, hub, overview, receipt, site};

/// Shortest and longest time between two renderings for one viewer. Between them it is four times
/// what the last one took: a viewer costs a fifth of a core at most, and who looks at a hub that has
/// little to do sees what is new at once.
const PACE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_millis(500);
/// What time alone changes is looked at, and life is shown, this often.
const BEAT: Duration = Duration::from_secs(5);
/// A page for which there is no place asks again after this long: as often as a beat would come.
const AGAIN: Duration = BEAT;
/// Beats between two looks at the session.
const BEATS_PER_CHECK: u32 = 12;

#[derive(Debug, Deserialize)]
pub(crate) struct Watch {
    di: String,
}

/// The parts of the page that a viewer has open.
async fn parts(app: &App, t: &T, viewer: &Viewer, place: &str) -> Result<Vec<Part>, Refused> {
    let snapshot = app.fleet.now();
    let parts = match place {
        "ringkasan" => overview::parts(app, t, viewer, &snapshot).await,
        "lokasi" => overview::sites_parts(t, viewer, &snapshot),
        "absensi" => attendance::parts(app, t, viewer, &snapshot).await,
        other => match other.split('/').collect::<Vec<_>>()[..] {
            ["lokasi", id] => site::parts(app, t, viewer, &snapshot, id).await,
            ["tanda-terima", id, day] => receipt::parts(app, t, viewer, &snapshot, id, day).await,
            _ => Err(Refused::NotFound),
        },
    }?;
    hub::on_top(app, t, viewer, parts)
}

pub(crate) async fn stream(
    State(app): State<App>,
    viewer: Viewer,
    Query(watch): Query<Watch>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let lang = app.t(&headers).lang;
    let t = app.t(&headers);
    // refused here rather than in a stream that nobody can read the status of
    let first = parts(&app, &t, &viewer, &watch.di).await?;
    let seat = app.streams.take(viewer.token_sha256);
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        let Some(_seat) = seat else {
            metrics::counter!("scc_web_streams_without_place_total").increment(1);
            let once = async {
                tell.send(Ok(Event::default().retry(AGAIN))).await?;
                news(&tell, &app, &t, &[], &first).await
            };
            // Whatever did not get through: the page asks again by itself. One that reads nothing
            // holds no task.
            let _ = tokio::time::timeout(REQUEST, once).await;
            return;
        };
        let mut changes = app.fleet.changes();
        changes.mark_unchanged();
        let mut ingest = app.ingest.clone();
        ingest.mark_unchanged();
        let mut beat = tokio::time::interval(BEAT);
        let mut beats = 0_u32;
        // everything once: the page may be older than this stream
        let mut have: Vec<Part> = Vec::new();
        let mut fresh = Some(first);
        loop {
            let begun = tokio::time::Instant::now();
            let t = app.words(lang, &app.fleet.now());
            let now = match fresh.take() {
                Some(parts) => parts,
                None => match parts(&app, &t, &viewer, &watch.di).await {
                    Ok(parts) => parts,
                    // the site has left the register, or the database is away: the page will say so
                    Err(_) => return,
                },
            };
            if news(&tell, &app, &t, &have, &now).await.is_err() {
                return;
            }
            have = now;
            let pace = (begun.elapsed() * 4).clamp(*PACE.start(), *PACE.end());
            tokio::time::sleep(pace).await;
            tokio::select! {
                () = app.stop.cancelled() => return,
                () = tell.closed() => return,
                changed = changes.changed() => if changed.is_err() { return },
                // when ingest has ended the hub is about to, and the next beat says so
                Ok(()) = ingest.changed() => {}
                _ = beat.tick() => {
                    beats += 1;
                    if beats.is_multiple_of(BEATS_PER_CHECK) && !still_in(&app, &viewer).await {
                        return;
                    }
                }
            }
        }
    });
    Ok(Sse::new(ReceiverStream::new(told)))
}

/// Sends the parts that differ from what the viewer has, and a beat.
async fn news(
    tell: &mpsc::Sender<Result<Event, Infallible>>,
    app: &App,
    t: &T,
    have: &[Part],
    now: &[Part],
) -> Result<(), mpsc::error::SendError<Result<Event, Infallible>>> {
    for part in now.iter().filter(|part| !have.contains(part)) {
        let data = serde_json::json!({ "id": part.id, "html": finish(&part.html, t) });
        let event = Event::default().event("part").data(data.to_string());
        tell.send(Ok(event)).await?;
    }
    let heard = app.fleet.now().heard_ms.unwrap_or(0);
    let data = serde_json::json!({ "now": app.clock.wall_ms(), "heard": heard });
    let event = Event::default().event("beat").data(data.to_string());
    tell.send(Ok(event)).await
}

/// Whether the session is still good and still allows the same.
async fn still_in(app: &App, viewer: &Viewer) -> bool {
    let found = app
        .store
        .session(viewer.token_sha256, app.clock.wall_ms())
        .await;
    matches!(found, Ok(Some(crate::store::people::Session { role, .. })) if role == viewer.role)
}
