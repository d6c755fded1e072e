//! A hub's ingest in a temporary folder, and an agent's words to it.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "test code; the lint's exception covers test functions and test modules, not this file alone"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ManualClock, SystemClock};
use scc_common::id::{AgentId, BootId, DeviceId, Epoch, Seq};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Event, Health, LaneHealth, LinkMode, RecordBody,
    Snapshot, State,
};
use scc_common::stream::Stream;
use scc_common::wire::{
    Answer, Down, DownMessage, Gap, GapReason, Hello, LaneAck, LaneOffer, Part, Records, SeqRange,
    Up, UpMessage, WireRecord,
};
use scc_hub::config::{Config, Gate, Places, Web};
use scc_hub::gate::{Arrived, Charge};
use scc_hub::ingest::{Downlink, Ingest, IngestError, Limits, Notice, Status};
use scc_hub::media::Media;
use scc_hub::store::Store;
use serde_bytes::ByteBuf;
use tempfile::TempDir;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for any machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane(pub(crate) Epoch, pub(crate) Stream);

pub(crate) const EVENTS: Lane = Lane(Epoch(7), Stream::Event);
pub(crate) const STILLS: Lane = Lane(Epoch(7), Stream::Snapshot);

pub(crate) fn agent() -> AgentId {
    AgentId::new("rsud").unwrap()
}

/// A small record whose body differs for each number.
pub(crate) fn event(n: Seq) -> Vec<u8> {
    let event = Event::AgentStarted {
        version: format!("0.0.{n}"),
    };
    RecordBody::new(ManualClock::at(0).stamp(), None, Content::Event(event)).encode()
}

pub(crate) fn state_of_a_door() -> DeviceState {
    DeviceState {
        device: DeviceId::new("pintu").unwrap(),
        kind: DeviceKind::Camera,
        state: State::Down,
        cause: Some(Cause::Offline),
        since_ms: 1,
        last_good_ms: None,
        detail: None,
    }
}

pub(crate) fn device_state(state: DeviceState) -> Vec<u8> {
    let content = Content::Event(Event::DeviceState(state));
    RecordBody::new(ManualClock::at(0).stamp(), None, content).encode()
}

/// A health record that tells the next number of one lane.
pub(crate) fn health(lane: Lane, next: Seq) -> Vec<u8> {
    health_with(lane, next, "test", Vec::new())
}

/// The same from this version of the agent, with these devices.
pub(crate) fn health_with(
    lane: Lane,
    next: Seq,
    version: &str,
    devices: Vec<DeviceState>,
) -> Vec<u8> {
    let stamp = ManualClock::at(1_000).stamp();
    let lane = LaneHealth {
        epoch: lane.0,
        stream: lane.1,
        next,
        records: 0,
        bytes: 0,
        oldest_ms: None,
        lost: 0,
    };
    let health = Health {
        version: version.into(),
        boot: stamp.boot,
        uptime_s: 1,
        load1: 0.5,
        memory_total_kib: 1,
        memory_available_kib: 1,
        disk_total: 1,
        disk_free: 1,
        temperature_c: None,
        under_voltage: None,
        clock: stamp.quality,
        link: LinkMode::Normal,
        lanes: vec![lane],
        devices,
    };
    RecordBody::new(stamp, None, Content::Health(Box::new(health))).encode()
}

/// The picture in [`still`].
pub(crate) fn still_of(n: Seq, size: usize) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8];
    jpeg.extend((0..size).map(|i| u8::try_from((i as u64 * 31 + n) % 251).unwrap()));
    jpeg
}

/// A snapshot whose picture differs for each number.
pub(crate) fn still(n: Seq, size: usize) -> Vec<u8> {
    let snapshot = Snapshot {
        width: 640,
        height: 360,
        cadence_s: 60,
        jpeg: still_of(n, size),
    };
    let device = DeviceId::new("pintu").unwrap();
    let stamp = ManualClock::at(1_795_000_000_000).stamp();
    RecordBody::new(stamp, Some(device), Content::Snapshot(snapshot)).encode()
}

/// Hears what goes down before anybody else does.
pub(crate) type Ear = Box<dyn Fn(&Down) + Send + Sync>;

