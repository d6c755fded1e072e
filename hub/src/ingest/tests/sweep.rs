//! Media files without a record: what is swept, what never is, and what a record that comes meanwhile
//! changes.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock as _, ManualClock, SystemClock};
use scc_common::id::{Epoch, Seq};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use tokio_util::sync::CancellationToken;

use super::harness::{Hub, STILLS, agent, still};
use crate::ingest::aside::{self, Overdue};
use crate::ingest::sweep::{AGE_MS, Swept, Tally, all, candidates, take, unreferenced};
use crate::media::sweep::{Found, KEPT_DAYS};
use crate::media::{Media, MediaKind};
use crate::store::Store;

const PICTURE: usize = 2_000;

/// Where the file of a still belongs.
fn path(seq: Seq) -> String {
    let body = still(seq, PICTURE);
    let said = RecordBody::decode(&body).unwrap();
    Media::path(
        &agent(),
        STILLS.1,
        STILLS.0,
        seq,
        Checksum::of(&body),
        Some(said.stamp.wall_ms),
        MediaKind::Jpeg,
    )
}

fn file(hub: &Hub, path: &str) -> PathBuf {
    hub.media_root().join(path)
}

/// Makes a file look as if it had been there for long.
fn age(hub: &Hub, path: &str) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = File::options().write(true).open(file(hub, path)).unwrap();
    file.set_modified(long_ago).unwrap();
}

/// A file that was durable when its hub ended, and whose row was not committed.
async fn orphan(hub: &Hub, path: &str) {
    drop(
        hub.media
            .put(path, Bytes::from_static(b"picture"))
            .await
            .unwrap(),
    );
    age(hub, path);
}

fn now() -> i64 {
    SystemClock::new().wall_ms()
}

fn reader(hub: &Hub) -> Store {
    Store::look(&hub.config().database()).unwrap()
}

/// One of the sweeps of a process that remembers what was overdue.
async fn sweep(hub: &Hub, clock: &ManualClock, overdue: &mut Overdue) -> Swept {
    let (mut swept, now) = (Swept::default(), clock.stamp());
    all(&hub.media, &reader(hub), &now, None, overdue, &mut swept)
        .await
        .unwrap();
    swept
}

const DAY: u32 = 24 * 3_600_000;

fn files_aside(hub: &Hub) -> Vec<PathBuf> {
    super::crash::files(&hub.media_root().join("aside"))
}

#[tokio::test]
async fn what_no_row_refers_to_is_set_aside_when_the_hub_starts_and_removed_a_month_later() {
    let hub = Hub::start().await;
    hub.records(STILLS, (1..=3).map(|n| (n, still(n, PICTURE))))
        .await;
    // another picture under a number that is taken: a conflict, whose file is kept as well
    hub.records(STILLS, [(2, still(20, PICTURE))]).await;
    hub.until(|hub| hub.count("SELECT count(*) FROM conflict") == 1)
        .await;
    hub.until_watermark(STILLS, 3).await;
    let mut referred = hub.texts("SELECT media FROM record");
    referred.extend(hub.texts("SELECT media FROM conflict"));
    assert_eq!(referred.len(), 4);
    referred.iter().for_each(|path| age(&hub, path));

    // of the same number as a stored one, and of one that was never stored
    let other_body = path(1).replace(
        &Checksum::of(&still(1, PICTURE)).to_string(),
        &"ab".repeat(16),
    );
    orphan(&hub, &other_body).await;
    orphan(&hub, &path(9)).await;
    drop(
        hub.media
            .put(&path(10), Bytes::from_static(b"young"))
            .await
            .unwrap(),
    );
    fs::write(file(&hub, "agents/notes.txt"), "not ours").unwrap();
    age(&hub, "agents/notes.txt");
    fs::write(file(&hub, &format!("{}#1", path(2))), "half").unwrap();

    let hub = hub.restart().await;
    let gone = [path(9), other_body];
    hub.until(|hub| gone.iter().all(|path| !file(hub, path).exists()))
        .await;
    hub.until(|_| !file(&hub, &format!("{}#1", path(2))).exists())
        .await;
    referred.push(path(10));
    referred.push("agents/notes.txt".into());
    for path in &referred {
        assert!(hub.media.is_there(path), "{path}");
    }
    let mut aside: Vec<_> = files_aside(&hub);
    aside.sort();
    for (file, path) in aside.iter().zip([&gone[0], &gone[1]]) {
        assert!(
            aside.len() == 2 && gone.iter().any(|gone| file.ends_with(gone)),
            "{path}"
        );
        assert_eq!(fs::read(file).unwrap(), b"picture");
    }

    hub.until(|hub| hub.status().aside.is_some()).await;
    let told = hub.status().aside.unwrap();
    assert_eq!((told.files, told.bytes), (2, 14));
    assert_eq!(told.folder, hub.media.aside());
    let kept = i64::from(KEPT_DAYS) * i64::from(DAY);
    assert!(told.removed_from_ms > now() + kept && told.removed_from_ms <= now() + kept + AGE_MS);

    let (clock, mut overdue) = (ManualClock::at(now()), Overdue::default());
    clock.step_wall(kept);
    let swept = sweep(&hub, &clock, &mut overdue).await;
    assert_eq!(swept.removed.files, 0);
    assert_eq!(swept.aside.files, 1, "the young one is no longer young");
    clock.advance(DAY);
    assert_eq!(
        sweep(&hub, &clock, &mut overdue).await.removed,
        Tally::default()
    );
    clock.advance(DAY);
    let over = sweep(&hub, &clock, &mut overdue).await.removed;
    assert_eq!((over.files, over.bytes), (2, 14));
    assert_eq!(files_aside(&hub).len(), 1);
    fs::remove_dir_all(hub.media.aside()).unwrap();
    assert_eq!(aside::count(&hub.media).await.unwrap(), None);
}

