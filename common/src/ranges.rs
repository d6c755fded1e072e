//! Sets of sequence numbers, kept as few ranges: what a buffer holds, what a hub has stored, what is
//! wanted of one by the other.
//!
//! Invariant: ascending, not empty, not touching. A backlog of a million records is one range, so
//! what either side keeps in memory grows with the holes, not with the records.

use crate::id::Seq;
use crate::wire::SeqRange;

/// A set of sequence numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<SeqRange>);

impl RangeSet {
    /// The union of some ranges; turned around ones count for nothing.
    #[must_use]
    pub fn of(ranges: impl IntoIterator<Item = SeqRange>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }

    /// Adds a range.
    pub fn insert(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        // everything that overlaps or touches the new range melts into it
        let from = self
            .0
            .partition_point(|r| r.last.saturating_add(1) < range.first);
        let upto = self
            .0
            .partition_point(|r| r.first <= range.last.saturating_add(1));
        let mut merged = range;
        if let Some(old) = self.0[from..upto].first() {
            merged.first = merged.first.min(old.first);
        }
        if let Some(old) = self.0[from..upto].last() {
            merged.last = merged.last.max(old.last);
        }
        self.0.splice(from..upto, [merged]);
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: SeqRange) {
        if range.is_empty() {
            return;
        }
        let from = self.0.partition_point(|r| r.last < range.first);
        let upto = self.0.partition_point(|r| r.first <= range.last);
        let mut rest = Vec::with_capacity(2);
        if let Some(old) = self.0[from..upto].first()
            && old.first < range.first
        {
            rest.push(SeqRange {
                first: old.first,
                last: range.first - 1,
            });
        }
        if let Some(old) = self.0[from..upto].last()
            && old.last > range.last
        {
            rest.push(SeqRange {
                first: range.last + 1,
                last: old.last,
            });
        }
        self.0.splice(from..upto, rest);
    }

    /// Takes everything up to and including `seq` out.
    pub fn forget_to(&mut self, seq: Seq) {
        self.remove(SeqRange {
            first: 0,
            last: seq,
        });
    }

    /// Whether a number is in the set.
    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        self.around(seq).is_some()
    }

    /// The ranges, ascending, not touching.
    #[must_use]
    pub fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    /// How many numbers the set holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(SeqRange::len).sum()
    }

    /// Whether the set holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this set has within `range`.
    #[must_use]
    pub fn within(&self, range: SeqRange) -> Self {
        let from = self.0.partition_point(|r| r.last < range.first);
        Self(
            self.0[from..]
                .iter()
                .take_while(|r| r.first <= range.last)
                .map(|r| SeqRange {
                    first: r.first.max(range.first),
                    last: r.last.min(range.last),
                })
                .filter(|r| !r.is_empty())
                .collect(),
        )
    }

    /// What this set has and `other` has not.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = self.clone();
        let Some((first, last)) = self.0.first().zip(self.0.last()) else {
            return rest;
        };
        let span = SeqRange {
            first: first.first,
            last: last.last,
        };
        for range in other.within(span).0 {
            rest.remove(range);
        }
        rest
    }

    /// What both have.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// What of `range` is not in the set, ascending.
    #[must_use]
    pub fn holes(&self, range: SeqRange) -> Vec<SeqRange> {
        Self::of([range]).minus(self).0
    }

    /// The range that holds `seq`.
    #[must_use]
    pub fn around(&self, seq: Seq) -> Option<SeqRange> {
        let at = self.0.partition_point(|r| r.last < seq);
        self.0.get(at).copied().filter(|r| r.contains(seq))
    }

    /// The first range, cut off before `next`.
    #[must_use]
    pub fn first_below(&self, next: Seq) -> Option<SeqRange> {
        let first = *self.0.first()?;
        (first.first < next).then(|| SeqRange {
            last: first.last.min(next - 1),
            ..first
        })
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SeqRange> + '_ {
        self.0.iter().copied()
    }

    /// The largest W such that 1 … W are all in the set; 0 if 1 is not.
    #[must_use]
    pub fn watermark(&self) -> Seq {
        match self.0.first() {
            Some(range) if range.first <= 1 => range.last,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64, u64),
        Remove(u64, u64),
    }

    fn range() -> impl Strategy<Value = (u64, u64)> {
        (1u64..40, 0u64..12).prop_map(|(first, len)| (first, first + len))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            range().prop_map(|(a, b)| Step::Insert(a, b)),
            range().prop_map(|(a, b)| Step::Remove(a, b)),
        ];
        proptest::collection::vec(step, 0..30)
    }

    fn build(steps: &[Step]) -> (RangeSet, BTreeSet<u64>) {
        let (mut set, mut oracle) = (RangeSet::default(), BTreeSet::new());
        for step in steps {
            match *step {
                Step::Insert(first, last) => {
                    set.insert(SeqRange { first, last });
                    oracle.extend(first..=last);
                }
                Step::Remove(first, last) => {
                    set.remove(SeqRange { first, last });
                    oracle.retain(|n| *n < first || *n > last);
                }
            }
        }
        (set, oracle)
    }

    fn numbers(set: &RangeSet) -> BTreeSet<u64> {
        set.0.iter().flat_map(|r| r.first..=r.last).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_set_of_numbers(a in steps(), b in steps(), (first, last) in range()) {
            let (set, oracle) = build(&a);
            let (other, other_oracle) = build(&b);
            prop_assert_eq!(numbers(&set), oracle.clone());
            for pair in set.0.windows(2) {
                prop_assert!(pair[0].last + 1 < pair[1].first, "touching: {:?}", set);
            }
            prop_assert_eq!(set.count(), oracle.len() as u64);
            prop_assert_eq!(set.contains(first), oracle.contains(&first));
            prop_assert_eq!(numbers(&set.within(SeqRange { first, last })), oracle.range(first..=last).copied().collect());
            prop_assert_eq!(numbers(&set.minus(&other)), &oracle - &other_oracle);
            prop_assert_eq!(numbers(&set.and(&other)), &oracle & &other_oracle);
            let range = SeqRange { first, last };
            let holes: BTreeSet<u64> = set.holes(range).into_iter().flat_map(|r| r.first..=r.last).collect();
            prop_assert_eq!(holes, (first..=last).filter(|n| !oracle.contains(n)).collect::<BTreeSet<_>>());
            prop_assert_eq!(set.around(first).is_some(), oracle.contains(&first));
            prop_assert_eq!(set.first_below(last).map(|r| r.first), oracle.iter().copied().find(|n| *n < last));
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), set.as_slice());
            let water = (1..).take_while(|n| oracle.contains(n)).last().unwrap_or(0);
            prop_assert_eq!(set.watermark(), water);
        }
    }

    #[test]
    fn the_ends_of_the_number_line_do_not_overflow() {
        let range = |first, last| SeqRange { first, last };
        let mut set = RangeSet::of([range(u64::MAX - 1, u64::MAX)]);
        set.insert(range(1, u64::MAX - 2));
        assert_eq!(set.as_slice(), [range(1, u64::MAX)]);
        assert!(set.holes(range(1, u64::MAX)).is_empty());
        set.remove(range(1, 9));
        assert_eq!(set.first_below(12), Some(range(10, 11)));
        assert_eq!(set.first_below(10), None);
        set.remove(range(11, u64::MAX));
        assert_eq!(set.first_below(u64::MAX), Some(range(10, 10)));
        set.forget_to(u64::MAX);
        assert!(set.is_empty());
    }
}
