//! `hub issue`: everything that a hub needs to be believed by agents and to recognise them.
//!
//! Into the output folder go `hub.pem` (the hub's certificate, then its issuing level; gate and web
//! use the same), `hub.key`, `agents-ca.pem` and `agents.crl.pem` (whom the gate lets in, and whom
//! no longer), `hub-ca.pem` (for the browsers in the command center). The key is written last.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use scc_common::clock::Clock;

use crate::authority::{AGENTS_CA, Authority, CRL, HUB_CA, Level, now};
use crate::error::Error;
use crate::files::{self, Access};
use crate::profile::{self, Serial, Validity};

/// Name of the file with the hub's certificate chain.
pub const CERTIFICATE: &str = "hub.pem";
/// Name of the file with the hub's key.
pub const KEY: &str = "hub.key";

/// What a hub is called.
#[derive(Debug, Clone)]
pub struct Names {
    /// Host names; the first is the common name.
    pub dns: Vec<String>,
    /// Addresses, for agents and browsers without name service.
    pub addresses: Vec<IpAddr>,
}

/// Issues a hub's certificate into `out`.
///
/// # Errors
/// [`Error::KeyInTheWay`] unless `replace`; [`Error::Name`]; what the disk says.
pub fn issue(
    authority: &mut Authority,
    names: &Names,
    out: &Path,
    replace: bool,
    clock: &dyn Clock,
) -> Result<(), Error> {
    let key_file = free_key_file(out, KEY, replace)?;
    let now = now(clock)?;
    let serial = Serial::random()?;
    let validity = Validity::of(now, profile::HUB_LIFE_MS);
    let params = profile::hub(&names.dns, &names.addresses, serial, validity)?;
    let key = profile::key()?;
    let name = names.dns.first().map_or("", String::as_str);
    let leaf = authority.issue(Level::Hub, name, serial, (validity, now), &params, &key)?;
    let level = authority.level_pem(Level::Hub)?;

    files::private_folder(out)?;
    let public =
        |name: &str, pem: &str| files::write(&out.join(name), pem.as_bytes(), Access::Public);
    public(AGENTS_CA, &authority.level_pem(Level::Agents)?)?;
    public(CRL, &authority.crl_pem()?)?;
    public(HUB_CA, &level)?;
    public(CERTIFICATE, &format!("{leaf}{level}"))?;
    files::write(&key_file, key.serialize_pem().as_bytes(), Access::Private)
}

/// Where a key will be written, unless there is one already that nobody said to replace.
pub(crate) fn free_key_file(out: &Path, name: &str, replace: bool) -> Result<PathBuf, Error> {
    let file = out.join(name);
    if !replace && std::fs::symlink_metadata(&file).is_ok() {
        return Err(Error::KeyInTheWay { key: file });
    }
    Ok(file)
}
