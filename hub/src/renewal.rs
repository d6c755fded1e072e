//! The hub's certificates, the one for agents and the one for browsers, while it runs.
//!
//! Promise: new files work without a restart, and files that cannot be used (half written, a key that
//! does not belong, past their date) never replace what works; they are said to be wrong once, with
//! what to do.

use std::path::Path;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use scc_common::clock::WallMs;
use scc_common::identity::{self, IdentityError};

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
    let old = in_use.and_then(|c| until(c).ok()).unwrap_or(WallMs::MAX);
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
