//! Where a measurement takes place: a folder on the disk, certificates, free ports, the hub's configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use rcgen::{CertifiedIssuer, KeyPair};
use scc_common::clock::{SharedClock, SystemClock};
use scc_common::id::AgentId;
use scc_common::identity;
use scc_provision::profile::{self, Serial, Validity};
use tempfile::TempDir;

/// A folder that vanishes at the end, with an identity for the hub (or the broker in its place) and
/// for so many agents.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    bin: PathBuf,
    clock: SharedClock,
}

/// The name of the agent of this number.
#[must_use]
pub fn agent(no: usize) -> String {
    format!("bench{no}")
}

/// The TLS of an agent whose identity lies in `folder`.
///
/// # Errors
/// If it does not.
pub fn tls(folder: &Path, name: &str) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let at = |end: &str| folder.join(format!("{name}.{end}"));
    Ok(identity::agent_tls(
        &at("pem"),
        &at("key"),
        &folder.join("hub-ca.pem"),
    )?)
}

/// A port that nobody listens on at the moment.
///
/// # Errors
/// If there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

impl Place {
    /// Makes it, below the folder of the programs that are measured.
    ///
    /// # Errors
    /// If the folder or a certificate cannot be made.
    pub fn new(agents: usize) -> anyhow::Result<Self> {
        let bin = std::env::current_exe()?;
        let bin = bin.parent().context("this program lies in no folder")?;
        let base = bin.parent().unwrap_or(bin).join("bench");
        std::fs::create_dir_all(&base)?;
        let place = Self {
            dir: tempfile::Builder::new().prefix("run").tempdir_in(&base)?,
            bin: bin.to_owned(),
            clock: SystemClock::shared(),
        };
        place.identities(agents)?;
        Ok(place)
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One of the programs that were built with this one.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// The folder of the identities: `hub-ca.pem`, `agents-ca.pem`, `agents.crl.pem`, and a `.pem` and a `.key`
    /// of the hub and of each agent.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.path("identity")
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    fn identities(&self, agents: usize) -> anyhow::Result<()> {
        let folder = self.identity();
        std::fs::create_dir(&folder)?;
        let now = self.clock.wall_ms();
        let validity = Validity::days(now, 30);
        let write = |name: &str, text: String| {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut options = std::fs::File::options();
            options.write(true).create_new(true).mode(0o600);
            let file = options.open(folder.join(name));
            file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        };
        let level = |params: rcgen::CertificateParams| -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
            Ok(CertifiedIssuer::self_signed(params, profile::key()?)?)
        };
        let hubs = level(profile::hub_level("bench hubs", validity)?)?;
        let members = level(profile::agents_level("bench agents", validity)?)?;
        write("hub-ca.pem", hubs.pem())?;
        write("agents-ca.pem", members.pem())?;
        let list = profile::revocations(1, now, &[]).signed_by(&members)?;
        write("agents.crl.pem", list.pem()?)?;
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let params = profile::hub(
            &["localhost".to_owned()],
            &[localhost],
            Serial::random()?,
            validity,
        )?;
        let key = profile::key()?;
        write("hub.pem", params.signed_by(&key, &hubs)?.pem())?;
        write("hub.key", key.serialize_pem())?;
        for no in 0..agents {
            let name = agent(no);
            let params = profile::agent(&AgentId::new(&name)?, Serial::random()?, validity)?;
            let key = profile::key()?;
            write(
                &format!("{name}.pem"),
                params.signed_by(&key, &members)?.pem(),
            )?;
            write(&format!("{name}.key"), key.serialize_pem())?;
        }
        Ok(())
    }

    /// Writes the configuration of a hub that listens for agents at `gate`, and declares the agents, each
    /// with one terminal. Returns the file.
    ///
    /// # Errors
    /// If the hub refuses it.
    pub fn hub(&self, gate: SocketAddr, agents: usize) -> anyhow::Result<PathBuf> {
        use std::fmt::Write as _;
        let (state, identity) = (self.path("hub"), self.identity());
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        std::fs::create_dir(&state)?;
        let (state, identity) = (state.display(), identity.display());
        let web = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let config = self.path("hub.toml");
        std::fs::write(
            &config,
            format!(
                "state_dir = \"{state}\"\n[gate]\nlisten = \"{gate}\"\ncertificate = \"{identity}/hub.pem\"\n\
                 key = \"{identity}/hub.key\"\nagents_ca = \"{identity}/agents-ca.pem\"\n\
                 revocations = \"{identity}/agents.crl.pem\"\nmax_connections = 6000\n\
                 [web]\nlisten = \"{web}\"\ncertificate = \"{identity}/hub.pem\"\nkey = \"{identity}/hub.key\"\n"
            ),
        )?;
        let mut fleet = String::from(
            "[fleet]\nname = \"Bench\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 0\n\
             [[agency]]\nid = \"bench\"\nname = \"Bench\"\n",
        );
        for no in 0..agents {
            let name = agent(no);
            write!(
                fleet,
                "[[site]]\nid = \"{name}\"\nname = \"{name}\"\nkind = \"office\"\nagencies = [\"bench\"]\n\
                 cameras = []\nterminals = [{{ id = \"mesin\" }}]\n"
            )?;
        }
        let register = self.path("fleet.toml");
        std::fs::write(&register, fleet)?;
        let applied = self
            .program("scc-hub")
            .args(["fleet", "apply"])
            .arg(&register)
            .arg("--config")
            .arg(&config)
            .output()?;
        if !applied.status.success() {
            bail!(
                "the hub refuses the register: {}",
                String::from_utf8_lossy(&applied.stderr)
            );
        }
        Ok(config)
    }
}
