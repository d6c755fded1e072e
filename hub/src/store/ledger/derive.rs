//! What is read out of a record when it is stored, so that pages need not open bodies.
//!
//! Times are the best that is known ([`Dated`]): corrected where the box's clock was not confirmed and its
//! boot is measured. One that lies after the arrival all the same comes from a clock that runs ahead; it
//! counts as the time of arrival here, so that no such record stays "the newest" for years. The record
//! itself keeps what it said.

use jiff::civil::{Date, date};
use jiff::{SignedDuration, civil::DateTime};
use rusqlite::{Connection, params};
use scc_common::clock::{Dated, WallMs};
use scc_common::record::{
    Content, DeviceState, Event, Health, PunchBatch, ReadProof, RecordBody, Tally, Way,
};

use super::{MAX_SEQ, NewRecord, StoredBody};

/// When what a record says was so: never after it arrived.
pub(super) fn happened_ms(new: &NewRecord, dated: &Dated) -> WallMs {
    dated.best_ms().min(new.received_ms)
}

/// Writes the derived rows of the record that was stored under `id`, but for its health, of which only the
/// newest of a transaction is written ([`health_row`]).
pub(super) fn rows(
    c: &Connection,
    id: i64,
    new: &NewRecord,
    said: &RecordBody,
    dated: &Dated,
) -> rusqlite::Result<()> {
    let at_ms = happened_ms(new, dated);
    match &said.content {
        Content::Event(Event::DeviceState(state)) => device_state(c, id, new, state, dated),
        Content::Event(Event::Tally(told)) => tally(c, new, told),
        Content::Event(_) | Content::Health(_) => Ok(()),
        Content::Punches(batch) => punches(c, id, new, said, batch, at_ms),
        Content::Snapshot(s) => picture(
            c,
            id,
            new,
            said,
            at_ms,
            &Picture {
                width: s.width,
                height: s.height,
                cadence_s: Some(s.cadence_s),
                duration_ms: None,
                codec: None,
            },
        ),
        Content::Segment(s) => picture(
            c,
            id,
            new,
            said,
            at_ms,
            &Picture {
                width: s.width,
                height: s.height,
                cadence_s: None,
                duration_ms: Some(s.duration_ms),
                codec: Some(&s.codec),
            },
        ),
    }
}

/// Takes back what [`rows`] wrote for the record `id` under a time that is no longer the best known. A
/// picture has one row whatever its time, and a punch has its terminal's.
pub(super) fn undo(
    c: &Connection,
    id: i64,
    new: &NewRecord,
    said: &RecordBody,
    dated: &Dated,
) -> rusqlite::Result<()> {
    let agent = new.key.lane.agent.as_str();
    let at_ms = happened_ms(new, dated);
    match &said.content {
        Content::Event(Event::DeviceState(state)) => {
            c.prepare_cached(
                "DELETE FROM device_state
                 WHERE agent = ?1 AND device = ?2 AND changed_ms = ?3
                   AND (record = ?4 OR (record = 0 AND kind = ?5 AND state = ?6 AND cause IS ?7))",
            )?
            .execute(params![
                agent,
                state.device.as_str(),
                changed_ms(new, state, dated),
                id,
                state.kind.name(),
                state.state.name(),
                state.cause.map(|cause| cause.name()),
            ])?;
        }
        Content::Punches(batch) if batch.read.is_some() => {
            let device = said.device.as_ref().map_or("", |d| d.as_str());
            c.prepare_cached(
                "DELETE FROM terminal_read WHERE agent = ?1 AND device = ?2 AND at_ms = ?3",
            )?
            .execute(params![agent, device, at_ms])?;
        }
        Content::Event(_)
        | Content::Health(_)
        | Content::Punches(_)
        | Content::Snapshot(_)
        | Content::Segment(_) => {}
    }
    Ok(())
}

