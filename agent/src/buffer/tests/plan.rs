//! What is foretold is what the store then does.

use super::*;
use crate::buffer::plan::{Forecast, Measured, forecast, measure};

/// One stream of a site: a record of so many bytes every so many seconds.
type Rate = (Stream, u64, usize);

struct Site {
    store: Store,
    clock: Arc<ManualClock>,
    rates: Vec<Rate>,
    seconds: u64,
    /// When the first record that the hub had not was lost, seconds of the site's life.
    lost_at: BTreeMap<Stream, u64>,
}

impl Site {
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.seconds += 1;
            self.clock.advance(1_000);
            for &(stream, every, len) in &self.rates.clone() {
                if !self.seconds.is_multiple_of(every) {
                    continue;
                }
                let body = match stream {
                    Stream::Segment => segment(&*self.clock, self.seconds, len),
                    Stream::Snapshot => snapshot(&*self.clock, self.seconds, len),
                    _ => event(&*self.clock, &"x".repeat(len)),
                };
                self.store.append(&[incoming(&body)]).remove(0).unwrap();
            }
            self.store.tend().unwrap();
            for lane in self.store.stat().unwrap() {
                if lane.lost > 0 {
                    self.lost_at.entry(lane.stream).or_insert(self.seconds);
                }
            }
        }
    }

    fn acknowledge_all(&mut self) {
        for offer in self.store.offers() {
            let next = offer.next;
            self.store.acknowledge(lane(&offer), next - 1, &[]).unwrap();
        }
    }

    /// Age of the oldest record that is still there, seconds.
    fn oldest(&mut self, stream: Stream) -> u64 {
        let lane = lane_of(self.store.epoch, stream);
        let first = self.store.read(lane, ALL, 1).unwrap().remove(0);
        u64::try_from((self.clock.wall_ms() - first.wall_ms) / 1_000).unwrap()
    }
}

/// Lives ten minutes with the hub and one hour without it, and holds that against the forecast.
fn foretold(limits: BufferLimits, rates: &[Rate]) -> BTreeMap<Stream, Forecast> {
    let (dir, clock) = (in_memory(), clock());
    let mut site = Site {
        store: open_store(dir.path(), limits, &clock, &Steps::default()).unwrap(),
        clock,
        rates: rates.to_vec(),
        seconds: 0,
        lost_at: BTreeMap::new(),
    };
    site.run(600);
    site.acknowledge_all();
    // the files tell what the hub has by the next record of each stream
    site.run(60);
    let measured = measure(dir.path()).unwrap();
    let told = forecast(&measured, &limits, u64::MAX, 1.0);
    let begin = site.seconds;
    site.run(3_600);
    for told in &told {
        let Some(&(stream, every, len)) = rates.iter().find(|r| r.0 == told.stream) else {
            assert_eq!(told.measured, Measured::default());
            continue;
        };
        let per_hour = told.measured.per_hour.unwrap();
        let expected = 3_600.0 / f64::from(u32::try_from(every).unwrap());
        assert!(
            (per_hour / expected - 1.0).abs() < 0.02,
            "{per_hour} {expected}"
        );
        // what policy drops goes in whole files
        let in_file = limits.file_size(stream) / u64::try_from(len).unwrap() + 1;
        let slack = (2 * in_file * every) as f64 / 3_600.0;
        let lost_at = site.lost_at.get(&stream);
        let lost_after = lost_at.map(|at| (at - begin) as f64 / 3_600.0);
        println!("{stream}: {told:?}; lost after {lost_after:?}; slack {slack:.3}");
        assert_eq!(told.lost_after_hours.is_some(), lost_after.is_some());
        if let (Some(told_after), Some(lost_after)) = (told.lost_after_hours, lost_after) {
            assert!((told_after - lost_after).abs() < slack, "{stream}");
            let kept = site.oldest(stream) as f64 / 3_600.0;
            assert!((told.kept_hours - kept).abs() < slack, "{stream}: {kept}");
            assert!(
                told.kept_hours <= kept + 0.02,
                "{stream}: promised too much"
            );
        }
    }
    told.into_iter().map(|told| (told.stream, told)).collect()
}

