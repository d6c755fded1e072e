//! What lies beyond this box: the way to the hub, step by step, and each device.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;
use scc_common::clock::Clock;
use scc_common::identity;
use scc_common::record::LinkMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Finding, Outcome, both};
use crate::config::{Camera, Config, Terminal};
use crate::status::Status;
use crate::uplink::link::Dial;
use crate::uplink::mqtt::Mqtt;

/// A person waits for each check.
const WAIT: Duration = Duration::from_secs(5);
const DAY_MS: i64 = 86_400_000;

/// Certificate, name, route, TLS, MQTT. After the first fault on the way the rest is skipped: it
/// could only repeat it.
pub(super) async fn hub(
    config: &Config,
    clock: &dyn Clock,
    running: Option<&Status>,
) -> Vec<Finding> {
    let mut findings = vec![certificate(config, clock)];
    let (host, port) = (&config.hub.host, config.hub.port);
    let addresses = match resolve(host, port).await {
        Ok(addresses) => {
            let seen = addresses.first().map(|a| a.ip().to_string());
            let good = Outcome::Good(format!("{host} = {}", seen.unwrap_or_default()));
            findings.push(Finding::new("nama pusat", "name of the hub", good));
            addresses
        }
        Err(why) => {
            findings.push(Finding::new(
                "nama pusat",
                "name of the hub",
                Outcome::Bad(both(
                    format!("{host} tidak dikenal ({why}); periksa kabel jaringan dan DNS"),
                    format!("{host} does not resolve ({why}); check the network cable and DNS"),
                )),
            ));
            return findings;
        }
    };
    let socket = match connect(&addresses).await {
        Ok(socket) => {
            let good = Outcome::Good(format!("TCP {port}"));
            findings.push(Finding::new("rute ke pusat", "route to the hub", good));
            socket
        }
        Err(why) => {
            findings.push(Finding::new(
                "rute ke pusat",
                "route to the hub",
                Outcome::Bad(both(
                    format!(
                        "port {port} tidak tersambung ({why}); periksa VPN/jaringan, lalu pusatnya"
                    ),
                    format!(
                        "no connection to port {port} ({why}); check VPN and network, then the hub"
                    ),
                )),
            ));
            return findings;
        }
    };
    let tls = handshake(config, socket).await;
    let failed = tls.is_err();
    let outcome = match tls {
        Ok(version) => Outcome::Good(version),
        Err(why) => Outcome::Bad(both(
            format!(
                "sertifikat tidak diterima ({why}); periksa jam kotak ini, lalu file identitas"
            ),
            format!("no TLS ({why}); check this box's clock, then its identity files"),
        )),
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
        Outcome::Good("agent ✓".into())
    } else {
        let dialer = Mqtt::new(
            config.agent.clone(),
            config.hub.clone(),
            config.identity.clone(),
        );
        match tokio::time::timeout(WAIT * 2, dialer.dial()).await {
            Ok(Ok(_)) => Outcome::Good("CONNACK".into()),
            Ok(Err(why)) => Outcome::Bad(both(
                format!(
                    "pusat menolak ({why}); minta administrator memeriksa pendaftaran {}",
                    config.agent
                ),
                format!(
                    "{why}; ask the administrator to check the registration of {}",
                    config.agent
                ),
            )),
            Err(_) => Outcome::Bad(both(
                "pusat tidak menjawab; periksa layanan scc-hub",
                "the hub does not answer; check the service scc-hub",
            )),
        }
    };
    Finding::new("pusat", "hub", outcome)
}

fn certificate(config: &Config, clock: &dyn Clock) -> Finding {
    let outcome = match certificate_days(config, clock) {
        Err(why) => Outcome::Bad(both(
            format!("{why}; pasang ulang identitas kotak ini"),
            format!("{why}; install this box's identity again"),
        )),
        Ok(days) if days < 0 => Outcome::Bad(both(
            format!("kedaluwarsa {} hari lalu; minta yang baru", -days),
            format!("expired {} days ago; ask for a new one", -days),
        )),
        Ok(days) if days < 14 => Outcome::Bad(both(
            format!("berakhir dalam {days} hari; minta yang baru"),
            format!("ends in {days} days; ask for a new one"),
        )),
        Ok(days) => Outcome::Good(format!("{days} d")),
    };
    Finding::new("sertifikat", "certificate", outcome)
}

