//! A live attendance event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::event::decode;

fuzz_target!(|bytes: &[u8]| {
    for uid_only in [false, true] {
        let _ = decode(bytes, 848_966_400, uid_only);
    }
});
