//! The way to the hub, step by step.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;
use scc_common::clock::{Clock, SystemClock};
use scc_common::identity::{self, CheckTime, IdentityError};
use scc_common::lang::Lang;
use scc_common::record::LinkMode;
use tokio::net::TcpStream;

use super::{Finding, Outcome, agent_says, both, each, same};
use crate::cmd::units;
use crate::cmd::words::{self, cause as word};
use crate::config::Config;
use crate::dial;
use crate::status::Status;
use crate::uplink::floor::Floor;
use crate::uplink::link::{Dial, Trouble};
use crate::uplink::mqtt::Mqtt;

/// A person waits for each check.
const WAIT: Duration = Duration::from_secs(5);
const DAY_MS: i64 = 86_400_000;
/// A certificate that ends this soon is to be renewed now.
const SOON_DAYS: i64 = 14;

/// Certificate, name, route, TLS, MQTT. After the first fault on the way the rest is skipped: it
/// could only repeat it. `again`: see [`words::as_agent`].
pub(super) async fn hub(
    config: &Config,
    again: &str,
    clock: &dyn Clock,
    running: Option<&Status>,
) -> Vec<Finding> {
    let mut findings = vec![certificate(config, again, clock)];
    let (host, port) = (&config.hub.host, config.hub.port);
    let addresses = match dial::resolve(host, port, WAIT).await {
        Ok(addresses) => {
            let seen = addresses.first().map(|a| a.ip().to_string());
            let good = Outcome::Good(same(format!("{host} = {}", seen.unwrap_or_default())));
            findings.push(Finding::new("nama pusat", "name of the hub", good));
            addresses
        }
        Err(why) => {
            findings.push(Finding::new(
                "nama pusat",
                "name of the hub",
                Outcome::Bad(both(
                    format!(
                        "{host}: {}; periksa kabel jaringan dan DNS, atau tulis alamat IP pusat",
                        word(why.cause(), Lang::Id)
                    ),
                    format!(
                        "{host}: {}; check network cable and DNS, or write the hub's IP address",
                        word(why.cause(), Lang::En)
                    ),
                )),
            ));
            return findings;
        }
    };
    let socket = match dial::connect(&addresses, WAIT).await {
        Ok(socket) => {
            let good = Outcome::Good(same(format!("TCP {port}")));
            findings.push(Finding::new("rute ke pusat", "route to the hub", good));
            socket
        }
        Err(why) => {
            findings.push(Finding::new(
                "rute ke pusat",
                "route to the hub",
                Outcome::Bad(both(
                    format!(
                        "port {port}: {}; periksa kabel, VPN dan jaringan, lalu pusatnya",
                        word(why.cause(), Lang::Id)
                    ),
                    format!(
                        "port {port}: {}; check cable, VPN and network, then the hub",
                        word(why.cause(), Lang::En)
                    ),
                )),
            ));
            return findings;
        }
    };
    let tls = handshake(config, again, clock, socket).await;
    let failed = tls.is_err();
    let outcome = match tls {
        Ok((version, days)) if days < SOON_DAYS => Outcome::Bad(both(
            format!(
                "{version}, sertifikat pusat berakhir dalam {days} hari; beri tahu administrator"
            ),
            format!("{version}, the hub's certificate ends in {days} days; tell the administrator"),
        )),
        Ok((version, days)) => Outcome::Good(each(|lang| {
            format!("{version}, {}", units::days(days, lang))
        })),
        Err(why) => Outcome::Bad(why),
    };
    findings.push(Finding::new(
        "TLS dengan pusat",
        "TLS with the hub",
        outcome,
    ));
    if !failed {
        findings.push(mqtt(config, running).await);
    }
    findings
}

