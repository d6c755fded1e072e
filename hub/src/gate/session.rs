//! One agent's connection, from its good CONNECT to its end.
//!
//! Two loops run side by side in one task: one reads packets, charges them and hands them to the
//! router; one writes acknowledgements, answers and what goes down. The first to end ends the
//! connection, and so does a word from the registry (taken over, revoked).
//!
//! Promise: whatever happens, the link to the router is closed before the agent's turn is given on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use rumqttd::protocol::{
    ConnectReturnCode, Packet, PingResp, Publish, QoS, SubAck, SubscribeReasonCode,
};
use scc_common::id::AgentId;
use scc_common::topic;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::door::Shared;
use super::events;
use super::limits::{
    ANSWERS, CLOSE, KEEP_BUFFER, MAX_PACKET, READ_STEP, TAKEOVER, UNACKED, WRITE_STALL,
};
use super::packet::{self, Front, Inbound, Refusal, Rules};
use super::pool::{Pool, Share};
use super::registry::{Claimed, Down};
use super::router::{Acks, AgentLink, Gone, UpLink};
use super::tls::CertificateName;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum End {
    #[error("it said good-bye")]
    Left,
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("nothing was heard from it for {0} s")]
    Silent(u64),
    #[error("it does not read what it is sent")]
    NotReading,
    #[error("it {0}")]
    Refused(#[from] Refusal),
    #[error("another connection with its certificate came from {0}")]
    TakenOver(SocketAddr),
    #[error("the connection that it replaces did not leave")]
    NoTurn,
    #[error("all places are taken")]
    Full,
    #[error("its certificate is revoked")]
    Revoked,
    #[error("the agents' issuing level has changed")]
    Anchors,
    #[error("the hub's router has ended")]
    Router,
    #[error("the hub is stopping")]
    Stopping,
}

impl End {
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost(_) => "lost",
            Self::Silent(_) => "silent",
            Self::NotReading => "not_reading",
            Self::Refused(refusal) => refusal.label(),
            Self::TakenOver(_) => "taken_over",
            Self::NoTurn => "no_turn",
            Self::Full => "full",
            Self::Revoked => "revoked",
            Self::Anchors => "anchors",
            Self::Router => "router",
            Self::Stopping => "stopping",
        }
    }

    fn lost(error: &std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// A peer whose certificate and CONNECT are good.
pub(super) struct Guest {
    /// Boxed, because it is more than a kilobyte and is handed through futures that would each keep room
    /// for it, for every connection and for as long as it stays.
    pub(super) stream: Box<TlsStream<TcpStream>>,
    pub(super) from: SocketAddr,
    pub(super) agent: AgentId,
    pub(super) certificate: CertificateName,
    pub(super) rules: Rules,
    /// Seconds.
    pub(super) keep_alive: u16,
    /// What came behind CONNECT.
    pub(super) received: BytesMut,
}

/// Serves a guest until it goes.
pub(super) async fn serve(gate: &Shared, mut guest: Guest) {
    let no = gate.next_connection();
    let claim = gate
        .registry
        .claim(&guest.agent, no, guest.certificate.clone(), guest.from);
    let Some(mut claimed) = claim else {
        return turn_away(gate, &mut guest, &End::Full).await;
    };
    // After the claim: either this sees the new list, or the watcher sees the claim.
    if gate.tls.revokes(&guest.certificate) {
        gate.registry.leave(&guest.agent, no, &End::Revoked);
        return turn_away(gate, &mut guest, &End::Revoked).await;
    }
    let turn = tokio::select! {
        biased;
        end = &mut claimed.cut => Err(end.unwrap_or(End::Stopping)),
        () = gate.closing.cancelled() => Err(End::Stopping),
        turn = timeout(TAKEOVER, Arc::clone(&claimed.turn).lock_owned()) =>
            turn.map_err(|_| End::NoTurn),
    };
    let (turn, link) = match turn {
        Ok(turn) => match gate.links.open(&guest.agent).await {
            Ok(link) => (turn, link),
            Err(_) => {
                gate.registry.leave(&guest.agent, no, &End::Router);
                return turn_away(gate, &mut guest, &End::Router).await;
            }
        },
        Err(end) => {
            gate.registry.leave(&guest.agent, no, &end);
            return turn_away(gate, &mut guest, &end).await;
        }
    };
    let mut stream = Session {
        gate,
        claimed,
        link,
    }
    .run(guest)
    .await;
    drop(turn);
    // Nobody waits for this any more.
    let _ = timeout(CLOSE, stream.shutdown()).await;
}

async fn turn_away(gate: &Shared, guest: &mut Guest, end: &End) {
    gate.refusals.refused(
        guest.from.ip(),
        Some(&guest.agent),
        end.label(),
        &end.to_string(),
    );
    refuse(&mut guest.stream, ConnectReturnCode::ServiceUnavailable).await;
}

/// Answers a CONNECT that is refused, as far as the peer listens.
pub(super) async fn refuse(stream: &mut TlsStream<TcpStream>, code: ConnectReturnCode) {
    let mut buffer = BytesMut::new();
    if packet::write(packet::connack(code), &mut buffer).is_ok() {
        let _ = timeout(CLOSE, async {
            stream.write_all(&buffer).await?;
            stream.shutdown().await
        })
        .await;
    }
}

struct Session<'a> {
    gate: &'a Shared,
    claimed: Claimed,
    link: AgentLink,
}

