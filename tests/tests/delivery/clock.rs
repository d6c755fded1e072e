//! A box whose clock is wrong: it wakes up in 1970, or its clock is stepped an hour back, a day or fifty
//! years ahead, while it is offline and while it is connected. Whatever it says, every record is at the
//! hub in its order and with the right time, and what that time is worth can be seen.
//!
//! Not shown here: that the system's clock of a real box can be stepped; the steps are a test clock's.

use std::sync::Mutex;

use scc_common::clock::{BootOffset, ClockQuality, ManualClock, MonoMs, WallMs};
use scc_common::id::BootId;

use super::stage::*;
use scc_common::clock::Clock;
use scc_common::clock::Stamp;
use scc_common::clock::SystemClock;
use scc_common::record::Content;
use scc_common::record::Event;
use scc_tests::proxy::Weather;
use std::sync::Arc;
use std::time::Duration;

const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

/// How far a time at the hub may be from the truth.
const TOLERANCE_MS: u64 = 2_000;

/// A [`ManualClock`] that runs by itself.
#[derive(Debug)]
struct Running {
    manual: Arc<ManualClock>,
    system: SystemClock,
    last: Mutex<MonoMs>,
}

impl Running {
    /// A box without NTP whose wall clock says this when the test begins.
    fn at(wall_ms: WallMs) -> Arc<Self> {
        let (manual, system) = (ManualClock::at(wall_ms), SystemClock::new());
        manual.set_quality(ClockQuality::Unconfirmed);
        let last = Mutex::new(system.mono_ms());
        Arc::new(Self {
            manual,
            system,
            last,
        })
    }

    /// The test clock, at this moment.
    fn now(&self) -> &ManualClock {
        let mut last = self.last.lock().unwrap();
        let now = self.system.mono_ms();
        self.manual.advance(u32::try_from(now - *last).unwrap());
        *last = now;
        &self.manual
    }
}

impl Clock for Running {
    fn wall_ms(&self) -> WallMs {
        self.now().wall_ms()
    }
    fn mono_ms(&self) -> MonoMs {
        self.now().mono_ms()
    }
    fn quality(&self) -> ClockQuality {
        self.now().quality()
    }
    fn boot(&self) -> BootId {
        self.manual.boot()
    }
    fn hub_offset(&self, offset_ms: i64, within_ms: u32) {
        self.now().hub_offset(offset_ms, within_ms);
    }
    fn boot_offset(&self) -> Option<BootOffset> {
        self.manual.boot_offset()
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Boot1970,
    HourBack,
    DayAhead,
    FiftyYearsAhead,
}

impl Wrong {
    fn at_start(self, truth: WallMs) -> WallMs {
        match self {
            Self::Boot1970 => 12_000,
            _ => truth,
        }
    }

    /// The step in the middle of the test. What woke up in 1970 is put right by it.
    fn step(self, clock: &Running) -> i64 {
        match self {
            Self::Boot1970 => SystemClock::new().wall_ms() - clock.wall_ms(),
            Self::HourBack => -HOUR,
            Self::DayAhead => 24 * HOUR,
            Self::FiftyYearsAhead => 50 * YEAR,
        }
    }
}

/// A record as the test knows it.
struct Taken {
    key: (u8, i64),
    truth_ms: WallMs,
    stamp: Stamp,
}

struct Bench {
    site: Site,
    _hub: Hub,
    clock: Arc<Running>,
    taken: Vec<Taken>,
}

impl Bench {
    async fn start(wrong: Wrong, weather: Weather) -> Self {
        let clock = Running::at(wrong.at_start(SystemClock::new().wall_ms()));
        let (site, hub) = Site::start_with(Manner {
            weather,
            clock: clock.clone(),
            ..Manner::default()
        })
        .await;
        Self {
            site,
            _hub: hub,
            clock,
            taken: Vec::new(),
        }
    }

    async fn take(&mut self, n: usize) {
        for _ in 0..n {
            let (truth_ms, stamp) = (SystemClock::new().wall_ms(), self.clock.stamp());
            let version = format!("{}", self.taken.len());
            let content = Content::Event(Event::AgentStarted { version });
            let key = self.site.append_at(stamp, "loket", content).await.unwrap();
            self.taken.push(Taken {
                key,
                truth_ms,
                stamp,
            });
        }
    }

