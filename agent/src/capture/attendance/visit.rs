//! One visit to a terminal.
//!
//! Open the session, identify the terminal, measure its clock, read the log, ask for live events,
//! and then stay: an event is handed over at once and followed by another read of the log; the log
//! is read at least every `full_read_every_s`; a quiet session is probed. The terminal is never
//! disabled, and the session is left properly on every path.

use std::convert::Infallible;
use std::pin::pin;

use bytes::Bytes;
use scc_common::clock::{ClockQuality, SharedClock};
use scc_common::id::AgentId;
use scc_common::record::{Cause, DeviceKind, State};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::book::{Book, Visit};
use super::command::Opt;
use super::diagnosis::Diagnosis;
use super::fault::{Finding, VisitError};
use super::pace::Pace;
use super::pull::{PullError, Pulled, pull};
use super::session::{EVENT_QUEUE, Session, SessionError};
use super::time::{DAY_S, LocalS, decode, local_s, wall_ms};
use crate::buffer::BufferError;
use crate::capture::accept::Keep;
use crate::capture::board::Board;
use crate::config::Terminal;

/// A drift beyond this is told, milliseconds.
const DRIFT_ALARM_MS: u64 = 60_000;
/// A log that takes long to read is not read again before this many times its duration.
const REST_FACTOR: u32 = 4;

/// What a source keeps from visit to visit.
pub struct Keeper<A> {
    agent: AgentId,
    config: Terminal,
    pace: Pace,
    board: Board,
    clock: SharedClock,
    book: Book<A>,
    diagnosis: Diagnosis,
    serial: String,
    drift_ms: Option<i64>,
    /// The terminal's clock as last read.
    device_s: Option<LocalS>,
    /// What the last read found wrong.
    problem: Option<Finding>,
}

/// When what is to be done next.
struct Due {
    read: Instant,
    probe: Instant,
    /// A large log gets a rest between two reads.
    rested: Instant,
}

impl Due {
    fn read_soon(&mut self, wait: Duration) {
        let soon = (Instant::now() + wait).max(self.rested);
        self.read = soon.min(self.read);
    }
}

/// How a read of the log ended.
#[derive(Clone, Copy)]
enum Read {
    /// Handed over, this many records.
    Whole(u32),
    /// Worth another try soon.
    Again(Duration),
}

impl<A: Keep> Keeper<A> {
    /// Nothing is known yet.
    pub fn new(
        agent: AgentId,
        config: Terminal,
        pace: Pace,
        board: Board,
        clock: SharedClock,
        book: Book<A>,
        diagnosis: Diagnosis,
    ) -> Self {
        Self {
            agent,
            config,
            pace,
            board,
            clock,
            book,
            diagnosis,
            serial: String::new(),
            drift_ms: None,
            device_s: None,
            problem: None,
        }
    }

    /// Where the terminal is.
    pub fn config(&self) -> &Terminal {
        &self.config
    }

