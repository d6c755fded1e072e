//! The seam below the uplink: one connection to the hub.
//!
//! [`Dial`] makes a new [`Link`] for each connection; a link that has failed once is never used
//! again. rumqttc stands behind it in [`super::mqtt`], a scripted peer in the tests. Nothing above
//! this seam knows MQTT.

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Why there is no connection, or none any more. The texts are for logs and for `status`; they name
/// what was seen and hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This agent's certificate, key or trust anchor cannot be used.
    #[error("the identity cannot be used: {0}")]
    Identity(String),
    /// No TCP connection: name, route, port.
    #[error("the hub cannot be reached: {0}")]
    Network(String),
    /// TCP, but no TLS: the certificate of one side was refused, or the peer speaks something else.
    #[error("no TLS with the hub: {0}")]
    Tls(String),
    /// The hub refused this client or its subscription.
    #[error("the hub refused the connection: {0}")]
    Refused(String),
    /// The other side fell silent.
    #[error("the hub fell silent: {0}")]
    Silent(String),
    /// The connection ended.
    #[error("the connection ended: {0}")]
    Ended(String),
}

/// What is wrong with the link, for who must say it in another language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// [`Closed::Identity`].
    Identity,
    /// [`Closed::Network`].
    Network,
    /// [`Closed::Tls`].
    Tls,
    /// [`Closed::Refused`].
    Refused,
    /// [`Closed::Silent`].
    Silent,
    /// [`Closed::Ended`].
    Ended,
    /// The buffer cannot be read.
    Buffer,
    /// Connected, but acknowledgements are late.
    Late,
}

impl Closed {
    /// The kind of it.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Identity(_) => Trouble::Identity,
            Self::Network(_) => Trouble::Network,
            Self::Tls(_) => Trouble::Tls,
            Self::Refused(_) => Trouble::Refused,
            Self::Silent(_) => Trouble::Silent,
            Self::Ended(_) => Trouble::Ended,
        }
    }
}

/// One connection. [`publish`](Self::publish) and [`receive`](Self::receive) may be polled at once
/// from one task. A `receive` may be dropped while it waits, and nothing is lost; a `publish` that is
/// dropped may have been sent all the same.
pub trait Link: Send + Sync {
    /// Hands over one payload for `scc/up/<agent>`; waits while the connection has no room. `Ok`
    /// proves nothing about the hub.
    ///
    /// # Errors
    /// [`Closed`]; the link is dead.
    fn publish(&self, payload: Bytes) -> BoxFuture<'_, Result<(), Closed>>;

    /// The next payload of `scc/down/<agent>`.
    ///
    /// # Errors
    /// [`Closed`]; the link is dead.
    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Closed>>;

    /// When the hub last said unasked that it lives: it does so while it does not read from this link
    /// because it cannot go on.
    fn sign_of_life(&self) -> Option<Instant>;

    /// Says goodbye, so that the other side knows at once that this was meant; returns when it has
    /// gone out or cannot. The link is dead afterwards.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Makes connections.
pub trait Dial: Send + Sync + 'static {
    /// Connects, and returns when payloads from the hub can no longer be missed (subscribed).
    ///
    /// # Errors
    /// [`Closed`] with what failed.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Link>, Closed>>;
}
