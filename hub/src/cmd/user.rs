//! `scc-hub user add|passwd|list`: who may look. A password comes from the terminal without echo, or
//! from the first line of standard input; never from the command line, where `ps` shows it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use scc_common::clock::Clock as _;
use scc_common::clock::SystemClock;
use scc_common::id::AgencyId;

use crate::config::Config;
use crate::store::people::Role;
use crate::store::{Store, StoreError};
use crate::web::password::{self, PasswordError};

/// Why a user was not added or changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The database refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The password is not accepted.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The two entries differ.
    #[error("the two passwords differ; nothing was changed")]
    Differ,
    /// The name cannot be used.
    #[error("`{0}` cannot be a user name: use 1 to 64 letters, digits, `.`, `_` or `-`")]
    Name(String),
    /// The name is taken.
    #[error("there is already a user `{0}`")]
    Taken(String),
    /// No such user.
    #[error("there is no user `{0}`")]
    Unknown(String),
    /// An agency user without an agency.
    #[error("an agency user needs at least one `--agency ID`")]
    NoAgency,
    /// An operator with an agency.
    #[error("an operator sees everything; leave `--agency` out")]
    OperatorWithAgency,
    /// An agency that the register does not have.
    #[error("the register has no agency `{id}`; it has {known}")]
    NoSuchAgency {
        /// The agency.
        id: AgencyId,
        /// Those that it has.
        known: String,
    },
    /// The terminal is gone.
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// The role as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    /// Sees everything.
    Operator,
    /// Sees the sites of its agencies.
    Agency,
}

/// Adds a user.
///
/// # Errors
/// [`UserError`]; then nobody was added.
pub async fn add(
    config: &Config,
    name: String,
    role: RoleName,
    agencies: Vec<AgencyId>,
) -> Result<(), UserError> {
    let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(named) {
        return Err(UserError::Name(name));
    }
    let store = Store::open(&config.database())?;
    let role = match role {
        RoleName::Operator if agencies.is_empty() => Role::Operator,
        RoleName::Operator => return Err(UserError::OperatorWithAgency),
        RoleName::Agency if agencies.is_empty() => return Err(UserError::NoAgency),
        RoleName::Agency => {
            let known = store
                .declared()
                .await?
                .map(|d| d.register.agencies)
                .unwrap_or_default();
            for id in &agencies {
                if !known.iter().any(|a| &a.id == id) {
                    let known: Vec<_> = known.iter().map(|a| a.id.as_str()).collect();
                    return Err(UserError::NoSuchAgency {
                        id: id.clone(),
                        known: known.join(", "),
                    });
                }
            }
            Role::Agency(agencies)
        }
    };
    let phc = password::hash(&ask()?)?;
    if store
        .add_user(name.clone(), phc, role, SystemClock::new().wall_ms())
        .await?
    {
        Ok(())
    } else {
        Err(UserError::Taken(name))
    }
}

/// Gives a user another password; their sessions end.
///
/// # Errors
/// [`UserError`]; then nothing was changed.
pub async fn passwd(config: &Config, name: String) -> Result<(), UserError> {
    let store = Store::open(&config.database())?;
    if store.password_of(name.clone()).await?.is_none() {
        return Err(UserError::Unknown(name));
    }
    let phc = password::hash(&ask()?)?;
    if store
        .set_password(name.clone(), phc, SystemClock::new().wall_ms())
        .await?
    {
        Ok(())
    } else {
        Err(UserError::Unknown(name))
    }
}

/// Prints all users, one a line.
///
/// # Errors
/// [`UserError`] if the database cannot be read.
pub async fn list(config: &Config, out: &mut impl Write) -> Result<(), UserError> {
    for user in Store::look(&config.database())?.users().await? {
        let agencies = match &user.role {
            Role::Operator => String::new(),
            Role::Agency(agencies) => agencies
                .iter()
                .map(AgencyId::as_str)
                .collect::<Vec<_>>()
                .join(","),
        };
        writeln!(out, "{}\t{}\t{agencies}", user.name, user.role.name())?;
    }
    Ok(())
}

fn ask() -> Result<String, UserError> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Ok(line(&mut input.lock())?);
    }
    let first = silently("Password: ")?;
    let second = silently("Once more: ")?;
    if first == second {
        Ok(first)
    } else {
        Err(UserError::Differ)
    }
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    // a password longer than this is refused anyway
    io::Read::take(&mut *input, 4_096).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks without echo, and gives the terminal back as it was.
fn silently(prompt: &str) -> io::Result<String> {
    let input = io::stdin();
    let before = tcgetattr(input.as_fd())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let mut out = io::stderr();
    write!(out, "{prompt}")?;
    out.flush()?;
    tcsetattr(input.as_fd(), OptionalActions::Flush, &silent)?;
    let entered = line(&mut input.lock());
    tcsetattr(input.as_fd(), OptionalActions::Now, &before)?;
    writeln!(out)?;
    entered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_without_its_end_and_nothing_else_is_trimmed() {
        assert_eq!(
            line(&mut " rahasia \r\nmore".as_bytes()).unwrap(),
            " rahasia "
        );
        assert_eq!(line(&mut "".as_bytes()).unwrap(), "");
    }
}
