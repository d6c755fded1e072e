//! The committer: gathers what is ready into transactions, and speaks only after they are durable.
//!
//! It waits for nothing: an idle database commits one record at once, a busy one gathers what comes
//! meanwhile, up to [`BATCH`] writes or the ledger's 50 ms.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use scc_common::id::AgentId;
use scc_common::stream::Stream;
use scc_common::wire::{Hello, LaneAck, SeqRange};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::{Context, lock};
use super::{CommittedRecord, IngestError, Notice, answer};
use crate::crash::{self, Point};
use crate::gate::Charge;
use crate::media::Held;
use crate::store::{Commit, LaneKey, Outcome, RecordKey, Store, StoreError, Write};

/// Writes that wait for the next transaction.
pub(super) const QUEUE: usize = 1_000;

/// Writes in one transaction.
const BATCH: usize = 500;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A commit that takes so long is slow: agents with much to send wait for it, punches come late.
const SLOW: Duration = Duration::from_millis(300);

/// One write on its way, with what is owed when it is durable.
pub(super) struct Entry {
    write: Arc<Write>,
    /// To be answered when its gaps are noted.
    hello: Option<Arc<Hello>>,
    /// To be removed from the spool when it is stored.
    spooled: Option<RecordKey>,
    /// A media file that nothing refers to any longer when this is stored.
    stale: Option<String>,
    /// The media file of this, which nothing refers to before it is stored.
    file: Option<Held>,
    /// The gate's memory; given back on drop.
    charge: Arc<Charge>,
}

impl Entry {
    pub(super) fn new(write: Write, charge: Arc<Charge>) -> Self {
        Self {
            write: Arc::new(write),
            hello: None,
            spooled: None,
            stale: None,
            file: None,
            charge,
        }
    }

    pub(super) fn answering(mut self, hello: Arc<Hello>) -> Self {
        self.hello = Some(hello);
        self
    }

    pub(super) fn replacing(mut self, stale: Option<String>) -> Self {
        self.stale = stale;
        self
    }

    pub(super) fn holding(mut self, file: Option<Held>) -> Self {
        self.file = file;
        self
    }

    pub(super) fn spooled(mut self, key: Option<RecordKey>) -> Self {
        self.spooled = key;
        self
    }
}

