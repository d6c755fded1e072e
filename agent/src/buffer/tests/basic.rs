//! Order, numbers, epochs, acknowledgements.

use super::*;
use crate::buffer::BufferError;

#[tokio::test]
async fn records_of_each_stream_are_numbered_from_one_and_come_back_in_order() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let mut bodies = Vec::new();
    for n in 1..=5 {
        let body = event(&*clock, &format!("event {n}"));
        let accepted = buffer.append(&body).await.unwrap();
        assert_eq!((accepted.stream, accepted.seq), (Stream::Event, n));
        bodies.push(body);
        let accepted = buffer.append(&snapshot(&*clock, n, 3_000)).await.unwrap();
        assert_eq!((accepted.stream, accepted.seq), (Stream::Snapshot, n));
    }
    let epoch = buffer.epoch().await.unwrap();
    let lane = lane_of(epoch, Stream::Event);
    let read = buffer.read(lane, range(2, 4), usize::MAX).await.unwrap();
    let decoded: Vec<_> = read
        .iter()
        .map(|r| (r.seq, RecordBody::decode(&r.body).unwrap()))
        .collect();
    let expected: Vec<_> = (2..=4).zip(bodies[1..4].to_vec()).collect();
    assert_eq!(decoded, expected);
    assert_eq!(read[0].wall_ms, NOW);
}

#[tokio::test]
async fn many_at_once_leave_no_hole_and_share_commits() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (buffer, body) = (buffer.clone(), event(&*clock, &n.to_string()));
        tasks.spawn(async move { buffer.append(&body).await.unwrap().seq });
    }
    let mut seqs = tasks.join_all().await;
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=200).collect::<Vec<_>>());
    assert_eq!(*buffer.appended().borrow(), 200);
}

#[tokio::test]
async fn a_reader_gets_at_least_one_record_and_stops_before_its_limit() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    for n in 0..6 {
        buffer.append(&snapshot(&*clock, n, 10_000)).await.unwrap();
    }
    let lane = lane_of(buffer.epoch().await.unwrap(), Stream::Snapshot);
    let seqs = async |from, max| {
        let read = buffer.read(lane, range(from, Seq::MAX), max).await.unwrap();
        read.into_iter().map(|r| r.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(1, 1).await, [1]);
    assert_eq!(seqs(2, 25_000).await, [2, 3]);
    assert_eq!(seqs(7, 25_000).await, [0; 0]);
}

#[tokio::test]
async fn everything_is_there_after_a_clean_stop_and_numbers_go_on() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    for n in 0..40 {
        buffer.append(&segment(&*clock, n, 20_000)).await.unwrap();
    }
    let epoch = buffer.epoch().await.unwrap();
    let lane = lane_of(epoch, Stream::Segment);
    buffer
        .acknowledge(lane, 10, vec![range(15, 15)])
        .await
        .unwrap();
    let (before, stat) = (
        Contents::of_buffer(&buffer).await,
        buffer.stat().await.unwrap(),
    );
    assert_eq!(stat[0].records, 29);
    assert!(matches!(
        Buffer::open(dir.path(), roomy(), clock.clone()),
        Err(BufferError::InUse(_))
    ));
    buffer.close().await;
    assert!(matches!(buffer.epoch().await, Err(BufferError::Closed)));

    let buffer = open(dir.path(), &clock);
    assert_eq!(buffer.damage(), None);
    assert_eq!(Contents::of_buffer(&buffer).await.held, before.held);
    assert_eq!(buffer.stat().await.unwrap(), stat);
    let accepted = buffer.append(&segment(&*clock, 99, 100)).await.unwrap();
    assert_eq!((accepted.epoch, accepted.seq), (epoch, 41));
}

