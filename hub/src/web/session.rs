//! Who is looking. A session is a random 256-bit token in a `__Host-` cookie; the database holds its
//! SHA-256 only. Every handler that shows anything of the fleet takes a [`Viewer`], and asks it what
//! may be seen: there is no other way to the fleet's data.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::Method;
use axum::http::header::{COOKIE, HeaderMap};
use axum::http::request::Parts;
use scc_common::clock::WallMs;
use scc_common::id::AgencyId;
use subtle::ConstantTimeEq;

use super::App;
use super::refuse::Refused;
use crate::store::people::Role;

/// The cookie of a session.
pub(crate) const SESSION: &str = "__Host-scc";

/// The cookie that a login form is tied to.
pub(crate) const LOGIN: &str = "__Host-scc-masuk";

/// How long a page waits for its session to be noted as used.
const TOUCH: Duration = Duration::from_secs(1);

/// Somebody who is logged in.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) csrf: String,
    pub(crate) token_sha256: [u8; 32],
}

impl Viewer {
    /// Whether something of these agencies may be shown.
    pub(crate) fn sees(&self, agencies: &[AgencyId]) -> bool {
        match &self.role {
            Role::Operator => true,
            Role::Agency(own) => agencies.iter().any(|a| own.contains(a)),
        }
    }

    pub(crate) const fn is_operator(&self) -> bool {
        matches!(self.role, Role::Operator)
    }

    /// Whether a form came from one of this session's own pages.
    pub(crate) fn wrote(&self, csrf: &str) -> bool {
        same(&self.csrf, csrf)
    }
}

/// Compares two secrets in a time that does not tell where they differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && !a.is_empty() && bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}

/// A fresh secret, 256 bits, as hex.
pub(crate) fn secret() -> String {
    rand::random::<[u8; 32]>()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// What the database knows a token by.
pub(crate) fn sha256(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, _)| *n == name)
        .map(|(_, value)| value)
}

/// `Set-Cookie` for a secret; an empty value takes it away.
pub(crate) fn set_secret(name: &str, value: &str, max_age_s: i64) -> String {
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={max_age_s}")
}

async fn viewer(parts: &Parts, app: &App) -> Result<Option<Viewer>, Refused> {
    let Some(token) = cookie(&parts.headers, SESSION) else {
        return Ok(None);
    };
    let token_sha256 = sha256(token);
    let now_ms = app.clock.wall_ms();
    let Some(session) = app
        .store
        .session(token_sha256, now_ms)
        .await
        .map_err(Refused::broken)?
    else {
        return Ok(None);
    };
    if now_ms - session.seen_ms >= 60_000 {
        app.touch(token_sha256, now_ms).await;
    }
    Ok(Some(Viewer {
        name: session.user,
        role: session.role,
        csrf: session.csrf,
        token_sha256,
    }))
}

impl App {
    /// Notes that a session was used, as well as can be: a database that takes no writes must not
    /// keep anybody from the page that says so. Logged when it begins to fail and when it works again.
    async fn touch(&self, token_sha256: [u8; 32], now_ms: WallMs) {
        let write = self.store.touch_session(token_sha256, now_ms);
        let failed = match tokio::time::timeout(TOUCH, write).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the writer is busy".to_owned()),
        };
        let before = self.untouched.swap(failed.is_some(), Ordering::Relaxed);
        match failed {
            Some(error) if !before => {
                tracing::warn!(error, "sessions are not noted as used; pages go on");
            }
            None if before => tracing::info!("sessions are noted as used again"),
            _ => {}
        }
    }
}

impl FromRequestParts<App> for Viewer {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        viewer(parts, app).await?.ok_or_else(|| {
            // a form cannot be sent again after the login: whoever sent one begins at the overview
            let page = parts.uri.path_and_query().map_or("/", |p| p.as_str());
            let path = if parts.method == Method::GET {
                page
            } else {
                "/"
            };
            Refused::NotLoggedIn {
                page: path.to_owned(),
            }
        })
    }
}

impl OptionalFromRequestParts<App> for Viewer {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Refused> {
        viewer(parts, app).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            "x__Host-scc=1; __Host-scc=abc; lang=id".parse().unwrap(),
        );
        assert_eq!(cookie(&headers, SESSION), Some("abc"));
        assert_eq!(cookie(&headers, "bahasa"), None);
    }

    #[test]
    fn an_empty_secret_equals_nothing() {
        assert!(!same("", ""));
        assert!(same("ab", "ab") && !same("ab", "ac") && !same("ab", "abc"));
        assert_eq!(secret().len(), 64);
    }
}
