//! What pages, API and the fleet's live state read. Reading only; every query is bounded by an index
//! and by a day or a device, so that a page costs the same after ten years as on the first day.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{Cause, DeviceKind, DeviceState, Health, State};
use scc_common::stream::Stream;
use scc_common::wire::GapReason;

use super::{Store, StoreError};

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

/// A stored picture or piece of video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its record.
    pub record: i64,
    /// The camera.
    pub device: DeviceId,
    /// When it was captured.
    pub captured_ms: WallMs,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Seconds between two stills.
    pub cadence_s: Option<u32>,
}

/// The day of one terminal: what the machine says it has, and what is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalDay {
    /// The terminal.
    pub device: DeviceId,
    /// Punches of the day that are here.
    pub stored: u64,
    /// Different people among them.
    pub people: u64,
    /// The newest read of the machine's whole log, if there has been one on or after that day.
    pub read: Option<Read>,
}

/// One read of a terminal's whole log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// When.
    pub at_ms: WallMs,
    /// Punches of the day in the machine's own log.
    pub machine: u64,
    /// Whether it reached the last record.
    pub complete: bool,
    /// Terminal's clock − box's clock, milliseconds.
    pub drift_ms: Option<i64>,
}

/// A punch, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PunchRow {
    /// The terminal.
    pub device: DeviceId,
    /// The person's number on the terminal.
    pub user: String,
    /// The terminal's own clock, seconds since 2000-01-01 00:00 in its zone.
    pub local_s: i64,
    /// In/out key as sent.
    pub state: u8,
    /// How the person was verified, as sent.
    pub verify: u8,
    /// When it arrived at the hub.
    pub received_ms: WallMs,
}

/// The delivery receipt of one stream: taken = stored + queued + lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamReceipt {
    /// Captured since the day began and in the database.
    pub stored: u64,
    /// Told by the agent and not here yet.
    pub queued: u64,
    /// Lost to gaps since the day began.
    pub lost: u64,
    /// Arrived more than once since the day began, and stored once.
    pub duplicates: u64,
}

impl StreamReceipt {
    /// What the site has taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.stored + self.queued + self.lost
    }
}

/// A gap, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapRow {
    /// Its stream.
    pub stream: Stream,
    /// Records lost.
    pub lost: u64,
    /// Why.
    pub reason: GapReason,
    /// When.
    pub at_ms: WallMs,
}

/// The delivery receipt of one site and day.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// Each stream that has anything to show, highest priority first.
    pub streams: Vec<(Stream, StreamReceipt)>,
    /// Gaps of the day, newest first, at most twenty.
    pub gaps: Vec<GapRow>,
    /// Records of the day that could not be read.
    pub unreadable: u64,
    /// Records of the day under whose number something else is stored; both are kept.
    pub conflicts: u64,
}

