//! States from facts, and the order in which observations count.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use scc_common::clock::{ClockQuality, Dated, Known, Stamp};
use scc_common::id::{BootId, Epoch};
use scc_common::record::{
    Cause, Content, DeviceKind, DeviceState, Event, Health, LinkMode, RecordBody,
};
use scc_common::register::Register;
use scc_common::stream::Stream;
use scc_common::wire;

use super::hear::{committed, live, observe, take_health};
use super::judge::{Facts, GRACE_MS, SETTLE_MS, SiteCause};
use super::*;
use crate::ingest::CommittedRecord;

const NOW: WallMs = 1_795_484_537_000;
const LONG_AGO: WallMs = NOW - 86_400_000;

fn declared() -> Declared {
    let text = "[fleet]\nname = \"S\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 9\n\
        [[agency]]\nid = \"rsud\"\nname = \"RSUD\"\n\
        [[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\nname = \"RSUD\"\nkind = \"clinic\"\n\
        cameras = [{ id = \"igd\" }]\nterminals = [{ id = \"absensi\" }]\n";
    let register = Register::parse(Path::new("fleet.toml"), text.to_owned()).unwrap();
    Declared {
        register,
        applied_ms: LONG_AGO,
        sites: BTreeMap::new(),
        devices: BTreeMap::new(),
    }
}

fn told(device: &str, state: State, cause: Option<Cause>) -> DeviceState {
    DeviceState {
        device: DeviceId::new(device).unwrap(),
        kind: if device == "igd" {
            DeviceKind::Camera
        } else {
            DeviceKind::Terminal
        },
        state,
        cause,
        since_ms: NOW - 60_000,
        last_good_ms: Some(NOW - 60_000),
        detail: None,
    }
}

/// A site where everything runs.
fn well() -> Facts {
    let mut facts = Facts {
        link: Some((true, NOW - 3_600_000)),
        heard_ms: Some(NOW - 1_000),
        ..Facts::default()
    };
    observe(&mut facts, told("igd", State::Up, None), NOW - 1_000);
    observe(&mut facts, told("absensi", State::Up, None), NOW - 1_000);
    facts
}

fn judged(facts: &Facts, now_ms: WallMs) -> SiteNow {
    judge::site(&declared(), 0, facts, LONG_AGO, now_ms, 0).unwrap()
}

#[test]
fn nothing_ever_arrived_is_never_for_the_site_and_all_in_it() {
    let site = judged(&Facts::default(), NOW);
    assert_eq!(
        (site.state, site.cause),
        (State::Never, Some(SiteCause::NeverSent))
    );
    assert_eq!(site.since_ms, LONG_AGO);
    assert!(site.devices.iter().all(|d| d.state == State::Never));
}

#[test]
fn a_site_is_up_when_all_that_is_declared_is() {
    let site = judged(&well(), NOW);
    assert_eq!((site.state, site.cause), (State::Up, None));
    assert_eq!(site.since_ms, NOW - 60_000);
}

#[test]
fn one_device_in_trouble_degrades_its_site_since_then() {
    let mut facts = well();
    observe(
        &mut facts,
        told("igd", State::Down, Some(Cause::Offline)),
        NOW,
    );
    let site = judged(&facts, NOW);
    assert_eq!(
        (site.state, site.cause),
        (State::Degraded, Some(SiteCause::Device))
    );
    assert_eq!(site.devices[0].cause, Some(Cause::Offline));
}

#[test]
fn a_lost_link_is_down_after_its_grace_and_its_devices_are_unknown_since_then() {
    let mut facts = well();
    facts.link = Some((false, NOW));
    assert_eq!(
        judged(&facts, NOW + GRACE_MS).state,
        State::Up,
        "a reconnect is no outage"
    );
    let site = judged(&facts, NOW + GRACE_MS + 1);
    assert_eq!(
        (site.state, site.cause, site.since_ms),
        (State::Down, Some(SiteCause::Link), NOW)
    );
    assert!(
        site.devices
            .iter()
            .all(|d| d.state == State::Unknown && d.since_ms == NOW)
    );
}

