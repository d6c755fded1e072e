//! The commands of `scc-hub`, a file each, and their words; `main.rs` does what they say.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use scc_common::id::AgencyId;
use scc_common::lang::Lang;

pub mod backup;
pub mod fleet;
pub mod import;
pub mod status;
pub mod tail;
pub mod user;

/// The central aggregator of the Soppeng Command Center.
#[derive(Debug, Parser)]
#[command(name = "scc-hub", version, about)]
pub struct Cli {
    /// Configuration file.
    #[arg(
        long,
        global = true,
        default_value = "/etc/scc/hub.toml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// What is asked for.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Let agents and people in, until told to stop.
    Serve,
    /// The register: what should exist.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Who may look at the pages.
    #[command(subcommand)]
    User(UserCommand),
    /// The sites in a table.
    Status,
    /// Records as JSON lines, as they are committed.
    Tail,
    /// Bring in what `scc-agent buffer export` has taken from a card; the hub must not run.
    Import {
        /// The exported file.
        file: PathBuf,
        /// Language of the output: `id` or `en`; otherwise that of the system.
        #[arg(long)]
        lang: Option<Lang>,
    },
    /// Copy the database while the hub runs.
    Backup {
        /// The file to write; it must not exist.
        file: PathBuf,
    },
}

/// `scc-hub fleet …`
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Check a register and count what it declares.
    Check {
        /// fleet.toml
        file: PathBuf,
    },
    /// Show what applying a register would change.
    Diff {
        /// fleet.toml
        file: PathBuf,
    },
    /// Make a file the register.
    Apply {
        /// fleet.toml
        file: PathBuf,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `scc-hub user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user; the password is asked for, or read from standard input.
    Add {
        /// The name that they log in with.
        name: String,
        /// What they may see.
        #[arg(long)]
        role: user::RoleName,
        /// An agency whose sites they may see; may be given several times.
        #[arg(long, value_name = "ID")]
        agency: Vec<AgencyId>,
    },
    /// Give a user another password; their sessions end.
    Passwd {
        /// The user.
        name: String,
    },
    /// List all users.
    List,
}
