//! What a terminal says, for fuzzing to begin with. The stand-in writes it, because it knows nothing of
//! the decoders that are fuzzed.

use super::Setup;
use super::log::{Layout, days, table, users};
use super::wire::frame;

/// 2026-01-05 17:00 in the terminal's seconds since 2000.
const NOW: i64 = 820_947_600;

/// (fuzz target, name of the seed, its bytes), always the same.
#[must_use]
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let punches = days(Setup::default().seed, 3, NOW);
    let mut all = Vec::new();
    for layout in Layout::ALL {
        let name = format!("{layout:?}").to_lowercase();
        // the two counters of the target: what the terminal said before and after
        let log = [&[3, 3][..], &table(&punches, layout)].concat();
        all.push(("terminal_log", name.clone(), log));
        all.push(("terminal_event", name, punches[0].event(layout, 4)));
    }
    let people = u8::try_from(punches.len()).expect("a handful");
    for (name, old) in [("after-5-04", false), ("before-5-04", true)] {
        let table = [&[people][..], &users(&punches, old)].concat();
        all.push(("terminal_users", name.into(), table));
    }
    let mut sizes = vec![0; 80];
    for (at, n) in [(16, 40_u32), (32, 214), (60, 3_000), (64, 200_000)] {
        sizes[at..at + 4].copy_from_slice(&n.to_le_bytes());
    }
    let (ok, prepare, data) = (2000, 1500, 1501);
    let log = table(&punches, Layout::Forty);
    let length = u32::try_from(log.len()).expect("short").to_le_bytes();
    // whole at once, and announced first: the two ways in which a terminal gives its log
    let at_once = [frame(ok, 0, 0, &sizes), frame(data, 0, 1, &log)].concat();
    let announced = [
        frame(ok, 0, 0, &sizes),
        frame(
            ok,
            0,
            1,
            &[&[0][..], &length, &length, &[1, 2, 3, 4]].concat(),
        ),
        frame(prepare, 0, 2, &[&length[..], &[0, 0x10, 0, 0]].concat()),
        frame(data, 0, 2, &log),
        frame(ok, 0, 2, &[]),
    ]
    .concat();
    for (name, said) in [("at-once", at_once), ("announced", announced)] {
        // cut into pieces of seven bytes
        let cut = [&[7][..], &said].concat();
        all.push(("terminal_frame", name.into(), cut));
        all.push(("terminal_answers", name.into(), said));
    }
    all.push(("terminal_sizes", "all".into(), sizes));
    all
}
