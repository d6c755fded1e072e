//! The times of records whose box had no right clock: as told, corrected, and what they are worth.
//! Ingest with a real database; the boxes' stamps are made up.

#![expect(
    clippy::unwrap_used,
    reason = "test code; the lint's exception covers test functions only"
)]

mod ingest_harness;

use ingest_harness::{EVENTS, Hub, Lane, STILLS, health_with, still_of};
use scc_common::clock::{BootOffset, ClockQuality, Dated, Stamp, TimeQuality};
use scc_common::id::{BootId, DeviceId, Epoch};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Event, LinkMode, RecordBody, Snapshot, State,
};
use scc_common::stream::Stream;
use scc_common::wire::{Now, UpMessage};
use scc_hub::ingest::Notice;
use scc_hub::store::views::Day;

const BOOT: BootId = BootId([1; 16]);
const OTHER_BOOT: BootId = BootId([2; 16]);

/// When [`BOOT`] really began: an hour before the tests do.
fn booted_ms() -> i64 {
    use scc_common::clock::{Clock, SystemClock};
    SystemClock::new().wall_ms() - 3_600_000
}

/// A box that woke up in 1970.
fn lost(boot: BootId, mono_ms: u64) -> Stamp {
    Stamp {
        boot,
        mono_ms,
        wall_ms: i64::try_from(mono_ms).unwrap(),
        quality: ClockQuality::Unconfirmed,
    }
}

fn confirmed(boot: BootId, mono_ms: u64, booted_ms: i64) -> Stamp {
    Stamp {
        wall_ms: booted_ms + i64::try_from(mono_ms).unwrap(),
        quality: ClockQuality::Ntp,
        ..lost(boot, mono_ms)
    }
}

/// A camera goes down 300 ms before the record of it.
fn down(stamp: Stamp) -> Vec<u8> {
    let state = DeviceState {
        device: DeviceId::new("pintu").unwrap(),
        kind: DeviceKind::Camera,
        state: State::Down,
        cause: Some(Cause::Offline),
        since_ms: stamp.wall_ms - 300,
        last_good_ms: None,
        detail: None,
    };
    let content = Content::Event(Event::DeviceState(state));
    RecordBody::new(stamp, None, content).encode()
}

fn still(stamp: Stamp) -> Vec<u8> {
    let snapshot = Snapshot {
        width: 640,
        height: 360,
        cadence_s: 60,
        jpeg: still_of(1, 500),
    };
    let device = DeviceId::new("pintu").unwrap();
    RecordBody::new(stamp, Some(device), Content::Snapshot(snapshot)).encode()
}

/// An agent tells what it has measured against the hub's clock.
async fn measured(hub: &Hub, boot: BootId, booted_ms: i64) {
    use scc_common::clock::{Clock, SystemClock};
    let mono_ms = u64::try_from(SystemClock::new().wall_ms() - booted_ms).unwrap();
    let now = Now {
        stamp: lost(boot, mono_ms),
        devices: Vec::new(),
        link: LinkMode::Normal,
        backlog: 0,
        backlog_bytes: 0,
        oldest_ms: None,
        stills: Vec::new(),
        offset: Some(BootOffset {
            ahead_ms: booted_ms,
            within_ms: 40,
            mono_ms,
        }),
    };
    hub.say(UpMessage::Now(now)).await;
}

