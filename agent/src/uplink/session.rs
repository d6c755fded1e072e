//! One connection: hello, its answer, then records until it ends.
//!
//! ```text
//!  connected ──► Asking ──answer with our nonce──► Flowing ──┐
//!                  ▲                                         │ another run · no progress ·
//!                  └─────────────────────────────────────────┘ no permission · new epoch
//! ```
//!
//! Invariants: no record is chosen while asking (one may still be on its way out); bytes in flight never exceed the permission of the
//! last message; the buffer is told only what the hub says it has committed. There is no second way
//! to resend: whatever goes wrong leads back to hello, and the answer decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use scc_common::id::{Epoch, RunId};
use scc_common::record::{Event, LaneHealth, LinkMode};
use scc_common::stream::Stream;
use scc_common::wire::{
    Ack, Answer, Down, DownMessage, Gap, Hello, LaneOffer, Mark, SeqRange, Up, UpMessage, WireError,
};
use tokio::time::Instant;

use super::backoff::Patience;
use super::budget::{SHARE, Spending};
use super::link::{Closed, Link, Trouble};
use super::now::{self, Stills};
use super::pace::Pace;
use super::plan::{Choice, Plan};
use super::status::Reporter;
use super::store::Store;
use super::{Given, hello};
use crate::buffer::{BufferError, Lane};

/// How often timers are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Two hellos of one connection are at least this far apart.
const ASK_APART: Duration = Duration::from_secs(1);
/// Longer than this without progress, or with a backlog, is a mode of its own.
const SLOW: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The agent stops.
    #[error("the agent stops")]
    Stopped,
    /// The link ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The buffer cannot be read.
    #[error("the buffer cannot be used: {0}")]
    Buffer(#[from] BufferError),
}

impl End {
    /// What `status` is to say of it; nothing if it was meant.
    pub(super) const fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Stopped => None,
            Self::Closed(closed) => Some(closed.trouble()),
            Self::Buffer(_) => Some(Trouble::Buffer),
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// A hello is out; nothing but *now* may follow it.
    Asking {
        nonce: u64,
        epoch: Epoch,
        /// Every epoch that the buffer had, also one that did not fit into the hello.
        epochs: BTreeSet<Epoch>,
        offers: Vec<LaneOffer>,
        asked: Instant,
    },
    /// The hub has answered, in this run of it.
    Flowing { run: RunId, epoch: Epoch },
}

/// One connection.
pub(super) struct Session<'a, S> {
    given: &'a Given<S>,
    link: &'a dyn Link,
    rng: &'a mut StdRng,
    reporter: &'a Reporter,
    pace: Pace,
    spending: &'a mut Spending,
    phase: Phase,
    plan: Plan,
    outbox: VecDeque<Bytes>,
    /// A payload is being handed over.
    publishing: bool,
    patience: Patience,
    stills: Stills,
    stat: Vec<LaneHealth>,
    /// When the hub first answered on this connection.
    pub(super) flowing_since: Option<Instant>,
    last_asked: Option<Instant>,
    /// Since when hellos have gone unanswered.
    asking_since: Option<Instant>,
    /// Since when something in flight has made no progress.
    waiting_since: Option<Instant>,
    /// Since when something has waited to be sent.
    unsent_since: Option<Instant>,
    /// Since when there has been something to send and no permission.
    barred_since: Option<Instant>,
    last_now: Option<Instant>,
    now_due: bool,
}

impl<'a, S: Store> Session<'a, S> {
    pub(super) fn new(
        given: &'a Given<S>,
        link: &'a dyn Link,
        rng: &'a mut StdRng,
        reporter: &'a Reporter,
        pace: Pace,
        spending: &'a mut Spending,
    ) -> Self {
        let patience = Patience::new(pace, rng);
        Self {
            given,
            link,
            reporter,
            pace,
            spending,
            phase: Phase::Asking {
                nonce: 0,
                epoch: Epoch(0),
                epochs: BTreeSet::new(),
                offers: Vec::new(),
                asked: Instant::now(),
            },
            plan: Plan::default(),
            outbox: VecDeque::new(),
            publishing: false,
            patience,
            rng,
            stills: Stills::default(),
            stat: Vec::new(),
            flowing_since: None,
            last_asked: None,
            asking_since: None,
            waiting_since: None,
            unsent_since: None,
            barred_since: None,
            last_now: None,
            now_due: false,
        }
    }

