//! The hub as one process: gate, ingest, live state and pages, put together and taken apart.
//!
//! Everything that can be wrong is found before anything is let in: files, certificates, addresses.
//! Stopped in the order of the way: pages first, then ingest (which commits and acknowledges what it
//! has), then the gate. If gate or ingest ends by itself the hub ends too and is started again by its
//! supervisor: agents send once more what was not acknowledged, so nothing is lost by it.

use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use scc_common::clock::{SharedClock, SystemClock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::fleet::{Door, Fleet};
use crate::gate::{self, Arrivals, Arrived, GateError};
use crate::ingest::{Ingest, IngestError, Limits, Notice, Status};
use crate::media::{Media, MediaError};
use crate::store::{Store, StoreError};
use crate::web::{self, WebError};

/// Payloads between gate and ingest; the gate's own charge bounds their bytes.
const ARRIVALS: usize = 16;
/// News kept for a slow listener, which then reads the database again.
const NOTICES: usize = 1_024;
/// How long each step of the stop may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the hub does not serve, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The state directory.
    #[error("{dir}: cannot be used as `state_dir`: {why}")]
    StateDir {
        /// The directory.
        dir: String,
        /// What the system said.
        why: String,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Pictures and video.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Where agents come in.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// What takes records in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// Where people come in.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The process itself.
    #[error("{0}")]
    Process(String),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`] if something cannot be started, or ended although nobody told it to.
pub async fn run(config: &Config) -> Result<(), ServeError> {
    let process = |e: std::io::Error| ServeError::Process(e.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(process)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(process)?;
    let metrics = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|e| ServeError::Process(format!("metrics: {e}")))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .map_err(|e| ServeError::StateDir {
            dir: config.state_dir.display().to_string(),
            why: e.to_string(),
        })?;
    let clock: SharedClock = SystemClock::shared();
    let store = Store::open(&config.database())?;
    let media = Media::open(&config.media())?;

    let (stop_web, stop_ingest, stop_gate) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (gate, arrivals, mut gate_task) =
        gate::start(&config.gate, Arc::clone(&clock), stop_gate.clone()).await?;
    let (notices, news) = broadcast::channel::<Arc<Notice>>(NOTICES);
    let (status, ingest_status) = watch::channel(Status::default());
    let (fleet, _) = Fleet::start(
        store.clone(),
        Door::of(&gate),
        news,
        Arc::clone(&clock),
        stop_gate.clone(),
    )
    .await?;
    let ingest = Ingest {
        arrivals: hand_over(arrivals),
        down: Arc::new(gate.clone()),
        store: store.clone(),
        media: media.clone(),
        spool: config.spool(),
        clock: Arc::clone(&clock),
        notices,
        status,
        stop: stop_ingest.clone(),
        limits: Limits::default(),
    };
    let mut ingest_task = tokio::spawn(ingest.run());
    let parts = web::Parts {
        store,
        fleet,
        media,
        clock,
        metrics,
        ingest: ingest_status,
        stop: stop_web.clone(),
    };
    let mut web = web::start(&config.web, parts)?;
    tracing::info!(gate = ?gate.address(), web = %web.address, "the hub serves");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let mut alive =
        tokio::time::interval(sd_notify::watchdog_enabled().map_or(PATIENCE, |every| every / 2));

    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = alive.tick() => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            ended = &mut gate_task => break flat(ended, "the gate"),
            ended = &mut ingest_task => break flat(ended, "ingest"),
            ended = &mut web.task => {
                break Err(ServeError::Process(format!("the pages have ended: {ended:?}")));
            }
        }
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("the hub stops");
    stop_web.cancel();
    let _ = tokio::time::timeout(PATIENCE, web.task).await;
    stop_ingest.cancel();
    if !ingest_task.is_finished() {
        let _ = tokio::time::timeout(PATIENCE, ingest_task).await;
    }
    stop_gate.cancel();
    if !gate_task.is_finished() {
        let _ = tokio::time::timeout(PATIENCE, gate_task).await;
    }
    ended
}

/// A task that ended without being told to is a failure even if it calls it none.
fn flat<E: Into<ServeError>>(
    ended: Result<Result<(), E>, tokio::task::JoinError>,
    who: &str,
) -> Result<(), ServeError> {
    match ended {
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(())) => Err(ServeError::Process(format!("{who} has ended"))),
        Err(error) => Err(ServeError::Process(format!("{who} has ended: {error}"))),
    }
}

/// Hands the gate's payloads to ingest one by one; when ingest does not take them, neither does this.
fn hand_over(mut arrivals: Arrivals) -> mpsc::Receiver<Arrived> {
    let (give, take) = mpsc::channel(ARRIVALS);
    tokio::spawn(async move {
        while let Some(arrived) = arrivals.recv().await {
            if give.send(arrived).await.is_err() {
                return;
            }
        }
    });
    take
}
