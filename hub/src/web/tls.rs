//! The TLS side of the pages: the certificate that browsers see, read again when its files change.
//!
//! Promise: as in [`crate::renewal`]; open pages and event streams go on under the old one.

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use scc_common::clock::WallMs;
use scc_common::identity;

use super::WebError;
use crate::config;
use crate::renewal::{self, Digest, Files, SOON_MS, Told, digest};

/// How often the files are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// The certificate of the pages and where it is.
#[derive(Debug)]
pub(super) struct Certificate {
    files: config::Web,
    seen: Digest,
    in_use: Option<CertificateDer<'static>>,
    served: RustlsConfig,
}

impl Certificate {
    /// Reads it for the first time.
    pub(super) fn load(files: &config::Web) -> Result<Self, WebError> {
        // before the files, so that a change in between is seen by the first look
        let seen = look(files);
        let (chain, key) = identity::pair(&files.certificate, &files.key)?;
        let in_use = chain.first().cloned();
        Ok(Self {
            files: files.clone(),
            seen,
            in_use,
            served: RustlsConfig::from_config(server(chain, key)?),
        })
    }

    /// For the server; what is read again shows in it.
    pub(super) fn served(&self) -> RustlsConfig {
        self.served.clone()
    }

    /// Looks at the files for as long as anybody is served, and says what is wrong with them.
    pub(super) async fn watch(mut self, told: Told, now: impl Fn() -> WallMs + Send + 'static) {
        loop {
            tokio::time::sleep(WATCH).await;
            let (now, told) = (now(), told.clone());
            let looked = tokio::task::spawn_blocking(move || {
                self.reload(&told, now);
                self
            });
            match looked.await {
                Ok(again) => self = again,
                // the runtime is ending
                Err(_) => return,
            }
        }
    }

    fn reload(&mut self, told: &Told, now: WallMs) {
        let seen = look(&self.files);
        if seen != self.seen {
            self.seen = seen;
            let error = self.renew(now).err();
            match &error {
                None => tracing::info!("{} read again", Files::Pages.name()),
                Some(error) => {
                    metrics::counter!("scc_web_reload_failures_total").increment(1);
                    tracing::error!(
                        "{}: the new file cannot be used, the old one is kept: {error}",
                        Files::Pages.name()
                    );
                }
            }
            told.unusable(Files::Pages, error.map(|e| e.to_string()), now);
        }
        let until = renewal::until(self.in_use.as_ref());
        told.ends(Files::Pages, until, SOON_MS, now);
    }

    fn renew(&mut self, now: WallMs) -> Result<(), WebError> {
        let (certificate, key) = (&self.files.certificate, &self.files.key);
        let (chain, key) = renewal::renewed(certificate, key, self.in_use.as_ref(), now)?;
        let newest = chain.first().cloned();
        self.served.reload_from_config(server(chain, key)?);
        self.in_use = newest;
        Ok(())
    }
}

fn look(files: &config::Web) -> Digest {
    digest(&[&files.certificate, &files.key])
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, WebError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// 2026-01-01.
    const NOW: WallMs = 1_767_225_600_000;

    fn issue(until_year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.not_after = date_time_ymd(until_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn write(dir: &Path, certificate: &str, key: &str) {
        fs::write(dir.join("web.pem"), certificate).unwrap();
        fs::write(dir.join("web.key"), key).unwrap();
        fs::set_permissions(dir.join("web.key"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_new_certificate_is_served_and_one_that_cannot_be_used_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = issue(2030);
        write(dir.path(), &certificate, &key);
        let mut pages = Certificate::load(&config::Web {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: dir.path().join("web.pem"),
            key: dir.path().join("web.key"),
        })
        .unwrap();
        let (before, told) = (pages.served().get_inner(), Told::default());
        let (newer, its_key) = issue(2031);
        let (past, past_key) = issue(2025);
        for (certificate, key) in [
            (&newer[..200], &key),
            (&newer[..], &key),
            (&newer[..], &String::new()),
            (&past[..], &past_key),
        ] {
            write(dir.path(), certificate, key);
            pages.reload(&told, NOW);
            assert!(Arc::ptr_eq(&before, &pages.served().get_inner()));
            let trouble = told.all_unusable().unwrap();
            assert!(trouble.why.contains("web."), "{trouble:?}");
            assert_eq!(trouble.since_ms, NOW);
        }
        write(dir.path(), &newer, &its_key);
        pages.reload(&told, NOW);
        assert_eq!(told.all_unusable(), None);
        let now = pages.served().get_inner();
        assert!(!Arc::ptr_eq(&before, &now));
        pages.reload(&told, NOW);
        assert!(Arc::ptr_eq(&now, &pages.served().get_inner()));

        // it ends on 2031-01-01
        const END: WallMs = 1_924_992_000_000;
        const DAY: WallMs = 24 * 3_600_000;
        pages.reload(&told, END - 31 * DAY);
        assert_eq!(told.all_ending(), None);
        pages.reload(&told, END - 29 * DAY);
        let trouble = told.all_ending().unwrap();
        assert!(trouble.why.contains("ends: 2031-01-01"), "{trouble:?}");
        assert_eq!(trouble.since_ms, END - 30 * DAY);
        pages.reload(&told, END);
        assert!(told.all_ending().unwrap().why.contains("has ended"));
        let (longer, its_key) = issue(2032);
        write(dir.path(), &longer, &its_key);
        pages.reload(&told, END);
        assert_eq!(told.all_ending(), None);
    }
}
