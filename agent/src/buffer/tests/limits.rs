//! Policy: who goes first, who is refused, and that it recovers by itself.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use scc_common::record::{Punch, PunchBatch, Way};

use super::small_card::{run_again, take_all};
use super::*;
use crate::buffer::BufferError;

const HOUR: u32 = 3_600_000;

fn append(store: &mut Store, body: &RecordBody) -> Result<Seq, BufferError> {
    store.append(&[incoming(body)]).remove(0).map(|a| a.seq)
}

fn held(store: &mut Store, stream: Stream) -> usize {
    let contents = Contents::of(store);
    contents
        .held
        .keys()
        .filter(|(lane, _)| lane.stream == stream)
        .count()
}

fn reasons(store: &mut Store, stream: Stream) -> BTreeMap<Seq, GapReason> {
    let contents = Contents::of(store);
    let gaps = contents.gaps.into_iter();
    gaps.filter(|((lane, _), _)| lane.stream == stream)
        .map(|((_, seq), reason)| (seq, reason))
        .collect()
}

fn on_card(dir: &Path, stream: Stream) -> u64 {
    let files = std::fs::read_dir(dir.join("buffer").join(stream.name())).unwrap();
    files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn over_its_cap_a_stream_drops_its_own_oldest_and_no_other() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    for n in 0..10 {
        append(&mut store, &event(&*clock, &n.to_string())).unwrap();
        append(&mut store, &snapshot(&*clock, n, 5_000)).unwrap();
    }
    for n in 0..30 {
        append(&mut store, &segment(&*clock, n, 30_000)).unwrap();
        assert!(on_card(dir.path(), Stream::Segment) <= tight().segment.max_bytes);
    }
    assert_eq!(held(&mut store, Stream::Event), 10);
    assert_eq!(held(&mut store, Stream::Snapshot), 10);
    let gaps = reasons(&mut store, Stream::Segment);
    let newest_lost = *gaps.keys().last().unwrap();
    assert_eq!(gaps.len() as u64, newest_lost, "the oldest, without holes");
    assert!(gaps.values().all(|r| *r == GapReason::EvictedBySize));
    assert!(held(&mut store, Stream::Segment) >= 3);
    let stat = store.stat().unwrap();
    let lane = stat.iter().find(|l| l.stream == Stream::Segment).unwrap();
    assert_eq!(lane.lost, newest_lost);
    let offer = store
        .offers()
        .into_iter()
        .find(|o| o.stream == Stream::Segment);
    assert_eq!(offer.unwrap().gaps.len(), 1, "gaps are merged");
}

#[test]
fn what_the_hub_has_goes_before_what_it_has_not_and_is_not_called_lost() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    for n in 0..6 {
        append(&mut store, &segment(&*clock, n, 25_000)).unwrap();
        append(&mut store, &snapshot(&*clock, n, 25_000)).unwrap();
    }
    let lane = lane_of(store.epoch, Stream::Snapshot);
    store.acknowledge(lane, 6, &[]).unwrap();
    for n in 0..55 {
        append(
            &mut store,
            &event(&*clock, &format!("{n} {}", "x".repeat(4_000))),
        )
        .unwrap();
    }
    assert_eq!(held(&mut store, Stream::Segment), 6);
    let gaps = reasons(&mut store, Stream::Snapshot);
    assert!(!gaps.is_empty());
    assert!(gaps.values().all(|r| *r == GapReason::EvictedAfterAck));
    assert!(store.stat().unwrap().iter().all(|lane| lane.lost == 0));
}

#[test]
fn protected_streams_take_the_room_of_media_and_go_only_when_none_is_left() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    for n in 0..6 {
        append(&mut store, &segment(&*clock, n, 25_000)).unwrap();
        append(&mut store, &snapshot(&*clock, n, 25_000)).unwrap();
    }
    let body = event(&*clock, &"x".repeat(4_000));
    let (mut video_gone, mut lost_first) = (None, None);
    for n in 1..=200u64 {
        append(&mut store, &body).unwrap();
        if held(&mut store, Stream::Segment) == 0 {
            video_gone.get_or_insert(n);
        } else {
            assert_eq!(
                held(&mut store, Stream::Snapshot),
                6,
                "video before pictures"
            );
        }
        if lost_first.is_none() && !reasons(&mut store, Stream::Event).is_empty() {
            lost_first = Some(n);
            assert_eq!(held(&mut store, Stream::Snapshot), 0);
        }
    }
    assert!(video_gone.unwrap() < lost_first.unwrap());
    let fit = tight().all_bytes() / incoming(&body).total();
    assert_eq!(lost_first, Some(fit + 1), "all the room was used first");
    // video finds no room now, and drops nothing that is protected
    let before = held(&mut store, Stream::Event);
    let refused = append(&mut store, &segment(&*clock, 1, 80_000));
    assert!(matches!(refused, Err(BufferError::Full(_))), "{refused:?}");
    assert_eq!(held(&mut store, Stream::Event), before);
}

