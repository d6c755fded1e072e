//! The last time that the hub has told, kept across restarts and power cuts in a small file of the state
//! directory. A box without a clock of its own checks certificates at no time before it.
//!
//! Promises: written at most hourly; a power cut leaves the old time or the new; nothing that is in the
//! file keeps the agent from running; it never comes from a record. What the hub tells is not kept while
//! NTP says something else: then one of the two is wrong, and a floor too high would lock the box out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use scc_common::clock::{Clock, ClockQuality, MonoMs, SharedClock, WallMs};

use crate::durable::replace;

const NAME: &str = "hub-time";

/// Least time between two writings.
const EVERY_MS: MonoMs = 3_600_000;

/// How often it is looked whether there is something to write.
const LOOK: Duration = Duration::from_secs(10);

/// A time later than any certificate's is no time.
const LATEST_MS: WallMs = 253_402_300_799_000;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Floor {
    dir: PathBuf,
    told_ms: AtomicI64,
}

impl Floor {
    /// Reads what an earlier life has kept.
    #[must_use]
    pub fn open(state_dir: PathBuf) -> Self {
        let file = state_dir.join(NAME);
        let told_ms = match std::fs::read_to_string(&file) {
            Ok(text) => text
                .trim()
                .parse()
                .ok()
                .filter(|ms| (0..=LATEST_MS).contains(ms)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(0),
            Err(_) => None,
        };
        if told_ms.is_none() {
            tracing::warn!(file = %file.display(), "the last time of the hub cannot be read; it is told again at the next connection");
        }
        Self {
            dir: state_dir,
            told_ms: AtomicI64::new(told_ms.unwrap_or(0)),
        }
    }

    /// The last time that is kept; 0 if there is none.
    #[must_use]
    pub fn told_ms(&self) -> WallMs {
        self.told_ms.load(Ordering::SeqCst)
    }

    /// The same, unless the clock is set by NTP and contradicts it: a hub whose clock was years ahead for a day
    /// must not keep a box out whose own is right.
    #[must_use]
    pub fn credible_ms(&self, clock: &dyn Clock) -> WallMs {
        let told_ms = self.told_ms();
        let ahead =
            told_ms.saturating_sub(clock.wall_ms()) > i64::try_from(EVERY_MS).unwrap_or(i64::MAX);
        match clock.quality() {
            ClockQuality::Ntp if ahead => 0,
            _ => told_ms,
        }
    }

    /// Keeps what the hub tells for as long as the task lives.
    pub async fn keep(self: std::sync::Arc<Self>, clock: SharedClock) {
        let mut written: Option<MonoMs> = None;
        loop {
            if let Some(told_ms) = due(&*clock, written) {
                written = Some(clock.mono_ms());
                let floor = std::sync::Arc::clone(&self);
                let wrote = tokio::task::spawn_blocking(move || floor.write(told_ms)).await;
                if let Ok(Err(error)) = wrote {
                    tracing::warn!(%error, "the hub's time cannot be kept; tried again in an hour");
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn write(&self, told_ms: WallMs) -> std::io::Result<()> {
        replace(&self.dir.join(NAME), format!("{told_ms}\n").as_bytes())?;
        self.told_ms.store(told_ms, Ordering::SeqCst);
        Ok(())
    }
}

/// The time to write now, if there is one.
fn due(clock: &dyn Clock, written: Option<MonoMs>) -> Option<WallMs> {
    let mono_ms = clock.mono_ms();
    if written.is_some_and(|at| mono_ms.saturating_sub(at) < EVERY_MS) {
        return None;
    }
    let told_ms = clock.boot_offset()?.at(mono_ms);
    let contradicted =
        clock.quality() == ClockQuality::Ntp && clock.wall_ms().abs_diff(told_ms) > EVERY_MS;
    (!contradicted && (0..=LATEST_MS).contains(&told_ms)).then_some(told_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::clock::ManualClock;

    const NOW: WallMs = 1_795_000_000_000;

    #[test]
    fn what_the_hub_told_outlives_the_program_and_rubbish_is_no_time() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Floor::open(dir.path().to_path_buf());
        assert_eq!(open().told_ms(), 0);
        open().write(NOW).unwrap();
        assert_eq!(open().told_ms(), NOW);
        for rubbish in ["", "soon", "-5", "99999999999999999", "\u{0}\u{0}"] {
            std::fs::write(dir.path().join(NAME), rubbish).unwrap();
            assert_eq!(open().told_ms(), 0, "{rubbish:?}");
        }
    }

    #[test]
    fn it_is_written_at_most_hourly_and_goes_by_the_hub_and_not_by_the_boxs_clock() {
        let clock = ManualClock::at(5_000);
        clock.set_quality(ClockQuality::Unconfirmed);
        assert_eq!(due(&*clock, None), None, "the hub has told nothing");
        clock.hub_offset(NOW - 5_000, 20);
        assert_eq!(due(&*clock, None), Some(NOW));
        let written = Some(clock.mono_ms());
        clock.step_wall(50 * 365 * 86_400_000);
        clock.advance(3_599_000);
        assert_eq!(due(&*clock, written), None);
        clock.advance(1_000);
        assert_eq!(due(&*clock, written), Some(NOW + 3_600_000));
    }

    #[test]
    fn a_hub_that_ntp_contradicts_is_not_believed() {
        let clock = ManualClock::at(NOW);
        clock.hub_offset(50 * 365 * 86_400_000, 20);
        assert_eq!(due(&*clock, None), None);
    }
}
