//! The running agent: buffer, board, sources and uplink put together, and taken down in order.
//!
//! Promises: nothing is started before the configuration and the buffer are good; a source that
//! panics is told on the board and started again; a stop takes at most five seconds, also while the
//! card stalls, and loses nothing that the buffer has accepted; systemd hears a sign of life only
//! while the buffer and the uplink are alive. The card is never touched by the task that listens
//! for signals.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use scc_common::clock::SharedClock;
use scc_common::id::DeviceId;
use scc_common::record::{Cause, DeviceKind, Event, LaneHealth, LinkMode, State};
use sd_notify::NotifyState;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::buffer::{Buffer, BufferError, inspect, owner, sync_dir};
use crate::capture::attendance::TerminalSource;
use crate::capture::board::Board;
use crate::capture::camera::CameraSource;
use crate::capture::health::{HealthSource, Sensors};
use crate::capture::tally::TallySource;
use crate::capture::{Context, Source, recorder};
use crate::config::Config;
use crate::status::{EVERY_S, Status};
use crate::uplink::floor::Floor;
use crate::uplink::mqtt::Mqtt;
use crate::uplink::{Given, Handle, Uplink};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Before a source that has panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(5);
/// The buffer must answer within this, or systemd hears nothing.
const BUFFER_ANSWERS: Duration = Duration::from_secs(20);
/// The uplink must have shown a sign of life within this, milliseconds.
const UPLINK_ALIVE_MS: u64 = 60_000;

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory or the buffer in it cannot be used.
    #[error("the buffer cannot be opened: {0}")]
    Open(BufferError),
    /// The state directory cannot be made.
    #[error("the state directory {dir}: {why}")]
    StateDir {
        /// The directory.
        dir: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A signal handler cannot be installed.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    /// The store's thread has ended.
    #[error("the buffer has stopped by itself")]
    BufferStopped,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] if it could not start, or cannot go on; the supervisor restarts it.
pub async fn run(config: Config, clock: SharedClock) -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let buffer = tokio::select! {
        opened = open(&config, clock.clone()) => opened?,
        // whatever the opening has done so far, the next one finds it as after a crash
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let agent = Agent::start(config, clock, buffer);
    notify(NotifyState::Ready);
    tracing::info!(version = VERSION, "the agent runs");
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = agent.watch() => Err(error),
    };
    notify(NotifyState::Stopping);
    agent.stop().await;
    ended
}

/// Makes the state directory and opens the buffer in it, on a thread that may wait for the card.
async fn open(config: &Config, clock: SharedClock) -> Result<Buffer, RunError> {
    let (state_dir, limits) = (config.state_dir.clone(), config.buffer);
    let agent = config.agent.clone();
    let work = move || {
        let made = make_durable(&state_dir);
        made.map_err(|why| RunError::StateDir {
            dir: state_dir.display().to_string(),
            why,
        })?;
        let buffer = Buffer::open(&state_dir, limits, clock).map_err(RunError::Open)?;
        // only a card that is pulled out needs it: a full one must not keep the agent from running
        if let Err(error) = owner::note(&inspect::root(&state_dir), &agent) {
            tracing::warn!(%error, "whose buffer this is cannot be noted in it");
        }
        Ok(buffer)
    };
    let opened = tokio::task::spawn_blocking(work).await;
    opened.unwrap_or(Err(RunError::BufferStopped))
}

/// Makes a directory whose name survives a power cut, as do those of the ones above it that had to
/// be made.
fn make_durable(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        make_durable(above)?;
        std::fs::create_dir(dir)?;
        sync_dir(above)?;
    }
    Ok(())
}

