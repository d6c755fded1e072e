//! The checksum that follows a record from the buffer to the hub's ledger.
//!
//! It is the first 128 bits of SHA-256 over the body: strong enough to tell a conflict (two
//! different bodies under one identity) from a duplicate, small enough to travel with every record.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// First 16 bytes of SHA-256 over a record's body.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum(pub [u8; 16]);

impl Checksum {
    /// The checksum of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut running = Running::new();
        running.update(body);
        running.finish()
    }
}

/// A checksum over a body that arrives in pieces.
#[derive(Clone)]
pub struct Running(ring::digest::Context);

impl Running {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The checksum of all pieces together.
    #[must_use]
    pub fn finish(self) -> Checksum {
        let digest = self.0.finish();
        let mut first = [0; 16];
        first.copy_from_slice(&digest.as_ref()[..16]);
        Checksum(first)
    }
}

impl Default for Running {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<16>::deserialize(deserializer).map(|b| Self(b.into_array()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_the_whole_agree_with_the_published_vector() {
        // FIPS 180-2, appendix B.1: SHA-256("abc") begins ba7816bf 8f01cfea 414140de 5dae2223
        assert_eq!(
            Checksum::of(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223"
        );
        let mut running = Running::new();
        running.update(b"a");
        running.update(b"bc");
        assert_eq!(running.finish(), Checksum::of(b"abc"));
    }
}
