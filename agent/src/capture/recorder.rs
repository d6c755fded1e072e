//! Turns changes on the board and the agent's own events into event records, one after the other.
//!
//! Promise: what the buffer refuses (full, or its card fails) is not lost while the agent runs. It
//! waits here, in order and with the time at which it happened, and is offered again every
//! [`RETRY`]. Of each device only the newest state waits, so what waits is bounded: by the devices of
//! the configuration, and [`MOST`] other events, the oldest of which goes first. What goes is given up,
//! and so counted as lost, by the buffer; of states that a newer one took the place of the number is
//! logged as well, when the others are accepted.
//!
//! Not bounded is what stands before it: while a card neither takes nor refuses an event, nothing is
//! taken from the two channels. They grow as slowly as devices change their states.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use scc_common::clock::SharedClock;
use scc_common::record::{Content, DeviceState, Event, RecordBody};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::accept::Accept;
use crate::buffer::BufferError;

/// Between two tries while the buffer refuses.
const RETRY: Duration = Duration::from_secs(5);

/// Events other than states of devices that may wait.
const MOST: usize = 64;

/// Records events until every sender is gone. `poke` is told of each change on the board.
pub async fn record<A: Accept>(
    accept: A,
    clock: SharedClock,
    poke: Arc<Notify>,
    mut changes: mpsc::UnboundedReceiver<DeviceState>,
    mut incoming: mpsc::UnboundedReceiver<Event>,
) {
    let mut waiting = Waiting::default();
    let mut retry_at = Instant::now();
    loop {
        let event = tokio::select! {
            event = next(&mut changes, &mut incoming) => event,
            () = sleep_until(retry_at), if !waiting.is_empty() => {
                waiting.offer(&accept).await;
                retry_at = Instant::now() + RETRY;
                continue;
            }
        };
        let Some(event) = event else { break };
        let device = match &event {
            Event::DeviceState(state) => {
                poke.notify_one();
                Some(state.device.clone())
            }
            _ => None,
        };
        let is_first = waiting.is_empty();
        let body = RecordBody::new(clock.stamp(), device, Content::Event(event));
        for dropped in waiting.push(body) {
            waiting.give_up(&accept, &dropped).await;
        }
        // behind others it waits for its turn
        if is_first {
            waiting.offer(&accept).await;
            retry_at = Instant::now() + RETRY;
        }
    }
    waiting.offer(&accept).await;
    if !waiting.is_empty() {
        tracing::warn!(
            events = waiting.len(),
            superseded = waiting.superseded,
            "the buffer has not accepted them"
        );
        for dropped in &waiting.bodies {
            waiting.give_up(&accept, dropped).await;
        }
    }
}

async fn next(
    changes: &mut mpsc::UnboundedReceiver<DeviceState>,
    incoming: &mut mpsc::UnboundedReceiver<Event>,
) -> Option<Event> {
    tokio::select! {
        biased;
        Some(state) = changes.recv() => Some(Event::DeviceState(state)),
        Some(event) = incoming.recv() => Some(event),
        else => None,
    }
}

/// Events that are not yet accepted, oldest first.
#[derive(Debug, Default)]
struct Waiting {
    bodies: VecDeque<RecordBody>,
    /// Why the buffer has refused the first of them, if it has.
    refused: Option<BufferError>,
    /// States that a newer one of their device took the place of while they waited.
    superseded: u64,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Puts one behind the others; those that no longer wait for it.
    fn push(&mut self, body: RecordBody) -> Vec<RecordBody> {
        let mut dropped = Vec::new();
        if body.device.is_some() {
            // its newest state says what is; that there were others only their number
            let older = self.bodies.iter().position(|b| b.device == body.device);
            if let Some(older) = older.and_then(|at| self.bodies.remove(at)) {
                self.superseded += 1;
                dropped.push(older);
            }
        } else if self.bodies.iter().filter(|b| b.device.is_none()).count() >= MOST
            && let Some(oldest) = self.bodies.iter().position(|b| b.device.is_none())
        {
            dropped.extend(self.bodies.remove(oldest));
            tracing::warn!(
                ?dropped,
                "too many events wait for the buffer; one is dropped"
            );
        }
        self.bodies.push_back(body);
        dropped
    }

    /// Has it counted as lost.
    async fn give_up(&self, accept: &impl Accept, dropped: &RecordBody) {
        // what waits was refused, or stands behind what was
        if let Some(refused) = &self.refused {
            accept.give_up(dropped, refused).await;
        }
    }