    /// Visits over a fresh connection until something breaks.
    ///
    /// # Errors
    /// What broke; `Ok` only when told to stop.
    pub async fn visit<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: S,
        stop: &CancellationToken,
    ) -> Result<(), VisitError> {
        let (events, mut queue) = mpsc::channel(EVENT_QUEUE);
        let mut session = Session::new(stream, self.pace, events);
        let outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            outcome = self.stay(&mut session, &mut queue) => outcome.map(|never| match never {}),
        };
        session.exit().await;
        outcome
    }

    async fn stay<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session<S>,
        queue: &mut mpsc::Receiver<Bytes>,
    ) -> Result<Infallible, VisitError> {
        match session.open(self.config.comm_key).await {
            Err(SessionError::Closed | SessionError::Io(_)) => return Err(VisitError::Dropped),
            other => other?,
        }
        self.identify(session).await?;
        self.measure(session).await?;
        let every = Duration::from_secs(self.config.full_read_every_s.into());
        let now = Instant::now();
        let mut due = Due {
            read: now,
            probe: now + self.pace.keep_alive,
            rested: now,
        };
        let mut listening = false;
        loop {
            if due.read <= Instant::now() {
                let begun = Instant::now();
                let read = self.read(session, queue).await?;
                let ended = Instant::now();
                due.rested = ended + (ended - begun) * REST_FACTOR;
                due.read = ended + every;
                if let Read::Again(wait) = read {
                    due.read_soon(wait.min(every));
                }
                if !listening {
                    listening = true;
                    if !session.listen().await? {
                        tracing::info!(device = %self.config.id, "this firmware announces no punches; only its log is read");
                    }
                    // whoever punched between the read and this moment was not announced
                    let now = session.sizes().await?.records;
                    if matches!((read, now), (Read::Whole(n), Some(now)) if n != now) {
                        due.read_soon(self.pace.settle);
                    }
                }
            }
            tokio::select! {
                Some(data) = queue.recv() => {
                    self.live(&data).await;
                    due.read_soon(self.pace.settle);
                }
                broken = session.pump() => match broken? {},
                () = sleep_until(due.probe.min(due.read)) => {}
            }
            if due.probe <= Instant::now() {
                self.measure(session).await?;
                due.probe = Instant::now() + self.pace.keep_alive;
                self.show();
            }
        }
    }

    /// The serial number is the terminal's identity; a rebranded unit without one is known by its
    /// network address, and one without either by its place in the register. The hub keeps punches
    /// of the whole fleet under this identity, so it must not be the same at two sites: a number
    /// that a factory left blank or at zero is none.
    async fn identify<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session<S>,
    ) -> Result<(), SessionError> {
        let mut serial = session
            .option(Opt::SerialNumber)
            .await?
            .filter(|n| is_number(n));
        if serial.is_none() {
            let mac = session.option(Opt::Mac).await?.filter(|n| is_number(n));
            serial = mac.map(|mac| format!("mac:{mac}"));
        }
        let serial = serial.unwrap_or_else(|| format!("device:{}/{}", self.agent, self.config.id));
        if serial != self.serial {
            let firmware = session.version().await?;
            let model = session.option(Opt::DeviceName).await?;
            let board = session.option(Opt::Platform).await?;
            tracing::info!(device = %self.config.id, serial, firmware, model, board, "terminal identified");
            self.serial = serial;
        }
        Ok(())
    }

    /// Measures the terminal's clock against ours at the middle of the exchange.
    async fn measure<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session<S>,
    ) -> Result<(), SessionError> {
        let before = self.clock.wall_ms();
        let encoded = session.time().await?;
        let after = self.clock.wall_ms();
        self.device_s = encoded.and_then(decode);
        self.drift_ms = self
            .device_s
            .filter(|_| self.clock.quality() > ClockQuality::Unconfirmed)
            .map(|s| wall_ms(s, self.config.utc_offset_min) - before.midpoint(after));
        Ok(())
    }

    fn facts(&self) -> Visit {
        let ours = (self.clock.quality() > ClockQuality::Unconfirmed)
            .then(|| local_s(self.clock.wall_ms(), self.config.utc_offset_min));
        // a terminal whose clock runs ahead has punches from its own future
        let newest = ours.max(self.device_s);
        Visit {
            serial: self.serial.clone(),
            drift_ms: self.drift_ms,
            newest: newest.map_or(LocalS::MAX, |s| s + DAY_S),
        }
    }

    async fn read<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        session: &mut Session<S>,
        queue: &mut mpsc::Receiver<Bytes>,
    ) -> Result<Read, VisitError> {
        let facts = self.facts();
        let pulled = {
            let mut pull = pin!(pull(session, facts.newest));
            loop {
                tokio::select! {
                    pulled = &mut pull => break pulled,
                    Some(data) = queue.recv() => self.live(&data).await,
                }
            }
        };
        let pulled = match pulled {
            Ok(pulled) => pulled,
            Err(PullError::Session(error)) => return Err(error.into()),
            Err(PullError::Format { error, body }) => {
                self.diagnosis.unknown_log(&body).await;
                self.problem = Some(Finding {
                    state: State::Down,
                    cause: Cause::UnknownFormat,
                    detail: error.to_string(),
                });
                self.show();
                return Ok(Read::Again(self.pace.reread));
            }
        };
        if let Err(error) = self.book.settle().await {
            self.refused(&error);
            return Ok(Read::Again(self.pace.refused));
        }
        let plan = self.book.plan(&facts, &pulled);
        self.diagnosis.set_aside(&plan.set_aside).await;
        let mut delivery = self.book.begin(&pulled, plan).await;
        loop {
            match self.book.step(&facts, &pulled, &mut delivery).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.refused(&error);
                    return Ok(Read::Again(self.pace.refused));
                }
            }
            session.pump_ready().await?;
            while let Ok(data) = queue.try_recv() {
                self.live(&data).await;
            }
        }
        self.problem = shortfall(&pulled);
        self.show();
        Ok(if self.problem.is_some() {
            Read::Again(self.pace.reread)
        } else {
            Read::Whole(pulled.records)
        })
    }

    async fn live(&mut self, data: &[u8]) {
        match self.book.live(&self.facts(), data).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(device = %self.config.id, bytes = data.len(), "an event that is no plausible punch; the log will tell");
            }
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&mut self, error: &BufferError) {
        self.problem = Some(Finding {
            state: State::Degraded,
            cause: Cause::BufferFull,
            detail: error.to_string(),
        });
        self.show();
    }

    /// Tells the board how the terminal is while the session stands.
    fn show(&self) {
        let drift = self.drift_ms.filter(|d| d.unsigned_abs() > DRIFT_ALARM_MS);
        match (&self.problem, drift) {
            (Some(problem), _) => self.tell(problem),
            (None, Some(drift)) => self.tell(&Finding {
                state: State::Degraded,
                cause: Cause::ClockDrift,
                detail: format!("the terminal's clock is off by {} s", drift / 1_000),
            }),
            (None, None) => self.board.good(&self.config.id, DeviceKind::Terminal),
        }
    }

    /// Tells the board what is wrong.
    pub fn tell(&self, finding: &Finding) {
        self.board.fault(
            &self.config.id,
            DeviceKind::Terminal,
            finding.state,
            finding.cause,
            finding.detail.clone(),
        );
    }
}

/// Whether this tells one unit from another.
fn is_number(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_alphanumeric() && b != b'0')
}

/// What keeps a read from being provably complete.
fn shortfall(pulled: &Pulled) -> Option<Finding> {
    if pulled.is_complete() {
        return None;
    }
    let read = pulled.records;
    let detail = match pulled.before.or(pulled.after) {
        Some(count) => format!("{read} records were read, the terminal counts {count}"),
        None => format!("{read} records were read; the terminal has no counter to prove them by"),
    };
    Some(Finding {
        state: State::Degraded,
        cause: Cause::Incomplete,
        detail,
    })
}
