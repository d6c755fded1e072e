//! `scc-agent buffer stat`: what waits on the card, also while the agent runs.

use std::fmt::Write;
use std::path::Path;

use scc_common::clock::WallMs;

use crate::buffer::BufferError;
use crate::buffer::inspect::{Inspection, inspect};

/// One table of the buffer's lanes, read from its files only. `now_ms`: what the ages are measured
/// against.
///
/// # Errors
/// [`BufferError`] if there is no buffer in `state_dir`, or it may not be read.
pub fn stat(state_dir: &Path, now_ms: WallMs) -> Result<String, BufferError> {
    Ok(table(&inspect(state_dir)?, now_ms))
}

fn table(seen: &Inspection, now_ms: WallMs) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        let [stream, epoch, next, held, bytes, age, lost] = cells;
        // writing into a String cannot fail
        let _ = writeln!(
            text,
            "{stream:<11} {epoch:<16} {next:>10} {held:>10} {bytes:>10} {age:>8} {lost:>8}"
        );
    };
    line(["stream", "epoch", "next", "held", "bytes", "age", "lost"]);
    for lane in &seen.lanes {
        let age = lane
            .oldest_ms
            .map_or_else(|| "-".into(), |at| age(now_ms - at));
        line([
            lane.lane.stream.name(),
            &lane.lane.epoch.to_string(),
            &lane.next.to_string(),
            &lane.held.to_string(),
            &size(lane.bytes),
            &age,
            &lane.lost.to_string(),
        ]);
    }
    if seen.lanes.is_empty() {
        text.push_str("(no records)\n");
    }
    text.push_str(if seen.in_use {
        "The agent is running: `scc-agent status` knows newer acknowledgements.\n"
    } else {
        "The agent is not running.\n"
    });
    text
}

/// Bytes with a unit, four digits at most.
fn size(bytes: u64) -> String {
    let units = [" B", " KiB", " MiB", " GiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 10_000 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", units[unit])
}

fn age(ms: i64) -> String {
    match ms / 1_000 {
        s if s < 0 => "?".into(),
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
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
    fn a_technician_sees_depth_age_and_loss_of_each_lane() {
        let lane = LaneFiles {
            lane: Lane {
                epoch: Epoch(0xabc),
                stream: Stream::Segment,
            },
            next: 120,
            held: 100,
            bytes: 130 << 20,
            oldest_ms: Some(0),
            lost: 19,
        };
        let mut seen = Inspection {
            in_use: true,
            lanes: vec![lane],
        };
        let text = table(&seen, 3 * 3_600_000);
        let row = text.lines().nth(1).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "segment",
                "0000000000000abc",
                "120",
                "100",
                "130",
                "MiB",
                "3",
                "h",
                "19"
            ]
        );
        assert!(text.contains("The agent is running"));
        seen.lanes.clear();
        seen.in_use = false;
        assert!(table(&seen, 0).contains("(no records)"));
    }

    #[test]
    fn a_box_without_a_buffer_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let error = stat(dir.path(), 0).unwrap_err().to_string();
        assert!(error.contains("buffer"), "{error}");
    }
}