    /// Offers them in order until the buffer refuses one.
    async fn offer(&mut self, accept: &impl Accept) {
        while let Some(body) = self.bodies.front() {
            let accepted = match self.refused {
                // what a failing card has refused may have been stored all the same
                Some(_) => match accept.holds(body).await {
                    Ok(true) => Ok(()),
                    Ok(false) => accept.append(body).await.map(drop),
                    Err(error) => Err(error),
                },
                None => accept.append(body).await.map(drop),
            };
            match accepted {
                Ok(()) => {}
                Err(error @ BufferError::TooLarge(_)) => {
                    tracing::error!(%error, "an event is dropped");
                    accept.give_up(body, &error).await;
                }
                Err(error) => {
                    if self.refused.is_none() {
                        tracing::warn!(%error, "an event was not accepted; it waits");
                    }
                    self.refused = Some(error);
                    return;
                }
            }
            self.bodies.pop_front();
        }
        if self.refused.take().is_some() {
            let superseded = std::mem::take(&mut self.superseded);
            tracing::info!(superseded, "the buffer has accepted the events that waited");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Accepted;
    use scc_common::clock::{Clock, ManualClock};
    use scc_common::id::{DeviceId, Epoch};
    use scc_common::record::{Cause, DeviceKind, State};
    use std::sync::Mutex;

    #[derive(Debug, Default, PartialEq)]
    enum Card {
        #[default]
        Well,
        Full,
        /// Says that it failed, and has the record.
        Lies,
    }

    #[derive(Debug, Default)]
    struct Inside {
        card: Card,
        events: Vec<RecordBody>,
        given_up: Vec<RecordBody>,
    }

    #[derive(Debug, Clone, Default)]
    struct Shelf(Arc<Mutex<Inside>>);

    impl Shelf {
        fn becomes(&self, card: Card) {
            self.0.lock().unwrap().card = card;
        }

        fn events(&self) -> Vec<RecordBody> {
            self.0.lock().unwrap().events.clone()
        }

        fn given_up(&self) -> Vec<RecordBody> {
            self.0.lock().unwrap().given_up.clone()
        }
    }

    impl Accept for Shelf {
        async fn append(&self, body: &RecordBody) -> Result<Accepted, BufferError> {
            let mut inner = self.0.lock().unwrap();
            if inner.card == Card::Full {
                return Err(BufferError::Full("the test says so".into()));
            }
            inner.events.push(body.clone());
            if inner.card == Card::Lies {
                return Err(BufferError::Disk("the test says so".into()));
            }
            Ok(Accepted {
                epoch: Epoch(1),
                stream: body.stream(),
                seq: 1,
            })
        }

        async fn give_up(&self, body: &RecordBody, _: &BufferError) {
            self.0.lock().unwrap().given_up.push(body.clone());
        }

        async fn holds(&self, body: &RecordBody) -> Result<bool, BufferError> {
            Ok(self.events().contains(body))
        }
    }

    struct Rig {
        shelf: Shelf,
        clock: Arc<ManualClock>,
        changes: mpsc::UnboundedSender<DeviceState>,
        events: mpsc::UnboundedSender<Event>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Rig {
        fn start() -> Self {
            let (shelf, clock) = (Shelf::default(), ManualClock::at(1_000));
            let (changes, changed) = mpsc::unbounded_channel();
            let (events, incoming) = mpsc::unbounded_channel();
            let task = record(
                shelf.clone(),
                clock.clone(),
                Arc::default(),
                changed,
                incoming,
            );
            Self {
                task: tokio::spawn(task),
                shelf,
                clock,
                changes,
                events,
            }
        }

        async fn change(&self, device: &str, state: State, cause: Option<Cause>) {
            self.clock.advance(100);
            let change = DeviceState {
                device: DeviceId::new(device).unwrap(),
                kind: DeviceKind::Camera,
                state,
                cause,
                since_ms: self.clock.wall_ms(),
                last_good_ms: None,
                detail: None,
            };
            self.changes.send(change).unwrap();
            // virtual time: the recorder has nothing else to do until then
            tokio::time::sleep(Duration::from_millis(1)).await;
        }

        async fn end(self) -> Shelf {
            drop((self.changes, self.events));
            self.task.await.unwrap();
            self.shelf
        }
    }

    fn states(events: &[RecordBody]) -> Vec<(&str, State, i64, i64)> {
        let state = |body: &RecordBody| match &body.content {
            Content::Event(Event::DeviceState(s)) => Some((s.state, s.since_ms)),
            _ => None,
        };
        events
            .iter()
            .filter_map(|body| {
                let (state, since_ms) = state(body)?;
                let device = body.device.as_ref()?.as_str();
                Some((device, state, since_ms, body.stamp.wall_ms))
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_buffer_refused_comes_when_there_is_room_the_newest_of_each_device() {
        let rig = Rig::start();
        rig.change("loket", State::Up, None).await;
        rig.shelf.becomes(Card::Full);
        rig.change("loket", State::Down, Some(Cause::Offline)).await;
        rig.change("pintu", State::Down, Some(Cause::Stalled)).await;
        rig.change("loket", State::Up, None).await;
        rig.change("loket", State::Down, Some(Cause::Refused)).await;
        rig.events.send(Event::AgentStopped {}).unwrap();
        tokio::time::sleep(10 * RETRY).await;
        assert_eq!(rig.shelf.events().len(), 1);
        rig.clock.advance(60_000);
        rig.shelf.becomes(Card::Well);
        tokio::time::sleep(RETRY).await;
        let events = rig.shelf.events();
        // dated when it happened, not when there was room
        assert_eq!(
            states(&events),
            [
                ("loket", State::Up, 1_100, 1_100),
                ("pintu", State::Down, 1_300, 1_300),
                ("loket", State::Down, 1_500, 1_500),
            ]
        );
        let last = &events.last().unwrap().content;
        assert_eq!(*last, Content::Event(Event::AgentStopped {}));
        rig.change("pintu", State::Up, None).await;
        assert_eq!(rig.shelf.events().len(), 5, "accepted at once again");
        let given_up = rig.end().await.given_up();
        let of = |since_ms| ("loket", since_ms);
        let gone: Vec<_> = states(&given_up).iter().map(|s| (s.0, s.2)).collect();
        assert_eq!(
            gone,
            [of(1_200), of(1_400)],
            "what a newer state replaced is counted"
        );
    }

    /// What is logged while it lives.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
            let log = Self::default();
            let to = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || to.clone())
                .with_ansi(false)
                .finish();
            (log, tracing::subscriber::set_default(subscriber))
        }

        /// How many states it says were superseded, in each line that says it.
        fn superseded(&self) -> Vec<u64> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.split("superseded=")
                .skip(1)
                .map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap())
                .collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn states_that_never_become_records_are_counted_in_the_log() {
        let (log, _guard) = Log::begin();
        let rig = Rig::start();
        rig.shelf.becomes(Card::Full);
        for _ in 0..3 {
            rig.change("loket", State::Down, Some(Cause::Offline)).await;
            rig.change("pintu", State::Up, None).await;
        }
        rig.shelf.becomes(Card::Well);
        tokio::time::sleep(RETRY).await;
        assert_eq!(log.superseded(), [4]);
        // the next time it counts from nothing, and says it also if there never is room
        rig.shelf.becomes(Card::Full);
        rig.change("loket", State::Up, None).await;
        rig.change("loket", State::Down, Some(Cause::Offline)).await;
        rig.end().await;
        assert_eq!(log.superseded(), [4, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_failing_card_has_stored_all_the_same_is_not_told_twice() {
        let rig = Rig::start();
        rig.shelf.becomes(Card::Lies);
        rig.change("loket", State::Up, None).await;
        rig.shelf.becomes(Card::Well);
        tokio::time::sleep(RETRY).await;
        rig.change("pintu", State::Up, None).await;
        let events = rig.end().await.events();
        assert_eq!(states(&events).len(), 2, "{events:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_is_offered_once_more_at_the_end() {
        let rig = Rig::start();
        rig.shelf.becomes(Card::Full);
        let begun = |n| Event::EpochBegun {
            epoch: Epoch(n),
            reason: String::new(),
        };
        for n in 0..1_000 {
            rig.events.send(begun(n)).unwrap();
        }
        rig.change("loket", State::Up, None).await;
        rig.shelf.becomes(Card::Well);
        let shelf = rig.end().await;
        let events = shelf.events();
        assert_eq!(events.len(), MOST + 1);
        assert_eq!(
            events.len() + shelf.given_up().len(),
            1_001,
            "each is one or the other"
        );
        assert_eq!(states(&events).len(), 1);
        let newest = &events.iter().rfind(|b| b.device.is_none()).unwrap().content;
        assert_eq!(*newest, Content::Event(begun(999)));
    }
}
