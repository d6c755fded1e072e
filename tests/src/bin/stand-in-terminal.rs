//! The stand-in terminal as a program: prints `listening 127.0.0.1:PORT`, then obeys lines on its
//! standard input, answering each with `ok …` or `error …`.
//!
//! `punch USER` · `punch-every SECONDS|off` · `drift SECONDS` · `silent on|off` · `mute on|off` · `cut` · `reset-after BYTES` ·
//! `counter right|absent|N` · `count` · `quit`

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rand::Rng;
use scc_common::clock::SystemClock;
use scc_tests::control;
use scc_tests::terminal::{Counter, Layout, Setup, Terminal};

/// An attendance terminal that is none.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Record layout.
    #[arg(long, value_enum, default_value = "40")]
    layout: Layout,
    /// Serial number.
    #[arg(long, default_value = "CGKK223862906")]
    serial: String,
    /// Comm key; 0 = none.
    #[arg(long, default_value_t = 0)]
    comm_key: u32,
    /// Minutes that its wall is ahead of UTC.
    #[arg(long, default_value_t = 480, allow_hyphen_values = true)]
    utc_offset_min: i16,
    /// Seconds that its clock is fast.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    drift: i64,
    /// Serve one session at a time.
    #[arg(long)]
    one_session: bool,
    /// Write every punch here, synced, before it can be seen.
    #[arg(long)]
    truth: Option<PathBuf>,
    /// Seed of the log that it begins with.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Punches in that log.
    #[arg(long, default_value_t = 214)]
    records: usize,
    /// Somebody punches every so many seconds.
    #[arg(long)]
    punch_every: Option<f64>,
    /// Write in pieces of so many bytes.
    #[arg(long)]
    split: Option<usize>,
    /// End when standard input closes.
    #[arg(long)]
    with_parent: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let setup = Setup {
        layout: args.layout,
        serial: args.serial,
        comm_key: args.comm_key,
        utc_offset_min: args.utc_offset_min,
        drift_s: args.drift,
        one_session: args.one_session,
        truth: args.truth,
        seed: args.seed,
        records: args.records,
    };
    let terminal = Terminal::start_at(setup, SystemClock::shared(), args.listen)
        .await
        .context("the stand-in cannot start")?;
    terminal.faults(|faults| faults.split = args.split);
    println!("listening {}", terminal.address());
    let mut every = match args.punch_every {
        None => None,
        Some(s) => Some(Duration::try_from_secs_f64(s).context("--punch-every")?),
    };
    let mut lines = control::lines();
    let mut input = true;
    loop {
        tokio::select! {
            line = lines.recv(), if input => match line {
                None if args.with_parent => return Ok(()),
                None => input = false,
                Some(line) if line.trim() == "quit" => return Ok(()),
                Some(line) => match obey(&terminal, &mut every, &line) {
                    Ok(said) => println!("ok {said}"),
                    Err(error) => println!("error {error:#}"),
                },
            },
            () = tokio::time::sleep(every.unwrap_or(Duration::MAX)), if every.is_some() => {
                terminal.punch(rand::rng().random_range(10_000..60_000));
            }
        }
    }
}

fn obey(terminal: &Terminal, every: &mut Option<Duration>, line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let switch = |word: &str| match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("say on or off"),
    };
    match words.as_slice() {
        ["punch", user] => return Ok(serde_json::to_string(&terminal.punch(user.parse()?))?),
        ["punch-every", "off"] => *every = None,
        ["punch-every", seconds] => {
            *every = Some(Duration::try_from_secs_f64(seconds.parse()?)?);
        }
        ["count"] => return Ok(terminal.log().len().to_string()),
        ["drift", seconds] => terminal.drift(seconds.parse()?),
        ["silent", word] => {
            let on = switch(word)?;
            terminal.faults(|f| f.silent = on);
        }
        ["mute", word] => {
            let on = switch(word)?;
            terminal.faults(|f| f.mute = on);
        }
        ["cut"] => terminal.cut(),
        ["reset-after", bytes] => {
            let bytes = bytes.parse()?;
            terminal.faults(|f| f.reset_after = Some(bytes));
        }
        ["counter", word] => {
            let counter = match *word {
                "right" => Counter::Right,
                "absent" => Counter::Absent,
                n => Counter::Says(n.parse()?),
            };
            terminal.faults(|f| f.counter = counter);
        }
        _ => bail!("`{line}` is no command of the stand-in"),
    }
    Ok(String::new())
}
