//! What a record says. The buffer, the uplink and the ledger carry a record as opaque bytes; only
//! who captures it and who judges it look inside.
//!
//! A body is one CBOR map (RFC 8949), written once when the record is captured and never again.
//! Its version is that of this module; a decoder reads version [`BODY_VERSION`] and the one before.

use serde::{Deserialize, Serialize};

use crate::cbor::{self, Unread};
use crate::clock::{ClockQuality, Stamp, WallMs};
use crate::id::{BootId, DeviceId, Epoch, Seq};
use crate::stream::Stream;

/// Version of the body that this program writes.
pub const BODY_VERSION: u8 = 1;

/// The whole of one record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordBody {
    /// [`BODY_VERSION`] of the writer.
    pub v: u8,
    /// When it was captured; for a segment, when its first frame was.
    pub stamp: Stamp,
    /// Which device it is about; none for the box itself.
    pub device: Option<DeviceId>,
    /// What was captured.
    pub content: Content,
}

/// Why bytes are not a record body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Not CBOR, or not of this shape.
    #[error("the record cannot be read: {0}")]
    Malformed(String),
    /// A version from the future, or too old.
    #[error("the record has body version {0}; this program reads up to {BODY_VERSION}")]
    Version(u8),
}

impl RecordBody {
    /// A body of the current version.
    #[must_use]
    pub fn new(stamp: Stamp, device: Option<DeviceId>, content: Content) -> Self {
        Self {
            v: BODY_VERSION,
            stamp,
            device,
            content,
        }
    }

    /// The stream that this content belongs to.
    #[must_use]
    pub fn stream(&self) -> Stream {
        self.content.stream()
    }

    /// The bytes that are buffered, sent, checked and stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::write(self)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes are not a body of a version that is read here. Never panics, and
    /// never allocates by a length that the bytes only claim.
    pub fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        let known = |v| v > 0 && v <= BODY_VERSION;
        cbor::read_known(bytes, |body: &Self| body.v, known).map_err(|unread| match unread {
            Unread::Malformed(why) => BodyError::Malformed(why),
            Unread::Version(v) => BodyError::Version(v),
        })
    }
}

/// What was captured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Something changed.
    Event(Event),
    /// Punches of one terminal, with the proof of the read that brought them.
    Punches(PunchBatch),
    /// The box's measurements.
    Health(Box<Health>),
    /// One still picture.
    Snapshot(Snapshot),
    /// A few seconds of video.
    Segment(Segment),
}

impl Content {
    /// The stream that carries this content.
    #[must_use]
    pub const fn stream(&self) -> Stream {
        match self {
            Self::Event(_) => Stream::Event,
            Self::Punches(_) => Stream::Attendance,
            Self::Health(_) => Stream::Health,
            Self::Snapshot(_) => Stream::Snapshot,
            Self::Segment(_) => Stream::Segment,
        }
    }
}

/// The six states of the glossary; one meaning each on every page and in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Up,
    /// Works, but less than it should.
    Degraded,
    /// Does not work.
    Down,
    /// We could not look: the link or the hub was down.
    Unknown,
    /// Somebody is working on it.
    Maintenance,
    /// Declared, and has never sent.
    Never,
}

impl State {
    /// The word in the API and in CSS.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Maintenance => "maintenance",
            Self::Never => "never",
        }
    }

    /// The state with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Up,
            Self::Degraded,
            Self::Down,
            Self::Unknown,
            Self::Maintenance,
            Self::Never,
        ]
        .into_iter()
        .find(|s| s.name() == name)
    }
}

/// What kind of thing a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A video source.
    Camera,
    /// An attendance machine.
    Terminal,
}

impl DeviceKind {
    /// The word in the API and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Terminal => "terminal",
        }
    }
}

