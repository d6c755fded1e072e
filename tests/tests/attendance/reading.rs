//! The log: read to its end, proven, and handed over once.

use std::sync::atomic::Ordering;

use scc_common::record::{Cause, State, Way};
use scc_tests::terminal::{Counter, Layout, SECRET_PASSWORD, Setup, Terminal};
use tempfile::TempDir;

use super::site::{Shelf, Site, SystemClockKnown, assert_same, terminal};

#[tokio::test]
async fn every_layout_is_read_to_the_last_record_with_its_proof() {
    for layout in Layout::ALL {
        for records in [1, 214] {
            let terminal = terminal(Setup {
                layout,
                records,
                comm_key: 1234,
                ..Setup::default()
            })
            .await;
            let dir = TempDir::new().unwrap();
            let site = Site::start(terminal.address(), &dir, 1234);
            site.until_complete(records).await;
            site.until("up", |s| s.state().state == State::Up).await;
            let shelf = site.stopped().await;
            assert_same(&shelf.punches(), &terminal.log());
            let batches = shelf.batches();
            for batch in &batches {
                assert_eq!(batch.serial, "CGKK223862906");
                assert_eq!((batch.way, batch.utc_offset_min), (Way::Pull, 480));
                assert!(batch.punches.len() <= 200);
                assert!(
                    batch.drift_ms.unwrap().abs() < 3_000,
                    "{:?}",
                    batch.drift_ms
                );
            }
            let proof = batches
                .last()
                .unwrap()
                .read
                .clone()
                .expect("the last batch proves");
            let days: u32 = proof.per_day.iter().map(|(_, n)| n).sum();
            let newest = terminal.log().last().unwrap().local_s;
            let of_newest_day = terminal
                .log()
                .iter()
                .filter(|p| p.local_s.div_euclid(86_400) == newest.div_euclid(86_400))
                .count();
            assert_eq!(usize::try_from(proof.per_day[0].1), Ok(of_newest_day));
            assert!(usize::try_from(days).unwrap() <= records);
            for bytes in shelf.bodies.lock().unwrap().iter() {
                assert!(bytes.len() < 32 * 1024, "{} bytes", bytes.len());
                assert!(
                    !bytes.windows(5).any(|w| w == SECRET_PASSWORD),
                    "a password left the parser"
                );
            }
            let heard = terminal.heard();
            assert!(heard.iter().all(|(_, sum_ok)| *sum_ok));
            let harmless = [
                11, 50, 201, 500, 1000, 1001, 1100, 1102, 1502, 1503, 1504, 2000,
            ];
            assert!(
                heard.iter().all(|(code, _)| harmless.contains(code)),
                "{heard:?}"
            );
            assert_eq!(heard.last().unwrap().0, 1001, "it leaves properly");
        }
    }
}

#[tokio::test]
async fn an_old_firmware_without_the_buffered_read_is_read_directly() {
    let terminal = terminal(Setup {
        layout: Layout::EightA,
        ..Setup::default()
    })
    .await;
    terminal.faults(|f| (f.refuse_buffered, f.old_users) = (true, true));
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_log_that_grows_while_it_is_read_is_read_to_its_end() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.grow = 3);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until("one proof", |s| !s.shelf.proofs().is_empty())
        .await;
    let first = site.shelf.proofs()[0].clone();
    assert!(first.complete, "{first:?}");
    assert_eq!(
        (first.counter_before, first.records, first.counter_after),
        (Some(214), 214, Some(217))
    );
    terminal.faults(|f| f.grow = 0);
    let all = terminal.log().len();
    site.until_complete(all).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_connection_cut_anywhere_yields_all_or_a_named_incomplete() {
    let seed = 7;
    println!("seed {seed}");
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let terminal = terminal(Setup {
        records: 2_000,
        ..Setup::default()
    })
    .await;
    for _ in 0..12 {
        let cut = rand::Rng::random_range(&mut rng, 1..81_000);
        terminal.faults(|f| f.reset_after = Some(cut));
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 0);
        site.until("a fault or all", |s| {
            s.state().cause.is_some_and(|c| c != Cause::Starting) || !s.shelf.proofs().is_empty()
        })
        .await;
        if site.shelf.proofs().is_empty() {
            assert!(
                site.shelf.punches().is_empty(),
                "cut at {cut}: a part was taken for all"
            );
            let state = site.state();
            assert!(
                matches!(
                    state.cause,
                    Some(Cause::Incomplete | Cause::Offline | Cause::Busy)
                ),
                "cut at {cut}: {state:?}"
            );
        }
        site.until_complete(2_000).await;
        assert_same(&site.stopped().await.punches(), &terminal.log());
    }
}

