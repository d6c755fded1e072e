//! An attendance table: length, layout, records. The first two bytes stand for the counters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::layout::{recognise, records};

const NEWEST: i64 = 848_966_400;

fuzz_target!(|bytes: &[u8]| {
    let Some((counters, log)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let _ = records(log);
    let counts = counters.map(|n| (n != 0xFF).then_some(u32::from(n)));
    if let Ok(layout) = recognise(log, counts, NEWEST) {
        for raw in layout.split(log) {
            let _ = layout.read(raw, NEWEST);
        }
    }
});
