//! The agent's own count of a day against the hub's: what became of each number, and that what has
//! left the database is found, shown, asked for again and then no longer shown.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what it expected by failing"
)]

mod ingest_harness;

use ingest_harness::{EVENTS, Hub, Lane, STILLS, agent, event, still};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use scc_common::clock::{Clock, ManualClock, SystemClock, WallMs};
use scc_common::id::{Epoch, Seq};
use scc_common::record::{Content, Event, LaneTally, RecordBody, Tally};
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, SeqRange};
use scc_hub::compare;
use scc_hub::store::Store;
use scc_hub::store::views::{Basis, Day, Receipt, StreamReceipt};

const DAY_MS: i64 = 86_400_000;
const TALLIES: Lane = Lane(Epoch(8), Stream::Event);

/// The beginning of a day of UTC, some days ago.
fn days_ago(days: i64) -> WallMs {
    SystemClock::new().wall_ms().div_euclid(DAY_MS) * DAY_MS - days * DAY_MS
}

fn day_from(from_ms: WallMs) -> Day {
    let date = jiff::Timestamp::from_millisecond(from_ms).unwrap();
    Day {
        name: date.to_zoned(TimeZone::UTC).date().to_string(),
        from_ms,
        to_ms: from_ms + DAY_MS,
        ended: from_ms + DAY_MS <= SystemClock::new().wall_ms(),
    }
}

fn tally(from_ms: WallMs, lanes: &[(Lane, Seq)]) -> Vec<u8> {
    let lanes = lanes.iter().map(|(lane, next)| LaneTally {
        epoch: lane.0,
        stream: lane.1,
        next: *next,
    });
    let told = Event::Tally(Tally {
        from_ms,
        to_ms: from_ms + 3_600_000,
        lanes: lanes.collect(),
    });
    RecordBody::new(ManualClock::at(0).stamp(), None, Content::Event(told)).encode()
}

async fn receipt(hub: &Hub, day: Day) -> Receipt {
    let store = Store::look(&hub.config().database()).unwrap();
    store.receipt(agent(), day).await.unwrap()
}

fn line(receipt: &Receipt, stream: Stream) -> StreamReceipt {
    let found = receipt.streams.iter().find(|(s, _)| *s == stream);
    found.map(|(_, line)| *line).unwrap_or_default()
}

/// taken, stored, queued, lost, missing
fn numbers(line: StreamReceipt) -> [u64; 5] {
    [
        line.taken(),
        line.stored,
        line.queued,
        line.lost,
        line.missing,
    ]
}

async fn compared(hub: &Hub) -> Vec<(String, u64)> {
    compared_with(hub, false).await
}

async fn compared_with(hub: &Hub, all: bool) -> Vec<(String, u64)> {
    let store = Store::open(&hub.config().database()).unwrap();
    let now_ms = SystemClock::new().wall_ms();
    let found = compare::once(&store, &TimeZone::UTC, now_ms, all)
        .await
        .unwrap();
    found.into_iter().map(|d| (d.day, d.missing)).collect()
}

#[tokio::test]
async fn each_number_of_a_day_is_stored_lost_or_still_to_come() {
    let hub = Hub::start().await;
    let (before, day) = (days_ago(2), days_ago(1));
    hub.records(EVENTS, (1..=6).map(|n| (n, event(n)))).await;
    hub.records(STILLS, [(1, still(1, 100)), (4, still(4, 100))])
        .await;
    hub.gaps(STILLS, &[(2, 2, GapReason::EvictedBySize)]).await;
    hub.until_watermark(EVENTS, 6).await;
    hub.until(|h| h.has(STILLS, 4)).await;
    let seen = receipt(&hub, day_from(day)).await;
    assert_eq!(seen.basis, Basis::Seen, "the box has told nothing yet");
    hub.records(
        TALLIES,
        [
            (1, tally(before, &[(EVENTS, 3), (STILLS, 2)])),
            (2, tally(day, &[(EVENTS, 5), (STILLS, 3)])),
            (3, tally(day + 3_600_000, &[(EVENTS, 6), (STILLS, 8)])),
        ],
    )
    .await;
    hub.until_watermark(TALLIES, 3).await;
    let counted = receipt(&hub, day_from(day)).await;
    assert_eq!(counted.basis, Basis::Counted);
    // events 3, 4 and 5; stills 2 (lost), 3, 5, 6 and 7 (to come), 4
    assert_eq!(numbers(line(&counted, Stream::Event)), [3, 3, 0, 0, 0]);
    assert_eq!(numbers(line(&counted, Stream::Snapshot)), [6, 1, 4, 1, 0]);
    assert_eq!(
        counted.reasons,
        [(Stream::Snapshot, GapReason::EvictedBySize, 1)]
    );
    let former = receipt(&hub, day_from(before)).await;
    assert_eq!(numbers(line(&former, Stream::Event)), [2, 2, 0, 0, 0]);
    assert_eq!(numbers(line(&former, Stream::Snapshot)), [1, 1, 0, 0, 0]);
    assert_eq!(compared(&hub).await, [], "what is to come is not missing");
}

