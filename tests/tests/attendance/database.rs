//! What the hub's own store makes of what the source handed over: the set of punches in its
//! database must be the terminal's.

use std::sync::Arc;

use scc_common::checksum::Checksum;
use scc_common::id::{AgentId, Epoch};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use scc_hub::store::{LaneKey, NewRecord, Outcome, RecordKey, Store, StoredBody, Write};
use scc_tests::terminal::{Punched, Setup};
use tempfile::TempDir;

use super::site::{Shelf, Site, SystemClockKnown, terminal};

/// The serial number of a stand-in that is told no other.
pub(super) const SERIAL: &str = "CGKK223862906";

/// A hub's database, new and empty.
pub(super) struct Database {
    dir: TempDir,
    store: Store,
    next: u64,
}

/// One row of `punch`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) serial: String,
    pub(super) user: String,
    pub(super) local_s: i64,
    pub(super) state: u8,
    pub(super) verify: u8,
}

impl Database {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("hub.db")).unwrap();
        Self {
            dir,
            store,
            next: 1,
        }
    }

    /// Stores all that a shelf holds, as the records of this agent.
    pub(super) async fn take(&mut self, agent: &str, shelf: &Shelf) {
        let bodies = shelf.bodies.lock().unwrap().clone();
        for body in bodies {
            let lane = LaneKey {
                agent: AgentId::new(agent).unwrap(),
                epoch: Epoch(1),
                stream: Stream::Attendance,
            };
            let record = NewRecord {
                key: RecordKey {
                    lane,
                    seq: self.next,
                },
                sum: Checksum::of(&body),
                size: u64::try_from(body.len()).unwrap(),
                said: Some(RecordBody::decode(&body).unwrap().into()),
                body: StoredBody::Row(body.into()),
                received_ms: 1_800_000_000_000,
            };
            self.next += 1;
            let done = self
                .store
                .commit(vec![Arc::new(Write::Record(Box::new(record)))])
                .await
                .unwrap();
            assert!(matches!(done.outcomes[..], [Outcome::Stored { .. }]));
        }
    }

    /// All punches, in order.
    pub(super) fn punches(&self) -> Vec<Row> {
        let db = rusqlite::Connection::open(self.dir.path().join("hub.db")).unwrap();
        let mut query = db
            .prepare("SELECT serial, user, local_s, state, verify FROM punch")
            .unwrap();
        let rows = query.query_map([], |r| {
            Ok(Row {
                serial: r.get(0)?,
                user: r.get(1)?,
                local_s: r.get(2)?,
                state: r.get(3)?,
                verify: r.get(4)?,
            })
        });
        let mut rows: Vec<Row> = rows.unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    }
}

/// The rows that a terminal's log should become.
pub(super) fn truth(serial: &str, log: &[Punched]) -> Vec<Row> {
    let mut rows: Vec<Row> = log
        .iter()
        .map(|p| Row {
            serial: serial.to_owned(),
            user: p.user.to_string(),
            local_s: p.local_s,
            state: p.state,
            verify: p.verify,
        })
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn two_sites_whose_terminals_have_no_number_keep_their_punches_apart() {
    let mut database = Database::new();
    let mut all = Vec::new();
    // a blank number, and one that the factory left at zero
    for (agent, serial) in [("rsud", ""), ("disdukcapil", ""), ("psc", "0000000000")] {
        let terminal = terminal(Setup {
            serial: serial.into(),
            records: 40,
            ..Setup::default()
        })
        .await;
        let dir = TempDir::new().unwrap();
        let clock = SystemClockKnown::shared();
        let address = terminal.address();
        let site = Site::start_as(agent, address, &dir, 0, &clock, Shelf::default());
        site.until_complete(40).await;
        database.take(agent, &site.stopped().await).await;
        // the same seed: the same people, and mostly the same seconds, at each site
        all.extend(truth(&format!("device:{agent}/absensi"), &terminal.log()));
    }
    all.sort();
    assert_eq!(database.punches(), all);
}

/// Every log of up to three records of one person in one second, each with every event that may have
/// come before it, with a restart of the agent at every place between the records, and with the
/// cursor lost in the end: the database has what the terminal has.
#[tokio::test]
async fn records_of_one_second_that_differ_in_state_or_verify_all_arrive() {
    let kinds = [(0, 1), (1, 1), (1, 15)];
    let mut logs: Vec<Vec<Kind>> = vec![Vec::new()];
    let mut cases = Vec::new();
    for _ in 0..3 {
        logs = logs
            .iter()
            .flat_map(|log| kinds.map(|kind| [&log[..], &[kind]].concat()))
            .collect();
        for log in &logs {
            for live in [None, Some(0), Some(1), Some(2)] {
                for restart in 0..log.len() {
                    let live = live.map(|n: usize| kinds[n]);
                    cases.push(one_second(log.clone(), live, restart));
                }
            }
        }
    }
    // as many at a time as a small machine runs without a wait coming near its end
    let mut running = futures::StreamExt::buffer_unordered(futures::stream::iter(cases), 16);
    while let Some(()) = futures::StreamExt::next(&mut running).await {}
}

/// State and verify of a record.
type Kind = (u8, u8);

async fn one_second(log: Vec<Kind>, live: Option<Kind>, restart: usize) {
    let said = format!("log {log:?}, live {live:?}, restart before record {restart}");
    let terminal = terminal(Setup {
        records: 3,
        ..Setup::default()
    })
    .await;
    let last = terminal.log()[2].clone();
    let of = |(state, verify): Kind| Punched {
        user: last.user + 1,
        local_s: last.local_s,
        state,
        verify,
    };
    let records: Vec<Punched> = log.into_iter().map(of).collect();
    let dir = TempDir::new().unwrap();
    let (clock, shelf) = (SystemClockKnown::shared(), Shelf::default());
    let start = || Site::start_with(terminal.address(), &dir, 0, &clock, shelf.clone());

    let site = start();
    site.until_complete(3).await;
    if let Some(live) = live {
        site.until("listening", |_| {
            terminal.heard().iter().any(|(code, _)| *code == 500)
        })
        .await;
        terminal.announce(of(live));
        site.until("the event", |s| s.shelf.punches().len() == 4)
            .await;
    }
    site.stopped().await;
    for part in [&records[..restart], &records[restart..]] {
        terminal.remember(part.to_vec());
        let site = start();
        site.until_complete(terminal.log().len()).await;
        site.stopped().await;
    }
    let told = shelf.bodies.lock().unwrap().len();
    let mut database = Database::new();
    database.take("rsud", &shelf).await;
    let wanted = truth(SERIAL, &terminal.log());
    assert_eq!(database.punches(), wanted, "{said}");

    std::fs::remove_file(dir.path().join("terminals/absensi.seen")).unwrap();
    let site = start();
    site.until("all again", |s| s.shelf.bodies.lock().unwrap().len() > told)
        .await;
    site.until_complete(terminal.log().len()).await;
    let mut database = Database::new();
    database.take("rsud", &site.stopped().await).await;
    assert_eq!(database.punches(), wanted, "{said}, and the cursor lost");
}
