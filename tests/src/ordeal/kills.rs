//! Kill -9 of agents, camera readers and the hub at random under load: every punch and every
//! accepted record arrives once, and a kill costs a camera no more than its open fragment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use scc_agent::capture::camera::WORKER_COMMAND;
use scc_common::clock::MonoMs;

use super::account::Account;
use super::stage::{FRAGMENT_MS, Place, SEGMENT_S, Stage};
use super::video::{Holes, Kill, Victim, holes};
use crate::demo::Load;

/// Between two punches at one terminal, seconds.
const PUNCH_EVERY_S: f64 = 0.2;

/// Before the first kill, every device has delivered.
const WARM_UP: Duration = Duration::from_secs(120);

/// For all to arrive after the last kill.
const SETTLE: Duration = Duration::from_secs(180);

/// Milliseconds between two kills, most of the time: long enough for sessions, too short for peace.
const APART_MS: std::ops::Range<u64> = 1_000..8_000;

/// The same now and then: in the middle of a start, a recovery, a hello.
const CLOSE_MS: std::ops::Range<u64> = 50..1_000;

/// How often that is, of ten.
const CLOSE_OF_TEN: u32 = 2;

/// What a supervisor waits before it starts a program again, milliseconds.
const RESTART_MS: std::ops::Range<u64> = 0..2_000;

/// What happened.
#[derive(Debug)]
pub struct Report {
    /// The seed of all that was left to chance.
    pub seed: u64,
    /// How often what was killed.
    pub kills: Vec<Kill>,
    /// Truth against the hub.
    pub account: Account,
    /// What cameras did not show.
    pub holes: Holes,
}

impl Report {
    /// What must not be.
    pub fn violations(&self) -> impl Iterator<Item = &str> {
        let all = self.account.violations.iter().chain(&self.holes.violations);
        all.map(String::as_str)
    }

    fn count(&self, victim: Victim) -> usize {
        self.kills.iter().filter(|k| k.victim == victim).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rounds={} seed={} agent_kills={} reader_kills={} hub_kills={} {} holes={} overlaps={} \
             lost_agent_max_ms={} lost_reader_max_ms={} back_max_ms={} violations={}",
            self.kills.len(),
            self.seed,
            self.count(Victim::Agent),
            self.count(Victim::Reader),
            self.count(Victim::Hub),
            self.account,
            self.holes.count,
            self.holes.overlaps,
            self.holes.lost_agent_ms,
            self.holes.lost_reader_ms,
            self.holes.back_ms,
            self.violations().count(),
        )
    }
}

/// Runs it.
///
/// # Errors
/// If it could not be carried out. What must not be is in the report.
pub fn run(place: Place, rounds: u32, seed: u64) -> anyhow::Result<Report> {
    let load = Load {
        snapshot_every_s: 2,
        segment_s: SEGMENT_S,
        punch_every_s: PUNCH_EVERY_S,
        full_read_every_s: 20,
        ..Load::default()
    };
    let mut ordeal = Ordeal {
        stage: Stage::start(place, load)?,
        rng: StdRng::seed_from_u64(seed),
        deck: Vec::new(),
        due: Vec::new(),
        kills: Vec::new(),
    };
    ordeal.stage.warm_up(WARM_UP)?;
    for round in 1..=rounds {
        ordeal.round(round)?;
    }
    ordeal.wait(RESTART_MS.end)?;
    let Ordeal {
        mut stage, kills, ..
    } = ordeal;
    let since = kills.last().map_or(0, |k| k.at_ms);
    let agent_kills = kills.iter().filter(|k| k.victim == Victim::Agent).count();
    let mut account = stage.settle(since, agent_kills, SETTLE)?;
    let holes = holes(&stage.ledger()?.video()?, &kills, FRAGMENT_MS);
    let of = |site: &str| stage.cameras.iter().filter(|(s, _)| s == site).count();
    let excused: usize = kills
        .iter()
        .map(|kill| match kill.victim {
            Victim::Agent => of(&kill.site),
            Victim::Reader => 1,
            Victim::Hub => 0,
        })
        .sum();
    if holes.count > excused {
        account.violation(format!(
            "{} holes, but kills explain {excused}",
            holes.count
        ));
    }
    Ok(Report {
        seed,
        kills,
        account,
        holes,
    })
}

