//! One camera that is read, and what it hands over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use scc_agent::buffer::{Accepted, BufferError};
use scc_agent::capture::accept::Accept;
use scc_agent::capture::board::Board;
use scc_agent::capture::camera::{CameraSource, Program, Surroundings, WORKER_COMMAND};
use scc_agent::config::Camera;
use scc_common::clock::{Stamp, SystemClock};
use scc_common::id::{DeviceId, Epoch};
use scc_common::record::{Cause, Content, DeviceState, RecordBody, Segment, Snapshot, State};
use scc_tests::camera::{Size, footage};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// The promise: back within this of being well again.
pub(super) const BACK: Duration = Duration::from_secs(5);

/// Generous for a loaded machine; nothing depends on it being reached.
pub(super) const START: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) records: mpsc::UnboundedSender<RecordBody>,
    pub(super) full: Arc<AtomicBool>,
    /// Records that were refused and given up, so that they are counted.
    pub(super) given_up: Arc<AtomicU64>,
    /// Records that were refused.
    pub(super) refused: Arc<AtomicU64>,
}

impl Accept for Taken {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
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

    async fn give_up(&self, _: &RecordBody, _: &BufferError) {
        self.given_up.fetch_add(1, Ordering::SeqCst);
    }

    async fn holds(&self, _: &RecordBody) -> Result<bool, BufferError> {
        // that a record is not taken twice is tested against the buffer itself
        Ok(false)
    }
}

/// One camera that is read.
pub(super) struct Read {
    pub(super) id: DeviceId,
    pub(super) state: TempDir,
    pub(super) board: Board,
    pub(super) changes: mpsc::UnboundedReceiver<DeviceState>,
    pub(super) records: mpsc::UnboundedReceiver<RecordBody>,
    pub(super) full: Arc<AtomicBool>,
    pub(super) given_up: Arc<AtomicU64>,
    pub(super) refused: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<()>,
}

pub(super) fn a_camera(id: &str, url: &str) -> Camera {
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
pub(super) fn reader_of(id: &DeviceId) -> Program {
    Program {
        path: env!("CARGO_BIN_EXE_camera-run").into(),
        args: vec![WORKER_COMMAND.into(), id.to_string().into()],
    }
}

impl Read {
    pub(super) fn start(camera: Camera) -> Self {
        let program = reader_of(&camera.id);
        Self::start_with(camera, program)
    }

    pub(super) fn start_with(camera: Camera, program: Program) -> Self {
        let state = tempfile::tempdir().unwrap();
        Self::start_in(state, camera, program)
    }

    pub(super) fn start_in(state: TempDir, camera: Camera, program: Program) -> Self {
        let clock = SystemClock::shared();
        let (board, changes) = Board::new(clock.clone());
        let (sender, records) = mpsc::unbounded_channel();
        let (full, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (given_up, refused) = (Arc::default(), Arc::default());
        let around = Surroundings {
            accept: Taken {
                records: sender,
                full: Arc::clone(&full),
                given_up: Arc::clone(&given_up),
                refused: Arc::clone(&refused),
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
            given_up,
            refused,
            stop,
            task: tokio::spawn(source.run_with(around)),
        }
    }

    pub(super) fn now(&self) -> Option<DeviceState> {
        self.board
            .devices()
            .into_iter()
            .find(|d| d.device == self.id)
    }

    /// Waits until the board says this, and returns how long that took.
    pub(super) async fn until(
        &self,
        state: State,
        cause: Option<Cause>,
        within: Duration,
    ) -> Duration {
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

    pub(super) async fn up(&self, within: Duration) -> Duration {
        self.until(State::Up, None, within).await
    }

    pub(super) async fn down(&self, cause: Cause, within: Duration) -> Duration {
        self.until(State::Down, Some(cause), within).await
    }

    pub(super) async fn record(&mut self, within: Duration) -> RecordBody {
        match timeout(within, self.records.recv()).await {
            Ok(Some(body)) => body,
            _ => panic!(
                "{}: no record within {within:?}; the board says {:?}",
                self.id,
                self.now()
            ),
        }
    }

    pub(super) async fn segment(&mut self) -> (Stamp, Segment) {
        loop {
            let body = self.record(START).await;
            if let Content::Segment(segment) = body.content {
                return (body.stamp, segment);
            }
        }
    }

    pub(super) async fn still(&mut self) -> (Stamp, Snapshot) {
        loop {
            let body = self.record(START).await;
            if let Content::Snapshot(picture) = body.content {
                return (body.stamp, picture);
            }
        }
    }

    /// Waits until the open segment has a fragment that even a kill would not lose.
    pub(super) async fn until_a_fragment_is_kept(&self) {
        let file = self.state.path().join("open").join(self.id.as_str());
        let from = Instant::now();
        let has = |bytes: Vec<u8>| bytes.windows(4).any(|four| four == b"moof");
        while !std::fs::read(&file).is_ok_and(has) {
            assert!(from.elapsed() < START, "{}: no fragment came", self.id);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the board has told since the last call.
    pub(super) fn told(&mut self) -> Vec<(State, Option<Cause>)> {
        std::iter::from_fn(|| self.changes.try_recv().ok())
            .map(|d| (d.state, d.cause))
            .collect()
    }

    /// Ends it at once, as a kill of the agent does; what is left is what it had written.
    pub(super) async fn killed(self) -> TempDir {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        self.state
    }

    pub(super) async fn end(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.task)
            .await
            .expect("a source ends when it is told")
            .unwrap();
    }
}

pub(super) fn small() -> PathBuf {
    footage(Path::new(env!("CARGO_TARGET_TMPDIR")), Size::Small).unwrap()
}

/// Process ids of the readers of a camera.
pub(super) fn readers(id: &DeviceId) -> Vec<i32> {
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

pub(super) fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(super) async fn until_no_reader(id: &DeviceId) {
    let from = Instant::now();
    while !readers(id).is_empty() {
        assert!(
            from.elapsed() < Duration::from_secs(2),
            "a reader of {id} is left behind"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
