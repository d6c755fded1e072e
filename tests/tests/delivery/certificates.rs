//! Certificates change while records flow (field complaint 16): nothing is restarted, nothing is lost,
//! and nobody reconnects who need not.

use std::fs;

use rustls_pki_types::CertificateDer;
use scc_common::identity;
use scc_provision::{hub, site};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::stage::*;
use scc_common::clock::SystemClock;
use scc_provision::Authority;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// The gate looks at its files each second; a busy machine may take longer.
const TAKEN_OVER: Duration = Duration::from_secs(60);

/// The offline side: an authority and where its files go.
struct Office {
    dir: PathBuf,
    authority: Authority,
}

impl Office {
    /// The one that the site was made with.
    fn of(site: &Site) -> Self {
        let dir = site.dir.path().to_path_buf();
        let authority = Authority::open(&dir.join("authority")).unwrap();
        Self { dir, authority }
    }

    /// Another one.
    fn second(site: &Site) -> Self {
        let dir = site.dir.path().join("second");
        fs::create_dir(&dir).unwrap();
        let authority = Authority::init(&dir.join("authority"), "second", &SystemClock::new());
        let authority = authority.unwrap();
        Self { dir, authority }
    }

    /// Files for a hub, in its folder or in this authority's own.
    fn issue_hub(&mut self) {
        let names = hub::Names {
            dns: vec!["localhost".into()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let out = self.dir.join("hub");
        hub::issue(&mut self.authority, &names, &out, true, &SystemClock::new()).unwrap();
    }

    /// Files for the agent, likewise.
    fn issue_site(&mut self) {
        let out = self.dir.join("id");
        let clock = SystemClock::new();
        site::issue(&mut self.authority, &agent(), 30, &out, true, &clock).unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }
}

/// As a careful administrator does it: never half a file.
fn put(site: &Site, file: &str, text: &str) {
    let file = site.dir.path().join(file);
    let new = file.with_extension("new");
    fs::copy(&file, &new).unwrap(); // with its mode
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// Puts a pair from another folder in place.
fn put_pair(site: &Site, office: &Office, files: [&str; 2]) {
    for file in files {
        put(site, file, &office.read(file));
    }
}

const OF_HUB: [&str; 2] = ["hub/hub.pem", "hub/hub.key"];
const OF_SITE: [&str; 2] = ["id/agent.pem", "id/agent.key"];

/// The certificate that the hub shows to an agent with the files in this folder; none if it lets it not
/// in, or is not trusted by it. Asked beside the proxy, and without a CONNECT, so that the agent's own
/// connection stays.
async fn shown(hub: &Hub, id: &Path) -> Option<CertificateDer<'static>> {
    let at = |name: &str| id.join(name);
    let tls = identity::agent_tls(&at(site::CERTIFICATE), &at(site::KEY), &at("hub-ca.pem"));
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let host = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(tls.unwrap());
    let mut stream = connector.connect(host, stream).await.ok()?;
    // TLS 1.3: whether this side was let in shows with the first read
    let refused = tokio::time::timeout(
        Duration::from_millis(500),
        tokio::io::AsyncReadExt::read_u8(&mut stream),
    );
    if refused.await.is_ok() {
        return None;
    }
    let chain = stream.get_ref().1.peer_certificates()?;
    chain.first().map(|c| c.clone().into_owned())
}

fn first_in(file: &Path) -> CertificateDer<'static> {
    identity::certificates(file).unwrap().swap_remove(0)
}

impl Site {
    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Records flow until the hub shows this file's certificate to whoever has the files in `id`.
    async fn punches_until_shown(&mut self, hub: &Hub, certificate: &str, id: &str) {
        let wanted = Some(first_in(&self.path(certificate)));
        let id = self.path(id);
        let until = Instant::now() + TAKEN_OVER;
        while shown(hub, &id).await != wanted {
            assert!(Instant::now() < until, "{certificate} is not shown");
            self.punch().await;
        }
    }

    /// Records flow until the hub refuses whoever has the files in this folder.
    async fn punches_until_refused(&mut self, hub: &Hub, id: &Path) {
        let until = Instant::now() + TAKEN_OVER;
        while shown(hub, id).await.is_some() {
            assert!(Instant::now() < until, "{} is still let in", id.display());
            self.punch().await;
        }
    }

    /// The agent's certificate and key as they are now, elsewhere.
    fn keeps_a_copy_of_its_files(&self) -> PathBuf {
        let copy = self.path("old");
        fs::create_dir(&copy).unwrap();
        for file in [site::CERTIFICATE, site::KEY, "hub-ca.pem"] {
            fs::copy(self.path("id").join(file), copy.join(file)).unwrap();
        }
        copy
    }

