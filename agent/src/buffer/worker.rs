//! The thread that owns the store.
//!
//! Requests come through one bounded channel and are answered in order. Appends that wait together
//! are committed together: at most [`MAX_GROUP`] records or [`MAX_GROUP_BYTES`]. Nothing lingers: a
//! record that waits alone is committed at once, and those that come meanwhile form the next group.
//!
//! A store that breaks is dropped and opened anew at the next request: at once the first time, then
//! after 1, 2, 4 … seconds until an append succeeds again, because an opening costs memory and wear.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use scc_common::checksum::Checksum;
use scc_common::clock::{MonoMs, SharedClock};
use scc_common::id::{Epoch, Seq};
use scc_common::record::LaneHealth;
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, LaneOffer, SeqRange};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::loss::Losses;
use super::steps::Steps;
use super::store::{Broken, Incoming, Store};
use super::{Accepted, BufferError, Damage, Lane, Stored};
use crate::config::BufferLimits;

/// Records that are committed together at most.
const MAX_GROUP: usize = 32;

/// Bytes after which a group is closed.
const MAX_GROUP_BYTES: u64 = 4 << 20;

/// First wait between two openings of a store that keeps breaking, milliseconds; it doubles.
const RETRY_MS: u64 = 1_000;

/// Longest wait while the card fails, milliseconds.
const MAX_RETRY_MS: u64 = 30_000;

/// Longest wait while the card is full: somebody may make room at any moment.
const MAX_RETRY_FULL_MS: u64 = 4_000;

/// Given-up records of which it is not known whether a failing card has them. Beyond so many the store
/// has been closed for long, and nothing was written.
const MAX_UNSETTLED: usize = 4_096;

/// How often and when a broken store was opened anew, and why it broke.
#[derive(Debug, Default)]
pub(super) struct Retry {
    openings: u32,
    at: MonoMs,
    error: Option<BufferError>,
}

impl Retry {
    /// Whether it is too early to try again.
    fn too_early(&self, now: MonoMs) -> Option<BufferError> {
        let longest = match self.error {
            Some(BufferError::Full(_)) => MAX_RETRY_FULL_MS,
            _ => MAX_RETRY_MS,
        };
        let doubled = self.openings.checked_sub(1)?.min(16);
        let wait = (RETRY_MS << doubled).min(longest);
        (now.saturating_sub(self.at) < wait)
            .then(|| self.error.clone())
            .flatten()
    }
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, BufferError>>;

/// What the handle asks of the thread.
#[derive(Debug)]
pub(super) enum Request {
    Append(Incoming, OwnedSemaphorePermit, Reply<Accepted>),
    Holds(Stream, Checksum, Reply<bool>),
    GiveUp(Stream, Checksum, GapReason),
    Offers(Reply<Vec<LaneOffer>>),
    Epoch(Reply<Epoch>),
    Read(Lane, SeqRange, usize, Reply<Vec<Stored>>),
    Acknowledge(Lane, Seq, Vec<SeqRange>, Reply<()>),
    WantAgain(Lane, Vec<SeqRange>, Reply<()>),
    Unacknowledged(Lane, Reply<Vec<SeqRange>>),
    BeginEpoch(String, Reply<Epoch>),
    Stat(Reply<Vec<LaneHealth>>),
    Close(oneshot::Sender<()>),
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) root: PathBuf,
    pub(super) limits: BufferLimits,
    pub(super) clock: SharedClock,
    pub(super) store: Option<Store>,
    pub(super) appended: watch::Sender<u64>,
    pub(super) damage: Arc<Mutex<Damage>>,
    /// Held as long as the thread lives.
    pub(super) lock: File,
    pub(super) retry: Retry,
    /// The index is not to be tried again.
    pub(super) suspect: bool,
    /// The store's, while there is none.
    pub(super) losses: Losses,
    /// Given up while there was no store to ask whether it has them.
    pub(super) unsettled: Vec<(Stream, Checksum, GapReason)>,
}

