//! Reaching a host over TCP, with each fault named as the board names it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use scc_common::record::Cause;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why nobody was reached: one short English sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or nobody could be asked for it.
    #[error("{0}")]
    Unresolved(String),
    /// The host says that nobody listens there.
    #[error("its port is closed")]
    Refused,
    /// No answer, or no way there.
    #[error("{0}")]
    Offline(String),
}

impl DialError {
    /// The board's word.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Unresolved(_) => Cause::Unresolved,
            Self::Refused => Cause::Refused,
            Self::Offline(_) => Cause::Offline,
        }
    }
}

/// The addresses of a host, at least one.
///
/// # Errors
/// [`DialError::Unresolved`].
pub async fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, DialError> {
    let why = match timeout(limit, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if !found.is_empty() {
                return Ok(found);
            }
            format!("the name {host} has no address")
        }
        Ok(Err(_)) => format!("the name {host} does not resolve"),
        Err(_) => format!("no name server answers for {host}"),
    };
    Err(DialError::Unresolved(why))
}

/// A connection to the first address that takes one; each has `limit`.
///
/// # Errors
/// [`DialError`]: what the last address said.
pub async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, DialError> {
    let mut last = DialError::Offline("it has no address".into());
    for address in addresses {
        last = match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => DialError::Refused,
            Ok(Err(e)) => DialError::Offline(format!("cannot connect: {e}")),
            Err(_) => DialError::Offline(format!(
                "no answer at its address within {} s",
                limit.as_secs()
            )),
        };
    }
    Err(last)
}