#[tokio::test]
async fn records_of_a_boot_in_1970_are_dated_once_their_boot_is_measured_whatever_ends_the_hub_meanwhile()
 {
    const EVENTS_STORED: u64 = 450;
    let (mut hub, booted) = (Hub::start().await, booted_ms());
    let mono = |seq: u64| 1_000 + seq * 1_000;
    hub.records(
        EVENTS,
        (1..=EVENTS_STORED).map(|seq| (seq, down(lost(BOOT, mono(seq))))),
    )
    .await;
    hub.records(STILLS, [(1, still(lost(BOOT, 9_000)))]).await;
    // another boot, of which the hub has never heard live
    hub.records(STILLS, [(2, still(lost(OTHER_BOOT, 9_000)))])
        .await;
    hub.until_watermark(EVENTS, EVENTS_STORED).await;
    hub.until_watermark(STILLS, 2).await;
    let corrected = "SELECT count(*) FROM record WHERE corrected_ms IS NOT NULL";
    assert_eq!(hub.count(corrected), 0);
    let bodies = hub.rows();

    measured(&hub, BOOT, booted).await;
    hub.until(|hub| hub.count("SELECT count(*) FROM boot") == 1)
        .await;
    hub = hub.kill().await;
    let all = i64::try_from(EVENTS_STORED).unwrap() + 1;
    hub.until(|hub| hub.count(corrected) == all).await;
    hub.until(|hub| hub.count("SELECT count(*) FROM boot WHERE dated_to IS NULL") == 1)
        .await;

    let wrong = format!(
        "SELECT count(*) FROM record WHERE boot = x'{}' AND corrected_ms != mono_ms + {booted}",
        "01".repeat(16)
    );
    assert_eq!(hub.count(&wrong), 0);
    let untold = "SELECT count(*) FROM record WHERE wall_ms != mono_ms";
    assert_eq!(hub.count(untold), 0, "what was told is kept");
    assert_eq!(hub.rows(), bodies);
    let states = format!(
        "SELECT count(*) FROM device_state WHERE changed_ms BETWEEN {booted} + 1700 AND {booted} + 999999"
    );
    let known = i64::try_from(EVENTS_STORED).unwrap();
    assert_eq!(hub.count(&states), known);
    assert_eq!(hub.count("SELECT count(*) FROM device_state"), known);
    let taken = "SELECT min(captured_ms) FROM picture";
    assert_eq!(
        hub.count(taken),
        9_000,
        "of the other boot nobody knows better"
    );
    assert_eq!(
        hub.count("SELECT max(captured_ms) FROM picture"),
        booted + 9_000
    );
}

#[tokio::test]
async fn a_measured_boot_dates_what_comes_after_it_and_says_so() {
    let (mut hub, booted) = (Hub::start().await, booted_ms());
    measured(&hub, BOOT, booted).await;
    hub.notice().await;
    hub.records(EVENTS, [(1, down(lost(BOOT, 5_000)))]).await;
    let Notice::Committed { records, .. } = hub.notice().await.as_ref().clone() else {
        panic!("the event was not told");
    };
    let dated = Dated {
        told_ms: 5_000,
        corrected_ms: Some(booted + 5_000),
        clock: ClockQuality::Unconfirmed,
    };
    assert_eq!(records[0].dated, Some(dated));
    assert_eq!(dated.quality(), TimeQuality::Corrected);
    assert_eq!(
        hub.count("SELECT changed_ms FROM device_state"),
        booted + 4_700
    );
}

#[tokio::test]
async fn a_record_with_a_confirmed_clock_dates_the_others_of_its_boot_and_of_no_other() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    let records = [
        (1, down(lost(BOOT, 5_000))),
        (2, down(lost(OTHER_BOOT, 5_000))),
        (3, down(confirmed(BOOT, 60_000, booted))),
    ];
    hub.records(EVENTS, records).await;
    let of = |seq| format!("SELECT max(corrected_ms) FROM record WHERE seq = {seq}");
    hub.until(|hub| hub.count(&of(1)) == booted + 5_000).await;
    hub.until(|hub| hub.count("SELECT count(*) FROM boot WHERE dated_to IS NULL") == 1)
        .await;
    assert_eq!(hub.count(&of(2)), 0, "none");
    assert_eq!(hub.count(&of(3)), 0, "as told");
}

#[tokio::test]
async fn measurements_that_exclude_each_other_correct_nothing_and_take_back_what_was_corrected() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    measured(&hub, BOOT, booted).await;
    hub.records(EVENTS, [(1, down(lost(BOOT, 5_000)))]).await;
    hub.until_watermark(EVENTS, 1).await;
    let corrected = "SELECT count(*) FROM record WHERE corrected_ms IS NOT NULL";
    hub.until(|hub| hub.count(corrected) == 1).await;
    // an hour off, and just as sure of it
    let other = confirmed(BOOT, 60_000, booted - 3_600_000);
    hub.records(EVENTS, [(2, down(other))]).await;
    hub.until(|hub| hub.count(corrected) == 0).await;
    measured(&hub, BOOT, booted).await;
    hub.records(EVENTS, [(3, down(lost(BOOT, 6_000)))]).await;
    hub.until_watermark(EVENTS, 3).await;
    assert_eq!(hub.count(corrected), 0, "for ever");
    let states = "SELECT count(*) FROM device_state WHERE changed_ms < 10000";
    assert_eq!(hub.count(states), 2, "as told");
}

