//! The agent's end of a reader process: started, listened to, and gone for certain.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::BytesMut;
use scc_common::clock::SharedClock;
use scc_common::id::DeviceId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::address;
use super::fault::{Failure, Fault};
use super::protocol::{Job, Message, decode};

/// Lines of a reader's standard error that are logged in one [`WINDOW_MS`].
const LINES: u32 = 5;
const WINDOW_MS: u64 = 60_000;

/// What a pipe holds.
const READ_BYTES: usize = 64 * 1024;

/// Free memory that a reader keeps: two fragments of the largest kind.
const KEPT_BYTES: &str = "4194304";

/// Longest line that is logged.
const LINE_BYTES: usize = 300;

/// How a reader process is started: a program and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments; nothing secret.
    pub args: Vec<OsString>,
}

impl Program {
    /// This program itself, under its hidden subcommand.
    ///
    /// # Errors
    /// The system's, if it cannot tell which program this is.
    pub fn this() -> std::io::Result<Self> {
        Ok(Self {
            path: std::env::current_exe()?,
            args: vec![super::WORKER_COMMAND.into()],
        })
    }
}

/// A running reader. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Reader {
    child: Child,
    out: ChildStdout,
    held: BytesMut,
}

impl Reader {
    /// Starts a reader and gives it its job.
    ///
    /// The kernel ties its life to the *thread* that started it; a thread of tokio's pool that ends
    /// early takes its readers with it, which looks like a crash and is mended like one.
    ///
    /// # Errors
    /// Crashed, if the system does not let us.
    pub(super) async fn start(
        program: &Program,
        job: &Job,
        device: &DeviceId,
        clock: &SharedClock,
    ) -> Result<Self, Failure> {
        let crashed = |what: &str, e: &dyn std::fmt::Display| {
            Failure::new(Fault::Crashed, format!("its reader process {what}: {e}"))
        };
        let mut child = Command::new(&program.path)
            .args(&program.args)
            // a reader's memory is a few large buffers that come and go with each fragment; pages that
            // go back to the system and come again cost a sixth of its time. What a decoder held it
            // gives back by itself
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_MMAP_THRESHOLD_", KEPT_BYTES)
            .env("MALLOC_TRIM_THRESHOLD_", KEPT_BYTES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| crashed("cannot be started", &e))?;
        let missing = || Failure::new(Fault::Crashed, "its reader process has no pipes");
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let out = child.stdout.take().ok_or_else(missing)?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(tell_lines(
                stderr,
                device.clone(),
                job.password.clone(),
                clock.clone(),
            ));
        }
        let text = serde_json::to_vec(job).map_err(|e| crashed("cannot be told its job", &e))?;
        stdin
            .write_all(&text)
            .await
            .map_err(|e| crashed("did not take its job", &e))?;
        drop(stdin);
        Ok(Self {
            child,
            out,
            held: BytesMut::new(),
        })
    }

    /// The next message; none when the reader's output has ended. Safe to cancel.
    ///
    /// # Errors
    /// Crashed, if the reader speaks nonsense.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Failure> {
        let crashed = |e: &dyn std::fmt::Display| {
            Failure::new(
                Fault::Crashed,
                format!("its reader process spoke nonsense: {e}"),
            )
        };
        loop {
            if let Some(message) = decode(&mut self.held).map_err(|e| crashed(&e))? {
                return Ok(Some(message));
            }
            if self.held.is_empty() && self.held.capacity() > (1 << 20) {
                // one large fragment must not hold its room until the next
                self.held = BytesMut::new();
            }
            if self.held.capacity() - self.held.len() < READ_BYTES / 4 {
                self.held.reserve(READ_BYTES);
            }
            if self
                .out
                .read_buf(&mut self.held)
                .await
                .map_err(|e| crashed(&e))?
                == 0
            {
                return Ok(None);
            }
        }
    }

    /// Ends the process if it still runs, and tells how it ended.
    pub(super) async fn end(mut self) -> String {
        // fails only if it is already gone
        let _ = self.child.start_kill();
        match tokio::time::timeout(Duration::from_secs(2), self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "it does not end".into(),
        }
    }
}

/// Logs what FFmpeg says, without passwords, and not once per packet.
async fn tell_lines(
    mut stderr: ChildStderr,
    device: DeviceId,
    password: Option<String>,
    clock: SharedClock,
) {
    let mut lines = Lines::default();
    let mut piece = [0; 512];
    while let Ok(n @ 1..) = stderr.read(&mut piece).await {
        for line in lines.take(&piece[..n], clock.mono_ms()) {
            let line = address::redacted(&line, password.as_deref());
            tracing::warn!(device = %device, "camera reader: {line}");
        }
    }
    if lines.left_out > 0 {
        tracing::warn!(device = %device, left_out = lines.left_out, "camera reader said more");
    }
}

/// Cuts bytes into lines and lets only some through.
#[derive(Debug, Default)]
struct Lines {
    held: Vec<u8>,
    window_from_ms: u64,
    told: u32,
    left_out: u64,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], now_ms: u64) -> Vec<String> {
        let mut out = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                if self.held.len() < LINE_BYTES {
                    self.held.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.held);
            if now_ms.saturating_sub(self.window_from_ms) >= WINDOW_MS {
                (self.window_from_ms, self.told) = (now_ms, 0);
            }
            if self.told < LINES {
                self.told += 1;
                out.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            } else {
                self.left_out += 1;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_shouts_is_heard_five_times_a_minute() {
        let mut lines = Lines::default();
        let shout = b"bad packet\n".repeat(1_000);
        assert_eq!(lines.take(&shout, 100_000).len(), 5);
        assert_eq!(lines.take(&shout, 159_999).len(), 0);
        assert_eq!(lines.left_out, 1_995);
        assert_eq!(lines.take(b"again\n", 160_000), ["again"]);
    }

    #[test]
    fn a_line_without_an_end_is_cut_short() {
        let mut lines = Lines::default();
        assert!(lines.take(&[b'x'; 100_000], 100_000).is_empty());
        assert_eq!(lines.take(b"\n", 100_000)[0].len(), LINE_BYTES);
    }
}
