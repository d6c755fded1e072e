//! The way to the hub, step by step.

use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;
use scc_common::clock::Clock;
use scc_common::identity::{self, IdentityError};
use scc_common::lang::Lang;
use scc_common::record::LinkMode;
use tokio::net::TcpStream;

use super::{Finding, Outcome, agent_says, both, each, same};
use crate::cmd::units;
use crate::cmd::words::{self, cause as word};
use crate::config::Config;
use crate::dial;
use crate::status::Status;
use crate::uplink::link::{Dial, Trouble};
use crate::uplink::mqtt::Mqtt;

/// A person waits for each check.
const WAIT: Duration = Duration::from_secs(5);
const DAY_MS: i64 = 86_400_000;
/// A certificate that ends this soon is to be renewed now.
const SOON_DAYS: i64 = 14;

/// Certificate, name, route, TLS, MQTT. After the first fault on the way the rest is skipped: it
/// could only repeat it.
pub(super) async fn hub(
    config: &Config,
    clock: &dyn Clock,
    running: Option<&Status>,
) -> Vec<Finding> {
    let mut findings = vec![certificate(config, clock)];
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
    let tls = handshake(config, clock, socket).await;
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

fn certificate(config: &Config, clock: &dyn Clock) -> Finding {
    let outcome = match certificate_days(config, clock) {
        Err(why) => Outcome::Bad(unusable(why)),
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
fn unusable((id, en): (String, String)) -> (String, String) {
    both(
        format!("{id}; pasang ulang identitas kotak ini"),
        format!("{en}; install this box's identity again"),
    )
}

/// What is wrong with the identity, in both languages.
fn fault(error: &IdentityError) -> (String, String) {
    each(|lang| words::identity(error, lang))
}

/// Days that the certificate is still good for, if everything about it is right but perhaps that.
fn certificate_days(config: &Config, clock: &dyn Clock) -> Result<i64, (String, String)> {
    let files = &config.identity;
    identity::agent_tls(&files.certificate, &files.key, &files.hub_ca).map_err(|e| fault(&e))?;
    let chain = identity::certificates(&files.certificate).map_err(|e| fault(&e))?;
    let leaf = chain
        .first()
        .ok_or_else(|| both("tidak ada sertifikat", "there is no certificate"))?;
    let named = identity::agent_of(leaf).map_err(|e| fault(&e))?;
    let agent = &config.agent;
    if named != *agent {
        return Err(both(
            format!("sertifikat milik {named}, padahal kotak ini {agent}"),
            format!("the certificate is {named}'s, and this box is {agent}"),
        ));
    }
    let facts = identity::facts(leaf).map_err(|e| fault(&e))?;
    let now = clock.wall_ms();
    if facts.from_ms > now {
        return Err(both(
            "sertifikat belum berlaku: jam kotak ini salah",
            "the certificate is not valid yet: the clock is wrong",
        ));
    }
    Ok((facts.until_ms - now).div_euclid(DAY_MS))
}

/// Version of TLS, and days that the hub's certificate is still good for.
async fn handshake(
    config: &Config,
    clock: &dyn Clock,
    socket: TcpStream,
) -> Result<(String, i64), (String, String)> {
    let files = &config.identity;
    let tls = identity::agent_tls(&files.certificate, &files.key, &files.hub_ca)
        .map_err(|e| unusable(fault(&e)))?;
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
    let facts = facts.map_err(|e| unusable(fault(&e)))?;
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
