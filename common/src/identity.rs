//! Certificates: the profile that both ends expect, and reading them from disk.
//!
//! Three levels (ECDSA P-256, X.509 v3): an offline root; two issuing levels below it, one for agents
//! and one for hubs; leaves below those. Each side takes the *issuing* level of the other as its only
//! trust anchor, so an agent's certificate can never pose as a hub's, nor the other way round.
//!
//! | leaf | common name | URI SAN | extended key usage |
//! |---|---|---|---|
//! | agent | agent id | `scc:agent:<id>` | clientAuth |
//! | hub | a host name | `scc:hub` and DNS / IP names | serverAuth |

mod time;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::WallMs;
use crate::id::AgentId;
pub use time::CheckTime;
use time::Checker;

/// What the URI SAN of an agent's certificate begins with.
pub const AGENT_URI: &str = "scc:agent:";

/// The URI SAN of a hub's certificate.
pub const HUB_URI: &str = "scc:hub";

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is missing or unreadable.
    #[error("{}: cannot be read: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A private key that others may read.
    #[error("{}: others may read this private key; run `chmod 600` on it", file.display())]
    Exposed {
        /// The file.
        file: PathBuf,
    },
    /// A certificate that does not follow the profile.
    #[error("the certificate does not follow the profile: {0}")]
    Profile(String),
    /// rustls refused the material.
    #[error("the TLS library refused the identity: {0}")]
    Tls(#[from] rustls::Error),
}

impl IdentityError {
    /// The file that is to blame, where there is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Unreadable { file, .. } | Self::Wrong { file, .. } | Self::Exposed { file } => {
                Some(file)
            }
            Self::Profile(_) | Self::Tls(_) => None,
        }
    }
}

/// The certificates in a PEM file, leaf first.
///
/// # Errors
/// [`IdentityError`] if the file cannot be read or holds no certificate.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let bytes = read(file)?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(file, format!("is not PEM: {e}")))?;
    if found.is_empty() {
        return Err(wrong(file, "holds no certificate"));
    }
    Ok(found)
}

/// The private key in a PEM file that only its owner may read.
///
/// # Errors
/// [`IdentityError`] if the file cannot be read, is open to others, or holds no key.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let meta = std::fs::metadata(file).map_err(|e| unreadable(file, e))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed {
            file: file.to_path_buf(),
        });
    }
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|e| wrong(file, format!("holds no private key: {e}")))
}

/// A certificate chain and the private key that belongs to it.
///
/// # Errors
/// [`IdentityError`] if one of the files cannot be used, or if they do not belong together.
pub fn pair(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
    let chain = certificates(certificate)?;
    let secret = private_key(key)?;
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain.clone(), secret.clone_key(), &provider) {
        Ok(_) => Ok((chain, secret)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(wrong(
            key,
            format!(
                "does not belong to the certificate in {}",
                certificate.display()
            ),
        )),
        Err(error) => Err(error.into()),
    }
}

/// The revocation lists in a PEM file; an empty file is an empty set.
///
/// # Errors
/// [`IdentityError`] if the file cannot be read or is not PEM.
pub fn revocation_lists(
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, IdentityError> {
    let bytes = read(file)?;
    CertificateRevocationListDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| wrong(file, format!("is not PEM: {e}")))
}

/// The trust anchors in a PEM file.
///
/// # Errors
/// [`IdentityError`] if the file cannot be read or a certificate in it cannot be an anchor.
pub fn trust_anchors(file: &Path) -> Result<RootCertStore, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store
            .add(certificate)
            .map_err(|e| wrong(file, format!("cannot be a trust anchor: {e}")))?;
    }
    Ok(store)
}

/// The agent that a certificate names: common name and URI SAN must agree.
///
/// # Errors
/// [`IdentityError::Profile`] says which part of the profile is not kept.
pub fn agent_of(certificate: &CertificateDer<'_>) -> Result<AgentId, IdentityError> {
    let parsed = parse(certificate)?;
    let name = common_name(&parsed)?;
    let id = AgentId::new(name).map_err(|e| IdentityError::Profile(e.to_string()))?;
    let expected = format!("{AGENT_URI}{id}");
    if has_uri(&parsed, &expected)? {
        Ok(id)
    } else {
        Err(IdentityError::Profile(format!(
            "the URI name `{expected}` is missing"
        )))
    }
}

