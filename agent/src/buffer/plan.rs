//! What would survive an outage of the hub, at the rates of the records on this card.
//!
//! Rates: per stream, over the time that its records span on the clock of their boots (so neither a
//! wrong wall clock nor a night without power distorts them), by their numbers (so what was dropped
//! in between counts) and by their mean size.
//!
//! The forecast follows the policy of [`retain`](super::retain): what waits now and what comes is
//! kept, the most precious stream first, within the caps and the room of the card; acknowledged
//! records take no room, they go first. Where something has to go, a whole file goes, so up to one
//! file less than the cap is promised.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use scc_common::id::{BootId, Seq};
use scc_common::stream::Stream;

use super::disk::{self, BALLAST};
use super::retain::INDEX_ROOM;
use super::scan::{Verify, scan};
use super::{Lane, inspect};
use crate::config::BufferLimits;

/// Shorter spans say nothing about a rate.
const LEAST_SPAN_MS: u64 = 60_000;

/// Longest outage that is looked at: ten years.
const MOST_HOURS: f64 = 10.0 * 366.0 * 24.0;

/// What the card tells of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Records on the card.
    pub records: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Of these, what the hub is not known to have.
    pub waiting_bytes: u64,
    /// Records per hour; none if they span less than a minute.
    pub per_hour: Option<f64>,
}

impl Measured {
    /// Bytes per hour; 0 where no rate is known.
    #[must_use]
    pub fn bytes_per_hour(&self) -> f64 {
        match (self.per_hour, self.records) {
            (Some(rate), 1..) => rate * float(self.bytes) / float(self.records),
            _ => 0.0,
        }
    }
}

/// What would become of one stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The stream.
    pub stream: Stream,
    /// What the card tells of it.
    pub measured: Measured,
    /// Hours of the outage, up to its end, whose records would still be there; the whole outage if
    /// nothing of it was dropped.
    pub kept_hours: f64,
    /// Bytes that wait at the end of the outage, what waits now among them.
    pub kept_bytes: f64,
    /// Hours after which the first record that the hub has not would be dropped, or, for want of room
    /// on the card, refused; none within the outage. Right to within one file.
    pub lost_after_hours: Option<f64>,
}

/// Reads the headers of every record of a buffer, whether an agent runs on it or not.
///
/// # Errors
/// What the system said: that there is no buffer, or that it may not be read.
pub fn measure(state_dir: &Path) -> io::Result<BTreeMap<Stream, Measured>> {
    let root = inspect::root(state_dir);
    let mut seen: BTreeMap<Stream, Measured> = BTreeMap::new();
    let mut spans: BTreeMap<(Lane, BootId), Span> = BTreeMap::new();
    let mut acked: BTreeMap<Lane, Seq> = BTreeMap::new();
    let mut headers = Vec::new();
    for (id, len) in disk::list(&root)? {
        let file = match File::open(disk::path(&root, id)) {
            Ok(file) => file,
            // the agent may drop a file while we look
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let lane = id.lane();
        let watermark = acked.entry(lane).or_default();
        scan(&file, id, 0, len, Verify::Last, |found| {
            let header = found.header;
            let all = seen.entry(header.stream).or_default();
            all.records += 1;
            all.bytes += header.total();
            *watermark = header.acked.max(*watermark);
            headers.push((lane, header.seq, header.total()));
            let at = (header.seq, header.stamp.mono_ms);
            let span = spans.entry((lane, header.stamp.boot));
            span.or_insert_with(|| Span::at(at)).reach(at);
        });
    }
    for (lane, seq, bytes) in headers {
        if acked.get(&lane).is_none_or(|acked| seq > *acked) {
            seen.entry(lane.stream).or_default().waiting_bytes += bytes;
        }
    }
    for (stream, all) in &mut seen {
        let of_stream = spans.iter().filter(|((lane, _), _)| lane.stream == *stream);
        let (records, ms) = of_stream.fold((0, 0), |(records, ms), (_, span)| {
            (records + span.records(), ms + span.ms())
        });
        all.per_hour =
            (ms >= LEAST_SPAN_MS && records > 0).then(|| float(records) * 3_600_000.0 / float(ms));
    }
    Ok(seen)
}

/// From the first to the last record of a lane within one boot: number and time.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: (Seq, u64),
    last: (Seq, u64),
}

impl Span {
    const fn at(at: (Seq, u64)) -> Self {
        Self {
            first: at,
            last: at,
        }
    }

