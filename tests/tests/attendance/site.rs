//! A source that runs against a stand-in, and what it hands over.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scc_agent::buffer::{Accepted, BufferError};
use scc_agent::capture::accept::{Accept, Keep, Life};
use scc_agent::capture::attendance::{Pace, TerminalSource};
use scc_agent::capture::board::Board;
use scc_agent::config;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ClockQuality, SharedClock, SystemClock};
use scc_common::id::{AgentId, DeviceId, Epoch};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Punch, PunchBatch, ReadProof, RecordBody,
};
use scc_common::stream::Stream;
use scc_tests::terminal::{Punched, Setup, Terminal};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A buffer that keeps everything in memory, and can be full.
#[derive(Debug, Clone, Default)]
pub(super) struct Shelf {
    pub(super) bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(super) full: Arc<AtomicBool>,
}

impl Accept for Shelf {
    async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
        tokio::task::yield_now().await;
        if self.full.load(Ordering::SeqCst) {
            return Err(BufferError::Full("the test says so".into()));
        }
        let mut bodies = self.bodies.lock().unwrap();
        bodies.push(body.encode());
        Ok(Accepted {
            epoch: Epoch(1),
            stream: body.stream(),
            seq: u64::try_from(bodies.len()).unwrap(),
        })
    }

    async fn give_up(&self, _: &RecordBody, refused: &BufferError) {
        panic!("a terminal keeps its punches, and this was given up: {refused}");
    }

    async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
        Ok(self.bodies.lock().unwrap().contains(&body.encode()))
    }
}

impl Keep for Shelf {
    async fn life(&self, _: Stream) -> Result<Life, BufferError> {
        Ok(Life {
            epoch: Epoch(1),
            damage: Checksum::of(&[]),
        })
    }
}

impl Shelf {
    pub(super) fn batches(&self) -> Vec<PunchBatch> {
        let bodies = self.bodies.lock().unwrap();
        bodies
            .iter()
            .map(|bytes| match RecordBody::decode(bytes).unwrap().content {
                Content::Punches(batch) => batch,
                other => panic!("a terminal yields punches, not {other:?}"),
            })
            .collect()
    }

    pub(super) fn punches(&self) -> Vec<Punch> {
        self.batches().into_iter().flat_map(|b| b.punches).collect()
    }

    /// The proof in the newest batch, if that one is the last of a read.
    pub(super) fn last_proof(&self) -> Option<ReadProof> {
        let bodies = self.bodies.lock().unwrap();
        match RecordBody::decode(bodies.last()?).unwrap().content {
            Content::Punches(batch) => batch.read,
            _ => None,
        }
    }

    pub(super) fn proofs(&self) -> Vec<ReadProof> {
        self.batches().into_iter().filter_map(|b| b.read).collect()
    }
}

/// A source that runs, and all that it touches.
pub(super) struct Site {
    pub(super) shelf: Shelf,
    pub(super) board: Board,
    pub(super) stop: CancellationToken,
    pub(super) task: AbortOnDropHandle<()>,
}

pub(super) fn device() -> DeviceId {
    DeviceId::new("absensi").unwrap()
}

/// Where the terminal is.
pub(super) fn settings(address: std::net::SocketAddr, comm_key: u32) -> config::Terminal {
    config::Terminal {
        id: device(),
        host: address.ip().to_string(),
        port: address.port(),
        comm_key,
        utc_offset_min: 480,
        full_read_every_s: 3_600,
    }
}

/// The waits of the sheet, shortened so that a test need not last minutes; their order is kept.
pub(super) fn quick() -> Pace {
    let ms = Duration::from_millis;
    Pace {
        answer: ms(1_500),
        probe: ms(1_000),
        data_first: ms(1_500),
        data_next: ms(1_000),
        exit: ms(300),
        keep_alive: ms(700),
        settle: ms(150),
        refused: ms(200),
        reread: ms(400),
        retry_min: ms(50),
        retry_max: ms(200),
        retry_busy: ms(200),
        hopeless_min: ms(300),
        hopeless_max: ms(600),
        ..Pace::default()
    }
}

