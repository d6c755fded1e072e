//! What travels over MQTT: one CBOR envelope up, one down.
//!
//! Up (`scc/up/<agent>`, QoS 1): [`Up`]. Down (`scc/down/<agent>`, QoS 0): [`Down`]. An MQTT PUBACK
//! only paces the sender; a record leaves the agent's buffer when a [`Ack`] or [`Answer`] of the
//! hub, sent after its database has committed, covers it. The rules are in `docs/design/delivery.md`,
//! the format in `docs/design/wire.cddl`.
//!
//! Decoders here read version [`WIRE_VERSION`] (and N − 1 once there is one), never panic, and never
//! allocate by a length that the bytes only claim.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;

use crate::cbor::{self, Unread};
use crate::checksum::Checksum;
use crate::clock::{BootOffset, Stamp, WallMs};
use crate::id::{AgentId, BootId, DeviceId, Epoch, RunId, Seq};
use crate::record::{DeviceState, LinkMode, Snapshot};
use crate::stream::Stream;

/// Version of the envelope that this program writes.
pub const WIRE_VERSION: u8 = 1;

/// Largest MQTT payload that either side sends or accepts, bytes.
pub const MAX_PAYLOAD: usize = 512 * 1024;

/// A batch of small records is closed before it exceeds this many bytes of bodies.
pub const MAX_BATCH: usize = 64 * 1024;

/// A record whose body is larger than this travels in parts.
pub const MAX_INLINE: usize = 32 * 1024;

/// Largest part of a large record on a good link, bytes.
pub const MAX_PART: usize = 128 * 1024;

/// Largest part on a link that acknowledges less than 2 Mbit/s, bytes.
pub const MAX_PART_SLOW: usize = 32 * 1024;

/// Largest body of one record, bytes. Ten seconds at 12 Mbit/s and some room.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// Why a payload is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than anything that this side would send.
    #[error("the payload has {0} bytes; at most {MAX_PAYLOAD} are accepted")]
    TooLarge(usize),
    /// Not CBOR, or not of this shape.
    #[error("the payload cannot be read: {0}")]
    Malformed(String),
    /// A version that this program does not read.
    #[error("the payload has wire version {0}; this program reads {WIRE_VERSION}")]
    Version(u8),
}

/// An inclusive range of sequence numbers, `first ≤ last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    /// First number in the range.
    pub first: Seq,
    /// Last number in the range.
    pub last: Seq,
}

impl SeqRange {
    /// How many numbers the range covers; 0 if it is turned around.
    #[must_use]
    pub const fn len(&self) -> u64 {
        if self.last < self.first {
            0
        } else {
            (self.last - self.first).saturating_add(1)
        }
    }

    /// Whether the range covers nothing (turned around).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.last < self.first
    }

    /// Whether `seq` lies in the range.
    #[must_use]
    pub const fn contains(&self, seq: Seq) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// Why records are missing for good (or until their card turns up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The card gave back something else than was written.
    Damaged,
    /// Dropped by policy: the stream's cap in bytes.
    EvictedBySize,
    /// Dropped by policy: the stream's cap in age.
    EvictedByAge,
    /// Acknowledged, then evicted: only a hub restored from a backup will ask for them.
    EvictedAfterAck,
    /// There was no room to accept them.
    DiskFull,
    /// The hub closed an old epoch at the last number that health had told.
    EpochClosed,
    /// A reason that this program does not know yet.
    #[serde(other)]
    Other,
}

impl GapReason {
    /// Every reason, for pages that must have a word for each.
    pub const ALL: [Self; 7] = [
        Self::Damaged,
        Self::EvictedBySize,
        Self::EvictedByAge,
        Self::EvictedAfterAck,
        Self::DiskFull,
        Self::EpochClosed,
        Self::Other,
    ];

    /// The word in the API, the database and the language files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::EvictedBySize => "evicted_by_size",
            Self::EvictedByAge => "evicted_by_age",
            Self::EvictedAfterAck => "evicted_after_ack",
            Self::DiskFull => "disk_full",
            Self::EpochClosed => "epoch_closed",
            Self::Other => "other",
        }
    }

    /// The reason with this [`name`](Self::name); a name from the future is [`GapReason::Other`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|r| r.name() == name)
            .unwrap_or(Self::Other)
    }
}

