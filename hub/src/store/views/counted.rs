//! A day by the agent's own count.
//!
//! Each tally says which numbers a lane gave in a period, and a period counts on the day on which it
//! began. Of each of these numbers the hub knows one of four things: it is stored; it is in a gap; it
//! lies above the watermark and is still to come; or it is *missing*: at or below the watermark, so
//! that the agent was told it may forget it, and nowhere. That must never be, whatever is killed; it
//! can only be if rows have left the database by another way than this program's.

use rusqlite::{Connection, params};
use scc_common::id::AgentId;

use super::count;
use super::receipt::{Day, Found, StreamReceipt, gap};

/// Numbers that one lane gave in one period.
struct Given {
    epoch: i64,
    stream: u8,
    first: i64,
    last: i64,
    watermark: i64,
}

/// What became of the day's records; none if the agent has told no count of it.
pub(in crate::store) fn day(
    db: &Connection,
    agent: &AgentId,
    day: &Day,
) -> rusqlite::Result<Option<Found>> {
    let mut query = db.prepare_cached(
        "SELECT t.epoch, t.stream, t.next - 1,
           coalesce((SELECT max(p.next) FROM tally p WHERE p.agent = t.agent AND p.epoch = t.epoch
                     AND p.stream = t.stream AND p.next < t.next), 1),
           coalesce((SELECT watermark FROM lane l WHERE l.agent = t.agent AND l.epoch = t.epoch
                     AND l.stream = t.stream), 0)
         FROM tally t WHERE t.agent = ?1 AND t.from_ms >= ?2 AND t.from_ms < ?3",
    )?;
    let given: Vec<Given> = query
        .query_map(params![agent.as_str(), day.from_ms, day.to_ms], |r| {
            Ok(Given {
                epoch: r.get(0)?,
                stream: r.get(1)?,
                last: r.get(2)?,
                first: r.get(3)?,
                watermark: r.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    if given.is_empty() {
        return Ok(None);
    }
    let mut found = Found::default();
    for part in &given {
        add(db, agent, part, &mut found)?;
    }
    // a gap over several periods is one
    found
        .gaps
        .sort_by_key(|g| (std::cmp::Reverse(g.at_ms), g.stream, g.reason.name()));
    found.gaps.dedup_by(|next, kept| {
        let same = (next.at_ms, next.stream, next.reason) == (kept.at_ms, kept.stream, kept.reason);
        kept.lost += if same { next.lost } else { 0 };
        same
    });
    Ok(Some(found))
}

fn add(db: &Connection, agent: &AgentId, part: &Given, found: &mut Found) -> rusqlite::Result<()> {
    let settled = part.last.min(part.watermark);
    let (below, above, [unreadable, corrected, undated]) = db
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE seq <= ?6), count(*) FILTER (WHERE seq > ?6), sum(readable = 0),
                    sum(corrected_ms IS NOT NULL), sum(quality IS 'unconfirmed' AND corrected_ms IS NULL)
             FROM record WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq BETWEEN ?4 AND ?5",
        )?
        .query_row(
            params![agent.as_str(), part.epoch, part.stream, part.first, part.last, settled],
            |r| Ok((count(r, 0)?, count(r, 1)?, [count(r, 2)?, count(r, 3)?, count(r, 4)?])),
        )?;
    let mut query = db.prepare_cached(
        "SELECT reason, at_ms, max(0, min(last, ?5) - max(first, ?4) + 1),
                max(0, min(last, ?6) - max(first, ?4) + 1)
         FROM gap WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND first <= ?5 AND last >= ?4",
    )?;
    let mut rows = query.query(params![
        agent.as_str(),
        part.epoch,
        part.stream,
        part.first,
        part.last,
        settled
    ])?;
    let (mut lost, mut lost_below) = (0, 0);
    while let Some(r) = rows.next()? {
        let here = count(r, 2)?;
        lost += here;
        lost_below += count(r, 3)?;
        let reason: String = r.get(0)?;
        found
            .gaps
            .extend(gap(part.stream, here, &reason, r.get(1)?));
    }
    let numbers = |first: i64, last: i64| u64::try_from(last - first + 1).unwrap_or(0);
    let line = StreamReceipt {
        stored: below + above,
        lost,
        missing: numbers(part.first, settled).saturating_sub(below + lost_below),
        queued: numbers(part.first.max(settled + 1), part.last)
            .saturating_sub(above + (lost - lost_below)),
        duplicates: 0,
    };
    let sum = found.per.entry(part.stream).or_default();
    *sum = [*sum, line].into_iter().sum();
    found.unreadable += unreadable;
    found.corrected += corrected;
    found.undated += undated;
    Ok(())
}
