//! The answer with the counters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::session::Sizes;

fuzz_target!(|bytes: &[u8]| {
    let sizes = Sizes::parse(bytes);
    assert!(bytes.len() >= 36 || sizes == Sizes::default());
});
