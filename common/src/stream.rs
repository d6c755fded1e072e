//! Streams: the ordered lanes that records of one agent travel in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One ordered lane of records of one agent. The order of the variants is the order of priority:
/// an earlier stream never waits behind a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// State changes and verdicts.
    Event,
    /// Punches and the reads that prove them complete.
    Attendance,
    /// Counts and tables of the agencies' own applications.
    Warehouse,
    /// The box's own measurements.
    Health,
    /// Still pictures.
    Snapshot,
    /// Seconds of video.
    Segment,
}

impl Stream {
    /// All streams, highest priority first.
    pub const ALL: [Self; 6] = [
        Self::Event,
        Self::Attendance,
        Self::Warehouse,
        Self::Health,
        Self::Snapshot,
        Self::Segment,
    ];

    /// The number used in files and in the hub's ledger. Never reassign one.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Attendance => 2,
            Self::Warehouse => 3,
            Self::Health => 4,
            Self::Snapshot => 5,
            Self::Segment => 6,
        }
    }

    /// The stream with this [`code`](Self::code).
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.code() == code)
    }

    /// The name in file names, metrics and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Attendance => "attendance",
            Self::Warehouse => "warehouse",
            Self::Health => "health",
            Self::Snapshot => "snapshot",
            Self::Segment => "segment",
        }
    }

    /// Pictures and video: large, travel in parts, first to go when the card is full.
    #[must_use]
    pub const fn is_media(self) -> bool {
        matches!(self, Self::Snapshot | Self::Segment)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_lead_back() {
        for stream in Stream::ALL {
            assert_eq!(Stream::from_code(stream.code()), Some(stream));
        }
        assert_eq!(Stream::from_code(0), None);
        assert_eq!(Stream::from_code(7), None);
    }

    #[test]
    fn priority_puts_punches_before_video() {
        assert!(Stream::Attendance < Stream::Segment);
        assert!(Stream::Event < Stream::Attendance);
    }
}
