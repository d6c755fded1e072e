//! The program itself: what it does with a wrong configuration, and how it ends.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use scc_common::clock::{Clock, SystemClock};

/// A folder with an identity and an `agent.toml` that is right.
struct Site {
    dir: tempfile::TempDir,
    text: String,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, id) in [("agent", "rsud"), ("other", "psc119")] {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, id);
            let uri = format!("scc:agent:{id}").as_str().try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            std::fs::write(dir.path().join(format!("{name}.pem")), pem).unwrap();
            let file = dir.path().join(format!("{name}.key"));
            std::fs::write(&file, key.serialize_pem()).unwrap();
            allow(&file, 0o600);
        }
        let at = dir.path().display();
        let text = format!(
            "agent = \"rsud\"\nstate_dir = \"{at}/state\"\n[hub]\naddress = \"127.0.0.1:1\"\n\
             [identity]\ncertificate = \"{at}/agent.pem\"\nkey = \"{at}/agent.key\"\n\
             hub_ca = \"{at}/agent.pem\"\n"
        );
        Self { dir, text }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, text: &str) -> Command {
        let file = self.path("agent.toml");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scc-agent"));
        command.args(["run", "--config"]).arg(file);
        command.stdin(Stdio::null());
        command
    }

    /// Runs with the right text but for one thing, which must be refused.
    fn refused(&self, from: &str, to: &str) -> String {
        let text = self.text.replacen(from, to, 1);
        assert_ne!(text, self.text);
        let Output { status, stderr, .. } = self.command(&text).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(
            !self.path("state").exists(),
            "something was started: {said}"
        );
        assert_eq!(said.lines().count(), 1, "one sentence: {said}");
        said
    }
}

fn allow(file: &Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_wrong_configuration_is_one_sentence_and_nothing_is_started() {
    let site = Site::new();
    allow(&site.path("other.key"), 0o644);
    std::fs::write(site.path("file"), "x").unwrap();
    let certificate = "agent.pem\"\nkey";
    for (from, to, line, key, part) in [
        (certificate, "gone.pem\"\nkey", 6, "certificate", "read"),
        (
            certificate,
            "file\"\nkey",
            6,
            "certificate",
            "holds no certificate",
        ),
        (
            certificate,
            "other.pem\"\nkey",
            6,
            "certificate",
            "of `psc119`",
        ),
        ("agent.key", "gone.key", 7, "key", "cannot be read"),
        ("agent.key", "other.key", 7, "key", "chmod 600"),
        ("hub_ca = \"", "hub_ca = \"/nowhere", 8, "hub_ca", "read"),
        ("state\"", "file/state\"", 2, "state_dir", "is not a folder"),
        (
            "state_dir = \"",
            "state_dir = \"state\" # ",
            2,
            "state_dir",
            "absolute",
        ),
        (
            "state_dir = \"",
            "state = \"",
            2,
            "state",
            "expected one of `agent`, `state_dir`",
        ),
        (
            "[identity]",
            "[buffer]\nmin_free_bytes = 9000000000000\n[identity]",
            6,
            "min_free_bytes",
            "whole file system",
        ),
    ] {
        let said = site.refused(from, to);
        let expected = format!("agent.toml:{line}: `{key}`: ");
        assert!(said.contains(&expected) && said.contains(part), "{said}");
    }
    // a right key, but of another's certificate
    allow(&site.path("other.key"), 0o600);
    let said = site.refused("agent.key", "other.key");
    assert!(
        said.contains("agent.toml:7: `key`: ") && said.contains("does not belong"),
        "{said}"
    );
}

/// What a card does that stalls: who opens this file to write waits for ever.
fn stalling(file: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    mknodat(CWD, file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// The supervisor's end of its socket.
struct Supervisor(UnixDatagram);

impl Supervisor {
    /// Watches what `command` says; it has to give a sign of life every three seconds.
    fn of(site: &Site, command: &mut Command) -> Self {
        let path = site.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        command.env("NOTIFY_SOCKET", path);
        command.env("WATCHDOG_USEC", "3000000");
        Self(socket)
    }

    fn hear(&self, wanted: &str) {
        let mut said = [0; 512];
        loop {
            let n = self
                .0
                .recv(&mut said)
                .unwrap_or_else(|e| panic!("{wanted}: {e}"));
            if String::from_utf8_lossy(&said[..n]).contains(wanted) {
                return;
            }
        }
    }
}

/// Ends a running agent as systemd does, and sees how.
fn stopped(mut agent: Agent) {
    kill(&agent.0, rustix::process::Signal::TERM);
    let mut status = None;
    until("the end", Duration::from_secs(5), || {
        status = agent.0.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "{status:?}");
}

#[test]
fn a_card_that_stalls_under_the_status_file_stops_neither_the_watchdog_nor_the_stop() {
    let site = Site::new();
    stalling(&site.path("state/status.json.new"));
    let mut command = site.command(&site.text);
    let supervisor = Supervisor::of(&site, &mut command);
    let agent = Agent(command.stderr(Stdio::null()).spawn().unwrap());
    supervisor.hear("READY=1");
    for _ in 0..4 {
        supervisor.hear("WATCHDOG=1");
    }
    stopped(agent);
}

#[test]
fn a_card_that_stalls_under_the_opening_does_not_stop_the_stop() {
    let site = Site::new();
    stalling(&site.path("state/buffer/lock"));
    let mut command = site.command(&site.text);
    let agent = Agent(command.stderr(Stdio::null()).spawn().unwrap());
    // before that a SIGTERM ends any program
    until("it listens for SIGTERM", Duration::from_secs(20), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.0.id())).unwrap();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        caught.is_some_and(|set| set & 1 << (rustix::process::Signal::TERM.as_raw() - 1) != 0)
    });
    stopped(agent);
}

/// Somebody who speaks RTSP as far as the first answer, and then lets every caller wait.
fn slow_camera() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = [0; 512];
            let _ = socket.read(&mut request);
            let _ = socket.write_all(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE\r\n\r\n");
            held.push(socket);
        }
    });
    port
}

