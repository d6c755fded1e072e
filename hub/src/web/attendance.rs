//! *Absensi hari ini*: punches by agency, and how far each machine's own log is here.
//!
//! Nobody may read "absent" where a machine was silent: a terminal that was not read today makes its
//! people unknown, and the page says so before any number.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Html;
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{DeviceKind, State};

use super::page::{Menu, Part, Place, full, visible};
use super::session::Viewer;
use super::text::T;
use super::{App, Refused};
use crate::fleet::Snapshot;
use crate::fleet::judge::{DeviceNow, SiteNow};
use crate::store::views::{Day, TerminalDay};

/// How far a terminal's day is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everything that the machine has is here.
    Complete,
    /// The machine has more than is here.
    Partial,
    /// Not read today.
    Unread,
    /// Has never delivered anything.
    Never,
}

impl Standing {
    /// As one of the six states.
    pub(crate) const fn state(self) -> State {
        match self {
            Self::Complete => State::Up,
            Self::Partial => State::Degraded,
            Self::Unread => State::Unknown,
            Self::Never => State::Never,
        }
    }
}

/// The day of one terminal, judged.
#[derive(Debug, Clone)]
pub(crate) struct TerminalRow {
    pub(crate) site: String,
    pub(crate) site_href: String,
    pub(crate) name: String,
    pub(crate) stored: u64,
    pub(crate) people: u64,
    /// None: not read today.
    pub(crate) machine: Option<u64>,
    pub(crate) at_ms: Option<WallMs>,
    pub(crate) drift_ms: Option<i64>,
    pub(crate) standing: Standing,
}

impl TerminalRow {
    pub(crate) fn new(site: &SiteNow, device: &DeviceNow, day: &TerminalDay) -> Self {
        let standing = match &day.read {
            Some(read) if read.complete && day.stored >= read.machine => Standing::Complete,
            Some(_) => Standing::Partial,
            None if device.state == State::Never => Standing::Never,
            None => Standing::Unread,
        };
        Self {
            site: site.name.clone(),
            site_href: format!("/lokasi/{}", site.id),
            name: device.name.clone(),
            stored: day.stored,
            people: day.people,
            machine: day.read.as_ref().map(|r| r.machine),
            at_ms: day.read.as_ref().map(|r| r.at_ms),
            drift_ms: day.read.as_ref().and_then(|r| r.drift_ms),
            standing,
        }
    }

    /// "mesin 214 / pusat 214", with "?" where nobody could look.
    pub(crate) fn pair(&self, t: &T) -> String {
        let machine = self.machine.map_or_else(|| "?".to_owned(), |n| t.int(n));
        t.with(
            "machine-hub",
            &[
                ("machine", machine.into()),
                ("hub", t.int(self.stored).into()),
            ],
        )
    }

    /// A count of the day as it may be said: a machine that nobody has read has not "0".
    pub(crate) fn known(&self, t: &T, n: impl std::borrow::Borrow<u64>) -> String {
        match (*n.borrow(), self.standing) {
            (0, Standing::Unread | Standing::Never) => "?".to_owned(),
            (n, _) => t.int(n),
        }
    }

    /// The verdict on today in words.
    pub(crate) fn says(&self, t: &T) -> String {
        self.says_of(t, &t.today())
    }

    /// The verdict on a day in words.
    pub(crate) fn says_of(&self, t: &T, day: &Day) -> String {
        match (self.standing, self.at_ms) {
            (Standing::Complete, Some(at)) => t.a("read-complete-at", "time", t.when(at)),
            (Standing::Partial, Some(at)) => t.a("read-partial-at", "time", t.when(at)),
            (Standing::Never, _) => t.state(State::Never),
            _ if day.ended => t.s("read-not-since"),
            _ => t.s("read-not-today"),
        }
    }

    /// A terminal clock that is off by more than a minute, in words.
    pub(crate) fn clock(&self, t: &T) -> Option<String> {
        let drift = self.drift_ms.filter(|d| d.abs() > 60_000)?;
        let key = if drift > 0 {
            "clock-ahead"
        } else {
            "clock-behind"
        };
        Some(t.a(key, "span", t.span(drift.abs())))
    }
}

#[derive(Debug)]
struct AgencyRow {
    name: String,
    terminals: Vec<TerminalRow>,
    stored: u64,
    complete: usize,
    worst: Standing,
}

impl AgencyRow {
    /// How many of its machines are read to the end, with the sign of the least certain one. HTML.
    fn says(&self, t: &T) -> String {
        let words = t.with(
            "read-of",
            &[
                ("n", self.complete.into()),
                ("of", self.terminals.len().into()),
            ],
        );
        t.badge(self.worst.state(), &words)
    }

    /// Its punches, unless no machine has been read.
    fn known(&self, t: &T) -> String {
        let read = |row: &TerminalRow| row.machine.is_some() || row.stored > 0;
        if self.terminals.iter().any(read) {
            t.int(self.stored)
        } else {
            "?".to_owned()
        }
    }
}

#[derive(Template)]
#[template(path = "attendance.html")]
struct Board<'a> {
    t: &'a T,
    sentence: String,
    agencies: Vec<AgencyRow>,
    stored: u64,
    complete: usize,
    partial: usize,
    unknown: usize,
    of: usize,
}

