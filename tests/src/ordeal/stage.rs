//! What both ordeals stand on: a demo under load with its oracle, and the waits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use scc_common::clock::{Clock, MonoMs, SharedClock, SystemClock, WallMs};
use scc_common::record::DeviceKind;
use scc_common::register::Register;

use super::account::{Account, Evidence, absent, lacking};
use super::ledger::Ledger;
use super::oracle::{self, Punches, Records};
use crate::demo::{Demo, Load, Options};

/// The filter under which agents tell what their buffers accept, and why they say hello again.
pub const TELL: &str = "info,scc_agent::accepted=debug,scc_agent::uplink=debug";

/// The register of the ordeals.
const REGISTER: &str = include_str!("fleet.toml");

/// Segments are configured to be this long, seconds; they end at the next keyframe.
pub const SEGMENT_S: u32 = 3;

/// The stand-in's keyframes come every two seconds, so that a segment is two fragments.
pub const FRAGMENT_MS: i64 = 2_000;

/// How often something that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where an ordeal takes place.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder with the built programs.
    pub bin: PathBuf,
    /// Folder for everything that is written; made anew.
    pub state: PathBuf,
    /// Folder where the footage is kept.
    pub footage: PathBuf,
    /// Set when the ordeal is to end early, by a signal.
    pub interrupted: Arc<AtomicBool>,
}

/// A demo under load, and the oracle.
#[derive(Debug)]
pub struct Stage {
    /// The demo.
    pub demo: Demo,
    /// The sites of the register.
    pub sites: Vec<String>,
    /// Its cameras: site and device.
    pub cameras: Vec<(String, String)>,
    place: Place,
    clock: SharedClock,
    begun: MonoMs,
}

