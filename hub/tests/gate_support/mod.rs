//! An authority, a gate, agents (rumqttc with the agent's own TLS), and raw peers.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod house;
pub(crate) mod place;

use std::collections::HashMap;
use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, Packet, QoS, TlsConfiguration,
    Transport,
};
use scc_common::clock::SystemClock;
use scc_common::identity;
use scc_hub::config;
use scc_hub::gate::{self, Arrivals, Arrived, Gate, GateError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests should take this long, even on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Waits, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future)
        .await
        .expect("took too long")
}

/// An issuing level.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(
        &self,
        dir: &Path,
        serial: u64,
        name: &str,
        san: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
    ) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.subject_alt_names = san;
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
        fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn revocations(&self, serials: &[u64], until_year: i32) -> String {
        CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(until_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2024, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.0)
        .unwrap()
        .pem()
        .unwrap()
    }
}

/// A running gate and everything around it.
pub(crate) struct World {
    dir: TempDir,
    agents: Authority,
    serials: HashMap<String, u64>,
    pub(crate) address: SocketAddr,
    pub(crate) gate: Gate,
    /// None once [`take_arrivals`](Self::take_arrivals) has given them away.
    arrivals: Option<Arrivals>,
    pub(crate) running: JoinHandle<Result<(), GateError>>,
    pub(crate) stop: CancellationToken,
}

impl World {
    /// A gate on a free port, and certificates for these agents.
    pub(crate) async fn open(names: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (agents, hubs) = (Authority::new("agents"), Authority::new("hubs"));
        let names_of_hub = vec![
            SanType::URI("scc:hub".try_into().unwrap()),
            SanType::DnsName("localhost".try_into().unwrap()),
        ];
        hubs.issue(
            &at("hub"),
            1,
            "localhost",
            names_of_hub,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        fs::write(at("hub-ca.pem"), hubs.0.pem()).unwrap();
        fs::write(at("agents-ca.pem"), agents.0.pem()).unwrap();
        fs::write(at("revoked.pem"), agents.revocations(&[], 2099)).unwrap();
        let config = config::Gate {
            listen: "127.0.0.1:0".parse().unwrap(),
            certificate: at("hub/cert.pem"),
            key: at("hub/key.pem"),
            agents_ca: at("agents-ca.pem"),
            revocations: at("revoked.pem"),
            max_connections: 100,
        };
        let stop = CancellationToken::new();
        let opened = gate::open(&config, SystemClock::shared()).await.unwrap();
        let (gate, arrivals, running) = opened.start(stop.clone()).await.unwrap();
        let mut world = Self {
            dir,
            agents,
            serials: HashMap::new(),
            address: gate.address(),
            gate,
            arrivals: Some(arrivals),
            running,
            stop,
        };
        for name in names {
            world.issue_as(name, &format!("scc:agent:{name}"));
        }
        world
    }

    /// A certificate of the agents' issuing level.
    pub(crate) fn issue_as(&mut self, name: &str, uri: &str) {
        let serial = 1_000 + self.serials.len() as u64;
        self.serials.insert(name.to_owned(), serial);
        issue(&self.agents, &self.path(name), serial, name, uri);
    }

    /// A certificate of somebody else.
    pub(crate) fn issue_by(&mut self, authority: &Authority, name: &str, uri: &str) {
        issue(authority, &self.path(name), 1, name, uri);
    }

    /// Puts a list in place that names this agent and is good until this year.
    pub(crate) fn revoke(&self, name: &str, until_year: i32) {
        let list = self.agents.revocations(&[self.serials[name]], until_year);
        // As the provisioning tool does it: never a half-written list.
        fs::write(self.path("revoked.new"), list).unwrap();
        fs::rename(self.path("revoked.new"), self.path("revoked.pem")).unwrap();
    }

    /// Where a file of this world is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn tls(&self, name: &str) -> Arc<rustls::ClientConfig> {
        let dir = self.path(name);
        let ca = self.path("hub-ca.pem");
        identity::agent_tls(&dir.join("cert.pem"), &dir.join("key.pem"), &ca).unwrap()
    }

    /// An honest agent's options with this certificate and this client id.
    pub(crate) fn options(&self, name: &str, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "localhost", self.address.port());
        let tls = TlsConfiguration::Rustls(self.tls(name));
        options.set_transport(Transport::tls_with_config(tls));
        options.set_keep_alive(Duration::from_secs(30));
        options.set_clean_session(true);
        options.set_max_packet_size(1 << 20, 1 << 20);
        options
    }

    pub(crate) async fn try_connect(&self, name: &str) -> Result<Agent, ConnectionError> {
        let mut agent = Agent::new(self.options(name, name));
        agent.connected().await.map(|()| agent)
    }

    pub(crate) async fn connect(&self, name: &str) -> Agent {
        self.try_connect(name).await.unwrap()
    }

    /// What arrives next; none when the gate has ended.
    pub(crate) async fn next(&mut self) -> Option<Arrived> {
        let arrivals = self.arrivals.as_mut();
        arrivals.expect("nobody else reads them").recv().await
    }

    /// For whoever consumes them from now on.
    pub(crate) fn take_arrivals(&mut self) -> Arrivals {
        self.arrivals.take().unwrap()
    }

    pub(crate) async fn arrived(&mut self) -> Arrived {
        soon(self.next()).await.expect("the gate is open")
    }

    /// Long enough for whatever could come over the loopback.
    pub(crate) async fn nothing_arrives(&mut self) {
        let next = tokio::time::timeout(Duration::from_millis(500), self.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        soon(self.running).await.unwrap().unwrap();
    }
}