/// Why a device is not `up`. The page has a sentence and a first thing to do for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// No answer at its address: no route, timeout, cable or power.
    Offline,
    /// Something answers there, but refuses the connection.
    Refused,
    /// Its name does not resolve.
    Unresolved,
    /// User name or password refused (camera).
    Unauthorized,
    /// Connected, but nothing has come for longer than the deadline.
    Stalled,
    /// Connected, but there is no video track that can be read.
    NoVideo,
    /// What it sends is not what it should be.
    Garbage,
    /// Its reader process ended unexpectedly.
    Crashed,
    /// The TCP port is open but the service behind it says nothing (terminal).
    Silent,
    /// The comm key was refused (terminal).
    KeyRefused,
    /// Another program holds its only session (terminal).
    Busy,
    /// It was read, but not to the last record (terminal).
    Incomplete,
    /// Its records are of no known layout (terminal).
    UnknownFormat,
    /// It speaks the encrypted dialect (terminal).
    Encrypted,
    /// Its clock is off by more than a minute.
    ClockDrift,
    /// The box cannot store what the device delivers.
    BufferFull,
    /// The agent has only just begun to look.
    Starting,
    /// A cause that this program does not know yet.
    #[serde(other)]
    Other,
}

impl Cause {
    /// Every cause, for pages and tests that must have a word for each.
    pub const ALL: [Self; 18] = [
        Self::Offline,
        Self::Refused,
        Self::Unresolved,
        Self::Unauthorized,
        Self::Stalled,
        Self::NoVideo,
        Self::Garbage,
        Self::Crashed,
        Self::Silent,
        Self::KeyRefused,
        Self::Busy,
        Self::Incomplete,
        Self::UnknownFormat,
        Self::Encrypted,
        Self::ClockDrift,
        Self::BufferFull,
        Self::Starting,
        Self::Other,
    ];

    /// The word in the API, the database and the language files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Refused => "refused",
            Self::Unresolved => "unresolved",
            Self::Unauthorized => "unauthorized",
            Self::Stalled => "stalled",
            Self::NoVideo => "no_video",
            Self::Garbage => "garbage",
            Self::Crashed => "crashed",
            Self::Silent => "silent",
            Self::KeyRefused => "key_refused",
            Self::Busy => "busy",
            Self::Incomplete => "incomplete",
            Self::UnknownFormat => "unknown_format",
            Self::Encrypted => "encrypted",
            Self::ClockDrift => "clock_drift",
            Self::BufferFull => "buffer_full",
            Self::Starting => "starting",
            Self::Other => "other",
        }
    }

    /// The cause with this [`name`](Self::name); a name from the future is [`Cause::Other`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|c| c.name() == name)
            .unwrap_or(Self::Other)
    }
}

/// The state of one device, as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Which device of this agent.
    pub device: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// The state.
    pub state: State,
    /// Why it is not `up`.
    pub cause: Option<Cause>,
    /// Since when it has been in this state.
    pub since_ms: WallMs,
    /// When it last delivered something good.
    pub last_good_ms: Option<WallMs>,
    /// One short English sentence with what was seen (an error text, a count), without secrets.
    pub detail: Option<String>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The agent program began to run.
    AgentStarted {
        /// Its version.
        version: String,
    },
    /// The agent program was told to stop and did.
    AgentStopped {},
    /// A device changed its state.
    DeviceState(DeviceState),
    /// Part of the buffer could not be read; what is lost is told as gaps.
    BufferDamaged {
        /// Records that could not be read.
        records: u64,
        /// What was found, for the developer.
        detail: String,
    },
    /// The buffer began to number anew.
    EpochBegun {
        /// The new epoch.
        epoch: Epoch,
        /// Why.
        reason: String,
    },
    /// What the buffer has accepted, by the agent's own count.
    Tally(Tally),
    /// An event that this program does not know yet.
    #[serde(other)]
    Other,
}

/// How far the agent has numbered its records at the end of a period: its side of the comparison
/// with what the hub has stored. What a lane has accepted in the period are the numbers from its
/// `next` in the tally before (or 1) up to its `next` here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// When the tally before was taken, by the agent's clock; the period counts on the day it begins.
    pub from_ms: WallMs,
    /// When this one was taken, by the agent's clock, which was confirmed then.
    pub to_ms: WallMs,
    /// The lanes that have grown in the period.
    pub lanes: Vec<LaneTally>,
}

/// One lane of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTally {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// The number that the next record gets.
    pub next: Seq,
}

/// How punches came from the terminal to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The terminal's whole log, by the buffered or direct read of its own protocol.
    Pull,
    /// A live event, a hint until the log confirms it.
    Live,
}