impl Site {
    pub(super) fn start(address: std::net::SocketAddr, dir: &TempDir, key: u32) -> Self {
        Self::start_with(
            address,
            dir,
            key,
            &SystemClockKnown::shared(),
            Shelf::default(),
        )
    }

    pub(super) fn start_with(
        address: std::net::SocketAddr,
        dir: &TempDir,
        comm_key: u32,
        clock: &SharedClock,
        shelf: Shelf,
    ) -> Self {
        Self::start_as("rsud", address, dir, comm_key, clock, shelf)
    }

    pub(super) fn start_as(
        agent: &str,
        address: std::net::SocketAddr,
        dir: &TempDir,
        comm_key: u32,
        clock: &SharedClock,
        shelf: Shelf,
    ) -> Self {
        let terminal = settings(address, comm_key);
        let (board, _) = Board::new(clock.clone());
        board.declare(&device(), DeviceKind::Terminal);
        let stop = CancellationToken::new();
        let agent = AgentId::new(agent).unwrap();
        let source = TerminalSource::with_pace(agent, terminal, dir.path().to_owned(), quick());
        let run = source.run_with(shelf.clone(), board.clone(), clock.clone(), stop.clone());
        Self {
            shelf,
            board,
            stop,
            task: AbortOnDropHandle::new(tokio::spawn(run)),
        }
    }

    pub(super) fn state(&self) -> DeviceState {
        self.board.devices().remove(0)
    }

    pub(super) async fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !met(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "in vain: {what}; {:?}, {} batches, {} punches, {:?}",
            self.state(),
            self.shelf.batches().len(),
            self.shelf.punches().len(),
            self.shelf.proofs().last(),
        );
    }

    pub(super) async fn until_cause(&self, cause: Cause) -> DeviceState {
        self.until(cause.name(), |site| site.state().cause == Some(cause))
            .await;
        self.state()
    }

    pub(super) async fn until_complete(&self, records: usize) {
        self.until("a complete read", |site| {
            site.shelf
                .last_proof()
                .is_some_and(|p| p.complete && usize::try_from(p.records) == Ok(records))
        })
        .await;
    }

    pub(super) async fn stopped(self) -> Shelf {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .expect("the source stops when told")
            .unwrap();
        self.shelf
    }
}

/// The system's clock, as if NTP had confirmed it.
#[derive(Debug, Default)]
pub(super) struct SystemClockKnown(SystemClock);

impl SystemClockKnown {
    pub(super) fn shared() -> SharedClock {
        Arc::new(Self::default())
    }
}

impl Clock for SystemClockKnown {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }
    fn mono_ms(&self) -> u64 {
        self.0.mono_ms()
    }
    fn quality(&self) -> ClockQuality {
        ClockQuality::Ntp
    }
    fn boot(&self) -> scc_common::id::BootId {
        self.0.boot()
    }
    fn hub_offset(&self, _: i64, _: u32) {}
    fn boot_offset(&self) -> Option<scc_common::clock::BootOffset> {
        None
    }
}

pub(super) async fn terminal(setup: Setup) -> Terminal {
    Terminal::start(setup, SystemClock::shared()).await.unwrap()
}

/// Each punch of the log has come once: the same multiset of who and when.
pub(super) fn assert_same(punches: &[Punch], log: &[Punched]) {
    let mut got: Vec<(String, i64)> = punches
        .iter()
        .map(|p| (p.user.clone(), p.local_s))
        .collect();
    let mut truth: Vec<(String, i64)> = log
        .iter()
        .map(|p| (p.user.to_string(), p.local_s))
        .collect();
    got.sort();
    truth.sort();
    assert_eq!(got.len(), truth.len());
    assert_eq!(got, truth);
    let identities: HashSet<_> = punches
        .iter()
        .map(|p| (&p.user, p.local_s, p.state, p.verify, p.ordinal))
        .collect();
    assert_eq!(
        identities.len(),
        punches.len(),
        "two punches of one identity"
    );
}
