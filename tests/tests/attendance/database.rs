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
                said: Some(RecordBody::decode(&body).unwrap()),
                body: StoredBody::Row(body.into()),
                received_ms: 1_800_000_000_000,
            };
            self.next += 1;
            let done = self
                .store
                .commit(vec![Arc::new(Write::Record(Box::new(record)))])
                .await
                .unwrap();
            assert!(matches!(done.outcomes[..], [Outcome::Stored(_)]));
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
