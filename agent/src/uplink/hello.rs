//! Writing the hello, so that it always fits into one payload.

use scc_common::id::Epoch;
use scc_common::wire::{LaneOffer, MAX_PAYLOAD};

/// Room that the rest of the envelope may need.
const SPARE: usize = 2 * 1024;

/// At least as many bytes as an offer takes in CBOR, its ranges and gaps left out.
const LANE: usize = 96;

/// Shortens offers until a hello with them fits into a payload.
///
/// Where the lanes alone are too many, some are left out, and `true` is returned: never one of the
/// epoch that new records get, first those that have nothing to tell, then those of which nothing is
/// `waiting` for the hub. The hub is not asked about them; they are sent from their first record on,
/// and what it has already is a duplicate.
///
/// Then, of the lane with most to tell, the older half of its longer list goes. What is not told now
/// is told ahead of the first record after the hole, and nothing is deleted because of it: only what
/// the hub says it has is.
pub(super) fn fit(
    offers: &mut Vec<LaneOffer>,
    current: Epoch,
    waiting: impl Fn(&LaneOffer) -> bool,
) -> bool {
    let most = (MAX_PAYLOAD - SPARE) / LANE;
    let partial = offers.len() > most;
    if partial {
        tracing::warn!(lanes = offers.len(), most, "too many lanes for one hello");
        offers.sort_by_key(|offer| {
            let former = offer.epoch != current;
            let silent = offer.held.is_empty() && offer.gaps.is_empty();
            (former, !waiting(offer), silent)
        });
        offers.truncate(most);
    }
    loop {
        // with empty lists they fit, so there is something to shorten as long as they do not
        let size: usize = offers.iter().map(weight).sum();
        if size + SPARE <= MAX_PAYLOAD {
            return partial;
        }
        let Some(most) = offers.iter_mut().max_by_key(|o| weight(o)) else {
            return partial;
        };
        tracing::warn!(
            epoch = %most.epoch,
            stream = %most.stream,
            gaps = most.gaps.len(),
            held = most.held.len(),
            "too much to tell in one hello; the older half waits"
        );
        if most.gaps.len() >= most.held.len() {
            most.gaps.drain(..most.gaps.len().div_ceil(2));
        } else {
            most.held.drain(..most.held.len().div_ceil(2));
        }
    }
}

/// At least as many bytes as the offer takes in CBOR.
fn weight(offer: &LaneOffer) -> usize {
    LANE + offer.held.len() * 40 + offer.gaps.len() * 128
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::id::{AgentId, BootId};
    use scc_common::stream::Stream;
    use scc_common::wire::{Gap, GapReason, Hello, SeqRange, Up, UpMessage};

    /// The longest hello that there is with these lanes.
    fn payload(lanes: &[LaneOffer], partial: bool) -> Vec<u8> {
        let hello = Hello {
            nonce: u64::MAX,
            version: "0.1.0".into(),
            boot: BootId([0xff; 16]),
            wall_ms: i64::MAX,
            epoch: Epoch(u64::MAX),
            lanes: lanes.to_vec(),
            partial,
        };
        let agent = AgentId::new("a".repeat(64)).unwrap();
        Up::new(agent, UpMessage::Hello(hello)).encode()
    }

    #[test]
    fn a_card_full_of_holes_still_says_hello() {
        let range = |n: u64| SeqRange {
            first: u64::MAX / 2 + n * 3,
            last: u64::MAX / 2 + n * 3 + 1,
        };
        let mut offers: Vec<LaneOffer> = Stream::ALL
            .into_iter()
            .map(|stream| LaneOffer {
                epoch: Epoch(u64::MAX),
                stream,
                next: u64::MAX,
                held: (0..5_000).map(range).collect(),
                gaps: (0..5_000)
                    .map(|n| Gap {
                        epoch: Epoch(u64::MAX),
                        stream,
                        range: range(n),
                        reason: GapReason::EvictedAfterAck,
                        at_ms: i64::MAX,
                    })
                    .collect(),
            })
            .collect();
        assert!(!fit(&mut offers, Epoch(u64::MAX), |_| true));
        let bytes = payload(&offers, false);
        assert!(bytes.len() <= MAX_PAYLOAD, "{} bytes", bytes.len());
        assert!(
            bytes.len() > MAX_PAYLOAD / 4,
            "told too little: {}",
            bytes.len()
        );
        assert!(Up::decode(&bytes).is_ok());
    }

    #[test]
    fn a_card_of_more_epochs_than_fit_still_says_hello() {
        let current = Epoch(7_777);
        let lane = |n: u64| LaneOffer {
            epoch: Epoch(n),
            stream: Stream::Segment,
            next: u64::MAX,
            held: match n % 3 {
                0 => Vec::new(),
                _ => vec![SeqRange { first: 1, last: n }],
            },
            gaps: Vec::new(),
        };
        let mut offers: Vec<LaneOffer> = (0..8_000).map(lane).collect();
        // every ninth holds records of which the hub has none
        assert!(fit(&mut offers, current, |offer| offer.epoch.0 % 9 == 1));
        let bytes = payload(&offers, true);
        assert!(bytes.len() <= MAX_PAYLOAD, "{} bytes", bytes.len());
        assert!(offers.len() > 5_000, "told too little: {}", offers.len());
        assert!(offers.iter().any(|offer| offer.epoch == current));
        let of = |rest, by| offers.iter().filter(move |o| o.epoch.0 % by == rest);
        assert_eq!(of(1, 9).count(), 889, "what waits for the hub comes first");
        assert!(
            of(0, 3).count() < 200,
            "what has nothing to tell goes first"
        );
    }
}