/// Records that will not come: counted, dated, named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gap {
    /// Epoch of the lost records.
    pub epoch: Epoch,
    /// Their stream.
    pub stream: Stream,
    /// Their numbers.
    #[serde(flatten)]
    pub range: SeqRange,
    /// Why.
    pub reason: GapReason,
    /// When they were lost, by the agent's wall clock.
    pub at_ms: WallMs,
}

/// Everything that an agent sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Up {
    /// [`WIRE_VERSION`] of the writer.
    pub v: u8,
    /// Must be the owner of the topic.
    pub agent: AgentId,
    /// What it says.
    pub msg: UpMessage,
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpMessage {
    /// First after each connection, and whenever there is data but no permission for 10 s.
    Hello(Hello),
    /// Small records of one lane, in order.
    Records(Records),
    /// A piece of one large record.
    Part(Part),
    /// What is so at this moment; unsequenced, never counted as delivered.
    Now(Now),
}

/// "This is what I hold; what do you want?"
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The answer must repeat it.
    pub nonce: u64,
    /// Version of the agent.
    pub version: String,
    /// This boot.
    pub boot: BootId,
    /// The agent's wall clock when it wrote this.
    pub wall_ms: WallMs,
    /// The epoch that new records get.
    pub epoch: Epoch,
    /// Every lane that has ever had a record and is still known to the buffer.
    pub lanes: Vec<LaneOffer>,
    /// Lanes were left out because they are too many for one payload: one that is not told here may
    /// still be on the card.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// One lane of a buffer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneOffer {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// The number that the next record of this lane will get (or would get, in an old epoch).
    pub next: Seq,
    /// Records still on the card, acknowledged or not, ascending, not touching.
    pub held: Vec<SeqRange>,
    /// Records that are not, each with its reason; together with `held` they cover 1 … next − 1.
    pub gaps: Vec<Gap>,
}

/// Small records of one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// Gaps that lie before or between these records and may not have been told yet.
    pub gaps: Vec<Gap>,
    /// Ascending by number.
    pub records: Vec<WireRecord>,
}

/// One record in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRecord {
    /// Its number.
    pub seq: Seq,
    /// Checksum of `body`.
    pub sum: Checksum,
    /// The body as it was buffered (see [`crate::record::RecordBody`]).
    pub body: ByteBuf,
}

/// A piece of one large record. Pieces of one record are sent in order from the offset that the hub
/// last acknowledged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// The record's number.
    pub seq: Seq,
    /// Checksum of the whole body.
    pub sum: Checksum,
    /// Length of the whole body, bytes.
    pub total: u32,
    /// Where this piece begins.
    pub offset: u32,
    /// Gaps that lie before this record and may not have been told yet.
    pub gaps: Vec<Gap>,
    /// The piece.
    pub data: ByteBuf,
}

/// What is so at this moment, so that the screen shows now while history drains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Now {
    /// When this was written.
    pub stamp: Stamp,
    /// State of each device.
    pub devices: Vec<DeviceState>,
    /// The mode of the link.
    pub link: LinkMode,
    /// Records waiting in the buffer, all lanes.
    pub backlog: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// Capture time of the oldest of them.
    pub oldest_ms: Option<WallMs>,
    /// The newest still of cameras whose still is newer than what has been sent; as many as fit.
    pub stills: Vec<Still>,
    /// How far the hub's time is ahead of this boot's monotonic time, measured at the last answer; none
    /// before the first answer in this boot, and from agents that do not measure it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<BootOffset>,
}

/// A camera's newest picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Still {
    /// The camera.
    pub device: DeviceId,
    /// When it was captured.
    pub stamp: Stamp,
    /// The picture.
    pub picture: Snapshot,
}

/// Everything that the hub sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Down {
    /// [`WIRE_VERSION`] of the writer.
    pub v: u8,
    /// The life of the hub process that wrote this. An ack of another run than the last answer's
    /// sends the agent back to hello.
    pub run: RunId,
    /// Bytes that the agent may have in flight (sent and not acknowledged); 0 = stop.
    pub permission: u32,
    /// Streams that the hub cannot take at the moment (media disk full); the others go on.
    pub paused: Vec<Stream>,
    /// The agent must begin a new epoch: its numbers collide with something stored.
    pub new_epoch: bool,
    /// What it says.
    pub msg: DownMessage,
}