#[test]
fn the_configured_order_decides_who_makes_room_for_a_protected_stream() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut limits = tight();
    limits.drop_order.swap(0, 1);
    assert_eq!(limits.drop_order[0], Stream::Snapshot);
    let mut store = open_store(dir.path(), limits, &clock, &Steps::default()).unwrap();
    for n in 0..6 {
        append(&mut store, &segment(&*clock, n, 25_000)).unwrap();
        append(&mut store, &snapshot(&*clock, n, 25_000)).unwrap();
    }
    let body = event(&*clock, &"x".repeat(4_000));
    for _ in 0..55 {
        append(&mut store, &body).unwrap();
    }
    assert_eq!(held(&mut store, Stream::Segment), 6);
    assert!(held(&mut store, Stream::Snapshot) < 6);
}

#[test]
fn media_ages_by_the_clock_of_its_boot_and_stands_still_while_nobody_knows_the_time() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), roomy(), &clock, &Steps::default()).unwrap();
    append(&mut store, &segment(&*clock, 1, 1_000)).unwrap();
    append(&mut store, &event(&*clock, "kept")).unwrap();
    clock.step_wall(i64::from(HOUR) * 24 * 365);
    clock.advance(HOUR);
    store.tend().unwrap();
    assert_eq!(
        held(&mut store, Stream::Segment),
        1,
        "a stepped wall clock ages nothing"
    );
    clock.advance(24 * HOUR);
    store.tend().unwrap();
    assert_eq!(
        reasons(&mut store, Stream::Segment),
        BTreeMap::from([(1, GapReason::EvictedByAge)])
    );
    assert_eq!(held(&mut store, Stream::Event), 1);

    // NTP has set it there; a record of another boot
    clock.set_quality(scc_common::clock::ClockQuality::Ntp);
    let mut body = segment(&*clock, 2, 1_000);
    body.stamp.boot = scc_common::id::BootId([1; 16]);
    body.stamp.wall_ms -= i64::from(HOUR) * 25;
    append(&mut store, &body).unwrap();
    clock.set_quality(scc_common::clock::ClockQuality::Unconfirmed);
    clock.advance(60_000);
    store.tend().unwrap();
    assert_eq!(held(&mut store, Stream::Segment), 1);
    clock.set_quality(scc_common::clock::ClockQuality::Hub);
    clock.advance(60_000);
    store.tend().unwrap();
    assert_eq!(held(&mut store, Stream::Segment), 0);
}

#[test]
fn a_card_that_others_have_filled_refuses_and_drops_nothing_in_vain() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), roomy(), &clock, &Steps::default()).unwrap();
    append(&mut store, &segment(&*clock, 1, 10_000)).unwrap();
    append(&mut store, &event(&*clock, "1")).unwrap();
    store.limits.min_free_bytes = u64::MAX;
    for body in [segment(&*clock, 2, 10_000), event(&*clock, "2")] {
        let refused = append(&mut store, &body);
        assert!(matches!(refused, Err(BufferError::Full(_))), "{refused:?}");
    }
    assert!(store.broken.is_none());
    assert_eq!(held(&mut store, Stream::Segment), 1);
    store.limits.min_free_bytes = 0;
    assert_eq!(append(&mut store, &segment(&*clock, 2, 10_000)).unwrap(), 2);
    assert_eq!(append(&mut store, &event(&*clock, "2")).unwrap(), 2);
}

#[test]
fn a_day_of_appending_and_acknowledging_does_not_grow_the_card() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    let lane = lane_of(store.epoch, Stream::Segment);
    for n in 0..400 {
        let seq = append(&mut store, &segment(&*clock, n, 20_000)).unwrap();
        store.acknowledge(lane, seq, &[]).unwrap();
        clock.advance(60_000);
        store.tend().unwrap();
    }
    assert!(on_card(dir.path(), Stream::Segment) <= tight().segment.max_bytes);
    let offer = store.offers().remove(0);
    assert_eq!((offer.gaps.len(), offer.held.len()), (1, 1));
    assert!(store.stat().unwrap().iter().all(|l| l.lost == 0));
}

