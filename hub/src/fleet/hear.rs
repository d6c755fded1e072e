//! What is remembered, committed or told of now becomes facts; an older observation never overwrites
//! a newer one.

use bytes::Bytes;
use scc_common::clock::{BootOffset, Dated, Known, WallMs};
use scc_common::id::DeviceId;
use scc_common::record::{Content, DeviceState, Event, Health, RecordBody, State};
use scc_common::wire;

use super::Still;
use super::judge::{Backlog, Facts};
use crate::ingest::CommittedRecord;
use crate::store::views::Remembered;

pub(super) fn recall(facts: &mut Facts, remembered: Remembered) {
    facts.heard_ms = facts.heard_ms.max(remembered.heard_ms);
    facts.proven.extend(remembered.proven);
    for (state, at) in remembered.devices {
        observe(facts, state, at);
    }
    if let Some((mut health, at)) = remembered.health {
        let heard_ms = facts.heard_ms.unwrap_or(at);
        for state in &mut health.devices {
            state.since_ms = state.since_ms.min(heard_ms);
            state.last_good_ms = state.last_good_ms.map(|ms| ms.min(heard_ms));
        }
        take_health(facts, health, at);
    }
}

pub(super) fn committed(facts: &mut Facts, record: &CommittedRecord) {
    let (
        Some(RecordBody {
            device, content, ..
        }),
        Some(dated),
    ) = (record.body.as_deref(), &record.dated)
    else {
        return;
    };
    // As in the ledger: a clock that runs ahead does not make its record the newest for a day.
    let at_ms = dated.best_ms().min(record.received_ms);
    match content {
        Content::Event(Event::DeviceState(state)) => {
            let mut state = state.clone();
            arrived(&mut state, dated, record.received_ms);
            observe(facts, state, at_ms);
        }
        Content::Health(health) => {
            let mut health = (**health).clone();
            for state in &mut health.devices {
                lasting(facts, state, record.received_ms);
            }
            take_health(facts, health, at_ms);
        }
        Content::Snapshot(_) | Content::Segment(_) | Content::Punches(_) => {
            proven(facts, device.as_ref());
        }
        Content::Event(_) => {}
    }
}

/// Its times are moved as those of what told it; nothing that has arrived is of later.
fn arrived(state: &mut DeviceState, dated: &Dated, received_ms: WallMs) {
    state.since_ms = dated.moved(state.since_ms).min(received_ms);
    state.last_good_ms = state
        .last_good_ms
        .map(|ms| dated.moved(ms).min(received_ms));
}

/// A state that is told again began when the box's clock was perhaps another: a step of the clock between
/// the two moves nothing. What is known of the same state holds against a beginning that cannot be: in the
/// future, or before the one that is known.
fn lasting(facts: &Facts, state: &mut DeviceState, received_ms: WallMs) {
    let same = |known: &DeviceState| (known.state, known.cause) == (state.state, state.cause);
    let known = facts.devices.get(&state.device);
    let begun = known
        .filter(|(known, _)| same(known))
        .map(|(k, _)| k.since_ms);
    state.since_ms = match begun {
        Some(begun) if state.since_ms > received_ms || state.since_ms < begun => begun,
        _ => state.since_ms.min(received_ms),
    };
    state.last_good_ms = state.last_good_ms.map(|ms| ms.min(received_ms));
}

pub(super) fn take_health(facts: &mut Facts, health: Health, at_ms: WallMs) {
    if facts
        .health
        .as_ref()
        .is_some_and(|(_, known)| *known > at_ms)
    {
        return;
    }
    for state in &health.devices {
        observe(facts, state.clone(), at_ms);
    }
    let backlog = Backlog {
        records: health.lanes.iter().map(|l| l.records).sum(),
        bytes: health.lanes.iter().map(|l| l.bytes).sum(),
        oldest_ms: health.lanes.iter().filter_map(|l| l.oldest_ms).min(),
        at_ms,
    };
    take_backlog(facts, backlog);
    facts.mode = Some(health.link);
    facts.health = Some((health, at_ms));
}

fn take_backlog(facts: &mut Facts, backlog: Backlog) {
    if facts
        .backlog
        .is_none_or(|known| known.at_ms <= backlog.at_ms)
    {
        facts.backlog = Some(backlog);
    }
}

/// What an agent says of now is newest by definition, even if its clock was set back meanwhile.
pub(super) fn live(facts: &mut Facts, now: &wire::Now, now_ms: WallMs) -> Vec<(DeviceId, Still)> {
    // of this moment by definition, which dates the boot well enough for the screen
    let known = Known::Measured(BootOffset {
        ahead_ms: now_ms.saturating_sub(i64::try_from(now.stamp.mono_ms).unwrap_or(i64::MAX)),
        within_ms: 0,
        mono_ms: now.stamp.mono_ms,
    });
    let dated = Dated::of(&now.stamp, &known);
    for state in &now.devices {
        let mut state = state.clone();
        lasting(facts, &mut state, now_ms);
        if facts.has_room(&state.device) {
            facts.devices.remove(&state.device);
            observe(facts, state, dated.best_ms().min(now_ms));
        }
    }
    facts.mode = Some(now.link);
    facts.backlog = Some(Backlog {
        records: now.backlog,
        bytes: now.backlog_bytes,
        oldest_ms: now.oldest_ms,
        at_ms: now_ms,
    });
    let mut stills = Vec::new();
    for s in &now.stills {
        proven(facts, Some(&s.device));
        // The ledger keeps what nobody declared; memory does not.
        if facts.declared.contains(&s.device) {
            let dated = if s.stamp.boot == now.stamp.boot {
                Dated::of(&s.stamp, &known)
            } else {
                Dated::of(&s.stamp, &Known::Nothing)
            };
            let still = Still {
                captured_ms: dated.best_ms().min(now_ms),
                dated,
                cadence_s: s.picture.cadence_s,
                jpeg: Bytes::copy_from_slice(&s.picture.jpeg),
            };
            stills.push((s.device.clone(), still));
        }
    }
    stills
}

fn proven(facts: &mut Facts, device: Option<&DeviceId>) {
    if let Some(device) = device.filter(|device| facts.has_room(device)) {
        facts.proven.insert(device.clone());
    }
}

pub(super) fn observe(facts: &mut Facts, state: DeviceState, at_ms: WallMs) {
    if !facts.has_room(&state.device) {
        return;
    }
    if state.state == State::Up || state.last_good_ms.is_some() {
        facts.proven.insert(state.device.clone());
    }
    match facts.devices.get(&state.device) {
        Some((_, known)) if *known > at_ms => {}
        _ => {
            facts.devices.insert(state.device.clone(), (state, at_ms));
        }
    }
}
