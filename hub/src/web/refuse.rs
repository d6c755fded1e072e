//! What is answered when a page cannot be shown: one type for pages, API and media, so that nobody
//! learns from the kind of answer what exists. Another's site is the same 404 as no site at all.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::text::T;

/// Why something is not shown.
#[derive(Debug, Clone)]
pub(crate) enum Refused {
    /// Nobody is logged in; `page` is where they wanted to go.
    NotLoggedIn { page: String },
    /// There is no such thing, or it is another's.
    NotFound,
    /// A form that did not come from our page, or whose session has ended.
    Forged,
    /// The request makes no sense.
    Bad,
    /// A router's or an extractor's own refusal: no such method, a field or a part of the path that
    /// cannot be read, a body that is too large.
    Unread(StatusCode),
    /// The hub's own fault, with a code that is in the log.
    Broken { code: String },
}

impl Refused {
    /// Logs what broke under a short code and hides the rest from the page.
    pub(crate) fn broken(error: impl std::fmt::Display) -> Self {
        let code = format!("{:04X}", rand::random::<u16>());
        tracing::error!(%error, code, "a request could not be answered");
        Self::Broken { code }
    }

    /// What axum refused by itself, in English and as plain text. Our own answers are never that.
    fn of_axum(response: &Response) -> Option<Self> {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let plain = kind.is_none_or(|k| k.as_bytes().starts_with(b"text/plain"));
        (response.status().is_client_error() && plain).then(|| Self::Unread(response.status()))
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NotLoggedIn { .. } => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Forged => StatusCode::FORBIDDEN,
            Self::Bad => StatusCode::BAD_REQUEST,
            Self::Unread(status) => *status,
            Self::Broken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives refusals their body: a redirect to the login or a page for people, JSON for programs.
pub(crate) async fn explain(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let for_programs = [
        "/api/", "/media/", "/events", "/metrics", "/healthz", "/assets/",
    ]
    .iter()
    .any(|p| path.starts_with(p));
    let t = app.t(request.headers());
    let response = next.run(request).await;
    let ours = response.extensions().get::<Refused>().cloned();
    let Some(refused) = ours.or_else(|| Refused::of_axum(&response)) else {
        return response;
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = said(refused, for_programs, &t, &app);
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn said(refused: Refused, for_programs: bool, t: &T, app: &App) -> Response {
    let status = refused.status();
    if for_programs {
        let error = match &refused {
            Refused::NotLoggedIn { .. } => "not logged in",
            Refused::NotFound => "not found",
            Refused::Forged => "the form is not ours",
            Refused::Bad | Refused::Unread(_) => "bad request",
            Refused::Broken { .. } => "internal error",
        };
        let code = match &refused {
            Refused::Broken { code } => Some(code.as_str()),
            _ => None,
        };
        let body = serde_json::json!({ "error": error, "code": code });
        return (status, axum::Json(body)).into_response();
    }
    match refused {
        Refused::NotLoggedIn { page } => {
            let to = if page == "/" {
                "/masuk".to_owned()
            } else {
                format!("/masuk?ke={}", super::page::percent(&page))
            };
            (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
        }
        Refused::NotFound => (status, super::page::note(t, "not-found", "")).into_response(),
        Refused::Forged => (status, super::page::note(t, "forged", "")).into_response(),
        Refused::Bad | Refused::Unread(_) => {
            (status, super::page::note(t, "bad-request", "")).into_response()
        }
        // "the intake is well" is said only while it is
        Refused::Broken { code } => {
            let trouble = app.hub_trouble();
            let key = trouble.first().map_or_else(
                || "broken".to_owned(),
                |h| format!("broken-{}", h.what.name()),
            );
            (status, super::page::note(t, &key, &code)).into_response()
        }
    }
}
