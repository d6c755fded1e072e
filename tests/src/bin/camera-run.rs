//! One camera of the agent without the agent: reads it and puts what it yields into a folder.
//!
//! `camera-run URL FOLDER STILL_SECONDS SEGMENT_SECONDS`, until SIGTERM. Used by the camera tests
//! (as the reader process) and by `tests/bench-camera.sh`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use scc_agent::buffer::{Accepted, BufferError};
use scc_agent::capture::accept::Accept;
use scc_agent::capture::board::Board;
use scc_agent::capture::camera::{CameraSource, Surroundings, WORKER_COMMAND, worker};
use scc_agent::config::Camera;
use scc_common::clock::SystemClock;
use scc_common::id::{DeviceId, Epoch};
use scc_common::record::{Content, RecordBody};
use tokio_util::sync::CancellationToken;

/// Numbered files in a folder.
#[derive(Debug, Clone)]
struct Folder {
    path: PathBuf,
    count: Arc<AtomicU64>,
}

impl Accept for Folder {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted {
            epoch: Epoch(1),
            stream: body.stream(),
            seq: number + 1,
        };
        let (bytes, ending) = match &body.content {
            Content::Snapshot(picture) => (&picture.jpeg, "jpg"),
            Content::Segment(segment) => (&segment.mp4, "mp4"),
            _ => return Ok(accepted),
        };
        let file = self.path.join(format!("{number:05}.{ending}"));
        tokio::fs::write(file, bytes)
            .await
            .map_err(|e| BufferError::Disk(e.to_string()))?;
        Ok(accepted)
    }

    async fn give_up(&self, body: &RecordBody, refused: &BufferError) {
        eprintln!("a {} was lost: {refused}", body.stream());
    }

    async fn holds(&self, _: &RecordBody) -> Result<bool, BufferError> {
        // the folder is made for one run
        Ok(false)
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == WORKER_COMMAND) {
        return Ok(worker::main());
    }
    let [url, folder, still, segment] = args.as_slice() else {
        anyhow::bail!("usage: camera-run URL FOLDER STILL_SECONDS SEGMENT_SECONDS");
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let camera = Camera {
        id: DeviceId::new("camera").context("an id")?,
        url: url.clone(),
        user: None,
        password: None,
        snapshot_every_s: still.parse()?,
        segments: true,
        segment_s: segment.parse()?,
    };
    let accept = Folder {
        path: folder.into(),
        count: Arc::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let clock = SystemClock::shared();
        let (board, _changes) = Board::new(clock.clone());
        let stop = CancellationToken::new();
        let state_dir = accept.path.clone();
        let around = Surroundings {
            accept,
            board,
            clock,
            stop: stop.clone(),
        };
        let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let source = tokio::spawn(CameraSource::new(camera, &state_dir).run_with(around));
        end.recv().await;
        stop.cancel();
        source.await?;
        Ok(ExitCode::SUCCESS)
    })
}