/// One check by one person at one terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Punch {
    /// The person's number on the terminal, as text; `uid:7` where the terminal gives only an
    /// internal number that no user could be found for.
    pub user: String,
    /// The terminal's own wall clock, seconds since 2000-01-01 00:00 in its own zone, true calendar
    /// (not the terminal's 31-day months).
    pub local_s: i64,
    /// In/out key as sent: 0 in, 1 out, 2 break out, 3 break in, 4 overtime in, 5 overtime out,
    /// 255 not set. A hint only.
    pub state: u8,
    /// How the person was verified, as sent (zk.md §11h).
    pub verify: u8,
    /// 0 for the first record of this person and second in the terminal's log, 1 for the next …,
    /// whatever their state and verify. Always 0 for a live event, which the first record replaces.
    pub ordinal: u16,
    /// The record as the terminal sent it; never contains a biometric template.
    #[serde(with = "serde_bytes")]
    pub raw: Vec<u8>,
}

/// The read that a batch comes from: the evidence that nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadProof {
    /// Records by the terminal's own counter before the read; none if it has no counter.
    pub counter_before: Option<u32>,
    /// The same after the read.
    pub counter_after: Option<u32>,
    /// Records that were read.
    pub records: u32,
    /// counter before ≤ records ≤ counter after.
    pub complete: bool,
    /// Records that were not plausible and were set aside raw.
    pub quarantined: u32,
    /// Records of this log per local day (`yyyy-mm-dd`), newest 8 days: "mesin 214 / pusat 214".
    pub per_day: Vec<(String, u32)>,
    /// Name of the record layout that was recognised (`40`, `16`, `8a`, `8b`, `49`).
    pub layout: String,
}

/// Punches of one terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PunchBatch {
    /// The terminal's serial number: its identity.
    pub serial: String,
    /// How they came.
    pub way: Way,
    /// Minutes that the terminal's wall clock is ahead of UTC.
    pub utc_offset_min: i16,
    /// Terminal's clock − agent's clock at the middle of the exchange, milliseconds; none when the
    /// agent's own clock was unconfirmed.
    pub drift_ms: Option<i64>,
    /// Set on the last batch of a read of the whole log, also when it brought nothing new.
    pub read: Option<ReadProof>,
    /// New punches, in the order of the log.
    pub punches: Vec<Punch>,
}

/// The mode that the link to the hub is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkMode {
    /// No connection.
    Down,
    /// Connecting, or connected and waiting for the answer to hello.
    Connecting,
    /// Nothing older than a few seconds waits.
    Normal,
    /// A backlog is draining.
    CatchUp,
    /// Connected, but acknowledgements are late.
    Slow,
}

/// One lane of the buffer, as health tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneHealth {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// The number that the next record will get.
    pub next: Seq,
    /// Records held and not acknowledged.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Capture time of the oldest of them.
    pub oldest_ms: Option<WallMs>,
    /// Records lost to gaps in this lane since its epoch began.
    pub lost: u64,
}

/// The box's own measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Version of the agent.
    pub version: String,
    /// This boot.
    pub boot: BootId,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// Load average of one minute.
    #[serde(deserialize_with = "cbor::float")]
    pub load1: f32,
    /// Memory of the box, KiB.
    pub memory_total_kib: u64,
    /// Memory that programs could still get, KiB.
    pub memory_available_kib: u64,
    /// Size of the file system that holds the buffer, bytes.
    pub disk_total: u64,
    /// Room left on it, bytes.
    pub disk_free: u64,
    /// Hottest sensor, °C, where the box has one.
    #[serde(default, deserialize_with = "cbor::some_float")]
    pub temperature_c: Option<f32>,
    /// The supply was too weak since boot, where the box can tell.
    pub under_voltage: Option<bool>,
    /// What the wall clock is worth.
    pub clock: ClockQuality,
    /// The link to the hub.
    pub link: LinkMode,
    /// Each lane of the buffer.
    pub lanes: Vec<LaneHealth>,
    /// Each device.
    pub devices: Vec<DeviceState>,
}

