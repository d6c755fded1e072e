//! One agent's connection, from its good CONNECT to its end.
//!
//! Two loops run side by side in one task: one reads packets, charges them and hands them to the
//! router; one writes acknowledgements, answers and what goes down. The first to end ends the
//! connection, and so does a word from the registry (taken over, revoked).
//!
//! Promises
//! - Whatever happens, nothing more is handed to the router by the time the agent's turn is given on.
//! - Who is not read because ingest cannot keep up is told that the gate lives: it is sent PINGRESPs
//!   for the pings that the gate cannot see, so that it does not take the link for dead.
//! - Who is quiet costs little: between packets nothing is kept but TLS and this task.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{
    ConnectReturnCode, Packet, PingResp, PubAck, PubAckReason, Publish, QoS, SubAck,
    SubscribeReasonCode,
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
    CLOSE, KEEP_BUFFER, MAX_PACKET, OWED, QUIET, QUIET_BUFFER, READ_STEP, SIGNS_OF_LIFE, TAKEOVER,
    WRITE_STALL,
};
use super::packet::{self, Front, Inbound, Refusal, Rules};
use super::pool::{Charge, Share};
use super::registry::{Claimed, Down};
use super::router::{Due, Gone};
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

    /// Why all connections have to end.
    fn of_closing(gate: &Shared) -> Self {
        if gate.entrance.ended.is_cancelled() {
            Self::Router
        } else {
            Self::Stopping
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
        () = gate.closing.cancelled() => Err(End::of_closing(gate)),
        turn = timeout(TAKEOVER, Arc::clone(&claimed.turn).lock_owned()) =>
            turn.map_err(|_| End::NoTurn),
    };
    let turn = match turn {
        Ok(turn) => turn,
        Err(end) => {
            gate.registry.leave(&guest.agent, no, &end);
            return turn_away(gate, &mut guest, &end).await;
        }
    };
    let mut stream = stay(gate, claimed, guest).await;
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

/// From CONNACK to the end; gives the socket back for closing.
async fn stay(gate: &Shared, mut claimed: Claimed, guest: Guest) -> Box<TlsStream<TcpStream>> {
    let (mut read, mut write) = tokio::io::split(guest.stream);
    let down = Arc::new(Down::default());
    let owed = Semaphore::new(OWED);
    let (answer, answers) = mpsc::unbounded_channel();

    let began = gate.clock.mono_ms();
    let live = gate.registry.live(&guest.agent, claimed.no, &down);
    events::connected(&guest.agent, guest.from, guest.keep_alive, live);
    let end = tokio::select! {
        biased;
        end = &mut claimed.cut => end.unwrap_or(End::Stopping),
        () = gate.closing.cancelled() => End::of_closing(gate),
        end = Writer {
            stream: &mut write,
            answers,
            down: &down,
            agent: &guest.agent,
            owed: &owed,
        }.run() => end,
        end = Reader {
            gate,
            stream: &mut read,
            buffer: guest.received,
            rules: &guest.rules,
            agent: &guest.agent,
            keep_alive: Duration::from_secs(u64::from(guest.keep_alive)),
            share: &claimed.share,
            owed: &owed,
            answer,
            down: &down,
        }.run() => end,
    };
    let left = gate.registry.leave(&guest.agent, claimed.no, &end);
    let seconds = gate.clock.mono_ms().saturating_sub(began) / 1_000;
    events::gone(&guest.agent, &end, seconds, left.unwrap_or(0));
    read.unsplit(write)
}

/// What the reader or the router wants to have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The router has the publish with this packet id.
    Puback(u16),
    /// The subscription with this packet id stands.
    Suback(u16),
    /// The gate is there.
    Pong,
}

