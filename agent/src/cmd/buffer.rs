//! `scc-agent buffer stat`: what waits on the card, also while the agent runs.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::{Clock, SystemClock, WallMs};
use scc_common::lang::Lang;
use scc_common::record::LaneHealth;

use super::units::{ago, size};
use super::words::{as_agent, stream, unreadable};
use super::{print, run};
use crate::buffer::Lane;
use crate::buffer::inspect::{self, Inspection, LaneFiles};
use crate::status::Status;

/// Prints one table of the buffer's lanes, read from its files only.
pub fn main(file: &Path, lang: Lang) -> ExitCode {
    run::with_state(file, |state| {
        let again = as_agent("buffer stat", file);
        print(&stat(
            &state.dir,
            &again,
            SystemClock::new().wall_ms(),
            lang,
        )?);
        Ok(())
    })
}

/// The table; ages are measured against `now`. `again`: see [`as_agent`].
fn stat(state_dir: &Path, again: &str, now: WallMs, lang: Lang) -> Result<String, String> {
    match inspect::inspect(state_dir) {
        Ok(mut seen) => {
            if let Ok(status) = Status::read(state_dir) {
                count_losses(&mut seen, &status.lanes);
            }
            Ok(table(&seen, now, lang))
        }
        Err(error) => {
            let root = inspect::root(state_dir);
            Err(unreadable(&root, &error, again, lang))
        }
    }
}

/// What was refused for good has left nothing in the files behind the newest record: the agent's own
/// count, as it last told it, knows.
fn count_losses(seen: &mut Inspection, told: &[LaneHealth]) {
    for told in told {
        let same = |seen: &&mut LaneFiles| {
            (seen.lane.epoch, seen.lane.stream) == (told.epoch, told.stream)
        };
        if let Some(lane) = seen.lanes.iter_mut().find(same) {
            lane.lost = lane.lost.max(told.lost);
            lane.next = lane.next.max(told.next);
        } else if told.lost > 0 {
            seen.lanes.push(LaneFiles {
                lane: Lane {
                    epoch: told.epoch,
                    stream: told.stream,
                },
                next: told.next,
                held: 0,
                bytes: 0,
                oldest_ms: None,
                lost: told.lost,
            });
        }
    }
    seen.lanes.sort_unstable_by_key(|seen| seen.lane);
}

fn table(seen: &Inspection, now: WallMs, lang: Lang) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 7]| {
        let [stream, epoch, next, held, bytes, age, lost] = cells;
        // writing into a String cannot fail
        let _ = writeln!(
            text,
            "{stream:<11} {epoch:<16} {next:>10} {held:>10} {bytes:>10} {age:>9} {lost:>8}"
        );
    };
    line([
        lang.pick("aliran", "stream"),
        lang.pick("epoch", "epoch"),
        lang.pick("berikutnya", "next"),
        lang.pick("di kotak", "held"),
        lang.pick("ukuran", "size"),
        lang.pick("tertua", "oldest"),
        lang.pick("hilang", "lost"),
    ]);
    for lane in &seen.lanes {
        let age = lane
            .oldest_ms
            .map_or_else(|| "-".into(), |at| ago(now - at, lang));
        line([
            stream(lane.lane.stream, lang),
            &lane.lane.epoch.to_string(),
            &lane.next.to_string(),
            &lane.held.to_string(),
            &size(lane.bytes),
            &age,
            &lane.lost.to_string(),
        ]);
    }
    if seen.lanes.is_empty() {
        text.push_str(lang.pick("(tidak ada catatan)\n", "(no records)\n"));
    }
    text.push_str(if seen.in_use {
        lang.pick(
            "Agen sedang berjalan: `scc-agent status` tahu apa yang baru saja diterima pusat.\n",
            "The agent is running: `scc-agent status` knows newer acknowledgements.\n",
        )
    } else {
        lang.pick("Agen tidak berjalan.\n", "The agent is not running.\n")
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
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
            bytes: 136_000_000,
            oldest_ms: Some(0),
            lost: 19,
        };
        let mut seen = Inspection {
            in_use: true,
            lanes: vec![lane],
        };
        let row = |text: &str| -> Vec<String> {
            let row = text.lines().nth(1).unwrap();
            row.split_whitespace().map(str::to_owned).collect()
        };
        let text = table(&seen, 3 * 3_600_000, Lang::En);
        let numbers = ["0000000000000abc", "120", "100", "136", "MB", "3"];
        let cells = |first, unit| [&[first], &numbers[..], &[unit, "19"]].concat();
        assert_eq!(row(&text), cells("segment", "h"));
        assert!(text.contains("The agent is running"));
        let text = table(&seen, 3 * 3_600_000, Lang::Id);
        assert_eq!(row(&text), cells("rekaman", "jam"));
        let head = text.lines().next().unwrap();
        assert!(head.contains(" di kotak "), "not yet stored: {head}");
        assert!(text.contains("Agen sedang berjalan"), "{text}");
        seen.lanes.clear();
        seen.in_use = false;
        assert!(table(&seen, 0, Lang::En).contains("(no records)"));
    }

    #[test]
    fn what_was_refused_behind_the_newest_record_is_counted_too() {
        let of = |stream| Lane {
            epoch: Epoch(1),
            stream,
        };
        let seen = |stream, next, lost| LaneFiles {
            lane: of(stream),
            next,
            held: 4,
            bytes: 9,
            oldest_ms: None,
            lost,
        };
        let told = |stream, next, lost| LaneHealth {
            epoch: Epoch(1),
            stream,
            next,
            records: 0,
            bytes: 0,
            oldest_ms: None,
            lost,
        };
        let mut there = Inspection {
            in_use: false,
            lanes: vec![seen(Stream::Event, 5, 0), seen(Stream::Segment, 9, 4)],
        };
        let lanes = [
            told(Stream::Event, 5, 0),
            told(Stream::Snapshot, 8, 7),
            told(Stream::Segment, 12, 7),
        ];
        count_losses(&mut there, &lanes);
        let lost: Vec<_> = there
            .lanes
            .iter()
            .map(|l| (l.lane.stream, l.next, l.lost))
            .collect();
        let expected = [
            (Stream::Event, 5, 0),
            (Stream::Snapshot, 8, 7),
            (Stream::Segment, 12, 7),
        ];
        assert_eq!(lost, expected);
    }

    #[test]
    fn a_box_where_no_agent_ran_is_told_so_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for (lang, part) in [
            (Lang::Id, "agen belum pernah berjalan di sini"),
            (Lang::En, "no agent has run here yet"),
        ] {
            let error = stat(dir.path(), "", 0, lang).unwrap_err();
            let looked_at = dir.path().join("buffer").display().to_string();
            assert!(
                error.contains(part)
                    && error.contains(&looked_at)
                    && error.contains("systemctl enable --now scc-agent"),
                "{error}"
            );
        }
    }
}
