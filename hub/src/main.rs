//! `scc-hub`: the command line of the central aggregator.
//!
//! Exit status: 0 done; 1 failed; 2 the configuration or the command line is wrong, and nothing was
//! started. Errors are one sentence on standard error.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use clap::Parser as _;
use scc_common::config::{ConfigError, EXIT_CONFIG};
use scc_common::lang::Lang;
use scc_hub::cmd::{self, Cli, Command, FleetCommand, UserCommand};
use scc_hub::config::Config;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let because =
                |why: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(why);
            // whoever read the output has seen enough
            if because(|e| {
                e.downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            }) {
                return ExitCode::SUCCESS;
            }
            let _ = writeln!(std::io::stderr(), "scc-hub: {error}");
            let config = because(<dyn std::error::Error>::is::<ConfigError>);
            ExitCode::from(if config { EXIT_CONFIG } else { 1 })
        }
    }
}

/// The language of the system's settings.
fn spoken() -> Lang {
    let lang = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    Lang::from_code(lang.as_deref().unwrap_or("id"))
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if let Command::Fleet(FleetCommand::Check { file }) = &cli.command {
        // needs no hub at all
        return Ok(cmd::fleet::check(file, &mut out)?);
    }
    let config = Config::load(&cli.config)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider is already installed"))?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SCC_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,rumqttd=warn")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| anyhow::anyhow!("the runtime cannot be started: {e}"))?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve => scc_hub::serve::run(&config).await?,
            Command::Fleet(FleetCommand::Check { file }) => cmd::fleet::check(&file, &mut out)?,
            Command::Fleet(FleetCommand::Diff { file }) => {
                cmd::fleet::diff(&config, &file, &mut out).await?;
            }
            Command::Fleet(FleetCommand::Apply { file, dry_run }) => {
                cmd::fleet::apply(&config, &file, dry_run, &mut out).await?;
            }
            Command::User(UserCommand::Add { name, role, agency }) => {
                cmd::user::add(&config, name, role, agency).await?;
            }
            Command::User(UserCommand::Passwd { name }) => cmd::user::passwd(&config, name).await?,
            Command::User(UserCommand::List) => cmd::user::list(&config, &mut out).await?,
            Command::Status => cmd::status::run(&config, spoken(), &mut out).await?,
            Command::Import { file, lang } => {
                let lang = lang.unwrap_or_else(spoken);
                cmd::import::run(&config, &file, lang, &mut out).await?;
            }
            Command::Tail => cmd::tail::run(&config)?,
            Command::Backup { file } => {
                let report = cmd::backup::run(&config, &file)?;
                writeln!(
                    out,
                    "{}: {} records, {} bytes; {} of them have a media file, which is not in it",
                    report.file.display(),
                    report.records,
                    report.bytes,
                    report.with_media
                )?;
            }
        }
        Ok(())
    })
}
