//! The load program of the measurements; see `scc_tests::bench::load`.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use clap::Parser as _;
use scc_tests::bench::load::{self, Options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    println!("{}", load::run(Options::parse()).await?);
    // what it has used can be read until whoever started it has done so
    std::io::stdin().lines().for_each(drop);
    Ok(())
}
