//! Coming in, going out, and the language switch.

use std::net::SocketAddr;

use askama::Template;
use axum::Form;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::session::{self, LOGIN, SESSION, Viewer};
use super::text::T;
use super::{App, LANG, Refused, assets, password};
use crate::store::StoreError;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    t: &'a T,
    assets: String,
    /// Where to go afterwards.
    to: &'a str,
    name: &'a str,
    csrf: &'a str,
    error: Option<String>,
    path: &'a str,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Aim {
    ke: Option<String>,
}

/// Only a path of ours: `/…`, never `//host` or `/\host`.
fn own_path(path: &str) -> &str {
    let mut chars = path.chars();
    let ours = chars.next() == Some('/') && !matches!(chars.next(), Some('/' | '\\'));
    if ours && !path.chars().any(char::is_control) {
        path
    } else {
        "/"
    }
}

pub(crate) async fn form(
    State(app): State<App>,
    viewer: Option<Viewer>,
    Query(aim): Query<Aim>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let to = own_path(aim.ke.as_deref().unwrap_or("/"));
    if viewer.is_some() {
        return Ok(Redirect::to(to).into_response());
    }
    show(&app.t(&headers), to, "", None, StatusCode::OK)
}

fn show(
    t: &T,
    to: &str,
    name: &str,
    error: Option<String>,
    status: StatusCode,
) -> Result<Response, Refused> {
    let csrf = session::secret();
    let page = LoginPage {
        t,
        assets: assets::folder(),
        to,
        name,
        csrf: &csrf,
        error,
        path: "/masuk",
    };
    let html = page.render().map_err(Refused::broken)?;
    let cookie = session::set_secret(LOGIN, &csrf, 3_600);
    Ok((
        status,
        AppendHeaders([(header::SET_COOKIE, cookie)]),
        Html(html),
    )
        .into_response())
}

#[derive(Deserialize)]
pub(crate) struct Entry {
    nama: String,
    sandi: String,
    csrf: String,
    #[serde(default)]
    ke: String,
}

pub(crate) async fn enter(
    State(app): State<App>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(entry): Form<Entry>,
) -> Result<Response, Refused> {
    let t = app.t(&headers);
    let to = own_path(&entry.ke);
    let name = entry.nama.trim();
    if !session::cookie(&headers, LOGIN).is_some_and(|c| session::same(c, &entry.csrf)) {
        // an old form: give a fresh one rather than a dead end
        return show(
            &t,
            to,
            name,
            Some(t.s("login-old-form")),
            StatusCode::FORBIDDEN,
        );
    }
    if let Err(wait) = app.limit.try_once(name, peer.ip()) {
        let minutes = wait.as_secs().div_ceil(60);
        let error = t.a("login-wait", "n", minutes);
        return show(&t, to, name, Some(error), StatusCode::TOO_MANY_REQUESTS);
    }
    let stored = app
        .store
        .password_of(name.to_owned())
        .await
        .map_err(Refused::broken)?;
    let now_ms = app.clock.wall_ms();
    if !password::verify(entry.sandi, stored).await {
        let who: String = name.chars().take(64).collect();
        tracing::warn!(user = who, peer = %peer.ip(), "a login failed");
        let noted = app
            .store
            .note(now_ms, who, "login refused", peer.ip().to_string())
            .await;
        if let Err(error) = noted {
            // the log has it; whoever mistyped must hear that, and not of the disk
            tracing::warn!(%error, "a refused login is not in the audit");
        }
        return show(
            &t,
            to,
            name,
            Some(t.s("login-wrong")),
            StatusCode::UNAUTHORIZED,
        );
    }
    let token = session::secret();
    let begun = app
        .store
        .begin_session(
            session::sha256(&token),
            name.to_owned(),
            session::secret(),
            peer.ip().to_string(),
            now_ms,
        )
        .await;
    if let Err(error) = begun {
        // a session is a row, and no row can be written: say so where they stand
        tracing::error!(%error, "nobody can log in");
        let error = match error {
            StoreError::Full(_) => t.s("login-hub-full"),
            _ => t.s("login-hub-broken"),
        };
        return show(&t, to, name, Some(error), StatusCode::SERVICE_UNAVAILABLE);
    }
    let cookies = AppendHeaders([
        (
            header::SET_COOKIE,
            session::set_secret(SESSION, &token, crate::store::people::LIFE_MS / 1_000),
        ),
        (header::SET_COOKIE, session::set_secret(LOGIN, "", 0)),
    ]);
    Ok((cookies, Redirect::to(to)).into_response())
}

#[derive(Debug, Deserialize)]
pub(crate) struct Leave {
    csrf: String,
}

pub(crate) async fn leave(
    State(app): State<App>,
    viewer: Viewer,
    Form(form): Form<Leave>,
) -> Result<Response, Refused> {
    if !viewer.wrote(&form.csrf) {
        return Err(Refused::Forged);
    }
    let ended = app
        .store
        .end_session(viewer.token_sha256, viewer.name, app.clock.wall_ms())
        .await;
    if let Err(error) = ended {
        // the next person at this PC must not find it open: the cookie goes even if the row stays
        tracing::error!(%error, "a session was left and could not be ended");
    }
    let cookie = AppendHeaders([(header::SET_COOKIE, session::set_secret(SESSION, "", 0))]);
    Ok((cookie, Redirect::to("/masuk")).into_response())
}

/// Remembers a language and goes back to where its link was.
pub(crate) async fn language(
    Path(code): Path<String>,
    Query(aim): Query<Aim>,
) -> Result<Response, Refused> {
    let lang: scc_common::lang::Lang = code.parse().map_err(|_| Refused::NotFound)?;
    let cookie = format!("{LANG}={lang}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=31536000");
    let to = own_path(aim.ke.as_deref().unwrap_or("/")).to_owned();
    Ok((
        AppendHeaders([(header::SET_COOKIE, cookie)]),
        Redirect::to(&to),
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_host_after_login() {
        for (path, to) in [
            ("/lokasi/rsud", "/lokasi/rsud"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(own_path(path), to, "{path:?}");
        }
    }
}