#[test]
fn what_never_delivered_stays_never_whatever_the_link_does() {
    let mut facts = well();
    facts.devices.clear();
    facts.proven.clear();
    let mut dead = told("igd", State::Down, Some(Cause::Unauthorized));
    dead.last_good_ms = None;
    observe(&mut facts, dead, NOW);
    let here = judged(&facts, NOW);
    assert_eq!(here.devices[0].state, State::Never);
    assert_eq!(
        here.devices[0].cause,
        Some(Cause::Unauthorized),
        "the cause helps who installs it"
    );
    facts.link = Some((false, NOW - 60_000));
    assert_eq!(judged(&facts, NOW).devices[0].state, State::Never);
}

#[test]
fn a_hub_that_has_just_started_calls_nobody_down() {
    let facts = Facts {
        heard_ms: Some(NOW - 7_200_000),
        ..Facts::default()
    };
    let at = |after| judge::site(&declared(), 0, &facts, NOW, NOW + after, 0).unwrap();
    assert_eq!(at(SETTLE_MS).state, State::Unknown);
    let later = at(SETTLE_MS + 1);
    assert_eq!(
        (later.state, later.since_ms),
        (State::Down, NOW - 7_200_000)
    );
}

#[test]
fn a_draining_backlog_does_not_bring_yesterday_back() {
    let mut facts = well();
    observe(
        &mut facts,
        told("igd", State::Down, Some(Cause::Offline)),
        NOW - 3_600_000,
    );
    assert_eq!(judged(&facts, NOW).devices[0].state, State::Up);
}

#[test]
fn what_an_agent_says_of_now_counts_even_if_its_clock_was_set_back() {
    let mut facts = well();
    let now = wire::Now {
        stamp: Stamp {
            boot: BootId([0; 16]),
            mono_ms: 1,
            wall_ms: NOW - 86_400_000,
            quality: ClockQuality::Unconfirmed,
        },
        devices: vec![told("igd", State::Down, Some(Cause::Stalled))],
        link: LinkMode::Normal,
        backlog: 7,
        backlog_bytes: 70,
        oldest_ms: None,
        stills: Vec::new(),
        offset: None,
    };
    live(&mut facts, &now, NOW);
    let site = judged(&facts, NOW);
    assert_eq!(site.devices[0].state, State::Down);
    assert_eq!(site.backlog.map(|b| b.records), Some(7));
}

fn still(device: String, wall_ms: WallMs) -> wire::Still {
    wire::Still {
        device: DeviceId::new(device).unwrap(),
        stamp: stamp(wall_ms),
        picture: scc_common::record::Snapshot {
            width: 1,
            height: 1,
            cadence_s: 30,
            jpeg: vec![0xff],
        },
    }
}

fn stamp(wall_ms: WallMs) -> Stamp {
    Stamp {
        boot: BootId([0; 16]),
        mono_ms: 1,
        wall_ms,
        quality: ClockQuality::Ntp,
    }
}

#[test]
fn devices_that_nobody_declared_cannot_fill_the_memory() {
    let mut facts = well();
    facts.declared = ["igd", "absensi"]
        .map(|id| DeviceId::new(id).unwrap())
        .into();
    facts.devices.clear();
    facts.proven.clear();
    for round in 0..10 {
        let invented = |n| format!("palsu-{round}-{n}");
        let now = wire::Now {
            stamp: stamp(NOW),
            devices: (0..100)
                .map(|n| told(&invented(n), State::Up, None))
                .collect(),
            link: LinkMode::Normal,
            backlog: 0,
            backlog_bytes: 0,
            oldest_ms: None,
            stills: (100..200).map(|n| still(invented(n), NOW)).collect(),
            offset: None,
        };
        assert!(live(&mut facts, &now, NOW).is_empty(), "nobody shows these");
    }
    assert_eq!(facts.devices.len(), judge::UNDECLARED);
    assert_eq!(facts.proven.len(), judge::UNDECLARED);
    observe(&mut facts, told("igd", State::Up, None), NOW);
    assert_eq!(
        judged(&facts, NOW).devices[0].state,
        State::Up,
        "what is declared always has room"
    );
}

