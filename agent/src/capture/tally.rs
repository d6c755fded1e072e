//! The agent's own count of what its buffer has accepted, told every full hour.
//!
//! Promise: each number that a lane gives is in exactly one period. A period ends when an hour of the
//! confirmed clock does, and is forgotten here only once the buffer has accepted the event that tells
//! it: what a full card refuses is told with the next hour, and who is killed between the two tells the
//! same beginning again. Hours of UTC, so that the hub can make days of any zone of them.
//!
//! The count is of numbers given, so it holds what was lost later as well; the hub says of each of them
//! whether it is stored, a gap, still to come, or missing, which must never be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use scc_common::clock::{ClockQuality, WallMs};
use scc_common::id::{Epoch, Seq};
use scc_common::record::{Content, Event, LaneTally, RecordBody, Tally};
use scc_common::stream::Stream;
use serde::{Deserialize, Serialize};

use super::{Context, Source};
use crate::buffer::BufferError;
use crate::durable::replace;

const HOUR_MS: i64 = 3_600_000;

/// Longest time between two looks at the clock, which may be stepped or confirmed at any moment.
const LOOK_MS: u64 = 60_000;

/// How far each lane had come when the last period ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    at_ms: WallMs,
    lanes: Vec<LaneTally>,
}

impl Mark {
    async fn now(context: &Context) -> Result<Self, BufferError> {
        let lanes = context.buffer.stat().await?;
        Ok(Self {
            at_ms: context.clock.wall_ms(),
            lanes: lanes
                .into_iter()
                .map(|lane| LaneTally {
                    epoch: lane.epoch,
                    stream: lane.stream,
                    next: lane.next,
                })
                .collect(),
        })
    }

    /// `None`: there is none, or it cannot be read; then all is told again.
    fn read(file: &Path) -> Option<Self> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the last tally cannot be read; all is told again");
                return None;
            }
        };
        serde_json::from_slice(&bytes)
            .inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "the last tally is damaged; all is told again");
            })
            .ok()
    }

    fn next(&self, epoch: Epoch, stream: Stream) -> Seq {
        self.lanes
            .iter()
            .find(|lane| (lane.epoch, lane.stream) == (epoch, stream))
            .map_or(1, |lane| lane.next)
    }

    /// What has been accepted since `former`.
    fn since(&self, former: &Self) -> Tally {
        Tally {
            from_ms: former.at_ms,
            to_ms: self.at_ms,
            lanes: self
                .lanes
                .iter()
                .filter(|lane| lane.next > former.next(lane.epoch, lane.stream))
                .copied()
                .collect(),
        }
    }
}

/// Tells the count.
pub struct TallySource {
    file: PathBuf,
}

impl TallySource {
    /// Counts for the buffer in `state_dir`.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            file: state_dir.join("tally.json"),
        }
    }

    /// Tells the period that has ended, if one has. Without a confirmed clock nobody knows.
    async fn look(&self, former: Option<Mark>, context: &Context) -> Option<Mark> {
        let hour = |ms: WallMs| ms.div_euclid(HOUR_MS);
        let due = former
            .as_ref()
            .is_none_or(|mark| hour(mark.at_ms) != hour(context.clock.wall_ms()));
        if !due || context.clock.quality() == ClockQuality::Unconfirmed {
            return former;
        }
        match self.tell(former.as_ref(), context).await {
            Ok(mark) => Some(mark),
            Err(error) => {
                tracing::warn!(%error, "the hour's count was not accepted; it is told with the next");
                former
            }
        }
    }

    async fn tell(&self, former: Option<&Mark>, context: &Context) -> Result<Mark, BufferError> {
        let mark = Mark::now(context).await?;
        // Without a mark everything that was ever given is told: a new box may have taken for days
        // before anybody knew the time. What the hub has been told before says nothing new to it.
        let nothing = Mark {
            at_ms: mark.at_ms,
            lanes: Vec::new(),
        };
        let event = Event::Tally(mark.since(former.unwrap_or(&nothing)));
        let body = RecordBody::new(context.clock.stamp(), None, Content::Event(event));
        context.buffer.append(&body).await?;
        let (file, told) = (self.file.clone(), mark.clone());
        let write = move || replace(&file, &serde_json::to_vec(&told)?);
        let written = tokio::task::spawn_blocking(write).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(file = %self.file.display(), %error, "the count's mark was not written; after a restart the hour is told again");
        }
        Ok(mark)
    }

    async fn run_until_stopped(self, context: Context) {
        let mut mark = Mark::read(&self.file);
        loop {
            mark = self.look(mark, &context).await;
            let left = HOUR_MS - context.clock.wall_ms().rem_euclid(HOUR_MS);
            let wait = u64::try_from(left).unwrap_or(LOOK_MS).min(LOOK_MS);
            tokio::select! {
                () = context.stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
            }
        }
    }
}

impl Source for TallySource {
    fn run(self: Box<Self>, context: Context) -> BoxFuture<'static, ()> {
        self.run_until_stopped(context).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Buffer;
    use crate::capture::board::Board;
    use crate::config::BufferLimits;
    use scc_common::clock::ManualClock;
    use scc_common::wire::SeqRange;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    /// 20 minutes past a full hour.
    const BEGUN_MS: WallMs = 1_795_000_000_000 / HOUR_MS * HOUR_MS + 1_200_000;

