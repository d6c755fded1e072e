//! One situation each.

use std::time::Duration;

use scc_common::id::{DeviceId, Epoch};
use scc_common::record::{DeviceKind, Event, LinkMode};
use scc_common::stream::Stream;
use scc_common::wire::{MAX_PART_SLOW, UpMessage};
use tokio::time::Instant;

use super::peer::{Hub, Rig, Wire};
use super::shelf::Shelf;

const PERMISSION: u32 = 512 * 1024;

/// Serves a wire until everything on the shelf is acknowledged.
async fn drain(rig: &Rig, wire: &mut Wire, hub: &mut Hub) {
    let drained = async {
        while rig.shelf.unacknowledged() > 0 {
            let message = wire.any().await.expect("the agent hung up");
            if let Some(down) = hub.take(message) {
                wire.say(&down);
            }
            // let the agent take in what was said
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3_600), drained)
        .await
        .expect("the backlog does not drain");
}

fn seqs(message: &UpMessage) -> (Stream, Vec<u64>) {
    match message {
        UpMessage::Records(r) => (r.stream, r.records.iter().map(|r| r.seq).collect()),
        UpMessage::Part(p) => (p.stream, vec![p.seq]),
        other => panic!("no records: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_answer_with_the_right_nonce() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Attendance, 200, 0);
    let rig = Rig::start(shelf, 1);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    assert_eq!(hello.epoch, Epoch(1));
    assert_eq!(
        (hello.lanes[0].stream, hello.lanes[0].next),
        (Stream::Attendance, 2)
    );
    let mut stale = hello.clone();
    stale.nonce ^= 1;
    wire.say(&hub.answer(&stale));
    wire.silent_for(Duration::from_secs(5)).await;
    wire.say(&hub.answer(&hello));
    assert_eq!(seqs(&wire.heard().await), (Stream::Attendance, vec![1]));
    wire.say(&hub.ack(Epoch(1), Stream::Attendance)); // nothing stored yet: changes nothing
    assert_eq!(rig.shelf.unacknowledged(), 1);
}

#[tokio::test(start_paused = true)]
async fn permission_is_obeyed_to_the_byte() {
    for permission in [9_000, 40_000, 100_000] {
        let shelf = Shelf::new(1);
        for n in 0..300 {
            shelf.put(Stream::Attendance, 300, n);
            shelf.put(Stream::Segment, 150_000, n);
        }
        let rig = Rig::start(shelf, 2);
        let mut hub = Hub::new(permission);
        let mut wire = rig.accept(1_000).await;
        let hello = wire.hello().await;
        wire.say(&hub.answer(&hello));
        // nothing is acknowledged: what comes now is all that may be in flight
        let mut flying = 0;
        let end = Instant::now() + Duration::from_secs(5);
        while let Ok(message) = tokio::time::timeout_at(end, wire.heard()).await {
            flying += scc_common::wire::Up::new(hello_agent(), message)
                .encode()
                .len();
        }
        assert!(flying <= permission as usize, "{flying} of {permission}");
        assert!(
            flying >= permission as usize / 4,
            "{flying} of {permission}"
        );
        hub.permission = 0;
        wire.say(&hub.ack(Epoch(1), Stream::Event));
        wire.silent_for(Duration::from_secs(2)).await;
    }
}

fn hello_agent() -> scc_common::id::AgentId {
    scc_common::id::AgentId::new("rsud").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_large_record_goes_on_at_the_part_that_the_hub_has() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Segment, 500_000, 7);
    let rig = Rig::start(shelf, 3);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(1).await;
    for _ in 0..4 {
        let message = wire.heard().await;
        let down = hub.take(message).unwrap();
        wire.say(&down);
    }
    let spooled = hub.spool.values().next().unwrap().len();
    assert!((MAX_PART_SLOW..500_000).contains(&spooled));
    drop(wire);
    let mut wire = rig.accept(1).await;
    let message = wire.heard().await;
    wire.say(&hub.take(message).unwrap());
    match wire.heard().await {
        UpMessage::Part(part) => {
            assert_eq!(part.offset as usize, spooled, "bytes were sent twice");
            wire.say(&hub.take(UpMessage::Part(part)).unwrap());
        }
        other => panic!("{other:?}"),
    }
    drain(&rig, &mut wire, &mut hub).await;
    let body = rig.shelf.all().into_values().next().unwrap();
    assert_eq!(hub.stored.into_values().next().unwrap(), body);
}

/// A punch made while video drains over 1 Mbit/s is at the hub within two seconds.
#[tokio::test(start_paused = true)]
async fn a_punch_passes_a_backlog_of_video() {
    let rate: u64 = 125_000;
    let shelf = Shelf::new(1);
    for n in 0..200 {
        shelf.put(Stream::Segment, 400_000, n);
        shelf.put(Stream::Snapshot, 50_000, n);
    }
    let rig = Rig::start(shelf, 4);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(2).await;
    let start = Instant::now();
    let mut punched = None;
    let mut waited = Vec::new();
    while waited.len() < 20 {
        let message = wire.any().await.unwrap();
        let size = scc_common::wire::Up::new(hello_agent(), message.clone())
            .encode()
            .len() as u64;
        tokio::time::sleep(Duration::from_millis(size * 1_000 / rate)).await;
        if let UpMessage::Records(r) = &message
            && r.stream == Stream::Attendance
        {
            waited.push(Instant::now() - punched.take().expect("a punch nobody made"));
        }
        if punched.is_none() && start.elapsed() > Duration::from_secs(10) {
            rig.shelf.put(Stream::Attendance, 300, 0);
            punched = Some(Instant::now());
        }
        if let Some(down) = hub.take(message) {
            wire.say(&down);
        }
    }
    let worst = waited.iter().max().unwrap();
    assert!(*worst < Duration::from_secs(2), "{waited:?}");
    assert!(
        rig.shelf.unacknowledged() > 100,
        "the backlog must still be draining"
    );
    assert_eq!(rig.handle.status.borrow().mode, LinkMode::CatchUp);
}

#[tokio::test(start_paused = true)]
async fn health_is_not_starved_by_a_long_backlog_of_punches() {
    let shelf = Shelf::new(1);
    for n in 0..20_000 {
        shelf.put(Stream::Attendance, 1_000, n);
    }
    shelf.put(Stream::Health, 300, 0);
    let rig = Rig::start(shelf, 5);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(1).await;
    let mut before = 0;
    loop {
        let message = wire.heard().await;
        match &message {
            UpMessage::Records(r) if r.stream == Stream::Health => break,
            UpMessage::Records(_) => before += 1,
            _ => {}
        }
        assert!(before < 40, "health waits behind {before} batches");
        if let Some(down) = hub.take(message) {
            wire.say(&down);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn silence_leads_back_to_hello_and_the_wait_doubles() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Event, 100, 0);
    let rig = Rig::start(shelf, 6);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    let mut sent = Instant::now();
    for expected in [10, 20, 40] {
        assert_eq!(seqs(&wire.heard().await), (Stream::Event, vec![1]));
        let hello = wire.hello().await;
        let waited = sent.elapsed().as_secs_f64();
        let (least, most) = (f64::from(expected) * 0.74, f64::from(expected) * 1.25 + 1.5);
        assert!(
            (least..=most).contains(&waited),
            "{waited} s instead of {expected}"
        );
        assert_eq!(rig.handle.status.borrow().mode, LinkMode::Slow);
        wire.say(&hub.answer(&hello));
        sent = Instant::now();
    }
    let message = wire.heard().await;
    wire.say(&hub.take(message).unwrap());
    wire.silent_for(Duration::from_secs(60)).await;
    assert_eq!(rig.shelf.unacknowledged(), 0);
    assert_eq!(rig.handle.status.borrow().mode, LinkMode::Normal);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_never_answers_gets_a_new_connection() {
    let rig = Rig::start(Shelf::new(1), 7);
    let mut wire = rig.accept(64).await;
    let (waited, hellos) = unanswered(&mut wire).await;
    assert!((60..65).contains(&waited), "{waited} s");
    assert!((2..=6).contains(&hellos), "{hellos} hellos in a minute");
    assert_eq!(rig.handle.status.borrow().mode, LinkMode::Down);
    let mut wire = rig.accept(64).await;
    wire.hello().await;
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_says_it_holds_back_is_asked_on_the_same_connection() {
    let rig = Rig::start(Shelf::new(1), 7);
    let mut wire = rig.accept(64).await;
    wire.signs.send_replace(true);
    let (waited, hellos) = unanswered(&mut wire).await;
    assert!((300..305).contains(&waited), "{waited} s");
    assert!(
        (6..=13).contains(&hellos),
        "{hellos} hellos in five minutes"
    );
}

/// Seconds until the agent gives up a connection on which nothing is answered, and its hellos.
async fn unanswered(wire: &mut Wire) -> (u64, u32) {
    let start = Instant::now();
    let mut hellos = 0;
    while let Some(message) = wire.any().await {
        hellos += u32::from(matches!(message, UpMessage::Hello(_)));
    }
    (start.elapsed().as_secs(), hellos)
}

#[tokio::test(start_paused = true)]
async fn another_run_of_the_hub_is_asked_what_it_has() {
    let shelf = Shelf::new(1);
    for n in 0..3 {
        shelf.put(Stream::Event, 100, n);
    }
    let rig = Rig::start(shelf, 8);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    drain(&rig, &mut wire, &mut hub).await;
    // the hub comes back from a backup that lacks the second record
    hub.run = 2;
    hub.stored.remove(&(Epoch(1), Stream::Event, 2));
    wire.say(&hub.ack(Epoch(1), Stream::Event));
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    assert_eq!(
        seqs(&wire.heard().await),
        (Stream::Event, vec![2]),
        "a restored hub gets exactly its lost record"
    );
}

#[tokio::test(start_paused = true)]
async fn gaps_are_told_in_hello_and_ahead_of_the_first_record_after_the_hole() {
    let shelf = Shelf::new(1);
    for n in 0..4 {
        shelf.put(Stream::Snapshot, 60_000, n);
    }
    shelf.evict(Stream::Snapshot, 1, 2);
    let rig = Rig::start(shelf, 9);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(1).await;
    let hello = wire.hello().await;
    assert_eq!(hello.lanes[0].gaps[0].range.last, 2);
    assert_eq!(hello.lanes[0].held[0].first, 3);
    wire.say(&hub.answer(&hello));
    drain(&rig, &mut wire, &mut hub).await;
    // a hole that comes into being while nobody is connected to hear of it in a hello
    rig.shelf.put(Stream::Snapshot, 60_000, 9);
    rig.shelf.evict(Stream::Snapshot, 5, 5);
    rig.shelf.put(Stream::Snapshot, 60_000, 9);
    drain(&rig, &mut wire, &mut hub).await;
    let told: Vec<u64> = hub.gaps.iter().map(|(.., seq)| *seq).collect();
    assert_eq!(told, [1, 2, 5]);
    let stored: Vec<u64> = hub.stored.keys().map(|(.., seq)| *seq).collect();
    assert_eq!(stored, [3, 4, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_copied_card_begins_anew_and_loses_nothing_of_its_own() {
    // the hub knows 1..=9 of this epoch; this card was copied when it had written five, and wrote
    // three more of its own since
    let (other, shelf) = (Shelf::new(1), Shelf::new(1));
    for _ in 0..9 {
        other.put(Stream::Attendance, 200, 1);
    }
    for n in 0..8 {
        shelf.put(Stream::Attendance, 200, if n < 5 { 1 } else { 2 });
    }
    let mut hub = Hub::new(PERMISSION);
    for (key, body) in other.all() {
        hub.stored.insert(key, body.to_vec());
    }
    let mut rig = Rig::start(shelf, 10);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    let hello = wire.hello().await;
    assert_eq!(hello.epoch, Epoch(2), "new records must get a new epoch");
    assert!(matches!(
        rig.events.try_recv(),
        Ok(Event::EpochBegun {
            epoch: Epoch(2),
            ..
        })
    ));
    wire.say(&hub.answer(&hello));
    let mut again = Vec::new();
    while again.len() < 3 {
        let message = wire.heard().await;
        again.extend(seqs(&message).1.into_iter().filter(|s| *s > 5));
        let down = hub.take(message).unwrap();
        wire.say(&down);
    }
    assert_eq!(
        again,
        [6, 7, 8],
        "its own records must reach the hub as conflicts"
    );
    rig.shelf.put(Stream::Attendance, 200, 3);
    drain(&rig, &mut wire, &mut hub).await;
    assert!(hub.stored.contains_key(&(Epoch(2), Stream::Attendance, 1)));
    assert_eq!(rig.shelf.epoch_now(), Epoch(2), "one new epoch is enough");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_asks_for_a_new_epoch_gets_one() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Event, 50, 0);
    let rig = Rig::start(shelf, 11);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    hub.new_epoch = true;
    wire.say(&hub.answer(&hello));
    let hello = wire.hello().await;
    assert_eq!(hello.epoch, Epoch(2));
    // told again although the new epoch is empty: it cannot be what collides
    wire.say(&hub.answer(&hello));
    assert_eq!(seqs(&wire.heard().await), (Stream::Event, vec![1]));
    assert_eq!(rig.shelf.epoch_now(), Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn a_restored_hub_makes_backlog_again_of_what_it_had_acknowledged() {
    let shelf = Shelf::new(1);
    for n in 0..6 {
        shelf.put(Stream::Attendance, 100, n);
    }
    let rig = Rig::start(shelf, 21);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    drain(&rig, &mut wire, &mut hub).await;
    // the database of yesterday
    hub.stored.retain(|(.., seq), _| *seq <= 2 || *seq == 5);
    drop(wire);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    let again = wire.heard().await;
    assert_eq!(
        rig.shelf.unacknowledged(),
        3,
        "status and eviction must know that 3, 4 and 6 are not at the hub"
    );
    wire.say(&hub.take(again).unwrap());
    drain(&rig, &mut wire, &mut hub).await;
    assert_eq!(hub.stored.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_the_buffer_began_by_itself_is_told_in_a_hello() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Attendance, 100, 0);
    let rig = Rig::start(shelf, 22);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    drain(&rig, &mut wire, &mut hub).await;
    rig.shelf.renumber();
    rig.shelf.put(Stream::Attendance, 100, 1);
    let hello = wire.hello().await;
    assert_eq!(hello.epoch, Epoch(2));
    wire.say(&hub.answer(&hello));
    drain(&rig, &mut wire, &mut hub).await;
    assert_eq!(hub.stored.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn lanes_that_did_not_fit_into_the_hello_are_delivered_all_the_same() {
    let shelf = Shelf::new(1);
    for salt in 0..5_600 {
        shelf.put(Stream::Attendance, 100, salt);
        shelf.renumber();
    }
    let rig = Rig::start(shelf, 23);
    let mut hub = Hub::new(PERMISSION);
    let all = rig.shelf.all();
    // the hub has most of it, or the test would take a minute; the last four hundred it has not
    let most = all.iter().take(5_200);
    hub.stored = most.map(|(key, body)| (*key, body.to_vec())).collect();
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    assert!(hello.lanes.len() < 5_600, "all of it fits");
    assert!(hello.partial, "the hub would close what is not told");
    wire.say(&hub.answer(&hello));
    drain(&rig, &mut wire, &mut hub).await;
    assert_eq!(hub.stored.len(), all.len());
    // and it does not ask again because of an epoch that it left out itself
    wire.silent_for(Duration::from_secs(5)).await;
}

#[tokio::test(start_paused = true)]
async fn paused_streams_wait_and_the_others_go_on() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Segment, 90_000, 0);
    let rig = Rig::start(shelf, 12);
    let mut hub = Hub::new(PERMISSION);
    hub.paused = vec![Stream::Segment];
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    wire.silent_for(Duration::from_secs(25)).await;
    rig.shelf.put(Stream::Health, 100, 0);
    let message = wire.heard().await;
    assert_eq!(seqs(&message).0, Stream::Health);
    hub.paused.clear();
    wire.say(&hub.take(message).unwrap());
    assert_eq!(seqs(&wire.heard().await).0, Stream::Segment);
}

#[tokio::test(start_paused = true)]
async fn without_permission_the_agent_asks_again_after_ten_seconds() {
    let shelf = Shelf::new(1);
    shelf.put(Stream::Event, 100, 0);
    let rig = Rig::start(shelf, 13);
    let mut hub = Hub::new(0);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    let answered = Instant::now();
    wire.say(&hub.answer(&hello));
    let hello = wire.hello().await;
    let waited = answered.elapsed();
    assert!((9..=13).contains(&waited.as_secs()), "{waited:?}");
    hub.permission = PERMISSION;
    wire.say(&hub.answer(&hello));
    assert_eq!(seqs(&wire.heard().await), (Stream::Event, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_appended_while_idle_is_sent_at_once() {
    let rig = Rig::start(Shelf::new(1), 14);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    wire.silent_for(Duration::from_secs(20)).await;
    let put = Instant::now();
    rig.shelf.put(Stream::Attendance, 300, 0);
    assert_eq!(seqs(&wire.heard().await), (Stream::Attendance, vec![1]));
    assert!(
        put.elapsed() < Duration::from_millis(5),
        "{:?}",
        put.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn now_comes_with_hello_every_thirty_seconds_and_when_a_device_changes() {
    let rig = Rig::start(Shelf::new(1), 15);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    assert!(matches!(wire.any().await, Some(UpMessage::Now(_))));
    let first = Instant::now();
    assert!(matches!(wire.any().await, Some(UpMessage::Now(_))));
    assert!(
        (29..=32).contains(&first.elapsed().as_secs()),
        "{:?}",
        first.elapsed()
    );
    rig.board
        .good(&DeviceId::new("loket").unwrap(), DeviceKind::Camera);
    let changed = Instant::now();
    rig.poke.notify_one();
    match wire.any().await {
        Some(UpMessage::Now(now)) => assert_eq!(now.devices[0].device.as_str(), "loket"),
        other => panic!("{other:?}"),
    }
    assert!(changed.elapsed() < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_uplink_ends_wherever_it_is() {
    for connected in [false, true] {
        let rig = Rig::start(Shelf::new(1), 16);
        let _wire = if connected {
            let mut wire = rig.accept(16).await;
            wire.hello().await;
            Some(wire)
        } else {
            None
        };
        rig.stop.cancel();
        tokio::time::timeout(Duration::from_secs(2), rig.task)
            .await
            .expect("it goes on")
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_hubs_time_confirms_a_clock_that_nobody_else_has() {
    use scc_common::clock::{Clock, ClockQuality};
    let rig = Rig::start(Shelf::new(1), 17);
    rig.clock.set_quality(ClockQuality::Unconfirmed);
    let mut hub = Hub::new(PERMISSION);
    let mut wire = rig.accept(16).await;
    let hello = wire.hello().await;
    wire.say(&hub.answer(&hello));
    wire.silent_for(Duration::from_secs(1)).await;
    assert_eq!(rig.clock.quality(), ClockQuality::Hub);
}