    async fn until_quality(&self, quality: ClockQuality) {
        let look = async {
            while self.clock.quality() != quality {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, look).await;
        assert!(waited.is_ok(), "the clock is {:?}", self.clock.quality());
    }

    /// Waits until the uplink has asked and been answered since the step: the boot is measured.
    async fn until_measured(&self) {
        let look = async {
            while self.clock.boot_offset().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, look).await;
        assert!(
            waited.is_ok(),
            "no answer; the link is {:?}",
            self.site.link.status.borrow()
        );
    }

    /// Every record as the hub has it: wall, corrected and quality, in the order of the numbers.
    fn rows(&self) -> Vec<(i64, WallMs, Option<WallMs>, String)> {
        let sql = rusqlite::Connection::open_with_flags(
            self.site.dir.path().join("hub.sqlite"),
            rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .unwrap();
        let query = "SELECT seq, wall_ms, corrected_ms, quality FROM record ORDER BY seq";
        let mut rows = sql.prepare(query).unwrap();
        rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// All is there, in order, as told, and with the right time. Says how many times are corrected.
    async fn check(&self) -> usize {
        self.site.delivered().await;
        let waits = |rows: &[(i64, WallMs, Option<WallMs>, String)]| {
            rows.iter().any(|r| r.3 == "unconfirmed" && r.2.is_none())
        };
        let dated = async {
            while waits(&self.rows()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, dated).await;
        let rows = self.rows();
        assert!(waited.is_ok(), "not dated: {rows:?}");
        assert_eq!(rows.len(), self.taken.len());
        let mut before = None;
        for (row, taken) in rows.iter().zip(&self.taken) {
            let (seq, told, corrected, quality) = row;
            assert_eq!((*seq, *told), (taken.key.1, taken.stamp.wall_ms));
            let confirmed = taken.stamp.quality != ClockQuality::Unconfirmed;
            assert_eq!(corrected.is_none(), confirmed, "{row:?}");
            assert_eq!(quality != "unconfirmed", confirmed, "{row:?}");
            let best = corrected.unwrap_or(*told);
            assert!(
                best.abs_diff(taken.truth_ms) <= TOLERANCE_MS,
                "{row:?} was taken at {}",
                taken.truth_ms
            );
            if let (Some(before), Some(corrected)) = (before, *corrected) {
                assert!(before <= corrected, "{rows:?}");
            }
            before = corrected.or(before);
        }
        rows.iter().filter(|r| r.2.is_some()).count()
    }
}

/// Offline from the beginning: records before and after the step, then the link comes.
async fn offline(wrong: Wrong) {
    let weather = Weather {
        refuse: true,
        ..Weather::default()
    };
    let mut bench = Bench::start(wrong, weather).await;
    bench.take(5).await;
    bench.clock.now().step_wall(wrong.step(&bench.clock));
    bench.take(5).await;
    assert!(bench.clock.boot_offset().is_none(), "it was not offline");
    bench.site.proxy.weather(|w| w.refuse = false);
    if wrong == Wrong::FiftyYearsAhead {
        // nobody has told it the time in this boot: by its clock the hub's certificate has expired
        let mut status = bench.site.link.status.clone();
        let refused = status.wait_for(|s| format!("{s:?}").contains("Tls"));
        let refused = tokio::time::timeout(PATIENCE, refused).await;
        refused.expect("it does not say why").unwrap();
        assert!(bench.clock.boot_offset().is_none());
        bench.clock.now().step_wall(-50 * YEAR);
    }
    bench.until_measured().await;
    let corrected = bench.check().await;
    assert_eq!(corrected, 10, "nobody had confirmed any of them");
}

/// Connected: the step comes, records go on, the link is cut and must come back by the wrong clock.
async fn connected(wrong: Wrong) {
    let mut bench = Bench::start(wrong, Weather::default()).await;
    bench.until_measured().await;
    let right = wrong != Wrong::Boot1970;
    let (before, after) = if right {
        (ClockQuality::Hub, ClockQuality::Unconfirmed)
    } else {
        (ClockQuality::Unconfirmed, ClockQuality::Hub)
    };
    bench.until_quality(before).await;
    bench.take(5).await;
    let step = wrong.step(&bench.clock);
    bench.clock.now().step_wall(step);
    assert_eq!(bench.clock.quality(), after, "at once");
    bench.take(5).await;
    bench.site.delivered().await;
    bench.site.proxy.cut();
    bench.take(5).await;
    let mut unconfirmed = if right { 10 } else { 5 };
    assert_eq!(bench.check().await, unconfirmed);
    // and the other way: it is put right, or is wrong again
    bench.clock.now().step_wall(-step);
    assert_eq!(bench.clock.quality(), before);
    bench.take(5).await;
    unconfirmed += if right { 0 } else { 5 };
    assert_eq!(bench.check().await, unconfirmed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_in_1970_while_offline() {
    offline(Wrong::Boot1970).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_back_while_offline() {
    offline(Wrong::HourBack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_ahead_while_offline() {
    offline(Wrong::DayAhead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_years_ahead_while_offline() {
    offline(Wrong::FiftyYearsAhead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_in_1970_while_connected() {
    connected(Wrong::Boot1970).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_back_while_connected() {
    connected(Wrong::HourBack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_ahead_while_connected() {
    connected(Wrong::DayAhead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_years_ahead_while_connected() {
    connected(Wrong::FiftyYearsAhead).await;
}