fn notify(state: NotifyState<'_>) {
    // without systemd there is no socket and nothing to do
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// A started agent.
struct Agent {
    config: Config,
    clock: SharedClock,
    buffer: Buffer,
    board: Board,
    uplink: Handle,
    events: mpsc::UnboundedSender<Event>,
    sources: JoinSet<()>,
    stop_sources: CancellationToken,
    uplink_task: JoinHandle<()>,
    stop_uplink: CancellationToken,
    recorder: JoinHandle<()>,
}

impl Agent {
    fn start(config: Config, clock: SharedClock, buffer: Buffer) -> Self {
        let (board, changes) = Board::new(clock.clone());
        let (events, incoming) = mpsc::unbounded_channel();
        let poke = Arc::new(Notify::new());
        let (stop_sources, stop_uplink) = (CancellationToken::new(), CancellationToken::new());
        // nobody listens any more only while the agent stops
        let _ = events.send(Event::AgentStarted {
            version: VERSION.to_owned(),
        });
        let recorder = tokio::spawn(recorder::record(
            buffer.clone(),
            clock.clone(),
            Arc::clone(&poke),
            changes,
            incoming,
        ));
        let given = Given {
            agent: config.agent.clone(),
            version: VERSION.to_owned(),
            store: buffer.clone(),
            board: board.clone(),
            clock: clock.clone(),
            events: events.clone(),
            poke,
            stop: stop_uplink.clone(),
            alive: Arc::default(),
        };
        let dialer = Mqtt::new(
            config.agent.clone(),
            config.hub.clone(),
            config.identity.clone(),
        );
        let floor = Arc::new(Floor::open(config.state_dir.clone()));
        let dialer = dialer.timed(clock.clone(), Arc::clone(&floor));
        let (uplink, handle) = Uplink::new(given, dialer, rand::random());
        let uplink = uplink.within(config.budget.clone());
        let context = Context {
            buffer: buffer.clone(),
            board: board.clone(),
            clock: clock.clone(),
            stop: stop_sources.clone(),
        };
        let mut sources = sources(&config, &context, &handle);
        let stopped = stop_sources.clone();
        let keep = floor.keep(clock.clone());
        sources.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = keep => {}
            }
        });
        Self {
            uplink_task: tokio::spawn(uplink.run()),
            uplink: handle,
            config,
            clock,
            buffer,
            board,
            events,
            sources,
            stop_sources,
            stop_uplink,
            recorder,
        }
    }

    /// Writes the status file and tells systemd, for as long as there is good reason to; returns
    /// what makes going on pointless.
    async fn watch(&self) -> RunError {
        let every = Duration::from_secs(EVERY_S.into());
        let every = match sd_notify::watchdog_enabled() {
            Some(limit) => every.min(limit / 3),
            None => every,
        };
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut writing: Option<JoinHandle<()>> = None;
        loop {
            tick.tick().await;
            if let Some(damage) = self.buffer.damage() {
                let _ = self.events.send(Event::BufferDamaged {
                    records: damage.records,
                    detail: damage.detail.unwrap_or_default(),
                });
            }
            match tokio::time::timeout(BUFFER_ANSWERS, self.buffer.stat()).await {
                Ok(Ok(lanes)) => {
                    // while one writing waits for the card, others would only queue up behind it
                    if writing.as_ref().is_none_or(JoinHandle::is_finished) {
                        writing = Some(self.write_status(lanes));
                    }
                    let silent = self.clock.mono_ms().saturating_sub(self.uplink.alive_ms());
                    if self.uplink_task.is_finished() || silent > UPLINK_ALIVE_MS {
                        tracing::error!(silent_ms = silent, "the uplink gives no sign of life");
                    } else {
                        notify(NotifyState::Watchdog);
                    }
                }
                Ok(Err(BufferError::Closed)) => return RunError::BufferStopped,
                Ok(Err(error)) => tracing::error!(%error, "the buffer fails"),
                Err(_) => tracing::error!("the buffer does not answer"),
            }
        }
    }

    /// Writes the status file on a thread that may wait for the card.
    fn write_status(&self, lanes: Vec<LaneHealth>) -> JoinHandle<()> {
        let status = Status {
            written_ms: self.clock.wall_ms(),
            version: VERSION.to_owned(),
            agent: self.config.agent.clone(),
            hub: format!("{}:{}", self.config.hub.host, self.config.hub.port),
            link: self.uplink.status.borrow().clone(),
            clock: self.clock.quality(),
            lanes,
            devices: self.board.devices(),
        };
        let state_dir = self.config.state_dir.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = status.write(&state_dir) {
                tracing::warn!(%error, "the status file cannot be written");
            }
        })
    }

    /// Sources first, so that what they still hold is accepted; then the last event, the uplink,
    /// and the buffer last. Each step has its share of the five seconds: 1.8 + 0.6 + 2 × 0.6 + 0.8,
    /// and 0.3 for the threads of the runtime.
    async fn stop(mut self) {
        let within = |s: f64| Duration::from_secs_f64(s);
        self.stop_sources.cancel();
        let ended = async { while self.sources.join_next().await.is_some() {} };
        if tokio::time::timeout(within(1.8), ended).await.is_err() {
            tracing::warn!("a source did not end in time");
            self.sources.abort_all();
        }
        let _ = self.events.send(Event::AgentStopped {});
        drop(self.events);
        // the recorder ends when every sender is gone: ours here, the sources' and the uplink's with them
        drop(self.board);
        let mut status = self.uplink.status.clone();
        status.mark_unchanged();
        // the hub should hear of it, if it hears anything at all
        let connected = status.borrow().mode != LinkMode::Down;
        let told = async {
            let _ = status.changed().await;
        };
        if connected {
            let _ = tokio::time::timeout(within(0.6), told).await;
        }
        self.stop_uplink.cancel();
        for task in [&mut self.uplink_task, &mut self.recorder] {
            if tokio::time::timeout(within(0.6), &mut *task).await.is_err() {
                task.abort();
            }
        }
        if tokio::time::timeout(within(0.8), self.buffer.close())
            .await
            .is_err()
        {
            tracing::warn!("the buffer did not close in time; what it had accepted is durable");
        }
        tracing::info!("the agent has stopped");
    }
}

