//! The demo: the whole way on real footage and real protocols, on one machine.
//!
//! It starts what a county would have: an authority, a hub, one agent for each of some sites, and
//! stand-ins for the hardware at those sites. Everything runs on 127.0.0.1 under one folder, and
//! nothing outlives the [`Demo`]. The [ordeals](crate::ordeal) are made of the same.

pub mod arrived;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use scc_agent::status::Status;
use scc_common::id::AgentId;
use scc_common::record::DeviceKind;
use scc_common::register::{Register, Site, SiteKind};

use crate::camera::{self, StandInCamera};
use crate::child::Running;
use arrived::Arrived;

/// The sites of the sample fleet that the demo has agents for.
pub const SITES: [&str; 4] = [
    "puskesmas-salotungo",
    "disdukcapil",
    "rsud",
    "villa-yuliana",
];

/// The user that the demo makes.
pub const USER: &str = "pengendali";

/// What the devices yield, and what their way to the hub is like.
#[derive(Debug, Clone)]
pub struct Load {
    /// Seconds between two stills of a camera.
    pub snapshot_every_s: u32,
    /// Length of a segment, seconds.
    pub segment_s: u32,
    /// Seconds between two punches at a terminal.
    pub punch_every_s: f64,
    /// Seconds between two reads of a terminal's whole log.
    pub full_read_every_s: u32,
    /// Bytes per second of each agent's link, both ways; none = as fast as it goes.
    pub link: Option<u32>,
    /// `SCC_LOG` of the agents; none = as this process has it.
    pub agent_log: Option<&'static str>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            snapshot_every_s: 4,
            segment_s: 10,
            punch_every_s: 9.0,
            full_read_every_s: 900,
            link: None,
            agent_log: None,
        }
    }
}

/// What the demo is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder with the built programs.
    pub bin: PathBuf,
    /// Folder for everything that the demo writes; made anew.
    pub state: PathBuf,
    /// The register.
    pub register: PathBuf,
    /// Folder where the footage is kept between two demos, because encoding it takes a while.
    pub footage: PathBuf,
    /// The sites that get an agent and stand-ins for their devices.
    pub sites: Vec<String>,
    /// What the devices yield.
    pub load: Load,
}

/// A running demo.
#[derive(Debug)]
pub struct Demo {
    options: Options,
    /// Address of the pages.
    pub web: String,
    /// Password of [`USER`].
    pub password: String,
    register: Register,
    // dropped in this order: agents first, so that they do not report a dead hub while stopping
    agents: Vec<(String, Running)>,
    hub: Option<Running>,
    link: Option<Running>,
    terminals: Vec<(String, Running)>,
    cameras: Vec<StandInCamera>,
}

impl Demo {
    /// Starts everything; `say` is told each step.
    ///
    /// # Errors
    /// The step that failed, with the file to look into.
    pub fn start(options: Options, say: impl Fn(&str)) -> anyhow::Result<Self> {
        let register = Register::load(&options.register)?;
        if options.state.exists() {
            std::fs::remove_dir_all(&options.state)?;
        }
        std::fs::create_dir_all(options.state.join("log"))?;
        std::fs::create_dir_all(options.state.join("truth"))?;
        let gate = free_port()?;
        let web = free_port()?;
        let mut demo = Self {
            web: format!("https://127.0.0.1:{web}/"),
            password: format!("demo-{:08x}", rand::random::<u32>()),
            register,
            agents: Vec::new(),
            hub: None,
            link: None,
            terminals: Vec::new(),
            cameras: Vec::new(),
            options,
        };
        say("authority and the hub's certificate");
        demo.authority()?;
        say("register and user");
        demo.prepare_hub(gate, web)?;
        say("hub");
        demo.start_hub()?;
        let door = demo.start_link(gate)?;
        for id in demo.options.sites.clone() {
            let site = demo
                .register
                .site(&AgentId::new(&id)?)
                .with_context(|| format!("the register has no site `{id}`"))?
                .clone();
            say(&format!("{}: devices and agent", site.name));
            demo.prepare_site(&site, door)?;
            demo.start_agent(&id)?;
        }
        Ok(demo)
    }

    /// What has arrived at the hub by now.
    ///
    /// # Errors
    /// If its database cannot be read.
    pub fn arrived(&self) -> anyhow::Result<Arrived> {
        Arrived::look(&self.database(), &self.register, &self.options.sites)
    }

    /// What keeps a site's agent from the hub, in the agent's own words; nothing of a site whose link is well.
    pub fn links(&self) -> impl Iterator<Item = (&str, String)> {
        self.options.sites.iter().filter_map(|id| {
            let why = match Status::read(&self.agent_state(id)) {
                Ok(status) => status.link.why?,
                Err(e) => format!("its agent tells nothing: {e}"),
            };
            Some((id.as_str(), why))
        })
    }