/// Commits until the queue is closed and empty. When told to stop while the database fails, leaves
/// the rest: it was not acknowledged.
pub(super) async fn run(
    context: Arc<Context>,
    mut queue: mpsc::Receiver<Entry>,
    stop: CancellationToken,
) -> Result<(), IngestError> {
    let mut pending: VecDeque<Entry> = VecDeque::new();
    let mut answers = JoinSet::new();
    let mut wait = FIRST_WAIT;
    let mut pace = Pace::default();
    let mut committed = None;
    loop {
        if pending.is_empty() && queue.is_empty() {
            settle_any(&context, &mut committed, &mut answers).await;
        }
        if pending.is_empty() {
            match queue.recv().await {
                Some(entry) => pending.push_back(entry),
                None => break,
            }
        }
        while pending.len() < BATCH
            && let Ok(entry) = queue.try_recv()
        {
            pending.push_back(entry);
        }
        while answers.try_join_next().is_some() {}
        let writes = pending.iter().map(|e| Arc::clone(&e.write)).collect();
        let commit = async {
            let begun = Instant::now();
            let result = context.store.commit(writes).await;
            (result, begun.elapsed())
        };
        // The database is given the next transaction before the last one is spoken of, so that it does not
        // wait meanwhile.
        let settle = settle_any(&context, &mut committed, &mut answers);
        let ((result, took), ()) = tokio::join!(biased; commit, settle);
        match result {
            Ok(commit) => {
                wait = FIRST_WAIT;
                context.database(None);
                context.slow(pace.took(took));
                let done = pending.drain(..commit.outcomes.len()).collect();
                committed = Some((commit, done));
            }
            Err(error @ (StoreError::Closed | StoreError::Gone(_))) => return Err(error.into()),
            Err(error) if error.is_of_the_content() => {
                one_by_one(&context, &mut pending, &mut answers).await?;
            }
            Err(error) => {
                context.database(Some((error.to_string(), (&error).into())));
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
    settle_any(&context, &mut committed, &mut answers).await;
    while answers.join_next().await.is_some() {}
    Ok(())
}

/// Settles what has been committed, if it has not been settled yet.
async fn settle_any(
    context: &Arc<Context>,
    committed: &mut Option<(Commit, Vec<Entry>)>,
    answers: &mut JoinSet<()>,
) {
    if let Some((commit, done)) = committed.take() {
        settle(context, commit, done, answers).await;
    }
}

/// How long commits take, smoothed: one slow commit is no trouble.
#[derive(Debug, Default)]
struct Pace {
    mean: Duration,
    slow: bool,
}

impl Pace {
    /// A commit took so long. Says what is wrong as long as commits are slow, which ends only when
    /// they are twice as fast as that.
    fn took(&mut self, took: Duration) -> Option<String> {
        metrics::gauge!("scc_ingest_commit_seconds").set(took.as_secs_f64());
        self.mean = (self.mean * 3 + took) / 4;
        self.slow = self.mean > if self.slow { SLOW / 2 } else { SLOW };
        self.slow.then(|| {
            let (mean, slow) = (self.mean.as_millis(), SLOW.as_millis());
            format!("a commit takes {mean} ms; more than {slow} ms is slow")
        })
    }
}

/// Something in the batch is more than the schema bears. It must not hold up the others: each is
/// committed alone, and a record that is refused even then is stored as unreadable, which derives
/// nothing from it.
async fn one_by_one(
    context: &Arc<Context>,
    pending: &mut VecDeque<Entry>,
    answers: &mut JoinSet<()>,
) -> Result<(), IngestError> {
    while let Some(mut entry) = pending.pop_front() {
        match in_any_form(&context.store, &mut entry.write).await {
            Ok(commit) => settle(context, commit, vec![entry], answers).await,
            Err(error @ (StoreError::Closed | StoreError::Gone(_))) => return Err(error.into()),
            // Not acknowledged: the agent keeps it and sends it again.
            Err(StoreError::Refused(why) | StoreError::Sql(why)) => {
                refused(context, &entry.write, &why);
            }
            Err(_) => {
                pending.push_front(entry);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Commits one write alone. A record that is refused is stored as unreadable; `write` is then that.
///
/// # Errors
/// [`StoreError`]; [`StoreError::Refused`] and [`StoreError::Sql`] if no form of it can be stored.
pub(super) async fn in_any_form(
    store: &Store,
    write: &mut Arc<Write>,
) -> Result<Commit, StoreError> {
    let result = store.commit(vec![Arc::clone(write)]).await;
    let Err(StoreError::Refused(why) | StoreError::Sql(why)) = &result else {
        return result;
    };
    tracing::error!(why, "a record is more than the schema bears");
    metrics::counter!("scc_ingest_refused_total").increment(1);
    let mut unread = write.as_ref().clone();
    match &mut unread {
        Write::Record(new) | Write::Imported { new, .. } => new.said = None,
        _ => return result,
    }
    *write = Arc::new(unread);
    store.commit(vec![Arc::clone(write)]).await
}

/// Something cannot be written in any form: a defect of this program, which must not go unseen. It
/// is let go here without an acknowledgement, and its agent sends it again.
fn refused(context: &Context, write: &Write, why: &str) {
    metrics::counter!("scc_ingest_unstorable_total").increment(1);
    let one = |key: &RecordKey| {
        let lane = &key.lane;
        format!(
            "{} {} of epoch {} from `{}`",
            lane.stream, key.seq, lane.epoch, lane.agent
        )
    };
    let what = match write {
        Write::Record(new) | Write::Imported { new, .. } => one(&new.key),
        Write::Again(new) => format!("what {} says", one(&new.key)),
        Write::Seen { key, .. } => format!("that {} came again", one(key)),
        Write::Boot { agent, .. } => format!("what `{agent}` has measured of its clock"),
        Write::Gaps { agent, .. } => format!("gaps from `{agent}`"),
        Write::Hello { agent, .. } => format!("the hello of `{agent}`"),
    };
    tracing::error!(
        what,
        why,
        "this cannot be stored in any form and is not acknowledged"
    );
    context.stuck(write, format!("{what} cannot be stored: {why}"));
}

/// What was asked for is here, or will not come.
fn settle_owed(context: &Context, write: &Write) {
    let mut owed = lock(&context.owed);
    let mut one = |key: &RecordKey| {
        let range = SeqRange {
            first: key.seq,
            last: key.seq,
        };
        owed.settled(&key.lane, range);
    };
    match write {
        Write::Record(new) | Write::Imported { new, .. } => one(&new.key),
        Write::Seen { key, .. } => one(key),
        Write::Gaps { agent, gaps, .. } => {
            for gap in gaps {
                let lane = LaneKey {
                    agent: agent.clone(),
                    epoch: gap.epoch,
                    stream: gap.stream,
                };
                owed.settled(&lane, gap.range);
            }
        }
        // the answer to a hello tells anew what is owed; the others are no numbers
        Write::Hello { .. } | Write::Again(_) | Write::Boot { .. } => {}
    }
}

/// The transaction is durable: acknowledges, answers, tells, and lets go.
async fn settle(
    context: &Arc<Context>,
    commit: Commit,
    done: Vec<Entry>,
    answers: &mut JoinSet<()>,
) {
    let hellos = done.iter().filter_map(|entry| match entry.write.as_ref() {
        Write::Hello { agent, .. } => Some(agent),
        _ => None,
    });
    context.unstick(&commit.lanes, hellos);
    for entry in &done {
        settle_owed(context, &entry.write);
    }
    let mut acks: BTreeMap<AgentId, (bool, Vec<LaneAck>)> = BTreeMap::new();
    for (agent, lane) in commit.lanes {
        acks.entry(agent).or_default().1.push(lane);
    }
    let mut notices: BTreeMap<AgentId, (Vec<CommittedRecord>, Vec<Arc<Charge>>)> = BTreeMap::new();
    let mut spooled = Vec::new();
    let mut stored: BTreeMap<Stream, u64> = BTreeMap::new();
    for (entry, outcome) in done.iter().zip(&commit.outcomes) {
        spooled.extend(entry.spooled.clone());
        match (entry.write.as_ref(), outcome) {
            (Write::Record(new), Outcome::Stored { id, dated }) => {
                let lane = &new.key.lane;
                *stored.entry(lane.stream).or_default() += 1;
                if new.said.is_none() {
                    metrics::counter!("scc_ingest_unreadable_total").increment(1);
                }
                let record = CommittedRecord {
                    id: *id,
                    stream: lane.stream,
                    epoch: lane.epoch,
                    seq: new.key.seq,
                    received_ms: new.received_ms,
                    dated: *dated,
                    body: new.said.clone(),
                    media: new.body.media().map(str::to_owned),
                };
                let (records, charges) = notices.entry(lane.agent.clone()).or_default();
                records.push(record);
                // the records of one payload share its charge
                if charges
                    .last()
                    .is_none_or(|last| !Arc::ptr_eq(last, &entry.charge))
                {
                    charges.push(Arc::clone(&entry.charge));
                }
            }
            (Write::Record(new), Outcome::Conflict) => {
                let lane = &new.key.lane;
                metrics::counter!("scc_ingest_conflicts_total").increment(1);
                tracing::error!(
                    agent = %lane.agent, epoch = %lane.epoch, stream = %lane.stream, seq = new.key.seq,
                    "another body is stored under this identity; both are kept"
                );
                acks.entry(lane.agent.clone()).or_default().0 = true;
            }
            (_, Outcome::Duplicate) => {
                metrics::counter!("scc_ingest_duplicates_total").increment(1);
            }
            _ => {}
        }
    }
    for (stream, count) in stored {
        metrics::counter!("scc_ingest_stored_total", "stream" => stream.name()).increment(count);
    }
    if !spooled.is_empty() {
        let shared = Arc::clone(context);
        let removal = tokio::task::spawn_blocking(move || {
            for key in spooled {
                if let Err(error) = shared.spool.remove(&key) {
                    tracing::warn!(%error, "a file cannot be removed from the spool");
                }
            }
        });
        // Before the acks, which tell what is still spooled.
        let _ = removal.await;
        crash::here(Point::Unspooled);
    }
    for (agent, (new_epoch, lanes)) in acks {
        context.ack(&agent, new_epoch, lanes);
    }
    for (agent, (records, charges)) in notices {
        context.notify(Notice::Committed {
            agent,
            records,
            charges,
        });
    }
    for mut entry in done {
        if let Some(stale) = entry.stale.take() {
            // not waited for: a media disk that hangs must not hold up the next acknowledgements
            let media = context.media.clone();
            answers.spawn(async move {
                if let Err(error) = media.remove(&stale).await {
                    tracing::warn!(%error, "a media file that is no longer needed cannot be removed");
                }
            });
        }
        if let (Write::Hello { agent, .. }, Some(hello)) = (entry.write.as_ref(), &entry.hello) {
            let answer = answer::send(Arc::clone(context), agent.clone(), Arc::clone(hello));
            answers.spawn(async move {
                answer.await;
                // Answers that wait for a reader still count against their agent's share.
                drop(entry);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_commit_is_no_trouble_and_many_are_until_they_are_fast_again() {
        let mut pace = Pace::default();
        let (slow, fast) = (Duration::from_millis(500), Duration::from_millis(20));
        assert_eq!(pace.took(slow), None);
        assert_eq!(pace.took(fast), None);
        let until = |pace: &mut Pace, took, is: bool| {
            (1..20).find(|_| pace.took(took).is_some() == is).unwrap()
        };
        assert!(until(&mut pace, slow, true) >= 2);
        assert!(until(&mut pace, fast, false) >= 2);
    }
}
