//! A slow link with a long way, a backlog of video behind it, and small records made meanwhile.
//!
//! *Used* is honest only if the link is: the proxy in between is a modem with a bounded queue and a
//! wire behind it (`tests/src/proxy.rs`), and what is counted are the bytes of the TLS connection that
//! came out at the hub's end, over rate × time. Bytes of a record that has to be sent twice count as
//! used, so duplicates are reported beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use scc_agent::buffer::Lane;
use scc_common::clock::{Clock, SystemClock};
use scc_common::record::{Content, Event, Health, LinkMode};
use tokio::time::{Instant, sleep, sleep_until};

use super::stage::Site;

/// What is put on the link.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Bytes per second in each direction.
    pub(super) rate: u32,
    /// How long each byte travels; a round trip is twice this.
    pub(super) delay: Duration,
    /// Segments of 2 MB that wait before the link is there.
    pub(super) segments: u32,
    /// Until the measuring begins.
    pub(super) warm_up: Duration,
    /// How long it is measured.
    pub(super) time: Duration,
    /// Between two pairs of a punch and an event.
    pub(super) every: Duration,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) used: f64,
    pub(super) punches: Vec<Duration>,
    pub(super) events: Vec<Duration>,
    pub(super) health_longest_gap: Duration,
    pub(super) time: Duration,
    pub(super) backlog: u64,
    pub(super) duplicates: i64,
    /// Records that were accepted and are neither at the hub nor in the buffer, or are there with
    /// another content.
    pub(super) lost: usize,
}

/// The value that this many of a hundred do not exceed.
pub(super) fn percentile(of: &[Duration], hundredths: usize) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    let place = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |of: &[Duration], n| percentile(of, n).as_millis();
        write!(
            f,
            "used={:.3} punch_p50_ms={} punch_p99_ms={} event_p50_ms={} event_p99_ms={} \
             health_longest_gap_s={:.1} minutes={:.1} punches={} backlog_records={} duplicates={} lost={}",
            self.used,
            ms(&self.punches, 50),
            ms(&self.punches, 99),
            ms(&self.events, 50),
            ms(&self.events, 99),
            self.health_longest_gap.as_secs_f64(),
            self.time.as_secs_f64() / 60.0,
            self.punches.len(),
            self.backlog,
            self.duplicates,
            self.lost
        )
    }
}

fn health(clock: &SystemClock) -> Content {
    let stamp = clock.stamp();
    Content::Health(Box::new(Health {
        version: "bench".into(),
        boot: stamp.boot,
        uptime_s: stamp.mono_ms / 1_000,
        load1: 0.0,
        memory_total_kib: 0,
        memory_available_kib: 0,
        disk_total: 0,
        disk_free: 0,
        temperature_c: None,
        under_voltage: None,
        clock: stamp.quality,
        link: LinkMode::CatchUp,
        lanes: Vec::new(),
        devices: Vec::new(),
    }))
}

/// Fills the buffer, lets the agent connect and measures.
pub(super) async fn measure(load: Load) -> Figures {
    let (mut site, hub) = Site::start().await;
    site.proxy.weather(|w| w.refuse = true);
    site.proxy.cut();
    for _ in 0..load.segments {
        site.segment(2_000_000).await;
    }
    site.proxy.weather(|w| {
        w.refuse = false;
        w.rate = Some(load.rate);
        w.delay = load.delay;
    });
    let connected = Instant::now();
    while site.proxy.passed().0 < u64::from(load.rate) {
        assert!(
            connected.elapsed() < Duration::from_secs(60),
            "no connection"
        );
        sleep(Duration::from_millis(20)).await;
    }
    sleep(load.warm_up).await;

    let clock = SystemClock::new();
    let (start, before) = (Instant::now(), site.proxy.passed().0);
    // when each small record was made, until it is seen at the hub
    let mut made: BTreeMap<(u8, i64), (Kind, Instant)> = BTreeMap::new();
    let (mut punches, mut events) = (Vec::new(), Vec::new());
    let (mut health_seen, mut health_longest_gap) = (start, Duration::ZERO);
    let mut pairs = 0;
    let mut ended: Option<(Duration, u64)> = None;
    loop {
        let elapsed = start.elapsed();
        if ended.is_none() && elapsed >= load.time {
            ended = Some((elapsed, site.proxy.passed().0 - before));
        }
        if ended.is_none() && elapsed >= load.every * pairs {
            let now = Instant::now();
            made.insert(site.punch().await, (Kind::Punch, now));
            let version = format!("{pairs}");
            let alarm = Content::Event(Event::AgentStarted { version });
            let now = Instant::now();
            made.insert(site.append("loket", alarm).await, (Kind::Event, now));
            if pairs % 2 == 0 {
                let now = Instant::now();
                let content = health(&clock);
                made.insert(site.append("absensi", content).await, (Kind::Health, now));
            }
            pairs += 1;
        }
        let stored = site.stored_small();
        made.retain(|key, (kind, at)| {
            if !stored.contains(key) {
                return true;
            }
            match kind {
                Kind::Punch => punches.push(at.elapsed()),
                Kind::Event => events.push(at.elapsed()),
                Kind::Health => {
                    health_longest_gap = health_longest_gap.max(health_seen.elapsed());
                    health_seen = Instant::now();
                }
            }
            false
        });
        if ended.is_some() && (made.is_empty() || start.elapsed() > load.time * 2) {
            break;
        }
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    // what never came counts with the time that it has waited so far
    for (kind, at) in made.values() {
        match kind {
            Kind::Punch => punches.push(at.elapsed()),
            Kind::Event => events.push(at.elapsed()),
            Kind::Health => {}
        }
    }
    health_longest_gap = health_longest_gap.max(health_seen.elapsed());
    let (time, passed) = ended.unwrap_or_default();

    site.stop.cancel();
    drop(hub);
    let stored = site.stored();
    let backlog = site.backlog().await;
    let changed = stored
        .iter()
        .filter(|(key, sum)| site.written.get(key) != Some(sum));
    // what waits is named by the buffer, so that one record that came twice hides none that is lost
    let mut waiting = Vec::new();
    for offer in site.buffer.offers().await.unwrap() {
        let lane = Lane {
            epoch: offer.epoch,
            stream: offer.stream,
        };
        let ranges = site.buffer.unacknowledged(lane).await.unwrap();
        waiting.extend(ranges.into_iter().map(|range| (lane.stream.code(), range)));
    }
    let waits = |(stream, seq): &(u8, i64)| {
        let seq = seq.cast_unsigned();
        waiting
            .iter()
            .any(|(of, range)| of == stream && range.contains(seq))
    };
    let gone = site
        .written
        .keys()
        .filter(|key| !stored.contains_key(key) && !waits(key));
    Figures {
        used: passed as f64 / (f64::from(load.rate) * time.as_secs_f64()),
        punches,
        events,
        health_longest_gap,
        time,
        backlog,
        duplicates: site.duplicates(),
        lost: changed.count() + gone.count(),
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Punch,
    Event,
    Health,
}
