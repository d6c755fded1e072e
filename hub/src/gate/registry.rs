//! Who is connected, one connection per agent.
//!
//! A connection goes through: *claimed* (its CONNECT was good; the one before is told to leave), its
//! *turn* (the one before publishes no more), *live* (others can see it and send to it), gone.
//! Invariant: at most one connection per agent holds its turn, and only who holds it publishes.
//! An agent's account stays for the life of the process: its charges outlive its connections,
//! and there are only as many accounts as certificates.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scc_common::clock::{SharedClock, WallMs};
use scc_common::id::AgentId;
use tokio::sync::{Notify, broadcast, oneshot};

use super::limits::{DOWN_BYTES, DOWN_QUEUE, PRESENCE_BACKLOG};
use super::pool::Share;
use super::session::End;
use super::tls::CertificateName;
use super::{Presence, events, lock};

#[derive(Debug)]
pub(super) struct Registry {
    book: Mutex<Book>,
    presence: broadcast::Sender<Presence>,
    clock: SharedClock,
    /// Connections at one time.
    max: usize,
}

/// All accounts, and how many of them have what; only [`Book::set_claim`] and [`Book::set_live`] change
/// either, because everybody who connects or leaves asks for the numbers.
#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<AgentId, Account>,
    claimed: usize,
    live: usize,
}

#[derive(Debug)]
struct Account {
    share: Share,
    turn: Arc<tokio::sync::Mutex<()>>,
    claim: Option<Claim>,
    live: Option<Live>,
}

/// Names one connection.
type ConnectionNo = u64;

#[derive(Debug)]
struct Claim {
    no: ConnectionNo,
    certificate: CertificateName,
    cut: Option<oneshot::Sender<End>>,
}

#[derive(Debug)]
struct Live {
    no: ConnectionNo,
    since_ms: WallMs,
    down: Arc<Down>,
}

/// A connection's hold on its agent.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) no: ConnectionNo,
    pub(super) share: Share,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Says why the connection has to end now.
    pub(super) cut: oneshot::Receiver<End>,
}

impl Registry {
    pub(super) fn new(clock: SharedClock, max: usize) -> Self {
        Self {
            book: Mutex::default(),
            presence: broadcast::channel(PRESENCE_BACKLOG).0,
            clock,
            max,
        }
    }

    /// Makes a connection the agent's, telling the one before to leave. `None` when all places are
    /// taken; replacing one's own connection needs none.
    pub(super) fn claim(
        &self,
        agent: &AgentId,
        no: ConnectionNo,
        certificate: CertificateName,
        from: SocketAddr,
    ) -> Option<Claimed> {
        let mut book = lock(&self.book);
        let known = book.accounts.get(agent);
        let replaces = known.is_some_and(|account| account.claim.is_some());
        if !replaces && book.claimed >= self.max {
            return None;
        }
        if known.is_none() {
            book.accounts.insert(agent.clone(), Account::new());
        }
        let account = book.accounts.get(agent)?;
        let (share, turn) = (account.share.clone(), Arc::clone(&account.turn));
        let (cut, cut_rx) = oneshot::channel();
        let claim = Claim {
            no,
            certificate,
            cut: Some(cut),
        };
        if let Some(before) = book.set_claim(agent, Some(claim)) {
            before.cut(End::TakenOver(from));
        }
        Some(Claimed {
            no,
            share,
            turn,
            cut: cut_rx,
        })
    }

    /// Shows a connection to the others; returns how many there are now.
    pub(super) fn live(&self, agent: &AgentId, no: ConnectionNo, down: &Arc<Down>) -> usize {
        let mut book = lock(&self.book);
        let since_ms = self.clock.wall_ms();
        let down = Arc::clone(down);
        book.set_live(agent, Some(Live { no, since_ms, down }));
        // Sent under the lock, so that comings and goings are told in the order in which they happen.
        self.tell(agent, since_ms, true, String::new());
        book.live
    }

