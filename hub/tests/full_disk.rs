//! Really full disks: small tmpfs mounts in a mount namespace of the test's own. What was
//! acknowledged stays, nothing else is acknowledged, and work goes on by itself when there is room.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it expected by failing"
)]

mod ingest_harness;
mod web_house;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ingest_harness::{EVENTS, Hub, STILLS, event, still};
use scc_hub::ingest::{Limits, Status};
use web_house::client::Browser;
use web_house::{House, trouble};

const CHILD: &str = "SCC_TEST_SMALL_DISK";
const PICTURE: usize = 700_000;
const PART: usize = 100_000;

/// Runs one of the tests below where it may mount things.
fn in_a_namespace(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // root needs none, and where it is confined (a chroot) it may not make one
        command.args(["--user", "--map-root-user"]);
    }
    let output = command
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(CHILD, dir.path())
        .env("TMPDIR", dir.path())
        .output()
        .expect("unshare (util-linux) is there");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !text.contains("running 1 test") {
        assert!(
            std::env::var_os("SCC_ALLOW_SKIP").is_some(),
            "no mount namespace here, so nothing was tested (SCC_ALLOW_SKIP=1 goes on without): {text}"
        );
        println!("SKIPPED: no mount namespace here: {text}");
        return;
    }
    assert!(output.status.success(), "{text}");
    assert!(text.contains("small disk:"), "{text}");
}

fn mount(at: &Path, size: &str) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
        .arg(at)
        .status();
    assert!(mounted.unwrap().success());
}

/// A file of somebody else that takes all the room there is.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("foreign");
    let mut file = std::fs::File::create(&path).unwrap();
    while file.write_all(&[1; 4_096]).is_ok() {}
    while file.write_all(&[1]).is_ok() {}
    path
}

/// Not a test of its own: runs where it may mount things.
#[tokio::test]
async fn child_with_a_small_database_disk() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = PathBuf::from(dir);
    mount(&dir, "16m");
    let hub = Hub::start().await;
    hub.records(EVENTS, (1..=20).map(|n| (n, event(n)))).await;
    hub.until_watermark(EVENTS, 20).await;

    let foreign = fill(&dir);
    // more than fits into the pages that the database has already
    for first in (21..=2_000).step_by(30) {
        hub.records(EVENTS, (first..first + 30).map(|n| (n, event(n))))
            .await;
        if hub.database_fails() {
            break;
        }
    }
    hub.until_status(|s| s.database.is_some()).await;
    let acknowledged = hub.watermark(EVENTS);
    let stored = hub.count("SELECT count(*) FROM record");
    assert!(stored.cast_unsigned() >= acknowledged);
    assert_eq!(hub.last_down().unwrap().permission, 0, "agents are told");

    // a hub that is killed while its disk is full has lost nothing of what it acknowledged
    let hub = hub.kill().await;
    for seq in 1..=acknowledged {
        assert!(hub.has(EVENTS, seq), "{seq} was acknowledged and is gone");
    }
    hub.records(EVENTS, (1..=2_100).map(|n| (n, event(n))))
        .await;
    hub.until_status(|s| s.database.is_some()).await;
    std::fs::remove_file(foreign).unwrap();
    hub.until_watermark(EVENTS, 2_100).await;
    hub.until_status(|s| s.database.is_none()).await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 2_100);
    assert!(hub.last_down().unwrap().permission > 0);
    println!("small disk: {acknowledged} were acknowledged when the database's was full");
}

#[test]
fn a_full_database_disk_loses_nothing_and_recovers_by_itself() {
    in_a_namespace("child_with_a_small_database_disk");
}

/// Not a test of its own: runs where it may mount things.
#[tokio::test]
async fn child_with_a_small_media_disk() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let hub = Hub::start_with(Limits {
        // the reserve is not what is tested: ENOSPC comes as it likes
        media_reserve: 0,
        media_probe: Duration::from_millis(200),
    })
    .await;
    let root = hub.media_root();
    mount(&root, "4m");
    let all: Vec<u64> = (1..=10).collect();
    for &seq in &all {
        hub.parts(STILLS, seq, &still(seq, PICTURE), 0, PART).await;
    }
    hub.until_status(|s| s.media.is_some()).await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    let acknowledged = hub.watermark(STILLS);
    assert!(acknowledged < 10, "7 MB do not fit into 4");
    for seq in 1..=acknowledged {
        assert!(hub.has(STILLS, seq), "{seq} was acknowledged and is gone");
    }

    // room appears: what is sent again is taken, and every acknowledged picture has its bytes
    assert!(
        Command::new("mount")
            .args(["-o", "remount,size=32m"])
            .arg(&root)
            .status()
            .unwrap()
            .success()
    );
    hub.until_status(|s| s.media.is_none()).await;
    for &seq in &all {
        hub.parts(STILLS, seq, &still(seq, PICTURE), 0, PART).await;
    }
    hub.until_watermark(STILLS, 10).await;
    let files = hub.texts("SELECT media FROM record WHERE stream = 5");
    assert_eq!(files.len(), 10);
    for file in files {
        let bytes = std::fs::read(root.join(&file)).unwrap();
        assert_eq!(bytes.len(), PICTURE + 2, "{file}");
    }
    println!("small disk: {acknowledged} pictures were acknowledged when theirs was full");
}

#[test]
fn a_full_media_disk_loses_nothing_and_recovers_by_itself() {
    in_a_namespace("child_with_a_small_media_disk");
}

/// Not a test of its own: runs where it may mount things.
#[tokio::test]
async fn child_with_pages_on_a_full_disk() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = PathBuf::from(dir);
    mount(&dir, "16m");
    let house = House::build().await;
    let mut operator = Browser::of(&house, "meja-2").await;
    let foreign = fill(&dir);
    // what the database's files had room for is soon used up
    let note = || {
        house
            .store
            .note(0, "x".repeat(4_096), "fills", String::new())
    };
    while note().await.is_ok() {}
    house.hub_status(Status {
        database: Some(trouble("the disk of the database is full")),
        ..Status::default()
    });

    // a minute later the session's use would be written down: the page comes all the same
    house.clock.advance(61_000);
    let page = operator.get("/").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(
        page.text()
            .contains("Pusat tidak dapat menyimpan data baru")
    );

    // nobody can come in, and is told why; who mistypes is told that
    let mut late = Browser::new(&house);
    let right = late.log_in("rsud", web_house::PASSWORD).await;
    assert_eq!(right.status, 503);
    assert!(right.text().contains("Disk basis data di pusat penuh"));
    assert_eq!(late.log_in("rsud", "salah sekali").await.status, 401);

    // with room again, all is as before
    std::fs::remove_file(foreign).unwrap();
    let back = late.log_in("rsud", web_house::PASSWORD).await;
    assert_eq!(back.status, 303, "{}", back.text());
    println!("small disk: the pages told it");
}

#[test]
fn a_full_database_disk_is_told_by_the_pages() {
    in_a_namespace("child_with_pages_on_a_full_disk");
}
