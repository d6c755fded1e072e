//! Ingest with a real database and real files. Only the gate is absent: payloads are handed in as it
//! would, and what goes down is kept.

mod ingest_harness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ingest_harness::{EVENTS, Hub, Lane, STILLS, agent, event, still, still_of};
use proptest::prelude::*;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ManualClock, SystemClock};
use scc_common::id::{BootId, DeviceId, Epoch};
use scc_common::record::{Content, Event, LinkMode, Punch, PunchBatch, ReadProof, RecordBody, Way};
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, Hello, LaneOffer, MAX_BODY, Now, SeqRange, UpMessage};
use scc_hub::ingest::{Limits, Notice};
use scc_hub::store::Store;
use scc_hub::store::views::Day;

const PUNCHES: Lane = Lane(Epoch(7), Stream::Attendance);

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first, last }
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_database_and_nothing_before() {
    let hub = Hub::start().await;
    let lock = hub.sql();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    hub.records(EVENTS, [(1, event(1)), (2, event(2))]).await;
    hub.until_status(|s| s.database.is_some()).await;
    assert_eq!(
        hub.watermark(EVENTS),
        0,
        "acknowledged while the database was locked"
    );
    assert!(hub.last_down().is_some_and(|d| d.permission == 0));
    lock.execute_batch("ROLLBACK").unwrap();
    hub.until_watermark(EVENTS, 2).await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 2);
    hub.until_status(|s| s.database.is_none()).await;
    assert!(hub.last_down().is_some_and(|d| d.permission > 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever is repeated, reordered, and cut by restarts, each record is stored exactly once, and
    /// the watermark says so.
    #[test]
    fn exactly_once(
        sends in proptest::collection::vec((0usize..2, 1u64..25, 1u64..4), 10..60),
        restarts in proptest::collection::btree_set(0usize..60, 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut hub = Hub::start().await;
            let lanes = [EVENTS, STILLS];
            let body = |lane: usize, seq| if lane == 0 { event(seq) } else { still(seq, 200) };
            for (i, &(lane, first, len)) in sends.iter().enumerate() {
                let records = (first..first + len).map(|seq| (seq, body(lane, seq)));
                hub.records(lanes[lane], records).await;
                if restarts.contains(&i) {
                    hub = if i % 2 == 0 { hub.kill().await } else { hub.restart().await };
                }
            }
            // The agent's part: repeat until all is acknowledged.
            for (lane, name) in lanes.iter().enumerate() {
                hub.records(*name, (1..=28).map(|seq| (seq, body(lane, seq)))).await;
                hub.until_watermark(*name, 28).await;
            }
            let rows = hub.rows();
            let mut expected = BTreeMap::new();
            for (lane, name) in lanes.iter().enumerate() {
                for seq in 1..=28 {
                    expected.insert((name.1.code(), seq), Checksum::of(&body(lane, seq)).0.to_vec());
                }
            }
            assert_eq!(rows.len(), 56, "each once");
            assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), expected);
            assert_eq!(hub.count("SELECT count(*) FROM conflict"), 0);
        });
    }
}

#[tokio::test]
async fn a_duplicate_is_counted_and_always_acknowledged() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    hub.forget_downs();
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    assert_eq!(
        hub.count("SELECT sum(count) FROM duplicate WHERE stream = 1"),
        1
    );
}

#[tokio::test]
async fn the_watermark_stops_at_a_hole_names_what_is_above_and_passes_a_gap() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1)), (4, event(4)), (5, event(5))])
        .await;
    hub.until_ack(EVENTS, |ack| {
        ack.watermark == 1 && ack.stored == [range(4, 5)]
    })
    .await;
    // A gap that reaches over stored records takes nothing from them.
    hub.gaps(EVENTS, &[(2, 4, GapReason::Damaged)]).await;
    hub.until_watermark(EVENTS, 5).await;
    assert_eq!(hub.gap_rows(), [(2, 3)]);
    assert_eq!(hub.count("SELECT count(*) FROM record WHERE seq = 4"), 1);
    // A record that turns up later replaces its part of the gap.
    hub.gaps(EVENTS, &[(6, 12, GapReason::EvictedBySize)]).await;
    hub.until_watermark(EVENTS, 12).await;
    for seq in [9, 6, 12] {
        hub.records(EVENTS, [(seq, event(seq))]).await;
        hub.until(|h| h.count("SELECT max(id) FROM record") > 0 && h.has(EVENTS, seq))
            .await;
    }
    assert_eq!(hub.gap_rows(), [(2, 3), (7, 8), (10, 11)]);
    assert_eq!(hub.count("SELECT sum(last - first + 1) FROM gap"), 6);
    // The same gap told again, or in other pieces, counts once.
    hub.gaps(
        EVENTS,
        &[
            (2, 12, GapReason::EvictedBySize),
            (1, 9, GapReason::Damaged),
        ],
    )
    .await;
    hub.records(EVENTS, [(13, event(13))]).await;
    hub.until_watermark(EVENTS, 13).await;
    assert_eq!(hub.gap_rows(), [(2, 3), (7, 8), (10, 11)]);
}

