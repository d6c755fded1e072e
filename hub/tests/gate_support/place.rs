//! A hub as a process of its own, in a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::World;

/// Nothing that a supervisor is told should take this long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hub's folder: certificates, and a `hub.toml` that is right.
pub(crate) struct Place {
    pub(crate) world: World,
    pub(crate) text: String,
}

impl Place {
    pub(crate) async fn build() -> Self {
        Self::with(World::open(&[]).await)
    }

    /// With the certificates of this world.
    pub(crate) fn with(world: World) -> Self {
        let at = |name: &str| world.path(name).display().to_string();
        let text = format!(
            "state_dir = \"{}\"\n[gate]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             agents_ca = \"{}\"\nrevocations = \"{}\"\n[web]\nlisten = \"127.0.0.1:0\"\n\
             certificate = \"{}\"\nkey = \"{}\"\n",
            at("state"),
            at("hub/cert.pem"),
            at("hub/key.pem"),
            at("agents-ca.pem"),
            at("revoked.pem"),
            at("hub/cert.pem"),
            at("hub/key.pem"),
        );
        Self { world, text }
    }

    pub(crate) fn hub(&self, text: &str, arguments: &[&str]) -> Command {
        let file = self.world.path("hub.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scc-hub"));
        command.args(arguments).arg("--config").arg(file);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The database, as the hub's first start leaves it.
    pub(crate) fn database(&self) {
        scc_hub::store::Store::open(&self.state().join("hub.sqlite")).unwrap();
    }

    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.world.path("state")
    }
}

/// Ends with the test, whatever happens in between.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a supervisor is told, message by message.
pub(crate) struct Supervisor(UnixDatagram);

impl Supervisor {
    pub(crate) fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    pub(crate) fn hears(&self, wanted: &str) {
        let mut buffer = [0; 512];
        loop {
            let n = self.0.recv(&mut buffer).unwrap_or_else(|e| {
                panic!("the supervisor was not told {wanted}: {e}");
            });
            let text = std::str::from_utf8(&buffer[..n]).unwrap();
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    }
}

impl Running {
    /// Starts `serve` and waits until it says where its gate listens.
    pub(crate) fn serving(mut command: Command) -> (Self, SocketAddr) {
        let mut running = Self(command.spawn().unwrap());
        let log = BufReader::new(running.0.stderr.take().expect("it is piped"));
        let (told, hears) = mpsc::channel();
        // to the end, so that the hub never waits for a reader of its log
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let gate = line.split("gate=").nth(1);
                if let Some(address) = gate.and_then(|rest| rest.split(' ').next()) {
                    let _ = told.send(address.parse().unwrap());
                }
            }
        });
        let address = hears.recv_timeout(PATIENCE).expect("the hub serves");
        (running, address)
    }

    /// Anonymous memory, KiB.
    pub(crate) fn anonymous_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB"));
        kib.unwrap().parse().unwrap()
    }
}
