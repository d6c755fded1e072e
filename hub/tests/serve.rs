//! The program itself: what it says about a wrong `hub.toml`, and what it tells its supervisor.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

mod gate_support;

use std::path::Path;
use std::process::{Output, Stdio};

use gate_support::place::{Place, Running, Supervisor};
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, SystemClock};
use scc_common::export::{Begin, LaneFacts, Writer};
use scc_common::header::Header;
use scc_common::id::{AgentId, Epoch};
use scc_common::record::{Content, Event, RecordBody};
use scc_common::register::Register;
use scc_common::stream::Stream;

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A line of the text, changed.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in\n{text}");
    text.replacen(from, to, 1)
}

#[tokio::test]
async fn a_wrong_hub_toml_is_one_sentence_and_leaves_nothing_behind() {
    let place = Place::build().await;
    let right = &place.text;
    let (gate, web) = right.split_at(right.find("[web]").unwrap());
    std::fs::write(place.world.path("empty.pem"), "").unwrap();
    std::fs::copy(
        place.world.path("hub/cert.pem"),
        place.world.path("open.key"),
    )
    .unwrap();
    for (text, words) in [
        (
            with(right, "listen", "lisen"),
            ["hub.toml:3: `lisen`", "expected one of `listen`"],
        ),
        (
            with(right, "127.0.0.1:0", "127.0.0.1"),
            ["hub.toml:3: `listen`", "IP:PORT"],
        ),
        (
            with(right, "hub/cert.pem", "hub/none.pem"),
            ["hub.toml:4: `gate.certificate`", "cannot be read"],
        ),
        (
            with(right, "hub/key.pem", "open.key"),
            ["hub.toml:5: `gate.key`", "chmod 600"],
        ),
        (
            with(right, "agents-ca.pem", "empty.pem"),
            ["hub.toml:6: `gate.agents_ca`", "holds no certificate"],
        ),
        (
            with(right, "revoked.pem", "none.pem"),
            ["hub.toml:7: `gate.revocations`", "cannot be read"],
        ),
        (
            with(right, "hub/cert.pem", "agents-ca.pem"),
            ["hub.toml:5: `gate.key`", "does not belong"],
        ),
        (
            format!("{gate}{}", with(web, "hub/cert.pem", "hub/none.pem")),
            ["hub.toml:10: `web.certificate`", "cannot be read"],
        ),
        (
            with(right, "state\"", "hub/key.pem/state\""),
            ["hub.toml:1: `state_dir`", "cannot be made"],
        ),
    ] {
        let output = place.hub(&text, &["serve"]).output().unwrap();
        let said = said(&output);
        for words in words {
            assert!(said.contains(words), "no {words} in: {said}");
        }
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!place.state().exists(), "half-started: {said}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_leaves_nothing_behind() {
    let place = Place::build().await;
    let taken = place.world.address.to_string();
    let (gate, web) = place.text.split_at(place.text.find("[web]").unwrap());
    for (text, key) in [
        (
            format!("{}{web}", with(gate, "127.0.0.1:0", &taken)),
            "`gate.listen`",
        ),
        (
            format!("{gate}{}", with(web, "127.0.0.1:0", &taken)),
            "`web.listen`",
        ),
    ] {
        let output = place.hub(&text, &["serve"]).output().unwrap();
        let said = said(&output);
        assert!(said.contains(key) && said.contains(&taken), "{said}");
        // not 2: it may well be free when the supervisor tries again
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!place.state().exists(), "half-started: {said}");
    }
}

#[tokio::test]
async fn a_supervisor_is_told_of_readiness_life_and_the_end() {
    let place = Place::build().await;
    let socket = place.world.path("notify");
    let supervisor = Supervisor::at(&socket);
    let mut hub = Running(
        place
            .hub(&place.text, &["serve"])
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "600000")
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    supervisor.hears("READY=1");
    for _ in 0..3 {
        supervisor.hears("WATCHDOG=1");
    }
    let pid = rustix::process::Pid::from_child(&hub.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    supervisor.hears("STOPPING=1");
    assert!(hub.0.wait().unwrap().success());
}

#[tokio::test]
async fn who_only_looks_is_told_that_there_is_no_database_and_makes_none() {
    let place = Place::build().await;
    for look in [&["status"][..], &["user", "list"], &["tail"]] {
        let output = place.hub(&place.text, look).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{look:?}");
        let said = said(&output);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("hub.sqlite"), "{said}");
        assert!(!place.state().exists(), "{look:?} made something");
    }
}