/// A day of every terminal of these sites.
pub(crate) async fn days<'a>(
    app: &App,
    day: &Day,
    sites: impl Iterator<Item = &'a SiteNow>,
) -> Result<BTreeMap<(AgentId, DeviceId), TerminalDay>, Refused> {
    let terminals = sites.flat_map(|s| {
        s.devices_of(DeviceKind::Terminal)
            .map(|d| (s.id.clone(), d.id.clone()))
    });
    app.store
        .terminal_days(terminals.collect(), day.name.clone(), day.from_ms)
        .await
        .map_err(Refused::broken)
}

/// A day of every terminal of one site, judged.
pub(crate) async fn rows(
    app: &App,
    site: &SiteNow,
    day: &Day,
) -> Result<Vec<TerminalRow>, Refused> {
    let days = days(app, day, std::iter::once(site)).await?;
    let row = |device: &DeviceNow| {
        let day = days.get(&(site.id.clone(), device.id.clone()))?;
        Some(TerminalRow::new(site, device, day))
    };
    Ok(site
        .devices_of(DeviceKind::Terminal)
        .filter_map(row)
        .collect())
}

pub(crate) async fn parts(
    app: &App,
    t: &T,
    viewer: &Viewer,
    snapshot: &Snapshot,
) -> Result<Vec<Part>, Refused> {
    let days = days(app, &t.today(), visible(viewer, snapshot)).await?;
    let row = |site: &SiteNow, device: &DeviceNow| {
        let day = days.get(&(site.id.clone(), device.id.clone()))?;
        Some(TerminalRow::new(site, device, day))
    };
    let all: Vec<TerminalRow> = visible(viewer, snapshot)
        .flat_map(|s| {
            s.devices_of(DeviceKind::Terminal)
                .filter_map(move |d| row(s, d))
        })
        .collect();
    let declared = snapshot.declared.as_ref();
    let mut agencies: Vec<AgencyRow> = declared
        .map(|d| d.register.agencies.as_slice())
        .unwrap_or_default()
        .iter()
        .filter(|agency| viewer.sees(std::slice::from_ref(&agency.id)))
        .filter_map(|agency| {
            let terminals: Vec<TerminalRow> = visible(viewer, snapshot)
                .filter(|s| s.agencies.contains(&agency.id))
                .flat_map(|s| {
                    s.devices_of(DeviceKind::Terminal)
                        .filter_map(move |d| row(s, d))
                })
                .collect();
            let standings = terminals.iter().map(|r| r.standing);
            Some(AgencyRow {
                name: agency.name.clone(),
                stored: terminals.iter().map(|r| r.stored).sum(),
                complete: standings
                    .clone()
                    .filter(|s| *s == Standing::Complete)
                    .count(),
                worst: standings.min_by_key(|s| certainty(*s))?,
                terminals,
            })
        })
        .collect();
    agencies.sort_by_key(|a| certainty(a.worst));
    let count = |standing| all.iter().filter(|r| r.standing == standing).count();
    let unknown = count(Standing::Unread) + count(Standing::Never);
    let stored = all.iter().map(|r| r.stored).sum();
    let board = Board {
        t,
        sentence: sentence(
            t,
            stored,
            (all.len(), all.len() - unknown),
            count(Standing::Partial),
        ),
        agencies,
        stored,
        complete: count(Standing::Complete),
        partial: count(Standing::Partial),
        unknown,
        of: all.len(),
    };
    Ok(vec![Part::new("board", &board)?])
}

/// 0 is least certain.
const fn certainty(standing: Standing) -> u8 {
    match standing {
        Standing::Unread => 0,
        Standing::Partial => 1,
        Standing::Never => 2,
        Standing::Complete => 3,
    }
}

/// What is known of today, and for whom nothing can be said.
fn sentence(t: &T, stored: u64, (of, read): (usize, usize), partial: usize) -> String {
    let unknown = of - read;
    if of == 0 {
        return t.s("attendance-none");
    }
    let mut said = vec![t.with(
        "attendance-punches",
        &[("n", t.int(stored).into()), ("read", read.into())],
    )];
    if partial > 0 {
        said.push(t.a("attendance-partial", "n", partial));
    }
    if unknown > 0 {
        said.push(t.a("attendance-unknown", "n", unknown));
    }
    said.join(" ")
}

pub(crate) async fn page(
    Shared(app): Shared<App>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Html<String>, Refused> {
    let (t, snapshot) = (app.t(&headers), app.fleet.now());
    let parts = parts(&app, &t, &viewer, &snapshot).await?;
    let place = Place {
        title: t.s("menu-attendance"),
        menu: Menu::Attendance,
        path: "/absensi",
        watch: "absensi",
    };
    full(&app, &t, &viewer, &snapshot, place, parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;
    use scc_common::lang::Lang;

    #[test]
    fn silence_is_never_called_absence() {
        let t = T::new(Lang::Id, TimeZone::UTC, 0);
        assert_eq!(
            sentence(&t, 1_204, (10, 7), 1),
            "1.204 scan hari ini dari 7 mesin. 1 mesin terbaca sebagian. \
             3 mesin belum terbaca: pegawainya tidak diketahui, bukan tidak hadir."
        );
    }
}
