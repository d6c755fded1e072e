//! Which media files the ledger refers to.
//!
//! A path has its record's identity in it, so it is looked up by the keys that are there; no index has to
//! hold the paths of ten years.

use rusqlite::{Connection, params};

use super::LaneKey;
use super::lanes::key_params;
use crate::media::Media;
use crate::store::{Store, StoreError};

impl Store {
    /// For each of these paths whether it is a record's and nothing refers to it: no record, no conflict, no
    /// picture. False for a file that this program did not write.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn unreferenced(&self, paths: Vec<String>) -> Result<Vec<bool>, StoreError> {
        // not on ingest's own readers: nobody waits for the answer
        self.read(move |c| paths.iter().map(|path| unreferenced(c, path)).collect())
            .await
    }
}

fn unreferenced(c: &Connection, path: &str) -> rusqlite::Result<bool> {
    let Some((agent, stream, epoch, seq)) = Media::whose(path) else {
        return Ok(false);
    };
    let lane = LaneKey {
        agent,
        epoch,
        stream,
    };
    let (agent, epoch, stream) = key_params(&lane);
    c.prepare_cached(
        "SELECT NOT EXISTS (
             SELECT 1 FROM record LEFT JOIN picture ON picture.record = record.id
             WHERE record.agent = ?1 AND record.epoch = ?2 AND record.stream = ?3 AND record.seq = ?4
               AND (record.media = ?5 OR picture.media = ?5))
           AND NOT EXISTS (
             SELECT 1 FROM conflict
             WHERE agent = ?1 AND epoch = ?2 AND stream = ?3 AND seq = ?4 AND media = ?5)",
    )?
    .query_row(params![agent, epoch, stream, seq.cast_signed(), path], |r| {
        r.get(0)
    })
}
