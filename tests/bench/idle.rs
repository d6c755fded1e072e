//! `make bench-idle`: what agents cost that have nothing to say.
//!
//! The agents are the shipped uplinks, all in this process, each with its own certificate and an empty
//! buffer: they greet, keep their connection alive, and tell *now* every 30 s. Beside the hub stands
//! Mosquitto, with as many plain connections that only keep alive; there, `back_s` is the time in which
//! they came, 32 at a time, and not a restart. Memory is the growth of what the hub
//! has for itself (PSS) by one connection; the kernel's socket buffers are in neither figure.
//! Ends with one line of figures.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use scc_common::id::AgentId;
use scc_common::topic;
use scc_tests::bench::agents::{Agent, Empty};
use scc_tests::bench::figures::Line;
use scc_tests::bench::mqtt::{Call, Connection};
use scc_tests::bench::place::{self, Place};
use scc_tests::bench::process;
use scc_tests::bench::stand::{Stand, Who};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

#[derive(Debug, Parser)]
struct Options {
    /// How many connections.
    #[arg(long, value_delimiter = ',', default_value = "1000,5000")]
    connections: Vec<usize>,
    /// Seconds of idling in which the CPU is counted.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long everybody may take to be online.
    #[arg(long, default_value_t = 120)]
    within: u64,
}

/// What the stand costs.
#[derive(Debug)]
struct Cost {
    pss_kb: f64,
    heap_kb: f64,
    cpu_ms_per_s: f64,
    back_s: f64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let most = options.connections.iter().copied().max().unwrap_or(0);
    more_files(most)?;
    let place = Place::new(most)?;
    let mut last = Line::new("bench-idle");
    for n in &options.connections {
        let hub = hub(&place, &options, *n).await?;
        println!("{}", line("hub", *n, &hub));
        let peer = mosquitto(&place, &options, *n).await?;
        println!("{}", line("mosquitto", *n, &peer));
        last = last
            .with(&format!("kb_{n}"), format!("{:.1}", hub.pss_kb))
            .with(&format!("mosquitto_kb_{n}"), format!("{:.1}", peer.pss_kb))
            .with(
                &format!("cpu_ms_per_s_{n}"),
                format!("{:.1}", hub.cpu_ms_per_s),
            )
            .with(
                &format!("mosquitto_cpu_ms_per_s_{n}"),
                format!("{:.1}", peer.cpu_ms_per_s),
            )
            .with(&format!("back_s_{n}"), format!("{:.1}", hub.back_s));
    }
    let last = last.with("machine_load", process::machine_load());
    println!("{last}");
    Ok(())
}

fn line(who: &str, connections: usize, cost: &Cost) -> Line {
    Line::new("idle")
        .with("who", who)
        .with("connections", connections)
        .with("pss_kb_per_connection", format!("{:.1}", cost.pss_kb))
        .with(
            "anonymous_kb_per_connection",
            format!("{:.1}", cost.heap_kb),
        )
        .with("cpu_ms_per_s", format!("{:.1}", cost.cpu_ms_per_s))
        .with("back_s", format!("{:.1}", cost.back_s))
        .with("machine_load", process::machine_load())
}

/// Two descriptors of each connection may be here at a moment, one in the hub, which inherits the limit.
fn more_files(connections: usize) -> anyhow::Result<()> {
    let wanted = u64::try_from(connections * 2 + 1_000)?;
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum: now.maximum.map(|most| most.max(wanted)),
        };
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("{wanted} open files are needed; raise `ulimit -n`"))?;
    }
    Ok(())
}

/// PSS and anonymous memory, kB.
fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let pss = process::memory_kb(pid, "smaps_rollup", "Pss").context("no PSS")?;
    let anonymous = process::memory_kb(pid, "status", "RssAnon").context("no RssAnon")?;
    Ok((pss, anonymous))
}

async fn hub(place: &Place, options: &Options, n: usize) -> anyhow::Result<Cost> {
    let mut stand = Stand::start(Who::Hub, place, 100)?;
    let pid = stand.pid("hub").context("no hub")?;
    sleep(Duration::from_secs(2)).await;
    let before = memory(pid)?;
    let mut agents = Vec::with_capacity(n);
    for no in 0..n {
        agents.push(Agent::start(place, no, stand.to, Empty::default())?);
        // a crowd at the door is another measurement, below
        if no % 50 == 49 {
            sleep(Duration::from_millis(100)).await;
        }
    }
    online(&agents, options.within).await?;
    sleep(Duration::from_secs(5)).await;
    let cpu = process::usage(pid).cpu_s;
    sleep(Duration::from_secs(options.seconds)).await;
    let used = process::usage(pid).cpu_s - cpu;
    let after = memory(pid)?;
    // kill -9, started again at once; counted from the start
    stand.kill("hub")?;
    while agents.iter().any(Agent::is_online) {
        sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    stand.run("hub")?;
    online(&agents, options.within).await?;
    let back_s = begun.elapsed().as_secs_f64();
    for agent in agents {
        agent.stop().await;
    }
    Ok(cost(before, after, n, used, options.seconds, back_s))
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
fn cost(
    before: (f64, f64),
    after: (f64, f64),
    n: usize,
    cpu_s: f64,
    seconds: u64,
    back_s: f64,
) -> Cost {
    Cost {
        pss_kb: (after.0 - before.0) / n as f64,
        heap_kb: (after.1 - before.1) / n as f64,
        cpu_ms_per_s: cpu_s * 1_000.0 / seconds as f64,
        back_s,
    }
}

async fn online(agents: &[Agent], within: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let missing = agents.iter().filter(|agent| !agent.is_online()).count();
        if missing == 0 {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(within) {
            bail!("{missing} of {} agents are not online", agents.len());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn mosquitto(place: &Place, options: &Options, n: usize) -> anyhow::Result<Cost> {
    let stand = Stand::start(Who::Mosquitto, place, 0)?;
    let pid = stand.pid("broker").context("no broker")?;
    let before = memory(pid)?;
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    let (opened, mut open) = tokio::sync::mpsc::channel(n.max(1));
    // it has one thread for handshakes too, and resets whom its queue has no place for
    let places = Arc::new(Semaphore::new(32));
    for no in 0..n {
        let name = place::agent(no);
        let call = Call {
            to: stand.to,
            from: None,
            tls: place::tls(&place.identity(), &name)?,
            filter: topic::down(&AgentId::new(&name)?),
            id: name,
            keep_alive: 60,
        };
        let opened = opened.clone();
        let place = Arc::clone(&places).acquire_owned().await?;
        connections.spawn(async move {
            let mut connection = Connection::open(&call).await?;
            drop(place);
            let _ = opened.send(()).await;
            loop {
                connection.ping();
                connection.flush().await?;
                connection.next().await?;
                sleep(Duration::from_secs(30)).await;
            }
            #[allow(unreachable_code, reason = "it names the type of the error")]
            anyhow::Ok(())
        });
    }
    for _ in 0..n {
        tokio::select! {
            _ = open.recv() => {}
            Some(ended) = connections.join_next() => ended??,
        }
    }
    let back_s = begun.elapsed().as_secs_f64();
    sleep(Duration::from_secs(5)).await;
    let cpu = process::usage(pid).cpu_s;
    sleep(Duration::from_secs(options.seconds)).await;
    let used = process::usage(pid).cpu_s - cpu;
    let after = memory(pid)?;
    connections.abort_all();
    Ok(cost(before, after, n, used, options.seconds, back_s))
}
