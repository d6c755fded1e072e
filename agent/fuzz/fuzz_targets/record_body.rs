//! The body of a record: never a panic, and what can be read comes back the same from what is written of
//! it. Compared as bytes, because a number that is none is not equal to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_common::record::RecordBody;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(body) = RecordBody::decode(bytes) {
        let written = body.encode();
        let again = RecordBody::decode(&written).map(|body| body.encode());
        assert_eq!(again.ok(), Some(written));
    }
});
