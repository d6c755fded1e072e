//! Frames out of any byte stream, in any split: the first byte says where it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use scc_agent::capture::attendance::frame::Framer;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let mut framer = Framer::default();
    for part in stream.chunks(usize::from(*cut).max(1)) {
        framer.buffer().extend_from_slice(part);
        loop {
            match framer.packet() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
