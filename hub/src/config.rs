//! `hub.toml`: where the hub listens and where it keeps things.
//!
//! Whether the files that it names can be used is found out by whoever uses them, before anything is
//! started; [`Config::blame`] then says in which line the file was named.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use scc_common::config::{ConfigError, ConfigPlace, Content, Document};
use serde::Deserialize;
use toml::Spanned;

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
    /// Where in `hub.toml` each of these was named.
    #[serde(skip)]
    pub places: Places,
}

impl Content for Config {
    const EXAMPLE: &'static str = include_str!("../../systemd/hub.toml.example");
}

/// Where in `hub.toml` the files and folders were named.
#[derive(Debug, Clone, Default)]
pub struct Places(Vec<(PathBuf, ConfigPlace)>);

/// Where agents come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Address of the TLS listener.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// PEM: the hub's certificate, then its issuing level.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
    /// PEM: the agents' issuing level, the only trust anchor.
    pub agents_ca: PathBuf,
    /// PEM: revocation list signed by the agents' issuing level; read again when it changes.
    pub revocations: PathBuf,
    /// Sockets at one time, over all agents; 1 to [`MOST_CONNECTIONS`].
    #[serde(default = "connections", deserialize_with = "sockets")]
    pub max_connections: usize,
}

/// Where people come in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// Address of the HTTPS listener.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, mode 0600.
    pub key: PathBuf,
}

/// `hub.toml` once more, for the places of what is looked at after parsing.
#[derive(Debug, Deserialize)]
struct Spans {
    state_dir: Spanned<PathBuf>,
    gate: GateSpans,
    web: WebSpans,
}

impl Content for Spans {
    const EXAMPLE: &'static str = Config::EXAMPLE;
}

#[derive(Debug, Deserialize)]
struct GateSpans {
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
    agents_ca: Spanned<PathBuf>,
    revocations: Spanned<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct WebSpans {
    certificate: Spanned<PathBuf>,
    key: Spanned<PathBuf>,
}

impl Places {
    fn of(doc: &Document<Spans>) -> Self {
        let Spans {
            state_dir,
            gate,
            web,
        } = &doc.value;
        let all = [
            ("state_dir", state_dir),
            ("gate.certificate", &gate.certificate),
            ("gate.key", &gate.key),
            ("gate.agents_ca", &gate.agents_ca),
            ("gate.revocations", &gate.revocations),
            ("web.certificate", &web.certificate),
            ("web.key", &web.key),
        ];
        let place = |(key, path): (&str, &Spanned<PathBuf>)| {
            (path.get_ref().clone(), doc.place(path.span().start, key))
        };
        Self(all.map(place).into())
    }
}

/// An address to listen on, with what would be right if it is none.
fn address<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is no address to listen on; write IP:PORT, such as 0.0.0.0:8883"
        ))
    })
}

/// The gate makes its tables for so many sockets when it starts.
pub const MOST_CONNECTIONS: usize = 10_000;

/// A number of sockets that a process can have.
fn sockets<'de, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let number = i64::deserialize(from)?;
    usize::try_from(number)
        .ok()
        .filter(|n| (1..=MOST_CONNECTIONS).contains(n))
        .ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{number} is no number of sockets; write 1 to {MOST_CONNECTIONS}"
            ))
        })
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
        let doc: Document<Self> = Document::load(file)?;
        let places = Places::of(&Document::parse(file, doc.text)?);
        Ok(Self {
            places,
            ..doc.value
        })
    }

    /// The same complaint about a file as one about the line of `hub.toml` that names it; none if no
    /// line does.
    #[must_use]
    pub fn blame(&self, file: &Path, complaint: &str) -> Option<ConfigError> {
        let (_, place) = self.places.0.iter().find(|(named, _)| named == file)?;
        Some(place.wrong(complaint))
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

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"
state_dir = "/var/lib/scc-hub"
[gate]
listen = "0.0.0.0:8883"
certificate = "/etc/scc/hub.pem"
key = "/etc/scc/hub.key"
agents_ca = "/etc/scc/agents-ca.pem"
revocations = "/etc/scc/agents.crl.pem"
[web]
listen = "0.0.0.0:443"
certificate = "/etc/scc/web.pem"
key = "/etc/scc/web.key"
"#;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hub.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file)
    }

    #[test]
    fn a_file_that_is_to_blame_is_found_in_its_line() {
        let config = load(RIGHT).unwrap();
        let key = Path::new("/etc/scc/web.key");
        let error = config.blame(key, "it is gone").unwrap().to_string();
        assert!(
            error.ends_with("hub.toml:12: `web.key`: it is gone"),
            "{error}"
        );
        assert_eq!(config.blame(Path::new("/elsewhere"), "it is gone"), None);
    }

    #[test]
    fn a_number_of_sockets_that_no_gate_can_have_is_refused_in_its_line() {
        let with = |n: &str| RIGHT.replace("[web]", &format!("max_connections = {n}\n[web]"));
        for n in ["0", "-1", "10001", "1000000000000"] {
            let error = load(&with(n)).unwrap_err().to_string();
            assert!(
                error.contains("hub.toml:9: `max_connections`: ")
                    && error.ends_with("write 1 to 10000"),
                "{error}"
            );
        }
        assert_eq!(load(&with("10000")).unwrap().gate.max_connections, 10_000);
        assert_eq!(load(RIGHT).unwrap().gate.max_connections, 1_000);
    }

    #[test]
    fn an_address_without_a_port_is_told_what_is_missing() {
        let error = load(&RIGHT.replace("0.0.0.0:443", "0.0.0.0")).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("hub.toml:10: `listen`: `0.0.0.0` is no address")
                && error.contains("IP:PORT"),
            "{error}"
        );
    }
}
