//! Bad links: the real uplink over MQTT and TLS, and a network or a hub that misbehaves in one way
//! each (complaints list, rows 6 and 8).
//!
//! Of each: once the link is well again, everything is committed and the buffer knows it within two
//! keep-alives; meanwhile attempts keep to the backoff's budget and the log does not flood. The
//! keep-alive is the shortest that the gate takes, and all waits of the uplink shrink with it
//! (`agent/src/uplink/pace.rs`), so two keep-alives stand for a minute of a box.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::mqttbytes::v4::Packet;
use scc_agent::uplink::pace::Pace;
use scc_common::clock::SystemClock;
use scc_common::id::AgentId;
use scc_common::identity::agent_tls;
use scc_common::topic;
use scc_hub::gate::limits::{MESSAGE_OVERHEAD, POOL, SHARE};
use scc_provision::Authority;
use scc_tests::bench::mqtt::{Call, Connection};
use scc_tests::proxy::Weather;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::stage::{Hub, Manner, Mute, PATIENCE, SEED, Site, identity};

const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What the log may grow by in two keep-alives, which are a minute of a box.
const LINES: u32 = 40;

/// A link that was good until now, and what it did since.
struct Watched {
    site: Site,
    hub: Hub,
    since: Instant,
    attempts: u64,
    lines: u64,
}

impl Watched {
    async fn start() -> Self {
        let (mut site, hub) = Site::start_with(Manner {
            pace: Pace::of(KEEP_ALIVE),
            ..Manner::default()
        })
        .await;
        site.punch().await;
        site.delivered().await;
        Self {
            since: Instant::now(),
            attempts: site.dialer.attempts(),
            lines: site.lines.count(),
            site,
            hub,
        }
    }

    /// A punch and a segment that must not get through while the link is bad.
    async fn bad_for(&mut self, time: Duration) {
        self.site.punch().await;
        self.site.segment(300_000).await;
        sleep(time).await;
        assert!(self.site.backlog().await > 0, "the link was not bad");
    }

    /// The link is well from now on.
    async fn well(self) {
        self.well_within(2 * KEEP_ALIVE).await;
    }

    #[expect(clippy::print_stdout, reason = "the figures of a test that passed")]
    async fn well_within(mut self, limit: Duration) {
        let healed = Instant::now();
        self.site.punch().await;
        self.site.delivered().await;
        let took = healed.elapsed();
        let link = self.site.link.status.borrow().clone();
        assert!(took <= limit, "{took:?}, {link:?}, seed {SEED}");

        let units = self.since.elapsed().as_secs_f64() / (2 * KEEP_ALIVE).as_secs_f64();
        let attempts = self.site.dialer.attempts() - self.attempts;
        // four while the ceiling rises, then one in half the last ceiling; twice that is chance
        let usual =
            2 * KEEP_ALIVE.as_millis() / (Pace::of(KEEP_ALIVE).reconnect_last() / 2).as_millis();
        let budget = 4.0 + 2.0 * units * f64::from(u32::try_from(usual).unwrap());
        assert!(
            attempts as f64 <= budget,
            "{attempts} of {budget:.0}, seed {SEED}"
        );
        let lines = self.site.lines.count() - self.lines;
        assert!(
            lines as f64 <= f64::from(LINES) * units.max(1.0),
            "{lines} lines"
        );
        println!(
            "well after {took:.1?}: {attempts} attempts, {lines} lines in {units:.1} × 2 keep-alives"
        );
    }
}