#[tokio::test]
async fn a_conflict_keeps_both_and_tells_the_agent_to_number_anew() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    assert!(!hub.last_down().unwrap().new_epoch);
    hub.records(EVENTS, [(1, event(99))]).await;
    hub.until(|h| h.last_down().is_some_and(|d| d.new_epoch))
        .await;
    // Pictures too: neither file is overwritten by the other.
    hub.records(STILLS, [(1, still(1, 100))]).await;
    hub.until_watermark(STILLS, 1).await;
    hub.records(STILLS, [(1, still(2, 100))]).await;
    hub.until(|h| h.count("SELECT count(*) FROM conflict") == 2)
        .await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 2);
    let kept = "SELECT media FROM record WHERE stream = 5 UNION SELECT media FROM conflict WHERE stream = 5";
    let (one, two) = (still_of(1, 100), still_of(2, 100));
    let mut files = BTreeSet::new();
    for path in hub.texts(kept) {
        files.insert(hub.media.get(&path).await.unwrap().to_vec());
    }
    assert_eq!(files, BTreeSet::from([one, two]));
}

#[tokio::test]
async fn what_cannot_be_read_is_stored_and_marked_and_acknowledged() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, vec![0xff; 9]), (2, event(2))])
        .await;
    hub.until_watermark(EVENTS, 2).await;
    assert_eq!(
        hub.count(
            "SELECT count(*) FROM record WHERE readable = 0 AND body = x'ffffffffffffffffff'"
        ),
        1
    );
    let large = vec![0xfe; 100_000];
    hub.parts(STILLS, 1, &large, 0, 40_000).await;
    hub.until_watermark(STILLS, 1).await;
    let path =
        hub.texts("SELECT media FROM record WHERE stream = 5 AND readable = 0 AND body IS NULL");
    assert!(path[0].ends_with(".bin"), "{path:?}");
    assert_eq!(hub.media.get(&path[0]).await.unwrap(), large);
}

#[tokio::test]
async fn a_body_that_does_not_match_its_checksum_is_neither_stored_nor_acknowledged() {
    let hub = Hub::start().await;
    hub.damaged_record(EVENTS, 1).await;
    hub.records(EVENTS, [(2, event(2))]).await;
    hub.until_ack(EVENTS, |ack| {
        ack.watermark == 0 && ack.stored == [range(2, 2)]
    })
    .await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 1);
}

#[tokio::test]
async fn nobody_speaks_for_another_agent() {
    let hub = Hub::start().await;
    hub.forged("psc", EVENTS, 1, &event(1)).await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 1);
    assert_eq!(hub.texts("SELECT DISTINCT agent FROM record"), ["rsud"]);
}

#[tokio::test]
async fn a_large_record_goes_on_where_it_stopped_after_a_restart_of_the_hub() {
    let hub = Hub::start().await;
    let body = still(1, 300_000);
    hub.part(STILLS, 1, &body, 0, 100_000).await;
    hub.until_ack(STILLS, |ack| {
        ack.parts
            .iter()
            .any(|p| p.seq == 1 && p.received == 100_000)
    })
    .await;
    let hub = hub.restart().await;
    let answer = hub.hello(&[(STILLS, 2, vec![range(1, 1)])]).await;
    let lane = &answer.lanes[0];
    assert_eq!((lane.from, lane.parts[0].received), (1, 100_000));
    hub.parts(STILLS, 1, &body, 100_000, 60_000).await;
    hub.until_watermark(STILLS, 1).await;
    let path = hub.texts("SELECT media FROM picture");
    assert_eq!(hub.media.get(&path[0]).await.unwrap(), still_of(1, 300_000));
    hub.until(|h| h.spooled_files() == 0).await;
}

