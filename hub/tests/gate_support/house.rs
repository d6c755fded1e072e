//! A whole way in: gate, ingest and ledger, as the hub puts them together, and an agent that goes it.

use std::time::Duration;

use rumqttc::QoS;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ManualClock, SystemClock};
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::record::{Content, Event, RecordBody};
use scc_common::stream::Stream;
use scc_common::wire::{Down, DownMessage, Records, Up, UpMessage, WireRecord};
use scc_hub::ingest::{Ingest, IngestError, Limits, Status};
use scc_hub::media::Media;
use scc_hub::store::Store;
use serde_bytes::ByteBuf;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::{Agent, World, soon};

/// How long an honest agent may take to connect, whatever others do.
pub(crate) const HONEST: Duration = Duration::from_secs(2);

const EPOCH: Epoch = Epoch(7);

/// A gate with the real ingest behind it.
pub(crate) struct House {
    pub(crate) world: World,
    ingest: JoinHandle<Result<(), IngestError>>,
}

impl House {
    pub(crate) async fn open(names: &[&str]) -> Self {
        let mut world = World::open(names).await;
        let arrivals = world.take_arrivals();
        let ingest = Ingest {
            arrivals: arrivals.queue(),
            down: Arc::new(world.gate.clone()),
            store: Store::open(&world.path("hub.sqlite")).unwrap(),
            media: Media::open(&world.path("media")).unwrap(),
            spool: world.path("spool"),
            clock: SystemClock::shared(),
            notices: broadcast::channel(1_000).0,
            status: watch::channel(Status::default()).0,
            stop: world.stop.clone(),
            limits: Limits {
                media_reserve: 0,
                ..Limits::default()
            },
        };
        Self {
            world,
            ingest: tokio::spawn(ingest.run()),
        }
    }

    /// What the ledger answers to a question for a number.
    pub(crate) fn count(&self, query: &str) -> i64 {
        let sql = rusqlite::Connection::open(self.world.path("hub.sqlite")).unwrap();
        sql.busy_timeout(Duration::from_secs(30)).unwrap();
        sql.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Stops in order: ingest has committed all that it took when this returns.
    pub(crate) async fn close(self) {
        self.world.stop.cancel();
        soon(self.ingest).await.unwrap().unwrap();
        soon(self.world.running).await.unwrap().unwrap();
    }
}

/// A record that can be read, different for each number.
pub(crate) fn event(seq: Seq) -> Vec<u8> {
    let version = format!("0.0.{seq}");
    let content = Content::Event(Event::AgentStarted { version });
    RecordBody::new(ManualClock::at(0).stamp(), None, content).encode()
}

/// The envelope of one record of this agent.
pub(crate) fn envelope(agent: &str, seq: Seq, body: Vec<u8>) -> Vec<u8> {
    let records = Records {
        epoch: EPOCH,
        stream: Stream::Event,
        gaps: Vec::new(),
        records: vec![WireRecord {
            seq,
            sum: Checksum::of(&body),
            body: ByteBuf::from(body),
        }],
    };
    Up::new(AgentId::new(agent).unwrap(), UpMessage::Records(records)).encode()
}

/// An agent that has something to deliver again and again, each time over a new connection.
pub(crate) struct Honest {
    name: &'static str,
    delivered: Seq,
}

impl Honest {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, delivered: 0 }
    }

    /// So many of its records are in the ledger.
    pub(crate) const fn delivered(&self) -> Seq {
        self.delivered
    }

    /// Connects within [`HONEST`], sends the next record and waits until it is acknowledged.
    pub(crate) async fn delivers(&mut self, world: &World, after: &str) {
        let connecting = tokio::time::timeout(HONEST, world.connect(self.name));
        let mut agent = connecting.await.unwrap_or_else(|_| {
            panic!("an honest agent could not connect within {HONEST:?} after {after}")
        });
        agent.subscribe(&format!("scc/down/{}", self.name)).await;
        self.delivered += 1;
        send(&mut agent, self.name, self.delivered, event(self.delivered)).await;
        acknowledged(&mut agent, self.delivered).await;
    }
}

/// Publishes one record.
pub(crate) async fn send(agent: &mut Agent, name: &str, seq: Seq, body: Vec<u8>) {
    let payload = envelope(name, seq, body);
    let topic = format!("scc/up/{name}");
    let sent = agent
        .client
        .publish(topic, QoS::AtLeastOnce, false, payload);
    sent.await.unwrap();
}

/// Waits until the ledger holds everything up to this number.
pub(crate) async fn acknowledged(agent: &mut Agent, seq: Seq) {
    loop {
        let down = Down::decode(&agent.received().await).expect("the hub writes what agents read");
        if let DownMessage::Ack(ack) = down.msg
            && ack.lanes.iter().any(|lane| lane.watermark >= seq)
        {
            return;
        }
    }
}
