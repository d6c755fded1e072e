//! The comm key as the terminal wants to see it (zk.md §6).
//!
//! This is no security: the token can be replayed and nothing else is encrypted. The network
//! between box and terminal is the protection.

/// What AUTH carries for this comm key in this session.
#[must_use]
pub fn scramble(comm_key: u32, session: u16) -> [u8; 4] {
    const VEIL: u8 = 50;
    let [_, a1, a2, a3] = comm_key
        .reverse_bits()
        .wrapping_add(u32::from(session))
        .to_le_bytes();
    // XOR with "ZKSO", the halves swapped; the third byte gives way to the veil, and with it the
    // session's low byte to nothing
    let (b0, b1, b3) = (a2 ^ b'S', a3 ^ b'O', a1 ^ b'K');
    [b0 ^ VEIL, b1 ^ VEIL, VEIL, b3 ^ VEIL]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheets_vectors() {
        for (key, session, token) in [
            (1234, 0x1F2E, [0x41, 0x36, 0x32, 0x66]),
            (1234, 0x1F99, [0x41, 0x36, 0x32, 0x66]),
            (0, 0x1F2E, [0x61, 0x7D, 0x32, 0x66]),
            (8050, 0x6BA0, [0x99, 0x33, 0x32, 0x12]),
            (5678, 0x1F2E, [0x09, 0x09, 0x32, 0x66]),
            (123_456, 0xC0C5, [0x29, 0x7F, 0x32, 0x39]),
        ] {
            assert_eq!(scramble(key, session), token, "key {key}");
        }
    }
}
