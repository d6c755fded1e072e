//! Reading again what could not be read when it came: after an upgrade, the records that waited for
//! it find their way to the pages.
//!
//! Runs once per life of the hub, beside everything else. What it finds still unreadable stays as it is.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::committer::Entry;
use super::context::Context;
use super::prepare::prepare;
use crate::media::split;
use crate::store::{Unreadable, Write};

/// Records in memory at a time are those of one step, without their files.
const STEP: u32 = 100;

pub(super) async fn run(context: &Context, entries: &mpsc::Sender<Entry>) {
    let mut after = 0;
    loop {
        let found = match context.store.unreadable(after, STEP).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "unreadable records are not read again in this run");
                return;
            }
        };
        let Some(last) = found.last() else {
            return;
        };
        after = last.id;
        for record in found {
            if let Some(entry) = again(context, record).await
                && entries.send(entry).await.is_err()
            {
                return;
            }
        }
    }
}

async fn again(context: &Context, record: Unreadable) -> Option<Entry> {
    let file = match &record.media {
        // A missing file is asked for again by the answer to a hello.
        Some(path) => Some(context.media.get(path).await.ok()?),
        None => None,
    };
    let body = match (record.body, file) {
        (Some(rest), Some(file)) => split::join(&rest, file.to_vec()).ok()?.into(),
        (Some(whole), None) | (None, Some(whole)) => whole,
        (None, None) => return None,
    };
    let ready = prepare(record.key, record.sum, body, record.received_ms);
    ready.new.said.as_ref()?;
    let mut held = None;
    if let Some((path, bytes)) = ready.file {
        held = Some(context.media.put(&path, bytes).await.ok()?);
    }
    let stale = record
        .media
        .filter(|old| ready.new.body.media() != Some(old.as_str()));
    let write = Write::Again(Box::new(ready.new));
    Some(
        Entry::new(write, Arc::default())
            .replacing(stale)
            .holding(held),
    )
}
