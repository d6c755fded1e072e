//! `scc-agent doctor`: looks at everything between this box's power supply and the hub, in the order
//! in which things break, and names for each the first thing to fix.
//!
//! It changes nothing and disturbs nobody: the hub is asked over MQTT, and a device is opened, only
//! if no running agent is at it already (a second connection would throw the first one out).

mod devices;
mod local;
mod network;

use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::{SharedClock, SystemClock};
use scc_common::config::EXIT_CONFIG;
use scc_common::lang::Lang;

use super::{print, refuse, words};
use crate::config::Config;
use crate::status::Status;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// What was looked at, in both languages.
    name: (String, String),
    /// What was seen if all is well, or what is wrong and the first thing to do.
    outcome: Outcome,
}

/// How a check ended. Texts are (Indonesian, English).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should be, with what was seen.
    Good((String, String)),
    /// This box cannot tell, or it need not be asked.
    Skipped((String, String)),
    /// To be fixed.
    Bad((String, String)),
}

/// Both languages of a text.
pub(crate) fn both(id: impl Into<String>, en: impl Into<String>) -> (String, String) {
    (id.into(), en.into())
}

/// A text that is the same in both languages.
pub(crate) fn same(text: impl Into<String>) -> (String, String) {
    let text = text.into();
    (text.clone(), text)
}

/// A text that is made for each language.
pub(crate) fn each(text: impl Fn(Lang) -> String) -> (String, String) {
    (text(Lang::Id), text(Lang::En))
}

/// What the running agent says, and nobody has to ask again.
fn agent_says(id: &str, en: &str) -> (String, String) {
    both(
        format!("{id}, menurut agen yang sedang berjalan"),
        format!("{en}, says the running agent"),
    )
}

impl Finding {
    pub(crate) fn new(id: &str, en: &str, outcome: Outcome) -> Self {
        Self {
            name: both(id, en),
            outcome,
        }
    }

    fn is_bad(&self) -> bool {
        matches!(self.outcome, Outcome::Bad(_))
    }

    fn line(&self, lang: Lang) -> String {
        let say = |text: &(String, String)| lang.pick(&text.0, &text.1).to_owned();
        let name = say(&self.name);
        match &self.outcome {
            Outcome::Good(seen) => format!("[ OK ] {name}: {}\n", say(seen)),
            Outcome::Skipped(why) => format!("[ -- ] {name}: {}\n", say(why)),
            Outcome::Bad(what) => {
                let bad = lang.pick("SALAH", "FIX!");
                format!("[{bad:^4}] {name}: {}\n", say(what))
            }
        }
    }
}

/// Prints every finding. Exit status 0: all is well; 1: something is to be fixed; 2: the
/// configuration is wrong.
pub fn main(file: &Path, lang: Lang) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return refuse(&error, EXIT_CONFIG),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&error, 1),
    };
    let again = words::as_agent("doctor", file);
    let findings = runtime.block_on(examine(&config, &again, &SystemClock::shared()));
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    print(&findings.iter().map(|f| f.line(lang)).collect::<String>());
    if findings.iter().any(Finding::is_bad) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Every check, in order. `again`: see [`words::as_agent`].
