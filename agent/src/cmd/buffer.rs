//! `scc-agent buffer stat`: what the card holds, read from its files, also while the agent runs.

use std::fmt::Write as _;
use std::path::Path;

use crate::buffer::BufferError;
use crate::buffer::inspect::{Inspection, inspect};
use scc_common::clock::{Clock, SystemClock, WallMs};

/// Prints one line per lane.
///
/// # Errors
/// [`BufferError::Disk`] if there is no buffer in `state_dir`, or it may not be read.
#[expect(clippy::print_stdout, reason = "this is the command's output")]
pub fn stat(state_dir: &Path) -> Result<(), BufferError> {
    let found = inspect(state_dir)?;
    print!("{}", table(&found, SystemClock::new().wall_ms()));
    Ok(())
}

fn table(found: &Inspection, now_ms: WallMs) -> String {
    let mut out = format!(
        "{:<11} {:<16} {:>9} {:>9} {:>13} {:>8} {:>7}\n",
        "stream", "epoch", "next", "held", "bytes", "age", "lost"
    );
    for lane in &found.lanes {
        let age = lane
            .oldest_ms
            .map_or_else(|| "-".to_owned(), |at| age(now_ms.saturating_sub(at)));
        // writing into a String cannot fail
        let _ = writeln!(
            out,
            "{:<11} {:<16} {:>9} {:>9} {:>13} {:>8} {:>7}",
            lane.lane.stream.name(),
            lane.lane.epoch.to_string(),
            lane.next,
            lane.held,
            lane.bytes,
            age,
            lane.lost
        );
    }
    out.push_str(if found.in_use {
        "the agent is running\n"
    } else {
        "the agent is not running\n"
    });
    out
}

/// The largest unit that leaves a number above zero: `12s`, `5m`, `3h`, `9d`.
fn age(ms: i64) -> String {
    let s = ms.max(0) / 1_000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m", s / 60),
        3_600..86_400 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Lane;
    use crate::buffer::inspect::LaneFiles;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;

    #[test]
    fn a_lane_is_one_line_with_its_age() {
        let lane = Lane {
            epoch: Epoch(5),
            stream: Stream::Attendance,
        };
        let found = Inspection {
            in_use: true,
            lanes: vec![LaneFiles {
                lane,
                next: 8,
                held: 3,
                bytes: 120,
                oldest_ms: Some(0),
                lost: 1,
            }],
        };
        let table = table(&found, 7_200_000);
        let line = table.lines().nth(1).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words,
            ["attendance", "0000000000000005", "8", "3", "120", "2h", "1"]
        );
        assert!(table.ends_with("the agent is running\n"));
    }
}
