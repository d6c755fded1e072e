//! `scc-hub status`: the sites in a table, for whoever has a terminal and no browser. It reads the
//! database only, so it also works while the hub is down; then every link is as the database last
//! saw it.

use std::io::{self, Write};
use std::sync::Arc;

use scc_common::clock::{SharedClock, SystemClock};
use scc_common::lang::Lang;
use scc_common::record::{DeviceKind, State};

use crate::config::Config;
use crate::fleet::judge::SiteNow;
use crate::fleet::{Fleet, SILENT_MS, Snapshot};
use crate::store::fleet::Declared;
use crate::store::{Store, StoreError};
use crate::web::overview::{rank, site_cause};
use crate::web::text::T;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The terminal is gone.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Prints the table, worst site first.
///
/// # Errors
/// [`StatusError`].
pub async fn run(config: &Config, lang: Lang, out: &mut impl Write) -> Result<(), StatusError> {
    let clock: SharedClock = SystemClock::shared();
    let store = Store::look(&config.database())?;
    let snapshot = Fleet::from_store(&store, &clock).await?;
    print(&snapshot, lang, out)?;
    Ok(())
}

fn print(snapshot: &Snapshot, lang: Lang, out: &mut impl Write) -> io::Result<()> {
    let zone = Declared::zone(snapshot.declared.as_deref());
    let t = T::new(lang, zone, snapshot.at_ms);
    if snapshot.sites.is_empty() {
        return writeln!(out, "{}", t.s("sentence-empty"));
    }
    let silent = snapshot.heard_ms.map(|heard| snapshot.at_ms - heard);
    if let Some(silent) = silent.filter(|ms| *ms > SILENT_MS) {
        let (what, last) = (t.s("hub-intake"), t.s("last-heard"));
        writeln!(out, "{what} ({last}: {})", t.span(silent))?;
    }
    let head = [
        "site",
        "state",
        "since-label",
        "cameras",
        "terminals",
        "last-heard",
        "backlog",
        "way",
    ];
    let mut rows = vec![head.map(|key| {
        if key == "way" {
            String::new()
        } else {
            t.s(key)
        }
    })];
    let mut sites: Vec<&Arc<SiteNow>> = snapshot.sites.iter().collect();
    sites.sort_by_key(|s| rank(s.state));
    rows.extend(sites.iter().map(|site| row(&t, site)));
    let widths: Vec<usize> = (0..head.len())
        .map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, w)| format!("{cell:<w$}", w = *w))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

fn row(t: &T, site: &SiteNow) -> [String; 8] {
    let of = |kind| {
        let up = site
            .devices_of(kind)
            .filter(|d| d.state == State::Up)
            .count();
        match site.devices_of(kind).count() {
            0 => "–".to_owned(),
            all => format!("{up} / {all}"),
        }
    };
    [
        site.name.clone(),
        t.state(site.state),
        t.when(site.since_ms),
        of(DeviceKind::Camera),
        of(DeviceKind::Terminal),
        site.heard_ms
            .map_or_else(|| "–".to_owned(), |ms| t.span(t.now_ms - ms)),
        match site.backlog {
            Some(backlog) => t.int(backlog.records),
            None if site.state == State::Never => "–".to_owned(),
            None => "?".to_owned(),
        },
        site_cause(t, site),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use scc_common::clock::ManualClock;
    use scc_common::register::Register;

    use super::*;

    async fn table(silent_ms: i64) -> (State, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.sqlite");
        let store = Store::open(&path).unwrap();
        let text = "[fleet]\nname = \"S\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 9\n\
            [[agency]]\nid = \"rsud\"\nname = \"RSUD\"\n[[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\n\
            name = \"RSUD\"\nkind = \"clinic\"\ncameras = [{ id = \"igd\" }]\n";
        let register = Register::parse(Path::new("fleet.toml"), text.to_owned()).unwrap();
        let clock: SharedClock = ManualClock::at(1_795_484_537_000);
        store.apply(register, "test".into(), 1).await.unwrap();
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute(
                "INSERT INTO record (agent, epoch, stream, seq, sum, size, readable, declared, received_ms, body)
                 VALUES ('rsud', 7, 1, 1, x'', 0, 0, 1, ?1, x'')",
                [clock.wall_ms() - silent_ms],
            )
            .unwrap();
        let snapshot = Fleet::from_store(&store, &clock).await.unwrap();
        let mut out = Vec::new();
        print(&snapshot, Lang::En, &mut out).unwrap();
        (snapshot.sites[0].state, String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn a_hub_that_takes_nothing_in_says_so_and_calls_no_site_down() {
        let (state, text) = table(SILENT_MS + 1).await;
        assert_eq!(state, State::Unknown);
        assert!(text.starts_with("The hub has stopped receiving"), "{text}");
        let (state, text) = table(SILENT_MS).await;
        assert_ne!(state, State::Down);
        assert!(!text.contains("stopped receiving"), "{text}");
    }
}