#[tokio::test]
async fn a_log_of_a_hundred_thousand_comes_whole_in_small_pieces() {
    let terminal = terminal(Setup {
        records: 100_000,
        ..Setup::default()
    })
    .await;
    terminal.faults(|f| (f.split, f.data_packet) = (Some(1_009), Some(16_000)));
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(100_000).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
    // a second agent run over the same state hands nothing over again
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(100_000).await;
    assert_eq!(site.stopped().await.punches(), []);
}

#[tokio::test]
async fn one_byte_per_write_changes_nothing() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.split = Some(1));
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    assert_same(&site.stopped().await.punches(), &terminal.log());
}

#[tokio::test]
async fn a_slice_that_ends_early_is_asked_for_again_and_given_up_with_its_name() {
    let terminal = terminal(Setup::default()).await;
    terminal.faults(|f| f.spoil = 2);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    let visits = |t: &Terminal| t.heard().iter().filter(|(c, _)| *c == 1000).count();
    assert_eq!(visits(&terminal), 1, "two spoilt slices cost no session");
    site.stopped().await;

    terminal.faults(|f| f.truncate = true);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    let state = site.until_cause(Cause::Incomplete).await;
    assert_eq!(state.state, State::Degraded);
    assert!(site.shelf.batches().is_empty());
    terminal.faults(|f| f.truncate = false);
    site.until_complete(214).await;
}

#[tokio::test]
async fn the_same_punch_twice_in_the_log_is_kept_twice_with_ordinals() {
    let terminal = terminal(Setup {
        layout: Layout::Sixteen,
        records: 10,
        ..Setup::default()
    })
    .await;
    let again = terminal.log()[3].clone();
    terminal.remember(vec![again.clone(), again.clone()]);
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(12).await;
    let punches = site.stopped().await.punches();
    assert_same(&punches, &terminal.log());
    let mut ordinals: Vec<u16> = punches
        .iter()
        .filter(|p| (p.user.clone(), p.local_s) == (again.user.to_string(), again.local_s))
        .map(|p| p.ordinal)
        .collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [0, 1, 2]);
}

#[tokio::test]
async fn the_cursor_stays_while_the_buffer_is_full() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let shelf = Shelf::default();
    shelf.full.store(true, Ordering::SeqCst);
    let clock = SystemClockKnown::shared();
    let site = Site::start_with(terminal.address(), &dir, 0, &clock, shelf.clone());
    site.until_cause(Cause::BufferFull).await;
    site.stopped().await;
    assert!(shelf.batches().is_empty());
    // another life of the agent, still full, then with room
    let site = Site::start_with(terminal.address(), &dir, 0, &clock, shelf.clone());
    site.until_cause(Cause::BufferFull).await;
    shelf.full.store(false, Ordering::SeqCst);
    site.until_complete(214).await;
    site.until("up", |s| s.state().state == State::Up).await;
    site.stopped().await;
    assert_same(&shelf.punches(), &terminal.log());
}

#[tokio::test]
async fn a_counter_that_lies_or_lacks_makes_a_read_incomplete_never_smaller() {
    for (counter, complete) in [
        (Counter::Says(0), false),
        (Counter::Says(107), false),
        (Counter::Says(1_250), false),
        (Counter::Absent, false),
        (Counter::Right, true),
    ] {
        let terminal = terminal(Setup::default()).await;
        terminal.faults(|f| f.counter = counter);
        let dir = TempDir::new().unwrap();
        let site = Site::start(terminal.address(), &dir, 0);
        site.until("a proof", |s| !s.shelf.proofs().is_empty())
            .await;
        let proof = site.shelf.proofs().remove(0);
        assert_eq!(
            (proof.complete, proof.records),
            (complete, 214),
            "{counter:?}"
        );
        if complete {
            site.until("up", |s| s.state().state == State::Up).await;
        } else {
            let state = site.until_cause(Cause::Incomplete).await;
            assert_eq!(state.state, State::Degraded);
            assert!(state.detail.unwrap().contains("214"));
        }
        assert_same(&site.stopped().await.punches(), &terminal.log());
    }
}

#[tokio::test]
async fn an_empty_log_is_believed_only_when_the_counter_is_zero() {
    let terminal = terminal(Setup {
        records: 0,
        ..Setup::default()
    })
    .await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(0).await;
    site.stopped().await;
    terminal.faults(|f| f.counter = Counter::Says(5));
    let site = Site::start(terminal.address(), &dir, 0);
    let state = site.until_cause(Cause::Incomplete).await;
    assert!(state.detail.unwrap().contains("the terminal counts 5"));
}

#[tokio::test]
async fn a_cleared_log_is_read_on_and_nothing_comes_twice() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let site = Site::start(terminal.address(), &dir, 0);
    site.until_complete(214).await;
    let before = terminal.log();
    terminal.clear();
    terminal.punch(12_345);
    site.until_complete(1).await;
    let shelf = site.stopped().await;
    assert_same(&shelf.punches(), &[before, terminal.log()].concat());
}