impl Stage {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Demo::start`].
    pub fn start(place: Place, load: Load) -> anyhow::Result<Self> {
        let clock = SystemClock::shared();
        let begun = clock.mono_ms();
        std::fs::create_dir_all(&place.footage)?;
        // beside the state, which the demo makes anew
        let register = place.state.with_extension("fleet.toml");
        std::fs::write(&register, REGISTER).with_context(|| register.display().to_string())?;
        let fleet = Register::load(&register)?;
        let sites: Vec<_> = fleet.sites.iter().map(|s| s.id.to_string()).collect();
        let cameras = fleet
            .sites
            .iter()
            .flat_map(|site| {
                let of = site.devices_of(DeviceKind::Camera);
                of.map(|camera| (site.id.to_string(), camera.id.to_string()))
            })
            .collect();
        let options = Options {
            bin: place.bin.clone(),
            state: place.state.clone(),
            register,
            footage: place.footage.clone(),
            sites: sites.clone(),
            load: Load {
                agent_log: Some(TELL),
                ..load
            },
        };
        let demo = Demo::start(options, |step| say(&*clock, begun, step))?;
        Ok(Self {
            demo,
            sites,
            cameras,
            place,
            clock,
            begun,
        })
    }

    /// Tells what happens, on standard error.
    pub fn say(&self, what: &str) {
        say(&*self.clock, self.begun, what);
    }

    /// Milliseconds that only go on.
    #[must_use]
    pub fn mono_ms(&self) -> MonoMs {
        self.clock.mono_ms()
    }

    /// The wall clock, which the agents' is too.
    #[must_use]
    pub fn wall_ms(&self) -> WallMs {
        self.clock.wall_ms()
    }

    /// Where the hub keeps pictures and video.
    #[must_use]
    pub fn media(&self) -> PathBuf {
        self.demo.media()
    }

    /// The folder of everything.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.place.state
    }

    /// The hub's database.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn ledger(&self) -> anyhow::Result<Ledger> {
        Ledger::open(&self.demo.database())
    }

    /// What the terminals say was punched.
    ///
    /// # Errors
    /// If their files cannot be read.
    pub fn punched(&self) -> anyhow::Result<Punches> {
        oracle::punched(&self.demo.truth())
    }

    /// What the buffers say they have accepted.
    ///
    /// # Errors
    /// If a log cannot be read or contradicts itself.
    pub fn accepted(&self) -> anyhow::Result<Records> {
        let mut records = Records::new();
        for site in &self.sites {
            oracle::accepted(&self.demo.agent_log(site), site, &mut records)?;
        }
        Ok(records)
    }

    /// Sleeps for a moment.
    ///
    /// # Errors
    /// If the ordeal is to end early, or a program has ended although nobody stopped it.
    pub fn moment(&mut self, long: Duration) -> anyhow::Result<()> {
        if self.place.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if let Some(fallen) = self.demo.fallen()? {
            bail!(
                "{fallen}; its log is in {}",
                self.place.state.join("log").display()
            );
        }
        std::thread::sleep(long);
        Ok(())
    }

    /// Waits until something is so; returns what is not if it is not so within the bound.
    ///
    /// # Errors
    /// As [`moment`](Self::moment), and what `missing` cannot find out.
    pub fn until(
        &mut self,
        within: Duration,
        mut missing: impl FnMut(&mut Self) -> anyhow::Result<Option<String>>,
    ) -> anyhow::Result<Option<String>> {
        let bound = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let end = self.mono_ms().saturating_add(bound);
        loop {
            let lacks = missing(self)?;
            if lacks.is_none() || self.mono_ms() >= end {
                return Ok(lacks);
            }
            self.moment(LOOK_EVERY)?;
        }
    }

    /// Waits until every device has delivered.
    ///
    /// # Errors
    /// If one does not.
    pub fn warm_up(&mut self, within: Duration) -> anyhow::Result<()> {
        let lacks = self.until(within, |stage| {
            let arrived = stage.demo.arrived()?;
            let first = arrived.missing().next();
            Ok(first.map(|(device, what)| format!("{} {}: {what}", device.site, device.id)))
        })?;
        match lacks {
            None => Ok(()),
            Some(what) => bail!("nothing was done yet, and {what}"),
        }
    }

    /// Nobody punches any more, nobody shows anything any more, until all that was taken has
    /// arrived; then the account. Before that, every camera has to show something after `since`.
    ///
    /// # Errors
    /// If something cannot be read. What is missing is in the account.
    pub fn settle(
        &mut self,
        since: WallMs,
        agent_kills: usize,
        within: Duration,
    ) -> anyhow::Result<Account> {
        for (_, terminal) in self.demo.terminals() {
            terminal.ask("punch-every off")?;
        }
        let cameras = self.cameras.clone();
        let dark = self.until(within, |stage| {
            let video = stage.ledger()?.video()?;
            let dark = cameras.iter().find(|camera| {
                let newest = video.get(*camera).and_then(|stretches| stretches.last());
                newest.is_none_or(|stretch| stretch.from_ms <= since)
            });
            Ok(dark.map(|(site, device)| format!("{site} {device} shows nothing since")))
        })?;
        for camera in self.demo.cameras() {
            camera.stop()?;
        }
        // what the end of a camera makes of its open segment
        self.moment(Duration::from_secs(2))?;
        let punched = self.punched()?;
        let due = self.accepted()?;
        self.say(&format!(
            "waiting for {} punches and {} records",
            punched.values().sum::<u64>(),
            due.len()
        ));
        let late = self.until(within, |stage| {
            let ledger = stage.ledger()?;
            let (stored, punches) = (ledger.records()?, ledger.punches()?);
            let (absent, lacking) = (
                absent(&due, &stored).len(),
                lacking(&punched, &punches).len(),
            );
            let all = absent == 0 && lacking == 0;
            Ok((!all).then(|| format!("{absent} records and {lacking} punches did not arrive")))
        })?;
        let ledger = self.ledger()?;
        // in this order: a buffer tells before anything of it can be sent
        let stored = ledger.records()?;
        let told = self.accepted()?;
        let evidence = Evidence {
            punched: &punched,
            due: &due,
            stored: &stored,
            told: &told,
            agents: self.sites.len(),
            agent_kills,
        };
        let mut account = Account::take(&evidence, &ledger, &self.demo.media())?;
        for what in [dark, late].into_iter().flatten() {
            account.violation(what);
        }
        Ok(account)
    }
}

fn say(clock: &dyn Clock, begun: MonoMs, what: &str) {
    let at = clock.mono_ms().saturating_sub(begun);
    eprintln!("[{:5}.{} s] {what}", at / 1_000, at % 1_000 / 100);
}
