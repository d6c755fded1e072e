//! CBOR (RFC 8949) as it is written and read here.
//!
//! There is one writer, so that a body has the same bytes wherever it is written. There are two readers,
//! because reading is the larger part of what a record costs the hub's processor: the fast one takes
//! everything that the writer writes, in place; what it refuses is read by the tolerant one.
//!
//! Neither passes over what a variant carries that `#[serde(other)]` stands for: they go on reading in the
//! midst of it. So only the last field of a message may be an enum whose variants carry something.

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
    use serde_bytes::ByteBuf;

    use crate::checksum::Checksum;
    use crate::clock::{Clock as _, ManualClock};
    use crate::id::{AgentId, BootId, DeviceId, Epoch, RunId};
    use crate::record::tests::punches;
    use crate::record::{Content, Health, LinkMode, RecordBody};
    use crate::stream::Stream;
    use crate::wire::{
        Down, DownMessage, Gap, GapReason, Hello, LaneOffer, Records, SeqRange, Up, UpMessage,
        WireRecord,
    };

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

    fn fast<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
        cbor4ii::serde::from_slice(bytes).ok()
    }

    /// Whether the two read the same, if both read something. Compared as bytes, because a number that is
    /// none is not equal to itself.
    fn agree<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> bool {
        match (fast::<T>(bytes), tolerant::<T>(bytes)) {
            (Some(fast), Ok(tolerant)) => write(&fast) == write(&tolerant),
            _ => true,
        }
    }

    fn messages() -> Vec<Vec<u8>> {
        let agent = || AgentId::new("rsud").unwrap();
        let gap = Gap {
            epoch: Epoch(u64::MAX),
            stream: Stream::Event,
            range: SeqRange { first: 2, last: 9 },
            reason: GapReason::Damaged,
            at_ms: -1,
        };
        let body = health(0.5, Some(41.25)).encode();
        let records = Records {
            epoch: Epoch(3),
            stream: Stream::Health,
            gaps: vec![gap],
            records: vec![WireRecord {
                seq: 1,
                sum: Checksum::of(&body),
                body: ByteBuf::from(body.clone()),
            }],
        };
        let hello = Hello {
            nonce: 7,
            version: "0.1.0".into(),
            boot: BootId([7; 16]),
            wall_ms: 5,
            epoch: Epoch(3),
            lanes: vec![LaneOffer {
                epoch: Epoch(3),
                stream: Stream::Event,
                next: 12,
                held: vec![SeqRange { first: 1, last: 1 }],
                gaps: vec![gap],
            }],
            partial: true,
        };
        let down = Down {
            v: 1,
            run: RunId(5),
            permission: 512,
            paused: vec![Stream::Segment],
            new_epoch: false,
            msg: DownMessage::Other,
        };
        let stamp = ManualClock::at(5).stamp();
        vec![
            body,
            RecordBody::new(
                stamp,
                DeviceId::new("loket").ok(),
                Content::Punches(punches()),
            )
            .encode(),
            Up::new(agent(), UpMessage::Records(records)).encode(),
            Up::new(agent(), UpMessage::Hello(hello)).encode(),
            down.encode(),
        ]
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
        fn the_readers_do_not_differ(
            which in 0usize..5, at in 0usize..1_000, to in any::<u8>(), also in any::<u8>(), cut in 0usize..1_000,
        ) {
            let mut bytes = messages().swap_remove(which);
            let len = bytes.len();
            bytes[at % len] = to;
            bytes[(at + 1) % len] ^= also & 1;
            bytes.truncate(if cut % 4 == 0 { cut % len } else { len });
            prop_assert!(agree::<RecordBody>(&bytes) && agree::<Up>(&bytes) && agree::<Down>(&bytes));
        }
    }
}
