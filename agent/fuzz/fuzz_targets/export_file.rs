//! An exported card, as whoever carries it may have changed it: never a panic, nothing is allocated that
//! is not there, and what is believed is what is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_common::export::{Item, Reader, verify};

fuzz_target!(|bytes: &[u8]| {
    let Ok((begin, end)) = verify(bytes) else {
        return;
    };
    let (again, mut reader) = Reader::open(bytes).expect("it was read a moment ago");
    assert_eq!(again, begin);
    let mut records = 0;
    loop {
        match reader.step().expect("it was read a moment ago") {
            Item::Record(header, body) => {
                records += 1;
                assert_eq!(body.len() as u64, u64::from(header.len));
            }
            Item::End(found) => {
                assert_eq!(found, end);
                assert_eq!(records, end.records);
                return;
            }
        }
    }
});
