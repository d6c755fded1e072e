//! The hub is away for minutes while the sites go on; when it is back, everything arrives, and what
//! is punched then is on the page at once although the backlog still drains.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use scc_agent::status::Status;
use scc_common::clock::{Clock, MonoMs, SystemClock};

use super::account::{Account, absent};
use super::page::Page;
use super::stage::{FRAGMENT_MS, Place, SEGMENT_S, Stage};
use super::video::{Holes, holes};
use crate::demo::{Load, USER};

/// Each site's link: 4 Mbit/s, of which the two cameras of the first site need 1.4 for what is now.
const LINK: u32 = 500_000;

/// The site whose page is watched.
const SITE: &str = "kantor";

/// A punch made while the backlog drains is on the page within this.
const ON_PAGE_MS: u64 = 2_000;

/// Between two punches that are waited for.
const PROBE_EVERY_MS: u64 = 1_000;

/// Fewer punches than this during the drain show nothing.
const PROBES_MIN: usize = 10;

/// People of the stand-ins' own punches have five digits.
const FIRST_PROBE: u64 = 9_000_001;

/// Before the outage, every device has delivered.
const WARM_UP: Duration = Duration::from_secs(120);

/// For the agents to find a hub that is back: their longest wait between two attempts, and a hello.
const BACK_WITHIN: Duration = Duration::from_secs(90);

/// For what is left after the drain.
const SETTLE: Duration = Duration::from_secs(180);

/// What happened.
#[derive(Debug)]
pub struct Report {
    /// How long the hub was away.
    pub away: Duration,
    /// What waited at the sites when it returned.
    pub backlog_records: u64,
    /// The same in bytes.
    pub backlog_bytes: u64,
    /// From the start of the hub until the watched site was connected.
    pub reconnect_ms: u64,
    /// From then until all that had waited was in the database.
    pub drain_ms: u64,
    /// From a punch to the page, of each punch that was made meanwhile, sorted.
    pub latencies_ms: Vec<u64>,
    /// Truth against the hub.
    pub account: Account,
    /// What cameras did not show: nothing was killed at the sites.
    pub holes: Holes,
}

impl Report {
    /// What must not be.
    pub fn violations(&self) -> impl Iterator<Item = &str> {
        let all = self.account.violations.iter().chain(&self.holes.violations);
        all.map(String::as_str)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |share: usize| {
            let last = self.latencies_ms.len().saturating_sub(1);
            let at = self.latencies_ms.get(last * share / 100);
            at.copied().unwrap_or(0)
        };
        write!(
            f,
            "away_s={} link_mbit_s={} backlog_records={} backlog_bytes={} reconnect_ms={} drain_s={} \
             probes={} page_p50_ms={} page_p95_ms={} page_max_ms={} {} holes={} violations={}",
            self.away.as_secs(),
            LINK / 125_000,
            self.backlog_records,
            self.backlog_bytes,
            self.reconnect_ms,
            self.drain_ms / 1_000,
            self.latencies_ms.len(),
            of(50),
            of(95),
            of(100),
            self.account,
            self.holes.count,
            self.violations().count(),
        )
    }
}

