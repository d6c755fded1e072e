//! Holds `docs/design/wire.cddl` and `export.cddl` and the code together: every map that the code
//! writes has exactly the keys of one map in the documents, and every map in them is one that the code
//! writes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::collections::BTreeSet;

use ciborium::Value;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ClockQuality, ManualClock};
use scc_common::export::{Begin, End, LaneFacts};
use scc_common::id::{AgentId, DeviceId, Epoch, RunId};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Event, Health, LaneHealth, LinkMode, Punch,
    PunchBatch, ReadProof, RecordBody, Segment, Snapshot, State, Way,
};
use scc_common::stream::Stream;
use scc_common::wire::{
    Ack, Answer, Down, DownMessage, Gap, GapReason, Hello, LaneAck, LaneAnswer, LaneOffer, Mark,
    Now, Part, PartAck, Records, SeqRange, Still, Up, UpMessage, WIRE_VERSION, WireRecord,
};
use serde_bytes::ByteBuf;

type Keys = BTreeSet<String>;

/// The keys of each `{ … }` in the documents; a choice of one-entry maps counts one by one.
fn documented() -> BTreeSet<Keys> {
    let text = concat!(
        include_str!("../../docs/design/wire.cddl"),
        include_str!("../../docs/design/export.cddl")
    );
    let mut maps = BTreeSet::new();
    let mut open: Vec<(Keys, i32)> = Vec::new();
    let code: String = text
        .lines()
        .map(|line| line.split(';').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
        .replace("  range,", "  first: seq, last: seq,")
        .replace("{ range }", "{ first: seq, last: seq }");
    let mut word = String::new();
    let mut array = 0;
    for c in code.chars() {
        match c {
            '{' => open.push((Keys::new(), array)),
            '}' => {
                maps.insert(open.pop().expect("braces match").0);
            }
            '[' => array += 1,
            ']' => array -= 1,
            ':' => {
                // a name in an array is no key
                if let Some((keys, depth)) = open.last_mut()
                    && *depth == array
                {
                    keys.insert(word.clone());
                }
            }
            _ => {}
        }
        match c {
            'a'..='z' | '0'..='9' | '_' | '-' => word.push(c),
            '"' | ':' => {}
            _ => word.clear(),
        }
        if c == ':' {
            word.clear();
        }
    }
    maps
}

fn collect(value: &Value, maps: &mut BTreeSet<Keys>) {
    match value {
        Value::Map(entries) => {
            let key = |k: &Value| k.as_text().expect("keys are text").to_owned();
            maps.insert(entries.iter().map(|(k, _)| key(k)).collect());
            entries.iter().for_each(|(_, v)| collect(v, maps));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, maps)),
        _ => {}
    }
}

fn samples() -> Vec<Vec<u8>> {
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
    let mut all: Vec<Vec<u8>> = up
        .into_iter()
        .map(|msg| Up::new(agent.clone(), msg).encode())
        .collect();
    all.extend(down.into_iter().map(|msg| {
        Down {
            v: WIRE_VERSION,
            run: RunId(1),
            permission: 0,
            paused: vec![],
            new_epoch: false,
            msg,
        }
        .encode()
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
    all.extend(marks);
    all.extend(contents.map(|c| RecordBody::new(clock.stamp(), Some(device.clone()), c).encode()));
    all
}

#[test]
fn the_document_and_the_code_name_the_same_maps() {
    let mut written = BTreeSet::new();
    for sample in samples() {
        collect(&ciborium::from_reader(&sample[..]).unwrap(), &mut written);
    }
    let documented = documented();
    let only =
        |a: &BTreeSet<Keys>, b: &BTreeSet<Keys>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(
        only(&written, &documented),
        Vec::<Keys>::new(),
        "not in the documents"
    );
    assert_eq!(
        only(&documented, &written),
        Vec::<Keys>::new(),
        "no such map in the code"
    );
}