    /// Takes a connection out, whatever stage it had reached; says how many live ones are left if it
    /// was one.
    pub(super) fn leave(&self, agent: &AgentId, no: ConnectionNo, end: &End) -> Option<usize> {
        let mut book = lock(&self.book);
        let account = book.accounts.get(agent)?;
        let claimed = account.claim.as_ref().is_some_and(|claim| claim.no == no);
        let live = account.live.as_ref().is_some_and(|live| live.no == no);
        if claimed {
            book.set_claim(agent, None);
        }
        if !live {
            return None;
        }
        book.set_live(agent, None);
        self.tell(agent, self.clock.wall_ms(), false, end.to_string());
        Some(book.live)
    }

    fn tell(&self, agent: &AgentId, at_ms: WallMs, connected: bool, why: String) {
        // An error only says that nobody listens.
        let _ = self.presence.send(Presence {
            agent: agent.clone(),
            at_ms,
            connected,
            why,
        });
    }

    /// Ends the connections whose certificates these are.
    pub(super) fn cut(&self, end: &End, which: impl Fn(&CertificateName) -> bool) {
        for account in lock(&self.book).accounts.values_mut() {
            if let Some(claim) = &mut account.claim
                && which(&claim.certificate)
                && let Some(cut) = claim.cut.take()
            {
                // An error only says that it is ending already.
                let _ = cut.send(end.clone());
            }
        }
    }

    pub(super) fn send(&self, agent: &AgentId, payload: Bytes) {
        let down = lock(&self.book)
            .accounts
            .get(agent)
            .and_then(|account| account.live.as_ref())
            .map(|live| Arc::clone(&live.down));
        match down {
            Some(down) => events::down_dropped(down.push(payload)),
            None => events::down_dropped(1),
        }
    }

    pub(super) fn connected(&self) -> Vec<Presence> {
        let book = lock(&self.book);
        let mut all: Vec<_> = book
            .accounts
            .iter()
            .filter_map(|(agent, account)| {
                account.live.as_ref().map(|live| Presence {
                    agent: agent.clone(),
                    at_ms: live.since_ms,
                    connected: true,
                    why: String::new(),
                })
            })
            .collect();
        drop(book);
        all.sort_by(|a, b| a.agent.cmp(&b.agent));
        all
    }

    pub(super) fn presence(&self) -> broadcast::Receiver<Presence> {
        self.presence.subscribe()
    }
}

impl Claim {
    fn cut(mut self, end: End) {
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(end);
        }
    }
}

impl Book {
    /// Sets or takes what an agent has; gives back what it had before. Nothing without an account.
    fn set_claim(&mut self, agent: &AgentId, claim: Option<Claim>) -> Option<Claim> {
        let account = self.accounts.get_mut(agent)?;
        self.claimed += usize::from(claim.is_some());
        let before = std::mem::replace(&mut account.claim, claim);
        self.claimed -= usize::from(before.is_some());
        before
    }

    /// As [`set_claim`](Self::set_claim).
    fn set_live(&mut self, agent: &AgentId, live: Option<Live>) -> Option<Live> {
        let account = self.accounts.get_mut(agent)?;
        self.live += usize::from(live.is_some());
        let before = std::mem::replace(&mut account.live, live);
        self.live -= usize::from(before.is_some());
        before
    }
}

impl Account {
    fn new() -> Self {
        Self {
            share: Share::new(),
            turn: Arc::default(),
            claim: None,
            live: None,
        }
    }
}

/// What waits to go down to one agent. When it is full the oldest goes: acknowledgements are
/// cumulative and everything else down is repeated until it is answered.
#[derive(Debug, Default)]
pub(super) struct Down {
    queue: Mutex<DownQueue>,
    filled: Notify,
    /// Nothing may be sent to a client that has not subscribed.
    subscribed: AtomicBool,
}

#[derive(Debug, Default)]
struct DownQueue {
    payloads: VecDeque<Bytes>,
    bytes: usize,
}

impl Down {
    pub(super) fn subscribe(&self) {
        self.subscribed.store(true, Ordering::Release);
    }

    /// Returns how many payloads were dropped for it (itself, when it cannot be sent at all).
    fn push(&self, payload: Bytes) -> usize {
        if payload.len() > DOWN_BYTES || !self.subscribed.load(Ordering::Acquire) {
            return 1;
        }
        let mut queue = lock(&self.queue);
        queue.bytes += payload.len();
        queue.payloads.push_back(payload);
        let mut dropped = 0;
        while queue.payloads.len() > DOWN_QUEUE || queue.bytes > DOWN_BYTES {
            let Some(oldest) = queue.payloads.pop_front() else {
                break;
            };
            queue.bytes -= oldest.len();
            dropped += 1;
        }
        drop(queue);
        self.filled.notify_one();
        dropped
    }

