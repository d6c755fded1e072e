//! The door: the listener, and the way of a socket until it has said who it is.
//!
//! Promise: no socket, silent, slow, garbled or aborted, and no error of `accept` keeps another socket
//! waiting or ends the loop. Every socket has a task of its own from the first byte on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use rustls::{CertificateError, Error as TlsError};
use scc_common::clock::SharedClock;
use scc_common::identity;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::{
    ACCEPT_PAUSE, CLOSE, HANDSHAKE, MAX_CONTROL, TAKEOVER, TCP_IDLE, TCP_INTERVAL, WATCH,
};
use super::packet::{self, Front, Refusal, Rules};
use super::pending::{Pending, Slot};
use super::pool::Pool;
use super::registry::Registry;
use super::router::Entrance;
use super::session::{self, End, Guest};
use super::tls::{CertificateName, Changed, Tls};
use super::{GateError, events};

/// What every connection needs.
pub(super) struct Shared {
    pub(super) tls: Tls,
    pub(super) registry: Arc<Registry>,
    pub(super) entrance: Entrance,
    pub(super) pool: Pool,
    pub(super) clock: SharedClock,
    pub(super) refusals: events::Refusals,
    pub(super) pending: Arc<Pending>,
    /// Cancelled when all connections have to end.
    pub(super) closing: CancellationToken,
    pub(super) connections: AtomicU64,
}

impl Shared {
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }
}

/// Accepts until told to stop or until the router ends; returns when all connections have left.
pub(super) async fn run(
    gate: Arc<Shared>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), GateError> {
    let tasks = TaskTracker::new();
    tasks.spawn(watch(Arc::clone(&gate)));
    let result = loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            () = gate.entrance.ended.cancelled() => {
                break Err(GateError::RouterEnded("it takes nothing any more, or acknowledges what it was not given".into()));
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => {
                let slot = gate.pending.enter(from.ip());
                tasks.spawn(welcome(Arc::clone(&gate), socket, from, slot));
            }
            // The peer gave up while it was in the kernel's queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                gate.refusals.accept_failed(&error);
                gate.pending.make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    drop(listener);
    gate.closing.cancel();
    tasks.close();
    // Each has at most these two waits before it; one that hangs beyond is left to the runtime.
    let _ = timeout(TAKEOVER + CLOSE, tasks.wait()).await;
    result
}

/// Once a second: files, and the numbers that nobody's packet updates.
async fn watch(gate: Arc<Shared>) {
    loop {
        tokio::select! {
            () = gate.closing.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
        events::pool(gate.pool.in_use());
        events::pending(gate.pending.len());
        let reader = Arc::clone(&gate);
        let changed = tokio::task::spawn_blocking(move || reader.tls.reload()).await;
        match changed.unwrap_or(Changed::Nothing) {
            Changed::Nothing => {}
            Changed::Revocations => gate
                .registry
                .cut(&End::Revoked, |certificate| gate.tls.revokes(certificate)),
            Changed::Anchors => gate.registry.cut(&End::Anchors, |_| true),
        }
    }
}

/// From the accepted socket to a guest, then the guest's whole stay.
async fn welcome(gate: Arc<Shared>, socket: TcpStream, from: SocketAddr, slot: Slot) {
    let guest = tokio::select! {
        biased;
        () = gate.closing.cancelled() => return,
        () = slot.evicted.cancelled() => {
            let why = "it was slow, and others needed the place";
            return gate.refusals.refused(from.ip(), None, "evicted", why);
        }
        // Boxed, so that the room that a handshake needs is given back after it.
        guest = Box::pin(greet(&gate, socket, from)) => guest,
    };
    drop(slot);
    if let Some(guest) = guest {
        session::serve(&gate, guest).await;
    }
}

async fn greet(gate: &Shared, socket: TcpStream, from: SocketAddr) -> Option<Guest> {
    tune(&socket);
    let acceptor = TlsAcceptor::from(gate.tls.config());
    let handshake = timeout(HANDSHAKE, acceptor.accept(socket)).await;
    let mut stream = match handshake {
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => {
            tls_failed(gate, from, &error);
            return None;
        }
        Err(_) => {
            events::went_early(from.ip(), "tls_timeout", "no TLS handshake in time");
            return None;
        }
    };
    let refused = |agent, label, why: &str| gate.refusals.refused(from.ip(), agent, label, why);
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let name = CertificateName::of(certificate)?;
    let agent = match identity::agent_of(certificate) {
        Ok(agent) => agent,
        Err(error) => {
            refused(None, "profile", &error.to_string());
            return None;
        }
    };
    let rules = Rules::new(agent.clone());
    let mut received = BytesMut::new();
    match timeout(HANDSHAKE, first_packet(&mut stream, &mut received, &rules)).await {
        Ok(Ok(keep_alive)) => Some(Guest {
            stream,
            from,
            agent,
            certificate: name,
            rules,
            keep_alive,
            received,
        }),
        Ok(Err(Some(refusal))) => {
            let why = format!("it {refusal}");
            refused(Some(&agent), refusal.label(), &why);
            session::refuse(&mut stream, refusal.return_code()).await;
            None
        }
        Ok(Err(None)) => {
            events::went_early(from.ip(), "aborted", "left before CONNECT");
            None
        }
        Err(_) => {
            refused(
                Some(&agent),
                "connect_timeout",
                "it sent no CONNECT in time",
            );
            None
        }
    }
}

/// Reads CONNECT; returns the keep alive. `Err(None)` when the peer left.
async fn first_packet(
    stream: &mut TlsStream<TcpStream>,
    received: &mut BytesMut,
    rules: &Rules,
) -> Result<u16, Option<Refusal>> {
    loop {
        match packet::next(received, MAX_CONTROL)? {
            Front::Packet(packet) => return Ok(rules.connect(packet)?),
            Front::Need(missing) => {
                received.reserve(missing);
                match stream.read_buf(received).await {
                    Ok(0) | Err(_) => return Err(None),
                    Ok(_) => {}
                }
            }
        }
    }
}

fn tls_failed(gate: &Shared, from: SocketAddr, error: &io::Error) {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<TlsError>());
    let label = match inner {
        Some(TlsError::InvalidCertificate(CertificateError::Revoked)) => "revoked",
        Some(TlsError::InvalidCertificate(_)) => "certificate",
        Some(TlsError::NoCertificatesPresented) => "no_certificate",
        Some(_) => "tls",
        None => return events::went_early(from.ip(), "aborted", &error.to_string()),
    };
    gate.refusals
        .refused(from.ip(), None, label, &error.to_string());
}

/// Acknowledgements must not wait for Nagle, and a peer that lost its power must not stay for ever.
/// What the system refuses here costs comfort only.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_IDLE)
        .with_interval(TCP_INTERVAL)
        .with_retries(3);
    let _ = SockRef::from(socket).set_tcp_keepalive(&keepalive);
}
