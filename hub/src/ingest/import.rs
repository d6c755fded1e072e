//! Bringing in a card's records from a file ([`scc_common::export`]), the way that ingest goes: the same
//! reading of bodies, media durable before its row, the ledger's key, its rule for conflicts, its gaps.
//!
//! Promises: the file is read to its end before anything of it is stored; a record that is stored is
//! marked with its import; repeated, after a kill or for no reason, it changes no count but those of
//! imports and of the audit.
//!
//! Whoever calls holds the hub's [lock](crate::lock): nothing else writes the ledger meanwhile.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use scc_common::clock::Clock;
use scc_common::export::{self, End, ExportError, Item, Reader};
use scc_common::header::Header;
use scc_common::id::AgentId;
use scc_common::wire::GapReason;

use super::committer::in_any_form;
use super::intake::is_stored;
use super::prepare::prepare;
use crate::media::{Media, MediaError};
use crate::store::{
    ImportCounts, ImportSource, LaneKey, Outcome, RecordKey, Store, StoreError, Write,
};

/// Records in one transaction, and bytes of their bodies in memory.
const BATCH: (usize, usize) = (500, 4 << 20);

/// Why an import did not come to its end. What it has stored is whole; repeating it stores the rest.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be used; nothing was stored.
    #[error(transparent)]
    File(#[from] ExportError),
    /// The register does not have the agent; nothing was stored.
    #[error("the register has no site `{0}`")]
    Unknown(AgentId),
    /// The database refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture or video cannot be written.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Whose records.
    pub agent: AgentId,
    /// What became of them.
    pub counts: ImportCounts,
}

/// Imports a file for `who`. The only task of its process: it reads the file where it stands.
///
/// # Errors
/// [`ImportError`].
pub async fn import(
    store: &Store,
    media: &Media,
    clock: &dyn Clock,
    who: String,
    file: &Path,
) -> Result<Imported, ImportError> {
    let mut source = File::open(file).map_err(ExportError::from)?;
    let (begin, end) = export::verify(BufReader::new(&source))?;
    let agent = begin.agent;
    // a wrong id, given to the export by hand, could not be taken back
    let declared = store.declared().await?;
    if !declared.is_some_and(|d| d.register.sites.iter().any(|site| site.id == agent)) {
        return Err(ImportError::Unknown(agent));
    }
    let source_of = ImportSource {
        who,
        agent: agent.clone(),
        file: file.display().to_string(),
        sum: end.sum,
        made_ms: begin.made_ms,
    };
    let import = store.begin_import(source_of, clock.wall_ms()).await?;
    let mut run = Run {
        store,
        media,
        clock,
        agent,
        import,
        counts: ImportCounts::default(),
        batch: Vec::new(),
        bytes: 0,
    };
    source.rewind().map_err(ExportError::from)?;
    let (_, mut reader) = Reader::open(BufReader::new(&source))?;
    while let Item::Record(header, body) = reader.step()? {
        run.record(&header, body.into()).await?;
    }
    run.gaps(end);
    run.commit().await?;
    let counts = run.counts;
    store.end_import(import, counts, clock.wall_ms()).await?;
    Ok(Imported {
        agent: run.agent,
        counts,
    })
}

struct Run<'a> {
    store: &'a Store,
    media: &'a Media,
    clock: &'a dyn Clock,
    agent: AgentId,
    import: i64,
    counts: ImportCounts,
    batch: Vec<Arc<Write>>,
    bytes: usize,
}

impl Run<'_> {
    async fn record(&mut self, header: &Header, body: Bytes) -> Result<(), ImportError> {
        let lane = LaneKey {
            agent: self.agent.clone(),
            epoch: header.epoch,
            stream: header.stream,
        };
        let key = RecordKey {
            lane,
            seq: header.seq,
        };
        if is_stored(self.store, self.media, &key, header.sum).await {
            self.counts.known += 1;
            return Ok(());
        }
        let size = body.len();
        let ready = prepare(key, header.sum, body, self.clock.wall_ms());
        if let Some((path, bytes)) = ready.file {
            // nothing sweeps while the hub's lock is ours
            let _held = self.media.put(&path, bytes).await?;
        }
        let import = self.import;
        let new = Box::new(ready.new);
        self.batch.push(Arc::new(Write::Imported { new, import }));
        self.bytes += size;
        if self.batch.len() >= BATCH.0 || self.bytes >= BATCH.1 {
            self.commit().await?;
        }
        Ok(())
    }

    /// What the card could not give back, after all that it could.
    fn gaps(&mut self, end: End) {
        for lane in end.lanes {
            let lost = lane.gaps.iter();
            let lost = lost.filter(|gap| gap.reason != GapReason::EvictedAfterAck);
            self.counts.lost += lost.map(|gap| gap.range.len()).sum::<u64>();
            self.batch.push(Arc::new(Write::Gaps {
                agent: self.agent.clone(),
                gaps: lane.gaps,
                received_ms: self.clock.wall_ms(),
            }));
        }
    }

    async fn commit(&mut self) -> Result<(), ImportError> {
        self.bytes = 0;
        while !self.batch.is_empty() {
            let commit = match self.store.commit(self.batch.clone()).await {
                Err(error) if error.is_of_the_content() => {
                    in_any_form(self.store, &mut self.batch[0]).await?
                }
                other => other?,
            };
            for outcome in &commit.outcomes {
                match outcome {
                    Outcome::Stored { .. } => self.counts.stored += 1,
                    Outcome::Duplicate => self.counts.known += 1,
                    Outcome::Conflict => self.counts.conflicts += 1,
                    Outcome::Noted => {}
                }
            }
            self.batch.drain(..commit.outcomes.len());
        }
        Ok(())
    }
}
