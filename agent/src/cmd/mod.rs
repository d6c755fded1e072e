//! Subcommands, one file each.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use scc_common::id::AgentId;
use scc_common::lang::Lang;

pub mod buffer;
pub mod card;
pub mod doctor;
pub mod plan;
pub mod run;
pub mod status;
pub mod units;
pub mod words;

/// The program on the box at a site: captures, buffers, sends.
#[derive(Debug, Parser)]
#[command(name = "scc-agent", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is unless the person says otherwise.
const CONFIG: &str = "/etc/scc/agent.toml";

#[derive(Debug, clap::Args)]
struct File {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Spoken {
    /// Language of the output: `id` or `en`.
    #[arg(long, default_value = "id")]
    lang: Lang,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM.
    Run(File),
    /// Show on one screen how the running agent is doing.
    Status {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Check power, disk, clock, network, hub and devices; name the first thing to fix for each.
    Doctor {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Look into the buffer.
    Buffer {
        #[command(subcommand)]
        command: BufferCommand,
    },
    /// The reader process of one camera; started by the agent itself.
    #[command(name = crate::capture::camera::WORKER_COMMAND, hide = true)]
    CameraWorker,
}

#[derive(Debug, Subcommand)]
enum BufferCommand {
    /// Tell what would survive an outage of the hub, at the rates of the records on this card.
    Plan {
        /// How long the hub is away: hours or days, such as `72h` or `3d`.
        #[arg(long, value_name = "TIME", default_value = "72h")]
        outage: plan::Outage,
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Show depth, age and losses of each lane, also while the agent does not run.
    Stat {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Read every record of a buffer and say what is whole; writes nothing. Exit status: 0 all is
    /// whole, 1 something is damaged, 2 it cannot be read.
    Check {
        /// The state directory or the buffer's folder of a card; without it, the configuration's.
        dir: Option<PathBuf>,
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Write all that a card still has into one file; writes nothing to the card.
    Export {
        /// The state directory or the buffer's folder of the card.
        dir: PathBuf,
        /// The file to write; it must not exist.
        to: PathBuf,
        /// Whose card it is, for one that does not say so itself.
        #[arg(long, value_name = "ID")]
        agent: Option<AgentId>,
        #[command(flatten)]
        spoken: Spoken,
    },
    /// Take an exported file of the same agent into this box's buffer; the agent must not run.
    Import {
        /// The exported file.
        from: PathBuf,
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        spoken: Spoken,
    },
}

/// Runs the command that was asked for.
#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Run(file) => run::main(&file.config),
        Command::Status { file, spoken } => status::main(&file.config, spoken.lang),
        Command::Doctor { file, spoken } => doctor::main(&file.config, spoken.lang),
        Command::Buffer { command } => command.main(),
        Command::CameraWorker => crate::capture::camera::worker::main(),
    }
}

impl BufferCommand {
    fn main(self) -> ExitCode {
        match self {
            Self::Plan {
                outage,
                file,
                spoken,
            } => plan::main(&file.config, outage, spoken.lang),
            Self::Stat { file, spoken } => buffer::main(&file.config, spoken.lang),
            Self::Check { dir, file, spoken } => {
                card::check(dir.as_deref(), &file.config, spoken.lang)
            }
            Self::Export {
                dir,
                to,
                agent,
                spoken,
            } => card::export(&dir, &to, agent, spoken.lang),
            Self::Import { from, file, spoken } => card::import(&from, &file.config, spoken.lang),
        }
    }
}

/// Says on stderr, in one sentence, why the program cannot do what it was asked.
fn refuse(why: &dyn std::fmt::Display, code: u8) -> ExitCode {
    use std::io::Write;
    // nobody is there to hear that stderr is gone
    let _ = writeln!(std::io::stderr(), "scc-agent: {why}");
    ExitCode::from(code)
}

/// Writes a page to stdout; a closed pipe (`| head`) is not an error.
fn print(page: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(page.as_bytes());
}