    /// The link breaks, and records flow again over another.
    async fn reconnects(&mut self) {
        let before = self.proxy.connections();
        self.proxy.cut();
        self.punch().await;
        self.delivered().await;
        assert!(self.proxy.connections() > before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_under_load_without_a_reconnect() {
    let (mut site, hub) = Site::start().await;
    let mut office = Office::of(&site);
    site.punch().await;
    site.delivered().await;
    let connections = site.proxy.connections();

    office.issue_hub();
    site.punches_until_shown(&hub, "hub/hub.pem", "id").await;
    site.delivered().await;
    assert_eq!(site.proxy.connections(), connections, "renewing the hub's");

    let old = site.keeps_a_copy_of_its_files();
    let serial = identity::facts(&first_in(&old.join(site::CERTIFICATE))).unwrap();
    let serial = scc_provision::profile::Serial::parse(&serial.serial).unwrap();
    office.issue_site();
    site.reconnects().await;
    // that it came with the new one shows when the old one is withdrawn
    let connections = site.proxy.connections();
    let list = site.path("hub/agents.crl.pem");
    let clock = SystemClock::new();
    let only = Some(serial);
    site::revoke(&mut office.authority, &agent(), only, &[&list], &clock).unwrap();
    site.punches_until_refused(&hub, &old).await;
    site.delivered().await;
    assert_eq!(site.proxy.connections(), connections, "the agent's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_authority_comes_and_the_first_goes_without_a_restart() {
    let (mut site, hub) = Site::start().await;
    let (first, mut second) = (Office::of(&site), Office::second(&site));
    second.issue_hub();
    second.issue_site();
    site.punch().await;
    site.delivered().await;
    let connections = site.proxy.connections();

    // both sides learn to trust both; the order in which the hub's two files come does not matter
    for file in ["hub/agents.crl.pem", "hub/agents-ca.pem", "id/hub-ca.pem"] {
        put(&site, file, &(first.read(file) + &second.read(file)));
    }
    // an agent of the new authority that trusts the hub of the old one
    put(&site, "second/id/hub-ca.pem", &site_ca(&site));
    site.punches_until_shown(&hub, "hub/hub.pem", "second/id")
        .await;
    site.delivered().await;
    assert_eq!(site.proxy.connections(), connections, "one more authority");

    // the hub is of the new authority, the agent still of the old
    put_pair(&site, &second, OF_HUB);
    site.punches_until_shown(&hub, "second/hub/hub.pem", "id")
        .await;
    assert_eq!(
        site.proxy.connections(),
        connections,
        "a hub of the new one"
    );
    site.reconnects().await;

    // now the agent too
    let old = site.keeps_a_copy_of_its_files();
    put_pair(&site, &second, OF_SITE);
    site.reconnects().await;
    let connections = site.proxy.connections();

    // the old authority is no longer trusted: all show their certificates once more
    assert!(shown(&hub, &old).await.is_some());
    for file in ["hub/agents.crl.pem", "hub/agents-ca.pem"] {
        put(&site, file, &second.read(file));
    }
    site.punches_until_refused(&hub, &old).await;
    site.delivered().await;
    assert!(site.proxy.connections() <= connections + 1);
}

fn site_ca(site: &Site) -> String {
    fs::read_to_string(site.path("id/hub-ca.pem")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_keep_nobody_out() {
    let (mut site, hub) = Site::start().await;
    let mut office = Office::of(&site);
    site.punch().await;
    site.delivered().await;
    let before = shown(&hub, &site.path("id")).await;
    let (of_hub, of_site) = (office.read("hub/hub.pem"), office.read("id/agent.pem"));

    put(&site, "hub/hub.pem", &of_hub[..of_hub.len() / 4]);
    put(&site, "id/agent.pem", &of_site[..of_site.len() / 2]);
    site.reconnects().await;
    put(&site, "id/hub-ca.pem", "");
    put(&site, "id/agent.key", &office.read("hub/hub.key"));
    site.reconnects().await;
    let probe = site.path("probe");
    site::issue(
        &mut office.authority,
        &agent(),
        30,
        &probe,
        false,
        &SystemClock::new(),
    )
    .unwrap();
    assert_eq!(shown(&hub, &probe).await, before, "the hub's old one stays");

    // whole ones work at once
    office.issue_site();
    office.issue_hub();
    site.punches_until_shown(&hub, "hub/hub.pem", "id").await;
    site.reconnects().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_agent_is_cut_within_a_minute_and_keeps_its_records_for_its_next_certificate() {
    let (mut site, hub) = Site::start().await;
    let mut office = Office::of(&site);
    let mut presence = hub.gate.presence();
    site.punch().await;
    site.delivered().await;
    while presence.try_recv().is_ok() {}

    let list = site.path("hub/agents.crl.pem");
    let clock = SystemClock::new();
    site::revoke(&mut office.authority, &agent(), None, &[&list], &clock).unwrap();
    let cut = tokio::time::timeout(TAKEN_OVER, presence.recv()).await;
    let cut = cut.expect("cut within a minute").unwrap();
    assert!(!cut.connected && cut.why.contains("revoked"), "{cut:?}");
    // it goes on and comes again, and is refused
    let stored = site.stored().len();
    let connections = site.proxy.connections();
    for _ in 0..5 {
        site.punch().await;
    }
    let until = Instant::now() + TAKEN_OVER;
    while site.proxy.connections() < connections + 2 {
        assert!(Instant::now() < until, "it does not try again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(hub.gate.connected(), Vec::new());
    assert_eq!(site.stored().len(), stored);
    assert_eq!(shown(&hub, &site.path("id")).await, None);

    // a new certificate, and everything that was made meanwhile comes
    office.issue_site();
    site.delivered().await;
}
