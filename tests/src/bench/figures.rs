//! Figures: percentiles, the spread over rounds, and the line that a program ends with.

use std::fmt::{self, Display, Write};

/// The value that so many of a hundred do not exceed (nearest rank); `weighted` are values, each with
/// how often it occurred. None of nothing.
#[must_use]
pub fn percentile(weighted: &mut [(u32, u32)], percent: u32) -> Option<u32> {
    weighted.sort_unstable();
    let all: u64 = weighted.iter().map(|(_, n)| u64::from(*n)).sum();
    let rank = (all * u64::from(percent)).div_ceil(100).max(1);
    let mut seen = 0;
    weighted.iter().find_map(|(value, n)| {
        seen += u64::from(*n);
        (seen >= rank).then_some(*value)
    })
}

/// What the rounds of one measurement gave.
#[derive(Debug, Clone, Default)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// One more round.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle; with an even number of rounds the mean of the two. 0 of nothing.
    #[must_use]
    pub fn median(&self) -> f64 {
        let n = self.0.len();
        match (self.0.get(n.wrapping_sub(1) / 2), self.0.get(n / 2)) {
            (Some(a), Some(b)) => f64::midpoint(*a, *b),
            _ => 0.0,
        }
    }

    /// The most of all rounds; 0 of nothing.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(0.0)
    }
}

impl Display for Rounds {
    /// `median(least..most)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.first().copied().unwrap_or(0.0);
        let digits = if self.most() >= 100.0 { 0 } else { 2 };
        write!(
            f,
            "{:.digits$}({least:.digits$}..{:.digits$})",
            self.median(),
            self.most()
        )
    }
}

/// A line of figures: a name, then `key=value` pairs.
#[derive(Debug)]
pub struct Line(String);

impl Line {
    /// A line of this program.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// One more figure. A key has no blanks, and neither may the value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        let value = value.to_string().replace(char::is_whitespace, "_");
        // writing to a string cannot fail
        let _ = write!(self.0, " {key}={value}");
        self
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The figure of this key in a line.
#[must_use]
pub fn figure(line: &str, key: &str) -> Option<f64> {
    line.split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .find(|(k, _)| *k == key)
        .and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_counts_how_often_a_value_occurred() {
        let mut values = [(9, 1), (1, 98), (5, 1)];
        assert_eq!(percentile(&mut values, 50), Some(1));
        assert_eq!(percentile(&mut values, 98), Some(1));
        assert_eq!(percentile(&mut values, 99), Some(5));
        assert_eq!(percentile(&mut values, 100), Some(9));
        assert_eq!(percentile(&mut [], 99), None);
        assert_eq!(percentile(&mut [(7, 1)], 1), Some(7));
    }

    #[test]
    fn rounds_tell_the_middle_and_how_far_they_lie_apart() {
        let mut rounds = Rounds::default();
        assert_eq!(rounds.to_string(), "0.00(0.00..0.00)");
        for value in [3.0, 1.0, 2.0] {
            rounds.add(value);
        }
        assert_eq!(rounds.to_string(), "2.00(1.00..3.00)");
        rounds.add(400.0);
        assert_eq!(rounds.to_string(), "2(1..400)");
        assert!((rounds.median() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_line_can_be_read_again() {
        let line = Line::new("bench-x")
            .with("rows_per_s", 12.5)
            .with("who", "a b");
        assert_eq!(line.to_string(), "bench-x rows_per_s=12.5 who=a_b");
        assert_eq!(figure(&line.to_string(), "rows_per_s"), Some(12.5));
        assert_eq!(figure(&line.to_string(), "rows"), None);
    }
}
