//! The daily comparison: what the agents say they took on a day, against what is here.
//!
//! A day is compared once it is over and the agent has told its count, again while some of it is still
//! to come or missing, when a later tally adds to it, and once a day whatever was found before. A restored hub asks its agents for what
//! it no longer has; what they bring settles the difference.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use scc_common::clock::WallMs;
use scc_common::id::AgentId;

use super::views::{Day, StreamReceipt, counted};
use super::{Store, StoreError};

/// A day on which the hub has fewer records of an agent than it once acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Whose records.
    pub agent: AgentId,
    /// `yyyy-mm-dd`.
    pub day: String,
    /// Records that are missing.
    pub missing: u64,
    /// When that was found first.
    pub since_ms: WallMs,
}

impl Store {
    /// Compares each of these days of every agent where that is due; all of them, also those that were
    /// settled, if `all`.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read or written; what was compared before stays.
    pub async fn compare(
        &self,
        days: Vec<Day>,
        now_ms: WallMs,
        all: bool,
    ) -> Result<(), StoreError> {
        let days = Arc::new(days);
        let of_agents = Arc::clone(&days);
        let due = self.read(move |db| due(db, &of_agents, all)).await?;
        // one by one, so that no page waits behind all of it
        for (agent, at) in due {
            let Some(day) = days.get(at).cloned() else {
                continue;
            };
            let name = day.name.clone();
            let of = agent.clone();
            let found = self.read(move |db| counted::day(db, &of, &day)).await?;
            let Some(found) = found else { continue };
            let line: StreamReceipt = found.per.into_values().sum();
            self.write(move |tx| note(tx, &agent, &name, &line, now_ms))
                .await?;
        }
        Ok(())
    }

    /// Differences of days since `from_day` (`yyyy-mm-dd`), oldest first.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn differences(&self, from_day: String) -> Result<Vec<Difference>, StoreError> {
        self.read(move |db| {
            let mut query = db.prepare_cached(
                "SELECT agent, day, missing, since_ms FROM compared WHERE missing > 0 AND day >= ?1 AND since_ms NOT NULL
                 ORDER BY day, agent",
            )?;
            let rows = query.query_map([from_day], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get::<_, i64>(2)?, r.get(3)?))
            })?;
            let mut found = Vec::new();
            for row in rows {
                let (agent, day, missing, since_ms): (String, _, _, _) = row?;
                if let Ok(agent) = AgentId::new(agent) {
                    found.push(Difference {
                        agent,
                        day,
                        missing: super::number(missing),
                        since_ms,
                    });
                }
            }
            Ok(found)
        })
        .await
    }
}

/// Agents and positions in `days` whose comparison is due.
fn due(db: &Connection, days: &[Day], all: bool) -> rusqlite::Result<Vec<(AgentId, usize)>> {
    let agents: Vec<String> = db
        .prepare_cached("SELECT DISTINCT agent FROM lane")?
        .query_map([], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let mut newest = db.prepare_cached(
        "SELECT max(received_ms) FROM tally WHERE agent = ?1 AND from_ms >= ?2 AND from_ms < ?3",
    )?;
    let mut settled = db.prepare_cached(
        "SELECT at_ms FROM compared WHERE agent = ?1 AND day = ?2 AND queued = 0 AND missing = 0",
    )?;
    let mut due = Vec::new();
    for agent in agents {
        let Ok(id) = AgentId::new(agent.clone()) else {
            continue;
        };
        for (at, day) in days.iter().enumerate() {
            let told: Option<WallMs> =
                newest.query_row(params![agent, day.from_ms, day.to_ms], |r| r.get(0))?;
            let Some(told) = told else { continue };
            let compared: Option<WallMs> = settled
                .query_row(params![agent, day.name], |r| r.get(0))
                .optional()?;
            if all || compared.is_none_or(|at_ms| at_ms <= told) {
                due.push((id.clone(), at));
            }
        }
    }
    Ok(due)
}

fn note(
    tx: &Connection,
    agent: &AgentId,
    day: &str,
    line: &StreamReceipt,
    now_ms: WallMs,
) -> rusqlite::Result<()> {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    tx.prepare_cached(
        "INSERT INTO compared (agent, day, at_ms, taken, stored, lost, queued, missing, since_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, iif(?8 > 0, ?3, NULL))
         ON CONFLICT (agent, day) DO UPDATE SET at_ms = excluded.at_ms, taken = excluded.taken,
           stored = excluded.stored, lost = excluded.lost, queued = excluded.queued, missing = excluded.missing,
           since_ms = iif(excluded.missing > 0, coalesce(compared.since_ms, excluded.since_ms), NULL)",
    )?
    .execute(params![
        agent.as_str(),
        day,
        now_ms,
        signed(line.taken()),
        signed(line.stored),
        signed(line.lost),
        signed(line.queued),
        signed(line.missing),
    ])?;
    Ok(())
}
