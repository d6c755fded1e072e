//! For machines that watch the machine: `/healthz` for everybody, `/metrics` for Prometheus on the
//! hub itself (a loopback peer) and for operators who are logged in. It names sites and counts, so
//! it is not for the network at large; a Prometheus elsewhere comes through an SSH tunnel.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::session::Viewer;
use super::{App, Refused};

pub(crate) async fn metrics(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    viewer: Option<Viewer>,
) -> Result<Response, Refused> {
    let allowed = peer.ip().to_canonical().is_loopback() || viewer.is_some_and(|v| v.is_operator());
    if !allowed {
        return Err(Refused::NotFound);
    }
    app.metrics.run_upkeep();
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, app.metrics.render()).into_response())
}

/// Says `ok` when the database and ingest answer, else which does not.
pub(crate) async fn healthz(State(app): State<App>) -> Response {
    let database = tokio::time::timeout(std::time::Duration::from_secs(2), app.store.ping()).await;
    if !matches!(database, Ok(Ok(()))) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database does not answer\n",
        )
            .into_response();
    }
    // what is wrong in detail is for the log and for operators, not for whoever asks
    if app.ingest.has_changed().is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ingest has stopped\n").into_response();
    }
    if app.ingest.borrow().database.is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "ingest cannot store\n").into_response();
    }
    "ok\n".into_response()
}
