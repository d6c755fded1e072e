//! CBOR (RFC 8949) as it is written and read here.
//!
//! There is one writer, so that a body has the same bytes wherever it is written. There are two readers,
//! because reading is the larger part of what a record costs the hub's processor: the fast one takes
//! everything that the writer writes, in place; what it does not take (an enum's variant from the future
//! that carries something, a tag) is read by the tolerant one, whose word counts.

use serde::de::{DeserializeOwned, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize};

/// The bytes of a value.
pub(crate) fn write<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing into memory cannot fail");
    bytes
}

/// The value that the bytes begin with. Never panics, and never allocates by a length that the bytes only
/// claim.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    cbor4ii::serde::from_slice(bytes).or_else(|_| tolerant(bytes))
}

/// Reads a value that carries its version, and only looks for the version alone when it is no value of
/// ours: on the way of every record a second parse costs as much as the first.
///
/// # Errors
/// [`Unread`].
pub(crate) fn read_known<T: DeserializeOwned>(
    bytes: &[u8],
    version: fn(&T) -> u8,
    known: fn(u8) -> bool,
) -> Result<T, Unread> {
    #[derive(Deserialize)]
    struct Version {
        v: u8,
    }
    match read(bytes) {
        Ok(value) if known(version(&value)) => Ok(value),
        Ok(value) => Err(Unread::Version(version(&value))),
        Err(why) => match tolerant(bytes) {
            Ok(Version { v }) if !known(v) => Err(Unread::Version(v)),
            _ => Err(Unread::Malformed(why)),
        },
    }
}

/// Why a value with a version is not read.
pub(crate) enum Unread {
    /// Not CBOR, or not of this shape.
    Malformed(String),
    /// A version that is not known here.
    Version(u8),
}

fn tolerant<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    ciborium::from_reader(bytes).map_err(|e: ciborium::de::Error<std::io::Error>| e.to_string())
}

/// A floating point number of any width: the writer takes the shortest that holds the value.
pub(crate) fn float<'de, D: Deserializer<'de>>(from: D) -> Result<f32, D::Error> {
    Float::deserialize(from).map(|float| float.0)
}

/// The same, where there may be none.
pub(crate) fn some_float<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    Ok(Option::<Float>::deserialize(from)?.map(|float| float.0))
}

struct Float(f32);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;

        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "a measurement; serde's own f32 does the same"
        )]
        impl Visitor<'_> for Any {
            type Value = f32;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number")
            }

            fn visit_f32<E>(self, value: f32) -> Result<f32, E> {
                Ok(value)
            }

            fn visit_f64<E>(self, value: f64) -> Result<f32, E> {
                Ok(value as f32)
            }

            fn visit_u64<E>(self, value: u64) -> Result<f32, E> {
                Ok(value as f32)
            }

            fn visit_i64<E>(self, value: i64) -> Result<f32, E> {
                Ok(value as f32)
            }

            fn visit_none<E: serde::de::Error>(self) -> Result<f32, E> {
                Err(E::invalid_type(Unexpected::Option, &self))
            }
        }
        from.deserialize_any(Any).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{Clock as _, ManualClock};
    use crate::record::{Content, Health, LinkMode, RecordBody};

    fn health(load1: f32, temperature_c: Option<f32>) -> RecordBody {
        let stamp = ManualClock::at(5).stamp();
        RecordBody::new(
            stamp,
            None,
            Content::Health(Box::new(Health {
                version: "0.1.0".into(),
                boot: stamp.boot,
                uptime_s: 70_000,
                load1,
                memory_total_kib: 948_000,
                memory_available_kib: u64::MAX,
                disk_total: 4_000_000_000,
                disk_free: 255,
                temperature_c,
                under_voltage: None,
                clock: stamp.quality,
                link: LinkMode::Normal,
                lanes: Vec::new(),
                devices: Vec::new(),
            })),
        )
    }

    fn fast(bytes: &[u8]) -> Option<RecordBody> {
        cbor4ii::serde::from_slice(bytes).ok()
    }

    proptest! {
        /// The fast reader must not need the tolerant one for what our own writer writes: floats come in three widths.
        #[test]
        fn what_is_written_here_is_read_by_the_fast_reader(
            load in any::<f32>().prop_filter("a number", |f| !f.is_nan()),
            warm in proptest::option::of(-40.0f32..120.0),
        ) {
            for load in [load, load.trunc(), 0.5] {
                let body = health(load, warm);
                prop_assert_eq!(fast(&body.encode()), Some(body));
            }
        }

        /// Whatever was done to the bytes, the two readers never read two things out of them.
        #[test]
        fn the_readers_do_not_differ(at in 0usize..1_000, to in any::<u8>(), also in any::<u8>(), cut in 0usize..1_000) {
            let mut bytes = health(0.5, Some(41.25)).encode();
            let len = bytes.len();
            bytes[at % len] = to;
            bytes[(at + 1) % len] ^= also & 1;
            bytes.truncate(if cut % 4 == 0 { cut % len } else { len });
            if let (Some(fast), Ok(tolerant)) = (fast(&bytes), tolerant::<RecordBody>(&bytes)) {
                // not a number is not equal to itself
                prop_assert_eq!(fast.encode(), tolerant.encode());
            }
        }
    }
}