impl Session<'_> {
    /// From CONNACK to the closed link; gives the socket back for closing.
    async fn run(self, guest: Guest) -> Box<TlsStream<TcpStream>> {
        let Self {
            gate,
            mut claimed,
            mut link,
        } = self;
        let (mut read, mut write) = tokio::io::split(guest.stream);
        let down = Arc::new(Down::default());
        let unacked = Semaphore::new(UNACKED);
        let (answer, answers) = mpsc::channel(ANSWERS);
        // The first packet that the writer finds.
        let accepted = answer.try_send(packet::connack(ConnectReturnCode::Success));
        debug_assert!(accepted.is_ok(), "the channel was just made");

        let began = gate.clock.mono_ms();
        let live = gate.registry.live(&guest.agent, claimed.no, &down);
        events::connected(&guest.agent, guest.from, guest.keep_alive, live);
        let end = tokio::select! {
            biased;
            end = &mut claimed.cut => end.unwrap_or(End::Stopping),
            () = gate.closing.cancelled() => End::Stopping,
            end = Writer {
                stream: &mut write,
                acks: &mut link.acks,
                answers,
                down: &down,
                topic: Bytes::from(topic::down(&guest.agent)),
                unacked: &unacked,
            }.run() => end,
            end = Reader {
                stream: &mut read,
                buffer: guest.received,
                rules: &guest.rules,
                // MQTT 3.1.1, 3.1.2.10.
                idle: Duration::from_millis(u64::from(guest.keep_alive) * 1_500),
                up: &mut link.up,
                pool: &gate.pool,
                share: &claimed.share,
                unacked: &unacked,
                answer,
                down: &down,
            }.run() => end,
        };
        link.close().await;
        let left = gate.registry.leave(&guest.agent, claimed.no, &end);
        let seconds = gate.clock.mono_ms().saturating_sub(began) / 1_000;
        events::gone(&guest.agent, &end, seconds, left.unwrap_or(0));
        read.unsplit(write)
    }
}

struct Reader<'a, S> {
    stream: &'a mut ReadHalf<S>,
    buffer: BytesMut,
    rules: &'a Rules,
    idle: Duration,
    up: &'a mut UpLink,
    pool: &'a Pool,
    share: &'a Share,
    unacked: &'a Semaphore,
    answer: mpsc::Sender<Packet>,
    down: &'a Down,
}

