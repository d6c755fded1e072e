//! Bytes of a damaged card as the header of a buffered record: never a panic, and whatever is
//! accepted is exactly what would be written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::buffer::format::{HEADER_LEN, Header};

fuzz_target!(|bytes: &[u8]| {
    // most inputs fail at the CRC: put the right one in, so that the fields behind it are reached
    let mut sealed = bytes.to_vec();
    sealed.resize(HEADER_LEN, 0);
    let crc = scc_agent::buffer::format::crc(&sealed[..HEADER_LEN - 4]);
    sealed[HEADER_LEN - 4..].copy_from_slice(&crc);
    for input in [bytes, &sealed] {
        if let Ok(header) = Header::decode(input) {
            let again = Header::decode(&header.encode());
            assert_eq!(again, Ok(header));
        }
    }
});
