//! The life of one terminal's source: connect, visit, and again.
//!
//! Whatever breaks a [visit](super::visit) is named on the board, and the next visit reads the log
//! again, so nothing depends on what was missed in between.

use std::path::PathBuf;

use scc_common::clock::SharedClock;
use scc_common::id::AgentId;
use scc_common::record::{Cause, DeviceKind, State};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::cursor::Cursor;
use super::diagnosis::Diagnosis;
use super::fault::{Backoff, Finding, VisitError};
use super::pace::Pace;
use super::visit::Keeper;
use crate::capture::accept::Keep;
use crate::capture::board::Board;
use crate::capture::{Context, Source};
use crate::config::Terminal;
use crate::dial::{self, DialError};

/// A visit that lasted this long forgives the failures before it.
const STABLE: Duration = Duration::from_secs(60);

/// The source of one terminal.
#[derive(Debug)]
pub struct TerminalSource {
    agent: AgentId,
    config: Terminal,
    dir: PathBuf,
    pace: Pace,
}

impl TerminalSource {
    /// A source of this agent that keeps its cursor under `state_dir/terminals`.
    #[must_use]
    pub fn new(agent: AgentId, config: Terminal, state_dir: PathBuf) -> Self {
        Self::with_pace(agent, config, state_dir, Pace::default())
    }

    /// The same with other waits.
    #[must_use]
    pub fn with_pace(agent: AgentId, config: Terminal, state_dir: PathBuf, pace: Pace) -> Self {
        let dir = state_dir.join("terminals");
        Self {
            agent,
            config,
            dir,
            pace,
        }
    }

    /// Runs until `stop`, handing over to `accept`.
    pub async fn run_with<A: Keep>(
        self,
        accept: A,
        board: Board,
        clock: SharedClock,
        stop: CancellationToken,
    ) {
        board.declare(&self.config.id, DeviceKind::Terminal);
        let Some(cursor) = self.open_cursor(&board, &stop).await else {
            return;
        };
        let book = Book::new(
            accept,
            clock.clone(),
            self.config.id.clone(),
            self.config.utc_offset_min,
            cursor,
        );
        let diagnosis = Diagnosis::new(self.dir, self.config.id.as_str());
        let mut keeper = Keeper::new(
            self.agent,
            self.config,
            self.pace,
            board,
            clock,
            book,
            diagnosis,
        );
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let error = tokio::select! {
                () = stop.cancelled() => return,
                stream = connect(keeper.config(), &self.pace) => match stream {
                    Err(error) => error.into(),
                    Ok(stream) => match keeper.visit(stream, &stop).await {
                        Ok(()) => return,
                        Err(error) => error,
                    },
                },
            };
            if begun.elapsed() >= STABLE {
                backoff.reset();
            }
            let finding = error.finding();
            let wait = backoff.after(finding.cause, &self.pace);
            keeper.tell(&finding);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn open_cursor(&self, board: &Board, stop: &CancellationToken) -> Option<Cursor> {
        loop {
            let (dir, id) = (self.dir.clone(), self.config.id.to_string());
            let opened = tokio::task::spawn_blocking(move || Cursor::open(&dir, &id)).await;
            let error = match opened {
                Ok(Ok(cursor)) => return Some(cursor),
                Ok(Err(error)) => error.to_string(),
                Err(stopped) => stopped.to_string(),
            };
            let detail = format!(
                "the cursor in {} cannot be used: {error}",
                self.dir.display()
            );
            board.fault(
                &self.config.id,
                DeviceKind::Terminal,
                State::Down,
                Cause::BufferFull,
                detail,
            );
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(self.pace.refused) => {}
            }
        }
    }
}

impl Source for TerminalSource {
    fn run(self: Box<Self>, context: Context) -> futures::future::BoxFuture<'static, ()> {
        let Context {
            buffer,
            board,
            clock,
            stop,
        } = context;
        Box::pin(self.run_with(buffer, board, clock, stop))
    }
}

/// A connection to the terminal.
async fn connect(config: &Terminal, pace: &Pace) -> Result<TcpStream, DialError> {
    let addresses = dial::resolve(&config.host, config.port, pace.resolve).await?;
    let stream = dial::connect(&addresses, pace.connect).await?;
    prepare(&stream).map_err(|e| DialError::Offline(e.to_string()))?;
    Ok(stream)
}

/// Looks once whether a terminal can be read, and what it is. Disturbs whoever holds its session:
/// not for a terminal that a running agent reads.
///
/// # Errors
/// What is wrong, as the board would be told.
pub async fn probe(config: &Terminal) -> Result<String, Finding> {
    let looked = async {
        let pace = Pace::default();
        let stream = connect(config, &pace).await?;
        let (events, _unheard) = tokio::sync::mpsc::channel(super::session::EVENT_QUEUE);
        let mut session = super::session::Session::new(stream, pace, events);
        let opened = session.open(config.comm_key).await;
        let seen = match opened {
            Err(error) => Err(error),
            Ok(()) => session.sizes().await,
        };
        session.exit().await;
        seen.map_err(VisitError::from)
    };
    let sizes = looked.await.map_err(|error| error.finding())?;
    Ok(sizes.records.map_or_else(
        || format!("TCP {}", config.port),
        |records| format!("TCP {}, log {records}", config.port),
    ))
}

fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}
