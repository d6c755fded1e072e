//! The other end of the link: what a test says, and a small hub that keeps the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use scc_common::checksum::Checksum;
use scc_common::clock::ManualClock;
use scc_common::id::{AgentId, Epoch, RunId, Seq};
use scc_common::record::Event;
use scc_common::stream::Stream;
use scc_common::wire::{
    Ack, Answer, Down, DownMessage, Gap, Hello, LaneAck, LaneAnswer, PartAck, SeqRange, Up,
    UpMessage, WIRE_VERSION,
};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shelf::Shelf;
use crate::capture::board::Board;
use crate::uplink::link::{Closed, Dial, Link};
use crate::uplink::{Given, Handle, Uplink};
use scc_common::ranges::RangeSet;

struct PeerLink {
    up: mpsc::Sender<Bytes>,
    down: Mutex<mpsc::UnboundedReceiver<Bytes>>,
    signs: watch::Receiver<bool>,
}

fn cut() -> Closed {
    Closed::Ended("the peer cut the link".into())
}

impl Link for PeerLink {
    fn publish(&self, payload: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
        async move {
            self.up.send(payload).await.map_err(|_| cut())?;
            // as rumqttc's channel does: the payload is gone a while before its sender knows
            tokio::time::sleep(Duration::from_micros(100)).await;
            Ok(())
        }
        .boxed()
    }
    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Closed>> {
        async move { self.down.lock().await.recv().await.ok_or_else(cut) }.boxed()
    }
    fn sign_of_life(&self) -> Option<Instant> {
        self.signs.borrow().then(Instant::now)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

struct PeerDial {
    links: Mutex<mpsc::Receiver<PeerLink>>,
}

impl Dial for PeerDial {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Link>, Closed>> {
        async move {
            match self.links.lock().await.recv().await {
                Some(link) => Ok(Box::new(link) as Box<dyn Link>),
                None => Err(Closed::Network("nobody listens".into())),
            }
        }
        .boxed()
    }
}

/// One accepted connection, seen from the hub.
pub(super) struct Wire {
    up: mpsc::Receiver<Bytes>,
    down: mpsc::UnboundedSender<Bytes>,
    /// Whether it says unasked that it lives, as a hub does that holds the agent back.
    pub(super) signs: watch::Sender<bool>,
}

impl Wire {
    /// The next message of the agent, *now* included; panics after two minutes of silence.
    pub(super) async fn any(&mut self) -> Option<UpMessage> {
        let bytes = tokio::time::timeout(Duration::from_secs(120), self.up.recv())
            .await
            .expect("the agent says nothing")?;
        Some(Up::decode(&bytes).unwrap().msg)
    }

    /// The next message that is no *now*.
    pub(super) async fn heard(&mut self) -> UpMessage {
        loop {
            match self.any().await.expect("the agent hung up") {
                UpMessage::Now(_) => {}
                other => return other,
            }
        }
    }

    pub(super) async fn hello(&mut self) -> Hello {
        match self.heard().await {
            UpMessage::Hello(hello) => hello,
            other => panic!("expected hello, got {other:?}"),
        }
    }

    /// Asserts that no message but *now* comes within this time.
    pub(super) async fn silent_for(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(bytes) = tokio::time::timeout_at(end, self.up.recv()).await {
            let message = Up::decode(&bytes.expect("the agent hung up")).unwrap().msg;
            assert!(
                matches!(message, UpMessage::Now(_)),
                "unexpected {message:?}"
            );
        }
    }

    pub(super) fn say(&self, down: &Down) {
        let _ = self.down.send(Bytes::from(down.encode()));
    }
}

/// An uplink that runs, and the place where it connects.
pub(super) struct Rig {
    links: mpsc::Sender<PeerLink>,
    pub(super) shelf: Shelf,
    pub(super) board: Board,
    pub(super) clock: Arc<ManualClock>,
    pub(super) poke: Arc<Notify>,
    pub(super) handle: Handle,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
    pub(super) stop: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Rig {
    pub(super) fn start(shelf: Shelf, seed: u64) -> Self {
        let clock = ManualClock::at(1_795_000_000_000);
        let (board, _) = Board::new(clock.clone());
        let (links, receiver) = mpsc::channel(1);
        let (sender, events) = mpsc::unbounded_channel();
        let (poke, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let given = Given {
            agent: AgentId::new("rsud").unwrap(),
            version: "test".into(),
            store: shelf.clone(),
            board: board.clone(),
            clock: clock.clone(),
            events: sender,
            poke: Arc::clone(&poke),
            stop: stop.clone(),
            alive: Arc::default(),
        };
        let dialer = PeerDial {
            links: Mutex::new(receiver),
        };
        let (uplink, handle) = Uplink::new(given, dialer, seed);
        Self {
            links,
            shelf,
            board,
            clock,
            poke,
            handle,
            events,
            stop,
            task: tokio::spawn(uplink.run()),
        }
    }

    /// Lets the agent connect; `room` messages may wait unread.
    pub(super) async fn accept(&self, room: usize) -> Wire {
        let (up_sender, up) = mpsc::channel(room);
        let (down, down_receiver) = mpsc::unbounded_channel();
        let (signs, signs_receiver) = watch::channel(false);
        let link = PeerLink {
            up: up_sender,
            down: Mutex::new(down_receiver),
            signs: signs_receiver,
        };
        assert!(self.links.send(link).await.is_ok(), "the uplink has ended");
        Wire { up, down, signs }
    }
}

/// A hub's memory, and its rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Hub {
    pub(super) run: u64,
    pub(super) permission: u32,
    pub(super) paused: Vec<Stream>,
    pub(super) new_epoch: bool,
    /// The last message collided with something stored.
    conflict: bool,
    pub(super) stored: BTreeMap<(Epoch, Stream, Seq), Vec<u8>>,
    pub(super) gaps: BTreeSet<(Epoch, Stream, Seq)>,
    pub(super) spool: BTreeMap<(Epoch, Stream, Seq), Vec<u8>>,
    pub(super) duplicates: u64,
}

impl Hub {
    pub(super) fn new(permission: u32) -> Self {
        Self {
            run: 1,
            permission,
            ..Self::default()
        }
    }

    pub(super) fn down(&self, msg: DownMessage) -> Down {
        Down {
            v: WIRE_VERSION,
            run: RunId(self.run),
            permission: self.permission,
            paused: self.paused.clone(),
            new_epoch: self.new_epoch || self.conflict,
            msg,
        }
    }

    fn known(&self, epoch: Epoch, stream: Stream) -> RangeSet {
        let span = (epoch, stream, 0)..=(epoch, stream, Seq::MAX);
        let stored = self.stored.range(span.clone()).map(|((.., s), _)| *s);
        let gaps = self.gaps.range(span).map(|(.., s)| *s);
        RangeSet::of(stored.chain(gaps).map(|s| SeqRange { first: s, last: s }))
    }

    fn parts(&self, epoch: Epoch, stream: Stream) -> Vec<PartAck> {
        self.spool
            .range((epoch, stream, 0)..=(epoch, stream, Seq::MAX))
            .map(|((.., seq), bytes)| PartAck {
                seq: *seq,
                received: u32::try_from(bytes.len()).unwrap(),
            })
            .collect()
    }

    fn learn(&mut self, gaps: &[Gap]) {
        for gap in gaps {
            for seq in gap.range.first..=gap.range.last {
                self.gaps.insert((gap.epoch, gap.stream, seq));
            }
        }
    }

    pub(super) fn answer(&mut self, hello: &Hello) -> Down {
        let mut lanes = Vec::new();
        for offer in &hello.lanes {
            self.learn(&offer.gaps);
            let known = self.known(offer.epoch, offer.stream);
            let from = known.iter().last().map_or(1, |r| r.last + 1);
            let missing = known.holes(SeqRange {
                first: 1,
                last: from - 1,
            });
            lanes.push(LaneAnswer {
                epoch: offer.epoch,
                stream: offer.stream,
                from,
                missing,
                parts: self.parts(offer.epoch, offer.stream),
                mark: None,
            });
        }
        self.down(DownMessage::Answer(Answer {
            nonce: hello.nonce,
            wall_ms: 1_795_000_000_000,
            lanes,
        }))
    }

    pub(super) fn ack(&self, epoch: Epoch, stream: Stream) -> Down {
        let mut above: Vec<SeqRange> = self.known(epoch, stream).iter().collect();
        let watermark = match above.first() {
            Some(first) if first.first <= 1 => above.remove(0).last,
            _ => 0,
        };
        self.down(DownMessage::Ack(Ack {
            lanes: vec![LaneAck {
                epoch,
                stream,
                watermark,
                stored: above,
                parts: self.parts(epoch, stream),
            }],
        }))
    }

    fn commit(&mut self, key: (Epoch, Stream, Seq), sum: Checksum, body: Vec<u8>) {
        assert_eq!(Checksum::of(&body), sum, "the checksum is of another body");
        match self.stored.get(&key) {
            None => {
                self.stored.insert(key, body);
            }
            Some(known) if *known == body => self.duplicates += 1,
            Some(_) => self.conflict = true,
        }
    }

    /// Takes a message in; what to say to it, if anything.
    pub(super) fn take(&mut self, message: UpMessage) -> Option<Down> {
        self.conflict = false;
        match message {
            UpMessage::Now(_) => None,
            UpMessage::Hello(hello) => Some(self.answer(&hello)),
            UpMessage::Records(records) => {
                self.learn(&records.gaps);
                for record in records.records {
                    let key = (records.epoch, records.stream, record.seq);
                    self.commit(key, record.sum, record.body.into_vec());
                }
                Some(self.ack(records.epoch, records.stream))
            }
            UpMessage::Part(part) => {
                self.learn(&part.gaps);
                let key = (part.epoch, part.stream, part.seq);
                if self.stored.contains_key(&key) {
                    self.duplicates += 1;
                } else {
                    let spool = self.spool.entry(key).or_default();
                    if spool.len() == usize::try_from(part.offset).unwrap() {
                        spool.extend_from_slice(&part.data);
                    }
                    if spool.len() == usize::try_from(part.total).unwrap() {
                        let body = self.spool.remove(&key).unwrap();
                        self.commit(key, part.sum, body);
                    }
                }
                Some(self.ack(part.epoch, part.stream))
            }
        }
    }
}
