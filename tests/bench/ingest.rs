//! `make bench-ingest`: durable ingest by our hub beside what a county would build instead of it.
//!
//! In each round every stand takes the same load: 100 agents with TLS client certificates, records of
//! 300 bytes, acknowledged to the agent after the commit. A round begins with the bare loop: the same rows
//! written into SQLite with the hub's settings, 500 in a transaction. Ends with one line of figures.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use scc_tests::bench::bodies::Kind;
use scc_tests::bench::figures::{Line, Rounds, figure};
use scc_tests::bench::place::Place;
use scc_tests::bench::process::{self, Usage};
use scc_tests::bench::stand::{Stand, Who};
use scc_tests::child::Running;

#[derive(Debug, Parser)]
struct Options {
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Agents.
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// Rows of a run in batches; one in four of them, one in a message.
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// Seconds of the run with 1,000 records per second.
    #[arg(long, default_value_t = 10)]
    steady: u64,
    /// Who stands; all if not given.
    #[arg(long)]
    who: Vec<Who>,
    /// What the records are.
    #[arg(long, default_value = "health")]
    kind: Kind,
    /// Without the kills.
    #[arg(long)]
    no_kills: bool,
}

/// What a stand is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Batched,
    Single,
    Steady,
}

impl Load {
    const fn name(self) -> &'static str {
        match self {
            Self::Batched => "batched",
            Self::Single => "single",
            Self::Steady => "steady",
        }
    }
}

/// Figures of one stand under one load, over the rounds.
#[derive(Debug, Default)]
struct Series {
    rate: Rounds,
    cpu: Rounds,
    load_cpu: Rounds,
    peak: Rounds,
    p50: Rounds,
    p99: Rounds,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let who = if options.who.is_empty() {
        vec![Who::Hub, Who::Mosquitto, Who::Nats, Who::NodeRed]
    } else {
        options.who.clone()
    };
    let place = Place::new(options.agents)?;
    let mut bare = Rounds::default();
    let mut all: BTreeMap<(Load, Who), Series> = BTreeMap::new();
    for round in 1..=options.rounds {
        bare.add(bare_loop(&place, options.rows)?);
        for load in [Load::Batched, Load::Single, Load::Steady] {
            for who in &who {
                let series = all.entry((load, *who)).or_default();
                measure(&place, &options, *who, load, series)
                    .with_context(|| format!("{} {} round {round}", who.name(), load.name()))?;
            }
        }
    }
    println!("bare sqlite rows_per_s={bare}");
    for ((load, who), s) in &all {
        let line = Line::new("stand")
            .with("who", who.name())
            .with("load", load.name())
            .with("kind", format!("{:?}", options.kind))
            .with("rows_per_s", &s.rate)
            .with("cpu_s_per_100k", &s.cpu)
            .with("load_cpu_s_per_100k", &s.load_cpu)
            .with("peak_rss_mb", &s.peak)
            .with("p50_ms", &s.p50)
            .with("p99_ms", &s.p99);
        println!("{line}");
    }
    let mut lost = BTreeMap::new();
    if !options.no_kills {
        for who in &who {
            kills(&place, &options, *who, &mut lost)?;
        }
    }
    println!("{}", last_line(&bare, &all, &lost));
    Ok(())
}

