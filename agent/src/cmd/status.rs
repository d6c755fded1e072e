//! `scc-agent status`: one screen from the status file of the running agent.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::{Clock, SystemClock, WallMs};
use scc_common::lang::Lang;
use scc_common::record::{DeviceState, LinkMode, State};
use scc_common::stream::Stream;

use super::units::{ago, size};
use super::words::{as_agent, cause, clock, link, stream as stream_word, unreadable};
use super::{print, run};
use crate::status::{Status, path};

/// Prints the screen. Exit status 1 if the agent does not run (or cannot be asked).
pub fn main(file: &Path, lang: Lang) -> ExitCode {
    run::with_state(file, |state| {
        let dir = &state.dir;
        let status = Status::read(dir)
            .map_err(|error| unreadable(&path(dir), &error, &as_agent("status", file), lang))?;
        let now = SystemClock::new().wall_ms();
        print(&page(&status, now, lang));
        if status.is_fresh(now) {
            Ok(())
        } else {
            Err(lang
                .pick(
                    "agen tidak berjalan; yang di atas adalah keadaan terakhirnya",
                    "the agent does not run; the above is its last state",
                )
                .to_owned())
        }
    })
}

/// The whole screen.
#[must_use]
pub fn page(status: &Status, now: WallMs, lang: Lang) -> String {
    let mut page = String::new();
    // writing into a String cannot fail
    let _ = writeln!(
        page,
        "{}  ·  scc-agent {}  ·  {} {}",
        status.agent,
        status.version,
        lang.pick("ditulis", "written"),
        ago(now - status.written_ms, lang),
    );
    let _ = writeln!(
        page,
        "{:9} {} → {} · {} {}{}",
        lang.pick("jalur", "link"),
        mode(status.link.mode, lang),
        status.hub,
        lang.pick("sejak", "since"),
        ago(now - status.link.since_ms, lang),
        status
            .link
            .trouble
            .map(|kind| {
                let why = status.link.why.as_deref().unwrap_or_default();
                format!(" · {}", link(kind, why, lang))
            })
            .unwrap_or_default(),
    );
    if let Some(budget) = status.link.budget {
        let _ = writeln!(
            page,
            "{:9} {}{}",
            lang.pick("anggaran", "budget"),
            size(budget.into()),
            lang.pick(
                "/dtk untuk gambar, video, dan antrean",
                "/s for pictures, video and backlog"
            ),
        );
    }
    let _ = writeln!(
        page,
        "{:9} {}",
        lang.pick("jam", "clock"),
        clock(status.clock, lang)
    );
    let _ = writeln!(page, "\n{}", lang.pick("ANTREAN", "BACKLOG"));
    for stream in Stream::ALL {
        let lanes = || status.lanes.iter().filter(move |l| l.stream == stream);
        let records: u64 = lanes().map(|l| l.records).sum();
        let lost: u64 = lanes().map(|l| l.lost).sum();
        let bytes: u64 = lanes().map(|l| l.bytes).sum();
        let oldest = lanes().filter_map(|l| l.oldest_ms).min();
        let _ = write!(
            page,
            "  {:11} {records:>8}  {:>9}",
            stream_word(stream, lang),
            size(bytes)
        );
        if let Some(oldest) = oldest.filter(|_| records > 0) {
            let label = lang.pick("tertua", "oldest");
            let _ = write!(page, "  {label} {}", ago(now - oldest, lang));
        }
        if lost > 0 {
            let _ = write!(page, "  {} {lost}", lang.pick("hilang", "lost"));
        }
        page.push('\n');
    }
    let up = status
        .devices
        .iter()
        .filter(|d| d.state == State::Up)
        .count();
    let _ = writeln!(
        page,
        "\n{} ({up} / {})",
        lang.pick("PERANGKAT", "DEVICES"),
        status.devices.len()
    );
    for device in &status.devices {
        let _ = writeln!(page, "  {}", device_line(device, now, lang));
    }
    page
}

