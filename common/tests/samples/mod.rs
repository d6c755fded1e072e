//! One sample of everything that is written as CBOR, the same bytes at each call: held against the
//! documents (`cddl.rs`), and where fuzzing begins (`tests/tests/fuzz_seeds.rs`).

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use scc_common::checksum::Checksum;
use scc_common::clock::{BootOffset, Clock, ClockQuality, ManualClock};
use scc_common::export::{Begin, End, LaneFacts};
use scc_common::id::{AgentId, DeviceId, Epoch, RunId};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Event, Health, LaneHealth, LaneTally, LinkMode, Punch,
    PunchBatch, ReadProof, RecordBody, Segment, Snapshot, State, Tally, Way,
};
use scc_common::stream::Stream;
use scc_common::wire::{
    Ack, Answer, Down, DownMessage, Gap, GapReason, Hello, LaneAck, LaneAnswer, LaneOffer, Mark,
    Now, Part, PartAck, Records, SeqRange, Still, Up, UpMessage, WIRE_VERSION, WireRecord,
};
use serde_bytes::ByteBuf;

/// Who reads a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Either end of the link.
    Envelope,
    /// Whoever reads a record.
    Body,
    /// Whoever reads an exported card.
    Export,
}

/// One sample of everything that is written as CBOR.
pub fn samples() -> Vec<(Kind, Vec<u8>)> {
    let clock = ManualClock::at(1);
    let (epoch, stream) = (Epoch(1), Stream::Event);
    let device = DeviceId::new("loket").unwrap();
    let range = SeqRange { first: 1, last: 2 };
    let gap = Gap {
        epoch,
        stream,
        range,
        reason: GapReason::Damaged,
        at_ms: 0,
    };
    let state = DeviceState {
        device: device.clone(),
        kind: DeviceKind::Camera,
        state: State::Down,
        cause: Some(Cause::Offline),
        since_ms: 0,
        last_good_ms: None,
        detail: None,
    };
    let picture = Snapshot {
        width: 1,
        height: 1,
        cadence_s: 1,
        jpeg: vec![1],
    };
    let sum = Checksum::of(b"");
    let parts = vec![PartAck {
        seq: 1,
        received: 1,
    }];
    let up = [
        UpMessage::Hello(Hello {
            nonce: 1,
            version: String::new(),
            boot: clock.boot(),
            wall_ms: 0,
            epoch,
            lanes: vec![LaneOffer {
                epoch,
                stream,
                next: 3,
                held: vec![range],
                gaps: vec![gap],
            }],
            partial: true,
        }),
        UpMessage::Records(Records {
            epoch,
            stream,
            gaps: vec![],
            records: vec![WireRecord {
                seq: 1,
                sum,
                body: ByteBuf::new(),
            }],
        }),
        UpMessage::Part(Part {
            epoch,
            stream,
            seq: 1,
            sum,
            total: 1,
            offset: 0,
            gaps: vec![],
            data: ByteBuf::new(),
        }),
        UpMessage::Now(Now {
            stamp: clock.stamp(),
            devices: vec![state.clone()],
            link: LinkMode::Normal,
            backlog: 0,
            backlog_bytes: 0,
            oldest_ms: None,
            stills: vec![Still {
                device: device.clone(),
                stamp: clock.stamp(),
                picture: picture.clone(),
            }],
            offset: Some(BootOffset {
                ahead_ms: 1,
                within_ms: 1,
                mono_ms: 1,
            }),
        }),
    ];
    let down = [
        DownMessage::Answer(Answer {
            nonce: 1,
            wall_ms: 0,
            lanes: vec![LaneAnswer {
                epoch,
                stream,
                from: 1,
                missing: vec![],
                parts: parts.clone(),
                mark: Some(Mark {
                    seq: 1,
                    sum: Checksum::of(b""),
                }),
            }],
        }),
        DownMessage::Ack(Ack {
            lanes: vec![LaneAck {
                epoch,
                stream,
                watermark: 0,
                stored: vec![],
                parts,
            }],
        }),
    ];
    let events = [
        Event::AgentStarted {
            version: String::new(),
        },
        Event::AgentStopped {},
        Event::DeviceState(state),
        Event::BufferDamaged {
            records: 1,
            detail: String::new(),
        },
        Event::EpochBegun {
            epoch,
            reason: String::new(),
        },
        Event::Tally(Tally {
            from_ms: 1,
            to_ms: 2,
            lanes: vec![LaneTally {
                epoch,
                stream: Stream::Event,
                next: 1,
            }],
        }),
    ];
    let punches = PunchBatch {
        serial: String::new(),
        way: Way::Pull,
        utc_offset_min: 0,
        drift_ms: None,
        read: Some(ReadProof {
            counter_before: None,
            counter_after: None,
            records: 0,
            complete: true,
            quarantined: 0,
            per_day: vec![(String::new(), 1)],
            layout: String::new(),
        }),
        punches: vec![Punch {
            user: String::new(),
            local_s: 0,
            state: 0,
            verify: 0,
            ordinal: 0,
            raw: vec![],
        }],
    };
    let health = Health {
        version: String::new(),
        boot: clock.boot(),
        uptime_s: 0,
        load1: 0.0,
        memory_total_kib: 0,
        memory_available_kib: 0,
        disk_total: 0,
        disk_free: 0,
        temperature_c: None,
        under_voltage: None,
        clock: ClockQuality::Ntp,
        link: LinkMode::Normal,
        lanes: vec![LaneHealth {
            epoch,
            stream,
            next: 1,
            records: 0,
            bytes: 0,
            oldest_ms: None,
            lost: 0,
        }],
        devices: vec![],
    };
    let segment = Segment {
        duration_ms: 0,
        frames: 0,
        codec: String::new(),
        width: 0,
        height: 0,
        mp4: vec![],
    };
    let contents = events.into_iter().map(Content::Event).chain([
        Content::Punches(punches),
        Content::Health(Box::new(health)),
        Content::Snapshot(picture),
        Content::Segment(segment),
    ]);
    let agent = AgentId::new("rsud").unwrap();
    let mut all: Vec<(Kind, Vec<u8>)> = up
        .into_iter()
        .map(|msg| (Kind::Envelope, Up::new(agent.clone(), msg).encode()))
        .collect();
    all.extend(down.into_iter().map(|msg| {
        let down = Down {
            v: WIRE_VERSION,
            run: RunId(1),
            permission: 0,
            paused: vec![],
            new_epoch: false,
            msg,
        };
        (Kind::Envelope, down.encode())
    }));
    let begin = Begin {
        agent: agent.clone(),
        made_ms: 0,
        version: String::new(),
    };
    let end = End {
        lanes: vec![LaneFacts {
            epoch,
            stream,
            next: 3,
            acked: vec![range],
            gaps: vec![gap],
        }],
        records: 0,
        bytes: 0,
        sum,
    };
    let mut marks = [Vec::new(), Vec::new()];
    ciborium::into_writer(&begin, &mut marks[0]).unwrap();
    ciborium::into_writer(&end, &mut marks[1]).unwrap();
    all.extend(marks.map(|mark| (Kind::Export, mark)));
    all.extend(contents.map(|content| {
        let body = RecordBody::new(clock.stamp(), Some(device.clone()), content);
        (Kind::Body, body.encode())
    }));
    all
}