/// Days that the certificate is still good for, if everything about it is right but perhaps that.
fn certificate_days(config: &Config, clock: &dyn Clock) -> Result<i64, String> {
    let files = &config.identity;
    identity::agent_tls(&files.certificate, &files.key, &files.hub_ca)
        .map_err(|e| e.to_string())?;
    let chain = identity::certificates(&files.certificate).map_err(|e| e.to_string())?;
    let leaf = chain.first().ok_or("no certificate")?;
    let named = identity::agent_of(leaf).map_err(|e| e.to_string())?;
    if named != config.agent {
        return Err(format!(
            "the certificate is {named}'s, and this box is {}",
            config.agent
        ));
    }
    let facts = identity::facts(leaf).map_err(|e| e.to_string())?;
    let now = clock.wall_ms();
    if facts.from_ms > now {
        return Err("the certificate is not valid yet: the clock is wrong".into());
    }
    Ok((facts.until_ms - now).div_euclid(DAY_MS))
}

async fn handshake(config: &Config, socket: TcpStream) -> Result<String, String> {
    let files = &config.identity;
    let tls = identity::agent_tls(&files.certificate, &files.key, &files.hub_ca)
        .map_err(|e| e.to_string())?;
    let name = ServerName::try_from(config.hub.host.clone()).map_err(|e| e.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(tls);
    let stream = tokio::time::timeout(WAIT, connector.connect(name, socket))
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| e.to_string())?;
    let version = stream.get_ref().1.protocol_version();
    Ok(version.map_or_else(String::new, |v| format!("{v:?}")))
}

/// A camera: TCP, and anybody there who speaks RTSP.
pub(super) async fn camera(camera: &Camera) -> Finding {
    let outcome = match rtsp(&camera.url).await {
        Ok(answer) => Outcome::Good(answer),
        Err(why) => Outcome::Bad(both(
            format!("{why}; periksa listrik dan kabel kamera, lalu alamatnya di agent.toml"),
            format!("{why}; check the camera's power and cable, then its address in agent.toml"),
        )),
    };
    Finding::new(
        &format!("kamera {}", camera.id),
        &format!("camera {}", camera.id),
        outcome,
    )
}

async fn rtsp(url: &str) -> Result<String, String> {
    let authority = url
        .strip_prefix("rtsp://")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let (host, port) =
        crate::config::split_address(authority, 554).ok_or("its url names no address")?;
    let mut socket = connect(&resolve(&host, port).await?).await?;
    let ask = async {
        let request = format!("OPTIONS rtsp://{authority}/ RTSP/1.0\r\nCSeq: 1\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = [0; 64];
        let n = socket.read(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.get(..n).unwrap_or_default().to_vec())
    };
    match tokio::time::timeout(WAIT, ask).await {
        Ok(Ok(answer)) if answer.starts_with(b"RTSP/1.0") => Ok(format!("RTSP, TCP {port}")),
        Ok(Ok(_)) => Err(format!("no RTSP on port {port}")),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("port {port} is open but silent")),
    }
}

/// A terminal: its TCP port. Not more: a terminal has one session, and the agent may hold it.
pub(super) async fn terminal(terminal: &Terminal) -> Finding {
    let reached = match resolve(&terminal.host, terminal.port).await {
        Ok(addresses) => connect(&addresses).await.map(|_| ()),
        Err(why) => Err(why),
    };
    let outcome = match reached {
        Ok(()) => Outcome::Good(format!("TCP {}", terminal.port)),
        Err(why) => Outcome::Bad(both(
            format!("{why}; periksa listrik dan kabel mesin, lalu alamat IP-nya (menu Komunikasi)"),
            format!("{why}; check its power and cable, then its IP address (menu Comm.)"),
        )),
    };
    Finding::new(
        &format!("mesin {}", terminal.id),
        &format!("terminal {}", terminal.id),
        outcome,
    )
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = tokio::time::timeout(WAIT, tokio::net::lookup_host((host, port)));
    match found.await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer from DNS".into()),
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    match tokio::time::timeout(WAIT, TcpStream::connect(addresses)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", WAIT.as_secs())),
    }
}