async fn mqtt(config: &Config, running: Option<&Status>) -> Finding {
    let linked =
        running.is_some_and(|s| !matches!(s.link.mode, LinkMode::Down | LinkMode::Connecting));
    let outcome = if linked {
        Outcome::Good(agent_says("tersambung", "connected"))
    } else {
        let dialer = Mqtt::new(
            config.agent.clone(),
            config.hub.clone(),
            config.identity.clone(),
        );
        let floor = Floor::open(config.state_dir.clone());
        let dialer = dialer.timed(SystemClock::shared(), Arc::new(floor));
        match tokio::time::timeout(WAIT * 2, dialer.dial()).await {
            Ok(Ok(link)) => {
                let _ = tokio::time::timeout(WAIT, link.close()).await;
                Outcome::Good(same("CONNACK"))
            }
            Ok(Err(why)) => Outcome::Bad(each(|lang| {
                let ask = lang.pick(
                    "minta administrator memeriksa pendaftaran",
                    "ask the administrator to check the registration of",
                );
                let wrong = words::link(why.trouble(), &why.to_string(), lang);
                format!("{wrong}; {ask} {}", config.agent)
            })),
            Err(_) => Outcome::Bad(silent()),
        }
    };
    Finding::new("pusat", "hub", outcome)
}

fn certificate(config: &Config, again: &str, clock: &dyn Clock) -> Finding {
    let outcome = match certificate_days(config, again, clock) {
        Err(why) => Outcome::Bad(why),
        Ok(days) if days < 0 => Outcome::Bad(both(
            format!("kedaluwarsa {} hari lalu; minta yang baru", -days),
            format!("expired {} days ago; ask for a new one", -days),
        )),
        Ok(days) if days < SOON_DAYS => Outcome::Bad(both(
            format!("berakhir dalam {days} hari; minta yang baru"),
            format!("ends in {days} days; ask for a new one"),
        )),
        Ok(days) => Outcome::Good(each(|lang| units::days(days, lang))),
    };
    Finding::new("sertifikat", "certificate", outcome)
}

/// The identity is to be installed again.
fn replace((id, en): (String, String)) -> (String, String) {
    both(
        format!("{id}; pasang ulang identitas kotak ini"),
        format!("{en}; install this box's identity again"),
    )
}

/// What is wrong with the identity, and the first thing to do.
fn fault(error: &IdentityError, again: &str) -> (String, String) {
    let what = each(|lang| words::identity(error, lang));
    match error {
        // says itself what to do
        IdentityError::Exposed { .. } => what,
        IdentityError::Unreadable { why, .. } if why.kind() == ErrorKind::PermissionDenied => both(
            format!(
                "{}; jalankan `{again}`; bila sudah begitu, `sudo systemd-tmpfiles --create`",
                what.0
            ),
            format!(
                "{}; run `{again}`; if that is what you ran, `sudo systemd-tmpfiles --create`",
                what.1
            ),
        ),
        IdentityError::Unreadable { .. }
        | IdentityError::Wrong { .. }
        | IdentityError::Profile(_)
        | IdentityError::Tls(_) => replace(what),
    }
}

/// Days that the certificate is still good for, if everything about it is right but perhaps that.
fn certificate_days(
    config: &Config,
    again: &str,
    clock: &dyn Clock,
) -> Result<i64, (String, String)> {
    let files = &config.identity;
    let fault = |error: IdentityError| fault(&error, again);
    identity::agent_tls(&files.certificate, &files.key, &files.hub_ca).map_err(fault)?;
    let chain = identity::certificates(&files.certificate).map_err(fault)?;
    let leaf = chain
        .first()
        .ok_or_else(|| replace(both("tidak ada sertifikat", "there is no certificate")))?;
    let named = identity::agent_of(leaf).map_err(fault)?;
    let agent = &config.agent;
    if named != *agent {
        return Err(replace(both(
            format!("sertifikat milik {named}, padahal kotak ini {agent}"),
            format!("the certificate is {named}'s, and this box is {agent}"),
        )));
    }
    let facts = identity::facts(leaf).map_err(fault)?;
    let now = clock.wall_ms();
    if facts.from_ms > now {
        return Err(both(
            "sertifikat belum berlaku menurut jam kotak ini; atur jam kotak",
            "by this box's clock the certificate is not valid yet; set the clock of the box",
        ));
    }
    Ok((facts.until_ms - now).div_euclid(DAY_MS))
}

