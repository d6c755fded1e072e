//! The answer to a hello: what the hub wants, from its ledger and from what is really on its disk.

use std::sync::Arc;

use scc_common::id::{AgentId, Seq};
use scc_common::wire::{Answer, DownMessage, Hello, LaneAnswer, SeqRange};

use super::context::{Context, lock};
use crate::media::Media;
use crate::store::{LaneKey, LaneWants};

/// Ranges that one lane's answer names. Where more are missing, everything from the next one on is
/// wanted: what is sent twice by that is counted as a duplicate and does no harm.
const MAX_RANGES: usize = 1_000;

/// Answers, after what the hello told has been committed. Without an answer (the database fails)
/// the agent says hello again.
pub(super) async fn send(context: Arc<Context>, agent: AgentId, hello: Arc<Hello>) {
    let wants = match context
        .store
        .wants(agent.clone(), hello.lanes.clone())
        .await
    {
        Ok(wants) => wants,
        Err(error) => {
            tracing::error!(%agent, %error, "a hello cannot be answered");
            return;
        }
    };
    let mut lanes = Vec::with_capacity(wants.len());
    for want in wants {
        lanes.push(lane(&context, &agent, want).await);
    }
    let answer = Answer {
        nonce: hello.nonce,
        wall_ms: context.clock.wall_ms(),
        lanes,
    };
    context.send(&agent, false, DownMessage::Answer(answer));
}

async fn lane(context: &Arc<Context>, agent: &AgentId, mut want: LaneWants) -> LaneAnswer {
    let key = LaneKey {
        agent: agent.clone(),
        epoch: want.epoch,
        stream: want.stream,
    };
    // Files go missing when the folder was restored or tampered with, and then the hub was started
    // anew: once per lane and life of the hub is enough, and bounded by what the agent holds.
    let files = std::mem::take(&mut want.files);
    if !files.is_empty() && !lock(&context.looked_for).contains(&key) {
        let media = context.media.clone();
        if let Ok(gone) = tokio::task::spawn_blocking(move || gone(&media, &files)).await {
            if !gone.is_empty() {
                tracing::warn!(%agent, stream = %want.stream, files = gone.len(), "media files are missing; asking for their records again");
            }
            want.missing = merged(want.missing, &gone);
            lock(&context.looked_for).insert(key.clone());
        }
    }
    if let Some(next) = want.missing.get(MAX_RANGES) {
        want.from = next.first;
        want.missing.truncate(MAX_RANGES);
    }
    LaneAnswer {
        epoch: want.epoch,
        stream: want.stream,
        from: want.from,
        missing: want.missing,
        parts: context.spool.progress(&key),
    }
}

fn gone(media: &Media, files: &[(Seq, String)]) -> Vec<Seq> {
    let gone = files.iter().filter(|(_, path)| !media.is_there(path));
    gone.map(|(seq, _)| *seq).collect()
}

/// Ranges and single numbers that are not in them, as ranges that do not touch.
fn merged(ranges: Vec<SeqRange>, singles: &[Seq]) -> Vec<SeqRange> {
    let mut all = ranges;
    all.extend(singles.iter().map(|&seq| SeqRange {
        first: seq,
        last: seq,
    }));
    all.sort_unstable();
    let mut merged: Vec<SeqRange> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if last.last + 1 >= range.first => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_rows_and_missing_files_make_one_ascending_list() {
        let range = |first, last| SeqRange { first, last };
        let merged = merged(vec![range(2, 3), range(10, 12)], &[1, 4, 7, 13]);
        assert_eq!(merged, [range(1, 4), range(7, 7), range(10, 13)]);
    }
}
