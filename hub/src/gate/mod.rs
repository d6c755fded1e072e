//! The gate: where agents come in.
//!
//! Its own TLS listener in front of rumqttd's router and codecs. It knows who is connected, binds
//! client id and topics to the certificate, lets only the packets pass that an agent needs, and
//! holds back a socket whose bytes ingest has not yet consumed.
//!
//! ```text
//! door ──► tls ──► packet (CONNECT) ──► registry ──► session ──► pool ──► router ──► Arrivals
//! accept,  who is  what may be said     one per      read and    charge   ring,      to ingest
//! pending  this                         agent        write                PUBACK
//! ```
//!
//! Promises
//! - An honest agent connects within two seconds, whatever strangers do (`pending`, `door`).
//! - What arrives carries the agent's name from its certificate, never from its own words (`packet`).
//! - Memory: at most [`limits::POOL`] on the way to ingest, twice as much in the router's ring
//!   whatever is sent and however long ago, and per connected agent one packet being received and [`limits::DOWN_BYTES`] being sent.
//! - A revoked certificate is out within two seconds of the new list (`tls`).
//! - The hub does not run on without its router: the handle that [`Opened::start`] returns ends with an error.

mod door;
mod events;
pub mod limits;
pub mod packet;
mod pending;
mod pool;
mod registry;
mod router;
mod session;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::AgentId;
use scc_common::identity::IdentityError;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::pool::Charge;
pub use self::router::Arrivals;

use self::registry::Registry;
use crate::config;
use crate::renewal::Told;

/// One payload that an agent published, on its way to ingest. Its bytes count against the agent's
/// and the pool's share until this is dropped.
#[derive(Debug)]
pub struct Arrived {
    /// Owner of the topic, which is the common name of the certificate.
    pub agent: AgentId,
    /// The MQTT payload.
    pub payload: Bytes,
    /// Gives the bytes back to the gate when dropped.
    pub charge: Charge,
}

/// An agent came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub agent: AgentId,
    /// Since when it has been connected, or when it went.
    pub at_ms: WallMs,
    /// Whether it is connected now.
    pub connected: bool,
    /// Why it went, in one short English sentence; empty when it came.
    pub why: String,
}

/// Why the gate cannot open or had to close.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A certificate, key or issuing level cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The revocation list cannot be used.
    #[error("{}: {what}", file.display())]
    Revocations {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// rustls cannot check certificates with this material.
    #[error("certificates cannot be checked: {0}")]
    Verifier(String),
    /// The address is taken or not ours.
    #[error("`gate.listen`: {address} cannot be listened on: {why}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// rumqttd's router is gone: exit and be restarted, agents send again.
    #[error("the router has ended: {0}")]
    RouterEnded(String),
}

impl GateError {
    /// The file that is to blame, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Identity(error) => error.file(),
            Self::Revocations { file, .. } => Some(file),
            Self::Verifier(_) | Self::Listen { .. } | Self::RouterEnded(_) => None,
        }
    }
}

/// What others may ask of the gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    registry: Arc<Registry>,
    address: SocketAddr,
}

impl Gate {
    /// Writes a payload (QoS 0, `scc/down/<agent>`) to the agent's socket; dropped silently when
    /// the agent is not connected or does not read: everything down is repeatable.
    pub fn send(&self, agent: &AgentId, payload: Bytes) {
        self.registry.send(agent, payload);
    }

    /// Who is connected now, by name.
    #[must_use]
    pub fn connected(&self) -> Vec<Presence> {
        self.registry.connected()
    }

    /// Comings and goings from now on. Who falls behind by a thousand asks [`connected`](Self::connected).
    #[must_use]
    pub fn presence(&self) -> broadcast::Receiver<Presence> {
        self.registry.presence()
    }

    /// Where it listens, with the port that the system chose for port 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A gate whose files are good and whose address is taken, and that lets nobody in yet.
pub struct Opened {
    tls: tls::Tls,
    listener: TcpListener,
    address: SocketAddr,
    clock: SharedClock,
    max_connections: usize,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Reads the files and takes the address.
///
/// # Errors
/// [`GateError`] if a file cannot be used or the address cannot be listened on.
pub async fn open(config: &config::Gate, clock: SharedClock) -> Result<Opened, GateError> {
    let tls = tls::Tls::load(config, Arc::clone(&clock))?;
    let cannot_listen = |e: std::io::Error| GateError::Listen {
        address: config.listen,
        why: e.to_string(),
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(cannot_listen)?;
    Ok(Opened {
        tls,
        address: listener.local_addr().map_err(cannot_listen)?,
        listener,
        clock,
        max_connections: config.max_connections,
    })
}

impl Opened {
    /// Where it says what is wrong with its files while it runs.
    #[must_use]
    pub fn told(&self) -> Told {
        self.tls.told()
    }

    /// Lets agents in.
    ///
    /// The handle ends with `Ok` after `stop`, when all connections have left, and with
    /// [`GateError::RouterEnded`] when the hub has to exit; [`Arrivals::recv`] gives `None` in both
    /// cases.
    ///
    /// # Errors
    /// [`GateError`] if the router cannot be started.
    pub async fn start(
        self,
        stop: CancellationToken,
    ) -> Result<(Gate, Arrivals, JoinHandle<Result<(), GateError>>), GateError> {
        let (entrance, arrivals) = router::start(stop.clone()).await?;
        let registry = Arc::new(Registry::new(Arc::clone(&self.clock), self.max_connections));
        let shared = Arc::new(door::Shared {
            tls: self.tls,
            registry: Arc::clone(&registry),
            entrance,
            pool: pool::Pool::new(),
            refusals: events::Refusals::new(Arc::clone(&self.clock)),
            clock: self.clock,
            pending: Arc::default(),
            closing: CancellationToken::new(),
            connections: AtomicU64::new(1),
        });
        events::listening(self.address);
        let running = tokio::spawn(door::run(shared, self.listener, stop));
        let gate = Gate {
            registry,
            address: self.address,
        };
        Ok((gate, arrivals, running))
    }
}

/// Nothing in the gate leaves its state half-changed when it panics, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
