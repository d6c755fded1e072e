//! `make bench-recovery`: the hub comes back after an outage, and everybody has a backlog.
//!
//! The agents are the shipped buffers and uplinks, all in this process, each with its own folder and
//! certificate. They fill their buffers while the hub is away and already try to reach it; then it starts.
//! From the moment that an agent is online it also takes a punch each second, and the time until its
//! own buffer knows that the hub has committed it is the delay of a live record.
//!
//! Beside it: Mosquitto as the box's broker with a bridge to a central Mosquitto, over an outage of the
//! central one, with Debian's defaults and tuned (an unlimited queue that is saved after so many changes, and
//! the box loses its power in the outage: kill -9). Ends with one line of figures.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use scc_agent::buffer::Buffer;
use scc_agent::config::BufferLimits;
use scc_common::stream::Stream;
use scc_tests::bench::agents::Agent;
use scc_tests::bench::bodies::{BODY, Kind};
use scc_tests::bench::figures::{Line, percentile};
use scc_tests::bench::place::{self, Place, free_port};
use scc_tests::bench::process;
use scc_tests::bench::stand::{Stand, Who};
use scc_tests::child::Running;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[derive(Debug, Parser)]
struct Options {
    /// Agents.
    #[arg(long, default_value_t = 50)]
    agents: usize,
    /// Records that each of them holds when the hub comes back.
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Seconds within which the backlog must be gone.
    #[arg(long, default_value_t = 240)]
    within: u64,
    /// Messages through a bridge; fewer than through the agents, because a bridge that saves its queue is slow.
    #[arg(long, default_value_t = 50_000)]
    bridged: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let place = Place::new(options.agents)?;
    let ours = agents(&place, &options).await?;
    let mut last = Line::new("bench-recovery")
        .with("agents", options.agents)
        .with("records_each", options.records)
        .with("online_s", format!("{:.1}", ours.online_s))
        .with("backlog_zero_s", format!("{:.1}", ours.empty_s))
        .with("live_p99_ms", ours.live_p99_ms)
        .with("lost", ours.lost)
        .with("written_per_byte", format!("{:.2}", ours.written_per_byte));
    for (name, changes) in [("default", None), ("tuned", Some(5_000))] {
        let (lost, written) = bridge(&place, &options, changes).await?;
        println!(
            "bridge settings={name} lost_percent={lost:.1} written_per_byte={written:.2} machine_load={}",
            process::machine_load()
        );
        last = last
            .with(&format!("bridge_{name}_lost_percent"), format!("{lost:.1}"))
            .with(
                &format!("bridge_{name}_written_per_byte"),
                format!("{written:.2}"),
            );
    }
    println!("{last}");
    Ok(())
}

/// What came of the agents.
struct Recovered {
    online_s: f64,
    empty_s: f64,
    live_p99_ms: u32,
    lost: u64,
    written_per_byte: f64,
}

