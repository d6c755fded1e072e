//! The card of a dead box on both of its ways to the hub: through the replacement box, and by an
//! operator's `scc-hub import`; in both orders, with the same ledger at the end.

use std::path::PathBuf;

use scc_agent::buffer::{export, import, inspect, owner};
use scc_common::clock::SharedClock;
use scc_common::register::Register;
use scc_hub::ingest::import as at_hub;
use scc_hub::store::ImportCounts;

use super::*;

/// (epoch, stream code, seq) → checksum.
type Truth = BTreeMap<(i64, u8, i64), [u8; 16]>;

const REGISTER: &str = r#"
[fleet]
name = "Kabupaten"
timezone = "Asia/Makassar"
installed_cameras = 1
[[agency]]
id = "dinas"
name = "Dinas"
[[site]]
id = "rsud"
agencies = ["dinas"]
name = "RSUD"
kind = "clinic"
cameras = [{ id = "loket" }]
terminals = [{ id = "absensi" }]
"#;

/// Records that the hub had before the box died.
const DELIVERED: u64 = 10;

/// Records that it had not.
const WAITING: u64 = 20 + 3 + 2;

/// A box that died with records that were not delivered, its card exported, and the replacement box that
/// has records of its own and has not been connected yet.
struct Scene {
    site: Site,
    address: SocketAddr,
    file: PathBuf,
    truth: Truth,
    clock: SharedClock,
}

impl Scene {
    async fn set() -> Self {
        let (mut site, hub) = Site::start().await;
        let clock: SharedClock = SystemClock::shared();
        let at = |name: &str| site.dir.path().join(name);
        std::fs::write(at("fleet.toml"), REGISTER).unwrap();
        let (fleet, file, new) = (at("fleet.toml"), at("rsud.sccx"), at("new"));
        let store = Store::open(&at("hub.sqlite")).unwrap();
        let register = Register::load(&fleet).unwrap();
        store.apply(register, "test".into(), 0).await.unwrap();
        drop(store);
        for _ in 0..DELIVERED {
            site.punch().await;
        }
        site.delivered().await;
        let address = hub.address;
        drop(hub);
        ended(address).await;
        for _ in 0..20 {
            site.punch().await;
        }
        for _ in 0..3 {
            site.still(45_000).await;
        }
        for _ in 0..2 {
            site.segment(700_000).await;
        }
        let mut truth = Truth::new();
        let old = site.buffer.epoch().await.unwrap();
        site.tell(old, &mut truth);
        site.stop.cancel();
        site.buffer.close().await;
        let root = inspect::root(&site.dir.path().join("state"));
        owner::note(&root, &agent()).unwrap();
        let done = export::export(&root, None, &file, &*clock).unwrap();
        assert_eq!(done.end.records, DELIVERED + WAITING);

        site.written.clear();
        site.buffer = Buffer::open(&new, limits(), clock.clone()).unwrap();
        for _ in 0..4 {
            site.punch().await;
        }
        let new = site.buffer.epoch().await.unwrap();
        site.tell(new, &mut truth);
        Self {
            site,
            address,
            file,
            truth,
            clock,
        }
    }

    /// The technician's way: import on the replacement box, start it, wait until it has delivered all.
    async fn through_the_box(&mut self) {
        self.site.buffer.close().await;
        let new = self.site.dir.path().join("new");
        let import = || import::import(&new, limits(), &self.clock, &agent(), &self.file);
        let done = import().unwrap();
        assert_eq!(done.stored, DELIVERED + WAITING);
        assert_eq!(import().unwrap().stored, 0);
        self.site.buffer = Buffer::open(&new, limits(), self.clock.clone()).unwrap();
        self.start_the_box().await;
    }

    async fn start_the_box(&mut self) {
        let hub = restarted(self.site.dir.path(), self.address).await;
        let (dir, port) = (self.site.dir.path(), self.site.proxy.address().port());
        self.site.stop = CancellationToken::new();
        let buffer = self.site.buffer.clone();
        self.site.link = connect(dir, buffer, port, &self.site.stop, SystemClock::shared());
        let drained = async {
            while self.site.backlog().await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, drained)
            .await
            .expect("the replacement box does not deliver");
        self.site.stop.cancel();
        drop(hub);
        ended(self.address).await;
    }