#[tokio::test]
async fn what_has_left_the_database_is_found_and_gone_again_when_its_agent_has_brought_it() {
    let hub = Hub::start().await;
    let day = days_ago(1);
    hub.records(EVENTS, (1..=6).map(|n| (n, event(n)))).await;
    hub.records(TALLIES, [(1, tally(day, &[(EVENTS, 7)]))])
        .await;
    hub.until_watermark(TALLIES, 1).await;
    assert_eq!(compared(&hub).await, []);
    hub.sql()
        .execute_batch(
            "PRAGMA foreign_keys = OFF; DELETE FROM record WHERE epoch = 7 AND seq IN (2, 5);",
        )
        .unwrap();
    let found = receipt(&hub, day_from(day)).await;
    assert_eq!(numbers(line(&found, Stream::Event)), [6, 4, 0, 0, 2]);
    // a settled day is not counted again every hour, but every day, and when a later count adds to it
    assert_eq!(compared(&hub).await, []);
    let name = day_from(day).name;
    assert_eq!(compared_with(&hub, true).await, [(name.clone(), 2)]);
    hub.records(TALLIES, [(2, tally(day, &[(TALLIES, 2)]))])
        .await;
    hub.until_watermark(TALLIES, 2).await;
    assert_eq!(compared(&hub).await, [(name.clone(), 2)]);
    let since = hub.count("SELECT since_ms FROM compared");
    assert_eq!(
        compared(&hub).await,
        [(name, 2)],
        "it stays until it is settled"
    );
    assert_eq!(hub.count("SELECT since_ms FROM compared"), since);
    let held = vec![SeqRange { first: 1, last: 6 }];
    let answer = hub.hello(&[(EVENTS, 7, held)]).await;
    assert_eq!(
        answer.lanes[0].missing,
        [
            SeqRange { first: 2, last: 2 },
            SeqRange { first: 5, last: 5 }
        ]
    );
    hub.records(EVENTS, [(2, event(2)), (5, event(5))]).await;
    hub.until(|h| h.has(EVENTS, 2) && h.has(EVENTS, 5)).await;
    assert_eq!(compared(&hub).await, []);
}

#[tokio::test]
async fn a_count_that_is_told_twice_or_of_the_future_adds_nothing() {
    let hub = Hub::start().await;
    let day = days_ago(1);
    let ahead = days_ago(-400);
    hub.records(EVENTS, (1..=4).map(|n| (n, event(n)))).await;
    hub.records(
        TALLIES,
        [
            (1, tally(day, &[(EVENTS, 3)])),
            // killed before it had noted that it had told: the same beginning again, and more
            (2, tally(day, &[(EVENTS, 4)])),
            (3, tally(day, &[(EVENTS, 4)])),
            // a clock that was stepped: it counts on the day it came
            (4, tally(ahead, &[(EVENTS, 5)])),
        ],
    )
    .await;
    hub.until_watermark(TALLIES, 4).await;
    let counted = receipt(&hub, day_from(day)).await;
    assert_eq!(numbers(line(&counted, Stream::Event)), [3, 3, 0, 0, 0]);
    assert_eq!(
        hub.count("SELECT count(*) FROM tally WHERE next = 5 AND from_ms <= received_ms"),
        1
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Whatever came, whatever was lost and wherever the periods end: the parts are the whole, and
    /// nothing is missing as long as nobody deletes rows.
    #[test]
    fn the_parts_are_what_was_taken(
        stored in proptest::collection::btree_set(1_u64..40, 0..30),
        gaps in proptest::collection::vec((1_u64..40, 1_u64..6), 0..4),
        ends in proptest::collection::btree_set(2_u64..45, 1..5),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let hub = Hub::start().await;
            let day = days_ago(1);
            hub.records(EVENTS, stored.iter().map(|n| (*n, event(*n)))).await;
            let told: Vec<_> = gaps.iter().map(|(f, n)| (*f, f + n - 1, GapReason::Damaged)).collect();
            hub.gaps(EVENTS, &told).await;
            let periods = (1..).zip(&ends).map(|(n, end)| (n, tally(day, &[(EVENTS, *end)])));
            hub.records(TALLIES, periods).await;
            hub.until_watermark(TALLIES, ends.len() as u64).await;
            let last = ends.last().unwrap() - 1;
            let lost = (1..=last).filter(|n| !stored.contains(n) && gaps.iter().any(|(f, l)| (*f..f + l).contains(n)));
            let expected_lost = lost.count() as u64;
            let expected_stored = stored.iter().filter(|n| **n <= last).count() as u64;
            hub.until(|h| h.gap_rows().iter().map(|(f, l)| l - f + 1).sum::<i64>() >= i64::try_from(expected_lost).unwrap()).await;
            let found = line(&receipt(&hub, day_from(day)).await, Stream::Event);
            assert_eq!(
                numbers(found),
                [last, expected_stored, last - expected_stored - expected_lost, expected_lost, 0]
            );
        });
    }
}
