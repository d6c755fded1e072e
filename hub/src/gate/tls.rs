//! The TLS side of the gate: who may come in, and reading its files again when they change.
//!
//! Promise: only certificates below the agents' issuing level, with a good signature, valid now and not
//! revoked, finish the handshake. A new revocation list, issuing level or hub certificate works within
//! two seconds without a restart; a new file that cannot be used is reported and the old one kept.
//!
//! Two parts are read and kept separately, so that a half-written certificate cannot hold up a
//! revocation: the hub's *identity* (certificate and key) and its *trust* (issuing level and list).
//! No session is ever resumed: resumption would skip the check of the certificate, and a full handshake
//! for each of a thousand agents takes half a second.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use scc_common::clock::{SharedClock, WallMs};
use scc_common::identity;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{GateError, events, lock};
use crate::config;
use crate::renewal::{self, Digest, Files, SOON_MS, Told, digest};

/// Issuer and serial of a certificate: what a revocation list names it by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Default))]
pub(super) struct CertificateName {
    issuer: Vec<u8>,
    serial: Vec<u8>,
}

impl CertificateName {
    fn new(issuer: &[u8], serial: &[u8]) -> Self {
        let padding = serial.iter().take_while(|b| **b == 0).count();
        Self {
            issuer: issuer.to_vec(),
            serial: serial.iter().skip(padding).copied().collect(),
        }
    }

    /// `None` for what is no certificate.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::new(parsed.issuer().as_raw(), parsed.raw_serial()))
    }
}

#[derive(Debug)]
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn load(files: &config::Gate) -> Result<Self, GateError> {
        let (chain, key) = identity::pair(&files.certificate, &files.key)?;
        Ok(Self { chain, key })
    }
}

/// Whom the gate lets in.
#[derive(Debug)]
struct Trust {
    anchors: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    revoked: HashSet<CertificateName>,
    /// When the first of the lists should have been replaced.
    next_update_ms: Option<WallMs>,
}

impl Trust {
    /// Reads and checks both files. rustls checks a list's signature only when a certificate is
    /// verified and then refuses *every* agent, so a foreign list must be found here.
    fn load(files: &config::Gate) -> Result<Self, GateError> {
        let anchors = identity::certificates(&files.agents_ca)?;
        let roots = Arc::new(identity::trust_anchors(&files.agents_ca)?);
        let lists = identity::revocation_lists(&files.revocations)?;
        let wrong = |what: String| GateError::Revocations {
            file: files.revocations.clone(),
            what,
        };
        let mut revoked = HashSet::new();
        let mut next_update_ms: Option<WallMs> = None;
        let mut covered = HashSet::new();
        for list in &lists {
            let (_, list) = CertificateRevocationList::from_der(list)
                .map_err(|e| wrong(format!("is not a revocation list: {e}")))?;
            let issuer = list.issuer().as_raw();
            let signed_by = anchors.iter().position(|anchor| {
                X509Certificate::from_der(anchor).is_ok_and(|(_, anchor)| {
                    anchor.subject().as_raw() == issuer
                        && list.verify_signature(anchor.public_key()).is_ok()
                })
            });
            covered.insert(signed_by.ok_or_else(|| {
                wrong(format!(
                    "is signed by `{}`, which is not in {}",
                    list.issuer(),
                    files.agents_ca.display()
                ))
            })?);
            revoked.extend(
                list.iter_revoked_certificates()
                    .map(|entry| CertificateName::new(issuer, entry.raw_serial())),
            );
            let until = list
                .next_update()
                .map(|t| t.timestamp().saturating_mul(1_000));
            next_update_ms = next_update_ms.into_iter().chain(until).min();
        }
        // With a list for some, rustls refuses the agents of the others without saying why.
        if !lists.is_empty() && covered.len() < anchors.len() {
            return Err(wrong(format!(
                "holds no list for one of the issuing levels in {}: put the lists of all of them into \
                 this file, one after the other",
                files.agents_ca.display()
            )));
        }
        Ok(Self {
            anchors,
            roots,
            lists,
            revoked,
            next_update_ms,
        })
    }
}

struct Loaded {
    identity: Arc<Identity>,
    trust: Arc<Trust>,
    config: Arc<ServerConfig>,
}

/// What a reload asks of the connections that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// Nothing that concerns them.
    Nothing,
    /// Those that are revoked now must go.
    Revocations,
    /// An issuing level is no longer trusted: all must show their certificates again.
    Anchors,
}

/// The current state of the files.
pub(super) struct Tls {
    files: config::Gate,
    clock: SharedClock,
    current: ArcSwap<Loaded>,
    /// What was read last, usable or not, so that a bad file is reported once.
    seen: Mutex<Seen>,
    told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    identity: Digest,
    trust: Digest,
    expired: bool,
}