/// Where a record's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaAt {
    /// Whose.
    pub agent: AgentId,
    /// Its stream.
    pub stream: Stream,
    /// Path in the object store.
    pub path: String,
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

    /// The newest still of each camera of a site that has one.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn newest_pictures(
        &self,
        agent: AgentId,
        cameras: Vec<DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Picture>, StoreError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT record, captured_ms, width, height, cadence_s FROM picture
                 WHERE agent = ?1 AND device = ?2 AND stream = ?3 ORDER BY captured_ms DESC LIMIT 1",
            )?;
            let mut found = BTreeMap::new();
            for device in cameras {
                let picture = query
                    .query_row(params![agent.as_str(), device.as_str(), Stream::Snapshot.code()], |r| {
                        Ok(Picture {
                            record: r.get(0)?,
                            device: device.clone(),
                            captured_ms: r.get(1)?,
                            width: r.get(2)?,
                            height: r.get(3)?,
                            cadence_s: r.get(4)?,
                        })
                    })
                    .optional()?;
                found.extend(picture.map(|p| (device, p)));
            }
            Ok(found)
        })
        .await
    }

    /// The day (`yyyy-mm-dd`, beginning at `from_ms`) of each of these terminals.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn terminal_days(
        &self,
        terminals: Vec<(AgentId, DeviceId)>,
        day: String,
        from_ms: WallMs,
    ) -> Result<BTreeMap<(AgentId, DeviceId), TerminalDay>, StoreError> {
        self.read(move |db| {
            terminals
                .into_iter()
                .map(|(agent, device)| {
                    let found = terminal_day(db, &agent, &device, &day, from_ms)?;
                    Ok(((agent, device), found))
                })
                .collect()
        })
        .await
    }

    /// Punches of a site on a day, newest first.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn punches(
        &self,
        agent: AgentId,
        terminals: Vec<DeviceId>,
        day: String,
        limit: u32,
    ) -> Result<Vec<PunchRow>, StoreError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT user, local_s, state, verify, received_ms FROM punch
                 WHERE agent = ?1 AND device = ?2 AND day = ?3 ORDER BY local_s DESC LIMIT ?4",
            )?;
            let mut rows = Vec::new();
            for device in terminals {
                let found =
                    query.query_map(params![agent.as_str(), device.as_str(), day, limit], |r| {
                        Ok(PunchRow {
                            device: device.clone(),
                            user: r.get(0)?,
                            local_s: r.get(1)?,
                            state: r.get(2)?,
                            verify: r.get(3)?,
                            received_ms: r.get(4)?,
                        })
                    })?;
                for row in found {
                    rows.push(row?);
                }
            }
            rows.sort_by_key(|p| std::cmp::Reverse(p.local_s));
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(rows)
        })
        .await
    }

    /// The delivery receipt of a site for the day that begins at `from_ms`.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn receipt(
        &self,
        agent: AgentId,
        day: String,
        from_ms: WallMs,
    ) -> Result<Receipt, StoreError> {
        self.read(move |db| receipt(db, &agent, &day, from_ms))
            .await
    }

    /// Where the bytes of a picture or a piece of video are; none if the record has no file.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn media_at(&self, record: i64) -> Result<Option<MediaAt>, StoreError> {
        self.read(move |db| {
            let row = db
                .query_row(
                    "SELECT agent, stream, media FROM picture WHERE record = ?1",
                    [record],
                    |r| Ok((r.get::<_, String>(0)?, r.get::<_, u8>(1)?, r.get(2)?)),
                )
                .optional()?;
            Ok(row.and_then(|(agent, stream, path)| {
                Some(MediaAt {
                    agent: AgentId::new(agent).ok()?,
                    stream: Stream::from_code(stream)?,
                    path,
                })
            }))
        })
        .await
    }

    /// That the database answers.
    ///
    /// # Errors
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read(|db| db.query_row("SELECT 1", [], |_| Ok(())))
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
           AND changed_ms = (SELECT max(changed_ms) FROM device_state
                             WHERE agent = ?1 AND device = named.device)"
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

fn terminal_day(
    db: &Connection,
    agent: &AgentId,
    device: &DeviceId,
    day: &str,
    from_ms: WallMs,
) -> rusqlite::Result<TerminalDay> {
    let (stored, people) = db
        .prepare_cached("SELECT count(*), count(DISTINCT user) FROM punch WHERE agent = ?1 AND device = ?2 AND day = ?3")?
        .query_row(params![agent.as_str(), device.as_str(), day], |r| Ok((count(r, 0)?, count(r, 1)?)))?;
    let read = db
        .prepare_cached(
            "SELECT at_ms, complete, drift_ms, per_day FROM terminal_read
             WHERE agent = ?1 AND device = ?2 AND at_ms >= ?3 ORDER BY at_ms DESC LIMIT 1",
        )?
        .query_row(params![agent.as_str(), device.as_str(), from_ms], |r| {
            let days: Vec<(String, u64)> =
                serde_json::from_str(&r.get::<_, String>(3)?).unwrap_or_default();
            Ok(Read {
                at_ms: r.get(0)?,
                complete: r.get(1)?,
                drift_ms: r.get(2)?,
                machine: days.iter().find(|(d, _)| d == day).map_or(0, |(_, n)| *n),
            })
        })
        .optional()?;
    Ok(TerminalDay {
        device: device.clone(),
        stored,
        people,
        read,
    })
}