/// What the hub says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DownMessage {
    /// The answer to a hello.
    Answer(Answer),
    /// What has been committed.
    Ack(Ack),
    /// A message that this program does not know yet; ignored.
    #[serde(other)]
    Other,
}

/// "Send me from here, and these."
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the hello that is answered.
    pub nonce: u64,
    /// The hub's wall clock when it wrote this.
    pub wall_ms: WallMs,
    /// One per lane of the hello. Authoritative, even below what was once acknowledged.
    pub lanes: Vec<LaneAnswer>,
}

/// What the hub wants of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneAnswer {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// Everything from this number on is wanted.
    pub from: Seq,
    /// Below `from`, these are wanted too (and nothing else is).
    pub missing: Vec<SeqRange>,
    /// Large records that are already spooled in part.
    pub parts: Vec<PartAck>,
    /// The highest record that is stored among those that the agent holds. If the agent has another
    /// body under this number, what is stored is of another card with the same epoch: a clone of its
    /// card, which has gone on counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// A number and the checksum of what stands under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The number.
    pub seq: Seq,
    /// Checksum of the whole body.
    pub sum: Checksum,
}

/// What has been committed. Cumulative and repeatable, so a lost one does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The lanes that changed, or that a duplicate was seen in.
    pub lanes: Vec<LaneAck>,
}

/// What has been committed of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneAck {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// Each of 1 … watermark is stored or covered by a gap.
    pub watermark: Seq,
    /// Stored above the watermark.
    pub stored: Vec<SeqRange>,
    /// Progress of large records that are spooled and not yet whole.
    pub parts: Vec<PartAck>,
}

/// Progress of one large record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartAck {
    /// The record's number.
    pub seq: Seq,
    /// Bytes from the beginning that are spooled: the next part begins here.
    pub received: u32,
}

fn decode<T: DeserializeOwned>(bytes: &[u8], version: fn(&T) -> u8) -> Result<T, WireError> {
    if bytes.len() > MAX_PAYLOAD {
        return Err(WireError::TooLarge(bytes.len()));
    }
    cbor::read_known(bytes, version, |v| v == WIRE_VERSION).map_err(|unread| match unread {
        Unread::Malformed(why) => WireError::Malformed(why),
        Unread::Version(v) => WireError::Version(v),
    })
}

impl Up {
    /// An envelope of the current version.
    #[must_use]
    pub fn new(agent: AgentId, msg: UpMessage) -> Self {
        Self {
            v: WIRE_VERSION,
            agent,
            msg,
        }
    }

    /// The MQTT payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::write(self)
    }

    /// Reads an MQTT payload.
    ///
    /// # Errors
    /// [`WireError`] if it is too large, not CBOR of this shape, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes, |up: &Self| up.v)
    }
}

