//! From received bytes to the few packets that an agent needs.
//!
//! rumqttd's MQTT 3.1.1 codec does the parsing, behind a whitelist that looks at the first byte before
//! anything else is read: CONNECT, PUBLISH with QoS 0 or 1, SUBSCRIBE, PINGREQ and DISCONNECT with
//! exactly the flags that the standard gives them. Every other packet ends the connection by a named
//! reason, so that the router behind never has one of its own for dropping a link.
//!
//! Promise: no bytes make this panic or allocate more than `limit` bytes and a few strings of that
//! length (fuzz target `gate_packet`).

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{self, ConnAck, ConnectReturnCode, Packet, Protocol, Publish, v4};
use scc_common::id::AgentId;
use scc_common::{topic, wire};

use super::limits::{KEEP_ALIVE, MAX_CONTROL};

/// Why a connection is ended or not begun. The text is for people, [`label`](Self::label) for metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no MQTT 3.1.1.
    #[error("sent malformed MQTT: {0}")]
    Malformed(String),
    /// Another version of MQTT.
    #[error("speaks MQTT protocol level {0}; only 3.1.1 (level 4) is spoken here")]
    Version(u8),
    /// A packet type that an agent does not need.
    #[error("sent a packet of type {0}, which agents do not need")]
    PacketType(u8),
    /// A packet longer than anything an agent sends.
    #[error("announced a packet of {0} bytes")]
    TooLarge(usize),
    /// Something else than CONNECT at first, or CONNECT later.
    #[error("sent its packets in the wrong order")]
    Order,
    /// The client id is not the agent that the certificate names.
    #[error("called itself `{0}`, which is not the name in its certificate")]
    ClientId(String),
    /// A persistent session.
    #[error("asked for a persistent session; only clean sessions are served")]
    Persistent,
    /// A last will.
    #[error("left a last will; the gate itself tells who is gone")]
    Will,
    /// Keep alive outside what is allowed, seconds.
    #[error("asked for a keep alive of {0} s; 5 to 300 are allowed")]
    KeepAlive(u16),
    /// A topic that is not its own.
    #[error("published to `{0}`, which is not its topic")]
    PublishTopic(String),
    /// A filter that is not its own, or with QoS 1 or 2.
    #[error("subscribed to `{0}`, which is not its topic with QoS 0")]
    Filter(String),
    /// A retained message.
    #[error("published a retained message")]
    Retained,
}

impl Refusal {
    /// One word for a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Version(_) => "version",
            Self::PacketType(_) => "packet_type",
            Self::TooLarge(_) => "too_large",
            Self::Order => "order",
            Self::ClientId(_) => "client_id",
            Self::Persistent => "persistent",
            Self::Will => "will",
            Self::KeepAlive(_) => "keep_alive",
            Self::PublishTopic(_) => "publish_topic",
            Self::Filter(_) => "filter",
            Self::Retained => "retained",
        }
    }

    /// What CONNACK says, when it was CONNECT that was refused.
    #[must_use]
    pub const fn return_code(&self) -> ConnectReturnCode {
        match self {
            Self::Version(_) => ConnectReturnCode::RefusedProtocolVersion,
            Self::ClientId(_) => ConnectReturnCode::ClientIdentifierNotValid,
            _ => ConnectReturnCode::NotAuthorized,
        }
    }
}

/// A packet that passed the whitelist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// The first packet.
    Connect {
        /// What the client calls itself.
        client_id: String,
        /// Seconds.
        keep_alive: u16,
        /// Whether it wants no state kept for it.
        clean_session: bool,
        /// Whether it left a last will.
        will: bool,
    },
    /// A payload on its way up.
    Publish {
        /// As the codec read it; QoS and packet id inside are rumqttd's own.
        publish: Publish,
        /// QoS 1: a PUBACK with this packet id is due.
        pkid: Option<u16>,
    },
    /// The wish for what goes down.
    Subscribe {
        /// Packet id for SUBACK.
        pkid: u16,
        /// Filters with the QoS asked for.
        filters: Vec<(String, u8)>,
    },
    /// Still there?
    Ping,
    /// A polite end.
    Disconnect,
}

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xC0;
const DISCONNECT: u8 = 0xE0;

const RETAIN: u8 = 0b0001;
const QOS: u8 = 0b0110;

/// What is at the front of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// A whole packet, taken off.
    Packet(Inbound),
    /// The beginning of one: at least so many bytes (≥ 1) are missing. Nothing was taken.
    Need(usize),
}

