//! Policy: who goes first, who is refused, and that it recovers by itself.

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

fn media_on_card(dir: &Path) -> u64 {
    let stores = ["snapshot", "segment"].map(|s| dir.join("buffer").join(s));
    let files = stores.iter().flat_map(|d| std::fs::read_dir(d).unwrap());
    files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn over_its_cap_the_oldest_video_goes_first_then_pictures_and_small_records_stay() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    for n in 0..10 {
        append(&mut store, &event(&*clock, &n.to_string())).unwrap();
        append(&mut store, &snapshot(&*clock, n, 5_000)).unwrap();
    }
    for n in 0..30 {
        append(&mut store, &segment(&*clock, n, 30_000)).unwrap();
        assert!(media_on_card(dir.path()) <= tight().media_bytes);
    }
    assert_eq!(held(&mut store, Stream::Event), 10);
    assert_eq!(
        held(&mut store, Stream::Snapshot),
        10,
        "video before pictures"
    );
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
    for n in 0..4 {
        append(&mut store, &segment(&*clock, n, 25_000)).unwrap();
    }
    for n in 0..4 {
        append(&mut store, &snapshot(&*clock, n, 25_000)).unwrap();
    }
    let lane = lane_of(store.epoch, Stream::Snapshot);
    store.acknowledge(lane, 4, &[]).unwrap();
    for n in 0..3 {
        append(&mut store, &segment(&*clock, 10 + n, 25_000)).unwrap();
    }
    assert_eq!(held(&mut store, Stream::Segment), 7);
    let gaps = reasons(&mut store, Stream::Snapshot);
    assert!(!gaps.is_empty());
    assert!(gaps.values().all(|r| *r == GapReason::EvictedAfterAck));
    assert!(store.stat().unwrap().iter().all(|lane| lane.lost == 0));
}

#[test]
fn small_streams_take_the_room_of_media_and_go_only_when_none_is_left() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    for n in 0..8 {
        append(&mut store, &segment(&*clock, n, 25_000)).unwrap();
    }
    let body = event(&*clock, &"x".repeat(4_000));
    let mut lost_first = None;
    for n in 1..=200 {
        append(&mut store, &body).unwrap();
        if lost_first.is_none() && !reasons(&mut store, Stream::Event).is_empty() {
            lost_first = Some(n);
            assert_eq!(held(&mut store, Stream::Segment), 0);
        }
    }
    // 320 KiB in all, records of a little more than 4 KB
    assert!((60..=80).contains(&lost_first.unwrap()), "{lost_first:?}");
    // video finds no room now, and drops nothing that is small
    let before = held(&mut store, Stream::Event);
    let refused = append(&mut store, &segment(&*clock, 1, 60_000));
    assert!(matches!(refused, Err(BufferError::Full(_))), "{refused:?}");
    assert_eq!(held(&mut store, Stream::Event), before);
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

    // a record of another boot
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
    assert!(media_on_card(dir.path()) <= tight().media_bytes);
    let offer = store.offers().remove(0);
    assert_eq!((offer.gaps.len(), offer.held.len()), (1, 1));
    assert!(store.stat().unwrap().iter().all(|l| l.lost == 0));
}

const CHILD: &str = "SCC_TEST_SMALL_CARD";

/// Not a test of its own: runs where a small tmpfs is mounted.
#[tokio::test]
async fn child_on_a_small_card() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let dir = Path::new(&dir);
    let clock = clock();
    // the caps promise more than the card has, and nothing is kept free: ENOSPC comes as it likes
    let limits = BufferLimits {
        media_bytes: 1 << 30,
        small_bytes: 1 << 30,
        media_hours: 24,
        min_free_bytes: 0,
    };
    let buffer = Buffer::open(dir, limits, clock.clone()).unwrap();
    let mut accepted = BTreeMap::new();
    let mut refused = 0;
    for n in 0..400u64 {
        let body = if n % 2 == 0 {
            segment(&*clock, n, 200_000)
        } else {
            event(&*clock, &format!("{n} {}", "x".repeat(10_000)))
        };
        match buffer.append(&body).await {
            Ok(a) => {
                let sum = Checksum::of(&body.encode());
                accepted.insert((lane_of(a.epoch, a.stream), a.seq), sum);
            }
            Err(BufferError::Full(_) | BufferError::Disk(_)) => refused += 1,
            Err(e) => panic!("{e}"),
        }
        clock.advance(2_000);
        if n == 200 {
            std::fs::write(dir.join("foreign"), vec![1; 64 << 20]).unwrap_err();
        }
        if n == 240 {
            std::fs::remove_file(dir.join("foreign")).unwrap();
        }
    }
    let body = event(&*clock, "there is room again");
    buffer.append(&body).await.unwrap();
    let contents = Contents::of_buffer(&buffer).await;
    println!("damage: {:?}", buffer.damage());
    for (key, sum) in &accepted {
        match (contents.held.get(key), contents.gaps.get(key)) {
            (Some(held), None) => assert_eq!(held, sum),
            (None, Some(GapReason::EvictedBySize)) => assert_eq!(key.0.stream, Stream::Segment),
            other => panic!("{key:?} is {other:?}"),
        }
    }
    println!("small card: {} accepted, {refused} refused", accepted.len());
}

#[test]
fn a_full_card_loses_only_what_policy_drops_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let test = "buffer::tests::limits::child_on_a_small_card";
    let script = "mount -t tmpfs -o size=24m none \"$SCC_TEST_SMALL_CARD\" && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        // root needs none, and where it is confined (a chroot) it may not make one
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(exe).args(["--exact", "--nocapture", test]);
    let output = command.env(CHILD, dir.path()).output();
    let output = output.expect("unshare (util-linux) is there");
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
    assert!(text.contains("small card:"), "{text}");
}
