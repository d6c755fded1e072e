//! The answer to a hello: what the hub wants, from its ledger and from what is really on its disk.

use std::collections::HashSet;
use std::sync::Arc;

use scc_common::id::AgentId;
use scc_common::wire::{Answer, DownMessage, Hello, LaneAnswer, LaneOffer, Mark};

use super::context::{Context, lock};
use crate::store::{LaneKey, StoreError};

/// Ranges that one lane's answer names. Where more are missing, everything from the next one on is
/// wanted: what is sent twice by that is counted as a duplicate and does no harm.
const MAX_RANGES: usize = 1_000;

/// Answers, after what the hello told has been committed. Without an answer (the database fails)
/// the agent says hello again.
pub(super) async fn send(context: Arc<Context>, agent: AgentId, hello: Arc<Hello>) {
    // A lane that is offered twice is answered once: the work follows from what there is, not from
    // what is said.
    let mut seen = HashSet::new();
    let mut lanes = Vec::new();
    for offer in &hello.lanes {
        if !seen.insert((offer.epoch, offer.stream)) {
            continue;
        }
        match lane(&context, &agent, offer).await {
            Ok(answer) => lanes.push(answer),
            Err(error) => {
                tracing::error!(%agent, %error, "a hello cannot be answered");
                return;
            }
        }
    }
    let answer = Answer {
        nonce: hello.nonce,
        wall_ms: context.clock.wall_ms(),
        lanes,
    };
    context.send(&agent, false, DownMessage::Answer(answer));
}

async fn lane(
    context: &Arc<Context>,
    agent: &AgentId,
    offer: &LaneOffer,
) -> Result<LaneAnswer, StoreError> {
    let key = LaneKey {
        agent: agent.clone(),
        epoch: offer.epoch,
        stream: offer.stream,
    };
    // Files go missing when the folder was restored or tampered with, and then the hub was started
    // anew: once per lane and life of the hub is enough.
    let look = !lock(&context.looked_for).contains(&key);
    let is_there = look.then(|| {
        let media = context.media.clone();
        move |path: &str| media.is_there(path)
    });
    let want = context
        .store
        .wants(agent, offer, MAX_RANGES, is_there)
        .await?;
    // Lanes that the hub does not know are not kept: their names are the agent's to invent. A lane of which
    // files are asked for is looked at again: what has not come when the link breaks is still asked for.
    if want.from > 1 && want.gone == 0 {
        lock(&context.looked_for).insert(key.clone());
    }
    if want.gone > 0 {
        tracing::warn!(%agent, stream = %want.stream, files = want.gone, "media files are missing; asking for their records again");
    }
    lock(&context.owed).asked(&key, &want.missing);
    Ok(LaneAnswer {
        epoch: want.epoch,
        stream: want.stream,
        from: want.from,
        missing: want.missing,
        parts: context.spool.progress(&key),
        mark: want.mark.map(|(seq, sum)| Mark { seq, sum }),
    })
}