#[tokio::test]
async fn a_record_that_was_whole_when_the_hub_died_is_finished_without_the_agent() {
    let hub = Hub::start().await;
    let lock = hub.sql();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = still(1, 100_000);
    hub.parts(STILLS, 1, &body, 0, 50_000).await;
    hub.until_status(|s| s.database.is_some()).await;
    assert_eq!(hub.spooled_files(), 1);
    let hub = hub
        .restart_while(|| lock.execute_batch("ROLLBACK").unwrap())
        .await;
    hub.until(|h| h.has(STILLS, 1)).await;
    hub.until(|h| h.spooled_files() == 0).await;
}

#[tokio::test]
async fn a_large_record_that_came_wrong_is_asked_for_from_the_beginning() {
    let hub = Hub::start().await;
    let body = still(1, 100_000);
    let mut wrong = body.clone();
    wrong[70_000] ^= 1;
    hub.part_of(STILLS, 1, Checksum::of(&body), &wrong, 0, 60_000)
        .await;
    hub.part_of(STILLS, 1, Checksum::of(&body), &wrong, 60_000, wrong.len())
        .await;
    hub.until_ack(STILLS, |ack| {
        ack.parts.iter().any(|p| p.seq == 1 && p.received == 0)
    })
    .await;
    assert_eq!(hub.count("SELECT count(*) FROM record"), 0);
    hub.parts(STILLS, 1, &body, 0, 60_000).await;
    hub.until_watermark(STILLS, 1).await;
}

#[tokio::test]
async fn an_agent_cannot_announce_more_than_a_record_may_have() {
    let hub = Hub::start().await;
    hub.part_claiming(STILLS, 1, u32::try_from(MAX_BODY).unwrap() + 1)
        .await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    assert_eq!(hub.spooled_files(), 0);
}

#[tokio::test]
async fn a_restored_hub_asks_for_its_lost_day_and_for_files_that_are_gone() {
    let hub = Hub::start().await;
    hub.records(EVENTS, (1..=9).map(|seq| (seq, event(seq))))
        .await;
    hub.records(STILLS, (1..=4).map(|seq| (seq, still(seq, 100))))
        .await;
    hub.until_watermark(EVENTS, 9).await;
    hub.until_watermark(STILLS, 4).await;
    let hub = hub
        .restart_while_with(|h| {
            let sql = h.sql();
            sql.execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM record WHERE stream = 1 AND (seq = 3 OR seq > 6);
                               UPDATE lane SET watermark = 6 WHERE stream = 1;").unwrap();
            let path: String = sql.query_row("SELECT media FROM record WHERE stream = 5 AND seq = 2", [], |r| r.get(0)).unwrap();
            std::fs::remove_file(h.media_root().join(path)).unwrap();
        })
        .await;
    let answer = hub
        .hello(&[
            (EVENTS, 10, vec![range(1, 9)]),
            (STILLS, 5, vec![range(1, 4)]),
        ])
        .await;
    let events = answer
        .lanes
        .iter()
        .find(|l| l.stream == Stream::Event)
        .unwrap();
    assert_eq!(
        (events.from, events.missing.as_slice()),
        (7, &[range(3, 3)][..])
    );
    let stills = answer
        .lanes
        .iter()
        .find(|l| l.stream == Stream::Snapshot)
        .unwrap();
    assert_eq!(
        (stills.from, stills.missing.as_slice()),
        (5, &[range(2, 2)][..])
    );
    // the link breaks before it has come: it is still asked for, and not called stored
    let again = hub.hello(&[(STILLS, 5, vec![range(1, 4)])]).await;
    assert_eq!(again.lanes[0].missing, [range(2, 2)]);
    hub.records(
        EVENTS,
        [(3, event(3))]
            .into_iter()
            .chain((7..=9).map(|seq| (seq, event(seq)))),
    )
    .await;
    hub.records(STILLS, [(2, still(2, 100))]).await;
    hub.until_watermark(EVENTS, 9).await;
    hub.until(|h| h.count("SELECT count(*) FROM record WHERE stream = 1") == 9)
        .await;
    let path = hub.texts("SELECT media FROM record WHERE stream = 5 AND seq = 2");
    hub.until(|h| h.media.is_there(&path[0])).await;
    let answer = hub.hello(&[(EVENTS, 10, vec![range(1, 9)])]).await;
    assert_eq!(
        (answer.lanes[0].from, answer.lanes[0].missing.len()),
        (10, 0)
    );
}