/// A peer that completes TLS as the hub, reads whatever comes and never says a word.
async fn mute_tls(site: &Site) -> (SocketAddr, AbortOnDropHandle<()>) {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let at = |name: &str| site.dir.path().join("hub").join(name);
    let chain = CertificateDer::pem_file_iter(at("hub.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(at("hub.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut peers = tokio::task::JoinSet::new();
        while let Ok((peer, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            peers.spawn(async move {
                if let Ok(mut tls) = acceptor.accept(peer).await {
                    let _ = tls.flush().await;
                    let mut swallowed = [0; 1024];
                    while let Ok(1..) = tls.read(&mut swallowed).await {}
                }
            });
        }
    });
    (address, AbortOnDropHandle::new(task))
}

/// Other agents, whose payloads take all that the gate may have on the way to ingest.
async fn fill_the_pool(link: &Watched) -> JoinSet<()> {
    const PAYLOAD: usize = SHARE / 2 - MESSAGE_OVERHEAD;
    let dir = link.site.dir.path();
    let mut authority = Authority::open(&dir.join("authority")).unwrap();
    let mut neighbours = JoinSet::new();
    let (taken, mut all) = mpsc::unbounded_channel();
    // two of each fill the pool, and those of one more stand in front of whoever comes later
    for no in 0..=POOL / SHARE {
        let agent = AgentId::new(format!("puskesmas-{no}")).unwrap();
        let id = dir.join("neighbours").join(agent.as_str());
        let files = identity(&mut authority, &agent, &id, &SystemClock::new());
        let call = Call {
            to: link.hub.address,
            from: None,
            tls: agent_tls(&files.certificate, &files.key, &files.hub_ca).unwrap(),
            id: agent.to_string(),
            filter: topic::down(&agent),
            keep_alive: 300,
        };
        let taken = taken.clone();
        neighbours.spawn(async move {
            let mut connection = Connection::open(&call).await.unwrap();
            for pkid in [1, 2] {
                let payload = Bytes::from(vec![0; PAYLOAD]);
                connection
                    .publish(&topic::up(&agent), pkid, payload)
                    .unwrap();
                connection.flush().await.unwrap();
                while !matches!(connection.pop().unwrap(), Some(Packet::PubAck(_))) {
                    connection.read().await.unwrap();
                }
                taken.send(()).unwrap();
            }
            std::future::pending::<()>().await;
        });
    }
    // one less than fits: the agent itself may have something on the way
    for _ in 1..2 * POOL / SHARE {
        let took = tokio::time::timeout(PATIENCE, all.recv()).await;
        took.expect("the gate took too little").unwrap();
    }
    neighbours
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_after_hello() {
    let mut link = Watched::start().await;
    link.hub.voice.mute.send_replace(Mute::Everything);
    link.site.proxy.cut();
    link.bad_for(KEEP_ALIVE * 3 / 2).await;
    link.hub.voice.mute.send_replace(Mute::Nothing);
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_after_connect() {
    let mut link = Watched::start().await;
    let (hole, _task) = mute_tls(&link.site).await;
    link.site.proxy.lead_to(hole);
    link.site.proxy.cut();
    link.bad_for(KEEP_ALIVE / 2).await;
    link.site.proxy.lead_to(link.hub.address);
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_after_the_client_hello_of_tls() {
    let mut link = Watched::start().await;
    link.site.proxy.weather(|w| w.half_open = true);
    link.site.proxy.cut();
    link.bad_for(KEEP_ALIVE / 2).await;
    link.site.proxy.weather(|w| w.half_open = false);
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_in_the_middle_of_a_segment() {
    let mut link = Watched::start().await;
    // too slow for the segments to get through between the resets
    link.site.proxy.weather(|w| w.rate = Some(50_000));
    link.site.segment(300_000).await;
    for _ in 0..10 {
        link.bad_for(KEEP_ALIVE / 12).await;
        link.site.proxy.cut();
    }
    link.site.proxy.weather(|w| *w = Weather::default());
    link.well().await;
}

/// The peer is gone without a word, and whoever connects anew is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection() {
    let mut link = Watched::start().await;
    link.site.proxy.forget();
    link.bad_for(Duration::ZERO).await;
    // pinged after one keep-alive at most, given up a third later; the rest is for a busy machine
    link.well_within(KEEP_ALIVE * 7 / 4).await;
}

/// The network is still: what is connected stays so, and whoever connects anew gets no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answers_any_more() {
    let mut link = Watched::start().await;
    let still = |w: &mut Weather| (w.stall_up, w.stall_down, w.half_open) = (true, true, true);
    link.site.proxy.weather(still);
    link.bad_for(KEEP_ALIVE * 3 / 2).await;
    link.site.proxy.weather(|w| *w = Weather::default());
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_withheld() {
    let mut link = Watched::start().await;
    link.hub.voice.mute.send_replace(Mute::Acknowledgements);
    link.bad_for(KEEP_ALIVE * 2).await;
    link.hub.voice.mute.send_replace(Mute::Nothing);
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve() {
    let mut link = Watched::start().await;
    link.site.dialer.name("hub.invalid"); // RFC 2606: never has an address
    link.site.proxy.cut();
    link.bad_for(KEEP_ALIVE * 3 / 2).await;
    link.site.dialer.name("127.0.0.1");
    link.well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port() {
    let mut link = Watched::start().await;
    link.site.proxy.weather(|w| w.refuse = true);
    link.site.proxy.cut();
    link.bad_for(KEEP_ALIVE).await;
    link.site.proxy.weather(|w| w.refuse = false);
    link.well().await;
}

/// The gate reads no more, because ingest cannot go on: nothing is wrong with the link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_holds_back_is_no_dead_link() {
    let mut link = Watched::start().await;
    link.hub.stuck.send_replace(true);
    let _neighbours = fill_the_pool(&link).await;
    // a hello unanswered for two would be the end of a connection that says nothing
    link.bad_for(KEEP_ALIVE * 5).await;
    assert_eq!(link.site.dialer.attempts(), link.attempts, "it reconnected");
    link.hub.stuck.send_replace(false);
    link.well().await;
}

/// Slow in the worst way, and yet nothing is wrong with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_at_a_time() {
    let mut link = Watched::start().await;
    link.site.proxy.weather(|w| w.piece = Some(1));
    link.site.proxy.cut();
    link.site.still(20_000).await;
    link.well().await;
}
