//! Every log line and metric of the gate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use metrics::{counter, gauge};
use scc_common::clock::{MonoMs, SharedClock};
use scc_common::id::AgentId;
use tracing::{debug, error, info, warn};

use super::limits::{POOL, REFUSALS_LOGGED};
use super::lock;
use super::session::End;

const MINUTE_MS: u64 = 60_000;

/// Lets a few lines a minute through and counts the rest, so that a port scan cannot fill the disk.
#[derive(Debug)]
pub(super) struct Refusals {
    clock: SharedClock,
    state: Mutex<Flood>,
}

#[derive(Debug, Default)]
struct Flood {
    minute_began: MonoMs,
    logged: u32,
    suppressed: u64,
}

impl Refusals {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// A connection that never became an agent's.
    pub(super) fn refused(
        &self,
        from: IpAddr,
        agent: Option<&AgentId>,
        label: &'static str,
        why: &str,
    ) {
        counter!("scc_gate_refused_total", "reason" => label).increment(1);
        if let Some(suppressed) = self.may_log() {
            let agent = agent.map_or("", AgentId::as_str);
            warn!(%from, agent, suppressed, "connection refused: {why}");
        }
    }

    pub(super) fn accept_failed(&self, error: &std::io::Error) {
        counter!("scc_gate_accept_errors_total").increment(1);
        if let Some(suppressed) = self.may_log() {
            warn!(suppressed, "cannot accept a connection: {error}");
        }
    }

    /// How many lines were kept back before this one, or `None` if it is kept back, too.
    fn may_log(&self) -> Option<u64> {
        let now = self.clock.mono_ms();
        let mut flood = lock(&self.state);
        if now.saturating_sub(flood.minute_began) >= MINUTE_MS {
            flood.minute_began = now;
            flood.logged = 0;
        }
        if flood.logged >= REFUSALS_LOGGED {
            flood.suppressed += 1;
            return None;
        }
        flood.logged += 1;
        Some(std::mem::take(&mut flood.suppressed))
    }
}

/// A stranger that left before it said who it is: scanners and health checks do this all day.
pub(super) fn went_early(from: IpAddr, label: &'static str, why: &str) {
    counter!("scc_gate_refused_total", "reason" => label).increment(1);
    debug!(%from, "connection ended before it was one: {why}");
}

pub(super) fn listening(address: SocketAddr) {
    info!(%address, "gate listens");
}

pub(super) fn connected(agent: &AgentId, from: SocketAddr, keep_alive: u16, live: usize) {
    counter!("scc_gate_connections_total").increment(1);
    gauge!("scc_gate_connected").set(as_gauge(live));
    info!(%agent, %from, keep_alive, "agent connected");
}

pub(super) fn gone(agent: &AgentId, end: &End, seconds: u64, live: usize) {
    counter!("scc_gate_disconnects_total", "reason" => end.label()).increment(1);
    gauge!("scc_gate_connected").set(as_gauge(live));
    match end {
        End::Left | End::Lost(_) | End::Stopping => {
            info!(%agent, seconds, "agent disconnected: {end}");
        }
        _ => warn!(%agent, seconds, "agent disconnected: {end}"),
    }
}

pub(super) fn received(bytes: usize) {
    counter!("scc_gate_received_bytes_total").increment(bytes as u64);
}

pub(super) fn published() {
    counter!("scc_gate_published_total").increment(1);
}

pub(super) fn sent(bytes: usize) {
    counter!("scc_gate_sent_bytes_total").increment(bytes as u64);
}

pub(super) fn down_dropped(count: usize) {
    counter!("scc_gate_down_dropped_total").increment(count as u64);
}

pub(super) fn pool(in_use: usize) {
    gauge!("scc_gate_pool_used_bytes").set(as_gauge(in_use));
    gauge!("scc_gate_pool_bytes").set(as_gauge(POOL));
}

pub(super) fn pending(count: usize) {
    gauge!("scc_gate_pending").set(as_gauge(count));
}

/// The hub exits because of it.
pub(super) fn acknowledged_out_of_order() {
    error!("the router acknowledged what was not published; the hub cannot go on with it");
}

pub(super) fn lost_in_router(agent: &AgentId, count: usize) {
    counter!("scc_gate_lost_in_router_total").increment(count as u64);
    error!(%agent, count, "messages lost inside the router; the agent will send them again");
}

pub(super) fn reloaded(what: &str, revoked: usize) {
    info!(revoked, "{what} read again");
}

pub(super) fn reload_failed(what: &str, error: &super::GateError) {
    counter!("scc_gate_reload_failures_total").increment(1);
    error!("{what}: the new file cannot be used, the old one is kept: {error}");
}

pub(super) fn revocation_list(expired: bool, present: bool) {
    gauge!("scc_gate_revocation_list_expired").set(f64::from(u8::from(expired)));
    gauge!("scc_gate_revocation_list_present").set(f64::from(u8::from(present)));
}

pub(super) fn revocation_list_expired() {
    warn!("the revocation list is past its date: renew it; agents are still let in");
}

pub(super) fn revocation_list_absent() {
    warn!("there is no revocation list: no certificate can be revoked");
}

#[expect(clippy::cast_precision_loss, reason = "a gauge below 2^52")]
fn as_gauge(value: usize) -> f64 {
    value as f64
}
