//! `make kills` and `make outage`: what must not be lost, is not, whatever is killed or away.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use scc_tests::ordeal::stage::Place;
use scc_tests::ordeal::{kills, outage};
use tokio::signal::unix::{SignalKind, signal};

/// Real processes under load that are killed or cut off, and an oracle beside them.
#[derive(Debug, Parser)]
struct Args {
    /// Folder for everything that is written; emptied first.
    #[arg(long, global = true, default_value = "target/ordeal")]
    state: PathBuf,
    /// Folder that keeps the encoded footage.
    #[arg(long, global = true, default_value = "target/footage")]
    footage: PathBuf,
    #[command(subcommand)]
    ordeal: Ordeal,
}

#[derive(Debug, Subcommand)]
enum Ordeal {
    /// Kill -9 of an agent, a camera's reader or the hub, again and again.
    Kills {
        /// How often.
        #[arg(long, default_value_t = 50)]
        rounds: u32,
        /// What decides when and whom; a random one if none is given.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The hub is away, and comes back.
    Outage {
        /// For how long.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let bin = std::env::current_exe()?
        .parent()
        .context("this program lies in no folder")?
        .to_owned();
    let place = Place {
        bin,
        state: std::path::absolute(&args.state)?,
        footage: std::path::absolute(&args.footage)?,
        interrupted: interrupted()?,
    };
    let (line, violations) = match args.ordeal {
        Ordeal::Kills { rounds, seed } => {
            let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
            println!("seed={seed}");
            let report = kills::run(place, rounds, seed)?;
            (report.to_string(), told(report.violations()))
        }
        Ordeal::Outage { minutes } => {
            let away = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
            let report = outage::run(place, away)?;
            (report.to_string(), told(report.violations()))
        }
    };
    for violation in &violations {
        println!("violation: {violation}");
    }
    println!("{line}");
    Ok(if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn told<'a>(violations: impl Iterator<Item = &'a str>) -> Vec<String> {
    violations.map(str::to_owned).collect()
}

/// Set by the first signal that asks to end, so that no process is left behind.
fn interrupted() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = Vec::new();
    {
        let _inside = runtime.enter();
        for kind in [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ] {
            signals.push(signal(kind)?);
        }
    }
    std::thread::spawn(move || {
        runtime.block_on(async {
            let any = signals.iter_mut().map(|s| Box::pin(s.recv()));
            futures::future::select_all(any).await;
            set.store(true, Ordering::Relaxed);
        });
    });
    Ok(flag)
}
