//! Each device: what the running agent knows of it, or else what a look at it shows.
//!
//! A terminal has one session and a camera few, so a device that a running agent reads is not
//! asked a second time: the agent's word is newer and says more.

use scc_common::clock::SharedClock;
use scc_common::id::DeviceId;
use scc_common::record::{Cause, State};

use super::{Finding, Outcome, agent_says, both, each, same};
use crate::capture::{attendance, camera};
use crate::cmd::words::{cause as word, remedy};
use crate::config::{Camera, Terminal};
use crate::status::Status;

/// A camera: does it play?
pub(super) async fn camera(
    config: &Camera,
    clock: &SharedClock,
    running: Option<&Status>,
) -> Finding {
    let outcome = match known(&config.id, running) {
        Some(outcome) => outcome,
        None => match camera::probe(config, clock).await {
            Ok((width, height)) => Outcome::Good(same(format!("RTSP, {width}×{height}"))),
            Err(failure) => bad(failure.fault.cause(), Some(&failure.detail)),
        },
    };
    named("kamera", "camera", &config.id, outcome)
}

/// A terminal: does it open a session for our key?
pub(super) async fn terminal(config: &Terminal, running: Option<&Status>) -> Finding {
    let outcome = match known(&config.id, running) {
        Some(outcome) => outcome,
        None => match attendance::probe(config).await {
            Ok(seen) => Outcome::Good(same(seen)),
            Err(finding) => bad(finding.cause, Some(&finding.detail)),
        },
    };
    named("mesin", "terminal", &config.id, outcome)
}

fn named(id: &str, en: &str, device: &DeviceId, outcome: Outcome) -> Finding {
    Finding::new(
        &format!("{id} {device}"),
        &format!("{en} {device}"),
        outcome,
    )
}

/// What a running agent knows of it; none if it runs not, or does not know the device (yet).
fn known(device: &DeviceId, running: Option<&Status>) -> Option<Outcome> {
    let device = running?.devices.iter().find(|d| d.device == *device)?;
    match (device.state, device.cause) {
        (State::Up, None) => Some(Outcome::Good(agent_says("berfungsi", "up"))),
        (_, Some(Cause::Starting)) => Some(Outcome::Skipped(both(
            "agen baru mulai melihat; ulangi semenit lagi",
            "the agent has only just begun to look; try again in a minute",
        ))),
        (_, Some(cause)) => Some(bad(cause, device.detail.as_deref())),
        _ => None,
    }
}

fn bad(cause: Cause, detail: Option<&str>) -> Outcome {
    Outcome::Bad(each(|lang| {
        let seen = detail.map(|d| format!(" ({d})")).unwrap_or_default();
        format!("{}{seen}; {}", word(cause, lang), remedy(cause, lang))
    }))
}
