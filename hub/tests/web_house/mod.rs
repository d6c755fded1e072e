//! A house for the tests of the pages: a real server with a register, people and rows as ingest
//! would have written them, on a port of its own.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use metrics_exporter_prometheus::PrometheusBuilder;
use rcgen::{CertificateParams, KeyPair};
use rusqlite::{Connection, params};
use scc_common::clock::{Dated, Known, ManualClock, SharedClock};
use scc_common::id::{AgentId, DeviceId, Epoch};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Health, LinkMode, RecordBody, State,
};
use scc_common::register::Register;
use scc_common::stream::Stream;
use scc_common::wire::Now;
use scc_hub::config;
use scc_hub::fleet::{Door, Fleet};
use scc_hub::gate::Presence;
use scc_hub::ingest::{CommittedRecord, Notice, Status, Trouble, TroubleKind};
use scc_hub::media::Media;
use scc_hub::renewal::Told;
use scc_hub::store::Store;
use scc_hub::store::people::Role;
use scc_hub::web::{self, Parts, password};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

pub(crate) mod client;

/// 2026-11-24 09:42:17 WITA.
pub(crate) const NOW: i64 = 1_795_484_537_000;
pub(crate) const DAY: &str = "2026-11-24";
pub(crate) const PASSWORD: &str = "kopi susu gula aren";
/// Stored at the start, in this order: RSUD's newest still, Villa Yuliana's stale one.
pub(crate) const RSUD_PICTURE: i64 = 1;
pub(crate) const VILLA_PICTURE: i64 = 2;

const REGISTER: &str = r#"
[fleet]
name = "Soppeng Command Center"
timezone = "Asia/Makassar"
installed_cameras = 12
[[agency]]
id = "rsud"
name = "Rumah Sakit Umum Daerah"
[[agency]]
id = "diskominfo"
name = "Dinas Komunikasi dan Informatika"
[[agency]]
id = "damkar"
name = "Dinas Pemadam Kebakaran"
[[agency]]
id = "sma1"
name = "SMA 1 Watansoppeng"
external = true
[[site]]
id = "rsud"
agencies = ["rsud"]
name = "RSUD"
kind = "clinic"
cameras = [{ id = "igd-depan" }, { id = "apotek" }]
terminals = [{ id = "absensi-utama" }, { id = "absensi-igd" }]
[[site]]
id = "villa-yuliana"
agencies = ["diskominfo"]
name = "Villa Yuliana"
kind = "public"
cameras = [{ id = "halaman" }]
[[site]]
id = "damkar-lalabata"
agencies = ["damkar"]
name = "Pos Pemadam Kebakaran Lalabata"
kind = "office"
cameras = [{ id = "ruang-jaga" }]
terminals = [{ id = "absensi" }]
[[site]]
id = "sma1-watansoppeng"
agencies = ["sma1"]
name = "SMA 1 Watansoppeng"
kind = "school"
cameras = [{ id = "gerbang" }]
"#;

/// A running house; everything in it goes when it is dropped.
pub(crate) struct House {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) store: Store,
    notices: broadcast::Sender<Arc<Notice>>,
    presence: broadcast::Sender<Presence>,
    ingest: watch::Sender<Status>,
    missing: watch::Sender<Option<Trouble>>,
    stop: CancellationToken,
    pub(crate) root: rustls::RootCertStore,
    dir: tempfile::TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn agent(id: &str) -> AgentId {
    AgentId::new(id).unwrap()
}

pub(crate) fn device_state(
    device: &str,
    kind: DeviceKind,
    state: State,
    cause: Option<Cause>,
) -> DeviceState {
    DeviceState {
        device: DeviceId::new(device).unwrap(),
        kind,
        state,
        cause,
        since_ms: NOW - 47 * 60_000,
        last_good_ms: (state != State::Never).then_some(NOW - 47 * 60_000),
        detail: None,
    }
}

impl House {
    /// Puts another certificate and key in place and gives what trusts them.
    pub(crate) fn renew_certificate(&self) -> rustls::RootCertStore {
        identity(self.dir.path()).2
    }

