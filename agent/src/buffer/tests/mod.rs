//! Tests of the buffer as its users see it.

mod basic;
mod card;
mod crash;
mod damage;
mod forgetful;
mod kill;
mod life;
mod limits;
mod model;
mod mount;
mod plan;
mod power;
mod reconfigured;
#[path = "../../../../tests/src/small_card.rs"]
#[expect(unreachable_pub, reason = "the tests of the whole have it in public")]
mod small_card;
mod sweep;
mod weight;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, ManualClock, SharedClock};
use scc_common::id::{DeviceId, Epoch, Seq};
use scc_common::record::{Content, Event, RecordBody, Segment, Snapshot};
use scc_common::stream::Stream;
use scc_common::wire::{GapReason, LaneOffer, SeqRange};

use super::steps::Steps;
use super::store::{Incoming, Store};
use super::{Buffer, Lane, Stored};
use crate::config::{BufferLimits, StreamLimits};

/// Noon of 2026-11-24 in Watansoppeng.
const NOW: i64 = 1_795_492_800_000;

fn clock() -> Arc<ManualClock> {
    ManualClock::at(NOW)
}

/// Limits of all streams: the caps of video, of pictures, and of each other stream.
fn limits(segment: u64, snapshot: u64, small: u64) -> BufferLimits {
    let of = |max_bytes| StreamLimits {
        max_bytes,
        max_hours: 24,
    };
    BufferLimits {
        event: of(small),
        attendance: of(small),
        warehouse: of(small),
        health: of(small),
        snapshot: of(snapshot),
        segment: of(segment),
        min_free_bytes: 0,
        ..BufferLimits::default()
    }
}

fn roomy() -> BufferLimits {
    limits(48 << 20, 16 << 20, 4 << 20)
}

/// A folder in memory where there is one: for tests that try much and for which it is all the same
/// what a flush costs.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Three files of video and of pictures at most, and one file's worth of small records.
fn tight() -> BufferLimits {
    limits(192 << 10, 192 << 10, 16 << 10)
}

fn open(dir: &Path, clock: &Arc<ManualClock>) -> Buffer {
    Buffer::open(dir, roomy(), clock.clone()).unwrap()
}

fn open_store(
    dir: &Path,
    limits: BufferLimits,
    clock: &Arc<ManualClock>,
    steps: &Steps,
) -> Result<Store, super::BufferError> {
    let root = super::make_root(dir)?;
    let clock: SharedClock = clock.clone();
    Store::open(&root, limits, &clock, steps, false)
}

fn event(clock: &dyn Clock, text: &str) -> RecordBody {
    let content = Content::Event(Event::AgentStarted {
        version: text.into(),
    });
    RecordBody::new(clock.stamp(), None, content)
}

/// Bytes that no two calls share and that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn snapshot(clock: &dyn Clock, seed: u64, len: usize) -> RecordBody {
    let content = Content::Snapshot(Snapshot {
        width: 640,
        height: 360,
        cadence_s: 30,
        jpeg: noise(seed, len),
    });
    RecordBody::new(
        clock.stamp(),
        Some(DeviceId::new("loket").unwrap()),
        content,
    )
}

fn segment(clock: &dyn Clock, seed: u64, len: usize) -> RecordBody {
    let content = Content::Segment(Segment {
        duration_ms: 10_000,
        frames: 250,
        codec: "avc1.4d4028".into(),
        width: 1920,
        height: 1080,
        mp4: noise(seed, len),
    });
    RecordBody::new(
        clock.stamp(),
        Some(DeviceId::new("loket").unwrap()),
        content,
    )
}

fn incoming(body: &RecordBody) -> Incoming {
    Incoming {
        stream: body.stream(),
        stamp: body.stamp,
        body: body.encode().into(),
    }
}

fn range(first: Seq, last: Seq) -> SeqRange {
    SeqRange { first, last }
}

const ALL: SeqRange = SeqRange {
    first: 1,
    last: Seq::MAX,
};

/// Everything that a store holds, after checking that what it offers is what it can deliver.
#[derive(Debug, Default)]
struct Contents {
    held: BTreeMap<(Lane, Seq), Checksum>,
    gaps: BTreeMap<(Lane, Seq), GapReason>,
    next: BTreeMap<Lane, Seq>,
}

impl Contents {
    fn of(store: &mut Store) -> Self {
        // a first read finds damage; only then is the offer what can be delivered
        let mut records = BTreeMap::new();
        for offer in store.offers() {
            let lane = lane(&offer);
            records.insert(lane, store.read(lane, ALL, usize::MAX).unwrap());
        }
        let mut contents = Self::default();
        for offer in store.offers() {
            contents.check(&offer, &records[&lane(&offer)]);
        }
        contents
    }

    async fn of_buffer(buffer: &Buffer) -> Self {
        let mut records = BTreeMap::new();
        for offer in buffer.offers().await.unwrap() {
            let lane = lane(&offer);
            records.insert(lane, buffer.read(lane, ALL, usize::MAX).await.unwrap());
        }
        let mut contents = Self::default();
        for offer in buffer.offers().await.unwrap() {
            contents.check(&offer, &records[&lane(&offer)]);
        }
        contents
    }

    fn check(&mut self, offer: &LaneOffer, records: &[Stored]) {
        let lane = lane(offer);
        let mut told = vec![false; usize::try_from(offer.next).unwrap()];
        let mut tell = |range: &SeqRange| {
            for seq in range.first..=range.last {
                let told = &mut told[usize::try_from(seq).unwrap()];
                assert!(!*told, "{lane:?} {seq} is told twice: {offer:?}");
                *told = true;
            }
        };
        offer.held.iter().for_each(&mut tell);
        offer.gaps.iter().for_each(|gap| tell(&gap.range));
        assert!(told[1..].iter().all(|t| *t), "not told: {offer:?}");
        let read: Vec<Seq> = records.iter().map(|r| r.seq).collect();
        let held: Vec<Seq> = offer.held.iter().flat_map(|r| r.first..=r.last).collect();
        assert_eq!(read, held, "{lane:?}: read and offered differ");
        for record in records {
            assert_eq!(Checksum::of(&record.body), record.sum);
            self.held.insert((lane, record.seq), record.sum);
        }
        for gap in &offer.gaps {
            for seq in gap.range.first..=gap.range.last {
                self.gaps.insert((lane, seq), gap.reason);
            }
        }
        self.next.insert(lane, offer.next);
    }
}

fn lane(offer: &LaneOffer) -> Lane {
    Lane {
        epoch: offer.epoch,
        stream: offer.stream,
    }
}

fn lane_of(epoch: Epoch, stream: Stream) -> Lane {
    Lane { epoch, stream }
}
