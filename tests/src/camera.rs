//! The stand-in camera: `tests/stand-in/camera/camera.py`, started and made to fail from Rust.
//!
//! Tests and the demo use the same one. It needs Debian's GStreamer RTSP server, and the footage that
//! `tests/footage.sh` encodes once.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};

/// Debian's own Python: the one that GStreamer's bindings are installed for.
const PYTHON: &str = "/usr/bin/python3";

/// Which footage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 768 × 576, 0.7 Mbit/s.
    Small,
    /// 1920 × 1080, 4 Mbit/s.
    Full,
}

/// Encodes the footage into `folder` unless it is there, and returns the file.
///
/// # Errors
/// If the source footage or FFmpeg is missing.
pub fn footage(folder: &Path, size: Size) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("footage.sh");
    let which = match size {
        Size::Small => "768",
        Size::Full => "1080",
    };
    let output = Command::new(&script)
        .arg(folder)
        .arg(which)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", script.display(), output.status);
    }
    let file = String::from_utf8(output.stdout).context("a file name that is not UTF-8")?;
    Ok(PathBuf::from(file.trim_end()))
}

/// How the camera asks who is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth<'a> {
    /// Not at all.
    None,
    /// User and password in the clear.
    Basic(&'a str, &'a str),
    /// User and a digest of the password.
    Digest(&'a str, &'a str),
}

/// A running stand-in with one or more streams. It ends when this is dropped, and with this process.
#[derive(Debug)]
pub struct StandInCamera {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl StandInCamera {
    /// Starts one on a free port of 127.0.0.1, with a stream of this footage for each name.
    ///
    /// # Errors
    /// If it does not come up; its own words are on standard error.
    pub fn start(footage: &Path, names: &[&str]) -> anyhow::Result<Self> {
        Self::start_on(0, names.iter().map(|name| (*name, footage)))
    }

    /// The same on a given port (0: a free one), each stream with footage of its own.
    ///
    /// # Errors
    /// If it does not come up; its own words are on standard error.
    pub fn start_on<'a>(
        port: u16,
        streams: impl IntoIterator<Item = (&'a str, &'a Path)>,
    ) -> anyhow::Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stand-in/camera/camera.py");
        let mut child = Command::new(PYTHON)
            .arg(&script)
            .arg(port.to_string())
            .args(streams.into_iter().map(|(name, file)| {
                [OsStr::new(name), OsStr::new("="), file.as_os_str()]
                    .into_iter()
                    .collect::<std::ffi::OsString>()
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PYTHON}"))?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the stand-in camera has no pipes");
        };
        let mut camera = Self {
            child,
            commands,
            answers: BufReader::new(answers),
            port: 0,
        };
        let answer = camera.answer()?;
        camera.port = answer
            .strip_prefix("port ")
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("the stand-in camera did not start: {answer:?}"))?;
        Ok(camera)
    }

    /// Its port; the same for its whole life.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where a stream is.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("rtsp://127.0.0.1:{}/{name}", self.port)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The same picture again and again.
    ///
    /// # Errors
    /// If the stand-in does not obey; so for all that follow.
    pub fn freeze(&mut self, name: &str) -> anyhow::Result<()> {
        self.obey(&format!("freeze {name}"))
    }

    /// The connection stays, nothing comes.
    ///
    /// # Errors
    /// As above.
    pub fn silence(&mut self, name: &str) -> anyhow::Result<()> {
        self.obey(&format!("silence {name}"))
    }

    /// Noise instead of pictures.
    ///
    /// # Errors
    /// As above.
    pub fn garble(&mut self, name: &str) -> anyhow::Result<()> {
        self.obey(&format!("garble {name}"))
    }

    /// Footage again.
    ///
    /// # Errors
    /// As above.
    pub fn resume(&mut self, name: &str) -> anyhow::Result<()> {
        self.obey(&format!("resume {name}"))
    }

    /// Asks for a password from now on, or no longer. Every session ends.
    ///
    /// # Errors
    /// As above.
    pub fn auth(&mut self, auth: Auth<'_>) -> anyhow::Result<()> {
        match auth {
            Auth::None => self.obey("auth none"),
            Auth::Basic(user, password) => self.obey(&format!("auth basic {user} {password}")),
            Auth::Digest(user, password) => self.obey(&format!("auth digest {user} {password}")),
        }
    }

    /// The port closes and every session ends, as when the power goes.
    ///
    /// # Errors
    /// As above.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.obey("stop")
    }

    /// The port opens again.
    ///
    /// # Errors
    /// As above.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.obey("start")
    }

    fn obey(&mut self, command: &str) -> anyhow::Result<()> {
        writeln!(self.commands, "{command}").context("the stand-in camera is gone")?;
        let answer = self.answer()?;
        if answer != "ok" && !answer.starts_with("port ") {
            bail!("the stand-in camera answered {command:?} with {answer:?}");
        }
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the stand-in camera ended");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for StandInCamera {
    fn drop(&mut self) {
        // it may be gone already; either way it is not to be left behind
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