#[tokio::test]
async fn a_backup_never_overwrites_another() {
    let place = Place::build().await;
    place.database();
    let file = place.world.path("copy.sqlite");
    let copy = ["backup", file.to_str().unwrap()];
    assert!(place.hub(&place.text, &copy).status().unwrap().success());
    let first = std::fs::read(&file).unwrap();
    let again = place.hub(&place.text, &copy).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("there is a file already"));
    assert_eq!(std::fs::read(&file).unwrap(), first);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::build().await;
    place.database();
    let mut child = place
        .hub(&place.text, &["status"])
        .spawn()
        .map(Running)
        .unwrap();
    // the reading end is gone before the hub writes
    drop(child.0.stdout.take());
    assert!(child.0.wait().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(child.0.stderr.as_mut().unwrap(), &mut rest).unwrap();
    assert_eq!(rest, "");
}

/// An exported card of `rsud` with three events.
fn card(file: &Path) {
    let (clock, epoch, stream) = (SystemClock::new(), Epoch(7), Stream::Event);
    let begin = Begin {
        agent: AgentId::new("rsud").unwrap(),
        made_ms: clock.wall_ms(),
        version: "test".into(),
    };
    let mut writer = Writer::begin(std::fs::File::create(file).unwrap(), &begin).unwrap();
    for seq in 1..=3 {
        let version = format!("{seq}");
        let content = Content::Event(Event::AgentStarted { version });
        let body = RecordBody::new(clock.stamp(), None, content).encode();
        let header = Header {
            stream,
            epoch,
            seq,
            stamp: clock.stamp(),
            acked: 0,
            len: u32::try_from(body.len()).unwrap(),
            sum: Checksum::of(&body),
        };
        writer.record(&header, &body).unwrap();
    }
    let facts = LaneFacts {
        epoch,
        stream,
        next: 4,
        acked: Vec::new(),
        gaps: Vec::new(),
    };
    writer.end(vec![facts]).unwrap();
}

#[tokio::test]
async fn an_import_waits_for_a_stopped_hub_and_says_what_became_of_each_record() {
    let place = Place::build().await;
    let file = place.world.path("rsud.sccx");
    card(&file);
    let fleet = place.world.path("fleet.toml");
    let register = "[fleet]\nname = \"K\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 0\n\
                    [[agency]]\nid = \"dinas\"\nname = \"D\"\n[[site]]\nid = \"rsud\"\n\
                    agencies = [\"dinas\"]\nname = \"RSUD\"\nkind = \"clinic\"\n";
    std::fs::write(&fleet, register).unwrap();
    let register = Register::load(&fleet).unwrap();
    let store = scc_hub::store::Store::open(&place.state().join("hub.sqlite")).unwrap();
    store.apply(register, "test".into(), 0).await.unwrap();
    drop(store);
    let import = |lang: &str| {
        let words = ["import", file.to_str().unwrap(), "--lang", lang];
        place.hub(&place.text, &words).output().unwrap()
    };

    let socket = place.world.path("notify");
    let supervisor = Supervisor::at(&socket);
    let mut hub = Running(
        place
            .hub(&place.text, &["serve"])
            .env("NOTIFY_SOCKET", &socket)
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    supervisor.hears("READY=1");
    let refused = import("id");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("`sudo systemctl stop scc-hub`"));
    let pid = rustix::process::Pid::from_child(&hub.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(hub.0.wait().unwrap().success());

    let lock = scc_hub::lock::take(&place.state()).unwrap();
    let serve = place.hub(&place.text, &["serve"]).output().unwrap();
    assert!(said(&serve).contains("hub.lock"), "{}", said(&serve));
    drop(lock);

    for (lang, rows) in [
        ("id", ["3 catatan disimpan", "0 sudah ada"]),
        ("en", ["0 records stored", "3 stored before"]),
    ] {
        let done = import(lang);
        assert!(done.status.success(), "{}", said(&done));
        let text = String::from_utf8(done.stdout).unwrap();
        for row in rows {
            assert!(text.contains(&format!("       {row}\n")), "{text}");
        }
    }
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&file, bytes).unwrap();
    let cut = said(&import("id"));
    assert!(cut.contains("rsud.sccx: terpotong pada byte"), "{cut}");
}
