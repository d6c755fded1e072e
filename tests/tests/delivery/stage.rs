//! What the tests of this folder stand on: one agent's buffer and uplink, a hub's gate and ingest,
//! a bad network between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use scc_agent::buffer::{Buffer, BufferError};
use scc_agent::capture::board::Board;
use scc_agent::config::{BufferLimits, Hub as HubAddress, Identity};
use scc_agent::uplink::budget::Budget;
use scc_agent::uplink::floor::Floor;
use scc_agent::uplink::link::{Closed, Dial, Link};
use scc_agent::uplink::mqtt::Mqtt;
use scc_agent::uplink::pace::Pace;
use scc_agent::uplink::{Given, Handle, Uplink};
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, SharedClock, Stamp, SystemClock};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{Content, PunchBatch, RecordBody, Segment, Snapshot, Way};
use scc_common::stream::Stream;
use scc_common::wire::{Down, DownMessage};
use scc_hub::config::Gate as GateConfig;
use scc_hub::gate;
use scc_hub::ingest::{Downlink, Ingest, Limits, Status};
use scc_hub::media::Media;
use scc_hub::store::Store;
use scc_provision::Authority;
use scc_tests::proxy::{Proxy, Weather};
use tempfile::TempDir;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// Of the uplink's waits.
pub(super) const SEED: u64 = 1;

/// (stream code, seq) → checksum.
pub(super) type Rows = BTreeMap<(u8, i64), [u8; 16]>;

pub(super) fn agent() -> AgentId {
    AgentId::new("rsud").unwrap()
}

pub(super) fn limits() -> BufferLimits {
    BufferLimits {
        min_free_bytes: 0,
        ..BufferLimits::default()
    }
}

/// An authority, and a hub's identity by it, in this folder.
pub(super) fn authority(dir: &Path, clock: &dyn Clock) -> Authority {
    let mut authority = Authority::init(&dir.join("authority"), "test", clock).unwrap();
    let names = scc_provision::hub::Names {
        dns: vec!["localhost".into()],
        addresses: vec!["127.0.0.1".parse().unwrap()],
    };
    let hub = dir.join("hub");
    scc_provision::hub::issue(&mut authority, &names, &hub, false, clock).unwrap();
    authority
}

/// The identity of an agent by this authority, in the folder `id`.
pub(super) fn identity(
    authority: &mut Authority,
    agent: &AgentId,
    id: &Path,
    clock: &dyn Clock,
) -> Identity {
    scc_provision::site::issue(authority, agent, 30, id, false, clock).unwrap();
    identity_in(id)
}

fn identity_in(id: &Path) -> Identity {
    Identity {
        certificate: id.join(scc_provision::site::CERTIFICATE),
        key: id.join(scc_provision::site::KEY),
        hub_ca: id.join("hub-ca.pem"),
    }
}

/// What an uplink is given here: no device captures, and nobody records its events.
pub(super) fn given<S>(
    agent: AgentId,
    store: S,
    clock: SharedClock,
    stop: &CancellationToken,
) -> Given<S> {
    Given {
        agent,
        version: "test".into(),
        store,
        board: Board::new(clock.clone()).0,
        clock,
        events: mpsc::unbounded_channel().0,
        poke: Arc::new(Notify::new()),
        stop: stop.clone(),
        alive: Arc::default(),
    }
}

