//! Cameras against the stand-in: real RTSP, real footage, real FFmpeg, a reader process each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of a test fail it as the test itself would"
)]

mod relay;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scc_agent::buffer::{Accepted, BufferError};
use scc_agent::capture::accept::Accept;
use scc_agent::capture::board::Board;
use scc_agent::capture::camera::{CameraSource, Program, Surroundings, WORKER_COMMAND};
use scc_agent::config::Camera;
use scc_common::clock::{Stamp, SystemClock};
use scc_common::id::{DeviceId, Epoch};
use scc_common::record::{Cause, Content, DeviceState, RecordBody, Segment, Snapshot, State};
use scc_tests::camera::{Auth, Size, StandInCamera, footage};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The promise: back within this of being well again.
const BACK: Duration = Duration::from_secs(5);

/// Generous for a loaded machine; nothing depends on it being reached.
const START: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
struct Taken {
    records: mpsc::UnboundedSender<RecordBody>,
    full: Arc<AtomicBool>,
}

impl Accept for Taken {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(BufferError::Full("the test says so".into()));
        }
        // nobody listens only when a test is over
        let _ = self.records.send(body.clone());
        Ok(Accepted {
            epoch: Epoch(1),
            stream: body.stream(),
            seq: 1,
        })
    }

    async fn holds(&self, _: &RecordBody) -> Result<bool, BufferError> {
        // that a record is not taken twice is tested against the buffer itself
        Ok(false)
    }
}

/// One camera that is read.
struct Read {
    id: DeviceId,
    state: TempDir,
    board: Board,
    changes: mpsc::UnboundedReceiver<DeviceState>,
    records: mpsc::UnboundedReceiver<RecordBody>,
    full: Arc<AtomicBool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn a_camera(id: &str, url: &str) -> Camera {
    Camera {
        id: DeviceId::new(id).unwrap(),
        url: url.into(),
        user: None,
        password: None,
        snapshot_every_s: 2,
        segments: true,
        segment_s: 4,
    }
}

/// The reader program, with the camera's id as an argument that it ignores and we find it by.
fn reader_of(id: &DeviceId) -> Program {
    Program {
        path: env!("CARGO_BIN_EXE_camera-run").into(),
        args: vec![WORKER_COMMAND.into(), id.to_string().into()],
    }
}

impl Read {
    fn start(camera: Camera) -> Self {
        let program = reader_of(&camera.id);
        Self::start_with(camera, program)
    }

    fn start_with(camera: Camera, program: Program) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self::start_in(state, camera, program)
    }

    fn start_in(state: TempDir, camera: Camera, program: Program) -> Self {
        let clock = SystemClock::shared();
        let (board, changes) = Board::new(clock.clone());
        let (sender, records) = mpsc::unbounded_channel();
        let (full, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let around = Surroundings {
            accept: Taken {
                records: sender,
                full: Arc::clone(&full),
            },
            board: board.clone(),
            clock,
            stop: stop.clone(),
        };
        let id = camera.id.clone();
        let source = CameraSource::new(camera, state.path()).with_program(program);
        Self {
            id,
            state,
            board,
            changes,
            records,
            full,
            stop,
            task: tokio::spawn(source.run_with(around)),
        }
    }

    fn now(&self) -> Option<DeviceState> {
        self.board
            .devices()
            .into_iter()
            .find(|d| d.device == self.id)
    }

    /// Waits until the board says this, and returns how long that took.
    async fn until(&self, state: State, cause: Option<Cause>, within: Duration) -> Duration {
        let from = Instant::now();
        loop {
            let now = self.now();
            if now
                .as_ref()
                .is_some_and(|d| d.state == state && d.cause == cause)
            {
                return from.elapsed();
            }
            assert!(
                from.elapsed() < within,
                "{}: {state:?} {cause:?} did not come within {within:?}; the board says {now:?}",
                self.id
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn up(&self, within: Duration) -> Duration {
        self.until(State::Up, None, within).await
    }

    async fn down(&self, cause: Cause, within: Duration) -> Duration {
        self.until(State::Down, Some(cause), within).await
    }

    async fn record(&mut self, within: Duration) -> RecordBody {
        match timeout(within, self.records.recv()).await {
            Ok(Some(body)) => body,
            _ => panic!(
                "{}: no record within {within:?}; the board says {:?}",
                self.id,
                self.now()
            ),
        }
    }

    async fn segment(&mut self) -> (Stamp, Segment) {
        loop {
            let body = self.record(START).await;
            if let Content::Segment(segment) = body.content {
                return (body.stamp, segment);
            }
        }
    }

    async fn still(&mut self) -> (Stamp, Snapshot) {
        loop {
            let body = self.record(START).await;
            if let Content::Snapshot(picture) = body.content {
                return (body.stamp, picture);
            }
        }
    }

    /// Waits until the open segment has a fragment that even a kill would not lose.
    async fn until_a_fragment_is_kept(&self) {
        let file = self.state.path().join("open").join(self.id.as_str());
        let from = Instant::now();
        let has = |bytes: Vec<u8>| bytes.windows(4).any(|four| four == b"moof");
        while !std::fs::read(&file).is_ok_and(has) {
            assert!(from.elapsed() < START, "{}: no fragment came", self.id);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the board has told since the last call.
    fn told(&mut self) -> Vec<(State, Option<Cause>)> {
        std::iter::from_fn(|| self.changes.try_recv().ok())
            .map(|d| (d.state, d.cause))
            .collect()
    }

    /// Ends it at once, as a kill of the agent does; what is left is what it had written.
    async fn killed(self) -> TempDir {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.state
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.task)
            .await
            .expect("a source ends when it is told")
            .unwrap();
    }
}

fn small() -> PathBuf {
    footage(Path::new(env!("CARGO_TARGET_TMPDIR")), Size::Small).unwrap()
}

fn ffprobe(bytes: &[u8], args: &[&str]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "csv=p=0"])
        .args(args)
        .arg(file.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.is_empty(),
        "ffprobe: {said}"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Decodes every frame, and counts the errors by failing on the first.
fn decodes(mp4: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(mp4).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-xerror", "-i"])
        .arg(file.path())
        .args(["-f", "null", "-"])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn assert_playable(segment: &Segment) {
    let frames = ffprobe(&segment.mp4, &["-show_entries", "packet=flags,dts_time"]);
    let frames: Vec<(f64, bool)> = frames
        .lines()
        .map(|line| {
            let mut fields = line.split(',');
            let at = fields.next().unwrap().parse().unwrap();
            (at, fields.next().unwrap().starts_with('K'))
        })
        .collect();
    assert_eq!(frames.len(), usize::try_from(segment.frames).unwrap());
    assert!(frames[0].1, "a segment begins with a keyframe");
    assert!(frames.windows(2).all(|w| w[0].0 < w[1].0), "time rises");
    let duration: f64 = ffprobe(&segment.mp4, &["-show_entries", "format=duration"])
        .parse()
        .unwrap();
    let told = f64::from(segment.duration_ms) / 1_000.0;
    assert!(
        (duration - told).abs() <= told * 0.01 + 0.04,
        "{duration} s, told {told} s"
    );
    decodes(&segment.mp4);
}

/// Process ids of the readers of a camera.
fn readers(id: &DeviceId) -> Vec<i32> {
    let wanted = format!("\0{WORKER_COMMAND}\0{id}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
        })
        .collect()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

async fn until_no_reader(id: &DeviceId) {
    let from = Instant::now();
    while !readers(id).is_empty() {
        assert!(
            from.elapsed() < Duration::from_secs(2),
            "a reader of {id} is left behind"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

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