pub(crate) async fn examine(config: &Config, again: &str, clock: &SharedClock) -> Vec<Finding> {
    let running = Status::read(&config.state_dir)
        .ok()
        .filter(|status| status.is_fresh(clock.wall_ms()));
    let mut findings = vec![
        local::power(),
        local::disk(&config.state_dir, config.buffer.min_free_bytes, again),
        local::clock(&**clock, running.as_ref()),
    ];
    findings.extend(network::hub(config, again, &**clock, running.as_ref()).await);
    for camera in &config.cameras {
        findings.push(devices::camera(camera, clock, running.as_ref()).await);
    }
    for terminal in &config.terminals {
        findings.push(devices::terminal(terminal, running.as_ref()).await);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::board::Board;
    use crate::config::{BufferLimits, Camera, Hub, Identity, Terminal};
    use crate::uplink::status::LinkStatus;
    use scc_common::clock::ManualClock;
    use scc_common::id::{AgentId, DeviceId};
    use scc_common::record::{Cause, DeviceKind, LinkMode, State};

    pub(super) fn config(dir: &Path) -> Config {
        let file = |name: &str| dir.join(name);
        Config {
            agent: AgentId::new("rsud").unwrap(),
            state_dir: dir.to_owned(),
            hub: Hub {
                host: "127.0.0.1".into(),
                port: 1,
            },
            identity: Identity {
                certificate: file("a.pem"),
                key: file("a.key"),
                hub_ca: file("ca.pem"),
            },
            buffer: BufferLimits {
                min_free_bytes: 0,
                ..BufferLimits::default()
            },
            budget: crate::uplink::budget::Budget::default(),
            health_every_s: 30,
            cameras: Vec::new(),
            terminals: Vec::new(),
        }
    }

    fn find<'a>(findings: &'a [Finding], en: &str) -> &'a Finding {
        findings
            .iter()
            .find(|f| f.name.1 == en)
            .unwrap_or_else(|| panic!("no {en}: {findings:?}"))
    }

    fn camera(id: &str) -> Camera {
        Camera {
            id: DeviceId::new(id).unwrap(),
            url: "rtsp://127.0.0.1:1/x".into(),
            user: None,
            password: None,
            snapshot_every_s: 30,
            segments: false,
            segment_s: 10,
        }
    }

    #[tokio::test]
    async fn each_fault_is_named_with_the_first_thing_to_fix() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir.path().join("not-yet-there"));
        config.cameras.push(camera("loket"));
        config.terminals.push(Terminal {
            id: DeviceId::new("absensi").unwrap(),
            host: "127.0.0.1".into(),
            port: 1,
            comm_key: 0,
            utc_offset_min: 480,
            full_read_every_s: 900,
        });
        let clock: SharedClock = ManualClock::at(1_795_000_000_000);
        let findings = examine(&config, "", &clock).await;
        let line = |en: &str, lang| find(&findings, en).line(lang);
        assert_eq!(
            line("terminal absensi", Lang::Id),
            "[SALAH] mesin absensi: menolak sambungan (its port is closed); periksa alamat dan port \
             di agent.toml, lalu apakah layanannya dinyalakan di menunya\n"
        );
        let camera = line("camera loket", Lang::En);
        assert!(
            camera.starts_with("[FIX!] camera loket: refuses the connection"),
            "{camera}"
        );
        let route = line("route to the hub", Lang::Id);
        assert!(route.contains("menolak sambungan"), "{route}");
        assert!(find(&findings, "certificate").is_bad());
        let missing = config.identity.certificate.display();
        let certificate = line("certificate", Lang::Id);
        assert!(
            certificate.contains(&format!("{missing} tidak dapat dibaca (")),
            "{certificate}"
        );
        assert_eq!(line("clock", Lang::Id), "[ OK ] jam: sesuai NTP\n");
        // before the first start the folder is not there, and that is no fault
        assert!(!find(&findings, "disk").is_bad(), "{findings:?}");
        for finding in &findings {
            assert_eq!(finding.line(Lang::En).lines().count(), 1);
        }
    }

    #[tokio::test]
    async fn a_running_agent_is_believed_about_its_devices() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        let clock: SharedClock = ManualClock::at(1_795_000_000_000);
        let (board, _changes) = Board::new(clock.clone());
        for id in ["baik", "terkunci"] {
            config.cameras.push(camera(id));
        }
        board.good(&config.cameras[0].id, DeviceKind::Camera);
        let locked = &config.cameras[1].id;
        let cause = Cause::Unauthorized;
        board.fault(locked, DeviceKind::Camera, State::Down, cause, "401");
        let status = Status {
            written_ms: clock.wall_ms(),
            version: "test".into(),
            agent: config.agent.clone(),
            hub: "127.0.0.1:1".into(),
            link: LinkStatus {
                mode: LinkMode::Normal,
                since_ms: 0,
                trouble: None,
                why: None,
                last_commit_ms: None,
                rate: None,
                budget: None,
            },
            clock: clock.quality(),
            lanes: Vec::new(),
            devices: board.devices(),
        };
        status.write(dir.path()).unwrap();
        let findings = examine(&config, "", &clock).await;
        // nobody listens at either address: only the agent's word can say this
        let good = find(&findings, "camera baik");
        assert_eq!(
            good.line(Lang::Id),
            "[ OK ] kamera baik: berfungsi, menurut agen yang sedang berjalan\n"
        );
        assert_eq!(
            good.line(Lang::En),
            "[ OK ] camera baik: up, says the running agent\n"
        );
        assert_eq!(
            find(&findings, "camera terkunci").line(Lang::Id),
            "[SALAH] kamera terkunci: nama pengguna/sandi ditolak (401); perbaiki `user` dan \
             `password_file`\n"
        );
    }
}
