//! A stand-in for an attendance terminal: the other side of zk.md, over TCP.
//!
//! It speaks as a device does, with every record layout, a comm key, live events, and faults on
//! request. It tells the truth beside the wire: every punch is appended to the truth file and synced
//! before any client can see it, so that an oracle in another process can compare. It is written
//! independently of the client, from the sheet alone. People are numbers; there are no names.

mod log;
mod seeds;
mod serve;
mod wire;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use scc_common::clock::SharedClock;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

pub use log::{Layout, Punched, SECRET_PASSWORD};
pub use seeds::seeds;

/// What a stand-in is.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its record layout.
    pub layout: Layout,
    /// Its serial number.
    pub serial: String,
    /// Its comm key; 0 = none.
    pub comm_key: u32,
    /// Minutes that its wall is ahead of UTC.
    pub utc_offset_min: i16,
    /// Seconds that its clock is fast.
    pub drift_s: i64,
    /// Serves one session, refuses a second.
    pub one_session: bool,
    /// Where every punch is written before it can be seen.
    pub truth: Option<PathBuf>,
    /// Seed of the log it begins with.
    pub seed: u64,
    /// Punches in that log.
    pub records: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            layout: Layout::Forty,
            serial: "CGKK223862906".into(),
            comm_key: 0,
            utc_offset_min: 480,
            drift_s: 0,
            one_session: false,
            truth: None,
            seed: 1,
            records: 214,
        }
    }
}

/// What its record counter says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Counter {
    /// The truth.
    #[default]
    Right,
    /// Always this.
    Says(u32),
    /// Nothing: an answer too short to hold it.
    Absent,
}

/// What is wrong with it.
#[derive(Debug, Clone, Default)]
#[allow(clippy::struct_excessive_bools)]
pub struct Faults {
    /// Takes connections and requests, answers nothing.
    pub silent: bool,
    /// Answers like another kind of server.
    pub garbage: bool,
    /// Answers in the encrypted dialect.
    pub encrypted: bool,
    /// Refuses the right key.
    pub refuse_key: bool,
    /// Refuses the buffered read.
    pub refuse_buffered: bool,
    /// Has the user table of firmware before 5.04.
    pub old_users: bool,
    /// Announces no punches.
    pub mute: bool,
    /// Ends every slice half-way.
    pub truncate: bool,
    /// Ends this many slices half-way, then no more.
    pub spoil: u32,
    /// Sends records of no layout.
    pub rubbish: bool,
    /// What the counter says.
    pub counter: Counter,
    /// So many people punch after each read of the log has been prepared.
    pub grow: u32,
    /// Writes in pieces of so many bytes.
    pub split: Option<usize>,
    /// Data bytes per DATA packet; none = as many as a device puts into one, 65,472.
    pub data_packet: Option<usize>,
    /// Resets a connection after so many bytes, once.
    pub reset_after: Option<u64>,
    /// Bytes behind the known part of an event.
    pub event_tail: usize,
}

#[derive(Debug)]
struct Log {
    punches: Vec<Punched>,
    truth: Option<File>,
}

#[derive(Debug)]
struct Shared {
    setup: Setup,
    clock: SharedClock,
    log: Mutex<Log>,
    faults: Mutex<Faults>,
    drift_s: Mutex<i64>,
    heard: Mutex<Vec<(u16, bool)>>,
    sessions: Mutex<(u16, bool)>,
    live: broadcast::Sender<Punched>,
    cuts: watch::Sender<u64>,
}

