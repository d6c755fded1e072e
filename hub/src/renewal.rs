//! The hub's certificates, the one for agents and the one for browsers, while it runs.
//!
//! Promise: new files work without a restart, and files that cannot be used (half written, a key that
//! does not belong, past their date) never replace what works; they are said to be wrong once in the log,
//! with what to do, and on the operators' pages for as long as they are ([`Told`]).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use scc_common::clock::WallMs;
use scc_common::identity::{self, IdentityError};

use crate::ingest::{Trouble, TroubleKind};

/// A certificate is to be replaced when it ends within this time.
pub const SOON_MS: WallMs = 30 * 24 * 3_600_000;

/// Files that are read again together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Files {
    /// The hub's certificate for agents, and its key.
    Gate,
    /// The agents' issuing level and its revocation list.
    Trust,
    /// The certificate of the pages, and its key.
    Pages,
}

impl Files {
    /// For log and operators, English.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gate => "the hub's certificate",
            Self::Trust => "the revocation list",
            Self::Pages => "the certificate of the pages",
        }
    }
}

/// What is wrong with the files, for those who run the hub; nothing waits for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    unusable: BTreeMap<Files, Trouble>,
    ending: BTreeMap<Files, Trouble>,
}

impl Told {
    /// The new files cannot be used, or (none) those that are there can.
    pub(crate) fn unusable(&self, files: Files, error: Option<String>, now: WallMs) {
        let trouble = error.map(|error| {
            let why = format!("{}: {error}", files.name());
            (why, now)
        });
        self.set(|state| &mut state.unusable, files, trouble);
    }

    /// What is in use ends at this time, and is to be replaced `ahead_ms` before.
    pub(crate) fn ends(&self, files: Files, until: Option<WallMs>, ahead_ms: WallMs, now: WallMs) {
        let due = until.map(|until| (until, until.saturating_sub(ahead_ms)));
        let trouble = due.filter(|(_, due)| *due <= now).map(|(until, due)| {
            let at = Timestamp::from_millisecond(until).unwrap_or(Timestamp::MAX);
            let verb = if until <= now { "has ended" } else { "ends" };
            (format!("{} {verb}: {at:.0}", files.name()), due)
        });
        self.set(|state| &mut state.ending, files, trouble);
    }

    /// New files that cannot be used.
    #[must_use]
    pub fn all_unusable(&self) -> Option<Trouble> {
        together(&self.lock().unusable)
    }

    /// What has to be replaced because it ends or has ended.
    #[must_use]
    pub fn all_ending(&self) -> Option<Trouble> {
        together(&self.lock().ending)
    }

    fn set(
        &self,
        field: impl Fn(&mut State) -> &mut BTreeMap<Files, Trouble>,
        files: Files,
        trouble: Option<(String, WallMs)>,
    ) {
        let mut state = self.lock();
        let field = field(&mut state);
        match trouble {
            Some((why, since_ms)) => {
                let since_ms = field.get(&files).map_or(since_ms, |known| known.since_ms);
                let kind = TroubleKind::Other;
                field.insert(
                    files,
                    Trouble {
                        why,
                        since_ms,
                        kind,
                    },
                );
            }
            None => drop(field.remove(&files)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn together(each: &BTreeMap<Files, Trouble>) -> Option<Trouble> {
    let why: Vec<_> = each.values().map(|t| t.why.as_str()).collect();
    Some(Trouble {
        why: why.join("; "),
        since_ms: each.values().map(|t| t.since_ms).min()?,
        kind: TroubleKind::Other,
    })
}

/// When a certificate ends, if it says so.
pub(crate) fn until(certificate: Option<&CertificateDer<'_>>) -> Option<WallMs> {
    Some(identity::facts(certificate?).ok()?.until_ms)
}

/// Says whether files have changed; one that cannot be read has a digest of its own, too.
pub(crate) type Digest = [u8; 32];

/// Of the files' contents. Blocks on the disk.
pub(crate) fn digest(files: &[&Path]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => {
                context.update(&(bytes.len() as u64).to_be_bytes());
                context.update(&bytes);
            }
            Err(error) => context.update(error.to_string().as_bytes()),
        }
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// A new certificate and its key in place of the one that is `in_use`.
///
/// # Errors
/// [`IdentityError`] if they cannot be used, or are past their date without being newer: whoever copies
/// last year's certificate over a good one would otherwise lock every agent out.
pub(crate) fn renewed(
    certificate: &Path,
    key: &Path,
    in_use: Option<&CertificateDer<'_>>,
    now: WallMs,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
    let (chain, secret) = identity::pair(certificate, key)?;
    let until = |c: &CertificateDer<'_>| identity::facts(c).map(|facts| facts.until_ms);
    let new = chain.first().map(until).transpose()?.unwrap_or(WallMs::MAX);
    let old = self::until(in_use).unwrap_or(WallMs::MAX);
    if new < now && new <= old {
        return Err(IdentityError::Wrong {
            file: certificate.to_path_buf(),
            what: "is past its date; issue another with `scc-provision hub issue` and copy \
                   certificate and key here"
                .into(),
        });
    }
    Ok((chain, secret))
}
