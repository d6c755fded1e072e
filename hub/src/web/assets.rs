//! Styles and scripts, embedded in the binary, under a path that contains their digest: they may be
//! cached for ever, and a new program brings a new path.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;

use super::refuse::Refused;

const FILES: [(&str, &str, &str); 6] = [
    (
        "mark.svg",
        "image/svg+xml",
        include_str!("../../assets/mark.svg"),
    ),
    (
        "scc.css",
        "text/css; charset=utf-8",
        concat!(
            include_str!("../../assets/tokens.css"),
            include_str!("../../assets/base.css")
        ),
    ),
    ("theme.js", SCRIPT, include_str!("../../assets/theme.js")),
    ("live.js", SCRIPT, include_str!("../../assets/live.js")),
    ("morph.js", SCRIPT, include_str!("../../assets/morph.js")),
    ("ages.js", SCRIPT, include_str!("../../assets/ages.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for (_, _, text) in FILES {
        context.update(text.as_bytes());
    }
    context
        .finish()
        .as_ref()
        .iter()
        .take(6)
        .map(|b| format!("{b:02x}"))
        .collect()
});

/// The folder that pages link to.
pub(crate) fn folder() -> String {
    format!("/assets/{}", *VERSION)
}

pub(crate) async fn file(
    Path((version, name)): Path<(String, String)>,
) -> Result<impl IntoResponse, Refused> {
    if version != *VERSION {
        return Err(Refused::NotFound);
    }
    let (_, kind, text) = FILES
        .iter()
        .find(|f| f.0 == name)
        .ok_or(Refused::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Ok((headers, *text))
}
