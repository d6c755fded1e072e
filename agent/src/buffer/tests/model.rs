//! Any order of appends, reads, acknowledgements, restarts and lost indexes, against a plain model.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) enum Step {
    /// A group: streams by number, sizes in KB.
    Append(Vec<(u8, u8)>),
    /// Watermark and one range above it, in percent of what was given.
    Acknowledge(u8, u8, u8),
    WantAgain(u8, u8),
    NewEpoch,
    Wait(u8),
    Reopen,
    LoseIndex,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => proptest::collection::vec((0u8..3, 1u8..30), 1..6).prop_map(Step::Append),
        3 => (0u8..101, 0u8..101, 0u8..30).prop_map(|(w, f, l)| Step::Acknowledge(w, f, l)),
        1 => (0u8..101, 0u8..101).prop_map(|(f, l)| Step::WantAgain(f, l)),
        1 => Just(Step::NewEpoch),
        1 => (0u8..40).prop_map(Step::Wait),
        2 => Just(Step::Reopen),
        1 => Just(Step::LoseIndex),
    ];
    proptest::collection::vec(step, 1..24)
}

/// What must be so, kept in the simplest way.
#[derive(Debug, Default)]
struct Model {
    given: BTreeMap<(Lane, Seq), Checksum>,
    next: BTreeMap<Lane, Seq>,
    /// Gaps are for ever in this test: nothing comes back once it is told lost.
    gone: BTreeMap<(Lane, Seq), GapReason>,
    /// Dropped after the hub had acknowledged them, which a lost index knew alone: the rebuilt one may
    /// call them damaged. The hub has them, and stored beats gap.
    forgotten: BTreeSet<(Lane, Seq)>,
}

impl Model {
    fn check(&mut self, store: &mut Store, index_lost: bool) {
        let contents = Contents::of(store);
        for (key, sum) in &self.given {
            match (contents.held.get(key), contents.gaps.get(key)) {
                (Some(held), None) => {
                    assert_eq!(held, sum, "{key:?} has changed");
                    assert!(!self.gone.contains_key(key), "{key:?} came back");
                }
                (None, Some(reason)) => {
                    let known = self.gone.entry(*key).or_insert(*reason);
                    if index_lost {
                        *known = *reason;
                    }
                    assert_eq!(known, reason, "{key:?} has another reason");
                    let allowed = match reason {
                        GapReason::EvictedAfterAck => true,
                        GapReason::Damaged if self.forgotten.contains(key) => true,
                        _ => key.0.stream.is_media(),
                    };
                    assert!(allowed, "{key:?} {reason:?}");
                    let by_policy = *reason != GapReason::Damaged || index_lost;
                    assert!(by_policy || self.gone.contains_key(key));
                }
                // an old epoch that the hub knows to its end, or whose last file went with its index
                (None, None) => assert_ne!(key.0.epoch, store.epoch, "{key:?} is unknown"),
                both => panic!("{key:?}: {both:?}"),
            }
        }
        assert!(contents.held.keys().all(|key| self.given.contains_key(key)));
        for (lane, next) in &self.next {
            if lane.epoch == store.epoch {
                assert_eq!(contents.next.get(lane), Some(next));
            }
        }
        for lane in store.stat().unwrap() {
            let of_lane = |key: &Lane| key.epoch == lane.epoch && key.stream == lane.stream;
            let state = &store.lanes[&lane_of(lane.epoch, lane.stream)];
            assert_eq!(lane.records, state.unacked().count());
            let gaps = contents.gaps.iter().filter(|((l, _), _)| of_lane(l));
            let lost = gaps.filter(|(_, reason)| **reason != GapReason::EvictedAfterAck);
            assert_eq!(lane.lost, lost.count() as u64);
        }
    }
}

/// The records of a [`Step::Append`], each with bytes of its own.
pub(super) fn bodies(records: &[(u8, u8)], clock: &dyn Clock, seed: &mut u64) -> Vec<RecordBody> {
    let body = |(kind, kb): &(u8, u8)| {
        *seed += 1;
        let len = usize::from(*kb) * 1_000;
        match kind {
            0 => event(clock, &seed.to_string()),
            1 => snapshot(clock, *seed, len),
            _ => segment(clock, *seed, len),
        }
    };
    records.iter().map(body).collect()
}

/// A share of the numbers that were given before `next`.
pub(super) fn part(next: Seq, percent: u8) -> Seq {
    (next - 1) * u64::from(percent) / 100
}

fn run(steps: &[Step]) {
    let (dir, clock) = (in_memory(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    let mut model = Model::default();
    let mut seed = 0;
    for step in steps {
        let mut index_lost = false;
        match step {
            Step::Append(records) => {
                let bodies = bodies(records, &*clock, &mut seed);
                let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
                for (answer, incoming) in store.append(&group).into_iter().zip(&group) {
                    let answer = answer.unwrap();
                    let lane = lane_of(answer.epoch, answer.stream);
                    let next = model.next.entry(lane).or_insert(1);
                    assert_eq!(answer.seq, *next, "numbers have no holes");
                    *next += 1;
                    model
                        .given
                        .insert((lane, answer.seq), Checksum::of(&incoming.body));
                }
            }
            Step::Acknowledge(water, first, len) => {
                for (lane, next) in model.next.clone() {
                    let first = part(next, *first).max(1);
                    let stored = range(first, first + u64::from(*len) / 10);
                    let water = part(next, *water);
                    store.acknowledge(lane, water, &[stored]).unwrap();
                }
            }
            Step::WantAgain(first, last) => {
                for (lane, next) in model.next.clone() {
                    let wanted = range(part(next, *first).max(1), part(next, *last));
                    store.want_again(lane, &[wanted]).unwrap();
                }
            }
            Step::NewEpoch => drop(store.begin_epoch().unwrap()),
            Step::Wait(hours) => {
                clock.advance(u32::from(*hours) * 3_600_000);
                store.tend().unwrap();
            }
            Step::Reopen => {
                drop(store);
                store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
                assert_eq!(store.damage, crate::buffer::Damage::default());
            }
            Step::LoseIndex => {
                drop(store);
                std::fs::remove_dir_all(dir.path().join("buffer/index")).unwrap();
                store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
                index_lost = true;
                let acked = |reason: &GapReason| *reason == GapReason::EvictedAfterAck;
                let acked = model.gone.iter().filter(|(_, reason)| acked(reason));
                model.forgotten.extend(acked.map(|(key, _)| *key));
                model.gone.retain(|key, _| key.0.stream.is_media());
            }
        }
        model.check(&mut store, index_lost);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_plain_list_with_policy(steps in steps()) {
        run(&steps);
    }
}