#[test]
fn a_box_that_is_a_day_ahead_does_not_freeze_what_is_shown() {
    const AHEAD: WallMs = NOW + 86_400_000;
    let mut facts = well();
    facts.declared = [DeviceId::new("igd").unwrap()].into();
    let mut state = told("igd", State::Down, Some(Cause::Offline));
    state.since_ms = AHEAD;
    let content = Content::Event(Event::DeviceState(state));
    let record = CommittedRecord {
        id: 1,
        stream: Stream::Event,
        epoch: Epoch(1),
        seq: 1,
        received_ms: NOW,
        dated: Some(Dated::of(&stamp(AHEAD), &Known::Nothing)),
        body: Some(RecordBody::new(stamp(AHEAD), None, content).into()),
        media: None,
    };
    committed(&mut facts, &record);
    let seen = judged(&facts, NOW).devices.swap_remove(0);
    assert_eq!((seen.state, seen.since_ms), (State::Down, NOW));
    // The clock is right again: what is told then counts.
    let now = wire::Now {
        stamp: stamp(AHEAD),
        devices: vec![told("igd", State::Up, None)],
        link: LinkMode::Normal,
        backlog: 0,
        backlog_bytes: 0,
        oldest_ms: None,
        stills: vec![still("igd".into(), AHEAD)],
        offset: None,
    };
    let stills = live(&mut facts, &now, NOW);
    assert_eq!(stills[0].1.captured_ms, NOW, "a still turns grey in time");
    observe(
        &mut facts,
        told("igd", State::Degraded, Some(Cause::Stalled)),
        NOW + 1_000,
    );
    assert_eq!(judged(&facts, NOW).devices[0].state, State::Degraded);
}

#[test]
fn a_weak_supply_and_a_full_card_are_the_sites_cause() {
    let mut facts = well();
    let mut health = Health {
        version: "1".into(),
        boot: BootId([0; 16]),
        uptime_s: 60,
        load1: 0.1,
        memory_total_kib: 1,
        memory_available_kib: 1,
        disk_total: 100,
        disk_free: 4,
        temperature_c: None,
        under_voltage: Some(false),
        clock: ClockQuality::Ntp,
        link: LinkMode::Normal,
        lanes: Vec::new(),
        devices: Vec::new(),
    };
    take_health(&mut facts, health.clone(), NOW);
    assert_eq!(judged(&facts, NOW).cause, Some(SiteCause::Disk));
    health.under_voltage = Some(true);
    take_health(&mut facts, health.clone(), NOW + 1);
    assert_eq!(judged(&facts, NOW + 1).cause, Some(SiteCause::Power));
    health.under_voltage = Some(false);
    health.disk_free = 50;
    take_health(&mut facts, health, NOW + 2);
    assert_eq!(judged(&facts, NOW + 2).state, State::Up);
}

#[test]
fn a_first_picture_ends_never() {
    let mut facts = Facts {
        link: Some((true, NOW)),
        heard_ms: Some(NOW),
        ..Facts::default()
    };
    let stamp = Stamp {
        boot: BootId([0; 16]),
        mono_ms: 1,
        wall_ms: NOW,
        quality: ClockQuality::Ntp,
    };
    let content = Content::Snapshot(scc_common::record::Snapshot {
        width: 1,
        height: 1,
        cadence_s: 30,
        jpeg: Vec::new(),
    });
    let record = CommittedRecord {
        id: 1,
        stream: Stream::Snapshot,
        epoch: Epoch(1),
        seq: 1,
        received_ms: NOW,
        dated: Some(Dated::of(&stamp, &Known::Nothing)),
        body: Some(RecordBody::new(stamp, Some(DeviceId::new("igd").unwrap()), content).into()),
        media: None,
    };
    assert_eq!(judged(&facts, NOW).devices[0].state, State::Never);
    committed(&mut facts, &record);
    assert_eq!(
        judged(&facts, NOW).devices[0].state,
        State::Unknown,
        "proven, and not yet told how it is"
    );
}

