//! Cameras: stills and segments of video over RTSP.
//!
//! Promises:
//! - One camera is one task here and one reader process ([`worker`]). A camera that is dead, silent,
//!   refusing or sends garbage, and a reader that crashes, cost that camera only.
//! - Every fault is named on the board, and the camera is tried again until it is well: it is back
//!   within five seconds of that.
//! - A still is a keyframe of its moment, told as soon as it is decoded. A segment is what the camera
//!   sent, not re-encoded, beginning with a keyframe; a reader's death loses its open fragment only,
//!   and so does the agent's ([`keep`]).
//! - A password leaves this process through one pipe and appears in no log, argument or environment.
//!
//! The way of a picture: [`reach`] looks whether anybody speaks RTSP there, [`reader`] starts the
//! process, [`protocol`] is what it says, [`assembly`] puts segments together, and what is complete
//! is [accepted](super::accept).

mod address;
mod assembly;
pub mod fault;
mod keep;
mod probe;
pub mod protocol;
mod reach;
mod reader;
mod retry;
mod session;
pub mod worker;

pub(crate) use address::{credentials_fit, host_and_port};
pub use probe::probe;
pub use reader::Program;

use std::path::{Path, PathBuf};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use scc_common::clock::SharedClock;
use scc_common::record::{DeviceKind, State};
use tokio_util::sync::CancellationToken;

use super::accept::Accept;
use super::board::Board;
use super::{Context, Source};
use crate::config;
use fault::Fault;
use keep::Keep;
use retry::Retry;
use session::Session;

/// The hidden subcommand under which this program is a reader process.
pub const WORKER_COMMAND: &str = "camera-worker";

/// What a camera needs around it.
#[derive(Debug, Clone)]
pub struct Surroundings<A> {
    /// Where records go.
    pub accept: A,
    /// Where its state is told.
    pub board: Board,
    /// The time.
    pub clock: SharedClock,
    /// It ends soon after this is cancelled.
    pub stop: CancellationToken,
}

/// One camera as a source.
#[derive(Debug)]
pub struct CameraSource {
    camera: config::Camera,
    /// Where the fragments of its open segment are kept.
    open_dir: PathBuf,
    program: Option<Program>,
}

impl CameraSource {
    /// Of this camera; its reader is this very program under [`WORKER_COMMAND`]. What is open is kept
    /// under `state_dir/open`.
    #[must_use]
    pub fn new(camera: config::Camera, state_dir: &Path) -> Self {
        Self {
            camera,
            open_dir: state_dir.join("open"),
            program: None,
        }
    }

    /// The same with another program as the reader: a test's executable is not an agent.
    #[must_use]
    pub fn with_program(mut self, program: Program) -> Self {
        self.program = Some(program);
        self
    }

    /// Runs until stopped.
    pub async fn run_with<A: Accept>(self, around: Surroundings<A>) {
        let camera = self.camera;
        around.board.declare(&camera.id, DeviceKind::Camera);
        let program = match self.program.map_or_else(Program::this, Ok) {
            Ok(program) => program,
            Err(e) => {
                let detail = format!("this program cannot find itself: {e}");
                let cause = Fault::Crashed.cause();
                around
                    .board
                    .fault(&camera.id, DeviceKind::Camera, State::Down, cause, detail);
                return around.stop.cancelled().await;
            }
        };
        let keep = Keep::new(&self.open_dir, camera.id.clone());
        tokio::select! {
            () = keep.recover(&around.accept) => {}
            () = around.stop.cancelled() => return,
        }
        let mut retry = Retry::default();
        let mut session = Session::new(&camera, &program, &around, &keep);
        while !around.stop.is_cancelled() {
            let Some(ended) = session.run().await else {
                return;
            };
            let accident = retry.failed(ended.played_ms);
            // a camera that hung up after a good session is tried at once; if it is gone, that
            // attempt names the cause, and if it is not, nobody needs to be woken
            if !(accident && ended.failure.fault == Fault::Ended) {
                around.board.fault(
                    &camera.id,
                    DeviceKind::Camera,
                    State::Down,
                    ended.failure.fault.cause(),
                    ended.failure.detail,
                );
            }
            let wait = tokio::time::sleep(retry.wait(rand::random()));
            tokio::select! {
                () = wait => {}
                () = around.stop.cancelled() => {}
            }
        }
    }
}

impl Source for CameraSource {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, ()> {
        let around = Surroundings {
            accept: context.buffer,
            board: context.board,
            clock: context.clock,
            stop: context.stop,
        };
        self.run_with(around).boxed()
    }
}
