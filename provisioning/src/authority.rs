//! The authority's folder.
//!
//! ```text
//! DIR/                  0700
//!   root/ca.pem ca.key  needed by `init` only: take the folder to a safe place afterwards
//!   agents/ca.pem ca.key agents.crl.pem
//!   hub/ca.pem ca.key
//!   index.toml          what was issued; `init` writes it when all keys are there
//! ```
//!
//! Promise: `init` never touches a folder in which there is anything of an authority. One process
//! at a time works on an authority (a lock on the folder, freed by the kernel when it ends).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};
use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::CertificateDer;
use scc_common::clock::{Clock, EARLIEST_MS, WallMs};
use scc_common::identity;

use crate::error::{Error, NameFault};
use crate::files::{self, Access};
use crate::index::{Entry, Index, Kind, timestamp};
use crate::profile::{self, Serial, Validity};

/// Name of the file with a level's certificate.
const CA: &str = "ca.pem";
/// Name of the file with a level's key.
const KEY: &str = "ca.key";
/// Name of the revocation list, in the authority and wherever it is copied to.
pub const CRL: &str = "agents.crl.pem";
/// Name under which the agents' level is given to a hub.
pub const AGENTS_CA: &str = "agents-ca.pem";
/// Name under which the hub's level is given to agents and browsers.
pub const HUB_CA: &str = "hub-ca.pem";

/// Longest name of an authority: each level adds a word to it.
const MAX_AUTHORITY_NAME: usize = profile::MAX_NAME - " agents".len();

/// One of the two issuing levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Issues agents' certificates.
    Agents,
    /// Issues hubs' certificates.
    Hub,
}

impl Level {
    const fn folder(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Hub => "hub",
        }
    }
}

/// An authority on disk that this process alone works on.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    /// Everything that was issued.
    pub index: Index,
    /// Held for its lock.
    _lock: File,
}

impl Authority {
    /// Makes an authority in a folder that has none.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Name`], [`Error::Clock`], or what the disk says.
    pub fn init(dir: &Path, name: &str, clock: &dyn Clock) -> Result<Self, Error> {
        profile::check_name(name)?;
        if name.chars().count() > MAX_AUTHORITY_NAME {
            let most = MAX_AUTHORITY_NAME;
            return Err(Error::name(name, NameFault::Long { most }));
        }
        let now = now(clock)?;
        files::private_folder(dir)?;
        let lock = lock(dir)?;
        for part in ["root", "agents", "hub", "index.toml"] {
            if std::fs::symlink_metadata(dir.join(part)).is_ok() {
                return Err(Error::Exists {
                    dir: dir.to_path_buf(),
                });
            }
        }

        let root_key = profile::key()?;
        let root = profile::root(
            &format!("{name} root"),
            Validity::of(now, profile::ROOT_LIFE_MS),
        )?;
        save_level(dir, "root", &root.self_signed(&root_key)?.pem(), &root_key)?;
        let root = Issuer::new(root, root_key);
        let validity = Validity::of(now, profile::LEVEL_LIFE_MS);
        let levels: [(Level, CertificateParams); 2] = [
            (
                Level::Agents,
                profile::agents_level(&format!("{name} agents"), validity)?,
            ),
            (
                Level::Hub,
                profile::hub_level(&format!("{name} hub"), validity)?,
            ),
        ];
        for (level, params) in levels {
            let key = profile::key()?;
            let certificate = params.signed_by(&key, &root)?;
            save_level(dir, level.folder(), &certificate.pem(), &key)?;
        }
        let mut made = Self {
            dir: dir.to_path_buf(),
            index: Index::new(dir.join("index.toml")),
            _lock: lock,
        };
        made.sign_revocations(clock, &[])?;
        Ok(made)
    }

    /// Opens an authority.
    ///
    /// # Errors
    /// [`Error::NoAuthority`], [`Error::Busy`], or what is wrong with the index.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let index = dir.join("index.toml");
        if !index.is_file() {
            return Err(Error::NoAuthority {
                dir: dir.to_path_buf(),
            });
        }
        // Lock first: what is read before could be another process's yesterday.
        let lock = lock(dir)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            index: Index::load(&index)?,
            _lock: lock,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The certificate of a level, PEM.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn level_pem(&self, level: Level) -> Result<String, Error> {
        files::read(&self.level_file(level))
    }

    /// Until when a level may issue.
    ///
    /// # Errors
    /// [`Error::Identity`] if its certificate cannot be read.
    pub fn level_until_ms(&self, level: Level) -> Result<WallMs, Error> {
        let certificate = self.level_certificate(level)?;
        Ok(identity::facts(&certificate)?.until_ms)
    }