/// Keeps what goes down.
#[derive(Default)]
struct Downs {
    said: Mutex<Vec<Down>>,
    more: Notify,
    ear: Option<Ear>,
}

impl Downlink for Downs {
    fn send(&self, to: &AgentId, payload: Bytes) {
        if *to == agent() {
            let down = Down::decode(&payload).expect("the hub writes what agents read");
            if let Some(ear) = &self.ear {
                ear(&down);
            }
            self.said.lock().unwrap().push(down);
            self.more.notify_waiters();
        }
    }
}

pub(crate) struct Hub {
    pub(crate) media: Media,
    dir: PathBuf,
    /// Removes the folder; none if it is somebody else's.
    temporary: Option<TempDir>,
    up: mpsc::Sender<Arrived>,
    downs: Arc<Downs>,
    notices: broadcast::Receiver<Arc<Notice>>,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), IngestError>>,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        Self::start_with(Limits {
            media_reserve: 0,
            ..Limits::default()
        })
        .await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = Self::start_in(dir.path().to_path_buf(), limits, None).await;
        hub.temporary = Some(dir);
        hub
    }

    /// Over a folder that stays.
    pub(crate) async fn start_at(dir: &Path, ear: Option<Ear>) -> Self {
        let limits = Limits {
            media_reserve: 0,
            ..Limits::default()
        };
        Self::start_in(dir.to_path_buf(), limits, ear).await
    }

    async fn start_in(dir: PathBuf, limits: Limits, ear: Option<Ear>) -> Self {
        let config = config(&dir);
        let (up, arrivals) = mpsc::channel(64);
        let (tell, notices) = broadcast::channel(1_000);
        let (report, status) = watch::channel(Status::default());
        let downs = Arc::new(Downs {
            ear,
            ..Downs::default()
        });
        let stop = CancellationToken::new();
        let media = Media::open(&config.media()).unwrap();
        let ingest = Ingest {
            arrivals,
            down: Arc::clone(&downs) as Arc<dyn Downlink>,
            store: Store::open(&config.database()).unwrap(),
            media: media.clone(),
            spool: config.spool(),
            clock: SystemClock::shared(),
            notices: tell,
            status: report,
            stop: stop.clone(),
            limits,
        };
        Self {
            media,
            dir,
            temporary: None,
            up,
            downs,
            notices,
            status,
            stop,
            task: tokio::spawn(ingest.run()),
        }
    }

    /// Stops in order and starts again over the same folder.
    pub(crate) async fn restart(self) -> Self {
        self.restart_while_with(|_| ()).await
    }

    /// Ends in the middle of whatever it is doing and starts again over the same folder.
    pub(crate) async fn kill(self) -> Self {
        let mut hub = self;
        hub.task.abort();
        let ended = tokio::time::timeout(PATIENCE, &mut hub.task).await;
        drop(ended.expect("ingest ends"));
        let limits = Limits {
            media_reserve: 0,
            ..Limits::default()
        };
        hub.again(limits).await
    }

    async fn again(self, limits: Limits) -> Self {
        let mut next = Self::start_in(self.dir, limits, None).await;
        next.temporary = self.temporary;
        next
    }

    pub(crate) async fn restart_while(self, meanwhile: impl FnOnce()) -> Self {
        self.restart_while_with(|_| meanwhile()).await
    }

    pub(crate) async fn restart_while_with(self, meanwhile: impl FnOnce(&Self)) -> Self {
        let mut hub = self;
        hub.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut hub.task).await;
        ended.expect("ingest stops").unwrap().unwrap();
        meanwhile(&hub);
        let limits = Limits {
            media_reserve: 0,
            ..Limits::default()
        };
        hub.again(limits).await
    }

    pub(crate) fn config(&self) -> Config {
        config(&self.dir)
    }

    pub(crate) fn media_root(&self) -> PathBuf {
        self.config().media()
    }

    /// A connection of the test's own.
    pub(crate) fn sql(&self) -> Connection {
        let sql = Connection::open(self.config().database()).unwrap();
        sql.busy_timeout(PATIENCE).unwrap();
        sql
    }

    pub(crate) fn count(&self, query: &str) -> i64 {
        let count = |r: &rusqlite::Row<'_>| r.get::<_, Option<i64>>(0);
        self.sql().query_row(query, [], count).unwrap().unwrap_or(0)
    }

    pub(crate) fn texts(&self, query: &str) -> Vec<String> {
        let sql = self.sql();
        let mut rows = sql.prepare(query).unwrap();
        let texts = rows.query_map([], |r| r.get(0)).unwrap();
        texts.map(Result::unwrap).collect()
    }

    /// (stream, number) and checksum of each row.
    pub(crate) fn rows(&self) -> Vec<((u8, u64), Vec<u8>)> {
        let sql = self.sql();
        let mut rows = sql.prepare("SELECT stream, seq, sum FROM record").unwrap();
        let row = |r: &rusqlite::Row<'_>| {
            let seq: i64 = r.get(1)?;
            Ok(((r.get(0)?, seq.cast_unsigned()), r.get(2)?))
        };
        rows.query_map([], row)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    pub(crate) fn gap_rows(&self) -> Vec<(i64, i64)> {
        let sql = self.sql();
        let mut rows = sql
            .prepare("SELECT first, last FROM gap ORDER BY epoch, stream, first")
            .unwrap();
        rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    pub(crate) fn has(&self, lane: Lane, seq: Seq) -> bool {
        let Lane(epoch, stream) = lane;
        let found = format!(
            "SELECT count(*) FROM record WHERE epoch = {} AND stream = {} AND seq = {seq}",
            epoch.0.cast_signed(),
            stream.code()
        );
        self.count(&found) == 1
    }

    pub(crate) fn spooled_files(&self) -> usize {
        let folder = self.config().spool().join(agent().as_str());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// Waits for a condition; fails when it does not come.
    pub(crate) async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "it did not come; last: {:?}",
            self.last_down()
        );
    }

    pub(crate) async fn until_status(&self, holds: impl Fn(&Status) -> bool) {
        let mut status = self.status.clone();
        let waited = tokio::time::timeout(PATIENCE, status.wait_for(|s| holds(s))).await;
        waited.expect("the status comes").unwrap();
    }

    pub(crate) fn database_fails(&self) -> bool {
        self.status.borrow().database.is_some()
    }

    /// Waits for an ack of this lane.
    pub(crate) async fn until_ack(&self, lane: Lane, holds: impl Fn(&LaneAck) -> bool) {
        self.until(|hub| hub.acks(lane).iter().any(&holds)).await;
    }

    pub(crate) async fn until_watermark(&self, lane: Lane, watermark: Seq) {
        self.until(|hub| hub.watermark(lane) >= watermark).await;
    }

    /// The highest watermark that was acknowledged.
    pub(crate) fn watermark(&self, lane: Lane) -> Seq {
        let acks = self.acks(lane);
        acks.iter().map(|ack| ack.watermark).max().unwrap_or(0)
    }

    fn acks(&self, lane: Lane) -> Vec<LaneAck> {
        let said = self.downs.said.lock().unwrap();
        said.iter()
            .filter_map(|down| match &down.msg {
                DownMessage::Ack(ack) => Some(ack.lanes.clone()),
                _ => None,
            })
            .flatten()
            .filter(|ack| (ack.epoch, ack.stream) == (lane.0, lane.1))
            .collect()
    }

    pub(crate) fn last_down(&self) -> Option<Down> {
        self.downs.said.lock().unwrap().last().cloned()
    }

    /// How often agents were told how things are, and nothing else.
    pub(crate) fn tidings(&self) -> usize {
        let said = self.downs.said.lock().unwrap();
        let is_one = |msg: &DownMessage| matches!(msg, DownMessage::Ack(a) if a.lanes.is_empty());
        said.iter().filter(|down| is_one(&down.msg)).count()
    }

    pub(crate) fn forget_downs(&self) {
        self.downs.said.lock().unwrap().clear();
    }

    /// Nobody listens any longer: a notice that nobody reads keeps its payload's room at the gate.
    pub(crate) fn hear_no_notices(&mut self) {
        self.notices = broadcast::channel(1).1;
    }

    pub(crate) async fn notice(&mut self) -> Arc<Notice> {
        let heard = tokio::time::timeout(PATIENCE, self.notices.recv()).await;
        heard.expect("a notice comes").unwrap()
    }

    pub(crate) async fn say(&self, msg: UpMessage) {
        self.arrive(Up::new(agent(), msg)).await;
    }

    async fn arrive(&self, up: Up) {
        self.raw(up.encode()).await;
    }

    /// A payload of whatever bytes on the topic of [`agent`].
    pub(crate) async fn raw(&self, payload: Vec<u8>) {
        let arrived = Arrived {
            agent: agent(),
            payload: payload.into(),
            charge: Charge::default(),
        };
        self.up.send(arrived).await.expect("ingest runs");
    }

    pub(crate) async fn records(
        &self,
        lane: Lane,
        records: impl IntoIterator<Item = (Seq, Vec<u8>)>,
    ) {
        let records = records.into_iter().map(|(seq, body)| record(seq, body));
        self.say(UpMessage::Records(batch(
            lane,
            Vec::new(),
            records.collect(),
        )))
        .await;
    }

    /// Where a gate would put what it lets in.
    pub(crate) fn way_in(&self) -> mpsc::Sender<Arrived> {
        self.up.clone()
    }

    /// Why ingest has ended by itself.
    pub(crate) async fn ended(&mut self) -> IngestError {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended.expect("ingest ends").unwrap().unwrap_err()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Records of another agent, on its own topic.
    pub(crate) async fn records_of(
        &self,
        who: &str,
        lane: Lane,
        records: impl IntoIterator<Item = (Seq, Vec<u8>)>,
    ) {
        let arrived = Arrived {
            agent: AgentId::new(who).unwrap(),
            payload: payload_of(who, lane, records).into(),
            charge: Charge::default(),
        };
        self.up.send(arrived).await.expect("ingest runs");
    }

    pub(crate) async fn damaged_record(&self, lane: Lane, seq: Seq) {
        let mut damaged = record(seq, event(seq));
        damaged.sum = Checksum::of(b"another");
        self.say(UpMessage::Records(batch(lane, Vec::new(), vec![damaged])))
            .await;
    }

    /// An envelope of `claimed` on the topic of [`agent`].
    pub(crate) async fn forged(&self, claimed: &str, lane: Lane, seq: Seq, body: &[u8]) {
        let records = batch(lane, Vec::new(), vec![record(seq, body.to_vec())]);
        let claimed = AgentId::new(claimed).unwrap();
        self.arrive(Up::new(claimed, UpMessage::Records(records)))
            .await;
    }

    pub(crate) async fn gaps(&self, lane: Lane, gaps: &[(Seq, Seq, GapReason)]) {
        let gaps = gaps.iter().map(|&(first, last, reason)| Gap {
            epoch: lane.0,
            stream: lane.1,
            range: SeqRange { first, last },
            reason,
            at_ms: 1,
        });
        self.say(UpMessage::Records(batch(lane, gaps.collect(), Vec::new())))
            .await;
    }

    /// One part, of a body that is what it should be.
    pub(crate) async fn part(&self, lane: Lane, seq: Seq, body: &[u8], from: usize, to: usize) {
        self.part_of(lane, seq, Checksum::of(body), body, from, to)
            .await;
    }

    pub(crate) async fn part_of(
        &self,
        lane: Lane,
        seq: Seq,
        sum: Checksum,
        body: &[u8],
        from: usize,
        to: usize,
    ) {
        self.say(UpMessage::Part(Part {
            epoch: lane.0,
            stream: lane.1,
            seq,
            sum,
            total: u32::try_from(body.len()).unwrap(),
            offset: u32::try_from(from).unwrap(),
            gaps: Vec::new(),
            data: ByteBuf::from(&body[from..to]),
        }))
        .await;
    }

    /// All parts from an offset on.
    pub(crate) async fn parts(&self, lane: Lane, seq: Seq, body: &[u8], from: usize, size: usize) {
        for begin in (from..body.len()).step_by(size) {
            let end = (begin + size).min(body.len());
            self.part(lane, seq, body, begin, end).await;
        }
    }

    pub(crate) async fn part_claiming(&self, lane: Lane, seq: Seq, total: u32) {
        self.say(UpMessage::Part(Part {
            epoch: lane.0,
            stream: lane.1,
            seq,
            sum: Checksum::of(b""),
            total,
            offset: 0,
            gaps: Vec::new(),
            data: ByteBuf::from(vec![1]),
        }))
        .await;
    }

    /// Says hello, in the epoch of the first lane, and waits for the answer.
    pub(crate) async fn hello(&self, lanes: &[(Lane, Seq, Vec<SeqRange>)]) -> Answer {
        self.greet(lanes, false).await
    }

    /// The same, with the lanes of a card that has more of them than it can tell.
    pub(crate) async fn partial_hello(&self, lanes: &[(Lane, Seq, Vec<SeqRange>)]) -> Answer {
        self.greet(lanes, true).await
    }

    async fn greet(&self, lanes: &[(Lane, Seq, Vec<SeqRange>)], partial: bool) -> Answer {
        let nonce = self.downs.said.lock().unwrap().len() as u64 + 1_000;
        let offers = lanes.iter().map(|(lane, next, held)| LaneOffer {
            epoch: lane.0,
            stream: lane.1,
            next: *next,
            held: held.clone(),
            gaps: Vec::new(),
        });
        self.say(UpMessage::Hello(Hello {
            nonce,
            version: "test".into(),
            boot: BootId([1; 16]),
            wall_ms: 0,
            epoch: lanes[0].0.0,
            lanes: offers.collect(),
            partial,
        }))
        .await;
        let answer = || {
            let said = self.downs.said.lock().unwrap();
            said.iter().find_map(|down| match &down.msg {
                DownMessage::Answer(answer) if answer.nonce == nonce => Some(answer.clone()),
                _ => None,
            })
        };
        self.until(|_| answer().is_some()).await;
        answer().unwrap()
    }
}