    struct Rig {
        dir: tempfile::TempDir,
        clock: Arc<ManualClock>,
        context: Context,
        source: TallySource,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = ManualClock::at(BEGUN_MS);
            let buffer = Buffer::open(dir.path(), BufferLimits::default(), clock.clone()).unwrap();
            let context = Context {
                buffer,
                board: Board::new(clock.clone()).0,
                clock: clock.clone(),
                stop: CancellationToken::new(),
            };
            let source = TallySource::new(dir.path());
            Self {
                dir,
                clock,
                context,
                source,
            }
        }

        async fn event(&self) {
            let content = Content::Event(Event::AgentStopped {});
            let body = RecordBody::new(self.context.clock.stamp(), None, content);
            self.context.buffer.append(&body).await.unwrap();
        }

        /// Looks as a process would that has just been started.
        async fn look(&self) -> Option<Mark> {
            self.source
                .look(Mark::read(&self.source.file), &self.context)
                .await
        }

        /// Every tally that was told: from, to, and `next` of the events.
        async fn told(&self) -> Vec<(WallMs, WallMs, Seq)> {
            let offers = self.context.buffer.offers().await.unwrap();
            let lane = offers.iter().find(|o| o.stream == Stream::Event).unwrap();
            let lane = crate::buffer::Lane {
                epoch: lane.epoch,
                stream: lane.stream,
            };
            let range = SeqRange {
                first: 1,
                last: 1_000,
            };
            let records = self.context.buffer.read(lane, range, 1 << 20).await;
            records
                .unwrap()
                .iter()
                .filter_map(|r| match RecordBody::decode(&r.body).unwrap().content {
                    Content::Event(Event::Tally(t)) => {
                        Some((t.from_ms, t.to_ms, t.lanes.first().map_or(0, |l| l.next)))
                    }
                    _ => None,
                })
                .collect()
        }
    }

    #[tokio::test]
    async fn each_number_is_told_in_one_period_whatever_is_restarted() {
        let rig = Rig::new();
        rig.event().await;
        rig.look().await.unwrap();
        let first = (BEGUN_MS, BEGUN_MS, 2);
        assert_eq!(
            rig.told().await,
            [first],
            "what was taken before anybody asked"
        );
        rig.event().await;
        rig.event().await;
        rig.clock.advance(2_399_999);
        rig.look().await;
        assert_eq!(rig.told().await, [first], "the hour has not ended");
        rig.clock.advance(1);
        rig.look().await;
        let first_end = BEGUN_MS + 2_400_000;
        assert_eq!(rig.told().await, [first, (BEGUN_MS, first_end, 5)]);
        // off for a night: one period, from where the last one ended
        rig.clock.advance(36_000_000);
        rig.look().await;
        let night = (first_end, first_end + 36_000_000, 6);
        assert_eq!(rig.told().await.last(), Some(&night));
        rig.context.buffer.close().await;
    }

    #[tokio::test]
    async fn killed_before_the_mark_was_written_it_tells_the_same_beginning_again() {
        let rig = Rig::new();
        let mark = rig.look().await.unwrap();
        let before = std::fs::read(&rig.source.file).unwrap();
        rig.clock.advance(3_600_000);
        rig.source.look(Some(mark), &rig.context).await;
        std::fs::write(&rig.source.file, before).unwrap();
        rig.clock.advance(1_000);
        rig.look().await;
        let told = rig.told().await;
        assert_eq!(told.len(), 3, "the first tells what was there");
        assert_eq!((told[1].0, told[2].0), (BEGUN_MS, BEGUN_MS));
        assert!(told[2].2 > told[1].2, "and tells no less");
        rig.context.buffer.close().await;
    }

    #[tokio::test]
    async fn nothing_is_told_while_nobody_knows_the_time_and_all_again_when_the_mark_is_damaged() {
        let rig = Rig::new();
        rig.look().await.unwrap();
        rig.event().await;
        rig.clock.set_quality(ClockQuality::Unconfirmed);
        rig.clock.advance(7_200_000);
        rig.look().await;
        assert_eq!(rig.told().await.len(), 1);
        rig.clock.set_quality(ClockQuality::Ntp);
        rig.look().await;
        assert_eq!(rig.told().await.len(), 2);
        std::fs::write(rig.dir.path().join("tally.json"), b"{").unwrap();
        rig.look().await.unwrap();
        assert_eq!(rig.told().await.len(), 3, "all is told again");
        assert!(Mark::read(&rig.source.file).is_some());
        rig.context.buffer.close().await;
    }

    #[tokio::test]
    async fn a_new_epoch_is_counted_from_its_first_number() {
        let rig = Rig::new();
        rig.event().await;
        rig.look().await.unwrap();
        rig.context.buffer.begin_epoch("test").await.unwrap();
        rig.event().await;
        let mark = rig.look().await.unwrap();
        let now = Mark::now(&rig.context).await.unwrap();
        let grown = now.since(&mark).lanes;
        let epoch = rig.context.buffer.epoch().await.unwrap();
        let expected = LaneTally {
            epoch,
            stream: Stream::Event,
            next: 2,
        };
        assert!(grown.contains(&expected), "{grown:?}");
        rig.context.buffer.close().await;
    }
}