impl Worker {
    /// Serves until the last handle is gone or one says close.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut closing = None;
        let mut carried = None;
        while let Some(request) = carried.take().or_else(|| requests.blocking_recv()) {
            match request {
                Request::Append(incoming, permit, reply) => {
                    let mut bytes = incoming.total();
                    let mut group = vec![incoming];
                    let mut replies = vec![(permit, reply)];
                    while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                        match requests.try_recv() {
                            Ok(Request::Append(incoming, permit, reply)) => {
                                bytes += incoming.total();
                                group.push(incoming);
                                replies.push((permit, reply));
                            }
                            Ok(other) => {
                                carried = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(&group, replies);
                }
                Request::Close(done) => {
                    closing = Some(done);
                    break;
                }
                other => self.answer(other),
            }
            self.tend();
        }
        if let Some(store) = &mut self.store
            && let Err(e) = store.tell_losses_at_the_end()
        {
            tracing::warn!(error = %e, "what was refused could not be noted");
        }
        drop(self.store.take());
        drop(self.lock);
        if let Some(done) = closing {
            let _ = done.send(());
        }
    }

    fn append(
        &mut self,
        group: &[Incoming],
        replies: Vec<(OwnedSemaphorePermit, Reply<Accepted>)>,
    ) {
        let answers = match self.with(|store| Ok(store.append(group))) {
            Ok(answers) => answers,
            Err(e) => vec![Err(e); group.len()],
        };
        let accepted = answers.iter().filter(|answer| answer.is_ok()).count() as u64;
        if accepted > 0 {
            self.retry = Retry::default();
            self.appended.send_modify(|n| *n += accepted);
        }
        for ((permit, reply), answer) in replies.into_iter().zip(answers) {
            drop(permit);
            // who asked may have gone; the record stays
            let _ = reply.send(answer);
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Holds(stream, sum, reply) => {
                let _ = reply.send(self.with(|store| store.holds(stream, sum)));
            }
            Request::GiveUp(stream, sum, reason) => {
                match self.with(|store| store.holds(stream, sum)) {
                    Ok(true) => {}
                    Err(_) if self.unsettled.len() < MAX_UNSETTLED => {
                        self.unsettled.push((stream, sum, reason));
                    }
                    Ok(false) | Err(_) => self.lose(stream, reason),
                }
            }
            Request::Offers(reply) => {
                let _ = reply.send(self.with(|store| Ok(store.offers())));
            }
            Request::Epoch(reply) => {
                let _ = reply.send(self.with(|store| Ok(store.epoch)));
            }
            Request::Read(lane, range, max_bytes, reply) => {
                let _ = reply.send(self.with(|store| store.read(lane, range, max_bytes)));
            }
            Request::Acknowledge(lane, watermark, stored, reply) => {
                let _ = reply.send(self.with(|store| store.acknowledge(lane, watermark, &stored)));
            }
            Request::WantAgain(lane, wanted, reply) => {
                let _ = reply.send(self.with(|store| store.want_again(lane, &wanted)));
            }
            Request::Unacknowledged(lane, reply) => {
                let _ = reply.send(self.with(|store| Ok(store.unacknowledged(lane))));
            }
            Request::BeginEpoch(reason, reply) => {
                let begun = self.with(Store::begin_epoch);
                if let Ok(epoch) = &begun {
                    tracing::warn!(%epoch, reason, "the buffer begins to number anew");
                }
                let _ = reply.send(begun);
            }
            Request::Stat(reply) => {
                let _ = reply.send(self.with(Store::stat));
            }
            // handled by `run`, which owns what these two need
            Request::Append(..) | Request::Close(_) => {}
        }
    }

    fn tend(&mut self) {
        if self.store.is_none() {
            return;
        }
        match self.with(Store::tell_losses_in_time) {
            // whoever sends must hear of them as of a record
            Ok(told @ 1..) => self.appended.send_modify(|n| *n += told),
            Ok(0) => {}
            Err(e) => tracing::warn!(error = %e, "what was refused could not be noted"),
        }
        if self.store.is_none() {
            return;
        }
        if let Err(e) = self.with(Store::tend) {
            tracing::warn!(error = %e, "the buffer's housekeeping failed");
        }
    }

    /// Runs something on the store, opening it first if it has broken.
    fn with<T>(
        &mut self,
        run: impl FnOnce(&mut Store) -> Result<T, BufferError>,
    ) -> Result<T, BufferError> {
        let mut store = match self.store.take() {
            Some(store) => store,
            None => self.open()?,
        };
        let answer = run(&mut store);
        self.take_damage(&mut store);
        if let Some(broken) = store.broken {
            self.suspect = broken == Broken::Index;
            self.losses = store.losses;
            self.retry.error = answer.as_ref().err().cloned().or(store.failure.take());
            tracing::error!(
                ?broken,
                "the buffer failed half-way; it is opened anew from what is on the card"
            );
        } else {
            self.store = Some(store);
        }
        answer
    }

    fn open(&mut self) -> Result<Store, BufferError> {
        let now = self.clock.mono_ms();
        if let Some(error) = self.retry.too_early(now) {
            return Err(error);
        }
        self.retry.openings += 1;
        self.retry.at = now;
        let steps = Steps::default();
        let opened = Store::open(&self.root, self.limits, &self.clock, &steps, self.suspect);
        match opened {
            Ok(mut store) => {
                self.suspect = false;
                self.settle(&mut store);
                Ok(store)
            }
            Err(e) => {
                self.retry.error = Some(e.clone());
                Err(e)
            }
        }
    }

    /// Hands the losses to a store that was opened anew. It knows which were none.
    fn settle(&mut self, store: &mut Store) {
        store.losses = std::mem::take(&mut self.losses);
        store.losses.settle(&store.lanes);
        for (stream, sum, reason) in std::mem::take(&mut self.unsettled) {
            match store.holds(stream, sum) {
                Ok(true) => {}
                Ok(false) => store.losses.add(stream, reason, self.clock.wall_ms()),
                Err(_) => self.unsettled.push((stream, sum, reason)),
            }
        }
    }

    fn lose(&mut self, stream: Stream, reason: GapReason) {
        let at_ms = self.clock.wall_ms();
        let losses = self
            .store
            .as_mut()
            .map_or(&mut self.losses, |s| &mut s.losses);
        losses.add(stream, reason, at_ms);
    }

    /// Hands found damage to the handle.
    pub(super) fn take_damage(&mut self, store: &mut Store) {
        let found = std::mem::take(&mut store.damage);
        if let Some(detail) = found.detail {
            let mut told = self
                .damage
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            told.add(found.records, || detail);
        }
    }
}
