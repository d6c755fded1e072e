//! The fleet in numbers, for Prometheus.

use std::collections::BTreeMap;

use scc_common::record::{DeviceKind, State};

use super::Snapshot;

/// Gauges for Prometheus.
pub(super) fn measure(snapshot: &Snapshot) {
    let mut sites: BTreeMap<&str, u32> = BTreeMap::new();
    let mut devices: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let all = [
        State::Up,
        State::Degraded,
        State::Down,
        State::Unknown,
        State::Maintenance,
        State::Never,
    ];
    for state in all {
        sites.insert(state.name(), 0);
        for kind in [DeviceKind::Camera, DeviceKind::Terminal] {
            devices.insert((kind.name(), state.name()), 0);
        }
    }
    let mut backlog = 0.0;
    for site in &snapshot.sites {
        *sites.entry(site.state.name()).or_default() += 1;
        for device in &site.devices {
            *devices
                .entry((device.kind.name(), device.state.name()))
                .or_default() += 1;
        }
        backlog += site.backlog.map_or(0.0, |b| {
            f64::from(u32::try_from(b.records).unwrap_or(u32::MAX))
        });
    }
    for (state, n) in sites {
        metrics::gauge!("scc_hub_sites", "state" => state).set(f64::from(n));
    }
    for ((kind, state), n) in devices {
        metrics::gauge!("scc_hub_devices", "kind" => kind, "state" => state).set(f64::from(n));
    }
    metrics::gauge!("scc_hub_backlog_records").set(backlog);
}