impl Tls {
    /// Reads the files for the first time.
    pub(super) fn load(files: &config::Gate, clock: SharedClock) -> Result<Self, GateError> {
        // Before the files, so that a change in between is seen by the first look.
        let seen = Seen {
            identity: digest(&[&files.certificate, &files.key]),
            trust: digest(&[&files.agents_ca, &files.revocations]),
            expired: false,
        };
        let identity = Arc::new(Identity::load(files)?);
        let trust = Arc::new(Trust::load(files)?);
        let config = server_config(&identity, &trust, &clock)?;
        if trust.lists.is_empty() {
            events::revocation_list_absent();
        }
        Ok(Self {
            files: files.clone(),
            clock,
            current: ArcSwap::from_pointee(Loaded {
                identity,
                trust,
                config,
            }),
            seen: Mutex::new(seen),
            told: Told::default(),
        })
    }

    /// Where it says what is wrong with the files.
    pub(super) fn told(&self) -> Told {
        self.told.clone()
    }

    /// For the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Whether this certificate is revoked by now.
    pub(super) fn revokes(&self, name: &CertificateName) -> bool {
        self.current.load().trust.revoked.contains(name)
    }

    /// Looks at the files and takes over what has changed. Blocks on the disk.
    pub(super) fn reload(&self) -> Changed {
        let mut seen = lock(&self.seen);
        let identity = digest(&[&self.files.certificate, &self.files.key]);
        if identity != seen.identity {
            seen.identity = identity;
            let done = self.new_identity();
            self.tell(Files::Gate, done.err().as_ref());
        }
        let mut changed = Changed::Nothing;
        let trust = digest(&[&self.files.agents_ca, &self.files.revocations]);
        if trust != seen.trust {
            seen.trust = trust;
            let done = self.new_trust();
            self.tell(Files::Trust, done.as_ref().err());
            changed = done.unwrap_or(changed);
        }
        self.look_at_the_dates(&mut seen);
        changed
    }

    fn tell(&self, files: Files, error: Option<&GateError>) {
        match error {
            None => events::reloaded(files.name(), self.revoked()),
            Some(error) => events::reload_failed(files.name(), error),
        }
        let why = error.map(ToString::to_string);
        self.told.unusable(files, why, self.clock.wall_ms());
    }

    fn revoked(&self) -> usize {
        self.current.load().trust.revoked.len()
    }

    fn new_identity(&self) -> Result<(), GateError> {
        let now = self.current.load_full();
        let (chain, key) = renewal::renewed(
            &self.files.certificate,
            &self.files.key,
            now.identity.chain.first(),
            self.clock.wall_ms(),
        )?;
        let identity = Arc::new(Identity { chain, key });
        self.store(identity, Arc::clone(&now.trust))
    }

    fn new_trust(&self) -> Result<Changed, GateError> {
        let trust = Arc::new(Trust::load(&self.files)?);
        let now = self.current.load_full();
        if trust.lists.is_empty() && !now.trust.lists.is_empty() {
            // A truncated file must not let everyone in again who was thrown out.
            return Err(GateError::Revocations {
                file: self.files.revocations.clone(),
                what: "is empty, but there was a list before".into(),
            });
        }
        // One more level makes nobody's certificate worse: only who has lost theirs must go.
        let lost = |anchor| !trust.anchors.contains(anchor);
        let changed = if now.trust.anchors.iter().any(lost) {
            Changed::Anchors
        } else {
            Changed::Revocations
        };
        self.store(Arc::clone(&now.identity), trust)?;
        Ok(changed)
    }

    fn store(&self, identity: Arc<Identity>, trust: Arc<Trust>) -> Result<(), GateError> {
        let config = server_config(&identity, &trust, &self.clock)?;
        self.current.store(Arc::new(Loaded {
            identity,
            trust,
            config,
        }));
        Ok(())
    }

    /// A list past its date still holds: revocations do not lapse. To refuse all agents because nobody
    /// brought the offline authority's new list in time would darken the whole county for a formality,
    /// and a thief gains nothing but the days since the last list. So it is an alarm and not a refusal.
    fn look_at_the_dates(&self, seen: &mut Seen) {
        let (current, now) = (self.current.load(), self.clock.wall_ms());
        let until = renewal::until(current.identity.chain.first());
        self.told.ends(Files::Gate, until, SOON_MS, now);
        self.told
            .ends(Files::Trust, current.trust.next_update_ms, 0, now);
        let expired = current
            .trust
            .next_update_ms
            .is_some_and(|until| until < now);
        if expired && !seen.expired {
            events::revocation_list_expired();
        }
        seen.expired = expired;
        events::revocation_list(expired, !current.trust.lists.is_empty());
    }
}

fn server_config(
    identity: &Identity,
    trust: &Trust,
    clock: &SharedClock,
) -> Result<Arc<ServerConfig>, GateError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&trust.roots),
        Arc::clone(&provider),
    )
    .with_crls(trust.lists.clone())
    // The issuing level is the anchor itself; nothing above it is looked at.
    .only_check_end_entity_revocation()
    .build()
    .map_err(|e| GateError::Verifier(e.to_string()))?;
    let time = Arc::new(HubTime(Arc::clone(clock)));
    let mut config = ServerConfig::builder_with_details(provider, time)
        .with_safe_default_protocol_versions()
        .map_err(identity::IdentityError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(identity::IdentityError::Tls)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Certificates are judged by the same clock as everything else.
#[derive(Debug)]
struct HubTime(SharedClock);

impl TimeProvider for HubTime {
    fn current_time(&self) -> Option<UnixTime> {
        let millis = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests;