fn device_line(device: &DeviceState, now: WallMs, lang: Lang) -> String {
    let mut line = format!(
        "{:16} {:12} {} {}",
        device.device.as_str(),
        state(device.state, lang),
        lang.pick("sejak", "since"),
        ago(now - device.since_ms, lang),
    );
    if let Some(why) = device.cause {
        line.push_str(" · ");
        line.push_str(cause(why, lang));
    }
    line.push_str(&seen(device.detail.as_deref()));
    line
}

/// What the agent saw, in English: evidence to be read out over the telephone.
fn seen(detail: Option<&str>) -> String {
    detail.map(|d| format!(" ({d})")).unwrap_or_default()
}

fn state(state: State, lang: Lang) -> &'static str {
    match state {
        State::Up => lang.pick("berfungsi", "up"),
        State::Degraded => lang.pick("terganggu", "degraded"),
        State::Down => lang.pick("mati", "down"),
        State::Unknown => lang.pick("tidak tahu", "unknown"),
        State::Maintenance => lang.pick("dirawat", "maintenance"),
        State::Never => lang.pick("belum pernah", "never"),
    }
}

fn mode(mode: LinkMode, lang: Lang) -> &'static str {
    match mode {
        LinkMode::Down => lang.pick("PUTUS", "DOWN"),
        LinkMode::Connecting => lang.pick("menyambung", "connecting"),
        LinkMode::Normal => lang.pick("normal", "normal"),
        LinkMode::CatchUp => lang.pick("mengejar antrean", "catching up"),
        LinkMode::Slow => lang.pick("lambat", "slow"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::link::Trouble;
    use scc_common::clock::ClockQuality;
    use scc_common::id::{AgentId, DeviceId, Epoch};
    use scc_common::record::{Cause, DeviceKind, LaneHealth};

    fn status() -> Status {
        Status {
            written_ms: 1_000_000,
            version: "0.1.0".into(),
            agent: AgentId::new("rsud").unwrap(),
            hub: "hub.scc:8883".into(),
            link: crate::uplink::status::LinkStatus {
                mode: LinkMode::Down,
                since_ms: 400_000,
                trouble: Some(Trouble::Network),
                why: Some("the hub cannot be reached: no route".into()),
                last_commit_ms: None,
                rate: None,
                budget: None,
            },
            clock: ClockQuality::Ntp,
            lanes: vec![LaneHealth {
                epoch: Epoch(1),
                stream: Stream::Attendance,
                next: 9,
                records: 8,
                bytes: 12_345,
                oldest_ms: Some(700_000),
                lost: 0,
            }],
            devices: vec![DeviceState {
                device: DeviceId::new("absensi").unwrap(),
                kind: DeviceKind::Terminal,
                state: State::Down,
                cause: Some(Cause::KeyRefused),
                since_ms: 0,
                last_good_ms: None,
                detail: None,
            }],
        }
    }

    #[test]
    fn one_screen_says_what_is_wrong_in_both_languages() {
        let page = page(&status(), 1_000_000, Lang::Id);
        for part in [
            "jalur     PUTUS → hub.scc:8883",
            "10 mnt",
            " · pusat tidak terjangkau (no route)\n",
            "absensi",
            "8",
            "12 kB",
            "(0 / 1)",
            "comm key ditolak",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert!(page.lines().count() <= 24);
        let page = super::page(&status(), 1_000_000, Lang::En);
        for part in [
            "link      DOWN → hub.scc:8883",
            " · the hub cannot be reached (no route)\n",
            "comm key refused",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }

    #[test]
    fn a_file_of_an_agent_that_died_is_not_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let status = status();
        status.write(dir.path()).unwrap();
        let back = Status::read(dir.path()).unwrap();
        assert_eq!(back, status);
        assert!(back.is_fresh(1_010_000));
        assert!(!back.is_fresh(1_060_000));
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777 & !0o640, 0, "others may read it");
    }
}