    /// The operator's way.
    async fn at_the_hub(&self) -> ImportCounts {
        let at = |name: &str| self.site.dir.path().join(name);
        let store = Store::open(&at("hub.sqlite")).unwrap();
        let media = Media::open(&at("media")).unwrap();
        let who = "terminal (budi)".to_owned();
        let done = at_hub::import(&store, &media, &*self.clock, who, &self.file).await;
        let done = done.unwrap();
        assert_eq!(done.agent, agent());
        done.counts
    }

    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.site.dir.path().join("hub.sqlite")).unwrap()
    }

    fn count(&self, query: &str) -> i64 {
        self.sql().query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// The ledger has what the two boxes took, each once, each picture with its file, and nothing else.
    async fn complete(&self) {
        let sql = self.sql();
        let mut rows = sql
            .prepare("SELECT epoch, stream, seq, sum FROM record")
            .unwrap();
        let row = |r: &rusqlite::Row<'_>| Ok(((r.get(0)?, r.get(1)?, r.get(2)?), r.get(3)?));
        let stored: Vec<((i64, u8, i64), [u8; 16])> = rows
            .query_map([], row)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(stored.len(), self.truth.len());
        assert_eq!(stored.into_iter().collect::<Truth>(), self.truth);
        for nought in ["gap", "conflict", "duplicate"] {
            assert_eq!(self.count(&format!("SELECT count(*) FROM {nought}")), 0);
        }
        let open = "SELECT count(*) FROM lane WHERE watermark <> told_next - 1";
        assert_eq!(self.count(open), 0, "a lane has a hole");
        let media = Media::open(&self.site.dir.path().join("media")).unwrap();
        let mut files = sql
            .prepare("SELECT media FROM record WHERE media IS NOT NULL")
            .unwrap();
        let files: Vec<String> = files
            .query_map([], |r| r.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(files.len(), 5);
        assert!(files.iter().all(|file| media.is_there(file)));
    }
}

impl Site {
    /// Adds what was written since the last time to the truth.
    fn tell(&self, epoch: scc_common::id::Epoch, truth: &mut Truth) {
        let of_epoch = self.written.iter();
        truth.extend(
            of_epoch.map(|(&(stream, seq), &sum)| ((epoch.0.cast_signed(), stream, seq), sum)),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pulled_card_arrives_through_the_replacement_box_and_an_import_afterwards_adds_nothing() {
    let mut scene = Scene::set().await;
    scene.through_the_box().await;
    scene.complete().await;
    let counts = scene.at_the_hub().await;
    assert_eq!((counts.stored, counts.known), (0, DELIVERED + WAITING));
    assert_eq!((counts.conflicts, counts.lost), (0, 0));
    scene.complete().await;
    let marked = "SELECT count(*) FROM record WHERE imported IS NOT NULL";
    assert_eq!(scene.count(marked), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_an_operator_imported_is_marked_audited_and_not_sent_again_by_the_box() {
    let mut scene = Scene::set().await;
    let counts = scene.at_the_hub().await;
    assert_eq!((counts.stored, counts.known), (WAITING, DELIVERED));
    let again = scene.at_the_hub().await;
    assert_eq!((again.stored, again.known), (0, DELIVERED + WAITING));
    let marked = "SELECT count(*) FROM record WHERE imported = 1";
    assert_eq!(scene.count(marked), i64::try_from(WAITING).unwrap());
    let audited: Vec<(String, String)> = scene
        .sql()
        .prepare("SELECT who, what FROM audit WHERE action = 'import' ORDER BY id")
        .unwrap()
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(audited.len(), 2);
    assert!(audited.iter().all(|(who, _)| who == "terminal (budi)"));
    let said = format!("{WAITING} stored, {DELIVERED} known, 0 conflicts, 0 lost");
    assert!(audited[0].1.ends_with(&said), "{audited:?}");

    // a file that is gone comes back, and nothing else changes
    let one = "SELECT media FROM record WHERE media IS NOT NULL ORDER BY id LIMIT 1";
    let gone: String = scene.sql().query_row(one, [], |r| r.get(0)).unwrap();
    let gone = scene.site.dir.path().join("media").join(gone);
    std::fs::remove_file(&gone).unwrap();
    let again = scene.at_the_hub().await;
    assert_eq!((again.stored, again.known), (0, DELIVERED + WAITING));
    assert!(gone.exists());

    scene.through_the_box().await;
    scene.complete().await;
    assert_eq!(scene.count(marked), i64::try_from(WAITING).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_ended_half_way_is_completed_by_repeating_it() {
    let mut scene = Scene::set().await;
    let at = |name: &str| scene.site.dir.path().join(name);
    // the folder of the stills is a file: the media disk fails at the first of them
    let blocked = at("media/agents/rsud/snapshot");
    std::fs::create_dir_all(blocked.parent().unwrap()).unwrap();
    std::fs::write(&blocked, "").unwrap();
    let store = Store::open(&at("hub.sqlite")).unwrap();
    let media = Media::open(&at("media")).unwrap();
    let import =
        async || at_hub::import(&store, &media, &*scene.clock, "x".into(), &scene.file).await;
    let failed = import().await.unwrap_err();
    assert!(matches!(failed, at_hub::ImportError::Media(_)), "{failed}");
    assert_eq!(
        scene.count("SELECT count(*) FROM import WHERE ended_ms IS NULL"),
        1
    );
    std::fs::remove_file(&blocked).unwrap();
    let counts = import().await.unwrap().counts;
    assert_eq!(counts.stored + counts.known, DELIVERED + WAITING);
    let marked = "SELECT count(*) FROM record WHERE imported IS NOT NULL";
    assert_eq!(scene.count(marked), i64::try_from(WAITING).unwrap());
    scene.through_the_box().await;
    scene.complete().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_an_agent_that_is_not_in_the_register_or_was_cut_stores_nothing() {
    let mut scene = Scene::set().await;
    let before = scene.count("SELECT count(*) FROM record");
    let at = |name: &str| scene.site.dir.path().join(name);
    let store = Store::open(&at("hub.sqlite")).unwrap();
    let media = Media::open(&at("media")).unwrap();
    let bytes = std::fs::read(&scene.file).unwrap();
    let cut = at("cut");
    std::fs::write(&cut, &bytes[..bytes.len() - 10]).unwrap();
    let import =
        async |file: &Path| at_hub::import(&store, &media, &*scene.clock, "x".into(), file).await;
    let refused = import(&cut).await.unwrap_err();
    assert!(matches!(refused, at_hub::ImportError::File(_)), "{refused}");
    std::fs::write(at("fleet.toml"), REGISTER.replace("\"rsud\"", "\"lain\"")).unwrap();
    let register = Register::load(&at("fleet.toml")).unwrap();
    store.apply(register, "test".into(), 0).await.unwrap();
    let refused = import(&scene.file).await.unwrap_err();
    let unknown = matches!(refused, at_hub::ImportError::Unknown(_));
    assert!(unknown, "{refused}");
    assert_eq!(scene.count("SELECT count(*) FROM record"), before);
    assert_eq!(scene.count("SELECT count(*) FROM import"), 0);
    // and what it would have brought is still to be had
    scene.through_the_box().await;
    scene.complete().await;
}