    /// The newest revocation list, PEM.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn crl_pem(&self) -> Result<String, Error> {
        files::read(&self.crl_file())
    }

    /// Where the newest revocation list lies.
    #[must_use]
    pub fn crl_file(&self) -> PathBuf {
        self.dir.join(Level::Agents.folder()).join(CRL)
    }

    /// Enters a certificate in the index and then signs it, leaf only, PEM.
    ///
    /// # Errors
    /// [`Error::TooLong`] if the level ends earlier; [`Error::KeyMismatch`]; what the disk says.
    pub(crate) fn issue(
        &mut self,
        level: Level,
        id: &str,
        serial: Serial,
        (validity, now_ms): (Validity, WallMs),
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<String, Error> {
        let end = self.level_until_ms(level)?;
        if validity.until_ms > end {
            return Err(Error::TooLong {
                end: timestamp(end).strftime("%Y-%m-%d").to_string(),
                days: profile::days_between(now_ms, end),
            });
        }
        let signed = params.signed_by(key, &self.issuer(level)?)?;
        let (kind, also) = match level {
            Level::Agents => (Kind::Agent, None),
            Level::Hub => {
                let names = profile::names(params).filter(|name| name != id);
                (Kind::Hub, Some(names.collect()))
            }
        };
        self.index.add(Entry {
            kind,
            id: id.to_owned(),
            also,
            serial,
            issued: timestamp(now_ms),
            expires: timestamp(validity.until_ms),
            revoked: None,
        });
        self.index.save()?;
        Ok(signed.pem())
    }

    /// Signs a new revocation list from the index and writes it to the authority and to each of
    /// `copies`. The index, with what was withdrawn and the list's number, is made durable first:
    /// after a crash between the two, the same command again completes the work.
    ///
    /// # Errors
    /// What the disk or the certificate library says.
    pub fn sign_revocations(&mut self, clock: &dyn Clock, copies: &[&Path]) -> Result<(), Error> {
        let now = now(clock)?;
        let issuer = self.issuer(Level::Agents)?;
        let number = self
            .index
            .next_crl(now.saturating_add(profile::CRL_LIFE_MS));
        let list = profile::revocations(number, now, &self.index.revoked_agents());
        let pem = list.signed_by(&issuer)?.pem()?;
        self.index.save()?;
        files::write(&self.crl_file(), pem.as_bytes(), Access::Public)?;
        for copy in copies {
            files::write(copy, pem.as_bytes(), Access::Public)?;
        }
        Ok(())
    }

    fn level_file(&self, level: Level) -> PathBuf {
        self.dir.join(level.folder()).join(CA)
    }

    fn level_certificate(&self, level: Level) -> Result<CertificateDer<'static>, Error> {
        let mut found = identity::certificates(&self.level_file(level))?;
        // `certificates` never gives an empty list
        Ok(found.swap_remove(0))
    }

    fn issuer(&self, level: Level) -> Result<Issuer<'static, KeyPair>, Error> {
        let file = self.dir.join(level.folder()).join(KEY);
        // asked first, because it refuses a key that others may read
        identity::private_key(&file)?;
        let key = KeyPair::from_pem(&files::read(&file)?)?;
        let certificate = self.level_certificate(level)?;
        let spki = key.subject_public_key_info();
        if !certificate.windows(spki.len()).any(|part| part == spki) {
            return Err(Error::KeyMismatch { key: file });
        }
        Ok(Issuer::from_ca_cert_der(&certificate, key)?)
    }
}

/// The time, unless it cannot be right.
///
/// # Errors
/// [`Error::Clock`].
pub fn now(clock: &dyn Clock) -> Result<WallMs, Error> {
    let now = clock.wall_ms();
    if now < EARLIEST_MS {
        return Err(Error::Clock {
            now: timestamp(now).to_string(),
        });
    }
    Ok(now)
}

fn save_level(dir: &Path, folder: &str, certificate: &str, key: &KeyPair) -> Result<(), Error> {
    let folder = dir.join(folder);
    files::private_folder(&folder)?;
    files::write(
        &folder.join(KEY),
        key.serialize_pem().as_bytes(),
        Access::Private,
    )?;
    files::write(&folder.join(CA), certificate.as_bytes(), Access::Public)
}

fn lock(dir: &Path) -> Result<File, Error> {
    let handle = File::open(dir).map_err(|e| Error::file(dir, &e))?;
    match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(handle),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Busy {
            dir: dir.to_path_buf(),
        }),
        Err(errno) => Err(Error::file(dir, &io::Error::from(errno))),
    }
}