#[tokio::test]
async fn a_new_epoch_closes_the_old_one_at_the_last_number_told_and_its_card_may_return() {
    let hub = Hub::start().await;
    hub.hello(&[(EVENTS, 8, vec![range(1, 7)])]).await;
    hub.records(EVENTS, [(1, event(1)), (2, event(2)), (5, event(5))])
        .await;
    hub.until_ack(EVENTS, |ack| ack.stored == [range(5, 5)])
        .await;
    let new = Lane(Epoch(8), Stream::Event);
    hub.hello(&[(new, 1, vec![])]).await;
    assert_eq!(hub.gap_rows(), [(3, 4), (6, 7)]);
    assert_eq!(
        hub.texts("SELECT DISTINCT reason FROM gap"),
        ["epoch_closed"]
    );
    // An agent that still holds the old epoch is asked for it, and keeps it open.
    let answer = hub
        .hello(&[(new, 1, vec![]), (EVENTS, 8, vec![range(1, 7)])])
        .await;
    let old = answer.lanes.iter().find(|l| l.epoch == EVENTS.0).unwrap();
    assert_eq!(
        (old.from, old.missing.as_slice()),
        (8, &[range(3, 4), range(6, 7)][..])
    );
    hub.records(EVENTS, [3, 4, 6].map(|seq| (seq, event(seq))))
        .await;
    hub.until(|h| h.has(EVENTS, 6)).await;
    assert_eq!(hub.gap_rows(), [(7, 7)]);
}

#[tokio::test]
async fn a_lane_that_found_no_room_in_a_hello_stays_open() {
    let hub = Hub::start().await;
    hub.hello(&[(EVENTS, 8, vec![range(1, 7)])]).await;
    let new = Lane(Epoch(8), Stream::Event);
    hub.partial_hello(&[(new, 1, vec![])]).await;
    hub.records(EVENTS, [(1, event(1))]).await;
    // closed, its watermark would be 7, and the agent would not send the rest
    hub.until_watermark(EVENTS, 1).await;
    assert_eq!((hub.watermark(EVENTS), hub.gap_rows()), (1, vec![]));
}

#[tokio::test]
async fn health_tells_how_far_a_lost_card_had_counted() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.records(
        Lane(EVENTS.0, Stream::Health),
        [(1, ingest_harness::health(EVENTS, 6))],
    )
    .await;
    hub.until(|h| h.count("SELECT count(*) FROM health WHERE json LIKE '%\"next\":6%'") == 1)
        .await;
    hub.hello(&[(Lane(Epoch(8), Stream::Event), 1, vec![])])
        .await;
    assert_eq!(hub.gap_rows(), [(2, 5)]);
}

#[tokio::test]
async fn the_receipt_goes_by_the_number_that_the_agent_tells_and_not_by_what_came() {
    let hub = Hub::start().await;
    hub.records(EVENTS, (1..=3).map(|n| (n, event(n)))).await;
    hub.until_watermark(EVENTS, 3).await;
    let store = Store::look(&hub.config().database()).unwrap();
    let receipt = async || {
        let day = Day::running("1970-01-01".into(), 0);
        store.receipt(agent(), day).await.unwrap()
    };
    let events = async || {
        let receipt = receipt().await;
        let line = receipt.streams.iter().find(|(s, _)| *s == Stream::Event);
        line.map(|(_, r)| (r.taken(), r.stored, r.queued)).unwrap()
    };
    assert_eq!(events().await, (3, 3, 0), "nothing else is known");
    assert_eq!(receipt().await.told_ms, None, "a record tells no number");
    let lane = Lane(Epoch(7), Stream::Health);
    hub.records(lane, [(1, ingest_harness::health(EVENTS, 11))])
        .await;
    hub.until_watermark(lane, 1).await;
    assert_eq!(events().await, (10, 3, 7));
    let by_health = receipt().await.told_ms;
    let clock = SystemClock::new();
    assert!(by_health.is_some_and(|ms| (1..=clock.wall_ms()).contains(&ms)));
    let before = clock.wall_ms();
    hub.hello(&[(EVENTS, 12, vec![range(1, 11)])]).await;
    assert_eq!(events().await, (11, 3, 8));
    assert!(receipt().await.told_ms.is_some_and(|ms| ms >= before));
}

