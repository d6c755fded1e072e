//! Programs that a test or the demo starts, and that never outlive it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};

/// A running program. It is asked to stop (SIGTERM) when dropped, and killed if it does not.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    lines: Option<mpsc::Receiver<String>>,
}

/// How long a program may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(8);

impl Running {
    /// Starts a program; its standard output and error are appended to `log`.
    ///
    /// # Errors
    /// If the program cannot be started or the log not be written.
    pub fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = appended(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            lines: None,
        })
    }

    /// Starts a program whose standard output is read line by line with [`wait_line`](Self::wait_line);
    /// its standard error goes to `log`. Standard input stays open as long as this lives.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn talking(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = appended(log)?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let out = child.stdout.take().context("standard output was piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            lines: Some(lines),
        })
    }

    /// The first line of standard output that begins with `prefix`, without it.
    ///
    /// # Errors
    /// If the program ends, or `within` passes, before such a line.
    pub fn wait_line(&self, prefix: &str, within: Duration) -> anyhow::Result<String> {
        let Some(lines) = &self.lines else {
            bail!("{} was not started to be listened to", self.name);
        };
        let mut left = within;
        let step = Duration::from_millis(100);
        loop {
            match lines.recv_timeout(step) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(rest.trim().to_owned());
                    }
                    if let Some(error) = line.strip_prefix("error ") {
                        bail!("{} said: {error}", self.name);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) if left > step => left -= step,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} did not say `{prefix}` within {within:?}", self.name)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!("{} ended before it said `{prefix}`", self.name)
                }
            }
        }
    }

    /// Gives it a control line and waits for what it answers after `ok`.
    ///
    /// # Errors
    /// If it does not hear, does not answer in ten seconds, or answers `error …`.
    pub fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        let Some(input) = &mut self.child.stdin else {
            bail!("{} was not started to be talked to", self.name);
        };
        writeln!(input, "{line}").with_context(|| format!("{} does not hear", self.name))?;
        self.wait_line("ok", Duration::from_secs(10))
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it at once (SIGKILL), as a power cut of the process would.
    pub fn kill(&mut self) {
        // it may have ended by itself; either way it is gone afterwards
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits; kills it after eight seconds.
    pub fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = i32::try_from(self.child.id())
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            drop(self.child.stdin.take());
            let step = Duration::from_millis(50);
            let mut waited = Duration::ZERO;
            while waited < STOP_WITHIN {
                if let Ok(Some(_)) = self.child.try_wait() {
                    return;
                }
                std::thread::sleep(step);
                waited += step;
            }
            self.kill();
        }
    }
}

/// Opens a log at its end: a program that is started again goes on in the same file.
fn appended(log: &Path) -> anyhow::Result<std::fs::File> {
    let opened = std::fs::File::options().create(true).append(true).open(log);
    opened.with_context(|| log.display().to_string())
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_does_not_outlive_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo noise; echo listening here; cat"]);
        let program = Running::talking("sh", command, &dir.path().join("log")).unwrap();
        let said = program
            .wait_line("listening ", Duration::from_secs(5))
            .unwrap();
        assert_eq!(said, "here");
        let proc = format!("/proc/{}", program.pid());
        drop(program);
        assert!(!Path::new(&proc).exists());
    }

    #[test]
    fn a_program_that_ends_before_it_speaks_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let program =
            Running::talking("true", Command::new("true"), &dir.path().join("log")).unwrap();
        let error = program
            .wait_line("listening ", Duration::from_secs(5))
            .unwrap_err();
        assert!(error.to_string().contains("ended before"), "{error}");
    }
}