/// The health that is kept beside the ledger, if it is this record's, is of another time than was known.
pub(super) fn move_health(
    c: &Connection,
    new: &NewRecord,
    was: &Dated,
    dated: &Dated,
) -> rusqlite::Result<()> {
    c.prepare_cached(
        "UPDATE health SET at_ms = ?4 WHERE agent = ?1 AND at_ms = ?2 AND received_ms = ?3",
    )?
    .execute(params![
        new.key.lane.agent.as_str(),
        happened_ms(new, was),
        new.received_ms,
        happened_ms(new, dated),
    ])?;
    Ok(())
}

/// When a state began: read off the box's clock at about the moment of its record.
fn changed_ms(new: &NewRecord, state: &DeviceState, dated: &Dated) -> WallMs {
    dated.moved(state.since_ms).min(new.received_ms)
}

struct Picture<'a> {
    width: u16,
    height: u16,
    cadence_s: Option<u32>,
    duration_ms: Option<u32>,
    codec: Option<&'a str>,
}

fn picture(
    c: &Connection,
    id: i64,
    new: &NewRecord,
    said: &RecordBody,
    at_ms: WallMs,
    picture: &Picture<'_>,
) -> rusqlite::Result<()> {
    let StoredBody::Split {
        media, media_size, ..
    } = &new.body
    else {
        return Ok(());
    };
    c.prepare_cached(
        "INSERT OR REPLACE INTO picture (record, agent, device, stream, captured_ms, width, height,
                                         cadence_s, duration_ms, codec, media, size)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        id,
        new.key.lane.agent.as_str(),
        said.device.as_ref().map_or("", |d| d.as_str()),
        new.key.lane.stream.code(),
        at_ms,
        picture.width,
        picture.height,
        picture.cadence_s,
        picture.duration_ms,
        picture.codec,
        media,
        i64::try_from(*media_size).unwrap_or(i64::MAX),
    ])?;
    Ok(())
}

fn punches(
    c: &Connection,
    id: i64,
    new: &NewRecord,
    said: &RecordBody,
    batch: &PunchBatch,
    at_ms: WallMs,
) -> rusqlite::Result<()> {
    let agent = new.key.lane.agent.as_str();
    let device = said.device.as_ref().map_or("", |d| d.as_str());
    let way = match batch.way {
        Way::Pull => "pull",
        Way::Live => "live",
    };
    // Each site has its own rows: a box that tells of another's terminal moves nothing, and a terminal
    // that has moved is counted in full where it is read now.
    // The terminal's log is the truth: it replaces a live event under the same identity, never the
    // other way round. A live event is always the first of its second (ordinal 0).
    let mut row = c.prepare_cached(
        "INSERT INTO punch (agent, device, serial, user, local_s, state, verify, ordinal, day, way,
                            raw, record, received_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
         ON CONFLICT (agent, serial, user, local_s, ordinal) DO UPDATE SET
           device = excluded.device, state = excluded.state,
           verify = excluded.verify, way = excluded.way, raw = excluded.raw, record = excluded.record
         WHERE punch.way = 'live' AND excluded.way = 'pull'",
    )?;
    for punch in &batch.punches {
        row.execute(params![
            agent,
            device,
            batch.serial,
            punch.user,
            punch.local_s,
            punch.state,
            punch.verify,
            punch.ordinal,
            local_day(punch.local_s),
            way,
            punch.raw,
            id,
            new.received_ms,
        ])?;
    }
    batch.read.as_ref().map_or(Ok(()), |read| {
        terminal_read(c, agent, device, batch, read, at_ms)
    })
}