/// A gate and its ingest; both end when dropped.
pub(super) struct Hub {
    pub(super) address: SocketAddr,
    pub(super) gate: gate::Gate,
    pub(super) voice: Arc<Voice>,
    /// Whether ingest gets nothing any more of what arrives, as if its database were away.
    pub(super) stuck: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Hub {
    pub(super) async fn start(dir: &Path, listen: SocketAddr) -> Self {
        let at = |name: &str| dir.join("hub").join(name);
        let config = GateConfig {
            listen,
            certificate: at("hub.pem"),
            key: at("hub.key"),
            agents_ca: at("agents-ca.pem"),
            revocations: at("agents.crl.pem"),
            max_connections: 300,
        };
        let clock = SystemClock::shared();
        let stop = CancellationToken::new();
        let opened = gate::open(&config, clock.clone()).await.unwrap();
        let (gate, mut arrivals, _running) = opened.start(stop.clone()).await.unwrap();
        let voice = Arc::new(Voice::of(gate.clone()));
        let (up, incoming) = mpsc::channel(1);
        let ingest = Ingest {
            arrivals: incoming,
            down: Arc::<Voice>::clone(&voice),
            store: Store::open(&dir.join("hub.sqlite")).unwrap(),
            media: Media::open(&dir.join("media")).unwrap(),
            spool: dir.join("spool"),
            clock,
            notices: broadcast::channel(1_000).0,
            status: watch::channel(Status::default()).0,
            stop: stop.clone(),
            limits: Limits {
                media_reserve: 0,
                ..Limits::default()
            },
        };
        let mut tasks = JoinSet::new();
        let guard = stop.drop_guard();
        let (stuck, mut free) = watch::channel(false);
        tasks.spawn(async move {
            let _stops_the_gate_when_aborted = guard;
            while let Some(arrived) = arrivals.recv().await {
                if free.wait_for(|stuck| !stuck).await.is_err() || up.send(arrived).await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(async move {
            let _ = ingest.run().await;
        });
        Self {
            address: gate.address(),
            gate,
            voice,
            stuck,
            _tasks: tasks,
        }
    }
}

/// Everything of one agent except its sources.
pub(super) struct Site {
    pub(super) dir: TempDir,
    pub(super) buffer: Buffer,
    pub(super) link: Handle,
    pub(super) proxy: Proxy,
    pub(super) written: Rows,
    pub(super) stop: CancellationToken,
    pub(super) dialer: Dialer,
    pub(super) lines: Lines,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    /// Certificates, a hub, a proxy in front of it, and an uplink that goes through the proxy.
    pub(super) async fn start() -> (Self, Hub) {
        Self::start_with(Manner::default()).await
    }

    /// As [`start`](Self::start), with an uplink of this manner.
    pub(super) async fn start_with(manner: Manner) -> (Self, Hub) {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::shared();
        let at = |name: &str| dir.path().join(name);
        let mut authority = authority(dir.path(), &*clock);
        identity(&mut authority, &agent(), &at("id"), &*clock);
        let hub = Hub::start(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
        let proxy = Proxy::start(hub.address).await.unwrap();
        std::fs::create_dir(at("state")).unwrap();
        proxy.weather(|w| *w = manner.weather);
        let buffer = Buffer::open(&at("state"), limits(), manner.clock.clone()).unwrap();
        let stop = CancellationToken::new();
        let dialer = Dialer::new(dir.path(), proxy.address().port(), manner);
        let lines = Lines::default();
        let link = connect(buffer.clone(), dialer.clone(), &lines, &stop);
        let site = Self {
            dir,
            buffer,
            link,
            proxy,
            written: Rows::new(),
            stop,
            dialer,
            lines,
        };
        (site, hub)
    }

    pub(super) async fn append(&mut self, device: &str, content: Content) -> (u8, i64) {
        self.try_append(device, content).await.unwrap()
    }

    pub(super) async fn try_append(
        &mut self,
        device: &str,
        content: Content,
    ) -> Result<(u8, i64), BufferError> {
        self.append_at(SystemClock::new().stamp(), device, content)
            .await
    }

    pub(super) async fn append_at(
        &mut self,
        stamp: Stamp,
        device: &str,
        content: Content,
    ) -> Result<(u8, i64), BufferError> {
        let device = DeviceId::new(device).unwrap();
        let body = RecordBody::new(stamp, Some(device), content);
        let accepted = self.buffer.append(&body).await?;
        let key = (accepted.stream.code(), i64::try_from(accepted.seq).unwrap());
        self.written.insert(key, Checksum::of(&body.encode()).0);
        Ok(key)
    }

    pub(super) async fn punch(&mut self) -> (u8, i64) {
        self.try_punch().await.unwrap()
    }

    pub(super) async fn try_punch(&mut self) -> Result<(u8, i64), BufferError> {
        let batch = PunchBatch {
            serial: "CGKK223862906".into(),
            way: Way::Live,
            utc_offset_min: 480,
            drift_ms: None,
            read: None,
            punches: Vec::new(),
        };
        self.try_append("absensi", Content::Punches(batch)).await
    }

    pub(super) async fn still(&mut self, bytes: usize) {
        let jpeg = noise(self.written.len(), bytes);
        let snapshot = Snapshot {
            width: 640,
            height: 360,
            cadence_s: 30,
            jpeg,
        };
        self.append("loket", Content::Snapshot(snapshot)).await;
    }

    pub(super) async fn segment(&mut self, bytes: usize) {
        let segment = Segment {
            duration_ms: 10_000,
            frames: 250,
            codec: "avc1.4d4028".into(),
            width: 1_920,
            height: 1_080,
            mp4: noise(self.written.len(), bytes),
        };
        self.append("loket", Content::Segment(segment)).await;
    }

    /// The hub's database, to look at.
    pub(super) fn ledger(&self) -> rusqlite::Connection {
        let database = self.dir.path().join("hub.sqlite");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        rusqlite::Connection::open_with_flags(database, flags).unwrap()
    }

    pub(super) fn stored(&self) -> Rows {
        let sql = self.ledger();
        let mut rows = sql.prepare("SELECT stream, seq, sum FROM record").unwrap();
        let row = |r: &rusqlite::Row<'_>| Ok(((r.get(0)?, r.get(1)?), r.get(2)?));
        rows.query_map([], row)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// The small records that the hub has.
    pub(super) fn stored_small(&self) -> BTreeSet<(u8, i64)> {
        let sql = self.ledger();
        let query = "SELECT stream, seq FROM record WHERE stream <> ?1";
        let mut rows = sql.prepare(query).unwrap();
        let video = [Stream::Segment.code()];
        rows.query_map(video, |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Records that came although the hub had them.
    pub(super) fn duplicates(&self) -> i64 {
        let query = "SELECT coalesce(sum(count), 0) FROM duplicate";
        self.ledger()
            .query_row(query, [], |row| row.get(0))
            .unwrap()
    }

    /// Waits until the hub has committed this record.
    pub(super) async fn committed(&self, key: (u8, i64)) {
        let look = async {
            while !self.stored().contains_key(&key) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look)
            .await
            .expect("it does not arrive");
    }

    pub(super) async fn backlog(&self) -> u64 {
        self.buffer
            .stat()
            .await
            .unwrap()
            .iter()
            .map(|l| l.records)
            .sum()
    }

    /// Waits until the hub has everything and the buffer knows it.
    pub(super) async fn delivered(&self) {
        let drained = async {
            while self.backlog().await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, drained).await.is_err() {
            let lanes = self.buffer.stat().await.unwrap();
            panic!(
                "not delivered: {lanes:?}, link {:?}",
                self.link.status.borrow()
            );
        }
        assert_eq!(self.stored(), self.written);
    }
}

/// Starts the uplink of a buffer.
pub(super) fn connect(
    store: Buffer,
    dialer: Dialer,
    lines: &Lines,
    stop: &CancellationToken,
) -> Handle {
    let Manner {
        pace,
        budget,
        clock,
        ..
    } = dialer.manner.clone();
    let given = given(agent(), store, clock, stop);
    let (uplink, link) = Uplink::new(given, dialer, SEED);
    let log = tracing_subscriber::registry().with(lines.clone());
    let uplink = uplink.at_pace(pace).within(budget);
    tokio::spawn(uplink.run().with_subscriber(log));
    link
}

/// How an uplink is to behave.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) pace: Pace,
    pub(super) budget: Budget,
    /// The network's, from the first connection on.
    pub(super) weather: Weather,
    /// The agent's; the hub and who issues certificates have the machine's.
    pub(super) clock: SharedClock,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            pace: Pace::default(),
            budget: Budget::default(),
            weather: Weather::default(),
            clock: SystemClock::shared(),
        }
    }
}

/// The real dialer; the hub's name may be changed and attempts are counted.
#[derive(Clone)]
pub(super) struct Dialer {
    identity: Identity,
    port: u16,
    manner: Manner,
    floor: Arc<Floor>,
    /// By the hub's name: each knows the files that it last could use.
    known: Arc<Mutex<BTreeMap<&'static str, Mqtt>>>,
    host: watch::Sender<&'static str>,
    attempts: Arc<AtomicU64>,
}

impl Dialer {
    /// Dials this machine, with the certificate of the site in `dir`.
    pub(super) fn new(dir: &Path, port: u16, manner: Manner) -> Self {
        Self {
            identity: identity_in(&dir.join("id")),
            port,
            manner,
            floor: Arc::new(Floor::open(dir.join("state"))),
            known: Arc::default(),
            host: watch::channel("127.0.0.1").0,
            attempts: Arc::default(),
        }
    }

    /// From now on the hub has this name.
    pub(super) fn name(&self, host: &'static str) {
        self.host.send_replace(host);
    }

    pub(super) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }
}

impl Dial for Dialer {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Link>, Closed>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let host = *self.host.borrow();
        let mqtt = {
            let mut known = self.known.lock().unwrap();
            let named = known.entry(host).or_insert_with(|| {
                let address = HubAddress {
                    host: host.to_owned(),
                    port: self.port,
                };
                Mqtt::new(agent(), address, self.identity.clone())
                    .at_pace(self.manner.pace)
                    .timed(self.manner.clock.clone(), Arc::clone(&self.floor))
            });
            named.clone()
        };
        Box::pin(async move { mqtt.dial().await })
    }
}

/// Counts what the uplink would write into the log of a box.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<AtomicU64>);

impl Lines {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::INFO {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What of ingest's words the gate is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mute {
    Nothing,
    Acknowledgements,
    Everything,
}

/// The way from ingest down to the gate, where words can get lost.
pub(super) struct Voice {
    gate: gate::Gate,
    pub(super) mute: watch::Sender<Mute>,
}

impl Voice {
    fn of(gate: gate::Gate) -> Self {
        let mute = watch::channel(Mute::Nothing).0;
        Self { gate, mute }
    }
}

impl Downlink for Voice {
    fn send(&self, agent: &AgentId, payload: bytes::Bytes) {
        let lost = match *self.mute.borrow() {
            Mute::Nothing => false,
            Mute::Everything => true,
            Mute::Acknowledgements => {
                matches!(Down::decode(&payload).unwrap().msg, DownMessage::Ack(_))
            }
        };
        if !lost {
            self.gate.send(agent, payload);
        }
    }
}

pub(super) fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| {
            i.wrapping_mul(2_654_435_761)
                .wrapping_add(seed * 97)
                .to_le_bytes()[1]
        })
        .collect()
}

pub(super) async fn restarted(dir: &Path, address: SocketAddr) -> Hub {
    ended(address).await;
    Hub::start(dir, address).await
}

/// The port of the one that was dropped becomes free a moment later.
pub(super) async fn ended(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = std::net::TcpListener::bind(address) {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
