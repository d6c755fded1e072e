//! A cursor's journal from a damaged card: never a panic, and what it says is exactly what would be
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::cursor::{ENTRY, journal};

fuzz_target!(|bytes: &[u8]| {
    // most inputs fail at the CRC: put the right one in, so that the fields before it are reached
    let mut sealed = b"SCCSEEN1".to_vec();
    for entry in bytes.chunks_exact(ENTRY - 4) {
        sealed.extend_from_slice(entry);
        sealed.extend(crc32fast::hash(entry).to_le_bytes());
    }
    for input in [bytes, &sealed] {
        if let Some(steps) = journal(input) {
            let written: Vec<u8> = steps.flat_map(|step| step.entry()).collect();
            let again = [&b"SCCSEEN1"[..], &written].concat();
            let read: Vec<_> = journal(&again).into_iter().flatten().collect();
            assert_eq!(read.len() * ENTRY, written.len());
        }
    }
});
