//! A hub that was lost and restored as the operators' guide says: database from yesterday's backup, media
//! folder from its copy. The agents bring back what they still hold; what they no longer hold is a gap
//! with its reason and date.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use scc_common::stream::Stream;
use scc_common::wire::GapReason;
use scc_hub::cmd;
use scc_hub::config::{Config, Places, Web};

use super::stage::*;
use scc_agent::buffer::Buffer;
use scc_common::clock::{Clock, SystemClock};
use scc_hub::config::Gate as GateConfig;
use scc_hub::media::Media;
use scc_hub::store::Store;
use scc_hub::store::views::Day;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// As `scc-hub` would read it for this hub.
fn config(dir: &Path) -> Config {
    let listen = SocketAddr::from((IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    Config {
        state_dir: dir.to_path_buf(),
        gate: GateConfig {
            listen,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            agents_ca: PathBuf::new(),
            revocations: PathBuf::new(),
            max_connections: 1,
        },
        web: Web {
            listen,
            certificate: PathBuf::new(),
            key: PathBuf::new(),
        },
        places: Places::default(),
    }
}

/// Records per stream.
fn counts(rows: &Rows) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for (stream, _) in rows.keys() {
        *counts.entry(*stream).or_default() += 1;
    }
    counts
}

/// What the guide has an administrator do every night: `scc-hub backup`, then a copy of the media.
fn back_up(dir: &Path) -> PathBuf {
    let away = dir.join("away");
    std::fs::create_dir(&away).unwrap();
    let report = cmd::backup::run(&config(dir), &away.join("hub.sqlite")).unwrap();
    assert!(report.records > 0 && report.with_media > 0);
    super::cards::copied(&dir.join("media"), away.join("media"));
    away
}

/// The hub's disk is gone: an empty one gets what is in the backup.
fn restore(dir: &Path, away: &Path) {
    for folder in ["media", "spool"] {
        std::fs::remove_dir_all(dir.join(folder)).unwrap();
    }
    for tail in ["", "-wal", "-shm", ".begun"] {
        let _ = std::fs::remove_file(dir.join(format!("hub.sqlite{tail}")));
    }
    assert!(!dir.join("hub.sqlite").exists());
    super::cards::copied(away, dir.to_path_buf());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_its_backup_counts_as_if_nothing_had_happened() {
    let (mut site, hub) = Site::start().await;
    let address = hub.address;
    for _ in 0..12 {
        site.punch().await;
    }
    for _ in 0..4 {
        site.still(45_000).await;
    }
    site.segment(300_000).await;
    site.delivered().await;
    let away = back_up(site.dir.path());
    for _ in 0..15 {
        site.punch().await;
    }
    for _ in 0..5 {
        site.still(45_000).await;
    }
    site.segment(400_000).await;
    site.delivered().await;
    let undisturbed = site.stored();

    drop(hub);
    ended(address).await;
    restore(site.dir.path(), &away);
    assert!(site.stored().len() < undisturbed.len());
    let _hub = Hub::start(site.dir.path(), address).await;
    // the third day begins before the second has come back
    site.punch().await;
    let all = async {
        while site.stored().len() < site.written.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("the second day does not come back");
    site.delivered().await;
    let mut expected = counts(&undisturbed);
    *expected.entry(Stream::Attendance.code()).or_default() += 1;
    assert_eq!(counts(&site.stored()), expected);
    let database = site.dir.path().join("hub.sqlite");
    let sql = rusqlite::Connection::open(database).unwrap();
    let one = |query: &str| sql.query_row(query, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(one("SELECT count(*) FROM gap"), 0);
    assert_eq!(one("SELECT count(*) FROM conflict"), 0);
    let media = Media::open(&site.dir.path().join("media")).unwrap();
    let mut files = sql
        .prepare("SELECT media FROM record WHERE media IS NOT NULL")
        .unwrap();
    for file in files.query_map([], |r| r.get::<_, String>(0)).unwrap() {
        assert!(media.is_there(&file.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_agent_holds_any_longer_is_a_gap_with_reason_and_date() {
    let (mut site, hub) = Site::start().await;
    let address = hub.address;
    // room for some twenty pictures
    site.stop.cancel();
    site.buffer.close().await;
    let mut small = limits();
    small.snapshot.max_bytes = 1 << 20;
    let state = site.dir.path().join("small");
    std::fs::create_dir(&state).unwrap();
    site.buffer = Buffer::open(&state, small, SystemClock::shared()).unwrap();
    site.stop = CancellationToken::new();
    site.link = connect(
        site.buffer.clone(),
        site.dialer.clone(),
        &site.lines,
        &site.stop,
    );
    let begun_ms = SystemClock::new().wall_ms();
    for _ in 0..5 {
        site.punch().await;
        site.still(45_000).await;
    }
    site.delivered().await;
    let away = back_up(site.dir.path());
    for _ in 0..10 {
        for _ in 0..6 {
            site.still(45_000).await;
        }
        site.punch().await;
        site.delivered().await;
    }
    let undisturbed = site.stored();

    drop(hub);
    ended(address).await;
    restore(site.dir.path(), &away);
    let _hub = Hub::start(site.dir.path(), address).await;
    let store = Store::look(&site.dir.path().join("hub.sqlite")).unwrap();
    let still = |rows: &Rows| counts(rows)[&Stream::Snapshot.code()] as u64;
    let taken = still(&undisturbed);
    let receipt = async {
        loop {
            let receipt = store
                .receipt(agent(), Day::running("2026-01-01".into(), begun_ms))
                .await;
            let receipt = receipt.unwrap();
            let of_stills = receipt.streams.iter().find(|(s, _)| *s == Stream::Snapshot);
            if let Some((_, stills)) = of_stills
                && stills.lost > 0
                && stills.stored + stills.lost == taken
            {
                return (receipt.clone(), *stills);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (receipt, stills) = tokio::time::timeout(PATIENCE, receipt)
        .await
        .expect("stored and lost do not add up to what was taken");
    println!(
        "of {taken} pictures {} are back and {} are a gap",
        stills.stored, stills.lost
    );
    assert!(stills.stored > 5, "nothing of the second day came back");
    assert_eq!(stills.stored, still(&site.stored()));
    let of_stills = receipt.gaps.iter().filter(|g| g.stream == Stream::Snapshot);
    let now_ms = SystemClock::new().wall_ms();
    let mut lost = 0;
    for gap in of_stills {
        assert_eq!(gap.reason, GapReason::EvictedAfterAck);
        assert!((begun_ms..=now_ms).contains(&gap.at_ms), "{gap:?}");
        lost += gap.lost;
    }
    assert_eq!(lost, stills.lost);
    // what is never given up for room is all back
    let punches = |rows: &Rows| counts(rows)[&Stream::Attendance.code()];
    let all = async {
        while punches(&site.stored()) < punches(&undisturbed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("punches are missing");
}

/// Rows whose files are gone: the folder of the media was not in the backup. All of them come again,
/// although the hub's watermark lies above them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_restored_without_its_media_gets_every_picture_again() {
    let (mut site, hub) = Site::start().await;
    let address = hub.address;
    for _ in 0..12 {
        site.still(45_000).await;
    }
    site.segment(300_000).await;
    site.delivered().await;
    drop(hub);
    ended(address).await;
    let folder = site.dir.path().join("media");
    std::fs::remove_dir_all(&folder).unwrap();
    let _hub = Hub::start(site.dir.path(), address).await;
    let media = Media::open(&folder).unwrap();
    let database = site.dir.path().join("hub.sqlite");
    let sql = rusqlite::Connection::open(database).unwrap();
    let mut files = sql
        .prepare("SELECT media FROM record WHERE media IS NOT NULL")
        .unwrap();
    let files: Vec<String> = files
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(files.len(), 13);
    let all = async {
        while !files.iter().all(|file| media.is_there(file)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("pictures are missing");
    site.delivered().await;
}