    fn reach(&mut self, at: (Seq, u64)) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
    }

    const fn records(&self) -> u64 {
        self.last.0 - self.first.0
    }

    const fn ms(&self) -> u64 {
        self.last.1.saturating_sub(self.first.1)
    }
}

/// Bytes that the buffer may fill: what it has, and what the card has beyond what is kept free.
#[must_use]
pub fn room(measured: &BTreeMap<Stream, Measured>, limits: &BufferLimits, free: u64) -> u64 {
    let has: u64 = measured.values().map(|m| m.bytes).sum();
    let kept_free = limits.min_free_bytes.saturating_add(INDEX_ROOM + BALLAST);
    limits
        .all_bytes()
        .min(has.saturating_add(free.saturating_sub(kept_free)))
}

/// What an outage of so many hours would leave, the stream that goes first standing first.
#[must_use]
pub fn forecast(
    measured: &BTreeMap<Stream, Measured>,
    limits: &BufferLimits,
    free: u64,
    hours: f64,
) -> Vec<Forecast> {
    let hours = hours.clamp(0.0, MOST_HOURS);
    let outage = Outage {
        measured,
        limits,
        room: float(room(measured, limits, free)),
    };
    let of = |stream: Stream| {
        let rate = outage.of(stream).bytes_per_hour();
        let full = outage.is_short(stream, hours);
        let kept = outage.kept(stream, hours);
        Forecast {
            stream,
            measured: outage.of(stream),
            kept_hours: match full && rate > 0.0 {
                true => (kept / rate).min(hours),
                false => hours,
            },
            kept_bytes: kept,
            lost_after_hours: full.then(|| outage.begin_of_loss(stream, hours)),
        }
    };
    limits.drop_order.into_iter().map(of).collect()
}

/// Everything that decides an outage.
struct Outage<'a> {
    measured: &'a BTreeMap<Stream, Measured>,
    limits: &'a BufferLimits,
    room: f64,
}

impl Outage<'_> {
    fn of(&self, stream: Stream) -> Measured {
        self.measured.get(&stream).copied().unwrap_or_default()
    }

    /// Bytes that the hub would not have after so many hours if all were kept.
    fn demand(&self, stream: Stream, hours: f64) -> f64 {
        let measured = self.of(stream);
        float(measured.waiting_bytes) + measured.bytes_per_hour() * hours
    }

    /// Most that the stream's own limits leave of it.
    fn own_limit(&self, stream: Stream) -> f64 {
        if BufferLimits::is_protected(stream) {
            return f64::INFINITY;
        }
        let limits = self.limits.of(stream);
        let by_age = self.of(stream).bytes_per_hour() * f64::from(limits.max_hours);
        // what waits already is of an age that nobody looked at: its cap in age begins with the outage
        let by_age = by_age.max(float(self.of(stream).waiting_bytes));
        float(limits.max_bytes).min(by_age)
    }

    /// What the streams that go later leave of the room, after so many hours.
    fn room_for(&self, stream: Stream, hours: f64) -> f64 {
        let mut room = self.room;
        for other in self.limits.drop_order.into_iter().rev() {
            if other == stream {
                break;
            }
            room -= self
                .demand(other, hours)
                .min(self.own_limit(other))
                .min(room);
        }
        room
    }

    fn is_short(&self, stream: Stream, hours: f64) -> bool {
        let allowed = self.own_limit(stream).min(self.room_for(stream, hours));
        self.demand(stream, hours) > allowed
    }

    /// Bytes that would be there at the end of so many hours.
    fn kept(&self, stream: Stream, hours: f64) -> f64 {
        let demand = self.demand(stream, hours);
        let allowed = self.own_limit(stream).min(self.room_for(stream, hours));
        if demand <= allowed {
            return demand;
        }
        (allowed - float(self.limits.file_size(stream))).max(0.0)
    }

    /// The hour at which the first loss comes. Once short, a stream stays so.
    fn begin_of_loss(&self, stream: Stream, hours: f64) -> f64 {
        let (mut fits, mut short) = (0.0, hours);
        for _ in 0..64 {
            let middle = f64::midpoint(fits, short);
            if self.is_short(stream, middle) {
                short = middle;
            } else {
                fits = middle;
            }
        }
        short
    }
}

/// Bytes and counts as a number to reckon with; beyond 2^53 a forecast may be a little off.
const fn float(n: u64) -> f64 {
    n as f64
}
