//! The card gives back something else than was written: the rest stays, and what is lost is named.
//! [`sweep`](super::sweep) tries every block.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use scc_common::id::AgentId;

use super::*;
use crate::buffer::{export, import, owner};

/// A small buffer with records of three streams, some of them acknowledged.
fn golden(dir: &Path, clock: &Arc<ManualClock>) -> BTreeMap<(Lane, Seq), Checksum> {
    let mut store = open_store(dir, roomy(), clock, &Steps::default()).unwrap();
    for n in 0..12u64 {
        let bodies = [
            event(&**clock, &format!("event {n} {}", "x".repeat(700))),
            snapshot(&**clock, n, 3_500),
            event(&**clock, &format!("event {n} again")),
        ];
        let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
        store
            .append(&group)
            .into_iter()
            .for_each(|a| assert!(a.is_ok()));
        if n == 6 {
            let lane = lane_of(store.epoch, Stream::Event);
            store.acknowledge(lane, 4, &[]).unwrap();
        }
    }
    store.append(&[incoming(&segment(&**clock, 1, 20_000))]);
    Contents::of(&mut store).held
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

pub(super) fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Opens a copy that `harm` has damaged; fails if that takes longer than ten seconds.
pub(super) fn open_damaged(
    golden: &Path,
    clock: &Arc<ManualClock>,
    harm: impl FnOnce(&Path),
) -> (tempfile::TempDir, Store) {
    let dir = in_memory();
    copy(golden, dir.path());
    harm(dir.path());
    let (tell, told) = mpsc::channel();
    let (path, clock) = (dir.path().to_owned(), clock.clone());
    let opening = std::thread::spawn(move || {
        let store = open_store(&path, roomy(), &clock, &Steps::default());
        // who waits may have given up
        let _ = tell.send(());
        store
    });
    let opened = told.recv_timeout(Duration::from_secs(10));
    opened.expect("the buffer opens within ten seconds");
    let store = opening.join().unwrap().unwrap();
    (dir, store)
}

#[test]
fn a_lost_index_is_rebuilt_identities_stay_and_new_records_get_a_new_epoch() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let whole = golden(dir.path(), &clock);
    let (old, _) = whole.keys().next().unwrap();
    for cut in [None, Some(0), Some(7)] {
        let (_dir, mut store) = open_damaged(dir.path(), &clock, |copy| {
            let index = copy.join("buffer/index");
            match cut {
                None => fs::remove_dir_all(index).unwrap(),
                Some(len) => {
                    let db = fs::OpenOptions::new()
                        .write(true)
                        .open(index.join("db"))
                        .unwrap();
                    db.set_len(len).unwrap();
                }
            }
        });
        let contents = Contents::of(&mut store);
        assert_eq!(contents.held, whole, "cut at {cut:?}");
        assert!(contents.gaps.is_empty(), "{:?}", contents.gaps);
        assert!(store.damage.detail.is_some(), "cut at {cut:?}");
        assert_ne!(store.epoch, old.epoch, "cut at {cut:?}");
        let more = store.append(&[incoming(&event(&*clock, "afterwards"))]);
        assert_eq!(more[0].as_ref().unwrap().seq, 1);
        // the files know what the hub had: two records of the first acknowledged four are older
        let stat = store.stat().unwrap();
        let events = stat
            .iter()
            .find(|l| l.epoch == old.epoch && l.stream == Stream::Event);
        assert_eq!(events.unwrap().records, 20);
    }
}

#[test]
fn an_index_that_went_back_in_time_is_brought_forward_by_the_files() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let whole = golden(dir.path(), &clock);
    let (newer, more) = {
        let later = tempfile::tempdir().unwrap();
        copy(dir.path(), later.path());
        let mut store = open_store(later.path(), roomy(), &clock, &Steps::default()).unwrap();
        for n in 0..5 {
            store.append(&[incoming(&snapshot(&*clock, 100 + n, 9_000))]);
        }
        let all = Contents::of(&mut store).held;
        drop(store);
        (later, all)
    };
    let (_dir, mut store) = open_damaged(newer.path(), &clock, |now| {
        fs::remove_dir_all(now.join("buffer/index")).unwrap();
        copy(&dir.path().join("buffer/index"), &now.join("buffer/index"));
    });
    assert!(more.len() > whole.len());
    assert_eq!(Contents::of(&mut store).held, more);

    // its own end was cut off
    for len in [50_000, 100_000, 200_000, 500_000] {
        let (_dir, mut store) = open_damaged(newer.path(), &clock, |now| {
            let db = now.join("buffer/index/db");
            let db = fs::OpenOptions::new().write(true).open(db).unwrap();
            db.set_len(len).unwrap();
        });
        assert_eq!(Contents::of(&mut store).held, more, "cut at {len}");
    }
}