#[tokio::test]
async fn an_epoch_that_is_still_offered_is_not_closed() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    let new = Lane(Epoch(8), Stream::Event);
    hub.hello(&[(new, 4, vec![range(1, 3)]), (EVENTS, 3, vec![range(1, 2)])])
        .await;
    assert!(hub.gap_rows().is_empty());
}

#[tokio::test]
async fn a_full_media_disk_pauses_pictures_and_nothing_else() {
    let limits = Limits {
        media_reserve: u64::MAX,
        ..Limits::default()
    };
    let hub = Hub::start_with(limits).await;
    hub.until_status(|s| s.media.is_some()).await;
    hub.records(STILLS, [(1, still(1, 100))]).await;
    hub.parts(STILLS, 2, &still(2, 100_000), 0, 50_000).await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    let down = hub.last_down().unwrap();
    assert_eq!(down.paused, [Stream::Snapshot, Stream::Segment]);
    assert!(down.permission > 0);
    assert_eq!(hub.count("SELECT count(*) FROM record WHERE stream = 5"), 0);
    // With room again, the same pictures are taken.
    let hub = hub.restart().await;
    hub.records(STILLS, [(1, still(1, 100))]).await;
    hub.until_watermark(STILLS, 1).await;
    assert!(hub.last_down().unwrap().paused.is_empty());
}

#[tokio::test]
async fn pictures_go_on_by_themselves_when_their_disk_is_well_again() {
    let hub = Hub::start_with(Limits {
        media_reserve: 0,
        media_probe: Duration::from_millis(300),
    })
    .await;
    // A file where the folder should be: the disk refuses pictures, as a broken one would.
    let broken = hub.media_root().join("agents");
    std::fs::write(&broken, b"").unwrap();
    hub.records(STILLS, [(1, still(1, 100))]).await;
    hub.until_status(|s| s.media.is_some()).await;
    hub.records(EVENTS, [(1, event(1))]).await;
    hub.until_watermark(EVENTS, 1).await;
    assert_eq!(hub.watermark(STILLS), 0);
    std::fs::remove_file(&broken).unwrap();
    hub.until_status(|s| s.media.is_none()).await;
    assert!(
        hub.last_down().unwrap().paused.is_empty(),
        "the agent is told"
    );
    hub.records(STILLS, [(1, still(1, 100))]).await;
    hub.until_watermark(STILLS, 1).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Whatever an authenticated agent sends, ingest goes on for the next message.
    #[test]
    fn foreign_and_damaged_payloads_stop_nobody(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
        flips in proptest::collection::vec((0usize..2_000, 0u8..8), 100),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let hub = Hub::start().await;
            let valid = ingest_harness::every_message();
            for bytes in noise {
                hub.raw(bytes).await;
            }
            for (i, (at, bit)) in flips.into_iter().enumerate() {
                let mut bytes = valid[i % valid.len()].clone();
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
                hub.raw(bytes).await;
            }
            let fresh = Lane(Epoch(0x5eed), Stream::Event);
            hub.records(fresh, [(1, event(1))]).await;
            hub.until_watermark(fresh, 1).await;
        });
    }
}

