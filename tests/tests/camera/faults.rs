//! What is wrong with a camera is named, costs that camera only, and passes.

use std::time::Duration;

use scc_agent::capture::camera::Program;
use scc_common::record::{Cause, State};
use scc_tests::camera::{Auth, StandInCamera};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::read::{BACK, Read, START, a_camera, readers, signal, small};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_camera_is_stalled_and_comes_back() {
    let mut camera = StandInCamera::start(&small(), &["diam"]).unwrap();
    let read = Read::start(a_camera("diam", &camera.url("diam")));
    read.up(START).await;
    camera.silence("diam").unwrap();
    let took = read.down(Cause::Stalled, Duration::from_secs(10)).await;
    assert!(
        took > Duration::from_secs(3),
        "a short silence is no stall: {took:?}"
    );
    camera.resume("diam").unwrap();
    let took = read.up(BACK).await;
    eprintln!("back {took:?} after the silence");
    // half open: the kernel answers, the camera does not
    let pid = i32::try_from(camera.pid()).unwrap();
    signal(pid, rustix::process::Signal::STOP);
    read.down(Cause::Stalled, Duration::from_secs(10)).await;
    signal(pid, rustix::process::Signal::CONT);
    let took = read.up(BACK).await;
    eprintln!("back {took:?} after a half-open connection");
    read.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_loses_its_power_is_named_and_comes_back() {
    let mut camera = StandInCamera::start(&small(), &["mati"]).unwrap();
    let mut read = Read::start(a_camera("mati", &camera.url("mati")));
    read.up(START).await;
    read.told();
    camera.stop().unwrap();
    read.down(Cause::Refused, Duration::from_secs(10)).await;
    let mut told = read.told();
    assert!(told.len() <= 2, "each change is told once: {told:?}");
    // looked at so often in vain, it is waited for as long as for any
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", camera.port()));
    let listener = listener.await.unwrap();
    for _ in 0..4 {
        let looked = timeout(START, listener.accept()).await;
        looked.expect("it is not looked at any more").unwrap();
    }
    drop(listener);
    camera.start_again().unwrap();
    let took = read.up(BACK).await;
    eprintln!("back {took:?} after the power came back");
    told.extend(read.told());
    assert!(
        told.len() <= 5 && told.windows(2).all(|pair| pair[0] != pair[1]),
        "each change is told once: {told:?}"
    );
    read.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_used_and_kept_secret() {
    const SECRET: &str = "r@h:s/ia%";
    let mut camera = StandInCamera::start(&small(), &["kunci"]).unwrap();
    for auth in [
        Auth::Digest("operator", SECRET),
        Auth::Basic("operator", SECRET),
    ] {
        camera.auth(auth).unwrap();
        let mut wrong = a_camera("salah", &camera.url("kunci"));
        (wrong.user, wrong.password) = (Some("operator".into()), Some("keliru".into()));
        let wrong = Read::start(wrong);
        wrong.down(Cause::Unauthorized, START).await;
        let mut right = a_camera("benar", &camera.url("kunci"));
        (right.user, right.password) = (Some("operator".into()), Some(SECRET.into()));
        let right = Read::start(right);
        right.up(START).await;
        for pid in readers(&right.id) {
            for file in ["cmdline", "environ"] {
                let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(
                    !text.contains(SECRET),
                    "the password is in /proc/{pid}/{file}"
                );
            }
        }
        right.end().await;
        camera.auth(Auth::None).unwrap();
        wrong.up(BACK).await;
        wrong.end().await;
    }
}

/// A server that answers each connection with these bytes and then holds it open.
async fn server_of(answer: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut question = [0; 1_024];
                let _ = socket.read(&mut question).await;
                let _ = socket.write_all(&answer).await;
                while socket.read(&mut question).await.is_ok_and(|n| n > 0) {}
            });
        }
    });
    format!("rtsp://127.0.0.1:{port}/x")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_camera_is_named() {
    let camera = StandInCamera::start(&small(), &["ada"]).unwrap();
    let mut seed = 7_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed.to_be_bytes()[0]
    });
    let noise: Vec<u8> = noise.take(100_000).collect();
    // the first look takes it for RTSP, the parser must not
    let liar = [b"RTSP/1.0 200 OK\r\n".to_vec(), noise.clone()].concat();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let cases = [
        ("derau", server_of(noise).await, Cause::Garbage),
        (
            "web",
            server_of(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await,
            Cause::Garbage,
        ),
        ("bisu", server_of(Vec::new()).await, Cause::Stalled),
        (
            "tanpa-nama",
            "rtsp://kamera.invalid/x".into(),
            Cause::Unresolved,
        ),
        (
            "tutup",
            format!("rtsp://127.0.0.1:{closed_port}/x"),
            Cause::Refused,
        ),
        ("tanpa-jalur", camera.url("tidak-ada"), Cause::NoVideo),
    ];
    let reads: Vec<_> = cases
        .iter()
        .map(|(id, url, cause)| (Read::start(a_camera(id, url)), *cause))
        .collect();
    let liar = Read::start(a_camera("bohong", &server_of(liar).await));
    for (read, cause) in &reads {
        read.down(*cause, START).await;
    }
    // whatever the parser makes of it, it ends by itself, and it is no crash
    let from = Instant::now();
    while liar.now().is_none_or(|d| d.state != State::Down) {
        assert!(from.elapsed() < START, "{:?}", liar.now());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_ne!(liar.now().unwrap().cause, Some(Cause::Crashed));
    for (read, _) in reads {
        read.end().await;
    }
    liar.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_speaks_nonsense_is_a_crash_of_that_camera() {
    let camera = StandInCamera::start(&small(), &["omong"]).unwrap();
    for (id, script) in [
        (
            "omong-acak",
            "cat >/dev/null; exec head -c 100000 /dev/urandom",
        ),
        ("omong-nol", "cat >/dev/null; exec cat /dev/zero"),
        ("omong-habis", "cat >/dev/null; exit 3"),
        ("omong-tuli", "exit 0"),
    ] {
        let program = Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        };
        let read = Read::start_with(a_camera(id, &camera.url("omong")), program);
        read.down(Cause::Crashed, START).await;
        read.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_does_not_suffer_from_its_neighbours() {
    let mut camera = StandInCamera::start(&small(), &["sehat", "sakit", "rusak"]).unwrap();
    let mut well = Read::start(a_camera("sehat", &camera.url("sehat")));
    let ill = Read::start(a_camera("sakit", &camera.url("sakit")));
    let noise = Read::start(a_camera("rusak", &camera.url("rusak")));
    let gone = Read::start(a_camera("hilang", "rtsp://127.0.0.1:1/x"));
    for read in [&well, &ill, &noise] {
        read.up(START).await;
    }
    well.told();
    camera.silence("sakit").unwrap();
    camera.garble("rusak").unwrap();
    let mut segments = vec![well.segment().await];
    ill.down(Cause::Stalled, Duration::from_secs(10)).await;
    gone.down(Cause::Refused, START).await;
    for _ in 0..3 {
        segments.push(well.segment().await);
    }
    for pair in segments.windows(2) {
        let ((a_at, a), (b_at, _)) = (&pair[0], &pair[1]);
        // 25 a second, all of them, and the next begins where this ends
        assert!(
            a.frames.abs_diff(a.duration_ms / 40) <= 1,
            "{} frames in {} ms",
            a.frames,
            a.duration_ms
        );
        assert!((b_at.mono_ms - a_at.mono_ms).abs_diff(u64::from(a.duration_ms)) < 1_000);
    }
    assert!(well.told().is_empty(), "nothing happened to it");
    for read in [well, ill, noise, gone] {
        read.end().await;
    }
}
