//! What operators have imported: a row of each run, and its end in the audit.

use rusqlite::params;
use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::AgentId;

use super::people::audit;
use super::{Store, StoreError};

/// Where imported records come from.
#[derive(Debug, Clone)]
pub struct ImportSource {
    /// Who imports.
    pub who: String,
    /// Whose records.
    pub agent: AgentId,
    /// The file, as it was named.
    pub file: String,
    /// Checksum of everything in it.
    pub sum: Checksum,
    /// When it was exported, by that machine's clock.
    pub made_ms: WallMs,
}

/// What became of a file's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Stored now.
    pub stored: u64,
    /// Stored before.
    pub known: u64,
    /// Something else is stored under their identity; both are kept.
    pub conflicts: u64,
    /// Numbers that the card had given and could not give back, and that the hub was not known to have.
    pub lost: u64,
}

impl Store {
    /// Notes that an import begins; its number, which its records are marked with.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn begin_import(
        &self,
        source: ImportSource,
        now_ms: WallMs,
    ) -> Result<i64, StoreError> {
        self.write(move |tx| {
            tx.query_row(
                "INSERT INTO import (at_ms, who, agent, file, sum, made_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 RETURNING id",
                params![
                    now_ms,
                    source.who,
                    source.agent.as_str(),
                    source.file,
                    source.sum.0.as_slice(),
                    source.made_ms
                ],
                |row| row.get(0),
            )
        })
        .await
    }

    /// Notes how an import ended, in its row and in the audit.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses.
    pub async fn end_import(
        &self,
        import: i64,
        counts: ImportCounts,
        now_ms: WallMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            let [stored, known, conflicts, lost] =
                [counts.stored, counts.known, counts.conflicts, counts.lost]
                    .map(u64::cast_signed);
            let (who, agent, file): (String, String, String) = tx.query_row(
                "UPDATE import SET ended_ms = ?2, stored = ?3, known = ?4, conflicts = ?5, lost = ?6
                 WHERE id = ?1 RETURNING who, agent, file",
                params![import, now_ms, stored, known, conflicts, lost],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let what = format!(
                "{agent} from {file}: {stored} stored, {known} known, {conflicts} conflicts, {lost} lost"
            );
            audit(tx, now_ms, &who, "import", &what)
        })
        .await
    }
}
