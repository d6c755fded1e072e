//! What both ends of the fleet must agree on.
//!
//! A record is captured at a site, numbered by the agent's buffer, carried over MQTT/TLS and
//! committed by the hub. Everything that both sides have to read the same way lives here and
//! nowhere else: identities, streams, record bodies, the envelope on the wire, topics, the
//! certificate profile, the declared fleet, configuration errors and the clock.
//!
//! The wire format is documented as CDDL in `docs/design/wire.cddl`; a test in [`wire`] holds the
//! two together.

mod cbor;
pub mod checksum;
pub mod clock;
pub mod config;
pub mod export;
pub mod header;
pub mod id;
pub mod identity;
pub mod lang;
pub mod ranges;
pub mod record;
pub mod register;
pub mod stream;
pub mod topic;
pub mod wire;
