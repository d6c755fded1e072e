//! `site issue` and `site revoke`: who may be the agent of a site.
//!
//! Into the output folder go `agent.pem`, `agent.key` and `hub-ca.pem` (the hub's issuing level, the
//! only one that an agent believes). The key is written last, so a folder with a key is whole.
//! A site may have several valid certificates at a time (the old box works on while the new one is
//! being prepared); all are withdrawn together unless one is named.

use std::path::Path;

use scc_common::clock::Clock;
use scc_common::id::AgentId;
use scc_common::register::Register;

use crate::authority::{Authority, HUB_CA, Level, now};
use crate::error::Error;
use crate::files::{self, Access};
use crate::hub::free_key_file;
use crate::index::{Entry, Kind};
use crate::profile::{self, Serial, Validity};

/// Name of the file with the agent's certificate.
pub const CERTIFICATE: &str = "agent.pem";
/// Name of the file with the agent's key.
pub const KEY: &str = "agent.key";
/// Days that an agent's certificate is valid unless told otherwise: a year and a month's grace.
pub const DAYS: u32 = 397;

/// Refuses a site that the register does not declare.
///
/// # Errors
/// [`Error::Undeclared`], or [`Error::Config`] if the register is wrong.
pub fn check_declared(id: &AgentId, fleet: &Path) -> Result<(), Error> {
    if Register::load(fleet)?.site(id).is_some() {
        return Ok(());
    }
    Err(Error::Undeclared {
        id: id.clone(),
        fleet: fleet.to_path_buf(),
    })
}

/// Issues the certificate of a site's agent into `out`, valid for so many days.
///
/// # Errors
/// [`Error::KeyInTheWay`] unless `replace`; [`Error::TooLong`]; what the disk says.
pub fn issue(
    authority: &mut Authority,
    id: &AgentId,
    days: u32,
    out: &Path,
    replace: bool,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let key_file = free_key_file(out, KEY, replace)?;
    let now = now(clock)?;
    let serial = Serial::random()?;
    let validity = Validity::days(now, days);
    let params = profile::agent(id, serial, validity)?;
    let key = profile::key()?;
    let pem = authority.issue(
        Level::Agents,
        id.as_str(),
        serial,
        (validity, now),
        &params,
        &key,
    )?;

    files::private_folder(out)?;
    let hub_ca = authority.level_pem(Level::Hub)?;
    files::write(&out.join(HUB_CA), hub_ca.as_bytes(), Access::Public)?;
    files::write(&out.join(CERTIFICATE), pem.as_bytes(), Access::Public)?;
    files::write(&key_file, key.serialize_pem().as_bytes(), Access::Private)
}

/// Withdraws all certificates of a site, or the one named, and signs a new revocation list. Doing
/// it twice is no error and signs the list again. Gives how many were withdrawn now.
///
/// # Errors
/// [`Error::NeverIssued`], [`Error::NoSuchSerial`], or what the disk says.
pub fn revoke(
    authority: &mut Authority,
    id: &AgentId,
    only: Option<Serial>,
    copies: &[&Path],
    clock: &dyn Clock,
) -> Result<usize, Error> {
    let now = now(clock)?;
    let of_site = |e: &&Entry| e.kind == Kind::Agent && e.id == id.as_str();
    let all: Vec<Entry> = authority
        .index
        .entries()
        .iter()
        .filter(of_site)
        .cloned()
        .collect();
    if all.is_empty() {
        return Err(Error::NeverIssued {
            id: id.clone(),
            authority: authority.dir().to_path_buf(),
        });
    }
    let meant: Vec<Entry> = all
        .into_iter()
        .filter(|e| only.is_none_or(|serial| e.serial == serial))
        .collect();
    if let (true, Some(serial)) = (meant.is_empty(), only) {
        return Err(Error::NoSuchSerial {
            id: id.clone(),
            serial: serial.hex(),
            authority: authority.dir().to_path_buf(),
        });
    }
    for entry in &meant {
        authority.index.revoke(entry.serial, now);
    }
    authority.sign_revocations(clock, copies)?;
    Ok(meant.iter().filter(|e| e.revoked.is_none()).count())
}
