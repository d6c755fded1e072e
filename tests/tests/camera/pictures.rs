//! What is recorded is what the camera showed, and when.

use std::sync::atomic::Ordering;

use scc_common::record::{Cause, State};
use scc_tests::camera::StandInCamera;

use super::playable::{assert_playable, ffprobe};
use super::read::{Read, START, a_camera, small, until_no_reader};
use super::relay;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_and_stills_are_what_the_camera_showed() {
    let camera = StandInCamera::start(&small(), &["pintu"]).unwrap();
    let mut read = Read::start(a_camera("isi", &camera.url("pintu")));
    let (first_still, picture) = read.still().await;
    assert_eq!(
        (picture.width, picture.height, picture.cadence_s),
        (640, 480, 2)
    );
    let seen = ffprobe(
        &picture.jpeg,
        &["-show_entries", "stream=codec_name,width,height"],
    );
    assert_eq!(seen, "mjpeg,640,480");
    assert!(
        read.board.stills().contains_key(&read.id),
        "the newest still is on the board"
    );
    assert!(read.now().unwrap().last_good_ms.is_some());

    let (a_at, a) = read.segment().await;
    let (b_at, b) = read.segment().await;
    for segment in [&a, &b] {
        assert_playable(segment);
        assert_eq!((segment.width, segment.height), (768, 576));
        assert!(segment.codec.starts_with("avc1.4d40"), "{}", segment.codec);
        assert!(
            (4_000..=6_100).contains(&segment.duration_ms),
            "{}",
            segment.duration_ms
        );
    }
    // stamped on arrival: the second begins where the first ended
    let apart = b_at.mono_ms - a_at.mono_ms;
    assert!(
        apart.abs_diff(u64::from(a.duration_ms)) < 500,
        "{apart} ms apart, {} ms long",
        a.duration_ms
    );
    assert!(first_still.mono_ms.abs_diff(a_at.mono_ms) < 500);
    // what was open when it stops is not lost, and nobody is left behind: the next keyframe ends the
    // first fragment of the third segment, just after it has made a picture
    read.still().await;
    read.until_a_fragment_is_kept().await;
    let (id, stop) = (read.id.clone(), read.stop.clone());
    stop.cancel();
    let (_, last) = read.segment().await;
    assert_playable(&last);
    read.end().await;
    until_no_reader(&id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_by_an_hour_leaves_whole_segments() {
    let camera = StandInCamera::start(&small(), &["lompat"]).unwrap();
    let port = relay::jumping_clock(camera.port()).await;
    let mut read = Read::start(a_camera(
        "lompat",
        &format!("rtsp://127.0.0.1:{port}/lompat"),
    ));
    for _ in 0..3 {
        let (_, segment) = read.segment().await;
        assert_playable(&segment);
        assert!(
            (4_000..=6_500).contains(&segment.duration_ms),
            "{} ms",
            segment.duration_ms
        );
        let wall = segment.frames * 40;
        assert!(
            segment.duration_ms.abs_diff(wall) < 1_000,
            "{} ms of {} frames",
            segment.duration_ms,
            segment.frames
        );
    }
    let told = read.told();
    assert!(
        told.iter().all(|(state, _)| *state != State::Down),
        "{told:?}"
    );
    read.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_drops_and_says_so() {
    let camera = StandInCamera::start(&small(), &["penuh"]).unwrap();
    let mut read = Read::start(a_camera("penuh", &camera.url("penuh")));
    read.still().await;
    read.full.store(true, Ordering::SeqCst);
    read.until(State::Degraded, Some(Cause::BufferFull), START)
        .await;
    let shown = read.board.stills()[&read.id].stamp;
    read.full.store(false, Ordering::SeqCst);
    read.up(START).await;
    let (next, _) = read.still().await;
    assert!(next.mono_ms > shown.mono_ms);
    let counts = [&read.refused, &read.given_up].map(|n| n.load(Ordering::SeqCst));
    assert!(counts[0] > 0, "nothing was refused");
    assert_eq!(
        counts[0], counts[1],
        "each that was refused is counted as lost"
    );
    read.end().await;
}