/// Waits until `done`, for so long at most.
fn until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let from = clock.mono_ms();
    while !done() {
        let waited = Duration::from_millis(clock.mono_ms() - from);
        assert!(waited < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn children(agent: &Child) -> Vec<PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap();
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids: String = lists.collect();
    pids.split_whitespace()
        .map(|pid| Path::new("/proc").join(pid))
        .collect()
}

/// A running agent; a test that fails leaves none behind.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent whose two cameras are being read.
fn reading(site: &Site) -> (Agent, Vec<PathBuf>) {
    let mut text = site.text.clone();
    for id in ["depan", "belakang"] {
        let port = slow_camera();
        text.push_str("[[camera]]\n");
        text.push_str(&format!(
            "id = \"{id}\"\nurl = \"rtsp://127.0.0.1:{port}/x\"\n"
        ));
    }
    let mut command = site.command(&text);
    let agent = Agent(command.stderr(Stdio::null()).spawn().unwrap());
    let mut readers = Vec::new();
    until("both readers", Duration::from_secs(20), || {
        readers = children(&agent.0);
        readers.len() == 2
    });
    (agent, readers)
}

fn kill(agent: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(agent);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A zombie that nobody has reaped yet has no program any more.
fn gone(process: &Path) -> bool {
    process.join("exe").read_link().is_err()
}

#[test]
fn a_stop_takes_less_than_five_seconds_and_leaves_no_reader() {
    let site = Site::new();
    let (agent, readers) = reading(&site);
    stopped(agent);
    assert!(readers.iter().all(|r| gone(r)), "a reader reads on");
}

#[test]
fn a_killed_agent_leaves_no_reader() {
    let site = Site::new();
    let (mut agent, readers) = reading(&site);
    kill(&agent.0, rustix::process::Signal::KILL);
    agent.0.wait().unwrap();
    until("no reader", Duration::from_secs(2), || {
        readers.iter().all(|r| gone(r))
    });
}

/// A `buffer` command, with what it printed.
fn buffer(site: &Site, arguments: &[&str]) -> (Option<i32>, String) {
    let config = site.path("agent.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_scc-agent"))
        .arg("buffer")
        .args(arguments)
        .args(["--lang", "en"])
        .args((arguments[0] == "import").then_some("--config"))
        .args((arguments[0] == "import").then_some(config))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_card_goes_from_a_stopped_box_into_a_file_and_back_and_the_status_tells_how() {
    let site = Site::new();
    let (card, file) = (site.path("state"), site.path("rsud.sccx"));
    let (card, file) = (card.to_str().unwrap(), file.to_str().unwrap());
    let (code, said) = buffer(&site, &["check", card]);
    assert_eq!(code, Some(2), "{said}");
    let mut command = site.command(&site.text);
    let supervisor = Supervisor::of(&site, &mut command);
    let agent = Agent(command.stderr(Stdio::null()).spawn().unwrap());
    supervisor.hear("READY=1");
    let (code, said) = buffer(&site, &["export", card, file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("systemctl stop scc-agent"), "{said}");
    stopped(agent);

    let (code, said) = buffer(&site, &["check", card]);
    assert!(code == Some(0) && said.contains("All is whole"), "{said}");
    let (code, said) = buffer(&site, &["export", card, file]);
    assert!(code == Some(0) && said.contains("of `rsud`"), "{said}");
    std::fs::rename(card, site.path("old")).unwrap();
    let (code, said) = buffer(&site, &["import", file]);
    assert!(
        code == Some(0) && said.contains("records taken in"),
        "{said}"
    );
    let (code, said) = buffer(&site, &["import", file]);
    assert!(code == Some(0) && said.contains("held already"), "{said}");
    assert!(!said.contains("records taken in"), "{said}");

    let events = site.path("old/buffer/event");
    let events = std::fs::read_dir(events).unwrap().next().unwrap();
    let events = events.unwrap().path();
    let mut bytes = std::fs::read(&events).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&events, bytes).unwrap();
    let old = site.path("old");
    let (code, said) = buffer(&site, &["check", old.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Something is damaged"), "{said}");
}
