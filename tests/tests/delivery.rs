//! The way of a record from the agent's buffer to the hub's database, with everything real in
//! between: buffer, uplink, MQTT over TLS, gate, ingest. The network is a proxy that can be slow,
//! cut and stalled; the certificates are the authority's own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

#[path = "delivery/card.rs"]
mod card;
#[path = "delivery/cards.rs"]
mod cards;
#[path = "delivery/restore.rs"]
mod restore;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use scc_agent::buffer::Buffer;
use scc_agent::capture::board::Board;
use scc_agent::config::{BufferLimits, Hub as HubAddress, Identity};
use scc_agent::uplink::mqtt::Mqtt;
use scc_agent::uplink::{Given, Handle, Uplink};
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, SystemClock};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{
    Content, Event, LinkMode, PunchBatch, RecordBody, Segment, Snapshot, Way,
};
use scc_hub::config::Gate as GateConfig;
use scc_hub::gate;
use scc_hub::ingest::{Ingest, Limits, Status};
use scc_hub::media::Media;
use scc_hub::store::Store;
use scc_provision::Authority;
use scc_tests::proxy::Proxy;
use tempfile::TempDir;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

/// (stream code, seq) → checksum.
type Rows = BTreeMap<(u8, i64), [u8; 16]>;

fn agent() -> AgentId {
    AgentId::new("rsud").unwrap()
}

fn limits() -> BufferLimits {
    BufferLimits {
        min_free_bytes: 0,
        ..BufferLimits::default()
    }
}

/// A gate and its ingest; both end when dropped.
struct Hub {
    address: SocketAddr,
    gate: gate::Gate,
    _tasks: JoinSet<()>,
}

