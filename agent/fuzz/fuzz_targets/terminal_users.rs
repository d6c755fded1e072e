//! A user table; the first byte stands for the counter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::users::parse;

fuzz_target!(|bytes: &[u8]| {
    if let Some((count, records)) = bytes.split_first() {
        let _ = parse(records, Some(u32::from(*count)));
        let _ = parse(records, None);
    }
});