/// A line of the truth file.
#[derive(Debug, Serialize)]
struct Truth<'a> {
    serial: &'a str,
    user: String,
    local_s: i64,
    state: u8,
    verify: u8,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn now_s(&self) -> i64 {
        let unix = self.clock.wall_ms().div_euclid(1_000);
        unix - 946_684_800 + i64::from(self.setup.utc_offset_min) * 60 + *held(&self.drift_s)
    }

    fn now(&self) -> DateTime {
        date(2000, 1, 1)
            .at(0, 0, 0, 0)
            .checked_add(SignedDuration::from_secs(self.now_s()))
            .expect("a time of this century")
    }

    fn faults(&self) -> Faults {
        held(&self.faults).clone()
    }

    fn punches(&self) -> Vec<Punched> {
        held(&self.log).punches.clone()
    }

    fn counts(&self) -> (u32, u32) {
        let log = held(&self.log);
        let people: BTreeSet<u32> = log.punches.iter().map(|p| p.user).collect();
        let n = |len: usize| u32::try_from(len).expect("a short log");
        (n(log.punches.len()), n(people.len()))
    }

    fn punch(&self, user: u32, state: u8, verify: u8) -> Punched {
        let punch = Punched {
            user,
            local_s: self.now_s(),
            state,
            verify,
        };
        self.store(vec![punch.clone()]);
        // nobody listens: then nobody is told
        let _ = self.live.send(punch.clone());
        punch
    }

    /// Truth first, then the log that clients see, under one lock.
    fn store(&self, punches: Vec<Punched>) {
        let mut log = held(&self.log);
        if let Some(truth) = &mut log.truth {
            let mut lines = String::new();
            for p in &punches {
                let line = Truth {
                    serial: &self.setup.serial,
                    user: p.user.to_string(),
                    local_s: p.local_s,
                    state: p.state,
                    verify: p.verify,
                };
                lines += &serde_json::to_string(&line).expect("plain fields");
                lines.push('\n');
            }
            truth
                .write_all(lines.as_bytes())
                .and_then(|()| truth.sync_all())
                .expect("a stand-in whose truth cannot be written proves nothing");
        }
        log.punches.extend(punches);
    }

    fn next_session(&self) -> u16 {
        let mut sessions = held(&self.sessions);
        sessions.0 = sessions.0.wrapping_mul(31).wrapping_add(0x1F2E).max(1);
        sessions.0
    }

    fn enter(&self) -> bool {
        !std::mem::replace(&mut held(&self.sessions).1, true)
    }

    fn leave(&self) {
        held(&self.sessions).1 = false;
    }

    fn note(&self, asked: &wire::Asked) {
        held(&self.heard).push((asked.code, asked.sum_ok));
    }

    fn heal_reset(&self) {
        held(&self.faults).reset_after = None;
    }

    fn spoil_slice(&self) -> bool {
        let mut faults = held(&self.faults);
        let spoil = faults.spoil > 0;
        faults.spoil = faults.spoil.saturating_sub(1);
        spoil
    }
}

/// A running stand-in; it ends when dropped.
#[derive(Debug)]
pub struct Terminal {
    shared: Arc<Shared>,
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Terminal {
    /// Starts one on a free port of the loopback.
    ///
    /// # Errors
    /// The system's, for the socket or the truth file.
    pub async fn start(setup: Setup, clock: SharedClock) -> io::Result<Self> {
        Self::start_at(setup, clock, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one at an address; port 0 is any free one.
    ///
    /// # Errors
    /// The system's, for the socket or the truth file.
    pub async fn start_at(
        setup: Setup,
        clock: SharedClock,
        listen: SocketAddr,
    ) -> io::Result<Self> {
        let truth = match &setup.truth {
            None => None,
            Some(path) => Some(File::options().create(true).append(true).open(path)?),
        };
        let shared = Arc::new(Shared {
            clock,
            log: Mutex::new(Log {
                punches: Vec::new(),
                truth,
            }),
            faults: Mutex::default(),
            drift_s: Mutex::new(setup.drift_s),
            heard: Mutex::default(),
            sessions: Mutex::new((0x1F2E, false)),
            live: broadcast::channel(1_024).0,
            cuts: watch::channel(0).0,
            setup,
        });
        let now = shared.now_s() - shared.setup.drift_s;
        shared.store(log::days(shared.setup.seed, shared.setup.records, now));
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(Arc::clone(&shared), listener));
        Ok(Self {
            shared,
            address,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Somebody punches now, coming in by fingerprint; who listens is told.
    pub fn punch(&self, user: u32) -> Punched {
        self.shared.punch(user, 0, 1)
    }

    /// Puts punches into the log without telling anybody, as they were made while nobody listened.
    pub fn remember(&self, punches: Vec<Punched>) {
        self.shared.store(punches);
    }

    /// Tells listeners of a punch that is already in the log, or never will be.
    pub fn announce(&self, punch: Punched) {
        let _ = self.shared.live.send(punch);
    }

    /// All of its log.
    #[must_use]
    pub fn log(&self) -> Vec<Punched> {
        self.shared.punches()
    }

    /// Empties the log, as an administrator at the terminal can. The truth keeps its lines.
    pub fn clear(&self) {
        held(&self.shared.log).punches.clear();
    }

    /// Changes what is wrong with it.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut held(&self.shared.faults));
    }

    /// Sets how many seconds its clock is fast.
    pub fn drift(&self, seconds: i64) {
        *held(&self.shared.drift_s) = seconds;
    }

    /// Resets every connection.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|n| *n += 1);
    }

    /// Codes of the requests that have come, and whether their checksums were right.
    #[must_use]
    pub fn heard(&self) -> Vec<(u16, bool)> {
        held(&self.shared.heard).clone()
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // dropped with this task, and with it every connection
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(serve::serve(Arc::clone(&shared), stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
