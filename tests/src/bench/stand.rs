//! What is compared: our hub, and what a county would build instead of it. Each stands for one run, on
//! 127.0.0.1 and in a folder of its own, and is ended by its process ids.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use rusqlite::{Connection, OpenFlags};

use super::place::{Place, free_port};
use super::process::{self, Usage};
use crate::child::Running;

/// Who stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Who {
    /// Our hub.
    Hub,
    /// Mosquitto, and a consumer that acknowledges after its commit into SQLite with the hub's settings.
    Mosquitto,
    /// NATS JetStream (file storage) by its MQTT gateway, and the same consumer. By the gateway and not by
    /// its own protocol, because the load program and the consumer are then the same as for the others.
    Nats,
    /// Mosquitto, and Node-RED that writes in batches into PostgreSQL and then acknowledges.
    NodeRed,
}

impl Who {
    /// The word in the figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Mosquitto => "mosquitto_sqlite",
            Self::Nats => "nats_sqlite",
            Self::NodeRed => "nodered_postgres",
        }
    }
}

/// Longest start of any of them on a busy machine.
const START: Duration = Duration::from_secs(60);

/// One that stands.
#[derive(Debug)]
pub struct Stand<'a> {
    /// Who.
    pub who: Who,
    /// Where agents connect.
    pub to: SocketAddr,
    place: &'a Place,
    /// By role, in the order in which they were started; ended in the opposite order.
    parts: Vec<(&'static str, Running)>,
    port: u16,
    database_port: u16,
}

impl Drop for Stand<'_> {
    fn drop(&mut self) {
        while let Some((_, running)) = self.parts.pop() {
            drop(running);
        }
    }
}

impl<'a> Stand<'a> {
    /// Starts it with nothing stored. A part that does not come up gets a second chance and is told of: between
    /// the choice of a port and its use another program may take it.
    ///
    /// # Errors
    /// If a part of it does not start.
    pub fn start(who: Who, place: &'a Place, agents: usize) -> anyhow::Result<Self> {
        Self::start_once(who, place, agents).or_else(|error| {
            eprintln!(
                "{} did not start and is started again: {error:#}",
                who.name()
            );
            Self::start_once(who, place, agents)
        })
    }

    fn start_once(who: Who, place: &'a Place, agents: usize) -> anyhow::Result<Self> {
        let mut stand = Self {
            who,
            to: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            place,
            parts: Vec::new(),
            port: free_port()?,
            database_port: free_port()?,
        };
        for folder in ["mosquitto", "nats", "consumer", "node-red", "log"] {
            let folder = place.path(folder);
            if folder.exists() {
                std::fs::remove_dir_all(&folder)?;
            }
            std::fs::create_dir(&folder)?;
        }
        match who {
            Who::Hub => {
                place.hub(stand.to, agents)?;
                stand.run("hub")?;
            }
            Who::Mosquitto => {
                stand.mosquitto_config()?;
                stand.run("broker")?;
                stand.run("consumer")?;
            }
            Who::Nats => {
                stand.nats_config()?;
                stand.run("broker")?;
                stand.run("consumer")?;
            }
            Who::NodeRed => {
                stand.mosquitto_config()?;
                stand.postgres_config()?;
                stand.flow()?;
                stand.run("database")?;
                stand.schema()?;
                stand.run("broker")?;
                stand.run("consumer")?;
            }
        }
        Ok(stand)
    }

