//! Records that a program before this one could not read.

use bytes::Bytes;
use rusqlite::{Connection, params};
use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, Epoch};
use scc_common::stream::Stream;

use super::{LaneKey, RecordKey};
use crate::store::{Store, StoreError, number};

/// A stored record whose body could not be read so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its place in the ledger.
    pub id: i64,
    /// Its identity.
    pub key: RecordKey,
    /// Checksum of the whole body.
    pub sum: Checksum,
    /// When the hub received it.
    pub received_ms: WallMs,
    /// The body, or the part of it that is in the row.
    pub body: Option<Bytes>,
    /// Path of the file with the whole body, or with the rest of it.
    pub media: Option<String>,
}

impl Store {
    /// Unreadable records after the one with this id, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unreadable(&self, after: i64, limit: u32) -> Result<Vec<Unreadable>, StoreError> {
        self.read_for_ingest(move |c| select(c, after, limit)).await
    }
}

fn select(c: &Connection, after: i64, limit: u32) -> rusqlite::Result<Vec<Unreadable>> {
    let mut rows = c.prepare_cached(
        "SELECT id, agent, epoch, stream, seq, sum, received_ms, body, media FROM record
         WHERE readable = 0 AND id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = rows.query(params![after, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let agent: String = row.get(1)?;
        let epoch: i64 = row.get(2)?;
        // Rows of this program always have both; a stream of a later one is left to that.
        let (Ok(agent), Some(stream)) = (AgentId::new(agent), Stream::from_code(row.get(3)?))
        else {
            continue;
        };
        let body: Option<Vec<u8>> = row.get(7)?;
        found.push(Unreadable {
            id: row.get(0)?,
            key: RecordKey {
                lane: LaneKey {
                    agent,
                    epoch: Epoch(epoch.cast_unsigned()),
                    stream,
                },
                seq: number(row.get(4)?),
            },
            sum: Checksum(row.get(5)?),
            received_ms: row.get(6)?,
            body: body.map(Bytes::from),
            media: row.get(8)?,
        });
    }
    Ok(found)
}
