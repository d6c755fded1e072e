//! How much may be on its way to the hub at once.
//!
//! Two limits hold together. The hub's *permission* is never exceeded. And what is in flight should
//! take no longer than half a second to be acknowledged beyond the link's own delay, because a
//! punch made now queues behind it: `max(one part, rate × (0.5 s + least delay seen))`. The rate is
//! what the hub acknowledges (as BBR measures it: bytes delivered between the sending of a piece and
//! its acknowledgement), so the whole way counts, the hub's commits included. Bulk (parts of large
//! records) leaves 64 KiB of the permission to small records, which may go while bulk fills the rest.
//!
//! The least delay is part of the target so that a satellite link (0.6 s) or a hub whose disk takes a
//! second to commit does not shrink the window to one part per round trip.

use std::collections::VecDeque;
use std::time::Duration;

use scc_common::wire::{MAX_PART, MAX_PART_SLOW};
use tokio::time::Instant;

/// What bulk leaves to small records.
pub(super) const RESERVE: u64 = 64 * 1024;

/// How much queueing a new record may find ahead of it.
const QUEUE: Duration = Duration::from_millis(500);

/// Below this rate (2 Mbit/s) parts are small.
const FAST: u64 = 250_000;

/// How long a measured rate counts.
const MEMORY: Duration = Duration::from_secs(5);

/// A delay longer than this is a queue or a fault somewhere, not the length of the way.
const LONGEST_WAY: Duration = Duration::from_millis(1_500);

/// The delay of a piece of at most this many bytes is the length of the way, not the time that its
/// own bytes took.
const TINY: u64 = 4 * 1024;

/// The two kinds of traffic that share a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Batches of small records.
    Small,
    /// Parts of large records.
    Bulk,
}

/// One piece in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    class: Class,
    bytes: u64,
    at: Instant,
    /// [`Window::delivered`] when it was sent.
    delivered: u64,
    /// There was enough in flight for the sample to say something about the link.
    full: bool,
}

/// The window.
#[derive(Debug, Default)]
pub(super) struct Window {
    permission: u64,
    small: u64,
    bulk: u64,
    delivered: u64,
    /// Measured rates in bytes per second, newest last.
    rates: VecDeque<(Instant, u64)>,
    least_delay: Option<Duration>,
}

impl Window {
    /// The hub's newest word.
    pub(super) fn permit(&mut self, bytes: u32) {
        self.permission = u64::from(bytes);
    }

    /// What the hub allows at all.
    pub(super) const fn permission(&self) -> u64 {
        self.permission
    }

    /// Nothing is in flight any more (before a new hello). What was measured stays.
    pub(super) fn clear(&mut self) {
        self.small = 0;
        self.bulk = 0;
        self.permission = 0;
    }

    /// A small message and its answer took this long.
    pub(super) fn way(&mut self, delay: Duration) {
        self.least_delay = Some(self.least_delay.map_or(delay, |least| least.min(delay)));
    }

    /// Bytes per second that the hub acknowledges; none until something was acknowledged.
    pub(super) fn rate(&self) -> Option<u64> {
        self.rates.iter().map(|(_, rate)| *rate).max()
    }

    /// Largest part to send now.
    pub(super) fn part(&self) -> usize {
        if self.rate().is_some_and(|rate| rate >= FAST) {
            MAX_PART
        } else {
            MAX_PART_SLOW
        }
    }

    fn target(&self) -> u64 {
        let part = u64::try_from(self.part()).unwrap_or(u64::MAX);
        let way = QUEUE + self.least_delay.unwrap_or_default().min(LONGEST_WAY);
        let millis = u64::try_from(way.as_millis()).unwrap_or(u64::MAX);
        let worth = self.rate().unwrap_or(0).saturating_mul(millis) / 1_000;
        worth.max(part)
    }

    /// What is left of the permission.
    pub(super) const fn permitted(&self) -> u64 {
        self.permission.saturating_sub(self.small + self.bulk)
    }

    /// Bytes of this class that may be sent now.
    pub(super) fn room(&self, class: Class) -> u64 {
        let target = self.target();
        let permitted = self.permitted();
        let wanted = match class {
            Class::Small => target
                .saturating_sub(self.bulk)
                .max(target.min(RESERVE))
                .saturating_sub(self.small),
            Class::Bulk => {
                // of a small permission, half is kept for small records
                let most = self.permission - self.permission.min(RESERVE).min(self.permission / 2);
                target.min(most).saturating_sub(self.bulk)
            }
        };
        wanted.min(permitted)
    }