#[tokio::test]
async fn a_punch_is_one_row_however_it_came_and_the_log_beats_the_live_event() {
    let hub = Hub::start().await;
    let punch = |state, ordinal| Punch {
        user: "10036".into(),
        local_s: 848_000_000,
        state,
        verify: 1,
        ordinal,
        raw: vec![state],
    };
    let batch = |way, punches, read| {
        let batch = PunchBatch {
            serial: "CGKK1".into(),
            way,
            utc_offset_min: 480,
            drift_ms: None,
            read,
            punches,
        };
        let device = DeviceId::new("loket").unwrap();
        RecordBody::new(
            ManualClock::at(1_000).stamp(),
            Some(device),
            Content::Punches(batch),
        )
        .encode()
    };
    let proof = ReadProof {
        counter_before: Some(2),
        counter_after: Some(2),
        records: 2,
        complete: true,
        quarantined: 0,
        per_day: vec![("2026-11-14".into(), 2)],
        layout: "40".into(),
    };
    hub.records(
        PUNCHES,
        [
            (1, batch(Way::Live, vec![punch(255, 0)], None)),
            (
                2,
                batch(Way::Pull, vec![punch(0, 0), punch(0, 1)], Some(proof)),
            ),
            (3, batch(Way::Live, vec![punch(255, 0)], None)),
        ],
    )
    .await;
    hub.until_watermark(PUNCHES, 3).await;
    assert_eq!(
        hub.count(
            "SELECT count(*) FROM punch WHERE way = 'pull' AND state = 0 AND day = '2026-11-14'"
        ),
        2
    );
    assert_eq!(hub.count("SELECT count(*) FROM punch"), 2);
    assert_eq!(
        hub.texts("SELECT per_day FROM terminal_read WHERE complete = 1"),
        [r#"[["2026-11-14",2]]"#]
    );
    // The register knows no such terminal: stored and marked.
    assert_eq!(
        hub.count("SELECT count(*) FROM record WHERE declared = 0"),
        3
    );
}

#[tokio::test]
async fn a_terminal_is_counted_where_it_is_read_and_nobody_takes_anothers_punches() {
    let hub = Hub::start().await;
    let log = |device: &str, way| {
        let punches = [0, 1].map(|ordinal| Punch {
            user: "10036".into(),
            local_s: 848_000_000,
            state: 0,
            verify: 1,
            ordinal,
            raw: vec![0],
        });
        let batch = PunchBatch {
            serial: "CGKK1".into(),
            way,
            utc_offset_min: 480,
            drift_ms: None,
            read: None,
            punches: punches.into(),
        };
        let content = Content::Punches(batch);
        let device = DeviceId::new(device).unwrap();
        RecordBody::new(ManualClock::at(1_000).stamp(), Some(device), content).encode()
    };
    // The first site has them live; another one claims to have pulled the same serial's log.
    hub.records(PUNCHES, [(1, log("loket", Way::Live))]).await;
    hub.until_watermark(PUNCHES, 1).await;
    hub.records_of("pkm", PUNCHES, [(1, log("aula", Way::Pull))])
        .await;
    let at = |hub: &Hub, agent: &str, device: &str| {
        hub.count(&format!(
            "SELECT count(*) FROM punch WHERE agent = '{agent}' AND device = '{device}' AND day = '2026-11-14'"
        ))
    };
    hub.until(|hub| at(hub, "pkm", "aula") == 2).await;
    assert_eq!(at(&hub, "rsud", "loket"), 2, "nothing was taken away");
}

#[tokio::test]
async fn listeners_hear_of_new_records_once_and_of_now_without_a_row() {
    let mut hub = Hub::start().await;
    let now = Now {
        stamp: ManualClock::at(5).stamp(),
        devices: Vec::new(),
        link: LinkMode::Normal,
        backlog: 3,
        backlog_bytes: 10,
        oldest_ms: None,
        stills: Vec::new(),
        offset: None,
    };
    hub.say(UpMessage::Now(now.clone())).await;
    let heard = hub.notice().await;
    assert!(matches!(heard.as_ref(), Notice::Now { now: n, .. } if **n == now));
    hub.records(STILLS, [(1, still(1, 500))]).await;
    hub.records(STILLS, [(1, still(1, 500))]).await;
    hub.records(STILLS, [(2, still(2, 500))]).await;
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        let heard: Arc<Notice> = hub.notice().await;
        let Notice::Committed {
            agent: from,
            records,
            charges,
        } = heard.as_ref()
        else {
            panic!("{heard:?}")
        };
        assert_eq!(*from, agent());
        // what nobody has read yet counts against the agent
        assert!(!charges.is_empty() && charges.len() <= records.len());
        for record in records {
            let Some(Content::Snapshot(s)) = record.body.as_ref().map(|b| &b.content) else {
                panic!("{record:?}")
            };
            assert!(s.jpeg.is_empty());
            // Its file was durable before anybody heard of it.
            let file = hub.media.get(record.media.as_ref().unwrap()).await.unwrap();
            assert_eq!(file, still_of(record.seq, 500));
            seqs.push(record.seq);
        }
    }
    assert_eq!(seqs, [1, 2]);
    assert_eq!(hub.count("SELECT count(*) FROM record"), 2);
}