struct Reader<'a, S> {
    gate: &'a Shared,
    stream: &'a mut ReadHalf<S>,
    buffer: BytesMut,
    rules: &'a Rules,
    agent: &'a AgentId,
    keep_alive: Duration,
    share: &'a Share,
    owed: &'a Semaphore,
    answer: mpsc::UnboundedSender<Answer>,
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
        // MQTT 3.1.1, 3.1.2.10.
        let mut idle = self.keep_alive * 3 / 2;
        if self.buffer.is_empty() && self.buffer.capacity() > QUIET_BUFFER {
            match timeout(QUIET, self.stream.read_buf(&mut self.buffer)).await {
                Ok(read) => return heard(read),
                Err(_) => self.buffer = BytesMut::with_capacity(missing),
            }
            idle -= QUIET;
        }
        match timeout(idle, self.stream.read_buf(&mut self.buffer)).await {
            Ok(read) => heard(read),
            Err(_) => Err(End::Silent((self.keep_alive * 3 / 2).as_secs())),
        }
    }

    async fn packet(&mut self, inbound: Inbound) -> Result<(), End> {
        match inbound {
            Inbound::Publish { publish, pkid } => {
                self.rules.publish(&publish)?;
                if pkid.is_some() {
                    self.owe().await;
                }
                let charge = self.charge(publish.payload.len()).await;
                let publish = self.rules.detach(publish);
                events::published();
                let due = pkid.map(|pkid| Due::new(pkid, &self.answer));
                let handed_on = (self.gate.entrance).publish(self.agent, publish, charge, due);
                handed_on.map_err(|Gone| End::Router)
            }
            Inbound::Subscribe { pkid, filters } => {
                self.rules.subscribe(&filters)?;
                self.down.subscribe();
                // Answered here and not by the router, which never hears of it: what goes down is
                // written straight to the socket and needs no ring of the router.
                self.owe().await;
                self.answer(Answer::Suback(pkid));
                Ok(())
            }
            Inbound::Ping => {
                self.owe().await;
                self.answer(Answer::Pong);
                Ok(())
            }
            Inbound::Disconnect => Err(End::Left),
            Inbound::Connect { .. } => Err(End::Refused(Refusal::Order)),
        }
    }

    /// Waits until there is room for one more answer; the writer gives it back when it has written it.
    async fn owe(&self) {
        // The semaphore is never closed.
        if let Ok(permit) = self.owed.acquire().await {
            permit.forget();
        }
    }

    /// The writer lives as long as this.
    fn answer(&self, answer: Answer) {
        let _ = self.answer.send(answer);
    }

    /// Waits until ingest has consumed enough of what came before.
    async fn charge(&self, payload: usize) -> Charge {
        let mut charge = pin!(self.gate.pool.charge(self.share, payload));
        loop {
            match timeout(self.keep_alive / SIGNS_OF_LIFE, charge.as_mut()).await {
                Ok(charge) => return charge,
                // None when so much is owed that the peer will hear enough, or does not listen.
                Err(_) => {
                    if let Ok(permit) = self.owed.try_acquire() {
                        permit.forget();
                        self.answer(Answer::Pong);
                    }
                }
            }
        }
    }
}

fn heard(read: std::io::Result<usize>) -> Result<(), End> {
    match read {
        Ok(0) => Err(End::Lost("closed by the other side".into())),
        Ok(bytes) => {
            events::received(bytes);
            Ok(())
        }
        Err(error) => Err(End::lost(&error)),
    }
}

struct Writer<'a, S> {
    stream: &'a mut WriteHalf<S>,
    answers: mpsc::UnboundedReceiver<Answer>,
    down: &'a Down,
    agent: &'a AgentId,
    owed: &'a Semaphore,
}

impl<S: AsyncRead + AsyncWrite> Writer<'_, S> {
    async fn run(mut self) -> End {
        let mut batch = Batch::default();
        // CONNACK goes before anything else.
        batch.put(packet::connack(ConnectReturnCode::Success));
        loop {
            if let Err(end) = self.flush(batch).await {
                return end;
            }
            batch = Batch::default();
            tokio::select! {
                Some(answer) = self.answers.recv() => batch.answer(answer),
                payload = self.down.next() => batch.publish(self.agent, payload),
            }
            // Whatever else is there goes along, in fewer TLS records and packets.
            while batch.bytes.len() < READ_STEP {
                if let Ok(answer) = self.answers.try_recv() {
                    batch.answer(answer);
                } else if let Some(payload) = self.down.pop() {
                    batch.publish(self.agent, payload);
                } else {
                    break;
                }
            }
        }
    }

    async fn flush(&mut self, mut batch: Batch) -> Result<(), End> {
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
        self.owed.add_permits(batch.answers);
        Ok(())
    }
}

/// Packets that are written together, in memory that goes with them.
#[derive(Default)]
struct Batch {
    bytes: BytesMut,
    /// Answers among them.
    answers: usize,
}

impl Batch {
    fn answer(&mut self, answer: Answer) {
        self.answers += 1;
        self.put(match answer {
            Answer::Puback(pkid) => {
                let reason = PubAckReason::Success;
                Packet::PubAck(PubAck { pkid, reason }, None)
            }
            Answer::Suback(pkid) => {
                let return_codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce)];
                Packet::SubAck(SubAck { pkid, return_codes }, None)
            }
            Answer::Pong => Packet::PingResp(PingResp),
        });
    }

    fn publish(&mut self, agent: &AgentId, payload: Bytes) {
        self.put(Packet::Publish(
            Publish::new(topic::down(agent).into(), payload, false),
            None,
        ));
    }

    fn put(&mut self, packet: Packet) {
        // The codec fails only for a QoS 1 publish without a packet id, and there is none.
        let written = packet::write(packet, &mut self.bytes);
        debug_assert!(written.is_ok());
    }
}