    /// Whether a browser that trusts this gets a connection.
    pub(crate) async fn is_trusted_by(&self, root: rustls::RootCertStore) -> bool {
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(root)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.is_ok()
    }

    pub(crate) async fn build() -> Self {
        Self::with_register(Some(REGISTER)).await
    }

    pub(crate) async fn with_register(register: Option<&str>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOW);
        let store = Store::open(&dir.path().join("hub.sqlite")).unwrap();
        if let Some(text) = register {
            let register = Register::parse(Path::new("fleet.toml"), text.to_owned()).unwrap();
            store
                .apply(register, "test".into(), NOW - 12 * 86_400_000)
                .await
                .unwrap();
            fill(
                &Connection::open(dir.path().join("hub.sqlite")).unwrap(),
                dir.path(),
            );
        }
        let phc = password::hash(PASSWORD).unwrap();
        for (name, role) in [
            ("meja-2", Role::Operator),
            ("rsud", Role::Agency(vec!["rsud".parse().unwrap()])),
        ] {
            assert!(
                store
                    .add_user(name.into(), phc.clone(), role, NOW)
                    .await
                    .unwrap()
            );
        }
        let (certificate, key, root) = identity(dir.path());
        let (notices, news) = broadcast::channel(64);
        let (presence, changes) = broadcast::channel(64);
        let (ingest, ingest_status) = watch::channel(Status::default());
        let (missing, missing_told) = watch::channel(None);
        let stop = CancellationToken::new();
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let here = Mutex::new(
            ["rsud", "villa-yuliana"]
                .map(|id| came(id, true, NOW - 3_600_000))
                .to_vec(),
        );
        let door = Door {
            changes,
            connected: Box::new(move || here.lock().unwrap().clone()),
        };
        let (fleet, _) = Fleet::start(store.clone(), door, news, Arc::clone(&shared), stop.clone())
            .await
            .unwrap();
        let parts = Parts {
            store: store.clone(),
            fleet,
            media: Media::open(&dir.path().join("media")).unwrap(),
            clock: shared,
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            ingest: ingest_status,
            missing: missing_told,
            files: Told::default(),
            stop: stop.clone(),
        };
        let config = config::Web {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate,
            key,
        };
        let web = web::open(&config).unwrap().serve(parts).unwrap();
        Self {
            address: web.address,
            clock,
            store,
            notices,
            presence,
            ingest,
            missing,
            stop,
            root,
            dir,
        }
    }

    /// An agent comes or goes.
    pub(crate) fn presence(&self, id: &str, connected: bool) {
        let at = scc_common::clock::Clock::wall_ms(&*self.clock);
        self.presence.send(came(id, connected, at)).unwrap();
    }

    /// An agent tells how its devices are now.
    pub(crate) fn now(&self, id: &str, devices: Vec<DeviceState>) {
        let now = Now {
            stamp: scc_common::clock::Clock::stamp(&*self.clock),
            devices,
            link: LinkMode::Normal,
            backlog: 3,
            backlog_bytes: 4_096,
            oldest_ms: None,
            stills: Vec::new(),
            offset: None,
        };
        let notice = Notice::Now {
            agent: agent(id),
            now: Box::new(now),
            charge: Arc::default(),
        };
        self.notices.send(Arc::new(notice)).unwrap();
    }

    /// A health record is stored that its agent captured at `at_ms`.
    pub(crate) fn health(&self, id: &str, at_ms: i64) {
        let stamp = scc_common::clock::Clock::stamp(&*ManualClock::at(at_ms));
        let health = Health {
            version: "0.1.0".into(),
            boot: stamp.boot,
            uptime_s: 60,
            load1: 0.5,
            memory_total_kib: 2,
            memory_available_kib: 1,
            disk_total: 2,
            disk_free: 1,
            temperature_c: None,
            under_voltage: None,
            clock: stamp.quality,
            link: LinkMode::Normal,
            lanes: Vec::new(),
            devices: Vec::new(),
        };
        let record = CommittedRecord {
            id: 1_000_000,
            stream: Stream::Health,
            epoch: Epoch(9),
            seq: 1,
            received_ms: at_ms,
            dated: Some(Dated::of(&stamp, &Known::Nothing)),
            body: Some(RecordBody::new(stamp, None, Content::Health(Box::new(health))).into()),
            media: None,
        };
        let notice = Notice::Committed {
            agent: agent(id),
            records: vec![record],
            charges: Vec::new(),
        };
        self.notices.send(Arc::new(notice)).unwrap();
    }

    /// Ingest notes at `at_ms` that a box has told how far it has numbered.
    pub(crate) fn told(&self, id: &str, at_ms: i64) {
        let sql = "UPDATE lane SET told_ms = ?2 WHERE agent = ?1";
        assert_eq!(self.database().execute(sql, params![id, at_ms]), Ok(1));
    }

    /// The still of RSUD was taken by a clock that stood in 1970 and is corrected since; that of Villa Yuliana
    /// by one that nobody has confirmed or corrected.
    pub(crate) fn wrong_clocks(&self) {
        let sql = "UPDATE record SET quality = 'unconfirmed', boot = x'00', mono_ms = 60000,
                     wall_ms = coalesce(?2, wall_ms), corrected_ms = ?3 WHERE id = ?1";
        let rsud = params![RSUD_PICTURE, 60_000, NOW - 9_000];
        assert_eq!(self.database().execute(sql, rsud), Ok(1));
        let villa = params![VILLA_PICTURE, None::<i64>, None::<i64>];
        assert_eq!(self.database().execute(sql, villa), Ok(1));
    }

    /// The hub stops.
    pub(crate) fn fall_silent(&self) {
        self.stop.cancel();
    }

    /// Ingest reports that its database takes nothing.
    pub(crate) fn ingest_fails(&self) {
        self.hub_status(Status {
            database: Some(trouble("the disk of the database is full")),
            ..Status::default()
        });
    }

    /// The daily comparison has found something.
    pub(crate) fn records_are_missing(&self, why: &str) {
        self.missing.send_replace(Some(trouble(why)));
    }

    /// Ingest reports how it is.
    pub(crate) fn hub_status(&self, status: Status) {
        self.ingest.send_replace(status);
    }

    /// Where the certificate of the pages is.
    pub(crate) fn certificate(&self) -> std::path::PathBuf {
        self.dir.path().join("web.pem")
    }

    /// The database, for rows that ingest would write.
    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.dir.path().join("hub.sqlite")).unwrap()
    }
}

