//! Time. Nothing else in the project asks the system for it.
//!
//! A Raspberry Pi has no clock of its own: after a power cut it wakes up in the past until NTP or
//! the hub tells it better. So every record carries four facts instead of one: which boot, how long
//! since that boot, what the wall clock claimed, and how far that claim can be trusted. Order within
//! a boot comes from the monotonic time; the hub corrects wall times per boot, records are never
//! rewritten.

mod offset;
mod told;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::id::BootId;
pub use offset::{BootOffset, Dated, Known, TimeQuality};
use told::{HubTime, NtpTime};

/// Milliseconds since 1970-01-01 00:00 UTC.
pub type WallMs = i64;

/// 2026-01-01 00:00 UTC: before it nobody had these programs, so a clock that says less is wrong.
pub const EARLIEST_MS: WallMs = 1_767_225_600_000;

/// Milliseconds since boot, suspend included (`CLOCK_BOOTTIME`).
pub type MonoMs = u64;

/// How far a wall time can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Nobody has confirmed the clock since this boot.
    Unconfirmed,
    /// Ours is within two seconds of the time that the hub told at the last hello.
    Hub,
    /// An NTP client has set the clock, and nobody has stepped it since.
    Ntp,
}

/// When something happened, in all the forms that are needed to order and to date it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The boot during which it happened.
    pub boot: BootId,
    /// Since that boot.
    pub mono_ms: MonoMs,
    /// What the wall clock said.
    pub wall_ms: WallMs,
    /// What that is worth.
    pub quality: ClockQuality,
}

/// The source of time.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// What the wall clock says.
    fn wall_ms(&self) -> WallMs;
    /// Since boot.
    fn mono_ms(&self) -> MonoMs;
    /// What [`wall_ms`](Self::wall_ms) is worth now.
    fn quality(&self) -> ClockQuality;
    /// This boot.
    fn boot(&self) -> BootId;
    /// The hub told its time, read half-way through the exchange: `offset_ms` = hub − ours, off by
    /// `within_ms` (half of the exchange) at most.
    fn hub_offset(&self, offset_ms: i64, within_ms: u32);
    /// How far the hub's time is ahead of the monotonic one, as it last told; none in a boot in which
    /// it has not. No step of the wall clock changes it.
    fn boot_offset(&self) -> Option<BootOffset>;
    /// All four together.
    fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.boot(),
            mono_ms: self.mono_ms(),
            wall_ms: self.wall_ms(),
            quality: self.quality(),
        }
    }
}

/// A clock that can be shared.
pub type SharedClock = Arc<dyn Clock>;

/// Largest distance from the hub's time at which the hub's word confirms ours.
pub const CONFIRM_WITHIN_MS: i64 = 2_000;

fn ahead(wall_ms: WallMs, mono_ms: MonoMs) -> i64 {
    wall_ms.saturating_sub(i64::try_from(mono_ms).unwrap_or(i64::MAX))
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    boot: BootId,
    hub: HubTime,
    ntp: NtpTime<std::time::SystemTime>,
}

impl SystemClock {
    /// Reads the boot id of the kernel; where there is none (a container without `/proc`), a random
    /// one stands for the life of this process.
    #[must_use]
    pub fn new() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| parse_boot_id(&text))
            .unwrap_or_else(|| BootId(rand::random()));
        Self {
            boot,
            hub: HubTime::default(),
            ntp: NtpTime::default(),
        }
    }

    /// A shared handle on a new system clock.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let hex: String = text.trim().chars().filter(|c| *c != '-').collect();
    if hex.len() != 32 {
        return None;
    }
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(BootId(bytes))
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn wall_ms(&self) -> WallMs {
        let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            Ok(after) => millis(after),
            Err(before) => -millis(before.duration()),
        }
    }

    fn mono_ms(&self) -> MonoMs {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        secs * 1_000 + nanos / 1_000_000
    }

    fn quality(&self) -> ClockQuality {
        let (wall_ms, mono_ms) = (self.wall_ms(), self.mono_ms());
        if self.ntp.confirms(ntp_setting(), wall_ms, mono_ms) {
            ClockQuality::Ntp
        } else if self.hub.confirms(wall_ms, mono_ms) {
            ClockQuality::Hub
        } else {
            ClockQuality::Unconfirmed
        }
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn hub_offset(&self, offset_ms: i64, within_ms: u32) {
        let (wall_ms, mono_ms) = (self.wall_ms(), self.mono_ms());
        self.hub.told(wall_ms, mono_ms, offset_ms, within_ms);
    }

    fn boot_offset(&self) -> Option<BootOffset> {
        self.hub.known()
    }
}

/// systemd-timesyncd, which the boxes run, touches this file whenever it has set the clock: when it
/// last did. With another NTP client the hub's time confirms the clock.
/// It is a plain look at a file on purpose: `adjtimex` says "unsynchronised" on many boxes whose clock
/// an unprivileged NTP client steps rather than disciplines.
fn ntp_setting() -> Option<std::time::SystemTime> {
    std::fs::metadata("/run/systemd/timesync/synchronized")
        .and_then(|file| file.modified())
        .ok()
}

