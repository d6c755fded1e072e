//! What could not be understood, kept for whoever is to teach the program a new layout.
//!
//! Attendance records only, so no biometrics and no passwords. Bounded: one file each for the last
//! unknown log and the last records set aside, written only when the content has changed.

use std::path::PathBuf;

/// Bytes of an unknown log that are kept.
const LOG_BYTES: usize = 256 * 1024;
/// Records set aside that are kept.
const RECORDS: usize = 512;

/// The files of one terminal.
#[derive(Debug)]
pub struct Diagnosis {
    unknown: Kept,
    set_aside: Kept,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// CRC-32 of what was written last, to spare the card.
    last: Option<u32>,
}

impl Diagnosis {
    /// Files `DIR/DEVICE.unknown` and `DIR/DEVICE.set-aside`.
    #[must_use]
    pub fn new(dir: PathBuf, device: &str) -> Self {
        let kept = |what: &str| Kept {
            path: dir.join(format!("{device}.{what}")),
            last: None,
        };
        Self {
            unknown: kept("unknown"),
            set_aside: kept("set-aside"),
        }
    }

    /// Keeps the beginning of a log of no known layout.
    pub async fn unknown_log(&mut self, body: &[u8]) {
        let kept = body.get(..LOG_BYTES).unwrap_or(body);
        self.unknown.write(kept).await;
    }

    /// Keeps implausible records, one per line in hexadecimal.
    pub async fn set_aside(&mut self, records: &[&[u8]]) {
        use std::fmt::Write;
        if records.is_empty() {
            return;
        }
        let mut lines = String::new();
        for record in records.iter().take(RECORDS) {
            for byte in *record {
                write!(lines, "{byte:02x}").expect("writing into memory cannot fail");
            }
            lines.push('\n');
        }
        self.set_aside.write(lines.as_bytes()).await;
    }
}

impl Kept {
    async fn write(&mut self, bytes: &[u8]) {
        let sum = crc32fast::hash(bytes);
        if self.last == Some(sum) {
            return;
        }
        match tokio::fs::write(&self.path, bytes).await {
            Ok(()) => {
                self.last = Some(sum);
                tracing::warn!(file = %self.path.display(), bytes = bytes.len(), "kept for diagnosis");
            }
            // losing it costs insight, not punches
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "cannot be kept for diagnosis");
            }
        }
    }
}
