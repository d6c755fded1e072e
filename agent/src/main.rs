//! `scc-agent`: see `scc_agent::cmd`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = scc_agent::cmd::Cli::parse();
    // an error means that a provider is installed already, and there is only this one
    let _ = rustls::crypto::ring::default_provider().install_default();
    scc_agent::cmd::main(cli)
}
