//! The configuration is given again at every start: the same one changes nothing on the card, another
//! one takes effect by policy only.

use std::collections::BTreeSet;

use super::limits::punches;
use super::*;

const HOUR: u32 = 3_600_000;

/// Streams that go last.
fn is_protected(key: &(Lane, Seq)) -> bool {
    BufferLimits::is_protected(key.0.stream)
}

/// Every file of records with its bytes.
fn records_on_card(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut paths = Vec::new();
    super::damage::files(&dir.join("buffer"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|e| e == "rec"));
    let read = |path: std::path::PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

/// Full to the caps of [`before`], with some of it known to the hub.
async fn full(dir: &Path, clock: &Arc<ManualClock>) -> Contents {
    let buffer = Buffer::open(dir, before(), clock.clone()).unwrap();
    let mut first_lost = false;
    for n in 0..90 {
        let bodies = [
            event(&**clock, &format!("{n} {}", "x".repeat(400))),
            punches(&**clock, n),
            snapshot(&**clock, n, 12_000),
            segment(&**clock, n, 30_000),
        ];
        for body in &bodies {
            buffer.append(body).await.unwrap();
        }
        clock.advance(60_000);
        first_lost |= buffer.stat().await.unwrap().iter().any(|l| l.lost > 0);
    }
    assert!(first_lost, "it was never full");
    let epoch = buffer.epoch().await.unwrap();
    for (stream, water) in [(Stream::Event, 30), (Stream::Snapshot, 25)] {
        let lane = lane_of(epoch, stream);
        buffer.acknowledge(lane, water, Vec::new()).await.unwrap();
    }
    let contents = Contents::of_buffer(&buffer).await;
    buffer.close().await;
    contents
}

fn before() -> BufferLimits {
    limits(2 << 20, 1 << 20, 1 << 20)
}

#[tokio::test]
async fn the_same_configuration_at_each_start_changes_nothing_on_a_full_card() {
    let (dir, clock) = (in_memory(), clock());
    let full = full(dir.path(), &clock).await;
    let records = records_on_card(dir.path());
    for start in 0..5 {
        let buffer = Buffer::open(dir.path(), before(), clock.clone()).unwrap();
        assert_eq!(buffer.damage(), None);
        let again = Contents::of_buffer(&buffer).await;
        assert_eq!((&again.held, &again.gaps), (&full.held, &full.gaps));
        assert_eq!(again.next, full.next, "start {start}");
        buffer.close().await;
        assert!(records_on_card(dir.path()) == records, "start {start}");
    }
}

#[tokio::test]
async fn smaller_caps_on_a_full_card_drop_the_oldest_media_and_nothing_that_is_protected() {
    let (dir, clock) = (in_memory(), clock());
    let full = full(dir.path(), &clock).await;
    let small = |max_bytes| StreamLimits {
        max_bytes,
        max_hours: 24,
    };
    let after = BufferLimits {
        segment: small(512 << 10),
        snapshot: small(256 << 10),
        // less than they hold
        event: small(16 << 10),
        attendance: small(64 << 10),
        ..before()
    };
    let buffer = Buffer::open(dir.path(), after, clock.clone()).unwrap();
    let opened = Contents::of_buffer(&buffer).await;
    assert_eq!((&opened.held, &opened.gaps), (&full.held, &full.gaps));
    assert_eq!(opened.next, full.next);
    // room is made by those that need it
    for body in [
        segment(&*clock, 1_000, 30_000),
        snapshot(&*clock, 1_000, 9_000),
    ] {
        buffer.append(&body).await.unwrap();
    }
    for body in [event(&*clock, "more"), punches(&*clock, 1_000)] {
        buffer.append(&body).await.unwrap();
    }
    let now = Contents::of_buffer(&buffer).await;
    assert_eq!(buffer.damage(), None);
    for stream in [Stream::Segment, Stream::Snapshot] {
        let bytes: usize = records_on_card(dir.path())
            .iter()
            .filter(|(path, _)| path.parent().unwrap().ends_with(stream.name()))
            .map(|(_, bytes)| bytes.len())
            .sum();
        assert!(
            bytes as u64 <= after.of(stream).max_bytes,
            "{stream}: {bytes}"
        );
        let held: Vec<Seq> = now
            .held
            .keys()
            .filter(|(l, _)| l.stream == stream)
            .map(|(_, s)| *s)
            .collect();
        assert!(held.len() > 5, "{stream}: not more than must go");
        let newest = held[held.len() - 1];
        let kept = newest - held[0] + 1;
        assert_eq!(
            kept,
            held.len() as u64,
            "{stream}: the newest, without holes"
        );
    }
    for (key, sum) in &full.held {
        match (now.held.get(key), now.gaps.get(key)) {
            (Some(held), None) => assert_eq!(held, sum),
            (None, Some(reason)) => {
                assert!(!is_protected(key), "{key:?} was dropped");
                let acked = key.0.stream == Stream::Snapshot && key.1 <= 25;
                let expected = match acked {
                    true => GapReason::EvictedAfterAck,
                    false => GapReason::EvictedBySize,
                };
                assert_eq!(*reason, expected, "{key:?}");
            }
            other => panic!("{key:?} is {other:?}"),
        }
    }
    // every loss is counted, and a larger cap brings no number again
    let lost = |contents: &Contents| {
        let reasons = contents.gaps.values();
        reasons
            .filter(|r| **r != GapReason::EvictedAfterAck)
            .count() as u64
    };
    let stat = buffer.stat().await.unwrap();
    assert_eq!(stat.iter().map(|l| l.lost).sum::<u64>(), lost(&now));
    assert!(lost(&now) > lost(&full));
    buffer.close().await;
    let buffer = Buffer::open(dir.path(), before(), clock.clone()).unwrap();
    let again = Contents::of_buffer(&buffer).await;
    assert_eq!((again.held, again.gaps), (now.held, now.gaps));
    let more = buffer
        .append(&segment(&*clock, 2_000, 1_000))
        .await
        .unwrap();
    let lane = lane_of(more.epoch, more.stream);
    assert_eq!(more.seq, now.next[&lane]);
}

#[tokio::test]
async fn a_shorter_age_takes_what_is_older_of_media_and_nothing_unsent_that_is_protected() {
    let (dir, clock) = (in_memory(), clock());
    let full = full(dir.path(), &clock).await;
    clock.advance(2 * HOUR);
    let short = |max_bytes| StreamLimits {
        max_bytes,
        max_hours: 1,
    };
    let after = BufferLimits {
        segment: short(2 << 20),
        snapshot: short(1 << 20),
        event: short(1 << 20),
        attendance: short(1 << 20),
        ..before()
    };
    let buffer = Buffer::open(dir.path(), after, clock.clone()).unwrap();
    // housekeeping runs after a request
    buffer.stat().await.unwrap();
    let now = Contents::of_buffer(&buffer).await;
    let protected = |held: &BTreeMap<(Lane, Seq), Checksum>| -> BTreeSet<(Lane, Seq)> {
        held.keys()
            .filter(|key| is_protected(key))
            .copied()
            .collect()
    };
    let dropped: Vec<_> = protected(&full.held)
        .difference(&protected(&now.held))
        .copied()
        .collect();
    // whole files of what the hub has may go
    let acked = |(lane, seq): &(Lane, Seq)| lane.stream == Stream::Event && *seq <= 30;
    assert!(dropped.iter().all(acked), "{dropped:?}");
    let media = now.held.keys().filter(|key| key.0.stream.is_media());
    assert_eq!(media.count(), 0);
    for key in full.held.keys().filter(|key| key.0.stream.is_media()) {
        let acked = key.0.stream == Stream::Snapshot && key.1 <= 25;
        let expected = match acked {
            true => GapReason::EvictedAfterAck,
            false => GapReason::EvictedByAge,
        };
        assert_eq!(now.gaps.get(key), Some(&expected), "{key:?}");
    }
}
