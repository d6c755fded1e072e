//! The gate: where agents come in.
//!
//! Its own TLS listener in front of rumqttd's router and codecs. It knows who is connected, binds
//! client id and topics to the certificate, lets only the packets pass that an agent needs, and
//! holds back a socket whose bytes ingest has not yet consumed.

use bytes::Bytes;
use scc_common::clock::WallMs;
use scc_common::id::AgentId;

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

/// A share of the gate's memory, given back on drop.
#[derive(Debug, Default)]
pub struct Charge {}

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

/// What others may ask of the gate. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {}

impl Gate {
    /// Writes a payload (QoS 0, `scc/down/<agent>`) to the agent's socket; dropped silently when
    /// the agent is not connected or does not read: everything down is repeatable.
    pub fn send(&self, _agent: &AgentId, _payload: Bytes) {}

    /// Who is connected now.
    #[must_use]
    pub fn connected(&self) -> Vec<Presence> {
        Vec::new()
    }

    /// Comings and goings from now on.
    #[must_use]
    pub fn presence(&self) -> tokio::sync::broadcast::Receiver<Presence> {
        tokio::sync::broadcast::channel(1).1
    }
}