impl Hub {
    async fn start(dir: &Path, listen: SocketAddr) -> Self {
        let at = |name: &str| dir.join("hub").join(name);
        let config = GateConfig {
            listen,
            certificate: at("hub.pem"),
            key: at("hub.key"),
            agents_ca: at("agents-ca.pem"),
            revocations: at("agents.crl.pem"),
            max_connections: 10,
        };
        let clock = SystemClock::shared();
        let stop = CancellationToken::new();
        let opened = gate::open(&config, clock.clone()).await.unwrap();
        let (gate, mut arrivals, _running) = opened.start(stop.clone()).await.unwrap();
        let (up, incoming) = mpsc::channel(1);
        let ingest = Ingest {
            arrivals: incoming,
            down: Arc::new(gate.clone()),
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
        tasks.spawn(async move {
            let _stops_the_gate_when_aborted = guard;
            while let Some(arrived) = arrivals.recv().await {
                if up.send(arrived).await.is_err() {
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
            _tasks: tasks,
        }
    }
}

/// Everything of one agent except its sources.
struct Site {
    dir: TempDir,
    buffer: Buffer,
    link: Handle,
    proxy: Proxy,
    written: Rows,
    stop: CancellationToken,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    /// Certificates, a hub, a proxy in front of it, and an uplink that goes through the proxy.
    async fn start() -> (Self, Hub) {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::shared();
        let at = |name: &str| dir.path().join(name);
        let mut authority = Authority::init(&at("authority"), "test", &*clock).unwrap();
        let names = scc_provision::hub::Names {
            dns: vec!["localhost".into()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        scc_provision::hub::issue(&mut authority, &names, &at("hub"), false, &*clock).unwrap();
        scc_provision::site::issue(&mut authority, &agent(), 30, &at("id"), false, &*clock)
            .unwrap();
        let hub = Hub::start(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
        let proxy = Proxy::start(hub.address).await.unwrap();
        std::fs::create_dir(at("state")).unwrap();
        let buffer = Buffer::open(&at("state"), limits(), clock.clone()).unwrap();
        let stop = CancellationToken::new();
        let link = connect(dir.path(), buffer.clone(), proxy.address().port(), &stop);
        let site = Self {
            dir,
            buffer,
            link,
            proxy,
            written: Rows::new(),
            stop,
        };
        (site, hub)
    }

    async fn append(&mut self, device: &str, content: Content) -> (u8, i64) {
        let stamp = SystemClock::new().stamp();
        let device = DeviceId::new(device).unwrap();
        let body = RecordBody::new(stamp, Some(device), content);
        let accepted = self.buffer.append(&body).await.unwrap();
        let key = (accepted.stream.code(), i64::try_from(accepted.seq).unwrap());
        self.written.insert(key, Checksum::of(&body.encode()).0);
        key
    }

    async fn punch(&mut self) -> (u8, i64) {
        let batch = PunchBatch {
            serial: "CGKK223862906".into(),
            way: Way::Live,
            utc_offset_min: 480,
            drift_ms: None,
            read: None,
            punches: Vec::new(),
        };
        self.append("absensi", Content::Punches(batch)).await
    }

    async fn still(&mut self, bytes: usize) {
        let jpeg = noise(self.written.len(), bytes);
        let snapshot = Snapshot {
            width: 640,
            height: 360,
            cadence_s: 30,
            jpeg,
        };
        self.append("loket", Content::Snapshot(snapshot)).await;
    }

    async fn segment(&mut self, bytes: usize) {
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

    fn stored(&self) -> Rows {
        let database = self.dir.path().join("hub.sqlite");
        let sql = rusqlite::Connection::open_with_flags(
            database,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let mut rows = sql.prepare("SELECT stream, seq, sum FROM record").unwrap();
        let row = |r: &rusqlite::Row<'_>| Ok(((r.get(0)?, r.get(1)?), r.get(2)?));
        rows.query_map([], row)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Records that came although the hub had them.
    fn duplicates(&self) -> i64 {
        let sql = rusqlite::Connection::open_with_flags(
            self.dir.path().join("hub.sqlite"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let query = "SELECT coalesce(sum(count), 0) FROM duplicate";
        sql.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Waits until the hub has committed this record.
    async fn committed(&self, key: (u8, i64)) {
        let look = async {
            while !self.stored().contains_key(&key) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look)
            .await
            .expect("it does not arrive");
    }

    async fn backlog(&self) -> u64 {
        self.buffer
            .stat()
            .await
            .unwrap()
            .iter()
            .map(|l| l.records)
            .sum()
    }

    /// Waits until the hub has everything and the buffer knows it.
    async fn delivered(&self) {
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

/// Starts the uplink of a buffer with the site's certificate.
fn connect(dir: &Path, store: Buffer, port: u16, stop: &CancellationToken) -> Handle {
    let clock = SystemClock::shared();
    let (board, _) = Board::new(clock.clone());
    let given = Given {
        agent: agent(),
        version: "test".into(),
        store,
        board,
        clock,
        events: mpsc::unbounded_channel().0,
        poke: Arc::new(Notify::new()),
        stop: stop.clone(),
        alive: Arc::default(),
    };
    let address = HubAddress {
        host: "127.0.0.1".into(),
        port,
    };
    let at = |name: &str| dir.join("id").join(name);
    let identity = Identity {
        certificate: at(scc_provision::site::CERTIFICATE),
        key: at(scc_provision::site::KEY),
        hub_ca: at("hub-ca.pem"),
    };
    let (uplink, link) = Uplink::new(given, Mqtt::new(agent(), address, identity), 1);
    tokio::spawn(uplink.run());
    link
}

fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|i| {
            i.wrapping_mul(2_654_435_761)
                .wrapping_add(seed * 97)
                .to_le_bytes()[1]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_size_arrive_and_leave_the_buffer() {
    let (mut site, _hub) = Site::start().await;
    for n in 0..40 {
        site.punch().await;
        let version = format!("{n}");
        site.append("loket", Content::Event(Event::AgentStarted { version }))
            .await;
        if n % 4 == 0 {
            site.still(45_000).await;
            site.segment(700_000).await;
        }
    }
    site.delivered().await;
    assert_eq!(site.link.status.borrow().mode, LinkMode::Normal);
    assert_eq!(
        site.duplicates(),
        0,
        "nothing went wrong, and yet it was sent again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_delivers_a_punch_within_a_second() {
    let (mut site, _hub) = Site::start().await;
    let first = site.punch().await;
    site.committed(first).await;
    for _ in 0..5 {
        let start = Instant::now();
        let key = site.punch().await;
        site.committed(key).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// delivery.md, promise 4, over a link of 1 Mbit/s with 60 ms of delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_punch_arrives_within_two_seconds_while_video_drains() {
    let (mut site, _hub) = Site::start().await;
    site.proxy.weather(|w| {
        w.rate = Some(125_000);
        w.delay = Duration::from_millis(30);
    });
    for _ in 0..10 {
        site.segment(900_000).await;
        site.still(50_000).await;
    }
    // the drain is under way, its rate is known
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let key = site.punch().await;
        site.committed(key).await;
        waits.push(start.elapsed());
    }
    assert!(
        site.backlog().await > 3,
        "the backlog is gone already; this shows nothing"
    );
    let worst = waits.iter().max().unwrap();
    assert!(*worst < Duration::from_secs(2), "{waits:?}");
    println!("waits: {waits:?}, link {:?}", site.link.status.borrow());
}

/// Rows 9 of the complaints: `SCC_HUB_RESTARTS=20` restarts the hub that often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_and_restarts_of_the_hub_lose_and_double_nothing() {
    let (mut site, mut hub) = Site::start().await;
    let address = hub.address;
    let restarts: u32 = std::env::var("SCC_HUB_RESTARTS").map_or(3, |n| n.parse().unwrap());
    for round in 0..2 * restarts {
        for _ in 0..10 {
            site.punch().await;
        }
        site.segment(600_000).await;
        if round % 2 == 0 {
            site.proxy.cut();
        } else {
            drop(hub);
            hub = restarted(site.dir.path(), address).await;
        }
    }
    site.delivered().await;
}

/// delivery.md, promise 3: a hub restored from yesterday's backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_an_older_copy_gets_the_rest_again() {
    let (mut site, hub) = Site::start().await;
    let address = hub.address;
    for _ in 0..5 {
        site.punch().await;
    }
    site.segment(300_000).await;
    site.delivered().await;
    let database = site.dir.path().join("hub.sqlite");
    let backup = site.dir.path().join("yesterday.sqlite");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    for _ in 0..5 {
        site.punch().await;
    }
    site.segment(600_000).await;
    site.still(60_000).await;
    site.delivered().await;

    site.proxy.weather(|w| w.rate = Some(60_000)); // slow enough for the backlog to be seen
    drop(hub);
    for tail in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{tail}", database.display()));
    }
    std::fs::rename(&backup, &database).unwrap();
    let _hub = restarted(site.dir.path(), address).await;
    let told = async {
        while site.backlog().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("the buffer is not told that its records are wanted again");
    site.delivered().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_says_goodbye() {
    let (mut site, hub) = Site::start().await;
    let mut presence = hub.gate.presence();
    site.punch().await;
    site.delivered().await;
    site.stop.cancel();
    let left = async {
        loop {
            let news = presence.recv().await.unwrap();
            if !news.connected {
                return news.why;
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, left).await.unwrap();
    assert_eq!(why, "it said good-bye");
}

async fn restarted(dir: &Path, address: SocketAddr) -> Hub {
    ended(address).await;
    Hub::start(dir, address).await
}

/// The port of the one that was dropped becomes free a moment later.
async fn ended(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = std::net::TcpListener::bind(address) {
        assert!(Instant::now() < until, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
