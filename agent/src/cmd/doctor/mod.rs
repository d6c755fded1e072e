//! `scc-agent doctor`: looks at everything between this box's power supply and the hub, in the order
//! in which things break, and names for each the first thing to fix.
//!
//! It changes nothing and disturbs nobody: the hub is asked over MQTT only if no agent is connected
//! under this name already (a second connection would throw the first one out).

mod local;
mod network;

use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::{Clock, SystemClock};
use scc_common::config::EXIT_CONFIG;
use scc_common::lang::Lang;

use super::{print, refuse};
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
    Good(String),
    /// This box cannot tell, or it need not be asked.
    Skipped((String, String)),
    /// To be fixed.
    Bad((String, String)),
}

/// Both languages of a text.
pub(crate) fn both(id: impl Into<String>, en: impl Into<String>) -> (String, String) {
    (id.into(), en.into())
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
            Outcome::Good(seen) => format!("[ OK ] {name}: {seen}\n"),
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
    let findings = runtime.block_on(examine(&config, &SystemClock::new()));
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
    print(&findings.iter().map(|f| f.line(lang)).collect::<String>());
    if findings.iter().any(Finding::is_bad) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Every check, in order.
pub(crate) async fn examine(config: &Config, clock: &dyn Clock) -> Vec<Finding> {
    let running = Status::read(&config.state_dir)
        .ok()
        .filter(|status| status.is_fresh(clock.wall_ms()));
    let mut findings = vec![
        local::power(),
        local::disk(&config.state_dir, config.buffer.min_free_bytes),
        local::clock(clock, running.as_ref()),
    ];
    findings.extend(network::hub(config, clock, running.as_ref()).await);
    for camera in &config.cameras {
        findings.push(network::camera(camera).await);
    }
    for terminal in &config.terminals {
        findings.push(network::terminal(terminal).await);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BufferLimits, Camera, Hub, Identity, Terminal};
    use scc_common::clock::ManualClock;
    use scc_common::id::{AgentId, DeviceId};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn config(dir: &Path) -> Config {
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

    #[tokio::test]
    async fn each_fault_is_named_with_the_first_thing_to_fix() {
        let dir = tempfile::tempdir().unwrap();
        let camera = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = camera.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut socket, _) = camera.accept().await.unwrap();
            let mut request = [0; 256];
            let _ = socket.read(&mut request).await;
            let _ = socket
                .write_all(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
                .await;
        });
        let mut config = config(dir.path());
        config.cameras.push(Camera {
            id: DeviceId::new("loket").unwrap(),
            url: format!("rtsp://127.0.0.1:{port}/x"),
            user: None,
            password: None,
            snapshot_every_s: 30,
            segments: false,
            segment_s: 10,
        });
        config.terminals.push(Terminal {
            id: DeviceId::new("absensi").unwrap(),
            host: "127.0.0.1".into(),
            port: 1,
            comm_key: 0,
            utc_offset_min: 480,
            full_read_every_s: 900,
        });
        let findings = examine(&config, &*ManualClock::at(1_795_000_000_000)).await;
        assert!(!find(&findings, "camera loket").is_bad(), "{findings:?}");
        let terminal = find(&findings, "terminal absensi");
        assert!(
            terminal.line(Lang::Id).starts_with("[SALAH] mesin absensi"),
            "{terminal:?}"
        );
        assert!(find(&findings, "route to the hub").is_bad());
        assert!(find(&findings, "certificate").is_bad());
        assert!(!find(&findings, "disk").is_bad());
        for finding in &findings {
            assert_eq!(finding.line(Lang::En).lines().count(), 1);
        }
    }
}