/// A clock that a test sets and moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    boot: BootId,
    wall_ms: AtomicI64,
    mono_ms: AtomicU64,
    quality: AtomicU8,
    hub: HubTime,
    ntp: NtpTime<u8>,
}

impl ManualClock {
    /// Starts at this wall time, one second after boot, confirmed by NTP.
    #[must_use]
    pub fn at(wall_ms: WallMs) -> Arc<Self> {
        let clock = Arc::new(Self {
            boot: BootId(*b"manual-clock-000"),
            wall_ms: AtomicI64::new(wall_ms),
            mono_ms: AtomicU64::new(1_000),
            quality: AtomicU8::new(2),
            hub: HubTime::default(),
            ntp: NtpTime::default(),
        });
        clock.set_quality(ClockQuality::Ntp);
        clock
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, ms: u32) {
        self.wall_ms.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.mono_ms.fetch_add(u64::from(ms), Ordering::SeqCst);
    }

    /// Steps the wall clock only, as an administrator or NTP would.
    pub fn step_wall(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets what the wall clock is worth, until the hub tells its time or, if it is NTP that set it,
    /// until it is stepped.
    pub fn set_quality(&self, quality: ClockQuality) {
        let code = match quality {
            ClockQuality::Unconfirmed => 0,
            ClockQuality::Hub => 1,
            ClockQuality::Ntp => 2,
        };
        self.quality.store(code, Ordering::SeqCst);
        self.hub.forget();
        self.ntp.confirms(None, 0, 0);
        let _ = self.quality();
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> WallMs {
        self.wall_ms.load(Ordering::SeqCst)
    }
    fn mono_ms(&self) -> MonoMs {
        self.mono_ms.load(Ordering::SeqCst)
    }
    fn quality(&self) -> ClockQuality {
        let (wall_ms, mono_ms) = (self.wall_ms(), self.mono_ms());
        match self.quality.load(Ordering::SeqCst) {
            2 if self.ntp.confirms(Some(0), wall_ms, mono_ms) => ClockQuality::Ntp,
            1 => ClockQuality::Hub,
            _ if self.hub.confirms(wall_ms, mono_ms) => ClockQuality::Hub,
            _ => ClockQuality::Unconfirmed,
        }
    }
    fn boot(&self) -> BootId {
        self.boot
    }
    fn hub_offset(&self, offset_ms: i64, within_ms: u32) {
        let (wall_ms, mono_ms) = (self.wall_ms(), self.mono_ms());
        self.hub.told(wall_ms, mono_ms, offset_ms, within_ms);
    }

    fn boot_offset(&self) -> Option<BootOffset> {
        self.hub.known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_boot_id_is_read_in_its_own_spelling() {
        let boot = parse_boot_id("0f3c9a52-1111-2222-3333-444455556666\n").unwrap();
        assert_eq!(boot.to_string(), "0f3c9a52111122223333444455556666");
        assert_eq!(parse_boot_id("short"), None);
        assert_eq!(parse_boot_id(&"ä".repeat(16)), None);
    }

    #[test]
    fn monotonic_time_never_runs_backwards_and_wall_time_is_of_this_decade() {
        let clock = SystemClock::new();
        let (a, b) = (clock.mono_ms(), clock.mono_ms());
        assert!(b >= a);
        assert!(clock.wall_ms() > 1_700_000_000_000);
    }

    #[test]
    fn the_hub_confirms_a_clock_only_within_two_seconds() {
        let clock = ManualClock::at(0);
        clock.set_quality(ClockQuality::Unconfirmed);
        clock.hub_offset(2_001, 10);
        assert_eq!(clock.quality(), ClockQuality::Unconfirmed);
        clock.hub_offset(-2_000, 10);
        assert_eq!(clock.quality(), ClockQuality::Hub);
    }

    #[test]
    fn a_clock_that_is_stepped_after_the_hub_confirmed_it_is_confirmed_no_longer() {
        let clock = ManualClock::at(1_795_000_000_000);
        clock.set_quality(ClockQuality::Unconfirmed);
        clock.hub_offset(500, 10);
        clock.advance(3_600_000);
        assert_eq!(clock.quality(), ClockQuality::Hub, "only time has passed");
        clock.step_wall(-3_600_000);
        assert_eq!(clock.quality(), ClockQuality::Unconfirmed);
        clock.step_wall(3_600_000);
        assert_eq!(clock.quality(), ClockQuality::Hub, "it is right again");
        // the hub found it an hour slow, and somebody has put it right
        clock.hub_offset(3_600_000, 10);
        assert_eq!(clock.quality(), ClockQuality::Unconfirmed);
        clock.step_wall(3_599_000);
        assert_eq!(clock.quality(), ClockQuality::Hub);
    }
}