#[tokio::test]
async fn a_text_without_end_reaches_no_column_and_no_page_but_the_body_is_kept_as_it_came() {
    let mut hub = Hub::start().await;
    let endless = "sangat panjang ".repeat(1_000);
    let cut = |text: &str| text.chars().count() == 301 && text.ends_with('…');
    let mut state = ingest_harness::state_of_a_door();
    state.detail = Some(endless.clone());
    let body = ingest_harness::device_state(state.clone());
    hub.records(EVENTS, [(1, body.clone())]).await;
    hub.until_watermark(EVENTS, 1).await;
    let details = hub.texts("SELECT detail FROM device_state");
    assert!(details.len() == 1 && cut(&details[0]), "{details:?}");
    let kept: Vec<u8> = hub
        .sql()
        .query_row("SELECT body FROM record", [], |row| row.get(0))
        .unwrap();
    assert_eq!(kept, body);
    let Notice::Committed { records, .. } = hub.notice().await.as_ref().clone() else {
        panic!("no record")
    };
    let Some(Content::Event(Event::DeviceState(said))) =
        records[0].body.as_ref().map(|b| &b.content)
    else {
        panic!("{records:?}")
    };
    assert!(cut(said.detail.as_ref().unwrap()));
    let lane = Lane(Epoch(7), Stream::Health);
    hub.records(
        lane,
        [(
            1,
            ingest_harness::health_with(lane, 2, &endless, vec![state.clone()]),
        )],
    )
    .await;
    hub.until_watermark(lane, 1).await;
    let json = hub.texts("SELECT json FROM health");
    assert!(json.len() == 1 && json[0].len() < 2_000, "{json:?}");
    hub.notice().await;
    hub.say(UpMessage::Now(Now {
        stamp: ManualClock::at(5).stamp(),
        devices: vec![state],
        link: LinkMode::Normal,
        backlog: 0,
        backlog_bytes: 0,
        oldest_ms: None,
        stills: Vec::new(),
        offset: None,
    }))
    .await;
    let Notice::Now { now, .. } = hub.notice().await.as_ref().clone() else {
        panic!("no now")
    };
    assert!(cut(now.devices[0].detail.as_ref().unwrap()));
}

#[tokio::test]
async fn a_record_that_the_schema_does_not_bear_is_kept_as_unreadable_and_holds_up_nobody() {
    let hub = Hub::start().await;
    hub.sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON device_state BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();
    hub.records(
        EVENTS,
        [
            (1, event(1)),
            (
                2,
                ingest_harness::device_state(ingest_harness::state_of_a_door()),
            ),
            (3, event(3)),
        ],
    )
    .await;
    hub.until_watermark(EVENTS, 3).await;
    assert_eq!(
        hub.count("SELECT count(*) FROM record WHERE readable = 0"),
        1
    );
}

#[tokio::test]
async fn what_the_database_takes_in_no_form_is_never_acknowledged_and_shown_until_it_is_stored() {
    let hub = Hub::start().await;
    hub.sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON record WHEN NEW.seq = 2 BEGIN SELECT raise(ABORT, 'no two'); END",
        )
        .unwrap();
    let sent = || [(1, event(1)), (2, event(2)), (3, event(3))];
    hub.records(EVENTS, sent()).await;
    hub.until_ack(EVENTS, |ack| ack.stored == [range(3, 3)])
        .await;
    hub.until_status(|status| {
        let why = status.record.as_ref().map_or("", |trouble| &trouble.why);
        why.contains("event 2 ") && why.contains("no two")
    })
    .await;
    assert!(!hub.database_fails(), "everything else goes on");
    // what is stored beside it and sent again changes nothing
    hub.records(EVENTS, [(3, event(3)), (4, event(4))]).await;
    hub.until_ack(EVENTS, |ack| ack.stored == [range(3, 4)])
        .await;
    assert_eq!(hub.watermark(EVENTS), 1);
    hub.until_status(|status| status.record.is_some()).await;
    hub.sql().execute_batch("DROP TRIGGER t").unwrap();
    hub.records(EVENTS, sent()).await;
    hub.until_watermark(EVENTS, 4).await;
    hub.until_status(|status| status.record.is_none()).await;
    assert_eq!(hub.tidings(), 0, "nothing has changed for the agents");
}

