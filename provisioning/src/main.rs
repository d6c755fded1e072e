//! `scc-provision`: see `scc_provision::cmd`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    scc_provision::cmd::main(&scc_provision::cmd::Cli::parse())
}