fn receipt(
    db: &Connection,
    agent: &AgentId,
    day: &str,
    from_ms: WallMs,
) -> rusqlite::Result<Receipt> {
    let mut per: BTreeMap<u8, StreamReceipt> = BTreeMap::new();
    let mut unreadable = 0;
    // what was captured today has arrived today: the index on arrival bounds the scan
    let mut query = db.prepare_cached(
        "SELECT stream, count(*), sum(readable = 0) FROM record
         WHERE agent = ?1 AND received_ms >= ?2 AND coalesce(wall_ms, received_ms) >= ?2 GROUP BY stream",
    )?;
    let mut rows = query.query(params![agent.as_str(), from_ms])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().stored = count(r, 1)?;
        unreadable += count(r, 2)?;
    }
    let mut query = db.prepare_cached(
        "SELECT stream, max(0, told_next - 1 - watermark
           - (SELECT count(*) FROM record r WHERE r.agent = lane.agent AND r.epoch = lane.epoch
              AND r.stream = lane.stream AND r.seq > lane.watermark AND r.seq < lane.told_next))
         FROM lane WHERE agent = ?1 AND closed = 0 AND told_next - 1 > watermark",
    )?;
    let mut rows = query.query([agent.as_str()])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().queued += count(r, 1)?;
    }
    let mut gaps = Vec::new();
    let mut query = db.prepare_cached(
        "SELECT stream, reason, at_ms, last - first + 1
           - (SELECT count(*) FROM record r WHERE r.agent = gap.agent AND r.epoch = gap.epoch
              AND r.stream = gap.stream AND r.seq BETWEEN gap.first AND gap.last)
         FROM gap WHERE agent = ?1 AND at_ms >= ?2 ORDER BY at_ms DESC",
    )?;
    let mut rows = query.query(params![agent.as_str(), from_ms])?;
    while let Some(r) = rows.next()? {
        let (code, lost) = (r.get(0)?, count(r, 3)?);
        per.entry(code).or_default().lost += lost;
        if let Some(stream) = Stream::from_code(code).filter(|_| lost > 0 && gaps.len() < 20) {
            let reason = GapReason::from_name(&r.get::<_, String>(1)?);
            gaps.push(GapRow {
                stream,
                lost,
                reason,
                at_ms: r.get(2)?,
            });
        }
    }
    let mut query =
        db.prepare_cached("SELECT stream, count FROM duplicate WHERE agent = ?1 AND day = ?2")?;
    let mut rows = query.query(params![agent.as_str(), day])?;
    while let Some(r) = rows.next()? {
        per.entry(r.get(0)?).or_default().duplicates = count(r, 1)?;
    }
    let conflicts = db
        .prepare_cached("SELECT count(*) FROM conflict WHERE agent = ?1 AND received_ms >= ?2")?
        .query_row(params![agent.as_str(), from_ms], |r| count(r, 0))?;
    let streams = Stream::ALL
        .into_iter()
        .filter_map(|s| per.get(&s.code()).map(|receipt| (s, *receipt)))
        .collect();
    Ok(Receipt {
        streams,
        gaps,
        unreadable,
        conflicts,
    })
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, Option<i64>>(at)
        .map(|n| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
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
                       ('rsud', 'igd', 1, 'camera', 'down', NULL, NULL, NULL),
                       ('rsud', 'igd', 2, 'camera', 'up', NULL, NULL, NULL),
                       ('rsud', 'pintu', 1, 'camera', 'down', NULL, NULL, NULL),
                       ('pkm', 'aula', 1, 'camera', 'down', NULL, NULL, NULL);",
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