fn issue(authority: &Authority, dir: &Path, serial: u64, name: &str, uri: &str) {
    let san = vec![SanType::URI(uri.try_into().unwrap())];
    authority.issue(dir, serial, name, san, ExtendedKeyUsagePurpose::ClientAuth);
}

/// An agent as it will be: rumqttc with the agent's TLS.
pub(crate) struct Agent {
    pub(crate) client: AsyncClient,
    pub(crate) events: EventLoop,
}

impl Agent {
    pub(crate) fn new(options: MqttOptions) -> Self {
        let (client, events) = AsyncClient::new(options, 10);
        Self { client, events }
    }

    pub(crate) async fn connected(&mut self) -> Result<(), ConnectionError> {
        loop {
            if let Event::Incoming(Packet::ConnAck(_)) = soon(self.events.poll()).await? {
                return Ok(());
            }
        }
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .await
            .unwrap();
    }

    /// Polls until a packet comes for which `want` is something.
    async fn until<T>(&mut self, want: impl Fn(Packet) -> Option<T>) -> T {
        loop {
            if let Event::Incoming(packet) = soon(self.events.poll()).await.unwrap()
                && let Some(found) = want(packet)
            {
                return found;
            }
        }
    }

    pub(crate) async fn puback(&mut self) {
        self.until(|p| matches!(p, Packet::PubAck(_)).then_some(()))
            .await;
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) {
        self.client
            .subscribe(filter, QoS::AtMostOnce)
            .await
            .unwrap();
        self.until(|p| matches!(p, Packet::SubAck(_)).then_some(()))
            .await;
    }

    pub(crate) async fn received(&mut self) -> Vec<u8> {
        self.until(|p| match p {
            Packet::Publish(publish) => Some(publish.payload.to_vec()),
            _ => None,
        })
        .await
    }

    /// Polls until the gate has closed the connection.
    pub(crate) async fn ended(&mut self) {
        while soon(self.events.poll()).await.is_ok() {}
    }

    /// Polls until everything asked for has been written.
    pub(crate) async fn flush(&mut self) {
        while let Ok(event) = soon(self.events.poll()).await {
            if let Event::Outgoing(rumqttc::Outgoing::Disconnect) = event {
                return;
            }
        }
    }

    /// Publishes so many payloads of this size in the background, and keeps the connection going.
    pub(crate) fn flood(mut self, name: &str, count: usize, size: usize) -> JoinHandle<()> {
        let topic = format!("scc/up/{name}");
        tokio::spawn(async move {
            for _ in 0..count {
                let payload = vec![7; size];
                self.client
                    .publish(&topic, QoS::AtLeastOnce, false, payload)
                    .await
                    .unwrap();
            }
            while self.events.poll().await.is_ok() {}
        })
    }
}

/// CONNECT of a well-behaved client; the keep alive (30 s) is in bytes 10 and 11.
pub(crate) fn connect_packet(client_id: &str) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    let mut packet = vec![0x10, 12 + length];
    packet.extend(b"\0\x04MQTT\x04\x02\0\x1e\0");
    packet.push(length);
    packet.extend(client_id.as_bytes());
    packet
}

/// A peer with a good certificate and bad manners.
pub(crate) struct Raw(TlsStream<TcpStream>);

impl Raw {
    pub(crate) async fn connect(world: &World, name: &str) -> Self {
        Self::with(world, world.tls(name)).await
    }

    pub(crate) async fn with(world: &World, tls: Arc<rustls::ClientConfig>) -> Self {
        Self::to(world.address, tls).await
    }

    pub(crate) async fn to(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), tls).await
    }

    /// A peer whose system takes in little that it does not read.
    pub(crate) async fn with_small_window(world: &World, name: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let socket = socket.connect(world.address).await.unwrap();
        Self::over(socket, world.tls(name)).await
    }

    async fn over(socket: TcpStream, tls: Arc<rustls::ClientConfig>) -> Self {
        let host = "localhost".try_into().unwrap();
        let stream = soon(TlsConnector::from(tls).connect(host, socket)).await;
        Self(stream.unwrap())
    }

    pub(crate) fn handshake(&self) -> Option<rustls::HandshakeKind> {
        self.0.get_ref().1.handshake_kind()
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    pub(crate) async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        soon(self.0.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, bytes);
    }

    /// Says that nothing more will be written, and waits until the gate has seen all that was.
    pub(crate) async fn finish(mut self) {
        let _ = self.0.shutdown().await;
        self.closed().await;
    }

    /// Reads until the gate has closed the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = soon(self.0.read_to_end(&mut rest)).await;
    }

    /// Ends the connection by RST.
    pub(crate) fn reset(self) {
        let socket = self.0.into_inner().0;
        socket.set_zero_linger().unwrap();
    }
}
