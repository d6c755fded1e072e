//! Frames out of a byte stream (zk.md §1, §2).
//!
//! TCP keeps no borders: one read may hold half a frame or three. [`Framer`] collects bytes and
//! hands out a packet only when all of it is there; however the stream was split, the packets are
//! the same. A length is believed only between 8 bytes and 1 MiB, and nothing is allocated by it.
//! Up to 64 stray bytes before a frame are skipped; more means that this is no such terminal.

use bytes::{Buf, Bytes, BytesMut};

/// The four bytes before every frame.
pub const MAGIC: [u8; 4] = [0x50, 0x50, 0x82, 0x7D];
/// The same of the encrypted dialect, which nobody outside the maker can read.
const ENCRYPTED: [u8; 4] = [0x50, 0x50, 0x83, 0x7C];
/// Bytes of a packet before its data.
pub const HEAD: usize = 8;
/// Longest packet that is believed.
const MAX_PACKET: u32 = 1 << 20;
/// Stray bytes that may stand before a frame.
const MAX_STRAY: usize = 64;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Command or reply code.
    pub code: u16,
    /// Session id; in an event, the event's code.
    pub session: u16,
    /// Reply id: an answer repeats its request's.
    pub reply: u16,
    /// What follows.
    pub data: Bytes,
    /// Whether the checksum was right. Some terminals are sloppy, so a wrong one is only counted.
    pub sum_ok: bool,
}

/// Why a stream is not one of frames. The connection cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There was no frame within the first 64 bytes.
    #[error("what answers there does not speak the terminal protocol")]
    Foreign,
    /// The maker's encrypted dialect.
    #[error("the terminal speaks the encrypted dialect, which is not supported")]
    Encrypted,
    /// A length that no frame has.
    #[error("a frame claims {0} bytes")]
    Length(u32),
}

/// The checksum of a packet whose checksum field is left out or zero: the one's complement of the
/// one's complement sum of its 16-bit words.
#[must_use]
pub fn checksum(packet: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in packet.chunks(2) {
        let low = pair.first().copied().unwrap_or(0);
        let high = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_le_bytes([low, high]));
        // folding at once keeps the sum within 17 bits, so that no length can overflow it
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum & 0xFFFF).unwrap_or(0)
}

/// Collects bytes, yields packets.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    stray: usize,
}

impl Framer {
    /// Where received bytes are to be appended. Call [`Framer::packet`] until it yields nothing
    /// before appending more: that is what bounds the buffer.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole packet, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError`] when the stream cannot be followed any further.
    pub fn packet(&mut self) -> Result<Option<Packet>, FrameError> {
        self.find_magic()?;
        let Some(head) = self.buffer.get(..8) else {
            return Ok(None);
        };
        let length = u32_at(head, 4).unwrap_or(0);
        if !(8..=MAX_PACKET).contains(&length) {
            return Err(FrameError::Length(length));
        }
        let whole = usize::try_from(length).unwrap_or(usize::MAX);
        if self.buffer.len() - 8 < whole {
            return Ok(None);
        }
        self.buffer.advance(8);
        self.stray = 0;
        Ok(parse(self.buffer.split_to(whole).freeze()))
    }

    /// Drops stray bytes so that the buffer begins with the magic, or with a beginning of it.
    fn find_magic(&mut self) -> Result<(), FrameError> {
        loop {
            let have = self.buffer.len().min(4);
            let front = &self.buffer[..have];
            if front == &MAGIC[..have] {
                return Ok(());
            }
            if front == ENCRYPTED {
                return Err(FrameError::Encrypted);
            }
            if front == &ENCRYPTED[..have] {
                return Ok(());
            }
            self.buffer.advance(1);
            self.stray += 1;
            if self.stray > MAX_STRAY {
                return Err(FrameError::Foreign);
            }
        }
    }
}

fn parse(packet: Bytes) -> Option<Packet> {
    let code = u16_at(&packet, 0)?;
    let session = u16_at(&packet, 4)?;
    let reply = u16_at(&packet, 6)?;
    // the sum over all words, the checksum itself included, is all ones
    let sum_ok = checksum(&packet) == 0;
    Some(Packet {
        code,
        session,
        reply,
        data: packet.slice(HEAD..),
        sum_ok,
    })
}

/// A little-endian u16 at an offset, if it is there.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*field))
}

/// A little-endian u32 at an offset, if it is there.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field))
}