    /// Its processes, by role: those that can be killed.
    #[must_use]
    pub fn roles(&self) -> Vec<&'static str> {
        self.parts.iter().map(|(role, _)| *role).collect()
    }

    /// What each of its processes has used until now, by role.
    #[must_use]
    pub fn usage(&self) -> Vec<(&'static str, Usage)> {
        let used =
            |(role, running): &(&'static str, Running)| (*role, process::usage(running.pid()));
        self.parts.iter().map(used).collect()
    }

    /// The process id of a role.
    #[must_use]
    pub fn pid(&self, role: &str) -> Option<u32> {
        let found = self.parts.iter().find(|(r, _)| *r == role);
        found.map(|(_, running)| running.pid())
    }

    /// Kills a part (SIGKILL).
    ///
    /// # Errors
    /// If there is none.
    pub fn kill(&mut self, role: &str) -> anyhow::Result<()> {
        let at = self.parts.iter().position(|(r, _)| *r == role);
        let (_, mut running) = self.parts.remove(at.context("no such part")?);
        // the children of a database notice that their parent is gone, and go
        running.kill();
        Ok(())
    }

    /// Starts a part (again) and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn run(&mut self, role: &'static str) -> anyhow::Result<()> {
        let place = self.place;
        let log = place.path("log").join(role);
        let (command, port) = match (self.who, role) {
            (Who::Hub, _) => {
                let mut hub = place.program("scc-hub");
                hub.env("SCC_LOG", "warn").arg("serve");
                hub.arg("--config").arg(place.path("hub.toml"));
                (hub, Some(self.to.port()))
            }
            (Who::NodeRed, "database") => {
                let mut postgres = as_nobody("/usr/lib/postgresql/15/bin/postgres");
                postgres.arg("-D").arg(place.path("postgres"));
                (postgres, Some(self.database_port))
            }
            (Who::Nats, "broker") => {
                let mut nats = Command::new("nats-server");
                nats.arg("-c").arg(place.path("nats.conf"));
                (nats, Some(self.to.port()))
            }
            (_, "broker") => {
                let mut mosquitto = Command::new("mosquitto");
                mosquitto.arg("-c").arg(place.path("mosquitto.conf"));
                (mosquitto, Some(self.to.port()))
            }
            (Who::NodeRed, _) => {
                let mut node = Command::new("node");
                let modules = node_red()?;
                node.arg(modules.join("node_modules/node-red/red.js"))
                    .arg("--settings")
                    .arg(modules.join("settings.js"))
                    .arg("--userDir")
                    .arg(place.path("node-red"))
                    .arg(place.path("flow.json"))
                    .env("BENCH_DATABASE_PORT", self.database_port.to_string());
                (node, None)
            }
            _ => {
                let mut consumer = place.program("bench-consumer");
                consumer
                    .arg("--database")
                    .arg(place.path("consumer").join("records.sqlite"));
                let port = if self.who == Who::Nats {
                    consumer.arg("--identity").arg(place.identity());
                    self.to.port()
                } else {
                    self.port
                };
                consumer.args(["--port", &port.to_string()]);
                (consumer, None)
            }
        };
        let running = match port {
            Some(port) => {
                let mut running = Running::start(role, command, &log)?;
                serves(port, &mut running)
                    .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
                running
            }
            None => {
                let running = Running::talking(role, command, &log)?;
                running
                    .wait_line("subscribed", START)
                    .with_context(|| format!("it logged: {}", self.log(role)))?;
                running
            }
        };
        self.parts.push((role, running));
        Ok(())
    }

    /// Numbers that are stored, by agent. Reads the files of a hub or a consumer whether or not it runs.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn stored(&self) -> anyhow::Result<HashMap<String, Vec<u64>>> {
        let mut rows: HashMap<String, Vec<u64>> = HashMap::new();
        const ALL: &str = "SELECT agent, seq FROM record WHERE stream IN (2, 4)";
        if self.who == Who::NodeRed {
            for line in self.psql(ALL)?.lines() {
                let (agent, seq) = line.split_once('|').context("psql speaks otherwise")?;
                rows.entry(agent.to_owned()).or_default().push(seq.parse()?);
            }
            return Ok(rows);
        }
        let file = if self.who == Who::Hub {
            self.place.path("hub").join("hub.sqlite")
        } else {
            self.place.path("consumer").join("records.sqlite")
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database = Connection::open_with_flags(&file, flags)?;
        database.busy_timeout(Duration::from_secs(10))?;
        let mut statement = database.prepare(ALL)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let seq: i64 = row.get(1)?;
            rows.entry(row.get(0)?)
                .or_default()
                .push(seq.cast_unsigned());
        }
        Ok(rows)
    }

    /// What a part has written to its log: its standard error, and its output where that is not listened to.
    #[must_use]
    pub fn log(&self, role: &str) -> String {
        std::fs::read_to_string(self.place.path("log").join(role)).unwrap_or_default()
    }

    /// Agents come by TLS with certificates, the consumer by a plain local listener. More is queued than the
    /// defaults allow, so that nothing is dropped for being too much; state is kept on the disk.
    fn mosquitto_config(&self) -> anyhow::Result<()> {
        let (place, identity) = (self.place, self.place.identity());
        let identity = identity.display();
        std::fs::write(
            place.path("mosquitto.conf"),
            format!(
                "user root\nper_listener_settings false\nallow_anonymous true\nmax_queued_messages 0\n\
                 max_inflight_messages 1000\nmax_packet_size 1048576\npersistence true\n\
                 persistence_location {}/\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\nlog_type warning\n\
                 listener {} 127.0.0.1\ncafile {identity}/agents-ca.pem\ncertfile {identity}/hub.pem\n\
                 keyfile {identity}/hub.key\nrequire_certificate true\nuse_identity_as_username true\n\
                 listener {} 127.0.0.1\n",
                place.path("mosquitto").display(),
                self.to.port(),
                self.port,
            ),
        )?;
        Ok(())
    }

    fn nats_config(&self) -> anyhow::Result<()> {
        let (place, identity) = (self.place, self.place.identity());
        let identity = identity.display();
        std::fs::write(
            place.path("nats.conf"),
            format!(
                "server_name: bench\nhost: 127.0.0.1\nport: {}\nmax_payload: 1MB\n\
                 jetstream {{ store_dir: \"{}\", max_file_store: 8GB }}\n\
                 mqtt {{ host: 127.0.0.1, port: {}, ack_wait: \"5s\", max_ack_pending: 10000\n\
                 tls {{ cert_file: \"{identity}/hub.pem\", key_file: \"{identity}/hub.key\", \
                 ca_file: \"{identity}/agents-ca.pem\", verify: true, timeout: 30 }} }}\n\
                 authorization {{ timeout: 30 }}\n",
                self.port,
                place.path("nats").display(),
                self.to.port(),
            ),
        )?;
        Ok(())
    }

    /// A cluster of its own; `synchronous_commit` and `fsync` are on by default and are written down.
    fn postgres_config(&self) -> anyhow::Result<()> {
        let data = self.place.path("postgres");
        if data.exists() {
            std::fs::remove_dir_all(&data)?;
        }
        std::fs::create_dir(&data)?;
        // The folder above belongs to whoever runs this; the database may only pass through.
        open_way(self.place)?;
        chown_nobody(&data)?;
        let output = as_nobody("/usr/lib/postgresql/15/bin/initdb")
            .args(["--auth=trust", "--username=bench", "--no-sync", "-D"])
            .arg(&data)
            .output()?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut settings = String::new();
        write!(
            settings,
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nfsync = on\n\
             synchronous_commit = on\nshared_buffers = 128MB\nmax_wal_size = 2GB\n",
            self.database_port
        )?;
        let file = data.join("postgresql.conf");
        let before = std::fs::read_to_string(&file)?;
        std::fs::write(&file, before + &settings)?;
        Ok(())
    }

    fn schema(&self) -> anyhow::Result<()> {
        self.psql(
            "CREATE TABLE record (id bigserial PRIMARY KEY, agent text NOT NULL, epoch numeric NOT NULL,
               stream smallint NOT NULL, seq bigint NOT NULL, sum bytea NOT NULL, body bytea NOT NULL,
               received timestamptz NOT NULL DEFAULT now(), UNIQUE (agent, epoch, stream, seq))",
        )
        .map(drop)
    }

    fn psql(&self, sql: &str) -> anyhow::Result<String> {
        let output = Command::new("psql")
            .args(["-XAtq", "-h", "127.0.0.1", "-U", "bench", "-d", "postgres"])
            .args(["-p", &self.database_port.to_string(), "-c", sql])
            .output()?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn flow(&self) -> anyhow::Result<()> {
        let flow = std::fs::read_to_string(node_red()?.join("flow.json"))?;
        std::fs::write(
            self.place.path("flow.json"),
            flow.replace("\"BROKER_PORT\"", &format!("\"{}\"", self.port)),
        )?;
        Ok(())
    }
}

/// Where npm has put Node-RED; `make bench-ingest` has it do so.
fn node_red() -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("SCC_BENCH_NODE_RED").map(PathBuf::from);
    folder
        .context("SCC_BENCH_NODE_RED does not name the folder of Node-RED; run `make bench-ingest`")
}

/// A database server refuses to run as root.
fn as_nobody(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn chown_nobody(folder: &std::path::Path) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown")
            .arg("nobody:nogroup")
            .arg(folder)
            .status()?;
        if !status.success() {
            bail!("chown: {status}");
        }
    }
    Ok(())
}

fn open_way(place: &Place) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(place.path(""), std::fs::Permissions::from_mode(0o711))?;
    Ok(())
}

fn serves(port: u16, running: &mut Running) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let step = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while waited < START {
        if let Some(status) = running.ended()? {
            bail!("it ended: {status}");
        }
        if TcpStream::connect_timeout(&address, step).is_ok() {
            return Ok(());
        }
        std::thread::sleep(step);
        waited += step;
    }
    bail!("it does not listen")
}