impl Down {
    /// The MQTT payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::write(self)
    }

    /// Reads an MQTT payload.
    ///
    /// # Errors
    /// [`WireError`] if it is too large, not CBOR of this shape, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes, |down: &Self| down.v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> Up {
        let body = b"body".to_vec();
        Up::new(
            AgentId::new("rsud").unwrap(),
            UpMessage::Records(Records {
                epoch: Epoch(u64::MAX),
                stream: Stream::Attendance,
                gaps: vec![Gap {
                    epoch: Epoch(3),
                    stream: Stream::Event,
                    range: SeqRange { first: 2, last: 9 },
                    reason: GapReason::Damaged,
                    at_ms: -1,
                }],
                records: vec![WireRecord {
                    seq: 1,
                    sum: Checksum::of(&body),
                    body: ByteBuf::from(body),
                }],
            }),
        )
    }

    #[test]
    fn envelopes_come_back_as_they_were_written() {
        let up = records();
        assert_eq!(Up::decode(&up.encode()).unwrap(), up);
        let down = Down {
            v: WIRE_VERSION,
            run: RunId(5),
            permission: 512,
            paused: vec![Stream::Segment],
            new_epoch: false,
            msg: DownMessage::Ack(Ack {
                lanes: vec![LaneAck {
                    epoch: Epoch(1),
                    stream: Stream::Segment,
                    watermark: 4,
                    stored: vec![SeqRange { first: 6, last: 6 }],
                    parts: vec![PartAck {
                        seq: 5,
                        received: 131_072,
                    }],
                }],
            }),
        };
        assert_eq!(Down::decode(&down.encode()).unwrap(), down);
    }

    #[test]
    fn a_now_of_an_agent_that_measures_no_offset_is_read() {
        use crate::clock::Clock as _;
        let now = Now {
            stamp: crate::clock::ManualClock::at(5).stamp(),
            devices: Vec::new(),
            link: LinkMode::Normal,
            backlog: 0,
            backlog_bytes: 0,
            oldest_ms: None,
            stills: Vec::new(),
            offset: None,
        };
        let up = |now| Up::new(AgentId::new("rsud").unwrap(), UpMessage::Now(now));
        let before = up(now.clone()).encode();
        let has = |bytes: &[u8], word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
        assert!(!has(&before, b"offset"), "the bytes of before it was there");
        assert_eq!(Up::decode(&before).unwrap(), up(now.clone()));
        let measured = Now {
            offset: Some(BootOffset {
                ahead_ms: -7,
                within_ms: 40,
                mono_ms: 9,
            }),
            ..now
        };
        let after = up(measured.clone()).encode();
        assert_eq!(Up::decode(&after).unwrap(), up(measured));
    }

    #[test]
    fn another_version_is_named() {
        let mut up = records();
        up.v = 7;
        assert!(matches!(
            Up::decode(&up.encode()),
            Err(WireError::Version(7))
        ));
    }

    #[test]
    fn a_message_from_the_future_is_passed_over_whatever_it_carries() {
        use ciborium::Value;
        use ciborium::cbor;
        let down = Down {
            v: WIRE_VERSION,
            run: RunId(5),
            permission: 512,
            paused: Vec::new(),
            new_epoch: false,
            msg: DownMessage::Other,
        };
        for msg in [
            cbor!({ "lease" => { "id" => 7, "until_ms" => [1, { "a" => null }] } }).unwrap(),
            cbor!({ "lease" => [1, 2] }).unwrap(),
            cbor!({ "lease" => 7 }).unwrap(),
            cbor!({ "lease" => null }).unwrap(),
            cbor!("lease").unwrap(),
        ] {
            let mut map: Vec<(Value, Value)> = ciborium::from_reader(&down.encode()[..])
                .map(|map: Value| map.into_map().unwrap())
                .unwrap();
            for (key, value) in &mut map {
                if key.as_text() == Some("msg") {
                    *value = msg.clone();
                }
            }
            let bytes = cbor::write(&Value::Map(map));
            assert_eq!(Down::decode(&bytes).unwrap(), down, "{msg:?}");
        }
    }

    #[test]
    fn a_payload_that_is_too_large_is_refused_before_it_is_parsed() {
        let bytes = vec![0; MAX_PAYLOAD + 1];
        assert!(matches!(Up::decode(&bytes), Err(WireError::TooLarge(_))));
    }

    #[test]
    fn a_length_that_the_bytes_only_claim_allocates_nothing() {
        // a CBOR byte string that claims 2^62 bytes and brings none
        let bytes = [0xa1, 0x61, b'v', 0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0];
        assert!(Up::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = Up::decode(&bytes);
            let _ = Down::decode(&bytes);
        }

        #[test]
        fn damaged_envelopes_never_panic(at in 0usize..400, value in any::<u8>()) {
            let mut bytes = records().encode();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Up::decode(&bytes);
        }

        #[test]
        fn ranges_count_what_they_cover(first in 0u64..100, last in 0u64..100) {
            let range = SeqRange { first, last };
            let counted = (0..200).filter(|s| range.contains(*s)).count() as u64;
            prop_assert_eq!(range.len(), counted);
            prop_assert_eq!(range.is_empty(), counted == 0);
        }
    }
}
