//! What a reader process says, in any split: the first byte says where it is cut.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use scc_agent::capture::camera::protocol::decode;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let mut held = BytesMut::new();
    for part in stream.chunks(usize::from(*cut).max(1)) {
        held.extend_from_slice(part);
        loop {
            match decode(&mut held) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