const CHILD: &str = "SCC_TEST_SMALL_CARD";

/// What was offered to a buffer, and what became of it.
#[derive(Debug, Default)]
struct Ledger {
    offered: BTreeMap<Stream, u64>,
    accepted: BTreeMap<(Lane, Seq), Checksum>,
    given_up: BTreeMap<Stream, HashSet<Checksum>>,
    /// Punches that wait in their terminal.
    waiting: VecDeque<RecordBody>,
}

impl Ledger {
    /// Offers a record; whether it was accepted. A source that cannot offer it again gives it up.
    async fn offer(&mut self, buffer: &Buffer, body: RecordBody) -> bool {
        *self.offered.entry(body.stream()).or_default() += 1;
        if body.stream() == Stream::Attendance {
            self.waiting.push_back(body);
            return self.offer_punches(buffer).await;
        }
        let sum = Checksum::of(&body.encode());
        match buffer.append(&body).await {
            Ok(a) => {
                let old = self
                    .accepted
                    .insert((lane_of(a.epoch, a.stream), a.seq), sum);
                assert_eq!(old, None);
                true
            }
            Err(refused @ (BufferError::Full(_) | BufferError::Disk(_))) => {
                buffer.give_up(&body, &refused).await;
                self.given_up.entry(body.stream()).or_default().insert(sum);
                false
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// As a terminal's book does: in order, and again what was refused.
    async fn offer_punches(&mut self, buffer: &Buffer) -> bool {
        while let Some(body) = self.waiting.front() {
            match buffer.holds(body).await {
                Ok(true) => {}
                Ok(false) => match buffer.append(body).await {
                    Ok(a) => {
                        let sum = Checksum::of(&body.encode());
                        self.accepted
                            .insert((lane_of(a.epoch, a.stream), a.seq), sum);
                    }
                    Err(_) => return false,
                },
                Err(_) => return false,
            }
            self.waiting.pop_front();
        }
        true
    }

    /// accepted + told as gap = offered, for each stream.
    fn check(&self, contents: &Contents) {
        for (key, sum) in &self.accepted {
            match (contents.held.get(key), contents.gaps.get(key)) {
                (Some(held), None) => assert_eq!(held, sum),
                (None, Some(GapReason::EvictedBySize)) => assert!(
                    !BufferLimits::is_protected(key.0.stream),
                    "{key:?} was dropped for want of room"
                ),
                other => panic!("{key:?} is {other:?}"),
            }
        }
        let held: HashSet<Checksum> = contents.held.values().copied().collect();
        for (&stream, &offered) in &self.offered {
            let of_stream = |lane: &Lane| lane.stream == stream;
            let numbers = contents.next.iter().filter(|(lane, _)| of_stream(lane));
            let numbers: u64 = numbers.map(|(_, next)| next - 1).sum();
            let none = HashSet::new();
            let given_up = self.given_up.get(&stream).unwrap_or(&none);
            let after_all = given_up.intersection(&held).count();
            let refused =
                |reason: &GapReason| matches!(reason, GapReason::DiskFull | GapReason::Damaged);
            let gaps = contents
                .gaps
                .iter()
                .filter(|((lane, _), _)| of_stream(lane));
            let told = gaps.filter(|(_, reason)| refused(reason)).count();
            println!(
                "{stream}: {offered} offered, {} given up, {after_all} of them stored, {told} told",
                given_up.len()
            );
            assert_eq!(
                numbers, offered,
                "{stream}: a number for each, and no other"
            );
            assert_eq!(told + after_all, given_up.len(), "{stream}: told as a gap");
        }
    }
}

pub(super) fn punches(clock: &dyn Clock, n: u64) -> RecordBody {
    let punch = Punch {
        user: format!("{n} {}", "x".repeat(3_000)),
        local_s: 0,
        state: 0,
        verify: 1,
        ordinal: 0,
        raw: Vec::new(),
    };
    let content = Content::Punches(PunchBatch {
        serial: "A1".into(),
        way: Way::Live,
        utc_offset_min: 480,
        drift_ms: None,
        read: None,
        punches: vec![punch],
    });
    let device = DeviceId::new("absensi").unwrap();
    RecordBody::new(clock.stamp(), Some(device), content)
}

fn mixed(clock: &dyn Clock, n: u64) -> RecordBody {
    match n % 4 {
        0 => segment(clock, n, 200_000),
        1 => event(clock, &format!("{n} {}", "x".repeat(5_000))),
        2 => punches(clock, n),
        _ => snapshot(clock, n, 30_000),
    }
}

/// Not a test of its own: runs where a small tmpfs is mounted.
#[tokio::test]
async fn child_on_a_small_card() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = Path::new(&dir);
    let clock = clock();
    let mut ledger = Ledger::default();
    // the caps promise more than the card has, and nothing is kept free: ENOSPC comes as it likes
    let limits = limits(1 << 30, 1 << 30, 1 << 30);
    let buffer = Buffer::open(dir, limits, clock.clone()).unwrap();
    for n in 0..300 {
        ledger.offer(&buffer, mixed(&*clock, n)).await;
        clock.advance(500);
    }
    // somebody else takes all that is left, and goes away again
    let foreign = dir.join("foreign");
    for round in 1..=3u64 {
        let mut refused = 0;
        for n in 0..80 {
            // what the buffer drops to make room is taken too
            take_all(&foreign).unwrap();
            let accepted = ledger
                .offer(&buffer, mixed(&*clock, 1_000 * round + n))
                .await;
            refused += u32::from(!accepted);
            clock.advance(500);
        }
        assert!(refused > 0, "the card was never full");
        std::fs::remove_file(&foreign).unwrap();
        let mut waited = 0;
        let again = |n| event(&*clock, &format!("again {round} {n}"));
        while !ledger.offer(&buffer, again(waited)).await {
            clock.advance(250);
            waited += 250;
            assert!(waited <= 5_000, "there is room, and it still refuses");
        }
        println!("round {round}: {refused} refused; accepted again after {waited} ms");
        for n in 100..160 {
            ledger
                .offer(&buffer, mixed(&*clock, 1_000 * round + n))
                .await;
            clock.advance(500);
        }
    }
    // and now at any moment, also between the question for free space and the write
    let stop = Arc::new(AtomicBool::new(false));
    let churn = std::thread::spawn({
        let (stop, foreign) = (stop.clone(), foreign.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                take_all(&foreign).unwrap();
                std::fs::remove_file(&foreign).unwrap();
            }
        }
    });
    for n in 0..600 {
        ledger.offer(&buffer, mixed(&*clock, 10_000 + n)).await;
        clock.advance(500);
    }
    stop.store(true, Ordering::SeqCst);
    churn.join().unwrap();
    let mut waited = 0;
    while !ledger.offer_punches(&buffer).await {
        clock.advance(250);
        waited += 250;
        assert!(waited <= 5_000, "there is room, and it still refuses");
    }
    let body = event(&*clock, "there is room again");
    assert!(ledger.offer(&buffer, body).await);
    println!("damage: {:?}", buffer.damage());
    ledger.check(&Contents::of_buffer(&buffer).await);
    // and it stays so
    buffer.close().await;
    let buffer = Buffer::open(dir, limits, clock.clone()).unwrap();
    ledger.check(&Contents::of_buffer(&buffer).await);
    let lost: u64 = buffer.stat().await.unwrap().iter().map(|l| l.lost).sum();
    let (accepted, told) = (ledger.accepted.len(), lost);
    println!("small card: {accepted} accepted, {told} told as lost");
}

/// Records that are larger than the cap of their stream: refused, whatever the card has.
async fn refuse(buffer: &Buffer, body: &RecordBody) {
    let refused = buffer.append(body).await.unwrap_err();
    assert!(matches!(refused, BufferError::Full(_)), "{refused:?}");
    buffer.give_up(body, &refused).await;
}

async fn gaps_of(buffer: &Buffer, stream: Stream) -> Vec<(SeqRange, GapReason)> {
    let offers = buffer.offers().await.unwrap();
    let of_stream = offers.into_iter().filter(|o| o.stream == stream);
    let gaps = of_stream.flat_map(|o| o.gaps);
    gaps.map(|gap| (gap.range, gap.reason)).collect()
}

#[tokio::test]
async fn what_is_given_up_is_counted_at_once_numbered_ahead_of_the_next_and_one_gap() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = Buffer::open(dir.path(), tight(), clock.clone()).unwrap();
    let mut appended = buffer.appended();
    buffer.append(&segment(&*clock, 1, 1_000)).await.unwrap();
    for n in 0..3 {
        refuse(&buffer, &segment(&*clock, n, 300_000)).await;
    }
    let lost = async || buffer.stat().await.unwrap()[0].lost;
    assert_eq!(lost().await, 3);
    let after = buffer.append(&segment(&*clock, 2, 1_000)).await.unwrap();
    assert_eq!(after.seq, 5, "2 to 4 are those that were lost before it");
    let told = vec![(range(2, 4), GapReason::DiskFull)];
    assert_eq!(gaps_of(&buffer, Stream::Segment).await, told);
    assert_eq!(lost().await, 3, "not counted twice");
    // without a record after them they are told all the same, and whoever sends is woken
    refuse(&buffer, &segment(&*clock, 3, 300_000)).await;
    refuse(&buffer, &segment(&*clock, 4, 300_000)).await;
    appended.mark_unchanged();
    clock.advance(5_000);
    assert_eq!(lost().await, 5);
    assert!(appended.has_changed().unwrap());
    let told = [told, vec![(range(6, 7), GapReason::DiskFull)]].concat();
    assert_eq!(gaps_of(&buffer, Stream::Segment).await, told);
    // and what is refused just before the end
    refuse(&buffer, &segment(&*clock, 5, 300_000)).await;
    buffer.close().await;
    let buffer = Buffer::open(dir.path(), tight(), clock.clone()).unwrap();
    let told = vec![told[0], (range(6, 8), GapReason::DiskFull)];
    assert_eq!(gaps_of(&buffer, Stream::Segment).await, told, "coalesced");
    Contents::of_buffer(&buffer).await;
}