/// Validity, serial and name of a certificate, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Common name.
    pub name: String,
    /// Serial number, lower-case hex without separators.
    pub serial: String,
    /// Not valid before.
    pub from_ms: WallMs,
    /// Not valid after.
    pub until_ms: WallMs,
}

/// Reads validity, serial and name.
///
/// # Errors
/// [`IdentityError::Profile`] if it is no X.509 certificate or has no common name.
pub fn facts(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, IdentityError> {
    let parsed = parse(certificate)?;
    Ok(CertificateFacts {
        name: common_name(&parsed)?.to_owned(),
        serial: parsed
            .raw_serial()
            .iter()
            .skip_while(|b| **b == 0)
            .map(|b| format!("{b:02x}"))
            .collect(),
        from_ms: parsed
            .validity()
            .not_before
            .timestamp()
            .saturating_mul(1_000),
        until_ms: parsed
            .validity()
            .not_after
            .timestamp()
            .saturating_mul(1_000),
    })
}

/// The TLS side of an agent: its certificate, and the hub's issuing level as the only anchor, checked by
/// the machine's clock, though not at a time before that from which the agent's own certificate is valid.
///
/// # Errors
/// [`IdentityError`] if a file cannot be used or rustls refuses the material.
pub fn agent_tls(
    certificate: &Path,
    key: &Path,
    hub_ca: &Path,
) -> Result<Arc<rustls::ClientConfig>, IdentityError> {
    agent_tls_at(certificate, key, hub_ca, &CheckTime::of_system())
}

/// The same with a say in the time of the check.
///
/// # Errors
/// [`IdentityError`] if a file cannot be used or rustls refuses the material.
pub fn agent_tls_at(
    certificate: &Path,
    key: &Path,
    hub_ca: &Path,
    time: &CheckTime,
) -> Result<Arc<rustls::ClientConfig>, IdentityError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (chain, key) = pair(certificate, key)?;
    let leaf = chain
        .first()
        .ok_or_else(|| wrong(certificate, "holds no certificate"))?;
    let anchors = Arc::new(trust_anchors(hub_ca)?);
    let library = WebPkiServerVerifier::builder_with_provider(anchors, Arc::clone(&provider))
        .build()
        .map_err(|e| wrong(hub_ca, format!("cannot be a trust anchor: {e}")))?;
    let checker = Checker::new(library, time, &facts(leaf)?);
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(checker))
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    X509Certificate::from_der(certificate.as_ref())
        .map(|(_, parsed)| parsed)
        .map_err(|e| IdentityError::Profile(format!("not an X.509 certificate: {e}")))
}

fn common_name<'a>(parsed: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let mut names = parsed.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(one), None) => one
            .as_str()
            .map_err(|_| IdentityError::Profile("the common name is not text".into())),
        _ => Err(IdentityError::Profile(
            "it must have exactly one common name".into(),
        )),
    }
}

fn has_uri(parsed: &X509Certificate<'_>, wanted: &str) -> Result<bool, IdentityError> {
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| IdentityError::Profile(format!("alternative names: {e}")))?;
    Ok(names.is_some_and(|ext| {
        ext.value
            .general_names
            .iter()
            .any(|name| matches!(name, GeneralName::URI(uri) if *uri == wanted))
    }))
}

fn read(file: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(file).map_err(|e| unreadable(file, e))
}

fn unreadable(file: &Path, why: std::io::Error) -> IdentityError {
    IdentityError::Unreadable {
        file: file.to_path_buf(),
        why,
    }
}

fn wrong(file: &Path, what: impl Into<String>) -> IdentityError {
    IdentityError::Wrong {
        file: file.to_path_buf(),
        what: what.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn certificate(name: &str, uri: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn an_agent_is_named_twice_and_both_must_agree() {
        let good = certificate("rsud", "scc:agent:rsud");
        assert_eq!(agent_of(&good).unwrap().as_str(), "rsud");
        assert_eq!(facts(&good).unwrap().name, "rsud");
        assert!(agent_of(&certificate("rsud", "scc:agent:psc")).is_err());
        assert!(agent_of(&certificate("rsud", HUB_URI)).is_err());
        assert!(agent_of(&certificate("RSUD #", "scc:agent:RSUD #")).is_err());
        assert!(agent_of(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
