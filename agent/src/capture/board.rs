//! The board: the one place where the state of each device stands.
//!
//! Sources write to it; health, `status` and the uplink's *now* read it. A change of state or cause
//! is logged once and becomes one event record; a repeated report of the same state only refreshes
//! its detail.

use std::collections::BTreeMap;
use std::sync::Arc;

use scc_common::clock::{SharedClock, Stamp};
use scc_common::id::DeviceId;
use scc_common::record::{Cause, DeviceKind, DeviceState, Snapshot, State};
use tokio::sync::mpsc;

/// The newest still of a camera.
#[derive(Debug, Clone)]
pub struct Newest {
    /// When it was captured.
    pub stamp: Stamp,
    /// The picture, shared: the uplink looks at every one of them each second.
    pub picture: Arc<Snapshot>,
}

#[derive(Debug, Default)]
struct Inner {
    devices: BTreeMap<DeviceId, DeviceState>,
    stills: BTreeMap<DeviceId, Newest>,
}

/// A shared handle on the board.
#[derive(Debug, Clone)]
pub struct Board {
    inner: Arc<std::sync::Mutex<Inner>>,
    clock: SharedClock,
    changes: mpsc::UnboundedSender<DeviceState>,
}

impl Board {
    /// An empty board, and the changes that are to become event records. The receiver sees one
    /// message per change of state or cause; devices change slowly, so it is not bounded.
    #[must_use]
    pub fn new(clock: SharedClock) -> (Self, mpsc::UnboundedReceiver<DeviceState>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let board = Self {
            inner: Arc::default(),
            clock,
            changes,
        };
        (board, receiver)
    }

    /// Puts a device on the board before its source has looked: `unknown`, cause `starting`.
    pub fn declare(&self, device: &DeviceId, kind: DeviceKind) {
        let mut inner = self.lock();
        let since_ms = self.clock.wall_ms();
        inner
            .devices
            .entry(device.clone())
            .or_insert_with(|| DeviceState {
                device: device.clone(),
                kind,
                state: State::Unknown,
                cause: Some(Cause::Starting),
                since_ms,
                last_good_ms: None,
                detail: None,
            });
    }

    /// The device delivers.
    pub fn good(&self, device: &DeviceId, kind: DeviceKind) {
        self.set(device, kind, State::Up, None, None);
    }

    /// The device delivers less than it should, or nothing. `detail` is one short English sentence
    /// without secrets.
    pub fn fault(
        &self,
        device: &DeviceId,
        kind: DeviceKind,
        state: State,
        cause: Cause,
        detail: impl Into<String>,
    ) {
        self.set(device, kind, state, Some(cause), Some(detail.into()));
    }

    fn set(
        &self,
        device: &DeviceId,
        kind: DeviceKind,
        state: State,
        cause: Option<Cause>,
        detail: Option<String>,
    ) {
        let now = self.clock.wall_ms();
        let mut inner = self.lock();
        let old = inner.devices.get(device);
        let changed = old.is_none_or(|o| o.state != state || o.cause != cause);
        let last_good_ms = if matches!(state, State::Up | State::Degraded) {
            Some(now)
        } else {
            old.and_then(|o| o.last_good_ms)
        };
        let since_ms = match old {
            Some(o) if !changed => o.since_ms,
            _ => now,
        };
        let new = DeviceState {
            device: device.clone(),
            kind,
            state,
            cause,
            since_ms,
            last_good_ms,
            detail,
        };
        if changed {
            tracing::info!(
                device = %device,
                state = state.name(),
                cause = cause.map(Cause::name),
                detail = new.detail.as_deref(),
                "device state changed"
            );
            // nobody listens any more only while the agent stops
            let _ = self.changes.send(new.clone());
        }
        inner.devices.insert(device.clone(), new);
    }

    /// Puts up the newest still of a camera.
    pub fn still(&self, device: &DeviceId, stamp: Stamp, picture: Snapshot) {
        let picture = Arc::new(picture);
        self.lock()
            .stills
            .insert(device.clone(), Newest { stamp, picture });
    }

    /// Every device, by id.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceState> {
        self.lock().devices.values().cloned().collect()
    }

    /// The newest still of every camera that has one.
    #[must_use]
    pub fn stills(&self) -> BTreeMap<DeviceId, Newest> {
        self.lock().stills.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // a panic elsewhere must not take the board with it; the map is valid between any two steps
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::clock::{Clock, ManualClock};

    #[test]
    fn a_state_is_told_once_and_keeps_its_since() {
        let clock = ManualClock::at(1_000);
        let (board, mut changes) = Board::new(clock.clone());
        let camera = DeviceId::new("loket").unwrap();
        board.declare(&camera, DeviceKind::Camera);
        board.fault(
            &camera,
            DeviceKind::Camera,
            State::Down,
            Cause::Stalled,
            "no packet for 5 s",
        );
        clock.advance(500);
        board.fault(
            &camera,
            DeviceKind::Camera,
            State::Down,
            Cause::Stalled,
            "no packet for 6 s",
        );
        let change = changes.try_recv().unwrap();
        assert_eq!(
            (change.state, change.cause),
            (State::Down, Some(Cause::Stalled))
        );
        assert!(
            changes.try_recv().is_err(),
            "the same state must be told once"
        );
        let on_board = &board.devices()[0];
        assert_eq!(on_board.since_ms, 1_000);
        assert_eq!(on_board.detail.as_deref(), Some("no packet for 6 s"));
        board.good(&camera, DeviceKind::Camera);
        assert_eq!(changes.try_recv().unwrap().state, State::Up);
        assert_eq!(board.devices()[0].last_good_ms, Some(clock.wall_ms()));
    }
}