/// Starts every source, each under its own supervisor.
fn sources(config: &Config, context: &Context, uplink: &Handle) -> JoinSet<()> {
    let mut sources = JoinSet::new();
    for camera in config.cameras.clone() {
        context.board.declare(&camera.id, DeviceKind::Camera);
        let device = Of::Device(camera.id.clone(), DeviceKind::Camera);
        let state_dir = config.state_dir.clone();
        let make =
            move || Box::new(CameraSource::new(camera.clone(), &state_dir)) as Box<dyn Source>;
        sources.spawn(supervise(device, make, context.clone()));
    }
    for terminal in config.terminals.clone() {
        context.board.declare(&terminal.id, DeviceKind::Terminal);
        let device = Of::Device(terminal.id.clone(), DeviceKind::Terminal);
        let (agent, state_dir) = (config.agent.clone(), config.state_dir.clone());
        let make = move || {
            let source = TerminalSource::new(agent.clone(), terminal.clone(), state_dir.clone());
            Box::new(source) as Box<dyn Source>
        };
        sources.spawn(supervise(device, make, context.clone()));
    }
    let every = Duration::from_secs(config.health_every_s.into());
    let (state_dir, status) = (config.state_dir.clone(), uplink.status.clone());
    let make = move || {
        let sensors = Sensors::default();
        let source = HealthSource::new(every, state_dir.clone(), status.clone(), sensors);
        Box::new(source) as Box<dyn Source>
    };
    sources.spawn(supervise(Of::Box("health"), make, context.clone()));
    let state_dir = config.state_dir.clone();
    let make = move || Box::new(TallySource::new(&state_dir)) as Box<dyn Source>;
    sources.spawn(supervise(Of::Box("tally"), make, context.clone()));
    sources
}

/// What a source is of.
enum Of {
    /// A device, which is at fault when its reader ends.
    Device(DeviceId, DeviceKind),
    /// The box itself; what is read of it.
    Box(&'static str),
}

/// Runs a source until it is told to stop; a source that panics or returns is started again.
async fn supervise(of: Of, make: impl Fn() -> Box<dyn Source>, context: Context) {
    let name = match &of {
        Of::Device(id, _) => id.as_str(),
        Of::Box(what) => what,
    };
    while !context.stop.is_cancelled() {
        // a set, so that the source ends with its supervisor
        let mut running = JoinSet::new();
        running.spawn(make().run(context.clone()));
        let ended = running.join_next().await;
        if context.stop.is_cancelled() {
            return;
        }
        let why = match ended {
            Some(Err(error)) if error.is_panic() => "its reader in the agent panicked",
            _ => "its reader in the agent ended",
        };
        tracing::error!(source = name, why, "a source is started again");
        if let Of::Device(id, kind) = &of {
            context
                .board
                .fault(id, *kind, State::Down, Cause::Crashed, why);
        }
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = tokio::time::sleep(AFTER_PANIC) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::BoxFuture;
    use scc_common::clock::SystemClock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Clumsy {
        tries: Arc<AtomicU32>,
        ran: Arc<Notify>,
    }

    impl Source for Clumsy {
        fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, ()> {
            async move {
                assert!(
                    self.tries.fetch_add(1, Ordering::SeqCst) > 0,
                    "the first time goes wrong"
                );
                self.ran.notify_one();
                context.stop.cancelled().await;
            }
            .boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_panics_is_named_and_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::shared();
        let (board, mut changes) = Board::new(clock.clone());
        let buffer = Buffer::open(
            dir.path(),
            crate::config::BufferLimits::default(),
            clock.clone(),
        )
        .unwrap();
        let context = Context {
            buffer: buffer.clone(),
            board,
            clock,
            stop: CancellationToken::new(),
        };
        let (tries, ran) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let device = Of::Device(DeviceId::new("loket").unwrap(), DeviceKind::Camera);
        let (t, r) = (Arc::clone(&tries), Arc::clone(&ran));
        let make = move || {
            Box::new(Clumsy {
                tries: Arc::clone(&t),
                ran: Arc::clone(&r),
            }) as Box<dyn Source>
        };
        let stop = context.stop.clone();
        let task = tokio::spawn(supervise(device, make, context));
        let state = changes.recv().await.unwrap();
        assert_eq!(
            (state.state, state.cause),
            (State::Down, Some(Cause::Crashed))
        );
        tokio::time::timeout(Duration::from_secs(30), ran.notified())
            .await
            .expect("it was not started again");
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(1), task)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 2);
        buffer.close().await;
    }
}