#[tokio::test]
async fn a_punch_that_is_refused_is_offered_again_and_is_no_loss() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut limits = tight();
    limits.min_free_bytes = u64::MAX;
    let buffer = Buffer::open(dir.path(), limits, clock.clone()).unwrap();
    let body = punches(&*clock, 1);
    let refused = buffer.append(&body).await.unwrap_err();
    assert!(matches!(refused, BufferError::Full(_)), "{refused:?}");
    buffer.close().await;
    let buffer = Buffer::open(dir.path(), tight(), clock.clone()).unwrap();
    assert_eq!(buffer.append(&body).await.unwrap().seq, 1);
    assert_eq!(gaps_of(&buffer, Stream::Attendance).await, []);
    assert_eq!(buffer.stat().await.unwrap()[0].lost, 0);
}

#[tokio::test]
async fn what_was_stored_although_it_was_refused_is_no_loss() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = Buffer::open(dir.path(), tight(), clock.clone()).unwrap();
    let body = segment(&*clock, 1, 1_000);
    buffer.append(&body).await.unwrap();
    let refused = BufferError::Disk("it said so, and was wrong".into());
    buffer.give_up(&body, &refused).await;
    assert_eq!(buffer.stat().await.unwrap()[0].lost, 0);
}

#[test]
fn losses_whose_commit_failed_are_told_once_wherever_it_ended() {
    for n in 0.. {
        let (dir, clock) = (in_memory(), clock());
        let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
        append(&mut store, &segment(&*clock, 1, 1_000)).unwrap();
        store.disk.steps = Steps::ending_after(n);
        store.index.set_steps(store.disk.steps.clone());
        for _ in 0..3 {
            store.losses.add(Stream::Segment, GapReason::DiskFull, 0);
        }
        let done = append(&mut store, &segment(&*clock, 2, 1_000));
        let mut losses = std::mem::take(&mut store.losses);
        drop(store);
        let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
        losses.settle(&store.lanes);
        store.losses = losses;
        append(&mut store, &segment(&*clock, 3, 1_000)).unwrap();
        let gaps = reasons(&mut store, Stream::Segment);
        assert_eq!(gaps.len(), 3, "ended after {n} steps: {gaps:?}");
        assert!(gaps.values().all(|reason| *reason == GapReason::DiskFull));
        if done.is_ok() {
            assert!(n > 4, "the test stopped nothing");
            break;
        }
    }
}

#[test]
fn a_full_card_loses_only_what_policy_drops_and_recovers_by_itself() {
    let test = "buffer::tests::limits::child_on_a_small_card";
    let Some(text) = run_again(test, CHILD, 24).unwrap() else {
        return;
    };
    assert!(text.contains("small card:"), "{text}");
    println!("{text}");
}