/// Text up to the first zero byte, trimmed; what is not UTF-8 becomes replacement marks.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default())
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .map(|b| u8::from_str_radix(b, 16).unwrap())
            .collect()
    }

    fn packets(framer: &mut Framer) -> Result<Vec<Packet>, FrameError> {
        std::iter::from_fn(|| framer.packet().transpose()).collect()
    }

    fn one(text: &str) -> Packet {
        let mut framer = Framer::default();
        framer.buffer().extend_from_slice(&hex(text));
        packets(&mut framer).unwrap().remove(0)
    }

    #[test]
    fn captured_frames_are_read_and_their_checksums_are_right() {
        for (text, code, session, reply, len) in [
            (
                "50 50 82 7D 08 00 00 00 E8 03 17 FC 00 00 00 00",
                1000,
                0,
                0,
                0,
            ),
            (
                "50 50 82 7D 08 00 00 00 E8 03 16 FC 00 00 01 00",
                1000,
                0,
                1,
                0,
            ),
            (
                "50 50 82 7D 08 00 00 00 D0 07 8E 8C A0 6B 01 00",
                2000,
                0x6BA0,
                1,
                0,
            ),
            (
                "50 50 82 7D 08 00 00 00 0D 00 50 94 A0 6B 02 00",
                13,
                0x6BA0,
                2,
                0,
            ),
            (
                "50 50 82 7D 10 00 00 00 DC 05 15 8A A0 6B 02 00 7C 00 00 00 F0 03 00 00",
                1500,
                0x6BA0,
                2,
                8,
            ),
            (
                "50 50 82 7D 08 00 00 00 D0 07 B1 F7 7C 00 02 00",
                2000,
                0x7C,
                2,
                0,
            ),
            (
                "50 50 82 7D 08 00 00 00 E9 03 73 90 A0 6B 03 00",
                1001,
                0x6BA0,
                3,
                0,
            ),
            (
                "50 50 82 7D 08 00 00 00 D0 07 8C 8C A0 6B 03 00",
                2000,
                0x6BA0,
                3,
                0,
            ),
            (
                "50 50 82 7D 09 00 00 00 F4 01 A7 FC 00 01 00 00 64",
                500,
                256,
                0,
                1,
            ),
            (
                "50 50 82 7D 13 00 00 00 D0 07 82 8A F3 8D 0B 00 57 6F 72 6B 43 6F 64 65 3D 30 00",
                2000,
                0x8DF3,
                11,
                11,
            ),
        ] {
            let p = one(text);
            assert_eq!(
                (p.code, p.session, p.reply, p.data.len(), p.sum_ok),
                (code, session, reply, len, true),
                "{text}"
            );
        }
    }

    #[test]
    fn the_sheets_checksums() {
        let face = hex("0B 00 00 00 F3 8D 03 00 5A 4B 46 61 63 65 56 65 72 73 69 6F 6E 00");
        assert_eq!(checksum(&face), 0x175A);
        assert_eq!(checksum(&hex("D0 07 00 00 F3 8D 0A 00 09")), 0x6A29);
    }

    #[test]
    fn a_wrong_checksum_is_noted_and_the_packet_kept() {
        let p = one("50 50 82 7D 08 00 00 00 D0 07 8E 8D A0 6B 01 00");
        assert!(!p.sum_ok);
        assert_eq!(p.code, 2000);
    }

    #[test]
    fn foreign_encrypted_and_absurd_streams_are_told_apart() {
        let read = |bytes: &[u8]| {
            let mut framer = Framer::default();
            framer.buffer().extend_from_slice(bytes);
            packets(&mut framer)
        };
        assert_eq!(read(&[b'x'; 65]), Err(FrameError::Foreign));
        assert_eq!(read(&[b'x'; 64]), Ok(vec![]));
        assert_eq!(read(&ENCRYPTED), Err(FrameError::Encrypted));
        let mut long = MAGIC.to_vec();
        long.extend([0, 0, 0x11, 0]);
        assert_eq!(read(&long), Err(FrameError::Length(0x11_0000)));
        let mut short = MAGIC.to_vec();
        short.extend([7, 0, 0, 0]);
        assert_eq!(read(&short), Err(FrameError::Length(7)));
    }

    fn frame(data: &[u8], code: u16) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(u32::try_from(8 + data.len()).unwrap().to_le_bytes());
        out.extend(code.to_le_bytes());
        out.extend([0; 6]);
        out.extend(data);
        out
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_packets(
            frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), any::<u16>(), 0usize..20), 1..8),
            cuts in proptest::collection::vec(1usize..50, 1..40),
        ) {
            let mut stream = Vec::new();
            for (data, code, stray) in &frames {
                stream.extend(std::iter::repeat_n(b'~', *stray));
                stream.extend(frame(data, *code));
            }
            let mut framer = Framer::default();
            let mut got = Vec::new();
            let (mut at, mut cut) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = (at + cut.next().unwrap()).min(stream.len());
                framer.buffer().extend_from_slice(&stream[at..end]);
                got.extend(packets(&mut framer).unwrap());
                at = end;
            }
            prop_assert_eq!(got.len(), frames.len());
            for (packet, (data, code, _)) in got.iter().zip(&frames) {
                prop_assert_eq!(packet.code, *code);
                prop_assert_eq!(&packet.data[..], &data[..]);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), magic: bool) {
            let mut framer = Framer::default();
            if magic {
                framer.buffer().extend_from_slice(&MAGIC);
            }
            framer.buffer().extend_from_slice(&bytes);
            let _ = packets(&mut framer);
        }
    }
}
