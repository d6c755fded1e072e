//! The database slow, locked, unwritable, gone: the gate stops reading, nothing is acknowledged early,
//! the hub says what is wrong, and all of it heals by itself, every record committed once. A full disk
//! is in `full_disk.rs`; both the disk of the database and that of the media.
//!
//! The agents here never send again: what the hub's inside lost would be missing at the end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it expected by failing"
)]

#[path = "../gate_support/mod.rs"]
mod gate_support;
#[path = "../ingest_harness/mod.rs"]
mod ingest_harness;
mod vfs;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gate_support::{Agent, World};
use ingest_harness::{EVENTS, Hub, event, payload_of};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use rumqttc::{Event, Packet, QoS};
use scc_common::id::Seq;
use scc_hub::gate::limits::POOL;
use scc_hub::ingest::{IngestError, Status, TroubleKind};
use scc_hub::store::StoreError;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinSet;
use vfs::{Disk, the_disk_is};

/// The disk is one for the whole process, and so are metrics.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const AGENTS: usize = 22;
const PAYLOADS: usize = 20;
const RECORDS: usize = 4;
/// With the rest a payload of 60 KB, as a backlog comes.
const BODY: usize = 15_000;

/// A hub behind a gate, and what makes its disk well when the test ends, however it ends.
struct Stage {
    world: World,
    hub: Hub,
    names: Vec<String>,
    acked: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        the_disk_is(Disk::Well);
    }
}

fn recorder() -> PrometheusHandle {
    use std::sync::OnceLock;
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || PrometheusBuilder::new().install_recorder().unwrap();
    HANDLE.get_or_init(install).clone()
}

/// The value of a metric, by the beginning of its line.
fn metric(line: &str) -> Option<f64> {
    let text = recorder().render();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok())
}

/// A record of some size, different for each agent and number. What follows the event makes it
/// unreadable, which is stored all the same.
fn body(agent: usize, seq: Seq) -> Vec<u8> {
    let mut body = event(seq);
    body.resize(BODY, u8::try_from(agent).unwrap());
    body
}

impl Stage {
    async fn set() -> Self {
        let alone = ONE_AT_A_TIME.lock().await;
        vfs::install();
        recorder();
        let names: Vec<String> = (0..AGENTS).map(|i| format!("site-{i}")).collect();
        let mut of_world: Vec<&str> = names.iter().map(String::as_str).collect();
        of_world.push("rsud");
        let mut world = World::open(&of_world).await;
        let mut hub = Hub::start().await;
        hub.hear_no_notices();
        let way_in = hub.way_in();
        let mut tasks = JoinSet::new();
        let mut arrivals = world.take_arrivals();
        tasks.spawn(async move {
            while let Some(arrived) = arrivals.recv().await {
                if way_in.send(arrived).await.is_err() {
                    return;
                }
            }
        });
        // one acknowledged record, so that the lane and the schema's pages are there
        hub.records(EVENTS, [(1, event(1))]).await;
        hub.until_watermark(EVENTS, 1).await;
        Self {
            world,
            hub,
            names,
            acked: Arc::default(),
            tasks,
            _alone: alone,
        }
    }