    /// Whether nothing of this class is in flight.
    pub(super) const fn idle(&self, class: Class) -> bool {
        match class {
            Class::Small => self.small == 0,
            Class::Bulk => self.bulk == 0,
        }
    }

    /// A piece goes out.
    pub(super) fn sent(&mut self, class: Class, bytes: u64, now: Instant) -> Piece {
        match class {
            Class::Small => self.small += bytes,
            Class::Bulk => self.bulk += bytes,
        }
        Piece {
            class,
            bytes,
            at: now,
            delivered: self.delivered,
            full: (self.small + self.bulk) * 2 >= self.target(),
        }
    }

    /// Pieces were acknowledged by one message of the hub.
    pub(super) fn acknowledged(&mut self, pieces: &[Piece], now: Instant) {
        for piece in pieces {
            let count = match piece.class {
                Class::Small => &mut self.small,
                Class::Bulk => &mut self.bulk,
            };
            *count = count.saturating_sub(piece.bytes);
            self.delivered = self.delivered.saturating_add(piece.bytes);
        }
        for piece in pieces {
            let delay = now.saturating_duration_since(piece.at);
            if piece.bytes <= TINY {
                self.way(delay);
            }
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).max(1);
            let rate = (self.delivered - piece.delivered).saturating_mul(1_000) / millis;
            // a single small record says nothing about how fast the link could be
            if piece.full || self.rate().is_none_or(|known| rate > known) {
                self.rates
                    .retain(|(at, _)| now.saturating_duration_since(*at) < MEMORY);
                self.rates.push_back((now, rate));
                if self.rates.len() > 64 {
                    self.rates.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as much bulk as the window allows over a link of `rate` bytes/s and `delay`, for a
    /// simulated minute; returns bytes per second and the longest time that a piece took.
    fn drain(rate: u64, delay: Duration, permission: u32) -> (u64, Duration) {
        let start = Instant::now();
        let mut now = start;
        let mut window = Window::default();
        window.permit(permission);
        window.way(delay); // the hello's
        let mut flying: VecDeque<(Instant, Piece)> = VecDeque::new();
        let mut free_at = start;
        let (mut total, mut longest) = (0, Duration::ZERO);
        while now < start + Duration::from_secs(60) {
            loop {
                let part = u64::try_from(window.part()).unwrap();
                let bytes = part.min(window.room(Class::Bulk));
                if bytes < part / 4 {
                    break;
                }
                let piece = window.sent(Class::Bulk, bytes, now);
                assert!(window.bulk + window.small <= u64::from(permission));
                free_at = free_at.max(now) + Duration::from_millis(bytes * 1_000 / rate);
                flying.push_back((free_at + delay, piece));
            }
            let (at, piece) = flying.pop_front().unwrap();
            now = now.max(at);
            if now > start + Duration::from_secs(20) {
                longest = longest.max(now - piece.at);
                total += piece.bytes;
            }
            window.acknowledged(&[piece], now);
        }
        (total / 40, longest)
    }

    #[test]
    fn a_link_is_filled_and_a_punch_waits_less_than_a_second_behind_bulk() {
        for (rate, delay_ms) in [
            (60_000, 80),
            (250_000, 40),
            (1_000_000, 30),
            (2_000_000, 250),
        ] {
            let delay = Duration::from_millis(delay_ms);
            let (reached, longest) = drain(rate, delay, 4 << 20);
            assert!(reached * 10 >= rate * 8, "{rate}: only {reached} bytes/s");
            assert!(
                longest <= delay + Duration::from_millis(900),
                "{rate}: {longest:?} in flight"
            );
        }
    }

    #[test]
    fn a_long_way_does_not_shrink_the_window_to_one_part() {
        let (reached, _) = drain(500_000, Duration::from_millis(700), 4 << 20);
        assert!(
            reached >= 350_000,
            "only {reached} bytes/s over a satellite"
        );
    }

    #[test]
    fn bulk_leaves_room_for_small_records_under_any_permission() {
        for permission in [1_000, 20_000, 100_000, 512 * 1024] {
            let mut window = Window::default();
            window.permit(permission);
            let now = Instant::now();
            while window.room(Class::Bulk) > 0 {
                let bytes = window.room(Class::Bulk);
                window.sent(Class::Bulk, bytes, now);
            }
            assert!(
                window.room(Class::Small) >= u64::from(permission / 2).min(32 * 1024),
                "{permission}"
            );
        }
        let window = Window::default();
        assert_eq!(
            window.room(Class::Small),
            0,
            "no permission, nothing in flight"
        );
    }
}
