//! The command line: what can be asked for, and what is said about it. The work is in the other modules.
//!
//! Exit status: 0 done, 1 could not be done, 2 the command or a file that a person wrote is wrong.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use scc_common::clock::SystemClock;
use scc_common::id::AgentId;
use scc_common::lang::Lang;

use crate::profile::Serial;
use crate::{Authority, Error, authority, hub, listing, site};

/// Certificates of the Soppeng Command Center: who may be an agent, who may be a hub
#[derive(Debug, Parser)]
#[command(name = "scc-provision", version)]
pub struct Cli {
    /// Language of what is printed: id or en
    #[arg(long, global = true, default_value = "id")]
    lang: Lang,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The authority itself
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Certificates of hubs
    #[command(subcommand)]
    Hub(HubCommand),
    /// Certificates of sites
    #[command(subcommand)]
    Site(SiteCommand),
}

#[derive(Debug, Subcommand)]
enum AuthorityCommand {
    /// Make an authority in a folder that has none
    Init {
        /// The folder; best on a stick that stays in a safe
        dir: PathBuf,
        /// What its certificates are called
        #[arg(long, default_value = "Soppeng Command Center")]
        name: String,
    },
    /// Sign the revocation list again, before it ends (`site list` warns)
    Crl {
        #[command(flatten)]
        at: At,
        /// A copy for the hub: the file that `revocations` in hub.toml names
        #[arg(long, value_name = "FILE")]
        crl_out: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum HubCommand {
    /// Issue a hub's certificate, with what it needs to recognise agents
    Issue {
        #[command(flatten)]
        at: At,
        /// Host name of the hub
        #[arg(long)]
        name: String,
        /// An address that agents or browsers call it by (again for more)
        #[arg(long, value_name = "IP")]
        address: Vec<IpAddr>,
        /// A further host name (again for more)
        #[arg(long, value_name = "NAME")]
        dns: Vec<String>,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Debug, Subcommand)]
enum SiteCommand {
    /// Issue the certificate of a site's agent
    Issue {
        /// The site's id in the register
        id: AgentId,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        to: To,
        /// Days that it is valid
        #[arg(long, default_value_t = site::DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Refuse a site that this register (fleet.toml) does not declare
        #[arg(long, value_name = "FILE")]
        fleet: Option<PathBuf>,
    },
    /// Withdraw all certificates of a site
    Revoke {
        /// The site's id
        id: AgentId,
        #[command(flatten)]
        at: At,
        /// Only the certificate with this serial number
        #[arg(long, value_parser = serial)]
        serial: Option<Serial>,
        /// A copy of the new list for the hub: the file that `revocations` in hub.toml names
        #[arg(long, value_name = "FILE")]
        crl_out: Option<PathBuf>,
    },
    /// Show all certificates, and warn of those that end soon
    List {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
struct At {
    /// The authority's folder
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
}

#[derive(Debug, Args)]
struct To {
    /// Where the files go; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace a key that is there already
    #[arg(long)]
    replace: bool,
}

fn serial(text: &str) -> Result<Serial, &'static str> {
    Serial::parse(text).ok_or("a serial number is 32 hexadecimal digits, as `site list` shows it")
}

/// Does what was asked for.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    match run(cli) {
        Ok(text) => {
            // A reader that has gone away (`| head`) is no failure of the command.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "scc-provision: {}", error.text(cli.lang));
            ExitCode::from(error.exit())
        }
    }
}

fn run(cli: &Cli) -> Result<String, Error> {
    let clock = SystemClock::new();
    let lang = cli.lang;
    match &cli.command {
        Command::Authority(AuthorityCommand::Init { dir, name }) => {
            let made = Authority::init(dir, name, &clock)?;
            Ok(said_init(&made, lang))
        }
        Command::Authority(AuthorityCommand::Crl { at, crl_out }) => {
            let mut authority = Authority::open(&at.authority)?;
            authority.sign_revocations(&clock, &copies(crl_out.as_deref()))?;
            Ok(said_crl(&authority, crl_out.as_deref(), lang))
        }
        Command::Hub(HubCommand::Issue {
            at,
            name,
            address,
            dns,
            to,
        }) => {
            let mut authority = Authority::open(&at.authority)?;
            let names = hub::Names {
                dns: std::iter::once(name).chain(dns).cloned().collect(),
                addresses: address.clone(),
            };
            hub::issue(&mut authority, &names, &to.out, to.replace, &clock)?;
            Ok(said_written(&to.out, lang))
        }
        Command::Site(SiteCommand::Issue {
            id,
            at,
            to,
            days,
            fleet,
        }) => {
            if let Some(fleet) = fleet {
                site::check_declared(id, fleet)?;
            }
            let mut authority = Authority::open(&at.authority)?;
            site::issue(&mut authority, id, *days, &to.out, to.replace, &clock)?;
            Ok(said_written(&to.out, lang))
        }
        Command::Site(SiteCommand::Revoke {
            id,
            at,
            serial,
            crl_out,
        }) => {
            let mut authority = Authority::open(&at.authority)?;
            let copies = copies(crl_out.as_deref());
            let count = site::revoke(&mut authority, id, *serial, &copies, &clock)?;
            let first = match lang {
                Lang::Id => format!("{id}: {count} sertifikat dicabut."),
                Lang::En => format!("{id}: {count} certificates withdrawn."),
            };
            Ok(format!(
                "{first}\n{}",
                said_crl(&authority, crl_out.as_deref(), lang)
            ))
        }
        Command::Site(SiteCommand::List { at }) => {
            let authority = Authority::open(&at.authority)?;
            listing::listing(&authority, authority::now(&clock)?, lang)
        }
    }
}

fn copies(crl_out: Option<&Path>) -> Vec<&Path> {
    crl_out.into_iter().collect()
}

fn said_init(made: &Authority, lang: Lang) -> String {
    let root = made.dir().join("root");
    match lang {
        Lang::Id => format!(
            "Otoritas dibuat di {}.\nPindahkan {} ke tempat aman (dua salinan, di luar komputer ini): isinya hanya dipakai lagi bila tingkat penerbit diganti. Kuncinya tidak bersandi.",
            made.dir().display(),
            root.display()
        ),
        Lang::En => format!(
            "The authority is in {}.\nTake {} to a safe place (two copies, off this machine): it is needed again only when an issuing level is replaced. Its key has no passphrase.",
            made.dir().display(),
            root.display()
        ),
    }
}

fn said_written(out: &Path, lang: Lang) -> String {
    match lang {
        Lang::Id => format!(
            "Sertifikat dan kunci ada di {}. Salin ke /etc/scc/, lalu hapus folder ini: kunci hanya boleh ada di satu tempat.",
            out.display()
        ),
        Lang::En => format!(
            "Certificate and key are in {}. Copy them to /etc/scc/, then delete this folder: a key belongs in one place only.",
            out.display()
        ),
    }
}

fn said_crl(authority: &Authority, copy: Option<&Path>, lang: Lang) -> String {
    let file = authority.crl_file();
    match (copy, lang) {
        (Some(copy), Lang::Id) => format!(
            "Daftar pencabutan baru ditulis ke {}; pusat membacanya sendiri.",
            copy.display()
        ),
        (Some(copy), Lang::En) => format!(
            "The new revocation list is in {}; the hub reads it by itself.",
            copy.display()
        ),
        (None, Lang::Id) => format!(
            "Belum selesai: salin {} ke pusat, ke berkas `revocations` di hub.toml.",
            file.display()
        ),
        (None, Lang::En) => format!(
            "Not done yet: copy {} to the hub, to the file that `revocations` in hub.toml names.",
            file.display()
        ),
    }
}