/// A payload with these records of this agent.
pub(crate) fn payload_of(
    who: &str,
    lane: Lane,
    records: impl IntoIterator<Item = (Seq, Vec<u8>)>,
) -> Vec<u8> {
    let records = records.into_iter().map(|(seq, body)| record(seq, body));
    let msg = UpMessage::Records(batch(lane, Vec::new(), records.collect()));
    Up::new(AgentId::new(who).unwrap(), msg).encode()
}

/// One valid payload of each kind, to be damaged.
pub(crate) fn every_message() -> Vec<Vec<u8>> {
    let lane = Lane(Epoch(7), Stream::Event);
    let gap = Gap {
        epoch: lane.0,
        stream: lane.1,
        range: SeqRange { first: 3, last: 9 },
        reason: GapReason::Damaged,
        at_ms: 1,
    };
    let range = SeqRange { first: 1, last: 2 };
    let still = still(1, 200);
    let messages = [
        UpMessage::Records(batch(lane, vec![gap], vec![record(1, event(1))])),
        UpMessage::Part(Part {
            epoch: lane.0,
            stream: Stream::Snapshot,
            seq: 1,
            sum: Checksum::of(&still),
            total: u32::try_from(still.len()).unwrap(),
            offset: 0,
            gaps: vec![gap],
            data: ByteBuf::from(still),
        }),
        UpMessage::Hello(Hello {
            nonce: 1,
            version: "test".into(),
            boot: BootId([1; 16]),
            wall_ms: 0,
            epoch: lane.0,
            lanes: vec![LaneOffer {
                epoch: lane.0,
                stream: lane.1,
                next: 10,
                held: vec![range],
                gaps: vec![gap],
            }],
            partial: true,
        }),
    ];
    let encoded = messages.into_iter().map(|msg| Up::new(agent(), msg));
    encoded.map(|up| up.encode()).collect()
}

fn record(seq: Seq, body: Vec<u8>) -> WireRecord {
    WireRecord {
        seq,
        sum: Checksum::of(&body),
        body: ByteBuf::from(body),
    }
}

fn batch(lane: Lane, gaps: Vec<Gap>, records: Vec<WireRecord>) -> Records {
    Records {
        epoch: lane.0,
        stream: lane.1,
        gaps,
        records,
    }
}

fn config(dir: &Path) -> Config {
    let path = PathBuf::new;
    Config {
        state_dir: dir.to_path_buf(),
        gate: Gate {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: path(),
            key: path(),
            agents_ca: path(),
            revocations: path(),
            max_connections: 1,
        },
        web: Web {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: path(),
            key: path(),
        },
        places: Places::default(),
    }
}