    /// All agents send more than the pool holds, each payload once.
    async fn flood(&mut self) {
        for (i, name) in self.names.iter().enumerate() {
            let mut options = self.world.options(name, name);
            // a gate that does not read does not answer pings either
            options.set_keep_alive(Duration::from_secs(300));
            let mut agent = Agent::new(options);
            agent.connected().await.unwrap();
            let Agent { client, mut events } = agent;
            let topic = format!("scc/up/{name}");
            let payloads: Vec<Vec<u8>> = (0..PAYLOADS)
                .map(|n| {
                    let first = n * RECORDS + 1;
                    let seqs = (first..first + RECORDS).map(|seq| seq as Seq);
                    payload_of(name, EVENTS, seqs.map(|seq| (seq, body(i, seq))))
                })
                .collect();
            self.tasks.spawn(async move {
                for payload in payloads {
                    let sent = client.publish(&topic, QoS::AtLeastOnce, false, payload);
                    sent.await.unwrap();
                }
                // kept, or the connection ends
                std::future::pending::<()>().await;
            });
            let acked = Arc::clone(&self.acked);
            self.tasks.spawn(async move {
                loop {
                    match events.poll().await {
                        Ok(Event::Incoming(Packet::PubAck(_))) => {
                            acked.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(_) => {}
                        Err(error) => return println!("an agent's connection has ended: {error}"),
                    }
                }
            });
        }
    }

    fn rows(&self) -> usize {
        usize::try_from(self.hub.count("SELECT count(*) FROM record")).unwrap() - 1
    }

    /// Waits until the gate has taken what it will take, and holds it to its pool: so many bytes have
    /// been let in and are in no transaction.
    async fn gate_stops(&self) -> usize {
        let mut before = (usize::MAX, 0);
        let still = async {
            loop {
                tokio::time::sleep(Duration::from_millis(700)).await;
                let now = (self.acked.load(Ordering::SeqCst), self.rows());
                if now == before && self.in_flight() >= POOL / 2 {
                    return;
                }
                before = now;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), still)
            .await
            .expect("the gate goes on reading");
        self.in_flight()
    }

    fn in_flight(&self) -> usize {
        let rows = self.rows();
        let let_in = self.acked.load(Ordering::SeqCst) * RECORDS;
        let_in.saturating_sub(rows) * BODY
    }

    async fn all_arrives(&self) {
        let expected = AGENTS * PAYLOADS * RECORDS;
        let arrived = async {
            while self.rows() < expected {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(90), arrived).await;
        let acked = self.acked.load(Ordering::SeqCst) * RECORDS;
        assert!(
            arrived.is_ok(),
            "{acked} let in, {} of {expected} stored",
            self.rows()
        );
        assert_eq!(self.rows(), expected);
        let distinct = "SELECT count(*) FROM (SELECT DISTINCT agent, seq FROM record)";
        assert_eq!(
            self.hub.count(distinct) - 1,
            i64::try_from(expected).unwrap()
        );
        assert_eq!(self.hub.count("SELECT count(*) FROM duplicate"), 0);
        self.hub.until_status(|s| *s == Status::default()).await;
        assert!(self.hub.last_down().unwrap().permission > 0);
    }

    /// The database takes nothing: `kind` is on the page, agents have no permission, nothing is
    /// acknowledged.
    async fn held_up(&self, kind: TroubleKind) {
        self.hub
            .until_status(|s| s.database.as_ref().is_some_and(|t| t.kind == kind))
            .await;
        let before = self.rows();
        // a fresh one to count, of the agent whose answers are heard
        self.hub.records(EVENTS, [(2, event(2))]).await;
        let in_flight = self.gate_stops().await;
        assert!(in_flight <= POOL, "{in_flight} bytes are in flight");
        assert!(
            in_flight >= POOL / 2,
            "the gate stopped at {in_flight} bytes; this shows nothing"
        );
        assert_eq!(self.rows(), before, "this disk takes nothing");
        assert_eq!(self.hub.watermark(EVENTS), 1, "acknowledged and not stored");
        assert_eq!(self.hub.last_down().unwrap().permission, 0);
        assert_eq!(metric("scc_ingest_held_up{by=\"database\"}"), Some(1.0));
        println!("{kind:?}: {in_flight} bytes in flight");
    }

    /// The record that [`held_up`](Self::held_up) left waiting is acknowledged, and then taken out of
    /// the account.
    async fn heals(&self) {
        self.hub.until_watermark(EVENTS, 2).await;
        let out = "DELETE FROM record WHERE agent = 'rsud' AND seq = 2";
        self.hub.sql().execute(out, []).unwrap();
        self.all_arrives().await;
        assert_eq!(metric("scc_ingest_held_up{by=\"database\"}"), Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_database_bounds_what_is_in_flight_and_says_so() {
    let mut stage = Stage::set().await;
    the_disk_is(Disk::Slow);
    stage.flood().await;
    let mut worst = 0;
    let told = async {
        while stage.hub.status().slow.is_none() {
            worst = worst.max(stage.in_flight());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told)
        .await
        .expect("it is slow and nobody says so");
    assert!(stage.hub.status().database.is_none(), "slow is not held up");
    assert_eq!(metric("scc_ingest_slow"), Some(1.0));
    assert!(metric("scc_ingest_commit_seconds").unwrap() >= 0.5);
    println!("slow: at most {worst} bytes in flight");
    assert!(worst <= POOL, "{worst} bytes are in flight");
    the_disk_is(Disk::Well);
    // commits that are fast are what shows that it is well again
    let done = async {
        for seq in 2.. {
            if stage.hub.status().slow.is_none() {
                return seq;
            }
            stage.hub.records(EVENTS, [(seq, event(seq))]).await;
            stage.hub.until_watermark(EVENTS, seq).await;
        }
        0
    };
    tokio::time::timeout(Duration::from_secs(60), done)
        .await
        .expect("it is fast again and nobody says so");
    let out = "DELETE FROM record WHERE agent = 'rsud' AND seq > 1";
    stage.hub.sql().execute(out, []).unwrap();
    stage.all_arrives().await;
}

/// As a backup tool or a curious administrator with sqlite3 would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_another_process_has_locked_holds_everything_up_and_heals() {
    let mut stage = Stage::set().await;
    let other = stage.hub.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    stage.flood().await;
    stage.held_up(TroubleKind::Locked).await;
    other.execute_batch("ROLLBACK").unwrap();
    stage.heals().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_written_or_synced_holds_everything_up_and_heals() {
    for disk in [Disk::Unwritable, Disk::Unsyncable] {
        let mut stage = Stage::set().await;
        the_disk_is(disk);
        stage.flood().await;
        stage.held_up(TroubleKind::Failing).await;
        the_disk_is(Disk::Well);
        stage.heals().await;
    }
}

/// A hub that goes on acknowledging into a file without a name loses all of it at its next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_ends_the_hub_and_nothing_more_is_acknowledged() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for gone in ["hub.sqlite", "hub.sqlite-wal"] {
        let mut hub = Hub::start().await;
        hub.records(EVENTS, [(1, event(1))]).await;
        hub.until_watermark(EVENTS, 1).await;
        let file = hub.config().database().with_file_name(gone);
        std::fs::remove_file(&file).unwrap();
        hub.records(EVENTS, [(2, event(2))]).await;
        let error = hub.ended().await;
        assert_eq!(
            hub.watermark(EVENTS),
            1,
            "acknowledged into a file that is gone"
        );
        assert!(
            matches!(&error, IngestError::Store(StoreError::Gone(it)) if *it == file),
            "{error}"
        );
        assert!(
            error.to_string().contains("restore the last backup"),
            "{error}"
        );
    }
}
