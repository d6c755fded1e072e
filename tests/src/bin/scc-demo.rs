//! `make demo` and `make demo-check`: the whole way on one machine.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use scc_tests::demo::arrived::Arrived;
use scc_tests::demo::{Demo, Load, Options, SITES, USER};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Sites, devices and a hub on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Wait until every declared camera and terminal has delivered, say what arrived, and end.
    #[arg(long)]
    check: bool,
    /// How long the check waits.
    #[arg(long, default_value_t = 180)]
    within_s: u64,
    /// The register.
    #[arg(long, default_value = "docs/fleet-soppeng.toml")]
    register: PathBuf,
    /// Folder for everything that the demo writes; emptied first.
    #[arg(long, default_value = "target/demo")]
    state: PathBuf,
    /// Folder that keeps the encoded footage.
    #[arg(long, default_value = "target/footage")]
    footage: PathBuf,
}

/// How often the check looks into the database.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let bin = std::env::current_exe()?
        .parent()
        .context("this program lies in no folder")?
        .to_owned();
    let (mut interrupt, mut terminate, mut hang_up) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let started = Instant::now();
    std::fs::create_dir_all(&args.footage)?;
    let mut demo = Demo::start(
        Options {
            bin,
            state: std::path::absolute(&args.state)?,
            register: args.register,
            footage: std::path::absolute(&args.footage)?,
            sites: SITES.map(str::to_owned).to_vec(),
            load: Load::default(),
        },
        |step| println!("[{:5.1} s] {step}", started.elapsed().as_secs_f32()),
    )?;
    println!(
        "\n    {}\n    user {USER}, password {}\n",
        demo.web, demo.password
    );
    let mut seen = Seen::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hang_up.recv() => break,
            _ = look.tick() => {}
        }
        if let Some(fallen) = demo.fallen()? {
            println!(
                "{fallen}; its log is in {}",
                args.state.join("log").display()
            );
            return Ok(ExitCode::FAILURE);
        }
        let arrived = demo.arrived()?;
        seen.tell(&arrived, started);
        if args.check {
            let missing: Vec<_> = arrived.missing().collect();
            if missing.is_empty() {
                println!("\n{arrived}");
                return Ok(ExitCode::SUCCESS);
            }
            if started.elapsed() > Duration::from_secs(args.within_s) {
                println!("\n{arrived}");
                for (device, what) in missing {
                    println!("missing: {} {}: {what}", device.site, device.id);
                }
                for (site, why) in demo.links() {
                    println!("link: {site}: {why}");
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!("stopping");
    Ok(ExitCode::SUCCESS)
}

/// What has been announced already.
#[derive(Debug, Default)]
struct Seen {
    picture: bool,
    punch: bool,
    all: bool,
}

impl Seen {
    fn tell(&mut self, arrived: &Arrived, started: Instant) {
        let at = started.elapsed().as_secs_f32();
        let once = |seen: &mut bool, now: bool, what: &str| {
            if now && !*seen {
                *seen = true;
                println!("[{at:5.1} s] {what}");
            }
        };
        once(
            &mut self.picture,
            arrived.devices.iter().any(|d| d.pictures > 0),
            "first picture at the hub",
        );
        once(
            &mut self.punch,
            arrived.devices.iter().any(|d| d.punches > 0),
            "first punch at the hub",
        );
        once(
            &mut self.all,
            arrived.missing().next().is_none(),
            "every camera and terminal has delivered",
        );
    }
}