#[allow(clippy::cast_precision_loss, reason = "hundreds of megabytes")]
async fn agents(place: &Place, options: &Options) -> anyhow::Result<Recovered> {
    let mut stand = Stand::start(Who::Hub, place, options.agents)?;
    stand.kill("hub")?;
    let me = std::process::id();
    let before = process::written_bytes(me).context("no /proc/PID/io")?;
    let filled = Instant::now();
    let mut filling = JoinSet::new();
    for no in 0..options.agents {
        let folder = place.path(&place::agent(no));
        std::fs::create_dir(&folder)?;
        let clock = Arc::clone(place.clock());
        let records = options.records;
        filling.spawn(async move {
            let open = move || Buffer::open(&folder, BufferLimits::default(), clock);
            let buffer = tokio::task::spawn_blocking(open).await??;
            fill(&buffer, records).await?;
            anyhow::Ok((no, buffer))
        });
    }
    let mut buffers = Vec::new();
    while let Some(filled) = filling.join_next().await {
        buffers.push(filled??);
    }
    let payload = options.records * u64::try_from(options.agents * BODY)?;
    let written = process::written_bytes(me).context("no /proc/PID/io")? - before;
    println!(
        "filled records={} seconds={:.1} written_per_byte={:.2}",
        options.records * u64::try_from(options.agents)?,
        filled.elapsed().as_secs_f64(),
        written / payload as f64
    );
    let mut agents = Vec::new();
    for (no, buffer) in &buffers {
        agents.push(Agent::start(place, *no, stand.to, buffer.clone())?);
    }
    // an outage is long: everybody has come to the longest waits between two attempts
    sleep(Duration::from_secs(30)).await;
    stand.run("hub")?;
    let begun = Instant::now();
    let (live, punched) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let mut punching = JoinSet::new();
    for ((_, buffer), agent) in buffers.iter().zip(&agents) {
        let (buffer, live) = (buffer.clone(), Arc::clone(&live));
        let (status, punched) = (agent.handle.status.clone(), Arc::clone(&punched));
        punching.spawn(async move { punch(&buffer, status, &live, &punched).await });
    }
    let end = begun + Duration::from_secs(options.within);
    let mut online_s = None;
    let empty_s = loop {
        let now = begun.elapsed().as_secs_f64();
        if online_s.is_none() && agents.iter().all(Agent::is_online) {
            online_s = Some(now);
        }
        let mut left = 0;
        for (_, buffer) in &buffers {
            left += waiting(buffer, Stream::Health).await?;
        }
        if left == 0 && online_s.is_some() {
            break now;
        }
        if Instant::now() > end {
            bail!("{left} records still wait after {} s", options.within);
        }
        sleep(Duration::from_millis(100)).await;
    };
    live.store(false, Ordering::Relaxed);
    let mut delays = Vec::new();
    while let Some(punches) = punching.join_next().await {
        delays.extend(punches??);
    }
    let live_p99_ms = percentile(&mut delays, 99).unwrap_or(0);
    println!(
        "live punches={} p50_ms={} p99_ms={live_p99_ms} machine_load={}",
        punched.load(Ordering::Relaxed),
        percentile(&mut delays, 50).unwrap_or(0),
        process::machine_load()
    );
    let stored: usize = stand.stored()?.values().map(Vec::len).sum();
    let made = options.records * u64::try_from(options.agents)? + punched.load(Ordering::Relaxed);
    for agent in agents {
        agent.stop().await;
    }
    for (_, buffer) in buffers {
        buffer.close().await;
    }
    Ok(Recovered {
        online_s: online_s.unwrap_or(0.0),
        empty_s,
        live_p99_ms,
        lost: made.saturating_sub(u64::try_from(stored)?),
        written_per_byte: written / payload as f64,
    })
}

async fn fill(buffer: &Buffer, records: u64) -> anyhow::Result<()> {
    const NOON: i64 = 1_795_000_000_000;
    futures::stream::iter(1..=records)
        .map(|seq| async move {
            buffer
                .append(&Kind::Health.record(seq, NOON))
                .await
                .map(drop)
        })
        .buffered(128)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Records of a stream that wait for the hub.
async fn waiting(buffer: &Buffer, stream: Stream) -> anyhow::Result<u64> {
    let lanes = buffer.stat().await?;
    let of = lanes.iter().filter(|lane| lane.stream == stream);
    Ok(of.map(|lane| lane.records).sum())
}

/// A punch each second once the agent is online; gives the delays in milliseconds.
async fn punch(
    buffer: &Buffer,
    mut status: tokio::sync::watch::Receiver<scc_agent::uplink::status::LinkStatus>,
    live: &AtomicBool,
    punched: &AtomicU64,
) -> anyhow::Result<Vec<(u32, u32)>> {
    use scc_common::record::LinkMode;
    let online = |s: &scc_agent::uplink::status::LinkStatus| {
        !matches!(s.mode, LinkMode::Down | LinkMode::Connecting)
    };
    status.wait_for(online).await?;
    let mut delays = Vec::new();
    while live.load(Ordering::Relaxed) {
        let seq = punched.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Kind::Punch.record(seq, 1_795_000_000_000);
        let begun = Instant::now();
        buffer.append(&record).await?;
        while waiting(buffer, Stream::Attendance).await? > 0 {
            sleep(Duration::from_millis(10)).await;
        }
        let delay = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        delays.push((delay, 1));
        sleep(Duration::from_secs(1)).await;
    }
    Ok(delays)
}

/// A broker of its own, with these lines of configuration.
fn broker(place: &Place, name: &str, lines: &str) -> anyhow::Result<Running> {
    let folder = place.path(name);
    std::fs::create_dir_all(&folder)?;
    let config = place.path(&format!("{name}.conf"));
    std::fs::write(
        &config,
        format!(
            "user root\nallow_anonymous true\nlog_dest none\npersistence true\npersistence_location {}/\n{lines}",
            folder.display()
        ),
    )?;
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(config);
    Running::start(name, command, &place.path("log").join(name))
}

fn client(id: &str, port: u16) -> (AsyncClient, rumqttc::EventLoop) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    options.set_clean_session(false);
    AsyncClient::new(options, 100)
}

