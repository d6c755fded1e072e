//! The frame around every page, and the parts that it is made of.

use std::borrow::Borrow;

use askama::Template;
use axum::response::Html;
use scc_common::record::State;

use super::session::Viewer;
use super::text::{T, finish};
use super::{App, Refused, assets, hub};
use crate::fleet::Snapshot;
use crate::fleet::judge::SiteNow;

/// A piece of a page that is sent again when it differs. Until [`finish`] its ages are marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) id: &'static str,
    column: Column,
    pub(crate) html: String,
}

impl Part {
    pub(crate) fn new(id: &'static str, template: &impl Template) -> Result<Self, Refused> {
        let html = template.render().map_err(Refused::broken)?;
        Ok(Self {
            id,
            column: Column::Both,
            html,
        })
    }

    /// The same part in one of the two columns below the others.
    pub(crate) fn in_column(self, column: Column) -> Self {
        Self { column, ..self }
    }
}

/// Where a part stands on a wide page; on a phone all stand below each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    /// Across the page, above the columns.
    Both,
    /// The wide one.
    Main,
    /// The narrow one.
    Side,
}

/// Which menu entry a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    Overview,
    Sites,
    Attendance,
}

#[derive(Template)]
#[template(path = "layout.html")]
struct Layout<'a> {
    t: &'a T,
    title: String,
    assets: String,
    viewer: &'a Viewer,
    menu: Menu,
    /// Query of the event stream.
    watch: &'a str,
    parts: &'a [Part],
    columns: bool,
    path: &'a str,
    /// When anything last arrived from anybody, or 0.
    heard_ms: i64,
    fleet_name: String,
}

#[derive(Template)]
#[template(path = "note.html")]
struct Note<'a> {
    t: &'a T,
    assets: String,
    title: String,
    text: String,
    code: &'a str,
}

/// What a page is called and where it lives.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) title: String,
    pub(crate) menu: Menu,
    pub(crate) path: &'a str,
    pub(crate) watch: &'a str,
}

/// A whole page.
pub(crate) fn full(
    app: &App,
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
    place: Place<'_>,
    parts: Vec<Part>,
) -> Result<Html<String>, Refused> {
    let parts = hub::on_top(app, t, viewer, parts)?;
    let layout = Layout {
        t,
        title: place.title,
        assets: assets::folder(),
        viewer,
        menu: place.menu,
        watch: place.watch,
        columns: parts.iter().any(|p| p.column != Column::Both),
        parts: &parts,
        path: place.path,
        heard_ms: snapshot.heard_ms.unwrap_or(0),
        fleet_name: fleet_name(snapshot),
    };
    let html = layout.render().map_err(Refused::broken)?;
    Ok(Html(finish(&html, t)))
}

/// The command center's name.
pub(crate) fn fleet_name(snapshot: &Snapshot) -> String {
    snapshot.declared.as_ref().map_or_else(
        || "Soppeng Command Center".to_owned(),
        |d| d.register.name.clone(),
    )
}

/// A page that only says why there is none.
pub(crate) fn note(t: &T, key: &str, code: &str) -> Html<String> {
    let note = Note {
        t,
        assets: assets::folder(),
        title: t.s(&format!("{key}-title")),
        text: t.s(&format!("{key}-text")),
        code,
    };
    Html(note.render().unwrap_or_else(|_| t.s("broken-title")))
}

/// A path as a query value.
pub(crate) fn percent(path: &str) -> String {
    use std::fmt::Write as _;
    path.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-._~/".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

/// Sites that this person may see, in the order of the register.
pub(crate) fn visible<'a>(
    viewer: &'a Viewer,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = &'a SiteNow> + Clone {
    snapshot
        .sites
        .iter()
        .map(AsRef::as_ref)
        .filter(|s| viewer.sees(&s.agencies))
}

/// The site with this id, if this person may see it; else it does not exist for them.
pub(crate) fn visible_site<'a>(
    viewer: &Viewer,
    snapshot: &'a Snapshot,
    id: &str,
) -> Result<&'a SiteNow, Refused> {
    snapshot
        .site(id)
        .map(AsRef::as_ref)
        .filter(|s| viewer.sees(&s.agencies))
        .ok_or(Refused::NotFound)
}

impl T {
    /// The sign of a state: its shape alone, for places where the word stands beside it. HTML.
    pub(crate) fn sign(&self, state: impl Borrow<State>) -> String {
        let name = state.borrow().name();
        format!(
            "<svg class=\"ico\" data-s=\"{name}\" aria-hidden=\"true\"><use href=\"#i-{name}\"/></svg>"
        )
    }

    /// A state as shape, word and colour. HTML; `words` may say more than the bare state.
    pub(crate) fn badge(&self, state: impl Borrow<State>, words: &str) -> String {
        let name = state.borrow().name();
        format!(
            "<span class=\"st\" data-s=\"{name}\"><svg aria-hidden=\"true\"><use href=\"#i-{name}\"/></svg>{}</span>",
            askama::filters::escape(words, askama::filters::Html)
                .map_or_else(|_| String::new(), |e| e.to_string())
        )
    }

    /// A state by its own word. HTML.
    pub(crate) fn st(&self, state: impl Borrow<State>) -> String {
        let state = *state.borrow();
        self.badge(state, &self.state(state))
    }
}

impl App {
    /// The names of the agencies of a site.
    pub(crate) fn agency_names(snapshot: &Snapshot, site: &SiteNow) -> Vec<String> {
        let Some(declared) = &snapshot.declared else {
            return Vec::new();
        };
        site.agencies
            .iter()
            .filter_map(|id| declared.register.agencies.iter().find(|a| &a.id == id))
            .map(|a| a.name.clone())
            .collect()
    }
}