/// Version of TLS, and days that the hub's certificate is still good for.
async fn handshake(
    config: &Config,
    again: &str,
    clock: &dyn Clock,
    socket: TcpStream,
) -> Result<(String, i64), (String, String)> {
    let files = &config.identity;
    let time = CheckTime {
        clock: SystemClock::shared(),
        told_ms: Floor::open(config.state_dir.clone()).credible_ms(clock),
    };
    let tls = identity::agent_tls_at(&files.certificate, &files.key, &files.hub_ca, &time)
        .map_err(|e| fault(&e, again))?;
    let host = &config.hub.host;
    let name = ServerName::try_from(host.clone()).map_err(|_| {
        both(
            format!("`{host}` bukan nama yang dapat ada di sertifikat; perbaiki `address`"),
            format!("`{host}` is no name that a certificate can have; correct `address`"),
        )
    })?;
    let connector = tokio_rustls::TlsConnector::from(tls);
    let stream = match tokio::time::timeout(WAIT, connector.connect(name, socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(why)) => return Err(distrust(&config.hub.host, &why)),
        Err(_) => return Err(silent()),
    };
    let connection = stream.get_ref().1;
    let version = connection.protocol_version();
    let version = version.map_or_else(String::new, |v| format!("{v:?}"));
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let facts = leaf.map(identity::facts).transpose();
    // not this box's to mend
    let facts = facts.map_err(|e| {
        both(
            format!(
                "pusat: {}; beri tahu administrator",
                words::identity(&e, Lang::Id)
            ),
            format!(
                "the hub: {}; tell the administrator",
                words::identity(&e, Lang::En)
            ),
        )
    })?;
    let until_ms = facts.map_or(i64::MAX, |facts| facts.until_ms);
    let days = until_ms.saturating_sub(clock.wall_ms()).div_euclid(DAY_MS);
    Ok((version, days))
}

/// It took the connection, and that was all.
fn silent() -> (String, String) {
    each(|lang| {
        let check = lang.pick("periksa layanan scc-hub", "check the service scc-hub");
        format!("{}; {check}", words::trouble(Trouble::Silent, lang))
    })
}

