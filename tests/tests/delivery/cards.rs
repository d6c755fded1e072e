//! Cards that are sent twice, go back in time, are cloned, lose their index or return late: real buffers
//! and uplinks against a real hub. No record is lost, whatever its number collides with, and what
//! collided is shown as a conflict.

use std::collections::BTreeSet;
use std::path::PathBuf;

use scc_agent::buffer::inspect;
use scc_common::clock::SharedClock;
use scc_common::id::Epoch;

use super::stage::*;
use scc_agent::buffer::Buffer;
use scc_agent::uplink::Handle;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, SystemClock};
use scc_common::id::DeviceId;
use scc_common::record::Content;
use scc_common::record::Event;
use scc_common::record::RecordBody;
use scc_common::record::Snapshot;
use scc_hub::media::Media;
use scc_hub::store::Store;
use scc_hub::store::views::Day;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// (epoch, stream code, seq, checksum).
type Taken = BTreeSet<(i64, u8, i64, [u8; 16])>;

/// A hub, a site's certificate, and as many cards with it as a test needs.
struct Desk {
    site: Site,
    _hub: Hub,
    /// What any card's buffer has accepted.
    taken: Taken,
    bodies: u32,
}

/// A state directory and the agent over it.
struct Card {
    state: PathBuf,
    buffer: Buffer,
    link: Option<Handle>,
    stop: CancellationToken,
}

impl Card {
    fn open(state: PathBuf) -> Self {
        std::fs::create_dir_all(&state).unwrap();
        let clock: SharedClock = SystemClock::shared();
        let buffer = Buffer::open(&state, limits(), clock).unwrap();
        Self {
            state,
            buffer,
            link: None,
            stop: CancellationToken::new(),
        }
    }

    /// Starts its uplink.
    fn connect(&mut self, desk: &Desk) {
        let (dialer, lines) = (desk.site.dialer.clone(), &desk.site.lines);
        self.link = Some(connect(self.buffer.clone(), dialer, lines, &self.stop));
    }

    async fn backlog(&self) -> u64 {
        let lanes = self.buffer.stat().await.unwrap();
        lanes.iter().map(|lane| lane.records).sum()
    }

    async fn drained(&self) {
        let drained = async {
            while self.backlog().await > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, drained).await;
        assert!(
            waited.is_ok(),
            "{:?}, link {:?}",
            self.buffer.stat().await,
            self.link.as_ref().map(|link| link.status.borrow().clone())
        );
    }

    async fn epoch(&self) -> Epoch {
        self.buffer.epoch().await.unwrap()
    }

    /// Waits until the agent has seen that its numbers are not its own.
    async fn begins_anew(&self, old: Epoch) {
        let begun = async {
            while self.epoch().await == old {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, begun)
            .await
            .expect("it goes on numbering in the old epoch");
    }

    /// Takes the card out of a box that was switched off.
    async fn pull(self) -> PathBuf {
        self.stop.cancel();
        self.buffer.close().await;
        self.state
    }
}

/// The way of a card's content to another card.
pub(crate) fn copied(from: &Path, to: PathBuf) -> PathBuf {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copied(&path, to);
        } else {
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&path, &to).unwrap();
        }
    }
    to
}

