//! Sets of sequence numbers, kept as ascending ranges that neither overlap nor touch.

use scc_common::id::Seq;
use scc_common::wire::SeqRange;

/// A set of sequence numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<SeqRange>);

impl Ranges {
    /// The union of some ranges; turned around ones count for nothing.
    pub(super) fn of(ranges: impl IntoIterator<Item = SeqRange>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        let mut merged = range;
        self.0.retain(|r| {
            let apart =
                r.last.saturating_add(1) < merged.first || merged.last.saturating_add(1) < r.first;
            if !apart {
                merged.first = merged.first.min(r.first);
                merged.last = merged.last.max(r.last);
            }
            apart
        });
        let at = self.0.partition_point(|r| r.first < merged.first);
        self.0.insert(at, merged);
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, range: SeqRange) {
        let touched = |r: &SeqRange| r.first <= range.last && range.first <= r.last;
        if range.is_empty() || !self.0.iter().any(touched) {
            return;
        }
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for r in self.0.drain(..) {
            if !touched(&r) {
                left.push(r);
                continue;
            }
            if r.first < range.first {
                left.push(SeqRange {
                    first: r.first,
                    last: range.first - 1,
                });
            }
            if r.last > range.last {
                left.push(SeqRange {
                    first: range.last + 1,
                    last: r.last,
                });
            }
        }
        self.0 = left;
    }

    /// The first range, cut off before `next`.
    pub(super) fn first_below(&self, next: Seq) -> Option<SeqRange> {
        let first = *self.0.first()?;
        (first.first < next).then(|| SeqRange {
            first: first.first,
            last: first.last.min(next - 1),
        })
    }

    /// What of `range` is not in the set, ascending.
    pub(super) fn holes(&self, range: SeqRange) -> Vec<SeqRange> {
        let mut rest = Self::of([range]);
        for r in &self.0 {
            rest.remove(*r);
        }
        rest.0
    }

    /// The ranges, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_behave_as_a_set_of_numbers(
            steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 1..40),
            next in 0u64..80,
        ) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (add, first, len) in steps {
                let range = SeqRange { first, last: first + len };
                if add {
                    ranges.insert(range);
                    model.extend(first..=first + len);
                } else {
                    ranges.remove(range);
                    model.retain(|s| !range.contains(*s));
                }
                let listed: Vec<u64> = ranges.iter().flat_map(|r| r.first..=r.last).collect();
                prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
                for pair in ranges.0.windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first, "ranges touch");
                }
            }
            let all = SeqRange { first: 0, last: 99 };
            let outside: Vec<u64> = ranges.holes(all).iter().flat_map(|r| r.first..=r.last).collect();
            let expected: Vec<u64> = (0..100).filter(|s| !model.contains(s)).collect();
            prop_assert_eq!(outside, expected);
            let first = ranges.first_below(next).map(|r| r.first);
            prop_assert_eq!(first, model.iter().copied().find(|s| *s < next));
        }
    }

    #[test]
    fn the_open_end_survives_cuts_at_the_front() {
        let mut tail = Ranges::of([SeqRange {
            first: 5,
            last: u64::MAX,
        }]);
        tail.remove(SeqRange { first: 1, last: 9 });
        assert_eq!(
            tail.first_below(12),
            Some(SeqRange {
                first: 10,
                last: 11
            })
        );
        assert_eq!(tail.first_below(10), None);
        tail.remove(SeqRange {
            first: 11,
            last: u64::MAX,
        });
        assert_eq!(
            tail.first_below(u64::MAX),
            Some(SeqRange {
                first: 10,
                last: 10
            })
        );
    }
}
