//! A set of record numbers as inclusive ranges: what is stored or covered above a watermark.
//!
//! Invariant: ranges are ascending and neither overlap nor touch. Its size is the number of holes,
//! not of records.

use std::collections::BTreeMap;

use scc_common::id::Seq;
use scc_common::wire::SeqRange;

#[derive(Debug, Default, Clone)]
pub(super) struct Ranges(BTreeMap<Seq, Seq>);

impl Ranges {
    /// The range that holds `seq`.
    pub(super) fn around(&self, seq: Seq) -> Option<SeqRange> {
        let (&first, &last) = self.0.range(..=seq).next_back()?;
        (seq <= last).then_some(SeqRange { first, last })
    }

    /// Adds a range; a range that is turned around adds nothing.
    pub(super) fn insert(&mut self, new: SeqRange) {
        if new.is_empty() {
            return;
        }
        let (mut first, mut last) = (new.first, new.last);
        // From the last range that begins at or before the one after `new`, backwards while touching.
        while let Some((&f, &l)) = self.0.range(..=last.saturating_add(1)).next_back() {
            if l.saturating_add(1) < first {
                break;
            }
            self.0.remove(&f);
            first = first.min(f);
            last = last.max(l);
        }
        self.0.insert(first, last);
    }

    /// Forgets everything up to and including `seq`.
    pub(super) fn forget_to(&mut self, seq: Seq) {
        while let Some((&first, &last)) = self.0.first_key_value() {
            if first > seq {
                break;
            }
            self.0.remove(&first);
            if last > seq {
                self.0.insert(seq + 1, last);
                break;
            }
        }
    }

    /// The parts of `range` that are not in the set, ascending.
    pub(super) fn holes(&self, range: SeqRange) -> Vec<SeqRange> {
        let mut holes = Vec::new();
        let mut at = range.first;
        if range.is_empty() {
            return holes;
        }
        let begin = self.around(range.first).map_or(range.first, |r| r.first);
        for (&first, &last) in self.0.range(begin..=range.last) {
            if first > at {
                holes.push(SeqRange {
                    first: at,
                    last: first - 1,
                });
            }
            let Some(next) = last.checked_add(1) else {
                return holes;
            };
            at = at.max(next);
        }
        if at <= range.last {
            holes.push(SeqRange {
                first: at,
                last: range.last,
            });
        }
        holes
    }

    /// All ranges, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.0
            .iter()
            .map(|(&first, &last)| SeqRange { first, last })
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(first: Seq, last: Seq) -> SeqRange {
        SeqRange { first, last }
    }

    #[test]
    fn the_ends_of_the_number_line_do_not_overflow() {
        let mut set = Ranges::default();
        set.insert(range(u64::MAX - 1, u64::MAX));
        set.insert(range(1, u64::MAX - 2));
        assert_eq!(set.len(), 1);
        assert!(set.holes(range(1, u64::MAX)).is_empty());
        set.forget_to(u64::MAX);
        assert_eq!(set.len(), 0);
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_set_of_numbers(
            adds in proptest::collection::vec((1u64..60, 0u64..8), 0..30),
            forget in 0u64..40,
            ask in (1u64..70, 0u64..30),
        ) {
            let mut set = Ranges::default();
            let mut model = BTreeSet::new();
            for (first, len) in adds {
                set.insert(range(first, first + len));
                model.extend(first..=first + len);
            }
            set.forget_to(forget);
            model.retain(|n| *n > forget);
            let all: BTreeSet<Seq> = set.iter().flat_map(|r| r.first..=r.last).collect();
            prop_assert_eq!(&all, &model);
            let mut previous = None;
            for r in set.iter() {
                prop_assert!(previous.is_none_or(|p| p + 1 < r.first));
                previous = Some(r.last);
            }
            let holes: BTreeSet<Seq> = set.holes(range(ask.0, ask.0 + ask.1)).into_iter()
                .flat_map(|r| r.first..=r.last).collect();
            let expected: BTreeSet<Seq> = (ask.0..=ask.0 + ask.1).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(holes, expected);
            for n in 1..80 {
                prop_assert_eq!(set.around(n).is_some(), model.contains(&n));
            }
        }
    }
}