/// Something that has held the hub up for two minutes.
pub(crate) fn trouble(why: &str) -> Trouble {
    Trouble {
        why: why.into(),
        since_ms: NOW - 120_000,
        kind: TroubleKind::Other,
    }
}

fn came(id: &str, connected: bool, at_ms: i64) -> Presence {
    Presence {
        agent: agent(id),
        at_ms,
        connected,
        why: String::new(),
    }
}

fn identity(
    dir: &Path,
) -> (
    std::path::PathBuf,
    std::path::PathBuf,
    rustls::RootCertStore,
) {
    use std::os::unix::fs::OpenOptionsExt;
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let (cert_file, key_file) = (dir.join("web.pem"), dir.join("web.key"));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .mode(0o600)
        .truncate(true)
        .open(&key_file)
        .unwrap();
    std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes()).unwrap();
    let mut root = rustls::RootCertStore::empty();
    root.add(certificate.der().clone()).unwrap();
    (cert_file, key_file, root)
}

/// A 2 × 1 grey JPEG is enough to be a picture.
const JPEG: &[u8] = include_bytes!("grey.jpg");

/// Rows as ingest would have written them: RSUD runs with one camera down and one terminal read in
/// part, Villa Yuliana runs with a stale picture, Damkar was heard two hours ago, SMA 1 never.
fn fill(db: &Connection, dir: &Path) {
    let record = |agent: &str, stream: i64, seq: i64, device: Option<&str>, at: i64| {
        db.execute(
            "INSERT INTO record (agent, epoch, stream, seq, sum, size, readable, device, declared,
             wall_ms, received_ms, body) VALUES (?1, 1, ?2, ?3, x'00', 100, 1, ?4, 1, ?5, ?5, x'00')",
            params![agent, stream, seq, device, at],
        )
        .unwrap();
        db.last_insert_rowid()
    };
    let picture = |agent: &str, device: &str, at: i64| {
        let id = record(agent, 5, at, Some(device), at);
        let path = format!("agents/{agent}/{id}.jpg");
        let file = dir.join("media").join(&path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, JPEG).unwrap();
        db.execute(
            "INSERT INTO picture (record, agent, device, stream, captured_ms, width, height, cadence_s, media, size)
             VALUES (?1, ?2, ?3, 5, ?4, 640, 360, 30, ?5, 1)",
            params![id, agent, device, at, path],
        )
        .unwrap();
        id
    };
    assert_eq!(picture("rsud", "igd-depan", NOW - 9_000), RSUD_PICTURE);
    assert_eq!(
        picture("villa-yuliana", "halaman", NOW - 600_000),
        VILLA_PICTURE
    );
    picture("rsud", "apotek", NOW - 48 * 60_000);
    picture("damkar-lalabata", "ruang-jaga", NOW - 7_200_000);
    let state = |agent: &str, device: &str, kind: &str, state: &str, cause: Option<&str>| {
        db.execute(
            "INSERT INTO device_state (agent, device, changed_ms, kind, state, cause, last_good_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?3)",
            params![agent, device, NOW - 47 * 60_000, kind, state, cause],
        )
        .unwrap();
    };
    state("rsud", "igd-depan", "camera", "up", None);
    state("rsud", "apotek", "camera", "down", Some("offline"));
    state("rsud", "absensi-utama", "terminal", "up", None);
    state(
        "rsud",
        "absensi-igd",
        "terminal",
        "degraded",
        Some("incomplete"),
    );
    state("villa-yuliana", "halaman", "camera", "up", None);
    state("damkar-lalabata", "ruang-jaga", "camera", "up", None);
    let punch = |device: &str, user: u32, at_s: i64| {
        let id = record(
            "rsud",
            2,
            i64::from(user) + 1_000,
            Some(device),
            NOW - 7_200_000,
        );
        // seconds since 2000-01-01 of 2026-11-24 00:00 on the terminal's own clock
        let midnight = 848_793_600;
        db.execute(
            "INSERT INTO punch (agent, device, serial, user, local_s, state, verify, ordinal, day, way, raw, record, received_ms)
             VALUES ('rsud', ?1, ?1, ?2, ?3, 0, 1, 0, ?4, 'pull', x'00', ?5, ?6)",
            params![device, user.to_string(), midnight + at_s, DAY, id, NOW - 7_200_000],
        )
        .unwrap();
    };
    for i in 0..12 {
        punch("absensi-utama", 100 + i, 27_000 + i64::from(i) * 7);
    }
    for i in 0..3 {
        punch("absensi-igd", 200 + i, 26_000);
    }
    let read = |device: &str, n: u32, complete: bool| {
        db.execute(
            "INSERT INTO terminal_read (agent, device, serial, at_ms, counter_before, counter_after, records,
             complete, quarantined, drift_ms, layout, per_day) VALUES ('rsud', ?1, ?1, ?2, ?3, ?3, ?3, ?4, 0, ?6, '40', ?5)",
            params![device, NOW - 120_000, n, complete, format!("[[\"{DAY}\",{n}]]"), if complete { 500 } else { -360_000 }],
        )
        .unwrap();
    };
    read("absensi-utama", 12, true);
    read("absensi-igd", 5, false);
    // four snapshots told and not here yet, three lost to a damaged card, one that came twice
    db.execute("INSERT INTO lane (agent, epoch, stream, watermark, told_next, begun_ms) VALUES ('rsud', 9, 5, 10, 15, 0)", []).unwrap();
    db.execute(
        "INSERT INTO gap (agent, epoch, stream, first, last, reason, at_ms, received_ms)
         VALUES ('rsud', 9, 5, 4, 6, 'damaged', ?1, ?1)",
        [NOW - 19_000_000],
    )
    .unwrap();
    db.execute(
        "INSERT INTO duplicate (agent, stream, day, count) VALUES ('rsud', 2, ?1, 1)",
        [DAY],
    )
    .unwrap();
}
