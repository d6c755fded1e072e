//! What a kill of a reader or of the agent costs, and what it leaves behind.

use std::path::Path;
use std::time::Duration;

use scc_common::record::{Cause, Content, State};
use scc_tests::camera::StandInCamera;
use tokio::time::Instant;

use super::playable::assert_playable;
use super::read::{BACK, Read, START, a_camera, reader_of, readers, signal, small};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_reader_costs_its_open_fragment_only() {
    let camera = StandInCamera::start(&small(), &["bunuh"]).unwrap();
    let mut settings = a_camera("bunuh", &camera.url("bunuh"));
    settings.segment_s = 30;
    let mut read = Read::start(settings);
    read.up(START).await;
    read.told();
    // three keyframes: two whole fragments
    for _ in 0..3 {
        read.still().await;
    }
    let pids = readers(&read.id);
    assert_eq!(pids.len(), 1, "one reader a camera");
    signal(pids[0], rustix::process::Signal::KILL);
    let (_, segment) = read.segment().await;
    assert_playable(&segment);
    assert!(segment.frames >= 75, "{} frames", segment.frames);
    read.up(BACK).await;
    read.still().await;
    let told = read.told();
    assert_eq!(told[0], (State::Down, Some(Cause::Crashed)), "{told:?}");
    assert_ne!(readers(&read.id), pids);
    read.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_loses_its_open_fragment_only() {
    let camera = StandInCamera::start(&small(), &["mati"]).unwrap();
    let mut settings = a_camera("mati", &camera.url("mati"));
    settings.segment_s = 30;
    let mut read = Read::start(settings.clone());
    // three keyframes: two whole fragments
    let (first, _) = read.still().await;
    for _ in 1..3 {
        read.still().await;
    }
    let state = read.killed().await;
    let program = reader_of(&settings.id);
    let mut read = Read::start_in(state, settings, program);
    let body = read.record(START).await;
    let Content::Segment(segment) = body.content else {
        panic!("what was open comes before anything else");
    };
    assert_playable(&segment);
    assert!(segment.frames >= 75, "{} frames", segment.frames);
    let apart = body.stamp.mono_ms.abs_diff(first.mono_ms);
    assert!(apart < 1_000, "stamped {apart} ms beside its first frame");
    read.up(START).await;
    read.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_die_with_the_agent() {
    let camera = StandInCamera::start(&small(), &["yatim"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut agent = tokio::process::Command::new(env!("CARGO_BIN_EXE_camera-run"))
        .arg(camera.url("yatim"))
        .arg(folder.path())
        .args(["1", "10"])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let from = Instant::now();
    while std::fs::read_dir(folder.path()).unwrap().next().is_none() {
        assert!(from.elapsed() < START, "no picture came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let pid = agent.id().unwrap();
    let children = || -> Vec<i32> {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid_of: &i32| {
                std::fs::read_to_string(format!("/proc/{pid_of}/stat"))
                    .ok()
                    .and_then(|stat| {
                        stat.rsplit(')')
                            .next()?
                            .split_whitespace()
                            .nth(1)?
                            .parse()
                            .ok()
                    })
                    == Some(pid)
            })
            .collect()
    };
    let orphans = children();
    assert_eq!(orphans.len(), 1);
    agent.start_kill().unwrap();
    agent.wait().await.unwrap();
    let from = Instant::now();
    while Path::new(&format!("/proc/{}/exe", orphans[0]))
        .read_link()
        .is_ok()
    {
        assert!(
            from.elapsed() < Duration::from_secs(2),
            "an orphan reads on"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