#[tokio::test]
async fn what_was_stuck_on_a_card_that_is_gone_is_a_gap_and_no_longer_shown() {
    let hub = Hub::start().await;
    hub.sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON record WHEN NEW.seq = 2 BEGIN SELECT raise(ABORT, 'no two'); END",
        )
        .unwrap();
    hub.hello(&[(EVENTS, 3, vec![range(1, 2)])]).await;
    hub.records(EVENTS, [(1, event(1)), (2, event(2))]).await;
    hub.until_status(|status| status.record.is_some()).await;
    let new = Lane(Epoch(8), Stream::Event);
    hub.hello(&[(new, 1, vec![])]).await;
    assert_eq!(hub.gap_rows(), [(2, 2)]);
    hub.until_status(|status| status.record.is_none()).await;
}

#[tokio::test]
async fn a_hello_that_cannot_be_noted_is_shown_until_one_can() {
    let hub = Hub::start().await;
    hub.sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON lane BEGIN SELECT raise(ABORT, 'no lane'); END",
        )
        .unwrap();
    hub.say(UpMessage::Hello(Hello {
        nonce: 1,
        version: "test".into(),
        boot: BootId([1; 16]),
        wall_ms: 0,
        epoch: EVENTS.0,
        lanes: vec![LaneOffer {
            epoch: EVENTS.0,
            stream: EVENTS.1,
            next: 1,
            held: Vec::new(),
            gaps: Vec::new(),
        }],
        partial: false,
    }))
    .await;
    hub.until_status(|status| status.record.is_some()).await;
    hub.sql().execute_batch("DROP TRIGGER t").unwrap();
    hub.hello(&[(EVENTS, 1, Vec::new())]).await;
    hub.until_status(|status| status.record.is_none()).await;
}

#[tokio::test]
async fn what_waited_for_an_upgrade_is_read_when_the_hub_starts_again() {
    let hub = Hub::start().await;
    hub.records(EVENTS, [(1, event(1)), (2, vec![0xff])]).await;
    hub.until_watermark(EVENTS, 2).await;
    hub.records(STILLS, [(1, still(1, 50_000))]).await;
    hub.until_watermark(STILLS, 1).await;
    // As an older program would have left them: the event in its row, the picture whole in a file.
    let whole = "agents/rsud/snapshot/undated/old.bin";
    hub.media.put(whole, still(1, 50_000).into()).await.unwrap();
    let older = format!(
        "DELETE FROM picture; UPDATE record SET readable = 0;
                         UPDATE record SET body = NULL, media = '{whole}' WHERE stream = 5"
    );
    let hub = hub
        .restart_while_with(|h| h.sql().execute_batch(&older).unwrap())
        .await;
    hub.until(|h| h.count("SELECT count(*) FROM record WHERE readable = 1") == 2)
        .await;
    let path = hub.texts("SELECT media FROM picture");
    assert_eq!(hub.media.get(&path[0]).await.unwrap(), still_of(1, 50_000));
    hub.until(|h| !h.media.is_there(whole)).await;
    assert_eq!(hub.count("SELECT count(*) FROM duplicate"), 0);
}

#[tokio::test]
async fn a_backup_is_whole_and_a_follower_sees_each_record_once() {
    let hub = Hub::start().await;
    let mut follower = scc_hub::store::Follower::open(&hub.config().database()).unwrap();
    hub.records(EVENTS, (1..=5).map(|seq| (seq, event(seq))))
        .await;
    hub.until_watermark(EVENTS, 5).await;
    let seqs: Vec<u64> = follower
        .next(3)
        .unwrap()
        .into_iter()
        .chain(follower.next(3).unwrap())
        .map(|r| r.seq)
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert!(follower.next(3).unwrap().is_empty());
    let file = hub.config().state_dir.join("copy.sqlite");
    let report = scc_hub::cmd::backup::run(&hub.config(), &file).unwrap();
    assert_eq!((report.records, report.with_media), (5, 0));
    let copy = rusqlite::Connection::open(&file).unwrap();
    let rows: i64 = copy
        .query_row("SELECT count(*) FROM record", [], |r| r.get(0))
        .unwrap();
    assert_eq!(rows, 5);
    assert!(scc_hub::cmd::backup::run(&hub.config(), &file.join("no/such/folder")).is_err());
}