    /// Runs until the connection ends; says why.
    pub(super) async fn run(&mut self) -> End {
        match self.drive().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn drive(&mut self) -> Result<std::convert::Infallible, End> {
        let mut appended = self.given.store.appended();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.ask("connected").await?;
        let link = self.link;
        // kept until it is done: a publish that is dropped may have been sent
        let mut publishing = None;
        loop {
            if publishing.is_none() {
                if self.outbox.is_empty()
                    && let Some(payload) = self.next().await?
                {
                    self.outbox.push_back(payload);
                }
                let payload = self.outbox.pop_front();
                if let Some(payload) = &payload {
                    self.spending.spend(payload.len(), Instant::now());
                }
                publishing = payload.map(|p| link.publish(p));
            }
            self.publishing = publishing.is_some();
            self.note_unsent();
            let busy = publishing.is_some();
            let publish = async {
                match &mut publishing {
                    Some(publish) => publish.await,
                    None => std::future::pending().await,
                }
            };
            // what waits for the budget goes on when it is paid for
            let unpaid = self.spending.wait(Instant::now());
            let unpaid = unpaid.filter(|_| !busy && self.plan.has_unsent());
            let paid = async {
                match unpaid {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.given.stop.cancelled() => return Err(End::Stopped),
                down = self.link.receive() => self.heard(&down?).await?,
                _ = tick.tick() => self.tick().await?,
                changed = appended.changed() => {
                    changed.map_err(|_| BufferError::Closed)?;
                    self.refresh().await?;
                }
                () = self.given.poke.notified() => self.now_due = true,
                sent = publish => {
                    sent?;
                    publishing = None;
                }
                () = paid => {}
            }
        }
    }

    /// Says hello (again).
    async fn ask(&mut self, why: &str) -> Result<(), End> {
        if let Some(last) = self.last_asked {
            // a hub that contradicts itself must not make us ask in a hot loop
            let wait = ASK_APART.saturating_sub(last.elapsed());
            tokio::select! {
                () = self.given.stop.cancelled() => return Err(End::Stopped),
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.last_asked = Some(Instant::now());
        let store = &self.given.store;
        let epoch = store.epoch().await?;
        let mut offers = store.offers().await?;
        let told = offers.iter().map(|offer| offer.epoch);
        let epochs = told.chain([epoch]).collect();
        self.stat = store.stat().await?;
        let waiting = self.stat.iter().filter(|lane| lane.records > 0);
        let waiting: BTreeSet<_> = waiting.map(|lane| (lane.epoch, lane.stream)).collect();
        let partial = hello::fit(&mut offers, epoch, |offer| {
            waiting.contains(&(offer.epoch, offer.stream))
        });
        let nonce = self.rng.random();
        tracing::debug!(why, lanes = offers.len(), "hello");
        self.plan.forget();
        self.outbox.clear();
        let hello = Hello {
            nonce,
            version: self.given.version.clone(),
            boot: self.given.clock.boot(),
            wall_ms: self.given.clock.wall_ms(),
            epoch,
            lanes: offers.clone(),
            partial,
        };
        let hello = Up::new(self.given.agent.clone(), UpMessage::Hello(hello));
        self.outbox.push_back(Bytes::from(hello.encode()));
        self.phase = Phase::Asking {
            nonce,
            epoch,
            epochs,
            offers,
            asked: Instant::now(),
        };
        self.asking_since.get_or_insert_with(Instant::now);
        self.waiting_since = None;
        self.barred_since = None;
        self.now_due = true;
        Ok(())
    }

    /// A new epoch for new records, and hello.
    async fn renumber(&mut self, reason: &str) -> Result<(), End> {
        let epoch = self.given.store.begin_epoch(reason).await?;
        tracing::warn!(%epoch, reason, "a new epoch begins");
        // nobody listens any more only while the agent stops
        let _ = self.given.events.send(Event::EpochBegun {
            epoch,
            reason: reason.to_owned(),
        });
        self.ask("new epoch").await
    }

    async fn refresh(&mut self) -> Result<(), End> {
        self.stat = self.given.store.stat().await?;
        if matches!(self.phase, Phase::Flowing { .. }) {
            self.plan.extend(&self.stat);
            if self.plan.is_outdated() {
                return self.ask("the buffer has begun a new epoch").await;
            }
        }
        Ok(())
    }

    async fn heard(&mut self, payload: &[u8]) -> Result<(), End> {
        let down = match Down::decode(payload) {
            Ok(down) => down,
            Err(WireError::Version(v)) => {
                return Err(Closed::Refused(format!(
                    "it speaks wire version {v}; update this agent"
                ))
                .into());
            }
            Err(error) => {
                tracing::warn!(%error, "a message of the hub cannot be read");
                return Ok(());
            }
        };
        match (&self.phase, &down.msg) {
            (Phase::Asking { nonce, .. }, DownMessage::Answer(answer))
                if answer.nonce == *nonce =>
            {
                self.answered(&down, answer).await
            }
            (Phase::Flowing { run, .. }, _) if *run != down.run => {
                self.ask("the hub has restarted").await
            }
            (Phase::Flowing { .. }, DownMessage::Ack(ack)) => self.acknowledged(&down, ack).await,
            (Phase::Flowing { .. }, DownMessage::Other) => {
                self.permit(&down);
                Ok(())
            }
            // an answer to an older hello, or an ack while we ask: the next answer says it all
            _ => Ok(()),
        }
    }

    fn permit(&mut self, down: &Down) {
        self.plan.window.permit(down.permission);
        self.plan.pause(down.paused.clone());
    }

    /// Lanes in which the hub has other records than this buffer, each with what this buffer holds of it
    /// unacknowledged: the hub knows numbers that were never given here, or has another body under one of
    /// ours. The card went back in time, or a clone of it has gone on counting; the hub's word that a
    /// number is stored then says nothing of our record.
    async fn suspect(
        &self,
        offers: &[LaneOffer],
        answer: &Answer,
    ) -> Result<BTreeMap<Lane, Vec<SeqRange>>, End> {
        let mut suspect = BTreeMap::new();
        for answered in &answer.lanes {
            let lane = Lane {
                epoch: answered.epoch,
                stream: answered.stream,
            };
            let of = |epoch, stream| (epoch, stream) == (lane.epoch, lane.stream);
            let offer = offers.iter().find(|o| of(o.epoch, o.stream));
            let ahead = offer.is_some_and(|offer| answered.from > offer.next);
            let waits = self
                .stat
                .iter()
                .any(|l| of(l.epoch, l.stream) && l.records > 0);
            if ahead || (waits && self.is_foreign(lane, answered.mark.as_ref()).await?) {
                let waiting = self.given.store.unacknowledged(lane).await?;
                suspect.insert(lane, waiting);
            }
        }
        Ok(suspect)
    }

    /// Whether the hub has another body under this number than this buffer.
    async fn is_foreign(&self, lane: Lane, mark: Option<&Mark>) -> Result<bool, End> {
        let Some(mark) = mark else { return Ok(false) };
        let range = SeqRange {
            first: mark.seq,
            last: mark.seq,
        };
        let ours = self.given.store.read(lane, range, 1).await?;
        let foreign = ours.iter().any(|record| record.sum != mark.sum);
        if foreign {
            tracing::warn!(epoch = %lane.epoch, stream = %lane.stream, seq = mark.seq, "the hub has another record under this number");
        }
        Ok(foreign)
    }

    async fn answered(&mut self, down: &Down, answer: &Answer) -> Result<(), End> {
        let Phase::Asking { epoch, asked, .. } = &self.phase else {
            return Ok(());
        };
        let (epoch, took) = (*epoch, asked.elapsed());
        self.plan.window.way(took);
        let clock = &self.given.clock;
        let half = u32::try_from(took.as_millis() / 2).unwrap_or(u32::MAX);
        let asked_ms = clock.wall_ms().saturating_sub(i64::from(half));
        clock.hub_offset(answer.wall_ms.saturating_sub(asked_ms), half);
        // ahead of the records: the hub dates them by what the answer has told of this boot
        self.now_due = true;
        self.stat = self.given.store.stat().await?;
        let Phase::Asking { epochs, offers, .. } = &self.phase else {
            return Ok(());
        };
        let suspect = self.suspect(offers, answer).await?;
        let verdicts = self
            .plan
            .begin(epoch, epochs.clone(), offers, answer, &self.stat, &suspect);
        let young = !offers.iter().any(|o| o.epoch == epoch && o.next > 1);
        self.permit(down);
        self.phase = Phase::Flowing {
            run: down.run,
            epoch,
        };
        self.asking_since = None;
        self.flowing_since.get_or_insert_with(Instant::now);
        self.report();
        let store = &self.given.store;
        for verdict in verdicts {
            // what a restored hub has lost is backlog again, and no longer first to be evicted
            store.want_again(verdict.lane, verdict.wanted).await?;
            if let Some((watermark, stored)) = verdict.proven {
                store.acknowledge(verdict.lane, watermark, stored).await?;
            }
        }
        if self.plan.is_outdated() {
            return self.ask("the buffer has begun a new epoch").await;
        }
        if self.plan.is_copied() {
            return self
                .renumber("the hub has records of this epoch that this card never wrote")
                .await;
        }
        // an epoch without a record cannot collide: this is the old one's conflict, told again
        if down.new_epoch && !young {
            return self.renumber("the hub asked for it").await;
        }
        Ok(())
    }

    async fn acknowledged(&mut self, down: &Down, ack: &Ack) -> Result<(), End> {
        self.permit(down);
        let now = Instant::now();
        let mut progress = false;
        for lane_ack in &ack.lanes {
            let Some((lane, change)) = self.plan.acknowledge(lane_ack, now) else {
                continue;
            };
            progress |= change.progress;
            if let Some((watermark, stored)) = change.commit {
                self.given
                    .store
                    .acknowledge(lane, watermark, stored)
                    .await?;
            }
        }
        if progress {
            self.patience.progress(self.rng);
            self.waiting_since = self.plan.is_waiting().then_some(now);
            self.reporter.committed(self.plan.window.rate());
            self.report();
        } else if !self.plan.is_waiting() {
            self.waiting_since = None;
        }
        let Phase::Flowing { epoch, .. } = self.phase else {
            return Ok(());
        };
        // old epochs may collide as long as they drain; only the current one is worth a new one
        if down.new_epoch && ack.lanes.iter().any(|l| l.epoch == epoch) {
            return self.renumber("the hub asked for it").await;
        }
        Ok(())
    }

    /// The next payload, if there is one that may go now.
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        if std::mem::take(&mut self.now_due) {
            self.last_now = Some(Instant::now());
            return Ok(Some(self.now(None)));
        }
        if !matches!(self.phase, Phase::Flowing { .. }) {
            return Ok(None);
        }
        let paid = self.spending.wait(Instant::now()).is_none();
        self.plan.afford(paid, self.spending.most());
        while let Some(choice) = self.plan.choose() {
            let message = match choice {
                Choice::Head(lane) => self.plan.lead(lane, Instant::now()),
                Choice::Read {
                    lane,
                    range,
                    max_bytes,
                } => {
                    let read = self.given.store.read(lane, range, max_bytes).await?;
                    let holes = self.plan.untold(lane, range, &read);
                    let gaps = self.gaps(lane, &holes).await?;
                    self.plan.take(lane, range, read, gaps, Instant::now())
                }
            };
            if let Some(message) = message {
                if self.plan.is_waiting() {
                    self.waiting_since.get_or_insert_with(Instant::now);
                }
                return Ok(Some(self.envelope(message)));
            }
        }
        Ok(None)
    }

    /// The gaps of a lane that touch these holes.
    async fn gaps(&self, lane: Lane, holes: &[SeqRange]) -> Result<Vec<Gap>, End> {
        if holes.is_empty() {
            return Ok(Vec::new());
        }
        let touches = |gap: &Gap| {
            holes
                .iter()
                .any(|h| h.first <= gap.range.last && gap.range.first <= h.last)
        };
        let offers = self.given.store.offers().await?;
        Ok(offers
            .into_iter()
            .filter(|o| o.epoch == lane.epoch && o.stream == lane.stream)
            .flat_map(|o| o.gaps)
            .filter(touches)
            .take(1_000)
            .collect())
    }

    fn envelope(&self, message: UpMessage) -> Bytes {
        Bytes::from(Up::new(self.given.agent.clone(), message).encode())
    }

    fn now(&self, still: Option<scc_common::wire::Still>) -> Bytes {
        Bytes::from(now::payload(
            &self.given.agent,
            &*self.given.clock,
            &self.given.board,
            self.reporter.mode(),
            &self.stat,
            still,
        ))
    }

    fn note_unsent(&mut self) {
        if self.plan.has_unsent() {
            self.unsent_since.get_or_insert_with(Instant::now);
        } else {
            self.unsent_since = None;
        }
    }

    async fn tick(&mut self) -> Result<(), End> {
        self.given.beat();
        let budget = self.spending.look(&*self.given.clock);
        self.reporter.budget(budget);
        let over =
            |since: Option<Instant>, limit: Duration| since.is_some_and(|at| at.elapsed() >= limit);
        if self.last_now.is_none_or(|at| at.elapsed() >= now::EVERY) {
            self.refresh().await?;
            self.now_due = true;
        }
        match &self.phase {
            Phase::Asking { asked, .. } => {
                let sign = self.link.sign_of_life();
                let limit = if sign.is_some_and(|at| at.elapsed() < self.pace.sign()) {
                    self.pace.held_back()
                } else {
                    self.pace.no_answer()
                };
                if over(self.asking_since, limit) {
                    let why = format!("no answer to hello for {} s", limit.as_secs());
                    return Err(Closed::Silent(why).into());
                }
                if asked.elapsed() >= self.patience.current() {
                    self.patience.lost(self.rng);
                    self.ask("no answer").await?;
                }
            }
            Phase::Flowing { .. } => {
                self.report();
                if over(self.waiting_since, self.patience.current()) {
                    self.patience.lost(self.rng);
                    return self.ask("nothing was acknowledged").await;
                }
                if self.plan.window.permission() == 0 && self.plan.has_unsent() {
                    let since = *self.barred_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.pace.no_permission() {
                        return self.ask("no permission").await;
                    }
                } else {
                    self.barred_since = None;
                }
                self.tell_still();
            }
        }
        Ok(())
    }

    fn tell_still(&mut self) {
        let unpaid = self.spending.wait(Instant::now()).is_some();
        if self.publishing
            || unpaid
            || !self.outbox.is_empty()
            || !self.plan.has_unsent_of(Stream::Snapshot)
        {
            return;
        }
        let budget = self.spending.rate();
        let rate = self.plan.window.rate();
        if let Some(rate) = rate.map(|rate| budget.map_or(rate, |b| rate.min(u64::from(b) / SHARE)))
            && let Some(still) = self.stills.due(&self.given.board, rate, Instant::now())
        {
            let payload = self.now(Some(still));
            self.outbox.push_back(payload);
        }
    }

    fn report(&self) {
        let over = |since: Option<Instant>| since.is_some_and(|at| at.elapsed() >= SLOW);
        let (mode, trouble) = if over(self.waiting_since) {
            (
                LinkMode::Slow,
                Some((Trouble::Late, "acknowledgements are late")),
            )
        } else if over(self.unsent_since) {
            (LinkMode::CatchUp, None)
        } else {
            (LinkMode::Normal, None)
        };
        self.reporter.set(mode, trouble);
    }
}