fn last_line(
    bare: &Rounds,
    all: &BTreeMap<(Load, Who), Series>,
    lost: &BTreeMap<(Who, &'static str), u64>,
) -> Line {
    let of = |load, get: fn(&Series) -> &Rounds| all.get(&(load, Who::Hub)).map(get);
    let rate = of(Load::Batched, |s| &s.rate).map_or(0.0, Rounds::median);
    let peers = || all.iter().filter(|((_, who), _)| *who != Who::Hub);
    let best = peers()
        .filter(|((load, _), _)| *load == Load::Batched)
        .max_by(|a, b| a.1.rate.median().total_cmp(&b.1.rate.median()));
    let best_rate = best.map_or(f64::NAN, |(_, s)| s.rate.median());
    let best_cpu = best.map_or(f64::NAN, |(_, s)| s.cpu.median());
    let cpu = of(Load::Batched, |s| &s.cpu).map_or(0.0, Rounds::median);
    let single = of(Load::Single, |s| &s.rate).map_or(0.0, Rounds::median);
    let p99 = |load| of(load, |s| &s.p99).map_or(0.0, Rounds::most);
    let peak = all
        .iter()
        .filter(|((_, who), _)| *who == Who::Hub)
        .map(|(_, s)| s.peak.most())
        .fold(0.0, f64::max);
    let mine: u64 = lost
        .iter()
        .filter(|((who, _), _)| *who == Who::Hub)
        .map(|(_, n)| n)
        .sum();
    Line::new("bench-ingest")
        .with("rows_per_s", format!("{rate:.0}"))
        .with("single_rows_per_s", format!("{single:.0}"))
        .with("of_sqlite", format!("{:.2}", rate / bare.median()))
        .with("of_best_peer", format!("{:.2}", rate / best_rate))
        .with("cpu_of_best_peer", format!("{:.2}", cpu / best_cpu))
        .with("rss_mb", format!("{peak:.0}"))
        .with("ack_p99_ms", p99(Load::Steady))
        .with("ack_p99_saturated_ms", p99(Load::Batched))
        .with("lost", mine)
}

fn bare_loop(place: &Place, rows: u64) -> anyhow::Result<f64> {
    let file = place.path("bare.sqlite");
    let output = place
        .program("bench-consumer")
        .arg("--database")
        .arg(&file)
        .args(["--bare", &rows.to_string()])
        .output()?;
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("bare.sqlite{end}")));
    }
    let line = String::from_utf8(output.stdout)?;
    println!("round {}", line.trim());
    figure(&line, "rows_per_s").context("the bare loop says nothing")
}

/// One run: a new stand, the load, its figures.
fn measure(
    place: &Place,
    options: &Options,
    who: Who,
    load: Load,
    series: &mut Series,
) -> anyhow::Result<()> {
    let stand = Stand::start(who, place, options.agents)?;
    let agents = u64::try_from(options.agents)?;
    let records = match load {
        Load::Batched => options.rows / agents,
        Load::Single => options.rows / agents / 4,
        Load::Steady => options.steady * 1_000 / agents,
    };
    let mut sender = sender(place, options, &stand, records, load)?;
    let before = sum(&stand.usage());
    let load_before = process::usage(sender.pid()).cpu_s;
    sender.ask("go")?;
    let line = sender.wait_line("load", Duration::from_secs(120))?;
    // before the sender ends: what it used is gone with it
    let load_cpu = process::usage(sender.pid()).cpu_s - load_before;
    let parts = stand.usage();
    let after = sum(&parts);
    let rows = figure(&line, "rows").unwrap_or(0.0);
    let per = 100_000.0 / rows.max(1.0);
    let get = |key| figure(&line, key).unwrap_or(f64::NAN);
    series.rate.add(get("rows_per_s"));
    series.cpu.add((after.cpu_s - before.cpu_s) * per);
    series.load_cpu.add(load_cpu * per);
    series.peak.add(after.peak_mb);
    series.p50.add(get("p50_ms"));
    series.p99.add(get("p99_ms"));
    let by: Vec<String> = parts
        .iter()
        .map(|(role, u)| format!("{role}:{:.2}s,{:.0}MB", u.cpu_s, u.peak_mb))
        .collect();
    println!(
        "round who={} load={} {line} cpu_s={:.2} load_cpu_s={load_cpu:.2} parts={} machine_load={}",
        who.name(),
        load.name(),
        after.cpu_s - before.cpu_s,
        by.join("+"),
        process::machine_load(),
    );
    let wanted = records * agents;
    #[allow(clippy::cast_precision_loss, reason = "hundreds of thousands")]
    if rows < wanted as f64 {
        anyhow::bail!("only {rows} of {wanted} rows were acknowledged: {line}");
    }
    Ok(())
}