/// Percent lost and bytes written per byte of a bridge over an outage. `changes`: the queue has no limit and is
/// saved after so many changes, and the box loses its power before the other side is back.
#[allow(clippy::cast_precision_loss, reason = "tens of thousands")]
async fn bridge(
    place: &Place,
    options: &Options,
    changes: Option<u32>,
) -> anyhow::Result<(f64, f64)> {
    for name in ["edge", "central"] {
        let folder = place.path(name);
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
    }
    let (edge_port, central_port) = (free_port()?, free_port()?);
    let tuned = changes.map_or_else(String::new, |changes| {
        format!("max_queued_messages 0\nautosave_on_changes true\nautosave_interval {changes}\n")
    });
    let edge_lines = format!(
        "{tuned}listener {edge_port} 127.0.0.1\nconnection bridge\naddress 127.0.0.1:{central_port}\n\
         topic bench/# out 1\ncleansession false\nrestart_timeout 2\n"
    );
    let mut edge = broker(place, "edge", &edge_lines)?;
    let central_lines = format!("max_queued_messages 0\nlistener {central_port} 127.0.0.1\n");
    // the bridge has been connected once, or it would queue nothing
    let mut central = broker(place, "central", &central_lines)?;
    sleep(Duration::from_secs(4)).await;
    central.kill();
    let (publisher, mut events) = client("box", edge_port);
    let total = options.bridged;
    let publishing = tokio::spawn(async move {
        for no in 0..total {
            let topic = format!("bench/{}", no % 50);
            let body = Kind::Health.body(no, 0);
            publisher
                .publish(topic, QoS::AtLeastOnce, false, body)
                .await?;
        }
        anyhow::Ok(publisher)
    });
    let mut pubacked = 0;
    let publish = async {
        while pubacked < total {
            if let Event::Incoming(Packet::PubAck(_)) = events.poll().await? {
                pubacked += 1;
            }
        }
        anyhow::Ok(())
    };
    timeout(Duration::from_secs(120), publish)
        .await
        .context("the box's broker takes too long")??;
    drop(publishing.await??);
    let written = process::written_bytes(edge.pid()).unwrap_or(0.0);
    if changes.is_some() {
        edge.kill();
        edge = broker(place, "edge", &edge_lines)?;
    }
    let _central = broker(place, "central", &central_lines)?;
    let (reader, mut arriving) = client("reader", central_port);
    reader.subscribe("bench/#", QoS::AtLeastOnce).await?;
    let mut arrived = std::collections::HashSet::new();
    // until nothing has come for ten seconds
    loop {
        match timeout(Duration::from_secs(10), arriving.poll()).await {
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                arrived.insert(publish.payload);
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) => sleep(Duration::from_millis(200)).await,
            Err(_) => break,
        }
    }
    drop(edge);
    let lost = 100.0 * (total - u64::try_from(arrived.len())?) as f64 / total as f64;
    Ok((lost, written / (total as f64 * BODY as f64)))
}
