//! Sets of sequence numbers, kept as few ranges.
//!
//! Invariant: ascending, not empty, not touching. A backlog of a million records is one range, so
//! what the buffer keeps in memory does not grow with what it holds.

use scc_common::id::Seq;
use scc_common::wire::SeqRange;

/// A set of sequence numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeSet(Vec<SeqRange>);

impl RangeSet {
    /// The set that holds one range (or nothing, if it is turned around).
    pub(super) fn of(range: SeqRange) -> Self {
        let mut set = Self::default();
        set.insert(range);
        set
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, range: SeqRange) {
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
    pub(super) fn remove(&mut self, range: SeqRange) {
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

    /// Whether a number is in the set.
    pub(super) fn contains(&self, seq: Seq) -> bool {
        let at = self.0.partition_point(|r| r.last < seq);
        self.0.get(at).is_some_and(|r| r.contains(seq))
    }

    /// The ranges, ascending, not touching.
    pub(super) fn as_slice(&self) -> &[SeqRange] {
        &self.0
    }

    /// How many numbers the set holds.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(SeqRange::len).sum()
    }

    /// Whether the set holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this set has within `range`.
    pub(super) fn within(&self, range: SeqRange) -> Self {
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
    pub(super) fn minus(&self, other: &Self) -> Self {
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
    pub(super) fn and(&self, other: &Self) -> Self {
        self.minus(&self.minus(other))
    }

    /// The largest W such that 1 … W are all in the set; 0 if 1 is not.
    pub(super) fn watermark(&self) -> Seq {
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
            let water = (1..).take_while(|n| oracle.contains(n)).last().unwrap_or(0);
            prop_assert_eq!(set.watermark(), water);
        }
    }
}
