//! What either end of the link says, and the bodies of records: none may panic, and what can be read
//! comes back the same from what is written of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_common::record::RecordBody;
use scc_common::wire::{Down, Up};

fuzz_target!(|bytes: &[u8]| {
    // compared as bytes: a number that is none is not equal to itself
    if let Ok(up) = Up::decode(bytes) {
        let written = up.encode();
        assert_eq!(
            Up::decode(&written).map(|up| up.encode()).ok(),
            Some(written)
        );
    }
    if let Ok(down) = Down::decode(bytes) {
        let written = down.encode();
        assert_eq!(
            Down::decode(&written).map(|down| down.encode()).ok(),
            Some(written)
        );
    }
    if let Ok(body) = RecordBody::decode(bytes) {
        let written = body.encode();
        assert_eq!(
            RecordBody::decode(&written).map(|body| body.encode()).ok(),
            Some(written)
        );
    }
});
