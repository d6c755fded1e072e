//! What the database remembers of an agent, for the live state of a hub that starts.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{Cause, DeviceKind, DeviceState, Health, State};

use crate::store::{Store, StoreError};

/// What the database remembers of one agent when the hub starts.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// When anything last arrived from it.
    pub heard_ms: Option<WallMs>,
    /// The newest state of each device that has ever told one, with the time that it was told.
    pub devices: Vec<(DeviceState, WallMs)>,
    /// Devices that have delivered a picture or a punch at least once.
    pub proven: BTreeSet<DeviceId>,
    /// The newest health record and when it was captured.
    pub health: Option<(Health, WallMs)>,
}

impl Store {
    /// What is remembered of these agents.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn remembered(
        &self,
        agents: Vec<AgentId>,
    ) -> Result<BTreeMap<AgentId, Remembered>, StoreError> {
        self.read(move |db| {
            agents
                .into_iter()
                .map(|agent| Ok((agent.clone(), remembered(db, &agent)?)))
                .collect()
        })
        .await
    }
}

/// `named`: each device of an agent in a table whose index begins with both, found by one step of the
/// index per device. DISTINCT would read every row of the agent's history.
fn devices_in(table: &str) -> String {
    format!(
        "WITH RECURSIVE named (device) AS (
           SELECT min(device) FROM {table} WHERE agent = ?1
           UNION ALL
           SELECT (SELECT min(device) FROM {table} WHERE agent = ?1 AND device > named.device)
           FROM named WHERE named.device IS NOT NULL)"
    )
}

fn remembered(db: &Connection, agent: &AgentId) -> rusqlite::Result<Remembered> {
    let heard_ms = db
        .prepare_cached("SELECT max(received_ms) FROM record WHERE agent = ?1")?
        .query_row([agent.as_str()], |r| r.get(0))?;
    let health = db
        .prepare_cached("SELECT json, at_ms FROM health WHERE agent = ?1")?
        .query_row([agent.as_str()], |r| {
            Ok((r.get::<_, String>(0)?, r.get(1)?))
        })
        .optional()?
        .and_then(|(json, at)| Some((serde_json::from_str::<Health>(&json).ok()?, at)));
    let devices = devices_in("device_state");
    let mut query = db.prepare_cached(&format!(
        "{devices} SELECT s.device, kind, state, cause, detail, last_good_ms, changed_ms
         FROM named JOIN device_state s ON s.agent = ?1 AND s.device = named.device
           AND (changed_ms, record) = (
             SELECT changed_ms, record FROM device_state WHERE agent = ?1 AND device = named.device
             ORDER BY changed_ms DESC, record DESC LIMIT 1)"
    ))?;
    let mut rows = query.query([agent.as_str()])?;
    let mut devices = Vec::new();
    let mut proven = BTreeSet::new();
    while let Some(r) = rows.next()? {
        let Ok(device) = DeviceId::new(r.get::<_, String>(0)?) else {
            continue;
        };
        let camera = r.get::<_, String>(1)? == DeviceKind::Camera.name();
        let changed: WallMs = r.get(6)?;
        let state = DeviceState {
            device: device.clone(),
            kind: if camera {
                DeviceKind::Camera
            } else {
                DeviceKind::Terminal
            },
            state: State::from_name(&r.get::<_, String>(2)?).unwrap_or(State::Unknown),
            cause: r
                .get::<_, Option<String>>(3)?
                .as_deref()
                .map(Cause::from_name),
            since_ms: changed,
            last_good_ms: r.get(5)?,
            detail: r.get(4)?,
        };
        devices.push((state, changed));
    }
    for table in ["picture", "punch", "terminal_read"] {
        let sql = format!(
            "{} SELECT device FROM named WHERE device IS NOT NULL",
            devices_in(table)
        );
        let mut query = db.prepare_cached(&sql)?;
        let found = query.query_map([agent.as_str()], |r| r.get::<_, String>(0))?;
        for device in found {
            proven.extend(DeviceId::new(device?));
        }
    }
    Ok(Remembered {
        heard_ms,
        devices,
        proven,
        health,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_remembered_costs_a_step_per_device_and_not_a_walk_through_its_history() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("hub.sqlite")).unwrap();
        let agent = AgentId::new("rsud").unwrap();
        store
            .write(|tx| {
                tx.execute_batch(
                    "INSERT INTO record (id, agent, epoch, stream, seq, sum, size, readable, declared, received_ms, body)
                       VALUES (1, 'rsud', 7, 2, 1, x'', 0, 1, 1, 9, x'');
                     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
                     INSERT INTO punch SELECT 'rsud', 'loket-' || (i % 2), 'S', i, 0, 0, 1, 0, '2026-11-14', 'pull',
                       x'00', 1, 5 FROM n;
                     INSERT INTO device_state VALUES
                       ('rsud', 'igd', 1, 9, 'camera', 'down', NULL, NULL, NULL),
                       ('rsud', 'igd', 2, 3, 'camera', 'down', NULL, NULL, NULL),
                       ('rsud', 'igd', 2, 4, 'camera', 'up', NULL, NULL, NULL),
                       ('rsud', 'pintu', 1, 1, 'camera', 'down', NULL, NULL, NULL),
                       ('pkm', 'aula', 1, 1, 'camera', 'down', NULL, NULL, NULL);",
                )
            })
            .await
            .unwrap();
        let steps = store
            .read(|db| {
                let sql = format!("{} SELECT device FROM named", devices_in("punch"));
                let mut query = db.prepare(&sql)?;
                let found = query.query_map(["rsud"], |_| Ok(()))?.count();
                assert_eq!(found, 3, "two and the end");
                Ok(query.get_status(rusqlite::StatementStatus::VmStep))
            })
            .await
            .unwrap();
        assert!(steps < 1_000, "{steps} steps for 20,000 punches");
        let all = store.remembered(vec![agent.clone()]).await.unwrap();
        let found = &all[&agent];
        let proven: Vec<_> = found.proven.iter().map(DeviceId::as_str).collect();
        assert_eq!(proven, ["loket-0", "loket-1"]);
        let states: Vec<_> = found
            .devices
            .iter()
            .map(|(d, at)| (d.device.as_str(), d.state, *at))
            .collect();
        assert_eq!(states, [("igd", State::Up, 2), ("pintu", State::Down, 1)]);
        assert_eq!(found.heard_ms, Some(9));
    }
}
