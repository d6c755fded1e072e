//! `hub.toml`: where the hub listens and where it keeps things.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use scc_common::config::{ConfigError, Document};
use serde::Deserialize;

/// A checked configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Database, media and spool live below this.
    pub state_dir: PathBuf,
    /// Where agents come in.
    pub gate: Gate,
    /// Where people come in.
    pub web: Web,
}

/// Where agents come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Address of the TLS listener.
    pub listen: SocketAddr,
    /// PEM: the hub's certificate, then its issuing level.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
    /// PEM: the agents' issuing level, the only trust anchor.
    pub agents_ca: PathBuf,
    /// PEM: revocation list signed by the agents' issuing level; read again when it changes.
    pub revocations: PathBuf,
    /// Sockets at one time, over all agents.
    #[serde(default = "connections")]
    pub max_connections: usize,
}

/// Where people come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Address of the HTTPS listener.
    pub listen: SocketAddr,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

const fn connections() -> usize {
    1_000
}

impl Config {
    /// Reads and checks `hub.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Document::load(file).map(|doc| doc.value)
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("hub.sqlite")
    }

    /// The folder that the object store keeps pictures and video in.
    #[must_use]
    pub fn media(&self) -> PathBuf {
        self.state_dir.join("media")
    }

    /// Parts of large records that are not yet whole.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.state_dir.join("spool")
    }
}