#[test]
fn each_stream_is_lost_when_its_own_cap_is_reached() {
    let rates = [
        (Stream::Segment, 10, 20_000),
        (Stream::Snapshot, 30, 5_000),
        (Stream::Event, 60, 300),
    ];
    let told = foretold(limits(2 << 20, 400 << 10, 64 << 10), &rates);
    let lost = |stream| told[&stream].lost_after_hours;
    assert!(lost(Stream::Segment).is_some() && lost(Stream::Snapshot).is_some());
    assert_eq!(lost(Stream::Event), None);
}

#[test]
fn a_protected_stream_takes_the_room_of_media_and_that_is_foretold() {
    let rates = [(Stream::Segment, 10, 4_000), (Stream::Event, 10, 4_000)];
    let told = foretold(limits(2 << 20, 64 << 10, 64 << 10), &rates);
    let alone = (2 << 20) / 4_000 * 10;
    let after = told[&Stream::Segment].lost_after_hours.unwrap();
    assert!(
        after < f64::from(alone) / 3_600.0,
        "its own cap would last longer"
    );
    assert_eq!(told[&Stream::Event].lost_after_hours, None);
}

#[test]
fn a_cap_in_age_and_a_small_card_limit_too() {
    let one = |per_hour, bytes| Measured {
        records: 10,
        bytes,
        waiting_bytes: 0,
        per_hour: Some(per_hour),
    };
    let measured = BTreeMap::from([
        (Stream::Segment, one(100.0, 10_000_000)),
        (Stream::Attendance, one(10.0, 10_000)),
    ]);
    let mut limits = limits(100 << 30, 1 << 30, 1 << 30);
    let of = |limits: &BufferLimits, free, hours, stream| {
        let told = forecast(&measured, limits, free, hours);
        *told.iter().find(|t| t.stream == stream).unwrap()
    };
    // 100 MB an hour; 24 hours are kept
    let aged = of(&limits, u64::MAX, 72.0, Stream::Segment);
    assert!((aged.lost_after_hours.unwrap() - 24.0).abs() < 0.01);
    assert!((23.0..24.0).contains(&aged.kept_hours), "{aged:?}");
    assert_eq!(
        of(&limits, u64::MAX, 23.0, Stream::Segment).lost_after_hours,
        None
    );
    // a card with 1 GB, half of it to be left free
    limits.min_free_bytes = 500_000_000;
    let small = of(&limits, 1_000_000_000, 72.0, Stream::Segment);
    assert!(
        (4.9..5.1).contains(&small.lost_after_hours.unwrap()),
        "{small:?}"
    );
    let punches = of(&limits, 1_000_000_000, 72.0, Stream::Attendance);
    assert_eq!(punches.lost_after_hours, None);
    // and one on which others have left nothing but what the hub has already, 10 MB
    let none = of(&limits, 0, 2_000.0, Stream::Attendance);
    assert!(
        (none.lost_after_hours.unwrap() - 1_001.0).abs() < 0.1,
        "{none:?}"
    );
}

#[test]
fn a_night_without_power_and_a_wrong_clock_do_not_change_a_rate() {
    let (dir, clock) = (in_memory(), clock());
    let mut store = open_store(dir.path(), roomy(), &clock, &Steps::default()).unwrap();
    let other = scc_common::id::BootId([9; 16]);
    for boot in [None, Some(other)] {
        for _ in 0..100 {
            clock.advance(10_000);
            let mut body = segment(&*clock, 1, 1_000);
            body.stamp.boot = boot.unwrap_or(body.stamp.boot);
            store.append(&[incoming(&body)]).remove(0).unwrap();
        }
        clock.step_wall(-1_000_000_000);
        clock.advance(10 * 3_600_000);
    }
    let measured = measure(dir.path()).unwrap();
    let rate = measured[&Stream::Segment].per_hour.unwrap();
    assert!((rate - 360.0).abs() < 0.001, "{rate}");
}