fn sum(parts: &[(&'static str, Usage)]) -> Usage {
    parts.iter().fold(Usage::default(), |sum, (_, u)| Usage {
        cpu_s: sum.cpu_s + u.cpu_s,
        peak_mb: sum.peak_mb + u.peak_mb,
    })
}

/// The load program, connected and waiting to be told.
fn sender(
    place: &Place,
    options: &Options,
    stand: &Stand<'_>,
    records: u64,
    load: Load,
) -> anyhow::Result<Running> {
    let mut command = place.program("bench-load");
    command
        .args(["--to", &stand.to.to_string(), "--identity"])
        .arg(place.identity())
        .args(["--agents", &options.agents.to_string()])
        .args(["--records", &records.to_string(), "--within", "40"])
        .args([
            "--kind",
            if options.kind == Kind::Punch {
                "punch"
            } else {
                "health"
            },
        ])
        .arg("--account")
        .arg(place.path("account"));
    if stand.who == Who::Hub {
        command.arg("--hub");
    }
    match load {
        Load::Batched => drop(command.arg("--batched")),
        Load::Steady => drop(command.args(["--rate", "1000"])),
        Load::Single => {}
    }
    let sender = Running::talking("bench-load", command, &place.path("log").join("load"))?;
    sender.wait_line("ready", Duration::from_secs(90))?;
    Ok(sender)
}

/// Kills each process of a stand in a burst and counts what had been acknowledged and is not stored in the end.
fn kills(
    place: &Place,
    options: &Options,
    who: Who,
    lost: &mut BTreeMap<(Who, &'static str), u64>,
) -> anyhow::Result<()> {
    let roles = Stand::start(who, place, options.agents)?.roles();
    for role in roles {
        let mut stand = Stand::start(who, place, options.agents)?;
        let records = options.rows / u64::try_from(options.agents)?;
        let mut sender = sender(place, options, &stand, records, Load::Batched)?;
        sender.ask("go")?;
        // in the middle of the burst: some of it is stored, and much is still to come
        let third = usize::try_from(options.rows / 3)?;
        let mut looked = 0;
        while count(&stand.stored()?) < third && looked < 600 {
            std::thread::sleep(Duration::from_millis(20));
            looked += 1;
        }
        stand.kill(role)?;
        // what is in flight towards the sender arrives
        std::thread::sleep(Duration::from_secs(1));
        start_again(&mut stand, role)?;
        let mut stored = recovered(&stand)?;
        // until nothing more comes: a broker sends again within 5 s what was not acknowledged
        let mut quiet = 0;
        while quiet < 8 {
            std::thread::sleep(Duration::from_secs(1));
            let now = stand.stored()?;
            quiet = if count(&now) == count(&stored) {
                quiet + 1
            } else {
                0
            };
            stored = now;
        }
        let _ = sender.wait_line("load", Duration::from_secs(70))?;
        let account = std::fs::read_to_string(place.path("account"))?;
        let (acked, pubacked) = missing(&account, &stored);
        anyhow::ensure!(
            acked.0 > 0 && looked < 600,
            "nothing was acknowledged before the kill of {role}; this shows nothing"
        );
        println!(
            "kill who={} role={role} stored={} acked={} acked_lost={} pubacked={} pubacked_lost={}",
            who.name(),
            count(&stored),
            acked.0,
            acked.1,
            pubacked.0,
            pubacked.1
        );
        lost.insert((who, role), acked.1);
    }
    Ok(())
}

/// A database whose children are still on their way out refuses to start.
fn start_again(stand: &mut Stand<'_>, role: &'static str) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        match stand.run(role) {
            Err(_) if tries < 10 => tries += 1,
            ended => return ended,
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// What is stored, once a database that was killed has read its log again.
fn recovered(stand: &Stand<'_>) -> anyhow::Result<HashMap<String, Vec<u64>>> {
    let mut tries = 0;
    loop {
        match stand.stored() {
            Err(_) if tries < 60 => tries += 1,
            ended => return ended,
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn count(stored: &HashMap<String, Vec<u64>>) -> usize {
    stored.values().map(Vec::len).sum()
}

/// Of the messages of the account: rows acknowledged after the commit and how many of them are not stored; the
/// same of what the broker acknowledged.
fn missing(account: &str, stored: &HashMap<String, Vec<u64>>) -> ((u64, u64), (u64, u64)) {
    let sets: HashMap<&str, HashSet<u64>> = stored
        .iter()
        .map(|(agent, seqs)| (agent.as_str(), seqs.iter().copied().collect()))
        .collect();
    let (mut acked, mut pubacked) = ((0, 0), (0, 0));
    for line in account.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [agent, first, count, puback, ack] = fields[..] else {
            continue;
        };
        let (first, count): (u64, u64) = (first.parse().unwrap_or(0), count.parse().unwrap_or(0));
        let set = sets.get(agent);
        let absent = (first..first + count)
            .filter(|seq| !set.is_some_and(|set| set.contains(seq)))
            .count() as u64;
        for (flag, sum) in [(ack, &mut acked), (puback, &mut pubacked)] {
            if flag == "1" {
                sum.0 += count;
                sum.1 += absent;
            }
        }
    }
    (acked, pubacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_and_is_not_stored_is_counted_by_who_acknowledged_it() {
        let stored = HashMap::from([("a".to_owned(), vec![1, 2, 4])]);
        let account = "a 1 2 1 1\na 3 2 1 1\na 5 3 1 0\nb 1 1 0 0\n";
        assert_eq!(missing(account, &stored), ((4, 1), (7, 4)));
    }
}
