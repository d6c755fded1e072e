//! One record's row.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use scc_common::checksum::Checksum;
use scc_common::clock::{ClockQuality, Dated};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::RecordBody;

use super::lanes::key_params;
use super::{NewRecord, RecordKey};

/// Writes the rows of one transaction.
pub(super) struct Rows<'a> {
    c: &'a Connection,
    insert: CachedStatement<'a>,
    /// Whether the register knows the agent, or the agent's device.
    declared: HashMap<(AgentId, Option<DeviceId>), bool>,
}

pub(super) enum Insert {
    Stored(i64),
    Duplicate,
    /// The same record, stored before as unreadable; its row now says what it says.
    NowReadable(i64),
    Conflict,
}

/// The columns that come from what the record says.
struct Said<'a> {
    device: Option<&'a str>,
    boot: Option<&'a [u8]>,
    mono_ms: Option<i64>,
    wall_ms: Option<i64>,
    quality: Option<&'static str>,
}

impl<'a> Said<'a> {
    fn of(said: Option<&'a RecordBody>) -> Self {
        let stamp = said.map(|s| &s.stamp);
        Self {
            device: said.and_then(|s| s.device.as_ref()).map(AsRef::as_ref),
            boot: stamp.map(|s| s.boot.0.as_slice()),
            mono_ms: stamp.map(|s| i64::try_from(s.mono_ms).unwrap_or(i64::MAX)),
            wall_ms: stamp.map(|s| s.wall_ms),
            quality: stamp.map(|s| quality(s.quality)),
        }
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(c: &'a Connection) -> rusqlite::Result<Self> {
        // Not RETURNING, which goes through a table of its own for each row.
        let insert = c.prepare_cached(
            "INSERT INTO record (agent, epoch, stream, seq, sum, size, readable, device, declared,
                                 boot, mono_ms, wall_ms, quality, received_ms, body, media, corrected_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (agent, epoch, stream, seq) DO NOTHING",
        )?;
        Ok(Self {
            c,
            insert,
            declared: HashMap::new(),
        })
    }

    pub(super) fn insert(
        &mut self,
        new: &NewRecord,
        dated: Option<&Dated>,
    ) -> rusqlite::Result<Insert> {
        let device = new.said.as_ref().and_then(|said| said.device.as_ref());
        let declared = self.declared(&new.key.lane.agent, device)?;
        let corrected_ms = dated.and_then(|d| d.corrected_ms);
        let (agent, epoch, stream) = key_params(&new.key.lane);
        let said = Said::of(new.said.as_deref());
        let inserted = self.insert.execute(params![
            agent,
            epoch,
            stream,
            new.key.seq.cast_signed(),
            new.sum.0.as_slice(),
            i64::try_from(new.size).unwrap_or(i64::MAX),
            new.said.is_some(),
            said.device,
            declared,
            said.boot,
            said.mono_ms,
            said.wall_ms,
            said.quality,
            new.received_ms,
            new.body.row(),
            new.body.media(),
            corrected_ms,
        ])?;
        if inserted > 0 {
            Ok(Insert::Stored(self.c.last_insert_rowid()))
        } else {
            known(self.c, new, &said, corrected_ms)
        }
    }

    /// No other process changes the register within a transaction.
    fn declared(&mut self, agent: &AgentId, device: Option<&DeviceId>) -> rusqlite::Result<bool> {
        let key = (agent.clone(), device.cloned());
        if let Some(declared) = self.declared.get(&key) {
            return Ok(*declared);
        }
        let declared = match device {
            None => self
                .c
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM site WHERE id = ?1)")?
                .query_row([agent.as_str()], |row| row.get(0)),
            Some(device) => self
                .c
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM device WHERE site = ?1 AND id = ?2)")?
                .query_row([agent.as_str(), device.as_str()], |row| row.get(0)),
        }?;
        self.declared.insert(key, declared);
        Ok(declared)
    }
}

/// There is a row of this number already.
fn known(
    c: &Connection,
    new: &NewRecord,
    said: &Said<'_>,
    corrected_ms: Option<i64>,
) -> rusqlite::Result<Insert> {
    let (agent, epoch, stream) = key_params(&new.key.lane);
    let seq = new.key.seq.cast_signed();
    let (body, media) = (new.body.row(), new.body.media());
    let (id, sum, readable): (i64, Vec<u8>, bool) = c
        .prepare_cached(
            "SELECT id, sum, readable FROM record WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq = ?4",
        )?
        .query_row(params![agent, epoch, stream, seq], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    if sum != new.sum.0 {
        c.prepare_cached(
            "INSERT OR IGNORE INTO conflict (agent, epoch, stream, seq, sum, body, media, received_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            agent,
            epoch,
            stream,
            seq,
            new.sum.0.as_slice(),
            body,
            media,
            new.received_ms
        ])?;
        return Ok(Insert::Conflict);
    }
    if readable || new.said.is_none() {
        return Ok(Insert::Duplicate);
    }
    c.prepare_cached(
        "UPDATE record SET readable = 1, device = ?2, boot = ?3, mono_ms = ?4, wall_ms = ?5,
                quality = ?6, body = ?7, media = ?8, corrected_ms = ?9 WHERE id = ?1",
    )?
    .execute(params![
        id,
        said.device,
        said.boot,
        said.mono_ms,
        said.wall_ms,
        said.quality,
        body,
        media,
        corrected_ms
    ])?;
    Ok(Insert::NowReadable(id))
}

pub(super) fn stored(
    c: &Connection,
    key: &RecordKey,
) -> rusqlite::Result<Option<(Checksum, Option<String>)>> {
    let (agent, epoch, stream) = key_params(&key.lane);
    c.prepare_cached(
        "SELECT sum, media FROM record WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq = ?4",
    )?
    .query_row(
        params![agent, epoch, stream, key.seq.cast_signed()],
        |row| Ok((Checksum(row.get(0)?), row.get(1)?)),
    )
    .optional()
}

const fn quality(quality: ClockQuality) -> &'static str {
    match quality {
        ClockQuality::Unconfirmed => "unconfirmed",
        ClockQuality::Hub => "hub",
        ClockQuality::Ntp => "ntp",
    }
}
