//! Sockets that have not yet said who they are.
//!
//! They have room of their own ([`PENDING`]), so strangers never take an agent's place, and when that
//! room is full the oldest of the address with the most has to go. An honest agent is in here for two
//! round trips only; whoever keeps silent becomes the oldest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::limits::{PENDING, PENDING_PER_ADDRESS};
use super::lock;

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Oldest first.
    slots: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    from: IpAddr,
    evicted: CancellationToken,
}

/// A place in the room; left on drop.
#[derive(Debug)]
pub(super) struct Slot {
    room: Arc<Pending>,
    /// Cancelled when the place is given to somebody else.
    pub(super) evicted: CancellationToken,
}

impl Pending {
    /// Always lets the newcomer in; somebody else may have to go for it.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Slot {
        let from = network(from);
        let mut slots = lock(&self.slots);
        if slots.iter().filter(|s| s.from == from).count() >= PENDING_PER_ADDRESS {
            evict(&mut slots, from);
        } else if slots.len() >= PENDING {
            evict_from_busiest(&mut slots);
        }
        let evicted = CancellationToken::new();
        slots.push(Waiting {
            from,
            evicted: evicted.clone(),
        });
        drop(slots);
        Slot {
            room: Arc::clone(self),
            evicted,
        }
    }

    /// Makes room when the system has no more file descriptors.
    pub(super) fn make_room(&self) {
        evict_from_busiest(&mut lock(&self.slots));
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.slots).len()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Only a slot that is no longer in the list has its token cancelled by `evict`; cancelling it
        // here marks it for removal by identity without a number of its own.
        self.evicted.cancel();
        lock(&self.room.slots).retain(|slot| !slot.evicted.is_cancelled());
    }
}

fn evict_from_busiest(slots: &mut Vec<Waiting>) {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for slot in slots.iter() {
        *counts.entry(slot.from).or_default() += 1;
    }
    let busiest = counts.into_iter().max_by_key(|(_, count)| *count);
    if let Some((from, _)) = busiest {
        evict(slots, from);
    }
}

fn evict(slots: &mut Vec<Waiting>, from: IpAddr) {
    if let Some(oldest) = slots.iter().position(|slot| slot.from == from) {
        slots.remove(oldest).evicted.cancel();
    }
}

/// Whoever has one IPv6 address has the other 2^64 of its network as well.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_oldest_of_the_same_address_goes_first() {
        let room = Arc::new(Pending::default());
        let other = room.enter(ip(1));
        let mut flood: Vec<_> = (0..=PENDING_PER_ADDRESS)
            .map(|_| room.enter(ip(2)))
            .collect();
        assert!(flood[0].evicted.is_cancelled());
        assert!(flood[1..].iter().all(|s| !s.evicted.is_cancelled()));
        assert!(!other.evicted.is_cancelled());
        assert_eq!(room.len(), PENDING_PER_ADDRESS + 1);
        flood.clear();
        assert_eq!(room.len(), 1);
    }

    #[test]
    fn a_full_room_takes_from_the_address_with_the_most() {
        let room = Arc::new(Pending::default());
        let lone = room.enter(ip(200));
        let few: Vec<_> = (0..100).map(|_| room.enter(ip(1))).collect();
        let many: Vec<_> = (0..120).map(|_| room.enter(ip(2))).collect();
        let rest: Vec<_> = (0..PENDING - 221).map(|_| room.enter(ip(3))).collect();
        assert_eq!(room.len(), PENDING);
        let newcomer = room.enter(ip(201));
        assert_eq!(room.len(), PENDING);
        assert!(many[0].evicted.is_cancelled());
        assert!(
            [&lone, &newcomer, &few[0], &rest[0]]
                .iter()
                .all(|s| !s.evicted.is_cancelled())
        );
    }

    #[test]
    fn neighbours_of_an_ipv6_network_count_as_one() {
        let one = network("2001:db8::1".parse().unwrap());
        assert_eq!(one, network("2001:db8::2".parse().unwrap()));
        assert_ne!(one, network("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), ip(1));
    }
}
