//! What can be seen without the network: power, disk, clock.

use std::path::Path;

use scc_common::clock::{Clock, ClockQuality, EARLIEST_MS};

use super::{Finding, Outcome, both, each};
use crate::capture::health::{self, Sensors};
use crate::cmd::units::size;
use crate::cmd::words;
use crate::status::Status;

/// The supply, where the box can tell.
pub(super) fn power() -> Finding {
    let outcome = match Sensors::default().under_voltage() {
        Some(false) => Outcome::Good(both("cukup", "enough")),
        Some(true) => Outcome::Bad(both(
            "tegangan pernah turun; ganti adaptor dan kabel dayanya",
            "the supply was too weak; replace the power adapter and its cable",
        )),
        None => Outcome::Skipped(both("tidak dapat diukur", "cannot be measured here")),
    };
    Finding::new("listrik", "power", outcome)
}

/// Room on the card, and whether it can be written. A folder that is not there yet is looked at where
/// it will be made. `again`: see [`words::as_agent`].
pub(super) fn disk(state_dir: &Path, min_free: u64, again: &str) -> Finding {
    let outcome = match crate::config::grounds::nearest(state_dir)
        .and_then(|dir| Some((dir, health::disk(dir)?)))
    {
        None => Outcome::Bad(both(
            format!(
                "{} tidak terjangkau; pasang partisinya",
                state_dir.display()
            ),
            format!(
                "{} cannot be reached; mount its partition",
                state_dir.display()
            ),
        )),
        Some((_, (_, free))) if free < min_free => Outcome::Bad(both(
            format!(
                "tinggal {}; kosongkan kartu atau ganti yang lebih besar",
                size(free)
            ),
            format!("only {} left; make room or use a larger card", size(free)),
        )),
        Some((dir, _)) if is_read_only(dir) => Outcome::Bad(both(
            "kartu hanya dapat dibaca; kartu mungkin rusak, ganti",
            "the card is read-only; it may be failing, replace it",
        )),
        Some((dir, _)) if dir == state_dir && !may_write(dir) => Outcome::Bad(both(
            format!(
                "{} tidak boleh ditulis oleh pengguna ini; jalankan `{again}`",
                dir.display()
            ),
            format!("this user may not write {}; run `{again}`", dir.display()),
        )),
        Some((_, (total, free))) => Outcome::Good(both(
            format!("{} bebas dari {}", size(free), size(total)),
            format!("{} of {} free", size(free), size(total)),
        )),
    };
    Finding::new("kartu/disk", "disk", outcome)
}

fn is_read_only(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn may_write(dir: &Path) -> bool {
    crate::config::grounds::writable(dir).is_ok()
}

/// The wall clock. A running agent may have it from the hub, which this process does not know.
pub(super) fn clock(clock: &dyn Clock, running: Option<&Status>) -> Finding {
    let quality = running.map_or_else(|| clock.quality(), |s| s.clock.max(clock.quality()));
    let now = clock.wall_ms();
    let outcome = if now < EARLIEST_MS {
        Outcome::Bad(both(
            "jam salah (sebelum 2026); sambungkan ke NTP atau atur dengan `timedatectl`",
            "the clock is wrong (before 2026); reach an NTP server or set it with `timedatectl`",
        ))
    } else if quality == ClockQuality::Unconfirmed {
        Outcome::Skipped(both(
            "belum dipastikan oleh NTP atau pusat",
            "not yet confirmed by NTP or the hub",
        ))
    } else {
        Outcome::Good(each(|lang| words::clock(quality, lang).to_owned()))
    };
    Finding::new("jam", "clock", outcome)
}
