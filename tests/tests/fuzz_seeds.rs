//! Where fuzzing begins: one small valid input for each kind of message, `*/fuzz/seeds/TARGET/NAME`.
//!
//! The tests say when a format has moved away from its seeds. To write the agent's anew:
//! `SCC_WRITE_SEEDS=1 cargo test -p scc-tests --test fuzz_seeds`. Those of the hub are MQTT packets, which no
//! code of ours writes: they are held by what the gate reads out of them. What fuzzing itself has found is
//! beside them, in `*/fuzz/corpus/TARGET/`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

#[path = "../../common/tests/samples/mod.rs"]
mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use samples::{Kind, samples};
use scc_agent::capture::camera::protocol::{Head, encode};
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ManualClock};
use scc_common::export::{Begin, Writer};
use scc_common::header::Header;
use scc_common::id::{AgentId, Epoch};
use scc_common::stream::Stream;
use scc_hub::gate::limits::MAX_PACKET;
use scc_hub::gate::packet::{Front, Inbound, Rules, next};
use scc_tests::terminal::seeds;

fn fuzz(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(of)
        .join("fuzz")
}

fn header(body: &[u8]) -> Header {
    Header {
        stream: Stream::Event,
        epoch: Epoch(7),
        seq: 1,
        stamp: ManualClock::at(1).stamp(),
        acked: 0,
        len: u32::try_from(body.len()).unwrap(),
        sum: Checksum::of(body),
    }
}

fn exported(body: &[u8]) -> Vec<u8> {
    let begin = Begin {
        agent: AgentId::new("rsud").unwrap(),
        made_ms: 1,
        version: "1".into(),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("card");
    let mut writer = Writer::begin(std::fs::File::create(&path).unwrap(), &begin).unwrap();
    writer.record(&header(body), body).unwrap();
    writer.end(Vec::new()).unwrap();
    std::fs::read(path).unwrap()
}

/// (target, name, bytes) of the agent's targets.
fn of_the_agent() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = seeds();
    let mut body = Vec::new();
    for (i, (kind, bytes)) in samples().into_iter().enumerate() {
        let target = match kind {
            Kind::Envelope => "envelope",
            Kind::Body => "record_body",
            Kind::Export => continue,
        };
        body.clone_from(&bytes);
        all.push((target, format!("{i:02}"), bytes));
    }
    all.push((
        "buffer_header",
        "event".into(),
        header(&body).encode().into(),
    ));
    all.push(("export_file", "one-record".into(), exported(&body)));
    let life = [4; 33];
    all.push(("terminal_cursor", "life".into(), life.into()));
    let still = Head::Still {
        age_ms: 5,
        width: 640,
        height: 360,
    };
    for (name, head) in [("still", still), ("end", Head::End)] {
        let blob = b"jpeg";
        let said = [&[9][..], &encode(&head, blob.len()).unwrap(), blob].concat();
        all.push(("camera_message", name.into(), said));
    }
    all
}

fn names(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_target_begins_with_valid_messages_of_today() {
    let seeds = fuzz("agent").join("seeds");
    let mut expected = BTreeSet::new();
    for (target, name, bytes) in of_the_agent() {
        let file = seeds.join(target).join(&name);
        if std::env::var_os("SCC_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(seeds.join(target)).unwrap();
            std::fs::write(&file, &bytes).unwrap();
        }
        let kept = std::fs::read(&file).unwrap_or_default();
        assert!(
            kept == bytes,
            "{target}/{name} is another now: see the top of this file"
        );
        expected.insert(file);
    }
    let targets = names(&fuzz("agent").join("fuzz_targets"));
    for target in targets {
        let folder = seeds.join(target.file_stem().unwrap());
        for file in names(&folder) {
            assert!(expected.contains(&file), "{file:?} is nobody's seed");
        }
    }
}

/// What the gate reads out of a seed, whose first byte says where the stream is cut.
fn packets(seed: &[u8]) -> Vec<Inbound> {
    let (cut, stream) = seed.split_first().unwrap();
    let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
    for part in stream.chunks(usize::from(*cut)) {
        buffer.extend_from_slice(part);
        while let Front::Packet(packet) = next(&mut buffer, MAX_PACKET).unwrap() {
            read.push(packet);
        }
    }
    assert!(buffer.is_empty(), "{read:?}, and then {buffer:?}");
    read
}

#[test]
fn every_target_of_the_hub_begins_with_packets_that_the_gate_reads_and_admits() {
    let rules = Rules::new(AgentId::new("a").unwrap());
    let admitted = |name: &str, packet: &Inbound| match (name, packet) {
        ("connect", connect @ Inbound::Connect { .. }) => rules.connect(connect.clone()) == Ok(30),
        (
            "publish",
            Inbound::Publish {
                publish,
                pkid: Some(_),
            },
        ) => rules.publish(publish).is_ok() && publish.payload == "hi",
        ("subscribe", Inbound::Subscribe { pkid: 1, filters }) => rules.subscribe(filters).is_ok(),
        _ => false,
    };
    let targets = names(&fuzz("hub").join("fuzz_targets"));
    let targets: Vec<_> = targets.iter().map(|t| t.file_stem().unwrap()).collect();
    assert_eq!(
        targets,
        ["gate_packet"],
        "a new target needs its seeds here"
    );
    let mut seen = BTreeSet::new();
    for file in names(&fuzz("hub").join("seeds/gate_packet")) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let read = packets(&std::fs::read(&file).unwrap());
        match (name.as_str(), &read[..]) {
            ("ping-disconnect", [Inbound::Ping, Inbound::Disconnect]) => {}
            (name, [packet]) if admitted(name, packet) => {}
            _ => panic!("{name} is not what it was meant to be: {read:?}"),
        }
        seen.insert(name);
    }
    let all = ["connect", "ping-disconnect", "publish", "subscribe"];
    assert_eq!(seen, all.map(str::to_owned).into());
}