    /// What waits longest.
    pub(super) fn pop(&self) -> Option<Bytes> {
        let mut queue = lock(&self.queue);
        let oldest = queue.payloads.pop_front()?;
        queue.bytes -= oldest.len();
        Some(oldest)
    }

    /// Waits for the next. Loses nothing when the future is dropped.
    pub(super) async fn next(&self) -> Bytes {
        loop {
            if let Some(payload) = self.pop() {
                return payload;
            }
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_the_oldest_by_count_and_by_bytes() {
        let down = Down::default();
        assert_eq!(down.push(Bytes::from_static(b"early")), 1, "not subscribed");
        down.subscribe();
        for i in 0..=DOWN_QUEUE {
            let dropped = down.push(Bytes::copy_from_slice(&i.to_be_bytes()));
            assert_eq!(dropped, usize::from(i == DOWN_QUEUE));
        }
        assert_eq!(down.pop().as_deref(), Some(&1_usize.to_be_bytes()[..]));
        assert_eq!(down.push(Bytes::from(vec![0; DOWN_BYTES])), DOWN_QUEUE - 1);
        assert_eq!(down.push(Bytes::from(vec![0; DOWN_BYTES + 1])), 1);
        assert_eq!(down.pop().map(|p| p.len()), Some(DOWN_BYTES));
        assert_eq!(down.pop(), None);
    }

    #[tokio::test]
    async fn places_are_limited_but_ones_own_can_be_taken_over() {
        let clock = scc_common::clock::ManualClock::at(0);
        let registry = Registry::new(clock, 1);
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let (rsud, psc) = (AgentId::new("rsud").unwrap(), AgentId::new("psc").unwrap());
        let claim = |agent, no| registry.claim(agent, no, CertificateName::default(), from);
        let first = claim(&rsud, 1).unwrap();
        assert!(claim(&psc, 2).is_none());
        let second = claim(&rsud, 3).unwrap();
        assert_eq!(first.cut.await, Ok(End::TakenOver(from)));
        // The first leaves late: the second's claim must stay.
        registry.leave(&rsud, 1, &End::Left);
        assert!(claim(&psc, 4).is_none());
        registry.leave(&rsud, second.no, &End::Left);
        assert!(claim(&psc, 5).is_some());
    }

    #[tokio::test]
    async fn the_numbers_are_those_of_the_accounts() {
        let registry = Registry::new(scc_common::clock::ManualClock::at(0), 4);
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let name = CertificateName::default;
        let agents: Vec<_> = (0..7)
            .map(|i| AgentId::new(format!("a{i}")).unwrap())
            .collect();
        // steps through all orders of coming, going live, being taken over and leaving twice
        let (mut held, mut refused) = (Vec::new(), 0);
        for step in 0..2_000_u64 {
            let pick = usize::try_from(step.wrapping_mul(2_654_435_761) >> 7).unwrap();
            let agent = &agents[pick % agents.len()];
            match pick % 5 {
                0 | 1 => match registry.claim(agent, step, name(), from) {
                    Some(claimed) => held.push((agent, claimed)),
                    None => refused += 1,
                },
                2 | 3 if !held.is_empty() => {
                    let (agent, claimed) = &held[pick % held.len()];
                    registry.live(agent, claimed.no, &Arc::default());
                }
                _ if !held.is_empty() => {
                    let at = pick % held.len();
                    let (agent, claimed) = &held[at];
                    registry.leave(agent, claimed.no, &End::Left);
                    if pick.is_multiple_of(2) {
                        held.swap_remove(at);
                    }
                }
                _ => {}
            }
            let book = lock(&registry.book);
            let count =
                |has: fn(&Account) -> bool| book.accounts.values().filter(|a| has(a)).count();
            assert_eq!(book.claimed, count(|a| a.claim.is_some()), "step {step}");
            assert_eq!(book.live, count(|a| a.live.is_some()), "step {step}");
            assert!(book.claimed <= 4);
        }
        assert!(refused > 0);
    }
}
