//! Back-pressure: what is on the way from a socket to ingest, per agent and in all.
//!
//! Promise: the bytes between the sockets and ingest are bounded by [`POOL`], and by [`SHARE`] for one
//! agent, whatever the agents do and however slow ingest is. Both semaphores are first come, first
//! served, and an agent has one connection that waits for one message at a time, so no agent can
//! starve another.
//!
//! Invariant: every charge that was taken is held by exactly one of the connection that is about to
//! publish, the [`Ledger`], or the [`Arrived`](super::Arrived) that ingest holds. The ledger hands
//! charges over by ticket, in the order of publishing; a ticket that arrives proves that all earlier
//! ones of that agent arrived or never will, so a message lost in between cannot leak its charge.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scc_common::id::AgentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::{MESSAGE_OVERHEAD, POOL, SHARE};
use super::lock;

/// A share of the gate's memory, given back on drop.
#[derive(Debug, Default)]
pub struct Charge {
    /// Released in this order; none at all in a charge that was made by `default`.
    _held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

/// What all agents share.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Semaphore>);

impl Pool {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(POOL)))
    }

    /// Bytes taken now.
    pub(super) fn in_use(&self) -> usize {
        POOL.saturating_sub(self.0.available_permits())
    }

    /// Waits until the agent's share and the pool both have room for a payload of this length.
    /// Dropping the future gives up the place in the queue and whatever it held.
    pub(super) async fn charge(&self, share: &Share, payload: usize) -> Charge {
        let bytes = u32::try_from((payload + MESSAGE_OVERHEAD).min(SHARE)).unwrap_or(u32::MAX);
        // The share first: whoever waits for the pool must not also stand in its own way.
        let own = Arc::clone(&share.0).acquire_many_owned(bytes).await;
        let all = Arc::clone(&self.0).acquire_many_owned(bytes).await;
        // Neither semaphore is ever closed.
        Charge {
            _held: own.ok().zip(all.ok()),
        }
    }
}

/// What one agent may use; survives its connections, because so do its charges.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Semaphore>);

impl Share {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SHARE)))
    }
}

/// Payloads, with their charges, that have been handed to the router and have not yet come out of it.
/// The router's ring holds tickets only: it forgets nothing by itself that was read, so what lies in it
/// would be the hub's memory for as long as little comes in.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: AtomicU64,
    waiting: Mutex<HashMap<AgentId, VecDeque<(Ticket, Charged)>>>,
}

/// A payload and what was charged for it.
#[derive(Debug, Default)]
pub(super) struct Charged {
    pub(super) payload: Bytes,
    pub(super) charge: Charge,
}

/// Names one message while it is inside the router.
pub(super) type Ticket = u64;

impl Ledger {
    /// Before the message goes into the router.
    pub(super) fn enter(&self, agent: &AgentId, charged: Charged) -> Ticket {
        let mut waiting = lock(&self.waiting);
        // Under the lock, so that tickets of one agent are queued in ascending order.
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(queue) = waiting.get_mut(agent) {
            queue.push_back((ticket, charged));
        } else {
            waiting.insert(agent.clone(), VecDeque::from([(ticket, charged)]));
        }
        ticket
    }

    /// When it has come out: what it stands for, and how many before it were lost. `None` for a ticket
    /// that was never given or has come out before.
    pub(super) fn leave(&self, agent: &AgentId, ticket: Ticket) -> (Option<Charged>, usize) {
        let mut waiting = lock(&self.waiting);
        let Some(queue) = waiting.get_mut(agent) else {
            return (None, 0);
        };
        let mut lost = 0;
        while let Some((queued, _)) = queue.front() {
            if *queued > ticket {
                break;
            }
            if let Some((queued, charged)) = queue.pop_front() {
                if queued == ticket {
                    return (Some(charged), lost);
                }
                lost += 1;
            }
        }
        (None, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn now<F: Future>(future: F) -> Option<F::Output> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(future).poll(&mut cx) {
            std::task::Poll::Ready(out) => Some(out),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn one_agent_stops_at_its_share_and_the_others_go_on() {
        let pool = Pool::new();
        let (greedy, modest) = (Share::new(), Share::new());
        let half = SHARE / 2 - MESSAGE_OVERHEAD;
        let first = now(pool.charge(&greedy, half));
        let second = now(pool.charge(&greedy, half));
        assert!(first.is_some() && second.is_some());
        assert!(now(pool.charge(&greedy, 0)).is_none());
        assert!(now(pool.charge(&modest, half)).is_some());
        drop(first);
        assert!(now(pool.charge(&greedy, half)).is_some());
        drop(second);
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn empty_messages_are_not_free() {
        let pool = Pool::new();
        let share = Share::new();
        let taken: Vec<_> = std::iter::from_fn(|| now(pool.charge(&share, 0))).collect();
        assert_eq!(taken.len(), SHARE / MESSAGE_OVERHEAD);
    }

    #[test]
    fn who_waits_longest_for_the_pool_is_served_first() {
        let pool = Pool::new();
        let mut held: Vec<_> = (0..POOL / SHARE)
            .filter_map(|_| now(pool.charge(&Share::new(), SHARE)))
            .collect();
        assert_eq!(pool.in_use(), POOL);
        let (large_share, small_share) = (Share::new(), Share::new());
        let mut large = pin!(pool.charge(&large_share, SHARE));
        let mut small = pin!(pool.charge(&small_share, 0));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(large.as_mut().poll(&mut cx).is_pending());
        assert!(small.as_mut().poll(&mut cx).is_pending());
        held.pop();
        assert!(small.as_mut().poll(&mut cx).is_pending(), "no overtaking");
        assert!(large.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_message_that_the_router_lost_does_not_leak_its_charge() {
        let agent = AgentId::new("rsud").unwrap();
        let (pool, share, ledger) = (Pool::new(), Share::new(), Ledger::default());
        let tickets: Vec<_> = (0..3)
            .filter_map(|_| now(pool.charge(&share, 1_000)))
            .map(|charge| {
                let payload = Bytes::new();
                ledger.enter(&agent, Charged { payload, charge })
            })
            .collect();
        let (first, lost) = ledger.leave(&agent, tickets[0]);
        assert!(first.is_some() && lost == 0);
        drop(first);
        let (third, lost) = ledger.leave(&agent, tickets[2]);
        assert!(third.is_some() && lost == 1);
        drop(third);
        assert_eq!(pool.in_use(), 0);
        let (gone, lost) = ledger.leave(&agent, tickets[1]);
        assert!(gone.is_none() && lost == 0);
    }
}