#[tokio::test]
async fn a_wall_clock_that_is_ahead_removes_nothing_in_a_process_first_day() {
    let hub = Hub::start().await;
    orphan(&hub, &path(1)).await;
    let (clock, mut overdue) = (ManualClock::at(now()), Overdue::default());
    assert_eq!(sweep(&hub, &clock, &mut overdue).await.aside.files, 1);
    let year = 365 * i64::from(DAY);
    clock.step_wall(year);
    for _ in 0..24 {
        assert_eq!(sweep(&hub, &clock, &mut overdue).await.removed.files, 0);
        clock.advance(DAY / 24 - 1);
    }
    // set right, and wrong again: the day begins anew
    clock.step_wall(-year);
    assert_eq!(sweep(&hub, &clock, &mut overdue).await.removed.files, 0);
    clock.step_wall(year);
    clock.advance(DAY);
    assert_eq!(sweep(&hub, &clock, &mut overdue).await.removed.files, 0);
    // another process knows nothing of the first one's day
    clock.advance(DAY);
    let mut restarted = Overdue::default();
    assert_eq!(sweep(&hub, &clock, &mut restarted).await.removed.files, 0);
    assert_eq!(files_aside(&hub).len(), 1);
    assert_eq!(sweep(&hub, &clock, &mut overdue).await.removed.files, 1);
}

/// Up to the moment when files are known to be without a row.
async fn found_without_a_row(hub: &Hub) -> Vec<Found> {
    let step = hub.media.walk(None).unwrap().step().unwrap();
    assert!(step.done);
    let (_, whole) = candidates(&hub.media, step.found, now());
    unreferenced(&reader(hub), whole).await.unwrap()
}

async fn set_aside(hub: &Hub, found: Vec<Found>) -> u64 {
    let mut swept = Swept::default();
    take(&hub.media, now(), Vec::new(), found, &mut swept)
        .await
        .unwrap();
    swept.aside.files
}

#[tokio::test]
async fn a_record_that_is_committed_between_looking_and_taking_keeps_its_file() {
    let hub = Hub::start().await;
    orphan(&hub, &path(1)).await;
    let found = found_without_a_row(&hub).await;
    assert_eq!(found.len(), 1);
    hub.records(STILLS, [(1, still(1, PICTURE))]).await;
    hub.until_watermark(STILLS, 1).await;
    // even if no clock tells the new file from the old one
    age(&hub, &path(1));
    assert_eq!(set_aside(&hub, found).await, 0);
    assert!(hub.media.is_there(&path(1)));
    // and it would have been taken if nothing had come
    orphan(&hub, &path(2)).await;
    let found = found_without_a_row(&hub).await;
    assert_eq!(set_aside(&hub, found).await, 1);
    assert!(!hub.media.is_there(&path(2)));
}

