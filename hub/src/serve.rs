//! The hub as one process: gate, ingest, live state and pages, put together and taken apart.
//!
//! Everything that can be wrong is found before anything is let in: files, certificates, addresses.
//! Stopped in the order of the way: pages first, then ingest (which commits and acknowledges what it
//! has), then the gate. If gate or ingest ends by itself the hub ends too and is started again by its
//! supervisor: agents send once more what was not acknowledged, so nothing is lost by it.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use scc_common::clock::{SharedClock, SystemClock};
use scc_common::config::ConfigError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::compare;
use crate::config::Config;
use crate::fleet::{Door, Fleet};
use crate::gate::{self, GateError};
use crate::ingest::{Ingest, IngestError, Limits, Notice, Status};
use crate::lock::{self, LockError};
use crate::media::{Media, MediaError};
use crate::store::{Store, StoreError};
use crate::web::{self, WebError};

/// News kept for a slow listener, which then reads the database again.
const NOTICES: usize = 1_024;
/// How long each step of the stop may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the hub does not serve, or no longer does.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A line of `hub.toml` names something that cannot be used.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Another process writes the ledger.
    #[error(transparent)]
    Lock(#[from] LockError),
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
    let clock: SharedClock = SystemClock::shared();
    let (gate, web) = open(config, &clock).await?;
    let _lock = lock::take(&config.state_dir)?;
    let store = Store::open(&config.database())?;
    let media = Media::open(&config.media())?;

    let (stop_web, stop_ingest, stop_gate) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let files = gate.told();
    let (gate, arrivals, mut gate_task) = gate.start(stop_gate.clone()).await?;
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
        arrivals: arrivals.queue(),
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
    let alive = store.clone();
    let missing = compare::start(
        store.clone(),
        fleet.clone(),
        Arc::clone(&clock),
        stop_web.clone(),
    );
    let parts = web::Parts {
        store,
        fleet,
        media,
        clock,
        metrics,
        ingest: ingest_status,
        missing,
        files,
        stop: stop_web.clone(),
    };
    let mut web = web.serve(parts)?;
    tracing::info!(gate = %gate.address(), web = %web.address, "the hub serves");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let pulse = tokio::spawn(pulse(alive));

    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = &mut gate_task => flat(ended, "the gate"),
        ended = &mut ingest_task => flat(ended, "ingest"),
        ended = &mut web.task => {
            Err(ServeError::Process(format!("the pages have ended: {ended:?}")))
        }
    };
    pulse.abort();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("the hub stops");
    stop_web.cancel();
    if !web.task.is_finished() {
        let _ = tokio::time::timeout(PATIENCE, web.task).await;
    }
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

/// Tells the supervisor that the hub lives, for as long as its one writer answers: a hub that hangs in
/// its database is started again. A full disk is no reason; starting again would not empty it.
async fn pulse(store: Store) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut every = tokio::time::interval(limit / 3);
    loop {
        every.tick().await;
        if store.writer_answers().await.is_err() {
            return;
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    }
}

/// Looks at every file and takes both addresses, and only then makes the state directory: a wrong
/// `hub.toml` leaves nothing behind.
async fn open(
    config: &Config,
    clock: &SharedClock,
) -> Result<(gate::Opened, web::Opened), ServeError> {
    let gate = gate::open(&config.gate, Arc::clone(clock))
        .await
        .map_err(|error| blame(config, error.file(), &error).unwrap_or_else(|| error.into()))?;
    let web = web::open(&config.web)
        .map_err(|error| blame(config, error.file(), &error).unwrap_or_else(|| error.into()))?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .map_err(|e| {
            let dir = &config.state_dir;
            let why = format!("{} cannot be made: {e}", dir.display());
            blame(config, Some(dir), &why).unwrap_or(ServeError::Process(why))
        })?;
    Ok((gate, web))
}

/// The complaint about a file as one about the line of `hub.toml` that names it.
fn blame(
    config: &Config,
    file: Option<&Path>,
    complaint: &impl std::fmt::Display,
) -> Option<ServeError> {
    let error = config.blame(file?, &complaint.to_string())?;
    Some(error.into())
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