#[tokio::test]
async fn the_receipt_says_how_many_times_are_corrected_and_how_many_nobody_knows() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    measured(&hub, BOOT, booted).await;
    let records = [
        (1, down(lost(BOOT, 5_000))),
        (2, down(lost(OTHER_BOOT, 5_000))),
        (3, down(confirmed(BOOT, 7_000, booted))),
        (4, down(lost(OTHER_BOOT, 6_000))),
    ];
    hub.records(EVENTS, records).await;
    hub.until_watermark(EVENTS, 4).await;
    let store = scc_hub::store::Store::look(&hub.config().database()).unwrap();
    let receipt = store
        .receipt(
            ingest_harness::agent(),
            Day::running("2026-11-24".into(), booted - 1),
        )
        .await
        .unwrap();
    assert_eq!((receipt.corrected, receipt.undated), (1, 2));
    assert_eq!(receipt.streams[0].1.stored, 4, "each is counted");
    let later = store
        .receipt(
            ingest_harness::agent(),
            Day::running("2026-11-24".into(), booted + 6_000),
        )
        .await
        .unwrap();
    assert_eq!(
        (later.corrected, later.streams[0].1.stored),
        (0, 3),
        "what was taken before the day does not count on it"
    );
}

#[tokio::test]
async fn the_health_of_a_box_stays_and_its_texts_stay_short_when_its_boot_is_measured_afterwards() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    let lane = Lane(Epoch(7), Stream::Health);
    let mut said = RecordBody::decode(&health_with(EVENTS, 1, "0.0.7", Vec::new())).unwrap();
    said.stamp = lost(BOOT, 5_000);
    hub.records(lane, [(1, said.encode())]).await;
    let mut talkative = RecordBody::decode(&down(lost(BOOT, 6_000))).unwrap();
    let Content::Event(Event::DeviceState(state)) = &mut talkative.content else {
        panic!("no state of a device");
    };
    state.detail = Some("x".repeat(20_000));
    hub.records(EVENTS, [(1, talkative.encode())]).await;
    hub.until_watermark(lane, 1).await;
    hub.until_watermark(EVENTS, 1).await;
    measured(&hub, BOOT, booted).await;
    hub.until(|hub| hub.count("SELECT count(*) FROM record WHERE corrected_ms IS NOT NULL") == 2)
        .await;
    assert_eq!(hub.count("SELECT count(*) FROM health"), 1);
    assert_eq!(hub.count("SELECT at_ms FROM health"), booted + 5_000);
    let longest = "SELECT max(length(detail)) FROM device_state";
    assert!(hub.count(longest) <= 301, "{}", hub.count(longest));
}

#[tokio::test]
async fn a_record_that_cannot_be_dated_again_keeps_its_time_and_holds_up_no_other() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    hub.sql()
        .execute_batch(
            "CREATE TRIGGER t BEFORE INSERT ON device_state WHEN NEW.record = 2 AND NEW.changed_ms > 1000000
             BEGIN SELECT raise(ABORT, 'not this one'); END",
        )
        .unwrap();
    let of_this_boot = (1..=300).map(|seq| (seq, down(lost(BOOT, 1_000 + seq * 1_000))));
    hub.records(EVENTS, of_this_boot).await;
    hub.records(EVENTS, [(301, down(lost(OTHER_BOOT, 5_000)))])
        .await;
    hub.until_watermark(EVENTS, 301).await;
    measured(&hub, BOOT, booted).await;
    measured(&hub, OTHER_BOOT, booted).await;
    let settled = "SELECT count(*) FROM boot WHERE dated_to IS NULL";
    hub.until(|hub| hub.count(settled) == 2).await;
    assert_eq!(
        hub.count("SELECT count(*) FROM record WHERE corrected_ms IS NOT NULL"),
        300
    );
    // nothing of the attempt is left: neither half a correction nor a state that is gone
    assert_eq!(
        hub.texts("SELECT seq || ' ' || wall_ms FROM record WHERE corrected_ms IS NULL"),
        ["2 3000"]
    );
    assert_eq!(
        hub.count("SELECT changed_ms FROM device_state WHERE record = 2"),
        2_700
    );
    assert_eq!(hub.count("SELECT count(*) FROM device_state"), 301);
}

#[tokio::test]
async fn two_boots_that_tell_a_state_of_the_same_millisecond_take_nothing_from_each_other() {
    let (hub, booted) = (Hub::start().await, booted_ms());
    let records = [
        (1, down(lost(BOOT, 5_000))),
        (2, down(lost(OTHER_BOOT, 5_000))),
    ];
    hub.records(EVENTS, records).await;
    hub.until_watermark(EVENTS, 2).await;
    measured(&hub, BOOT, booted).await;
    let settled = "SELECT count(*) FROM boot WHERE dated_to IS NULL";
    hub.until(|hub| hub.count(settled) == 1).await;
    assert_eq!(
        hub.texts(
            "SELECT record || ' ' || (changed_ms > 1000000) FROM device_state ORDER BY record"
        ),
        ["1 1", "2 0"]
    );
}