impl<S: AsyncRead + AsyncWrite> Reader<'_, S> {
    async fn run(mut self) -> End {
        loop {
            let before = self.buffer.len();
            match packet::next(&mut self.buffer, MAX_PACKET) {
                Ok(Front::Packet(inbound)) => {
                    let taken = before - self.buffer.len();
                    if let Err(end) = self.packet(inbound).await {
                        return end;
                    }
                    if taken > KEEP_BUFFER {
                        self.buffer = BytesMut::from(&self.buffer[..]);
                    }
                }
                Ok(Front::Need(missing)) => {
                    if let Err(end) = self.read(missing).await {
                        return end;
                    }
                }
                Err(refusal) => return End::Refused(refusal),
            }
        }
    }

    /// Waits for bytes. The idle time begins anew with any byte, because a large packet on a slow link
    /// takes longer than it; and it runs only here, because a peer that the gate does not read cannot
    /// be heard.
    async fn read(&mut self, missing: usize) -> Result<(), End> {
        self.buffer.reserve(missing.min(READ_STEP));
        match timeout(self.idle, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(End::Lost("closed by the other side".into())),
            Ok(Ok(bytes)) => {
                events::received(bytes);
                Ok(())
            }
            Ok(Err(error)) => Err(End::lost(&error)),
            Err(_) => Err(End::Silent(self.idle.as_secs())),
        }
    }

    async fn packet(&mut self, inbound: Inbound) -> Result<(), End> {
        match inbound {
            Inbound::Publish {
                publish,
                acknowledged,
            } => {
                self.rules.publish(&publish)?;
                if acknowledged && let Ok(permit) = self.unacked.acquire().await {
                    // Given back by the writer, with the PUBACK.
                    permit.forget();
                }
                let charge = self.pool.charge(self.share, publish.payload.len()).await;
                let publish = self.rules.detach(publish);
                events::published();
                let handed_on = self.up.publish(publish, charge).await;
                handed_on.map_err(|Gone| End::Router)
            }
            Inbound::Subscribe { pkid, filters } => {
                self.rules.subscribe(&filters)?;
                self.down.subscribe();
                // Answered here and not by the router, which never hears of it: what goes down is
                // written straight to the socket, needs no ring of the router, and the router can
                // never find the buffer of an agent full (it panics when such an agent leaves).
                let suback = SubAck {
                    pkid,
                    return_codes: vec![SubscribeReasonCode::Success(QoS::AtMostOnce)],
                };
                self.answer(Packet::SubAck(suback, None)).await
            }
            Inbound::Ping => self.answer(Packet::PingResp(PingResp)).await,
            Inbound::Disconnect => Err(End::Left),
            Inbound::Connect { .. } => Err(End::Refused(Refusal::Order)),
        }
    }

    async fn answer(&self, packet: Packet) -> Result<(), End> {
        self.answer.send(packet).await.map_err(|_| End::NotReading)
    }
}

struct Writer<'a, S> {
    stream: &'a mut WriteHalf<S>,
    acks: &'a mut Acks,
    answers: mpsc::Receiver<Packet>,
    down: &'a Down,
    topic: Bytes,
    unacked: &'a Semaphore,
}

impl<S: AsyncRead + AsyncWrite> Writer<'_, S> {
    async fn run(mut self) -> End {
        // CONNACK goes before anything else.
        let Some(connack) = self.answers.recv().await else {
            return End::Left;
        };
        let mut batch = Batch::default();
        batch.put(connack);
        loop {
            if let Err(end) = self.flush(&mut batch).await {
                return end;
            }
            tokio::select! {
                ack = self.acks.next() => match ack {
                    Ok(ack) => batch.put(ack),
                    Err(Gone) => return End::Router,
                },
                Some(answer) = self.answers.recv() => batch.put(answer),
                payload = self.down.next() => batch.publish(&self.topic, payload),
            }
            // Whatever else is there goes along, in fewer TLS records and packets.
            while batch.bytes.len() < READ_STEP {
                if let Ok(answer) = self.answers.try_recv() {
                    batch.put(answer);
                } else if let Some(payload) = self.down.pop() {
                    batch.publish(&self.topic, payload);
                } else if let Some(Ok(ack)) = self.acks.next().now_or_never() {
                    batch.put(ack);
                } else {
                    break;
                }
            }
        }
    }

    async fn flush(&mut self, batch: &mut Batch) -> Result<(), End> {
        events::sent(batch.bytes.len());
        while !batch.bytes.is_empty() {
            match timeout(WRITE_STALL, self.stream.write_buf(&mut batch.bytes)).await {
                Ok(Ok(0)) => return Err(End::Lost("closed by the other side".into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(End::lost(&error)),
                Err(_) => return Err(End::NotReading),
            }
        }
        match timeout(WRITE_STALL, self.stream.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(End::lost(&error)),
            Err(_) => return Err(End::NotReading),
        }
        self.unacked.add_permits(std::mem::take(&mut batch.acks));
        Ok(())
    }
}

/// Packets that are written together.
#[derive(Default)]
struct Batch {
    bytes: BytesMut,
    /// PUBACKs among them.
    acks: usize,
}

impl Batch {
    fn put(&mut self, packet: Packet) {
        match packet {
            Packet::PubAck(..) => self.acks += 1,
            Packet::ConnAck(..)
            | Packet::SubAck(..)
            | Packet::PingResp(_)
            | Packet::Publish(..) => {}
            // The router's own greeting of the link is consumed by rumqttd; nothing else is due.
            _ => return,
        }
        // The codec fails only for a QoS 1 publish without a packet id, and there is none.
        let written = packet::write(packet, &mut self.bytes);
        debug_assert!(written.is_ok());
    }

    fn publish(&mut self, topic: &Bytes, payload: Bytes) {
        self.put(Packet::Publish(
            Publish::new(topic.clone(), payload, false),
            None,
        ));
    }
}
