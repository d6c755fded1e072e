//! The records that are sent: of kinds that agents really send, each body of about 300 bytes, no two alike.

use clap::ValueEnum;
use scc_common::checksum::Checksum;
use scc_common::clock::{ClockQuality, Stamp};
use scc_common::id::{AgentId, BootId, DeviceId, Epoch, Seq};
use scc_common::record::{Content, Health, LinkMode, Punch, PunchBatch, RecordBody, Way};
use scc_common::stream::Stream;
use scc_common::wire::{Records, Up, UpMessage, WireRecord};
use serde_bytes::ByteBuf;

/// Bytes that a body is filled up to. The shortest health record, of a box without devices, has ten to fourteen more.
pub const BODY: usize = 300;

/// What the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The box's own measurements: what every agent sends all day. The hub keeps the newest beside the
    /// ledger.
    Health,
    /// One person's check at a terminal: the hub also writes it to the table of punches.
    Punch,
}

impl Kind {
    /// The stream that such records belong to.
    #[must_use]
    pub const fn stream(self) -> Stream {
        match self {
            Self::Health => Stream::Health,
            Self::Punch => Stream::Attendance,
        }
    }

    /// An agent's record of this number.
    #[must_use]
    pub fn record(self, seq: Seq, wall_ms: i64) -> RecordBody {
        let bare = self.padded(seq, wall_ms, 0).encode().len();
        let mut pad = BODY.saturating_sub(bare);
        let mut record = self.padded(seq, wall_ms, pad);
        // a length of its own takes a byte or two more when it grows
        while record.encode().len() > BODY && pad > 0 {
            pad -= 1;
            record = self.padded(seq, wall_ms, pad);
        }
        record
    }

    /// Its bytes.
    #[must_use]
    pub fn body(self, seq: Seq, wall_ms: i64) -> Vec<u8> {
        self.record(seq, wall_ms).encode()
    }

    fn padded(self, seq: Seq, wall_ms: i64, pad: usize) -> RecordBody {
        let stamp = Stamp {
            boot: BootId([7; 16]),
            mono_ms: 1_000_000 + seq,
            wall_ms,
            quality: ClockQuality::Ntp,
        };
        let content = match self {
            Self::Health => Content::Health(Box::new(Health {
                version: format!("0.1.0{}", ".".repeat(pad)),
                boot: BootId([7; 16]),
                uptime_s: seq,
                load1: 0.5,
                memory_total_kib: 948_000,
                memory_available_kib: 612_000,
                disk_total: 4_000_000_000,
                disk_free: 2_000_000_000,
                temperature_c: None,
                under_voltage: None,
                clock: ClockQuality::Ntp,
                link: LinkMode::Normal,
                lanes: Vec::new(),
                devices: Vec::new(),
            })),
            Self::Punch => Content::Punches(PunchBatch {
                serial: "CGKK223862906".into(),
                way: Way::Pull,
                utc_offset_min: 480,
                drift_ms: Some(120),
                read: None,
                punches: vec![Punch {
                    user: format!("{}", 10_000 + seq % 200),
                    local_s: 848_000_000 + seq.cast_signed(),
                    state: 0,
                    verify: 1,
                    ordinal: 0,
                    raw: vec![1; pad],
                }],
            }),
        };
        let device = match self {
            Self::Health => None,
            Self::Punch => DeviceId::new("mesin").ok(),
        };
        RecordBody::new(stamp, device, content)
    }

    /// The envelope of the records `first` to `first + count − 1`.
    #[must_use]
    pub fn envelope(
        self,
        agent: &AgentId,
        epoch: Epoch,
        first: Seq,
        count: u64,
        wall_ms: i64,
    ) -> Vec<u8> {
        let records = (first..first + count).map(|seq| {
            let body = self.body(seq, wall_ms);
            WireRecord {
                seq,
                sum: Checksum::of(&body),
                body: ByteBuf::from(body),
            }
        });
        let records = Records {
            epoch,
            stream: self.stream(),
            gaps: Vec::new(),
            records: records.collect(),
        };
        Up::new(agent.clone(), UpMessage::Records(records)).encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_size_is_readable_and_like_no_other() {
        for kind in [Kind::Health, Kind::Punch] {
            for seq in [1, 30_000, 5_000_000] {
                let body = kind.body(seq, 1_795_000_000_000);
                let fits = (BODY - 2..=BODY + 16).contains(&body.len());
                assert!(fits, "{kind:?}: {}", body.len());
                assert_eq!(RecordBody::decode(&body).unwrap().stream(), kind.stream());
                assert_ne!(body, kind.body(seq + 1, 1_795_000_000_000));
            }
        }
    }
}