/// One still picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// Seconds between two stills that the camera is configured for; a still older than twice this
    /// is stale.
    pub cadence_s: u32,
    /// JPEG (ITU-T T.81).
    #[serde(with = "serde_bytes")]
    pub jpeg: Vec<u8>,
}

/// A few seconds of video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Duration by the stream's own timestamps.
    pub duration_ms: u32,
    /// Video packets in it.
    pub frames: u32,
    /// RFC 6381 codec string taken from the stream, such as `avc1.4d4028`.
    pub codec: String,
    /// Pixels.
    pub width: u16,
    /// Pixels.
    pub height: u16,
    /// A complete fragmented MP4 file (ISO/IEC 14496-12): ftyp, moov, then moof and mdat.
    #[serde(with = "serde_bytes")]
    pub mp4: Vec<u8>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp() -> Stamp {
        Stamp {
            boot: BootId([7; 16]),
            mono_ms: 42,
            wall_ms: 1_795_000_000_000,
            quality: ClockQuality::Ntp,
        }
    }

    /// What a terminal's log has of one person.
    pub(crate) fn punches() -> PunchBatch {
        PunchBatch {
            serial: "CGKK223862906".into(),
            way: Way::Pull,
            utc_offset_min: 480,
            drift_ms: Some(-1_500),
            read: None,
            punches: vec![Punch {
                user: "10036".into(),
                local_s: 848_000_000,
                state: 0,
                verify: 15,
                ordinal: 0,
                raw: vec![1; 40],
            }],
        }
    }

    #[test]
    fn a_body_comes_back_as_it_was_written() {
        let device = DeviceId::new("loket").unwrap();
        let bodies = [
            RecordBody::new(
                stamp(),
                Some(device.clone()),
                Content::Snapshot(Snapshot {
                    width: 640,
                    height: 480,
                    cadence_s: 30,
                    jpeg: vec![0xff, 0xd8, 0xff],
                }),
            ),
            RecordBody::new(stamp(), Some(device), Content::Punches(punches())),
            RecordBody::new(stamp(), None, Content::Event(Event::AgentStopped {})),
        ];
        for body in bodies {
            let back = RecordBody::decode(&body.encode()).unwrap();
            assert_eq!(back, body);
            assert_eq!(back.stream(), body.content.stream());
        }
    }

    #[test]
    fn a_version_from_the_future_is_named_not_guessed() {
        let mut body = RecordBody::new(stamp(), None, Content::Event(Event::AgentStopped {}));
        body.v = 9;
        assert!(matches!(
            RecordBody::decode(&body.encode()),
            Err(BodyError::Version(9))
        ));
    }

    #[test]
    fn an_event_from_the_future_is_an_event_whatever_it_carries() {
        use ciborium::cbor;
        let stamp = || ciborium::Value::serialized(&stamp()).unwrap();
        for event in [
            cbor!({ "door" => { "open" => true, "by" => [1, { "a" => null }] } }).unwrap(),
            cbor!({ "door" => [1, 2] }).unwrap(),
            cbor!({ "door" => 7 }).unwrap(),
            cbor!("door").unwrap(),
        ] {
            let body = cbor!({
                "v" => BODY_VERSION,
                "stamp" => stamp(),
                "device" => null,
                "content" => { "event" => event },
            });
            let mut bytes = Vec::new();
            ciborium::into_writer(&body.unwrap(), &mut bytes).unwrap();
            let back = RecordBody::decode(&bytes).unwrap();
            assert_eq!(back.content, Content::Event(Event::Other), "{event:?}");
        }
    }

    #[test]
    fn every_cause_and_state_has_one_name() {
        for cause in Cause::ALL {
            assert_eq!(Cause::from_name(cause.name()), cause);
        }
        assert_eq!(State::from_name("never"), Some(State::Never));
        assert_eq!(State::from_name("dead"), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = RecordBody::decode(&bytes);
        }

        #[test]
        fn a_flipped_bit_never_panics(at in 0usize..400, bit in 0u8..8) {
            let mut bytes = RecordBody::new(stamp(), None, Content::Event(Event::AgentStarted { version: "1".into() })).encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let _ = RecordBody::decode(&bytes);
        }
    }
}