#[tokio::test]
async fn a_file_whose_row_waits_for_the_database_is_in_use_however_old_it_is() {
    let hub = Hub::start().await;
    let held = hub
        .media
        .put(&path(1), Bytes::from_static(b"waits"))
        .await
        .unwrap();
    let again = hub
        .media
        .put(&path(1), Bytes::from_static(b"waits"))
        .await
        .unwrap();
    age(&hub, &path(1));
    assert!(found_without_a_row(&hub).await.is_empty());
    drop(again);
    assert!(
        found_without_a_row(&hub).await.is_empty(),
        "one still waits"
    );
    drop(held);
    let found = found_without_a_row(&hub).await;
    assert_eq!(found.len(), 1);
    let held = hub
        .media
        .put(&path(1), Bytes::from_static(b"waits"))
        .await
        .unwrap();
    assert_eq!(set_aside(&hub, found).await, 0);
    drop(held);
}

/// As it is when the database does not take the row of a file for longer than files are young.
#[tokio::test]
async fn the_file_of_a_record_that_is_not_committed_yet_is_held() {
    let hub = Hub::start().await;
    let sql = hub.sql();
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    hub.records(STILLS, [(1, still(1, PICTURE))]).await;
    hub.until(|hub| hub.media.is_there(&path(1))).await;
    hub.until(Hub::database_fails).await;
    age(&hub, &path(1));
    assert!(found_without_a_row(&hub).await.is_empty());
    sql.execute_batch("ROLLBACK").unwrap();
    hub.until_watermark(STILLS, 1).await;
    assert!(hub.media.is_there(&path(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_ever_without_its_file_while_records_come_and_sweeps_go_on() {
    const RECORDS: Seq = 150;
    let hub = Hub::start().await;
    for seq in 1..=RECORDS {
        orphan(&hub, &path(seq)).await;
    }
    let (media, store, stop) = (hub.media.clone(), reader(&hub), CancellationToken::new());
    let stopped = stop.clone();
    let sweeps = tokio::spawn(async move {
        let (mut aside, mut overdue) = (0, Overdue::default());
        while !stopped.is_cancelled() {
            // a clock that is a year ahead: nothing is young
            let later = ManualClock::at(now() + 365 * AGE_MS).stamp();
            let mut swept = Swept::default();
            all(&media, &store, &later, None, &mut overdue, &mut swept)
                .await
                .unwrap();
            aside += swept.aside.files;
        }
        aside
    });
    hub.until(|hub| !files_aside(hub).is_empty()).await;
    for seq in 1..=RECORDS {
        hub.records(STILLS, [(seq, still(seq, PICTURE))]).await;
    }
    hub.until_watermark(STILLS, RECORDS).await;
    stop.cancel();
    assert!(sweeps.await.unwrap() > 0, "the sweeps did take files");
    let rows = hub.texts("SELECT media FROM record");
    assert_eq!(rows.len() as u64, RECORDS);
    for path in rows {
        assert!(hub.media.is_there(&path), "{path}");
    }
}

#[tokio::test]
async fn a_later_sweep_looks_only_where_something_has_come_or_gone() {
    let hub = Hub::start().await;
    let other = |day: &str| format!("agents/rsud/snapshot/{day}/{}-1-ab.jpg", Epoch(7));
    let (old, new) = (other("2026-01-01"), other("2026-01-02"));
    orphan(&hub, &old).await;
    let folder = file(&hub, &old).parent().unwrap().to_path_buf();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    File::open(&folder).unwrap().set_modified(long_ago).unwrap();
    orphan(&hub, &new).await;
    assert_eq!(STILLS.1, Stream::Snapshot);
    let (mut overdue, mut swept) = (Overdue::default(), Swept::default());
    let (stamp, since) = (ManualClock::at(now()).stamp(), Some(now() - AGE_MS));
    let store = reader(&hub);
    all(&hub.media, &store, &stamp, since, &mut overdue, &mut swept)
        .await
        .unwrap();
    assert!(hub.media.is_there(&old) && !hub.media.is_there(&new));
}