/// Why there is no TLS, and what to do.
fn distrust(host: &str, why: &std::io::Error) -> (String, String) {
    use CertificateError as C;
    let refused = why
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match refused {
        Some(rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature)) => both(
            "sertifikat pusat dari otoritas lain; salin hub-ca.pem yang benar",
            "the hub's certificate is of another authority; install the right hub-ca.pem",
        ),
        Some(rustls::Error::InvalidCertificate(
            C::NotValidForName | C::NotValidForNameContext { .. },
        )) => both(
            format!("sertifikat pusat bukan untuk `{host}`; tulis nama yang ada di sertifikatnya"),
            format!("the hub's certificate is not for `{host}`; write a name that it has"),
        ),
        Some(rustls::Error::InvalidCertificate(
            C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
        )) => both(
            "menurut jam kotak ini sertifikat pusat tidak berlaku; periksa jamnya, lalu administrator",
            "by this box's clock the hub's certificate is not valid; check the clock, then the administrator",
        ),
        _ => both(
            format!(
                "{} ({why}); pastikan alamat dan port itu milik pusat",
                words::trouble(Trouble::Tls, Lang::Id)
            ),
            format!(
                "{} ({why}); make sure that address and port are the hub's",
                words::trouble(Trouble::Tls, Lang::En)
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doctor::tests::config;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use scc_common::clock::ManualClock;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const NOW_MS: i64 = 1_795_000_000_000; // November 2026

    /// An identity for the box of [`config`], issued to `id`, valid from the beginning of `year`.
    fn issue(config: &Config, id: &str, year: i32) {
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id);
        let uri = format!("{}{id}", identity::AGENT_URI);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let files = &config.identity;
        std::fs::write(&files.certificate, &pem).unwrap();
        std::fs::write(&files.hub_ca, &pem).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        allow(&files.key, 0o600);
    }

    fn allow(file: &Path, mode: u32) {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn each_fault_of_the_identity_has_its_own_first_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let clock = ManualClock::at(NOW_MS);
        let line = |lang| certificate(&config, "ULANG", &*clock).line(lang);
        let install = "; pasang ulang identitas kotak ini\n";

        let said = line(Lang::Id);
        assert!(
            said.contains("tidak dapat dibaca") && said.ends_with(install),
            "there is none: {said}"
        );
        issue(&config, "rsud", 2026);
        assert!(!certificate(&config, "", &*clock).is_bad());
        issue(&config, "rsud", 2027);
        assert_eq!(
            line(Lang::Id),
            "[SALAH] sertifikat: sertifikat belum berlaku menurut jam kotak ini; atur jam kotak\n"
        );
        assert!(line(Lang::En).ends_with("; set the clock of the box\n"));
        issue(&config, "psc119", 2026);
        let said = line(Lang::Id);
        assert!(
            said.contains("milik psc119") && said.ends_with(install),
            "{said}"
        );
        issue(&config, "rsud", 2026);
        allow(&config.identity.key, 0o644);
        let said = line(Lang::Id);
        assert!(
            said.ends_with("; jalankan `chmod 600` pada berkas itu\n"),
            "{said}"
        );
        allow(&config.identity.key, 0o600);
        std::fs::write(&config.identity.certificate, "rusak").unwrap();
        let said = line(Lang::Id);
        assert!(
            said.contains("tidak dapat dipakai") && said.ends_with(install),
            "{said}"
        );
    }

    #[test]
    fn who_may_not_read_the_key_is_told_which_user_may() {
        // root may read everything, so the file system cannot be made to say it in every test run
        let denied = IdentityError::Unreadable {
            file: "/etc/scc/agent.key".into(),
            why: ErrorKind::PermissionDenied.into(),
        };
        let (id, en) = fault(&denied, "sudo -u scc-agent scc-agent doctor");
        for said in [id, en] {
            assert!(
                said.contains("`sudo -u scc-agent scc-agent doctor`")
                    && !said.contains("pasang ulang")
                    && !said.contains("install"),
                "{said}"
            );
        }
    }

    /// What `handshake` says of a hub that does this with the connection.
    async fn met<F: Future<Output = ()> + Send + 'static>(
        config: &Config,
        hub: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move { hub(listener.accept().await.unwrap().0).await });
        let socket = TcpStream::connect(address).await.unwrap();
        let clock = ManualClock::at(NOW_MS);
        let said = handshake(config, "", &*clock, socket).await.unwrap_err();
        served.await.unwrap();
        said
    }

    #[tokio::test]
    async fn a_fault_of_the_hub_is_not_blamed_on_this_box() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        issue(&config, "rsud", 2026);

        let (id, en) = met(&config, |mut socket| async move {
            socket.write_all(b"220 who are you?\r\n").await.unwrap();
        })
        .await;
        assert!(
            id.starts_with("sambungan aman (TLS) dengan pusat gagal ("),
            "{id}"
        );
        assert!(
            en.starts_with("the secure connection (TLS) to the hub failed ("),
            "{en}"
        );

        // trusted, and without a common name
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "pusat");
        let host = config.hub.host.parse().unwrap();
        params.subject_alt_names = vec![SanType::IpAddress(host)];
        let key = KeyPair::generate().unwrap();
        let leaf = params.self_signed(&key).unwrap();
        std::fs::write(&config.identity.hub_ca, leaf.pem()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let (id, en) = met(&config, |socket| async move {
            acceptor.accept(socket).await.unwrap();
        })
        .await;
        assert!(
            id.starts_with("pusat: ") && id.ends_with("; beri tahu administrator"),
            "{id}"
        );
        assert!(
            en.starts_with("the hub: ") && en.ends_with("; tell the administrator"),
            "{en}"
        );
    }
}