#[test]
fn a_file_that_vanished_or_shrank_is_a_gap_and_its_numbers_are_not_given_again() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let whole = golden(dir.path(), &clock);
    for keep in [None, Some(5_000u64)] {
        let (_dir, mut store) = open_damaged(dir.path(), &clock, |copy| {
            let mut paths = Vec::new();
            files(&copy.join("buffer/snapshot"), &mut paths);
            for path in paths {
                match keep {
                    None => fs::remove_file(path).unwrap(),
                    Some(len) => {
                        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                        file.set_len(len).unwrap();
                    }
                }
            }
        });
        let gone: u64 = if keep.is_some() { 11 } else { 12 };
        assert_eq!(store.damage.records, gone);
        let contents = Contents::of(&mut store);
        assert_eq!(contents.held.len() as u64, whole.len() as u64 - gone);
        let more = store.append(&[incoming(&snapshot(&*clock, 99, 100))]);
        assert_eq!(more[0].as_ref().unwrap().seq, 13);
        let stat = store.stat().unwrap();
        let lane = stat.iter().find(|l| l.stream == Stream::Snapshot).unwrap();
        assert_eq!(lane.lost, gone);
    }
}

#[test]
fn a_body_that_rotted_is_skipped_reported_and_stays_a_gap() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let whole = golden(dir.path(), &clock);
    let (dir, mut store) = open_damaged(dir.path(), &clock, |copy| {
        let mut paths = Vec::new();
        files(&copy.join("buffer/snapshot"), &mut paths);
        let file = fs::OpenOptions::new().write(true).open(&paths[0]).unwrap();
        file.write_all_at(b"rot", 2_000).unwrap();
    });
    let lane = lane_of(store.epoch, Stream::Snapshot);
    let read = store.read(lane, ALL, 1).unwrap();
    assert_eq!(
        read[0].seq, 2,
        "the reader goes on with the next whole record"
    );
    assert_eq!(store.damage.records, 1);
    drop(store);
    let mut store = open_store(dir.path(), roomy(), &clock, &Steps::default()).unwrap();
    let contents = Contents::of(&mut store);
    assert_eq!(contents.gaps.get(&(lane, 1)), Some(&GapReason::Damaged));
    assert_eq!(contents.held.len(), whole.len() - 1);
}

#[test]
fn a_file_that_is_dropped_takes_no_number_that_an_import_put_into_another_file() {
    let (dir, out, clock) = (in_memory(), in_memory(), clock());
    golden(dir.path(), &clock);
    let root = dir.path().join("buffer");
    let agent = AgentId::new("rsud").unwrap();
    owner::note(&root, &agent).unwrap();
    let file = out.path().join("x");
    export::export(&root, None, &file, &*clock).unwrap();
    let mut store = open_store(dir.path(), roomy(), &clock, &Steps::default()).unwrap();
    let lane = lane_of(store.epoch, Stream::Snapshot);
    // one in the middle of its file
    let place = store.index.place(lane, 5).unwrap().unwrap();
    let mut paths = Vec::new();
    files(&root.join("snapshot"), &mut paths);
    let rotten = fs::OpenOptions::new().write(true).open(&paths[0]);
    let rotten = rotten.unwrap().write_all_at(b"rot", place.offset + 200);
    rotten.unwrap();
    assert!(store.read(lane, range(5, 5), 1).unwrap().is_empty());
    assert_eq!(store.damage.records, 1);
    drop(store);
    let shared: SharedClock = clock.clone();
    let done = import::import(dir.path(), roomy(), &shared, &agent, &file).unwrap();
    assert_eq!(done.stored, 1);

    // the first file of stills must go, the one that holds what it had lost fits
    let small = limits(48 << 20, 64 << 10, 4 << 20);
    let mut store = open_store(dir.path(), small, &clock, &Steps::default()).unwrap();
    let whole = Contents::of(&mut store);
    assert!((1..=12).all(|seq| whole.held.contains_key(&(lane, seq))));
    let more = store.append(&[incoming(&snapshot(&*clock, 99, 30_000))]);
    assert!(more[0].is_ok(), "{more:?}");
    for again in [false, true] {
        if again {
            drop(store);
            store = open_store(dir.path(), small, &clock, &Steps::default()).unwrap();
        }
        assert_eq!(store.damage, crate::buffer::Damage::default());
        let left = Contents::of(&mut store);
        assert!(left.held.contains_key(&(lane, 5)), "it is on the card");
        for seq in (1..=12).filter(|seq| *seq != 5) {
            let reason = left.gaps.get(&(lane, seq));
            assert_eq!(reason, Some(&GapReason::EvictedBySize), "{seq}");
        }
    }
}
