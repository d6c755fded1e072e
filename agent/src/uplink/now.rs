//! *Now*: what is so at this moment, told beside the backlog, so that the screen shows today while
//! last night is still draining. Unsequenced, never counted as delivered, never resent.
//!
//! The states go with every hello and its answer, every [`EVERY`], and at once when a device changes. A camera's
//! newest still goes only while older pictures wait to be sent (otherwise it is itself next in its
//! stream), one at a time, and only if it takes the link less than [`STILL_TIME`]: a punch may be
//! right behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use scc_common::clock::{Clock, Stamp};
use scc_common::id::{AgentId, DeviceId};
use scc_common::record::{LaneHealth, LinkMode};
use scc_common::wire::{MAX_PAYLOAD, Now, Still, Up, UpMessage};
use tokio::time::Instant;

use crate::capture::board::Board;

/// Time between two tellings.
pub(super) const EVERY: Duration = Duration::from_secs(30);

/// Longest time that one still may occupy the link.
const STILL_TIME: Duration = Duration::from_secs(1);

/// Room for everything but the picture.
const SPARE: usize = 64 * 1024;

/// Which stills have been told.
#[derive(Debug, Default)]
pub(super) struct Stills {
    told: BTreeMap<DeviceId, (Stamp, Instant)>,
    /// The link is busy with the last one until then.
    busy_until: Option<Instant>,
}

impl Stills {
    /// The still that should be told now, if any, on a link of this many bytes per second.
    pub(super) fn due(&mut self, board: &Board, rate: u64, now: Instant) -> Option<Still> {
        if self.busy_until.is_some_and(|until| now < until) {
            return None;
        }
        let time = |bytes: usize| {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            Duration::from_millis(bytes.saturating_mul(1_000) / rate.max(1))
        };
        let (device, newest) = board.stills().into_iter().find(|(device, newest)| {
            let size = newest.picture.jpeg.len();
            let fresh = self.told.get(device).is_none_or(|(stamp, at)| {
                *stamp != newest.stamp && now.saturating_duration_since(*at) >= EVERY
            });
            fresh && size + SPARE <= MAX_PAYLOAD && time(size) <= STILL_TIME
        })?;
        self.busy_until = Some(now + time(newest.picture.jpeg.len()));
        self.told.insert(device.clone(), (newest.stamp, now));
        Some(Still {
            device,
            stamp: newest.stamp,
            picture: Arc::unwrap_or_clone(newest.picture),
        })
    }
}

/// The payload of a *now*.
pub(super) fn payload(
    agent: &AgentId,
    clock: &dyn Clock,
    board: &Board,
    link: LinkMode,
    lanes: &[LaneHealth],
    still: Option<Still>,
) -> Vec<u8> {
    let now = Now {
        stamp: clock.stamp(),
        devices: board.devices(),
        link,
        backlog: lanes.iter().map(|l| l.records).sum(),
        backlog_bytes: lanes.iter().map(|l| l.bytes).sum(),
        oldest_ms: lanes.iter().filter_map(|l| l.oldest_ms).min(),
        stills: still.into_iter().collect(),
        offset: clock.boot_offset(),
    };
    Up::new(agent.clone(), UpMessage::Now(now)).encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::clock::ManualClock;
    use scc_common::record::Snapshot;

    #[test]
    fn each_camera_gets_its_turn_and_no_still_blocks_the_link() {
        let clock = ManualClock::at(0);
        let (board, _changes) = Board::new(clock.clone());
        let picture = |bytes| Snapshot {
            width: 640,
            height: 360,
            cadence_s: 30,
            jpeg: vec![0; bytes],
        };
        for (id, bytes) in [("a", 50_000), ("b", 40_000), ("huge", 900_000)] {
            board.still(&DeviceId::new(id).unwrap(), clock.stamp(), picture(bytes));
        }
        let start = Instant::now();
        let mut stills = Stills::default();
        assert!(
            stills.due(&board, 10_000, start).is_none(),
            "five seconds of a slow link"
        );
        let at = |ms| start + Duration::from_millis(ms);
        let mut told = |ms| {
            stills
                .due(&board, 100_000, at(ms))
                .map(|s| s.device.to_string())
        };
        assert_eq!(told(0).as_deref(), Some("a"));
        assert_eq!(told(100), None, "the first is still on its way");
        assert_eq!(told(600).as_deref(), Some("b"));
        assert_eq!(told(40_000), None, "nothing newer");
        clock.advance(40_000);
        board.still(&DeviceId::new("a").unwrap(), clock.stamp(), picture(50_000));
        assert_eq!(
            stills
                .due(&board, 100_000, at(40_000))
                .map(|s| s.device.to_string())
                .as_deref(),
            Some("a")
        );
    }
}