    /// The hub's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path("hub/hub.sqlite")
    }

    /// The folder that the hub keeps pictures and video in.
    #[must_use]
    pub fn media(&self) -> PathBuf {
        self.path("hub/media")
    }

    /// The only certificate that the hub's pages are to be trusted by.
    #[must_use]
    pub fn hub_ca(&self) -> PathBuf {
        self.path("hub-identity/hub-ca.pem")
    }

    /// What the agent of a site has logged, over all of its lives.
    #[must_use]
    pub fn agent_log(&self, id: &str) -> PathBuf {
        self.log(&format!("agent-{id}"))
    }

    /// The state directory of a site's agent.
    #[must_use]
    pub fn agent_state(&self, id: &str) -> PathBuf {
        self.path(&format!("agent-{id}"))
    }

    /// The folder with the truth of the terminals, a file for each.
    #[must_use]
    pub fn truth(&self) -> PathBuf {
        self.path("truth")
    }

    /// The hub, while it runs.
    pub fn hub(&mut self) -> Option<&mut Running> {
        self.hub.as_mut()
    }

    /// Takes the hub out: to be stopped or killed, and missed by nobody.
    pub fn take_hub(&mut self) -> Option<Running> {
        self.hub.take()
    }

    /// The agent of a site, while it runs.
    #[must_use]
    pub fn agent(&self, id: &str) -> Option<&Running> {
        self.agents.iter().find(|(of, _)| of == id).map(|(_, a)| a)
    }

    /// Takes the agent of a site out, as [`take_hub`](Self::take_hub).
    pub fn take_agent(&mut self, id: &str) -> Option<Running> {
        let at = self.agents.iter().position(|(of, _)| of == id)?;
        Some(self.agents.remove(at).1)
    }

    /// The terminals, each with its `site-device`.
    pub fn terminals(&mut self) -> impl Iterator<Item = (&str, &mut Running)> {
        self.terminals.iter_mut().map(|(n, t)| (n.as_str(), t))
    }

    /// The cameras, one stand-in for each site.
    pub fn cameras(&mut self) -> &mut [StandInCamera] {
        &mut self.cameras
    }

    /// A program that has ended although nobody stopped it.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn fallen(&mut self) -> anyhow::Result<Option<String>> {
        for child in self
            .hub
            .iter_mut()
            .chain(self.agents.iter_mut().map(|(_, agent)| agent))
            .chain(&mut self.link)
            .chain(self.terminals.iter_mut().map(|(_, terminal)| terminal))
        {
            if let Some(status) = child.ended()? {
                return Ok(Some(format!("{child:?} ended: {status}")));
            }
        }
        Ok(None)
    }

    fn authority(&self) -> anyhow::Result<()> {
        let authority = self.path("authority");
        self.provision(&["authority", "init", text(&authority)?])?;
        self.provision(&[
            "hub",
            "issue",
            "--authority",
            text(&authority)?,
            "--name",
            "localhost",
            "--dns",
            "localhost",
            "--address",
            "127.0.0.1",
            "--out",
            text(&self.path("hub-identity"))?,
        ])
    }

    fn prepare_hub(&self, gate: u16, web: u16) -> anyhow::Result<()> {
        let identity = self.path("hub-identity");
        let at = |name: &str| text(&identity.join(name)).map(str::to_owned);
        std::fs::create_dir_all(self.path("hub"))?;
        let config = format!(
            "state_dir = \"{}\"\n[gate]\nlisten = \"127.0.0.1:{gate}\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n\
             agents_ca = \"{}\"\nrevocations = \"{}\"\n[web]\nlisten = \"127.0.0.1:{web}\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n",
            text(&self.path("hub"))?,
            at("agents-ca.pem")?,
            at("agents.crl.pem")?,
            cert = at("hub.pem")?,
            key = at("hub.key")?,
        );
        std::fs::write(self.path("hub.toml"), config)?;
        let config = self.path("hub.toml");
        self.hub_command(
            &[
                "fleet",
                "apply",
                text(&self.options.register)?,
                "--config",
                text(&config)?,
            ],
            None,
        )?;
        self.hub_command(
            &[
                "user",
                "add",
                USER,
                "--role",
                "operator",
                "--config",
                text(&config)?,
            ],
            Some(&self.password),
        )
    }

    /// Starts the hub (again).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_hub(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(self.options.bin.join("scc-hub"));
        command.args(["serve", "--config", text(&self.path("hub.toml"))?]);
        self.hub = Some(Running::start("scc-hub", command, &self.log("hub"))?);
        Ok(())
    }

    /// Starts the bad network in front of the gate if there is to be one; returns the port that the
    /// agents are to call.
    fn start_link(&mut self, gate: u16) -> anyhow::Result<u16> {
        let Some(rate) = self.options.load.link else {
            return Ok(gate);
        };
        let mut command = Command::new(self.options.bin.join("stand-in-proxy"));
        command.args(["--with-parent", "--to", &format!("127.0.0.1:{gate}")]);
        let mut link = Running::talking("stand-in-proxy", command, &self.log("link"))?;
        let address: SocketAddr = link
            .wait_line("listening ", Duration::from_secs(10))?
            .parse()?;
        link.ask(&format!("rate {rate}"))?;
        self.link = Some(link);
        Ok(address.port())
    }

    /// Makes the certificate, the devices and the configuration of a site.
    fn prepare_site(&mut self, site: &Site, door: u16) -> anyhow::Result<()> {
        let id = site.id.as_str();
        let identity = self.path(&format!("site-{id}"));
        self.provision(&[
            "site",
            "issue",
            id,
            "--authority",
            text(&self.path("authority"))?,
            "--out",
            text(&identity)?,
        ])?;
        let state = self.agent_state(id);
        std::fs::create_dir_all(&state)?;
        let at = |name: &str| text(&identity.join(name)).map(str::to_owned);
        let mut config = format!(
            "agent = \"{id}\"\nstate_dir = \"{}\"\n[hub]\naddress = \"127.0.0.1:{door}\"\n[identity]\n\
             certificate = \"{}\"\nkey = \"{}\"\nhub_ca = \"{}\"\n",
            text(&state)?,
            at("agent.pem")?,
            at("agent.key")?,
            at("hub-ca.pem")?,
        );
        config.push_str(&self.start_cameras(site)?);
        for (n, terminal) in site.devices_of(DeviceKind::Terminal).enumerate() {
            config.push_str(&self.start_terminal(site, terminal.id.as_str(), n)?);
        }
        std::fs::write(self.path(&format!("agent-{id}.toml")), config)?;
        Ok(())
    }

    /// Starts the agent of a site (again).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, id: &str) -> anyhow::Result<()> {
        let file = self.path(&format!("agent-{id}.toml"));
        let mut command = Command::new(self.options.bin.join("scc-agent"));
        command.args(["run", "--config", text(&file)?]);
        if let Some(filter) = self.options.load.agent_log {
            command.env("SCC_LOG", filter);
        }
        let agent = Running::start("scc-agent", command, &self.agent_log(id))?;
        self.agents.push((id.to_owned(), agent));
        Ok(())
    }

    /// Starts the cameras of a site; returns their part of `agent.toml`. Clinics send stills only:
    /// their video stays at the site.
    fn start_cameras(&mut self, site: &Site) -> anyhow::Result<String> {
        let names: Vec<&str> = site
            .devices_of(DeviceKind::Camera)
            .map(|d| d.id.as_str())
            .collect();
        let footage = camera::footage(&self.options.footage, camera::Size::Small)?;
        let stand_in = StandInCamera::start(&footage, &names)?;
        let segments = site.kind != SiteKind::Clinic;
        let config = names
            .iter()
            .map(|name| {
                format!(
                    "[[camera]]\nid = \"{name}\"\nurl = \"{}\"\nsnapshot_every_s = {}\nsegments = {segments}\nsegment_s = {}\n",
                    stand_in.url(name),
                    self.options.load.snapshot_every_s,
                    self.options.load.segment_s,
                )
            })
            .collect();
        self.cameras.push(stand_in);
        Ok(config)
    }

    /// Starts a terminal with half a day's log; returns its part of `agent.toml`.
    fn start_terminal(&mut self, site: &Site, id: &str, n: usize) -> anyhow::Result<String> {
        let name = format!("{}-{id}", site.id);
        let number = self.terminals.len();
        let mut command = Command::new(self.options.bin.join("stand-in-terminal"));
        command
            .arg("--with-parent")
            .args([
                "--punch-every",
                &self.options.load.punch_every_s.to_string(),
            ])
            .args([
                "--truth",
                text(&self.truth().join(format!("{name}.jsonl")))?,
            ])
            .args(["--serial", &format!("DEMO{number:09}")])
            .args(["--seed", &number.to_string()])
            .args(["--layout", if n == 0 { "40" } else { "16" }]);
        let terminal = Running::talking(&name, command, &self.log(&name))?;
        let address = terminal.wait_line("listening ", Duration::from_secs(10))?;
        self.terminals.push((name, terminal));
        Ok(format!(
            "[[terminal]]\nid = \"{id}\"\naddress = \"{address}\"\nfull_read_every_s = {}\n",
            self.options.load.full_read_every_s
        ))
    }

    fn provision(&self, arguments: &[&str]) -> anyhow::Result<()> {
        self.once("scc-provision", arguments, None)
    }

    fn hub_command(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<()> {
        self.once("scc-hub", arguments, input)
    }

    fn once(&self, program: &str, arguments: &[&str], input: Option<&str>) -> anyhow::Result<()> {
        use std::io::Write;
        let mut child = Command::new(self.options.bin.join(program))
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        if let Some(mut stdin) = child.stdin.take()
            && let Some(input) = input
        {
            writeln!(stdin, "{input}")?;
        }
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{program} {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.options.state.join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.options.state.join("log").join(format!("{name}.log"))
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