/// Takes the next packet off the front of `stream`; `limit` is for PUBLISH, all others are short.
///
/// # Errors
/// [`Refusal`] if what is there can never become a packet that an agent may send. The connection is
/// over then; `stream` may have lost bytes.
pub fn next(stream: &mut BytesMut, limit: usize) -> Result<Front, Refusal> {
    let Some(&first) = stream.first() else {
        return Ok(Front::Need(2));
    };
    let publish = first & 0xF0 == PUBLISH;
    if publish {
        // QoS 2 needs a state on both sides that a clean session throws away; 3 does not exist.
        if first & QOS > 0b0010 {
            return Err(Refusal::PacketType(first >> 4));
        }
        if first & RETAIN != 0 {
            return Err(Refusal::Retained);
        }
    } else if !matches!(first, CONNECT | SUBSCRIBE | PINGREQ | DISCONNECT) {
        return Err(Refusal::PacketType(first >> 4));
    }
    let limit = if publish {
        limit
    } else {
        limit.min(MAX_CONTROL)
    };
    let header = match v4::check(stream.iter(), limit) {
        Ok(header) => header,
        Err(protocol::Error::InsufficientBytes(missing)) => return Ok(Front::Need(missing.max(1))),
        Err(protocol::Error::PayloadSizeLimitExceeded(length)) => {
            return Err(Refusal::TooLarge(length));
        }
        Err(other) => return Err(malformed(&other)),
    };
    // The codec takes any length for these two.
    if matches!(first, PINGREQ | DISCONNECT) && header.remaining_len != 0 {
        return Err(Refusal::Malformed("a body where none belongs".into()));
    }
    // Nor does it look at the bit of CONNECT that has to be 0 (MQTT-3.1.2-3). The flags stand behind a
    // name of four bytes and the level; whatever has another name is refused anyway.
    let flags = stream.get(header.frame_length() - header.remaining_len + 7);
    if first == CONNECT && flags.is_some_and(|flags| flags & 1 != 0) {
        return Err(Refusal::Malformed("a reserved flag is set".into()));
    }
    let pkid = packet_id(stream, header.fixed_header_len).filter(|_| publish && first & QOS != 0);
    let packet = v4::V4.read_mut(stream, limit).map_err(|e| match e {
        protocol::Error::InvalidProtocolLevel(level) => Refusal::Version(level),
        other => malformed(&other),
    })?;
    let inbound = match packet {
        Packet::Connect(connect, _, will, _, _) => Inbound::Connect {
            client_id: connect.client_id,
            keep_alive: connect.keep_alive,
            clean_session: connect.clean_session,
            will: will.is_some(),
        },
        Packet::Publish(publish, _) => Inbound::Publish { publish, pkid },
        Packet::Subscribe(subscribe, _) => Inbound::Subscribe {
            pkid: subscribe.pkid,
            filters: subscribe
                .filters
                .into_iter()
                .map(|filter| (filter.path, filter.qos as u8))
                .collect(),
        },
        Packet::PingReq(_) => Inbound::Ping,
        Packet::Disconnect(..) => Inbound::Disconnect,
        _ => return Err(Refusal::PacketType(first >> 4)),
    };
    Ok(Front::Packet(inbound))
}

/// Where a PUBLISH with QoS 1 has its packet id: behind the topic. The codec knows it too, but shows it
/// to rumqttd only.
fn packet_id(packet: &[u8], body: usize) -> Option<u16> {
    let body = packet.get(body..)?;
    let (topic, rest) = body.split_first_chunk()?;
    let id = rest.get(usize::from(u16::from_be_bytes(*topic))..)?;
    id.first_chunk().copied().map(u16::from_be_bytes)
}

fn malformed(error: &protocol::Error) -> Refusal {
    Refusal::Malformed(error.to_string())
}

/// What one agent may say, derived from its certificate.
#[derive(Debug, Clone)]
pub struct Rules {
    agent: AgentId,
    up: Bytes,
    down: String,
}

impl Rules {
    /// The rules for this agent.
    #[must_use]
    pub fn new(agent: AgentId) -> Self {
        Self {
            up: Bytes::from(topic::up(&agent)),
            down: topic::down(&agent),
            agent,
        }
    }

    /// Checks the first packet and returns the keep alive in seconds.
    ///
    /// # Errors
    /// [`Refusal`] names the rule.
    pub fn connect(&self, packet: Inbound) -> Result<u16, Refusal> {
        let Inbound::Connect {
            client_id,
            keep_alive,
            clean_session,
            will,
        } = packet
        else {
            return Err(Refusal::Order);
        };
        if client_id != self.agent.as_str() {
            return Err(Refusal::ClientId(printable(&client_id)));
        }
        if !clean_session {
            return Err(Refusal::Persistent);
        }
        if will {
            return Err(Refusal::Will);
        }
        if !KEEP_ALIVE.contains(&keep_alive) {
            return Err(Refusal::KeepAlive(keep_alive));
        }
        Ok(keep_alive)
    }

    /// Checks a publish.
    ///
    /// # Errors
    /// [`Refusal`] names the rule.
    pub fn publish(&self, publish: &Publish) -> Result<(), Refusal> {
        if publish.topic != self.up {
            let topic = String::from_utf8_lossy(&publish.topic);
            return Err(Refusal::PublishTopic(printable(&topic)));
        }
        if publish.payload.len() > wire::MAX_PAYLOAD {
            return Err(Refusal::TooLarge(publish.payload.len()));
        }
        Ok(())
    }

    /// The same publish in memory of its own, so that what the router keeps is what was charged and
    /// not the receive buffer around it.
    #[must_use]
    pub fn detach(&self, mut publish: Publish) -> Publish {
        publish.topic = self.up.clone();
        publish.payload = Bytes::copy_from_slice(&publish.payload);
        publish
    }

    /// Checks a subscription: exactly the agent's own down topic, QoS 0.
    ///
    /// # Errors
    /// [`Refusal`] names the rule.
    pub fn subscribe(&self, filters: &[(String, u8)]) -> Result<(), Refusal> {
        match filters {
            [(path, 0)] if *path == self.down => Ok(()),
            _ => {
                let foreign = filters.iter().find(|(path, _)| *path != self.down);
                let named = foreign.or(filters.first());
                Err(Refusal::Filter(
                    named.map(|(path, _)| printable(path)).unwrap_or_default(),
                ))
            }
        }
    }
}

/// A peer's text for a log line: short, and nothing in it that moves a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The answer to CONNECT.
#[must_use]
pub fn connack(code: ConnectReturnCode) -> Packet {
    Packet::ConnAck(
        ConnAck {
            session_present: false,
            code,
        },
        None,
    )
}

/// Appends a packet of the gate's own making, or a PUBACK of the router's.
///
/// # Errors
/// The codec's, for a packet that cannot be written; it is a fault of this program.
pub fn write(packet: Packet, buffer: &mut BytesMut) -> Result<(), protocol::Error> {
    v4::V4.write(packet, buffer).map(|_| ())
}

#[cfg(test)]
mod tests;