#[test]
fn a_step_of_the_clock_does_not_move_when_a_state_began() {
    const YEARS_MS: i64 = 50 * 365 * 86_400_000;
    let begun = NOW - 3_600_000;
    let down = |since_ms| DeviceState {
        since_ms,
        ..told("igd", State::Down, Some(Cause::Offline))
    };
    let mut facts = well();
    observe(&mut facts, down(begun), NOW - 60_000);
    // told again after the clock has jumped ahead, as it was read before; and read after it; and of 1970
    for since_ms in [begun, NOW + YEARS_MS, 5_000] {
        let now = wire::Now {
            stamp: Stamp {
                wall_ms: NOW + YEARS_MS,
                quality: ClockQuality::Unconfirmed,
                ..stamp(NOW)
            },
            devices: vec![down(since_ms)],
            link: LinkMode::Normal,
            backlog: 0,
            backlog_bytes: 0,
            oldest_ms: None,
            stills: Vec::new(),
            offset: None,
        };
        live(&mut facts, &now, NOW);
        let igd = &facts.devices[&DeviceId::new("igd").unwrap()].0;
        assert_eq!(igd.since_ms, begun, "told as since {since_ms}");
    }
}

/// A peer that has gone without a word is noticed by the gate after 1.5 times its keep-alive of 30 s.
const SILENCE_MS: i64 = 45_000;
/// Within this what is shown must be what is so.
const TRUTH_MS: i64 = 90_000;

/// What happens to a link.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// It comes, or comes again while the hub still holds the one before (a takeover).
    Connects,
    /// It ends, and the gate is told.
    Closes,
    /// The cable is pulled: nobody is told.
    IsPulled,
    /// The hub starts again, which ends every link.
    HubRestarts,
}

proptest! {
    #[test]
    fn whatever_happens_to_a_link_the_state_shown_is_the_truth_ninety_seconds_later(
        turns in proptest::collection::vec(
            (0_i64..2 * TRUTH_MS, prop_oneof![
                Just(Turn::Connects), Just(Turn::Closes), Just(Turn::IsPulled), Just(Turn::HubRestarts),
            ]),
            1..40,
        )
    ) {
        let mut facts = well();
        let (mut is_here, mut pulled_at, mut started_ms) = (true, None, LONG_AGO);
        let mut now_ms = NOW;
        let quiet = [(TRUTH_MS, None)];
        for (wait_ms, turn) in turns.into_iter().map(|(ms, turn)| (ms, Some(turn))).chain(quiet) {
            now_ms += wait_ms;
            if let Some(at) = pulled_at.filter(|at| at + SILENCE_MS <= now_ms) {
                facts.link = Some((false, at + SILENCE_MS));
                pulled_at = None;
            }
            if wait_ms >= TRUTH_MS {
                let shown = judge::site(&declared(), 0, &facts, started_ms, now_ms, 0).unwrap().state;
                prop_assert_eq!(shown, if is_here { State::Up } else { State::Down });
            }
            match turn {
                Some(Turn::Connects) => {
                    (is_here, pulled_at) = (true, None);
                    facts.link = Some((true, now_ms));
                }
                Some(Turn::Closes) if is_here => {
                    is_here = false;
                    facts.link = Some((false, now_ms));
                }
                Some(Turn::IsPulled) if is_here => {
                    (is_here, pulled_at) = (false, Some(now_ms));
                }
                Some(Turn::HubRestarts) => {
                    (is_here, pulled_at, started_ms) = (false, None, now_ms);
                    facts.link = None;
                }
                _ => {}
            }
        }
    }
}
