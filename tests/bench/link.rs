//! `make bench-link`: 1 Mbit/s, 200 ms of delay, 2 GB of backlog, ten minutes.
//!
//! Agent and hub are the real ones, as libraries of this process, with MQTT over TLS between them
//! through a proxy that is slow and far; certificates, buffer and database on this machine's disk. Ends
//! with one line of figures.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement ends where it fails"
)]

use std::time::Duration;

use clap::Parser;

#[path = "link/drain.rs"]
mod drain;
#[path = "../tests/delivery/stage.rs"]
#[allow(dead_code, reason = "the tests of delivery stand on more of it")]
mod stage;

/// How much of a bad link an agent uses, and what a punch waits on it.
#[derive(Debug, Parser)]
struct Args {
    /// Minutes that are measured.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Backlog, MB.
    #[arg(long, default_value_t = 2_000)]
    megabytes: u32,
    /// Bytes per second of the link; 1 Mbit/s is 125000.
    #[arg(long, default_value_t = 125_000)]
    rate: u32,
    /// Round trip, ms: half of it each way.
    #[arg(long, default_value_t = 200)]
    round_trip_ms: u32,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args = Args::parse();
    let load = drain::Load {
        rate: args.rate,
        delay: Duration::from_millis(args.round_trip_ms.into()) / 2,
        segments: args.megabytes / 2,
        warm_up: Duration::from_secs(20),
        time: Duration::from_secs(60) * args.minutes,
        every: Duration::from_secs(4),
    };
    println!("{load:?}");
    println!("bench-link {}", drain::measure(load).await);
}