#[tokio::test]
async fn depth_and_age_are_those_of_what_the_hub_has_not() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let mut sizes = Vec::new();
    for n in 0..4 {
        let body = event(&*clock, &"x".repeat(n));
        sizes.push(body.encode().len() as u64);
        buffer.append(&body).await.unwrap();
        clock.advance(1_000);
    }
    let lane = lane_of(buffer.epoch().await.unwrap(), Stream::Event);
    buffer
        .acknowledge(lane, 1, vec![range(3, 3)])
        .await
        .unwrap();
    let stat = buffer.stat().await.unwrap();
    assert_eq!(stat.len(), 1);
    assert_eq!((stat[0].next, stat[0].records, stat[0].lost), (5, 2, 0));
    assert_eq!(stat[0].bytes, sizes[1] + sizes[3]);
    assert_eq!(stat[0].oldest_ms, Some(NOW + 1_000));

    // more than was ever given, and things that make no sense, do no harm
    buffer
        .acknowledge(lane, 1_000, vec![range(9, 2)])
        .await
        .unwrap();
    let stat = buffer.stat().await.unwrap();
    assert_eq!(
        (stat[0].records, stat[0].bytes, stat[0].oldest_ms),
        (0, 0, None)
    );

    // a hub restored from yesterday's backup
    buffer.want_again(lane, vec![range(2, 500)]).await.unwrap();
    let stat = buffer.stat().await.unwrap();
    assert_eq!(stat[0].records, 3);
    assert_eq!(stat[0].bytes, sizes[1] + sizes[2] + sizes[3]);
    let read = buffer.read(lane, ALL, usize::MAX).await.unwrap();
    assert_eq!(read.len(), 4, "acknowledged records stay on the card");
}

#[tokio::test]
async fn a_new_epoch_numbers_from_one_and_the_old_one_is_still_held() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let old = buffer.append(&event(&*clock, "a")).await.unwrap();
    let epoch = buffer.begin_epoch("the card was cloned").await.unwrap();
    let new = buffer.append(&event(&*clock, "b")).await.unwrap();
    assert_eq!((new.epoch, new.seq), (epoch, 1));
    assert_ne!(old.epoch, epoch);
    buffer.close().await;
    let buffer = open(dir.path(), &clock);
    let contents = Contents::of_buffer(&buffer).await;
    assert_eq!(contents.held.len(), 2);
    assert_eq!(buffer.epoch().await.unwrap(), epoch);
    // once the hub has the old epoch, it is still offered as long as it is held
    let old = lane_of(old.epoch, Stream::Event);
    buffer.acknowledge(old, 1, vec![]).await.unwrap();
    assert_eq!(buffer.offers().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_record_that_no_hub_would_take_is_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let body = segment(&*clock, 1, scc_common::wire::MAX_BODY);
    assert!(matches!(
        buffer.append(&body).await,
        Err(BufferError::TooLarge(_))
    ));
    let body = segment(&*clock, 1, scc_common::wire::MAX_BODY - 1_000);
    assert_eq!(buffer.append(&body).await.unwrap().seq, 1);
}

#[tokio::test]
async fn another_process_can_look_without_touching() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    for n in 0..5 {
        buffer
            .append(&event(&*clock, &n.to_string()))
            .await
            .unwrap();
        clock.advance(1_000);
    }
    let lane = lane_of(buffer.epoch().await.unwrap(), Stream::Event);
    buffer.acknowledge(lane, 3, vec![]).await.unwrap();
    buffer.append(&event(&*clock, "5")).await.unwrap();
    let seen = crate::buffer::inspect::inspect(dir.path()).unwrap();
    assert!(seen.in_use);
    assert_eq!(seen.lanes.len(), 1);
    let told = &seen.lanes[0];
    assert_eq!(
        (told.lane, told.next, told.held, told.lost),
        (lane, 7, 6, 0)
    );
    assert_eq!(told.oldest_ms, Some(NOW + 3_000));
    buffer.close().await;
    assert!(!crate::buffer::inspect::inspect(dir.path()).unwrap().in_use);
}

#[tokio::test]
async fn the_buffer_knows_what_it_holds_by_its_bytes_in_whichever_epoch() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = open(dir.path(), &clock);
    let (old, other) = (segment(&*clock, 1, 500), segment(&*clock, 2, 500));
    assert!(!buffer.holds(&old).await.unwrap());
    buffer.append(&old).await.unwrap();
    buffer.begin_epoch("a test").await.unwrap();
    buffer.append(&snapshot(&*clock, 2, 500)).await.unwrap();
    for _ in 0..2 {
        assert!(buffer.holds(&old).await.unwrap());
        assert!(!buffer.holds(&other).await.unwrap());
    }
    buffer.close().await;
    let buffer = open(dir.path(), &clock);
    assert!(buffer.holds(&old).await.unwrap());
    buffer.close().await;
}