fn terminal_read(
    c: &Connection,
    agent: &str,
    device: &str,
    batch: &PunchBatch,
    read: &ReadProof,
    at_ms: WallMs,
) -> rusqlite::Result<()> {
    let per_day = serde_json::to_string(&read.per_day).unwrap_or_else(|_| "[]".into());
    c.prepare_cached(
        "INSERT OR REPLACE INTO terminal_read (agent, device, serial, at_ms, counter_before,
           counter_after, records, complete, quarantined, drift_ms, layout, per_day)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        agent,
        device,
        batch.serial,
        at_ms,
        read.counter_before,
        read.counter_after,
        read.records,
        read.complete,
        read.quarantined,
        batch.drift_ms,
        read.layout,
        per_day,
    ])?;
    c.prepare_cached(
        "DELETE FROM terminal_read WHERE agent = ?1 AND device = ?2
           AND at_ms < (SELECT max(at_ms) FROM terminal_read WHERE agent = ?1 AND device = ?2)
           AND at_ms IS NOT (SELECT max(at_ms) FROM terminal_read
                             WHERE agent = ?1 AND device = ?2 AND complete = 1)",
    )?
    .execute(params![agent, device])?;
    Ok(())
}

fn device_state(
    c: &Connection,
    id: i64,
    new: &NewRecord,
    state: &DeviceState,
    dated: &Dated,
) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT OR REPLACE INTO device_state
           (agent, device, changed_ms, record, kind, state, cause, detail, last_good_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        new.key.lane.agent.as_str(),
        state.device.as_str(),
        changed_ms(new, state, dated),
        id,
        state.kind.name(),
        state.state.name(),
        state.cause.map(|cause| cause.name()),
        state.detail,
        state.last_good_ms.map(|ms| dated.moved(ms)),
    ])?;
    Ok(())
}

fn tally(c: &Connection, new: &NewRecord, told: &Tally) -> rusqlite::Result<()> {
    // The same number told again, by an agent that was killed before it could note that it had told it
    // or by a copy of its card, says nothing new.
    let mut row = c.prepare_cached(
        "INSERT OR IGNORE INTO tally (agent, epoch, stream, next, from_ms, received_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for lane in told.lanes.iter().filter(|lane| lane.next <= MAX_SEQ + 1) {
        row.execute(params![
            new.key.lane.agent.as_str(),
            lane.epoch.0.cast_signed(),
            lane.stream.code(),
            lane.next.cast_signed(),
            told.from_ms.min(new.received_ms),
            new.received_ms,
        ])?;
    }
    Ok(())
}

/// What is kept of an agent's health beside the ledger, if none newer is.
pub(super) fn health_row(
    c: &Connection,
    new: &NewRecord,
    health: &Health,
    at_ms: WallMs,
) -> rusqlite::Result<()> {
    let json = serde_json::to_string(health).unwrap_or_else(|_| "{}".into());
    c.prepare_cached(
        "INSERT INTO health (agent, at_ms, received_ms, json) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent) DO UPDATE SET
           at_ms = excluded.at_ms, received_ms = excluded.received_ms, json = excluded.json
         WHERE excluded.at_ms >= health.at_ms",
    )?
    .execute(params![
        new.key.lane.agent.as_str(),
        at_ms,
        new.received_ms,
        json
    ])?;
    Ok(())
}

/// `yyyy-mm-dd` of a terminal's own clock; the first day of its calendar for a time that no
/// calendar has.
fn local_day(local_s: i64) -> String {
    const BEGIN: Date = date(2000, 1, 1);
    DateTime::from_parts(BEGIN, jiff::civil::Time::midnight())
        .checked_add(SignedDuration::from_secs(local_s))
        .map_or(BEGIN, DateTime::date)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::local_day;

    #[test]
    fn the_day_of_a_punch_is_the_terminals_own() {
        assert_eq!(local_day(0), "2000-01-01");
        assert_eq!(local_day(86_399), "2000-01-01");
        assert_eq!(local_day(86_400), "2000-01-02");
        // 60 days: January 31, February 29 (a leap year).
        assert_eq!(local_day(60 * 86_400), "2000-03-01");
        assert_eq!(local_day(-1), "1999-12-31");
        assert_eq!(local_day(i64::MAX), "2000-01-01");
    }
}