impl Desk {
    async fn set() -> Self {
        let (site, hub) = Site::start().await;
        // the site's own agent is not one of the cards
        site.stop.cancel();
        Self {
            site,
            _hub: hub,
            taken: Taken::new(),
            bodies: 0,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.site.dir.path().join("cards").join(name)
    }

    /// So many events and one picture for each five of them, no two alike.
    async fn take(&mut self, card: &Card, events: u32) {
        for n in 0..events {
            self.bodies += 1;
            let version = self.bodies.to_string();
            self.put(card, Content::Event(Event::AgentStarted { version }))
                .await;
            if n % 5 == 0 {
                let jpeg = noise(usize::try_from(self.bodies).unwrap(), 45_000);
                let picture = Snapshot {
                    width: 640,
                    height: 360,
                    cadence_s: 30,
                    jpeg,
                };
                self.put(card, Content::Snapshot(picture)).await;
            }
        }
    }

    async fn put(&mut self, card: &Card, content: Content) {
        let device = DeviceId::new("loket").unwrap();
        let body = RecordBody::new(SystemClock::new().stamp(), Some(device), content);
        let at = card.buffer.append(&body).await.unwrap();
        let seq = i64::try_from(at.seq).unwrap();
        let sum = Checksum::of(&body.encode()).0;
        self.taken
            .insert((at.epoch.0.cast_signed(), at.stream.code(), seq, sum));
    }

    fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.site.dir.path().join("hub.sqlite")).unwrap()
    }

    fn count(&self, query: &str) -> i64 {
        self.sql().query_row(query, [], |row| row.get(0)).unwrap()
    }

    fn conflicts(&self) -> i64 {
        self.count("SELECT count(*) FROM conflict")
    }

    /// The hub has what the cards took and nothing else, each once: as records, and as conflicts what
    /// collided with them.
    fn has_all(&self) {
        let sql = self.sql();
        let mut rows = sql
            .prepare(
                "SELECT epoch, stream, seq, sum FROM record
                 UNION ALL SELECT epoch, stream, seq, sum FROM conflict",
            )
            .unwrap();
        let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
        let rows: Vec<(i64, u8, i64, [u8; 16])> = rows
            .query_map([], row)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let stored: Taken = rows.iter().copied().collect();
        assert_eq!(stored.len(), rows.len(), "a record stands twice");
        let missing: Vec<_> = self.taken.difference(&stored).collect();
        assert!(missing.is_empty(), "lost: {missing:?}");
        assert_eq!(stored, self.taken);
        let media = Media::open(&self.site.dir.path().join("media")).unwrap();
        let mut files = sql
            .prepare(
                "SELECT media FROM record WHERE media IS NOT NULL
                 UNION ALL SELECT media FROM conflict WHERE media IS NOT NULL",
            )
            .unwrap();
        let files = files.query_map([], |r| r.get::<_, String>(0)).unwrap();
        for file in files {
            let file = file.unwrap();
            assert!(media.is_there(&file), "{file}");
        }
    }

    /// What the site's page says of conflicts today.
    async fn conflicts_shown(&self) -> u64 {
        let store = Store::look(&self.site.dir.path().join("hub.sqlite")).unwrap();
        let receipt = store
            .receipt(agent(), Day::running("2026-01-01".into(), 0))
            .await;
        receipt.unwrap().conflicts
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_card_sent_twice_changes_no_count() {
    let mut desk = Desk::set().await;
    let mut card = Card::open(desk.at("one"));
    desk.take(&card, 20).await;
    let state = card.pull().await;
    let copy = copied(&state, desk.at("copy"));
    for state in [state, copy] {
        card = Card::open(state);
        assert!(card.backlog().await > 0);
        card.connect(&desk);
        card.drained().await;
        card.pull().await;
        desk.has_all();
    }
    assert_eq!(desk.conflicts(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_numbers_of_a_new_epoch_are_new_data() {
    let mut desk = Desk::set().await;
    for name in ["old", "new"] {
        let mut card = Card::open(desk.at(name));
        desk.take(&card, 15).await;
        card.connect(&desk);
        card.drained().await;
        card.pull().await;
    }
    desk.has_all();
    assert_eq!(desk.conflicts(), 0);
    let numbers = "SELECT count(DISTINCT seq) FROM record WHERE stream = 1";
    let events = "SELECT count(*) FROM record WHERE stream = 1";
    assert_eq!(desk.count(events), 2 * desk.count(numbers));
}

/// A backup of the card was put back while the hub has more. What the box took before it could know is
/// a conflict, what it takes afterwards is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_went_back_in_time_loses_nothing_and_begins_a_new_epoch() {
    let mut desk = Desk::set().await;
    let mut card = Card::open(desk.at("now"));
    desk.take(&card, 5).await;
    card.connect(&desk);
    card.drained().await;
    let state = card.pull().await;
    let older = copied(&state, desk.at("older"));
    let mut card = Card::open(state);
    desk.take(&card, 20).await;
    card.connect(&desk);
    card.drained().await;
    card.pull().await;

    let mut card = Card::open(older);
    let old = card.epoch().await;
    desk.take(&card, 10).await;
    card.connect(&desk);
    card.begins_anew(old).await;
    desk.take(&card, 10).await;
    card.drained().await;
    card.pull().await;
    desk.has_all();
    // ten events and two pictures had taken numbers that were given before
    assert_eq!(desk.conflicts(), 12);
    assert_eq!(desk.conflicts_shown().await, 12);
    let old = old.0.cast_signed();
    let of_conflicts = format!("SELECT count(*) FROM conflict WHERE epoch <> {old}");
    assert_eq!(desk.count(&of_conflicts), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clones_of_a_card_that_run_in_turn_lose_nothing() {
    let mut desk = Desk::set().await;
    let card = Card::open(desk.at("a"));
    desk.take(&card, 5).await;
    let a = card.pull().await;
    let b = copied(&a, desk.at("b"));
    for _ in 0..3 {
        for state in [&a, &b] {
            let mut card = Card::open(state.clone());
            desk.take(&card, 10).await;
            card.connect(&desk);
            desk.take(&card, 5).await;
            card.drained().await;
            card.pull().await;
            desk.site.proxy.cut();
        }
    }
    desk.has_all();
    assert!(desk.conflicts() >= 10, "{} conflicts", desk.conflicts());
    assert!(desk.conflicts_shown().await >= 10);
    let epochs = desk.count("SELECT count(DISTINCT epoch) FROM record");
    assert!(epochs >= 2, "neither has begun a new epoch");
}

/// Each pushes the other out, again and again; both get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clones_of_a_card_that_run_at_the_same_time_lose_nothing() {
    let mut desk = Desk::set().await;
    let card = Card::open(desk.at("a"));
    desk.take(&card, 5).await;
    let a = card.pull().await;
    let b = copied(&a, desk.at("b"));
    let mut cards = [Card::open(a), Card::open(b)];
    for card in &cards {
        desk.take(card, 10).await;
    }
    for card in &mut cards {
        card.connect(&desk);
    }
    for _ in 0..4 {
        for card in &cards {
            desk.take(card, 5).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for card in &cards {
        card.drained().await;
    }
    for card in cards {
        card.pull().await;
    }
    desk.has_all();
    assert!(desk.conflicts() >= 10, "{} conflicts", desk.conflicts());
    let epochs = desk.count("SELECT count(DISTINCT epoch) FROM record");
    assert!(epochs >= 2, "neither has begun a new epoch");
}

/// The index is gone, and with it what was acknowledged and which epoch was the current one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_lost_its_index_and_epoch_loses_and_doubles_nothing() {
    let mut desk = Desk::set().await;
    let mut card = Card::open(desk.at("one"));
    desk.take(&card, 15).await;
    card.connect(&desk);
    card.drained().await;
    card.stop.cancel();
    desk.take(&card, 10).await;
    let state = card.pull().await;
    let index = inspect::root(&state).join("index");
    std::fs::remove_dir_all(index).unwrap();

    let mut card = Card::open(state);
    assert!(card.buffer.damage().is_some());
    desk.take(&card, 10).await;
    card.connect(&desk);
    card.drained().await;
    card.pull().await;
    desk.has_all();
    assert_eq!(desk.conflicts(), 0);
    let epochs = desk.count("SELECT count(DISTINCT epoch) FROM record");
    assert_eq!(epochs, 2);
}

/// The hub has closed the old epoch with a gap. What comes after all takes the gap's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_card_that_returns_after_a_new_epoch_fills_its_gap() {
    let mut desk = Desk::set().await;
    let mut card = Card::open(desk.at("old"));
    desk.take(&card, 10).await;
    card.connect(&desk);
    card.drained().await;
    // over a link that takes ten seconds for a picture the hub hears of four more, and gets none of them
    let state = card.pull().await;
    let mut card = Card::open(state);
    desk.take(&card, 20).await;
    let old = card.epoch().await.0.cast_signed();
    desk.site.proxy.weather(|w| w.rate = Some(4_500));
    card.connect(&desk);
    let told = async {
        let next = format!("SELECT max(told_next) FROM lane WHERE epoch = {old} AND stream = 5");
        while desk.count(&next) < 7 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("the hub is not told");
    let state = card.pull().await;
    desk.site.proxy.weather(|w| w.rate = None);
    desk.site.proxy.cut();

    let mut new = Card::open(desk.at("new"));
    desk.take(&new, 10).await;
    new.connect(&desk);
    new.drained().await;
    new.pull().await;
    let gaps = format!("SELECT count(*) FROM gap WHERE epoch = {old}");
    assert!(desk.count(&gaps) > 0, "the old epoch was not closed");

    let mut card = Card::open(state);
    assert!(card.backlog().await > 0);
    card.connect(&desk);
    card.drained().await;
    card.pull().await;
    desk.has_all();
    assert_eq!(desk.count(&gaps), 0, "stored beats gap");
    assert_eq!(desk.conflicts(), 0);
}
