//! The stand-in's half of the wire, written from the sheet and on purpose not from the client's
//! code: what both ends get wrong alike no test would find.

use jiff::civil::DateTime;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) code: u16,
    pub(super) session: u16,
    pub(super) reply: u16,
    pub(super) data: Vec<u8>,
    pub(super) sum_ok: bool,
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) | u16::from(bytes[at + 1]) << 8
}

/// A little-endian number of four bytes.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

/// One's complement sum as in the sheet, by arithmetic modulo 65535.
fn sum(packet: &[u8]) -> u16 {
    let total: u64 = packet
        .iter()
        .enumerate()
        .map(|(i, b)| u64::from(*b) << (8 * (i % 2)))
        .sum();
    let rest = total % 65_535;
    let folded = if rest == 0 && total > 0 { 65_535 } else { rest };
    u16::try_from(65_535 - folded).expect("a rest of 65535")
}

/// A frame of this terminal.
pub(super) fn frame(code: u16, session: u16, reply: u16, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(8 + data.len());
    for word in [code, 0, session, reply] {
        packet.extend(word.to_le_bytes());
    }
    packet.extend(data);
    let check = sum(&packet);
    packet[2] = (check & 0xFF).try_into().expect("eight bits");
    packet[3] = (check >> 8).try_into().expect("eight bits");
    let length = u32::try_from(packet.len()).expect("short packets");
    [&b"\x50\x50\x82\x7d"[..], &length.to_le_bytes(), &packet].concat()
}

/// Takes one whole request off the front of what has come; `Err` for what is no request.
pub(super) fn take(come: &mut Vec<u8>) -> Result<Option<Asked>, ()> {
    if come.len() < 8 {
        return Ok(None);
    }
    if come[..4] != *b"PP\x82\x7d" {
        return Err(());
    }
    let length = usize::try_from(le32(come, 4)).expect("64 bits");
    if !(8..=4096).contains(&length) {
        return Err(());
    }
    if come.len() < 8 + length {
        return Ok(None);
    }
    let packet: Vec<u8> = come.drain(..8 + length).skip(8).collect();
    let mut unsummed = packet.clone();
    unsummed[2..4].fill(0);
    Ok(Some(Asked {
        code: le16(&packet, 0),
        session: le16(&packet, 4),
        reply: le16(&packet, 6),
        sum_ok: sum(&unsummed) == le16(&packet, 2),
        data: packet[8..].to_vec(),
    }))
}

/// The comm key as the sheet's table scrambles it, step by step.
pub(super) fn key_token(key: u32, session: u16) -> [u8; 4] {
    let mut reversed = 0u32;
    for bit in 0..32 {
        if key >> bit & 1 == 1 {
            reversed |= 1 << (31 - bit);
        }
    }
    let x = (u64::from(reversed) + u64::from(session)).to_le_bytes();
    let x: Vec<u8> = x.iter().zip(b"ZKSO").map(|(a, b)| a ^ b).collect();
    [x[2] ^ 50, x[3] ^ 50, 50, x[1] ^ 50]
}

/// The terminal's encoding of a wall time, with its months of 31 days.
pub(super) fn encode(at: DateTime) -> u32 {
    let n = |v: i8| u32::try_from(v).expect("calendar fields are positive");
    let years = u32::try_from(at.year() - 2000).expect("this century");
    let days = (years * 12 + n(at.month()) - 1) * 31 + n(at.day()) - 1;
    ((days * 24 + n(at.hour())) * 60 + n(at.minute())) * 60 + n(at.second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_speaks_as_the_sheet_says() {
        let connect = frame(1000, 0, 0, &[]);
        assert_eq!(connect[8..], [0xE8, 0x03, 0x17, 0xFC, 0, 0, 0, 0]);
        let platform = frame(2000, 0x8DF3, 12, b"~Platform=ZEM760_TFT\0");
        assert_eq!(platform[10..12], [0x71, 0x4C]);
        assert_eq!(frame(2000, 0x8DF3, 10, &[9])[10..12], [0x29, 0x6A]);
        assert_eq!(encode("2026-11-24T07:29:58".parse().unwrap()), 0x3386_98F6);
        assert_eq!(key_token(1234, 0x1F2E), [0x41, 0x36, 0x32, 0x66]);
        assert_eq!(key_token(123_456, 0xC0C5), [0x29, 0x7F, 0x32, 0x39]);
        let mut twice = [connect.clone(), connect].concat();
        assert!(take(&mut twice).unwrap().unwrap().sum_ok);
        assert_eq!(take(&mut twice).unwrap().unwrap().code, 1000);
        assert!(take(&mut twice).unwrap().is_none());
    }
}