struct Ordeal {
    stage: Stage,
    rng: StdRng,
    /// Whom the next rounds hit: each as often as the others.
    deck: Vec<Victim>,
    /// What is down, and when it is started again. None is the hub.
    due: Vec<(MonoMs, Option<String>)>,
    kills: Vec<Kill>,
}

impl Ordeal {
    fn round(&mut self, round: u32) -> anyhow::Result<()> {
        let range = if self.rng.random_ratio(CLOSE_OF_TEN, 10) {
            CLOSE_MS
        } else {
            APART_MS
        };
        let apart = self.rng.random_range(range);
        self.wait(apart)?;
        if self.deck.is_empty() {
            self.deck = vec![Victim::Agent, Victim::Reader, Victim::Hub];
            self.deck.shuffle(&mut self.rng);
        }
        let victim = self.deck.pop().context("the deck is never empty")?;
        let at = self.rng.random_range(RESTART_MS);
        let (site, pid) = match victim {
            Victim::Hub => (String::new(), self.kill_hub(at)?),
            Victim::Agent => self.kill_agent(at)?,
            Victim::Reader => self.kill_reader()?,
        };
        self.stage.say(&format!(
            "round {round}: {victim:?} {site} (process {pid}) after {apart} ms"
        ));
        Ok(())
    }

    fn note(&mut self, victim: Victim, site: &str) {
        self.kills.push(Kill {
            at_ms: self.stage.wall_ms(),
            victim,
            site: site.to_owned(),
        });
    }

    fn kill_hub(&mut self, restart_ms: u64) -> anyhow::Result<u32> {
        while self.stage.demo.hub().is_none() {
            self.wait(100)?;
        }
        self.note(Victim::Hub, "");
        let mut hub = self.stage.demo.take_hub().context("the hub runs")?;
        hub.kill();
        self.due.push((self.stage.mono_ms() + restart_ms, None));
        Ok(hub.pid())
    }

    fn kill_agent(&mut self, restart_ms: u64) -> anyhow::Result<(String, u32)> {
        let site = self.site()?;
        while self.stage.demo.agent(&site).is_none() {
            self.wait(100)?;
        }
        self.note(Victim::Agent, &site);
        let taken = self.stage.demo.take_agent(&site);
        let mut agent = taken.with_context(|| format!("the agent of {site} runs"))?;
        agent.kill();
        let at = self.stage.mono_ms() + restart_ms;
        self.due.push((at, Some(site.clone())));
        Ok((site, agent.pid()))
    }

    fn kill_reader(&mut self) -> anyhow::Result<(String, u32)> {
        let site = self.site()?;
        loop {
            let agent = self.stage.demo.agent(&site).map(|agent| agent.pid());
            let readers = agent.map_or(Ok(Vec::new()), readers)?;
            if let Some(&pid) = readers.choose(&mut self.rng) {
                self.note(Victim::Reader, &site);
                let pid = i32::try_from(pid)
                    .ok()
                    .and_then(rustix::process::Pid::from_raw)
                    .context("a process id")?;
                // it may have ended in this very moment: then it is as dead
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                return Ok((site, pid.as_raw_nonzero().get().cast_unsigned()));
            }
            self.wait(100)?;
        }
    }

    fn site(&mut self) -> anyhow::Result<String> {
        let site = self.stage.sites.choose(&mut self.rng);
        Ok(site.context("the register has sites")?.clone())
    }

    /// Waits, and starts again meanwhile what is due.
    fn wait(&mut self, ms: u64) -> anyhow::Result<()> {
        let end = self.stage.mono_ms() + ms;
        loop {
            let now = self.stage.mono_ms();
            let (due, later) = self.due.drain(..).partition(|(at, _)| *at <= now);
            self.due = later;
            for (_, who) in due {
                match who {
                    None => self.stage.demo.start_hub()?,
                    Some(site) => self.stage.demo.start_agent(&site)?,
                }
            }
            if now >= end {
                return Ok(());
            }
            let step = (end - now).min(20);
            self.stage.moment(Duration::from_millis(step))?;
        }
    }
}

/// The camera readers that a process has started.
fn readers(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{parent}/task"))? {
        // a thread may end while it is looked at
        let file: PathBuf = task?.path().join("children");
        let children = std::fs::read_to_string(file).unwrap_or_default();
        for pid in children.split_whitespace() {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if words
                .split(|b| *b == 0)
                .any(|w| w == WORKER_COMMAND.as_bytes())
            {
                found.push(pid.parse()?);
            }
        }
    }
    Ok(found)
}
