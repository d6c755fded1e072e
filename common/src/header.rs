//! The header that stands before every record in the buffer's files, and in an [export](crate::export)
//! of them.
//!
//! Promise: a file of records can be understood without the index. The header names the record
//! completely, says how long its body is and what it must hash to, and carries the watermark that
//! the hub had acknowledged when the record was written, so that an index that has to be rebuilt
//! can tell "acknowledged and evicted" from "lost".
//!
//! Format, version 1, 88 bytes, integers little-endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `SccR` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | stream ([`Stream::code`]) |
//! | 6 | 1 | quality of the clock: 0 unconfirmed, 1 hub, 2 NTP |
//! | 7 | 1 | 0 |
//! | 8 | 8 | epoch |
//! | 16 | 8 | seq, from 1 |
//! | 24 | 8 | wall time of capture, ms since 1970 (signed) |
//! | 32 | 8 | monotonic time of capture, ms since boot |
//! | 40 | 16 | boot id |
//! | 56 | 8 | watermark of this lane when the record was written |
//! | 64 | 4 | length of the body |
//! | 68 | 16 | checksum of the body ([`Checksum`]) |
//! | 84 | 4 | CRC-32 (IEEE) of bytes 0 … 83 |
//!
//! The body follows at once; the next header follows the body.

use crate::checksum::Checksum;
use crate::clock::{ClockQuality, Stamp};
use crate::id::{BootId, Epoch, Seq};
use crate::stream::Stream;
use crate::wire::MAX_BODY;

/// Length of a header, bytes.
pub const HEADER_LEN: usize = 88;

/// First bytes of a header.
pub const MAGIC: [u8; 4] = *b"SccR";

/// Version that this program writes and reads.
pub const VERSION: u8 = 1;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The record's stream.
    pub stream: Stream,
    /// The epoch that numbered it.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// When it was captured.
    pub stamp: Stamp,
    /// The watermark that the hub had acknowledged in this lane when the record was written.
    pub acked: Seq,
    /// Length of the body, bytes.
    pub len: u32,
    /// Checksum of the body.
    pub sum: Checksum,
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("{0} bytes are less than a header")]
    Short(usize),
    /// The bytes at offset 0 are not the magic.
    #[error("no header begins here")]
    Magic,
    /// The checksum at offset 84 does not match.
    #[error("the header is damaged")]
    Crc,
    /// A version (offset 4) that this program does not read.
    #[error("the header has version {0}; this program reads {VERSION}")]
    Version(u8),
    /// A field is out of its range although the checksum matches; the offset is that of the field.
    #[error("the header has an impossible value at offset {0}")]
    Value(usize),
}

impl Header {
    /// The bytes on the card.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC);
        out[4] = VERSION;
        out[5] = self.stream.code();
        out[6] = match self.stamp.quality {
            ClockQuality::Unconfirmed => 0,
            ClockQuality::Hub => 1,
            ClockQuality::Ntp => 2,
        };
        out[8..16].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.seq.to_le_bytes());
        out[24..32].copy_from_slice(&self.stamp.wall_ms.to_le_bytes());
        out[32..40].copy_from_slice(&self.stamp.mono_ms.to_le_bytes());
        out[40..56].copy_from_slice(&self.stamp.boot.0);
        out[56..64].copy_from_slice(&self.acked.to_le_bytes());
        out[64..68].copy_from_slice(&self.len.to_le_bytes());
        out[68..84].copy_from_slice(&self.sum.0);
        let crc = crc(&out[..84]);
        out[84..88].copy_from_slice(&crc);
        out
    }

    /// Reads the header at the beginning of `bytes`.
    ///
    /// # Errors
    /// [`HeaderError`] if there is none; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderError::Short(bytes.len()));
        };
        if bytes[0..4] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[84..88] != crc(&bytes[..84]) {
            return Err(HeaderError::Crc);
        }
        if bytes[4] != VERSION {
            return Err(HeaderError::Version(bytes[4]));
        }
        let stream = Stream::from_code(bytes[5]).ok_or(HeaderError::Value(5))?;
        let quality = match bytes[6] {
            0 => ClockQuality::Unconfirmed,
            1 => ClockQuality::Hub,
            2 => ClockQuality::Ntp,
            _ => return Err(HeaderError::Value(6)),
        };
        let seq = u64::from_le_bytes(field(bytes, 16));
        if seq == 0 || seq == Seq::MAX {
            return Err(HeaderError::Value(16));
        }
        let len = u32::from_le_bytes(field(bytes, 64));
        if usize::try_from(len).map_or(true, |len| len > MAX_BODY) {
            return Err(HeaderError::Value(64));
        }
        Ok(Self {
            stream,
            epoch: Epoch(u64::from_le_bytes(field(bytes, 8))),
            seq,
            stamp: Stamp {
                boot: BootId(field(bytes, 40)),
                mono_ms: u64::from_le_bytes(field(bytes, 32)),
                wall_ms: i64::from_le_bytes(field(bytes, 24)),
                quality,
            },
            acked: u64::from_le_bytes(field(bytes, 56)),
            len,
            sum: Checksum(field(bytes, 68)),
        })
    }

    /// Bytes that header and body take together.
    #[must_use]
    pub fn total(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.len)
    }
}

/// The CRC-32 that stands at the end of a header, over the bytes before it.
#[must_use]
pub fn crc(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

/// The `N` bytes at `at`, which the caller knows to lie inside the header.
fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            stream: Stream::Attendance,
            epoch: Epoch(0x1122_3344_5566_7788),
            seq: 42,
            stamp: Stamp {
                boot: BootId([9; 16]),
                mono_ms: 77,
                wall_ms: -5,
                quality: ClockQuality::Hub,
            },
            acked: 41,
            len: 3,
            sum: Checksum::of(b"abc"),
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        let good = header().encode();
        for at in 0..HEADER_LEN {
            for bit in 0..8 {
                let mut bad = good;
                bad[at] ^= 1 << bit;
                assert!(Header::decode(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_length_that_no_record_may_have_is_refused_before_anybody_allocates_it() {
        let mut huge = header();
        huge.len = u32::MAX;
        assert_eq!(Header::decode(&huge.encode()), Err(HeaderError::Value(64)));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
        }
    }
}