/// Runs it.
///
/// # Errors
/// If it could not be carried out. What must not be is in the report.
pub fn run(place: Place, away: Duration) -> anyhow::Result<Report> {
    let load = Load {
        snapshot_every_s: 2,
        segment_s: SEGMENT_S,
        punch_every_s: 1.0,
        full_read_every_s: 60,
        link: Some(LINK),
        ..Load::default()
    };
    let mut stage = Stage::start(place, load)?;
    stage.warm_up(WARM_UP)?;
    let page = Page::log_in(
        &stage.demo.web,
        &stage.demo.hub_ca(),
        USER,
        &stage.demo.password,
    )?;
    stage.say(&format!("the hub stops for {} s", away.as_secs()));
    let mut hub = stage.demo.take_hub().context("the hub runs")?;
    hub.stop();
    let end = stage.mono_ms() + u64::try_from(away.as_millis())?;
    while stage.mono_ms() < end {
        stage.moment(Duration::from_millis(200))?;
    }
    let (backlog_records, backlog_bytes) = backlog(&stage)?;
    let due = stage.accepted()?;
    stage.demo.start_hub()?;
    let started = stage.mono_ms();
    stage.say(&format!(
        "the hub is back, {backlog_records} records and {backlog_bytes} bytes wait"
    ));
    let watcher = Watcher::start(page.clone());
    let away_still = stage.until(BACK_WITHIN, |_| {
        let site = page
            .get(&format!("/api/v1/sites/{SITE}"))
            .unwrap_or_default();
        let connected = site.contains("\"connected\":true");
        Ok((!connected).then(|| format!("{SITE} does not come back")))
    })?;
    let connected = stage.mono_ms();
    let mut probes = Probes::default();
    let mut drained = None;
    let patience = connected + 4 * u64::try_from(away.as_millis())? + 120_000;
    while drained.is_none() && stage.mono_ms() < patience {
        probes.punch(&mut stage)?;
        let next = stage.mono_ms() + PROBE_EVERY_MS;
        if absent(&due, &stage.ledger()?.records()?).is_empty() {
            drained = Some(stage.mono_ms());
        }
        while stage.mono_ms() < next {
            stage.moment(Duration::from_millis(20))?;
        }
        probes.seen(&watcher);
    }
    let drained_ms = stage.mono_ms();
    // what was punched last has its two seconds too
    stage.until(Duration::from_millis(2 * ON_PAGE_MS), |_| {
        probes.seen(&watcher);
        Ok((!probes.made.is_empty()).then(String::new))
    })?;
    drop(watcher);
    stage.say("drained");
    let mut account = stage.settle(stage.wall_ms(), 0, SETTLE)?;
    if let Some(what) = away_still {
        account.violation(what);
    }
    if drained.is_none() {
        account.violation("the backlog does not drain".into());
    }
    probes.judge(&mut account);
    let holes = holes(&stage.ledger()?.video()?, &[], FRAGMENT_MS);
    Ok(Report {
        away,
        backlog_records,
        backlog_bytes,
        reconnect_ms: connected - started,
        drain_ms: drained.unwrap_or(drained_ms) - connected,
        latencies_ms: probes.latencies_ms(),
        account,
        holes,
    })
}

/// What the agents said last that waits with them.
fn backlog(stage: &Stage) -> anyhow::Result<(u64, u64)> {
    let (mut records, mut bytes) = (0, 0);
    for site in &stage.sites {
        for lane in Status::read(&stage.demo.agent_state(site))?.lanes {
            records += lane.records;
            bytes += lane.bytes;
        }
    }
    Ok((records, bytes))
}

/// Punches that are waited for on the page.
#[derive(Debug, Default)]
struct Probes {
    next: u64,
    /// Number of the person, and when.
    made: BTreeMap<u64, MonoMs>,
    seen: Vec<u64>,
}

impl Probes {
    fn punch(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        let user = FIRST_PROBE + self.next;
        let at = stage.mono_ms();
        // the terminals take turns
        let turn = usize::try_from(self.next)?;
        let mut terminals: Vec<_> = stage.demo.terminals().map(|(_, t)| t).collect();
        let many = terminals.len();
        let terminal = terminals.get_mut(turn % many).context("a terminal")?;
        terminal.ask(&format!("punch {user}"))?;
        self.made.insert(user, at);
        self.next += 1;
        Ok(())
    }

    /// Takes from `made` what the page has shown.
    fn seen(&mut self, watcher: &Watcher) {
        while let Ok((at, line)) = watcher.lines.try_recv() {
            let seen = &mut self.seen;
            self.made.retain(|user, made| {
                let there = line.contains(&user.to_string());
                if there {
                    seen.push(at.saturating_sub(*made));
                }
                !there
            });
        }
    }

    fn judge(&self, account: &mut Account) {
        for user in self.made.keys() {
            account.violation(format!("the punch of {user} was never on the page"));
        }
        for late in self.seen.iter().filter(|ms| **ms > ON_PAGE_MS) {
            account.violation(format!("a punch was on the page only after {late} ms"));
        }
        if self.seen.len() < PROBES_MIN {
            let n = self.seen.len();
            account.violation(format!("{n} punches during the drain show nothing"));
        }
    }

    fn latencies_ms(&self) -> Vec<u64> {
        let mut sorted = self.seen.clone();
        sorted.sort_unstable();
        sorted
    }
}

/// A browser that has the site's page open, in a thread of its own.
struct Watcher {
    lines: mpsc::Receiver<(MonoMs, String)>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    fn start(page: Page) -> Self {
        let (tell, lines) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let clock = SystemClock::new();
            while !stopped.load(Ordering::Relaxed) {
                // as a browser does: when the stream ends, it is opened again
                let _ = page.watch(&format!("/events?di=lokasi/{SITE}"), |line| {
                    let part = line.starts_with("data:") && line.contains("\"punches\"");
                    if part {
                        // nobody listens any more only when all is over
                        let _ = tell.send((clock.mono_ms(), line.to_owned()));
                    }
                    !stopped.load(Ordering::Relaxed)
                });
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { lines, stop }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
