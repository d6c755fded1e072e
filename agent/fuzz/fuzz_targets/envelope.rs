//! What either end of the link says: none may panic, and what can be read comes back the same from what
//! is written of it. Compared as bytes, because a number that is none is not equal to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_common::wire::{Down, Up};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(up) = Up::decode(bytes) {
        let written = up.encode();
        let again = Up::decode(&written).map(|up| up.encode());
        assert_eq!(again.ok(), Some(written));
    }
    if let Ok(down) = Down::decode(bytes) {
        let written = down.encode();
        let again = Down::decode(&written).map(|down| down.encode());
        assert_eq!(again.ok(), Some(written));
    }
});
