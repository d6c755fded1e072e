//! The times of packets, made such that a muxer and a player can live with them.
//!
//! Cameras send no time with the first packet, the same time twice, and clocks that jump by hours.
//! What leaves here always rises, follows the camera's own steps while they are sane, and falls back
//! on the time of arrival where they are not. Nothing is dropped for its time.

/// Ticks per second of everything here; RTP video has the same.
pub(super) const TICKS: i64 = 90_000;

/// A step this much longer than the packets took to arrive is a jump of the camera's clock.
const FORWARD_SLACK: i64 = 10 * TICKS;

/// A packet's gap in arrival counts up to here when it has to stand in for the camera's own step.
const LONGEST_STEP: i64 = 5 * TICKS;

/// A step back by less than this is a stumble, by more a jump.
const LONGEST_STUMBLE: i64 = TICKS;

/// Composition offsets beyond this are nonsense.
const LONGEST_REORDER: i64 = 2 * TICKS;

/// A packet's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Decoding time, ticks, strictly rising.
    pub(super) dts: i64,
    /// Presentation time, ticks, never before `dts`.
    pub(super) pts: i64,
    /// How long it lasts, as far as known: the last sane step.
    pub(super) duration: i64,
}

/// The repaired time of one stream.
#[derive(Debug)]
pub(super) struct Timeline {
    last: Option<Last>,
    step: i64,
}

/// The packet before.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// Its decoding time, ours.
    dts: i64,
    /// The newest time that the camera has told, and ours − the camera's.
    told: Option<(i64, i64)>,
    /// When it arrived, monotonic milliseconds.
    arrived_ms: u64,
}

impl Timeline {
    /// `step`: the camera's declared duration of a frame, used until real ones are known.
    pub(super) const fn new(step: i64) -> Self {
        Self { last: None, step }
    }

    /// Places a packet that arrived at `now_ms` (monotonic).
    pub(super) fn place(&mut self, pts: Option<i64>, dts: Option<i64>, now_ms: u64) -> Place {
        let told = dts.or(pts);
        let (at, told) = match self.last {
            None => (0, told.map(|t| (t, t.saturating_neg()))),
            Some(last) => self.follow(last, told, now_ms),
        };
        self.last = Some(Last {
            dts: at,
            told,
            arrived_ms: now_ms,
        });
        let reorder = match (pts, dts) {
            (Some(pts), Some(dts)) => pts.saturating_sub(dts),
            _ => 0,
        };
        let reorder = if (0..=LONGEST_REORDER).contains(&reorder) {
            reorder
        } else {
            0
        };
        Place {
            dts: at,
            pts: at.saturating_add(reorder),
            duration: self.step,
        }
    }

    /// Our time of a packet that is not the first, and what to remember of the camera's.
    fn follow(&mut self, last: Last, told: Option<i64>, now_ms: u64) -> (i64, Option<(i64, i64)>) {
        let Some(told) = told else {
            return (last.dts.saturating_add(self.step), last.told);
        };
        let rebased = |at: i64| (at, Some((told, at.saturating_sub(told))));
        let Some((told_before, offset)) = last.told else {
            // the first time that the camera tells: until now the steps were ours
            return rebased(last.dts.saturating_add(self.step));
        };
        let waited = i64::try_from(now_ms.saturating_sub(last.arrived_ms))
            .unwrap_or(i64::MAX)
            .saturating_mul(TICKS / 1_000);
        let by_arrival = last.dts.saturating_add(waited.clamp(1, LONGEST_STEP));
        let step = told.saturating_sub(told_before);
        if step < -LONGEST_STUMBLE || step > waited.saturating_add(FORWARD_SLACK) {
            // frames that came together were taken a step apart; a gap in arrival is a gap
            let gap = waited > self.step.saturating_mul(5);
            let a_step = last.dts.saturating_add(self.step);
            return rebased(if gap { by_arrival } else { a_step });
        }
        if step <= 0 {
            return (by_arrival, last.told);
        }
        if step <= 2 * TICKS {
            self.step = step;
        }
        let at = told.saturating_add(offset);
        if at <= last.dts.saturating_sub(LONGEST_STUMBLE) {
            // its clock stood still while ours went on
            return rebased(last.dts.saturating_add(step));
        }
        (at.max(last.dts.saturating_add(1)), Some((told, offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Places packets of 25 frames a second whose camera says the time `told(n)`.
    fn run(packets: i64, told: impl Fn(i64) -> Option<i64>) -> Vec<i64> {
        let mut timeline = Timeline::new(3_600);
        (0..packets)
            .map(|n| {
                let time = told(n);
                let now = u64::try_from(n * 40).unwrap();
                timeline.place(time, time, now).dts
            })
            .collect()
    }

    fn assert_a_frame_apart(times: &[i64]) {
        for pair in times.windows(2) {
            assert!((1..=7_200).contains(&(pair[1] - pair[0])), "{pair:?}");
        }
        let length = times[times.len() - 1] - times[0];
        let wall = 3_600 * i64::try_from(times.len() - 1).unwrap();
        assert!(
            (length - wall).abs() * 100 <= wall,
            "{length} instead of {wall}"
        );
    }

    #[test]
    fn a_first_packet_without_a_time_is_one_frame_before_the_second() {
        let times = run(100, |n| (n > 0).then_some(1_000_000 + n * 3_600));
        assert_eq!(times[..3], [0, 3_600, 7_200]);
        assert_a_frame_apart(&times);
    }

    #[test]
    fn a_clock_that_jumps_by_hours_every_two_seconds_costs_nothing() {
        assert_a_frame_apart(&run(1_000, |n| {
            let jump = if (n / 50) % 2 == 0 { -9_800 } else { 37_600 };
            Some(n * 3_600 + jump * TICKS)
        }));
    }

    #[test]
    fn a_clock_that_stands_still_is_replaced_by_the_time_of_arrival() {
        assert_a_frame_apart(&run(500, |_| Some(0)));
    }

    #[test]
    fn a_time_told_twice_is_not_told_twice_by_us() {
        assert_a_frame_apart(&run(500, |n| Some((n - n % 2) * 3_600)));
    }

    #[test]
    fn reordered_frames_keep_their_order() {
        let mut timeline = Timeline::new(3_600);
        let a = timeline.place(Some(7_200), Some(0), 0);
        let b = timeline.place(Some(3_600), Some(3_600), 40);
        assert_eq!((a.pts - a.dts, b.pts - b.dts), (7_200, 0));
    }

    proptest! {
        #[test]
        fn time_always_rises(packets in proptest::collection::vec((any::<Option<i64>>(), any::<Option<i64>>(), 0u64..10_000), 1..200)) {
            let mut timeline = Timeline::new(3_600);
            let (mut now, mut last) = (0, i64::MIN);
            for (pts, dts, wait) in packets {
                now += wait;
                let place = timeline.place(pts, dts, now);
                prop_assert!(place.dts > last && place.pts >= place.dts);
                last = place.dts;
            }
        }
    }
}
