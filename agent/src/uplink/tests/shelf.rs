//! A shelf: what the uplink needs of a buffer, in memory and without a card. It keeps the buffer's
//! contract: numbers without holes, what was acknowledged may still be read until it is evicted,
//! what is gone is a gap.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::id::{Epoch, Seq};
use scc_common::record::LaneHealth;
use scc_common::stream::Stream;
use scc_common::wire::{Gap, GapReason, LaneOffer, SeqRange};
use tokio::sync::watch;

use crate::buffer::{BufferError, Lane, Stored};
use crate::uplink::store::Store;
use scc_common::ranges::RangeSet;

#[derive(Debug, Clone, Default)]
struct Row {
    next: Seq,
    held: BTreeMap<Seq, Bytes>,
    acked: RangeSet,
    gaps: Vec<Gap>,
}

#[derive(Debug)]
struct Inner {
    epoch: Epoch,
    rows: BTreeMap<Lane, Row>,
}

/// A buffer in memory.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    inner: Arc<Mutex<Inner>>,
    count: watch::Sender<u64>,
}

impl Shelf {
    pub(super) fn new(epoch: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                epoch: Epoch(epoch),
                rows: BTreeMap::new(),
            })),
            count: watch::channel(0).0,
        }
    }

    /// Puts a record of so many bytes on the shelf; its bytes depend on `salt` and its number.
    pub(super) fn put(&self, stream: Stream, bytes: usize, salt: u64) -> Seq {
        let seq = {
            let mut inner = self.inner.lock().unwrap();
            let lane = Lane {
                epoch: inner.epoch,
                stream,
            };
            let row = inner.rows.entry(lane).or_default();
            row.next = row.next.max(1);
            let seq = row.next;
            row.next += 1;
            let mut body = vec![0; bytes];
            for (i, byte) in body.iter_mut().enumerate() {
                let mixed = (i as u64).wrapping_mul(31) ^ seq.wrapping_mul(97) ^ salt;
                *byte = mixed.to_le_bytes()[0];
            }
            row.held.insert(seq, Bytes::from(body));
            seq
        };
        self.count.send_modify(|n| *n += 1);
        seq
    }

    /// Evicts records, which leaves a gap.
    pub(super) fn evict(&self, stream: Stream, first: Seq, last: Seq) {
        let mut inner = self.inner.lock().unwrap();
        let lane = Lane {
            epoch: inner.epoch,
            stream,
        };
        let row = inner.rows.entry(lane).or_default();
        row.held.retain(|seq, _| *seq < first || *seq > last);
        row.gaps.push(Gap {
            epoch: lane.epoch,
            stream,
            range: SeqRange { first, last },
            reason: GapReason::EvictedBySize,
            at_ms: 0,
        });
    }

    /// Begins an epoch without having been asked to, as after a rebuilt index.
    pub(super) fn renumber(&self) {
        self.inner.lock().unwrap().epoch.0 += 1;
    }

    pub(super) fn epoch_now(&self) -> Epoch {
        self.inner.lock().unwrap().epoch
    }

    /// Records that the hub has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.rows.values().map(|row| backlog(row).count()).sum()
    }

    /// Everything that was ever put and not evicted.
    pub(super) fn all(&self) -> BTreeMap<(Epoch, Stream, Seq), Bytes> {
        let inner = self.inner.lock().unwrap();
        let mut all = BTreeMap::new();
        for (lane, row) in &inner.rows {
            for (seq, body) in &row.held {
                all.insert((lane.epoch, lane.stream, *seq), body.clone());
            }
        }
        all
    }
}

fn backlog(row: &Row) -> impl Iterator<Item = (&Seq, &Bytes)> {
    row.held
        .iter()
        .filter(|(seq, _)| !row.acked.iter().any(|r| r.contains(**seq)))
}

impl Store for Shelf {
    async fn offers(&self) -> Result<Vec<LaneOffer>, BufferError> {
        let inner = self.inner.lock().unwrap();
        Ok(inner
            .rows
            .iter()
            .map(|(lane, row)| LaneOffer {
                epoch: lane.epoch,
                stream: lane.stream,
                next: row.next,
                held: RangeSet::of(row.held.keys().map(|s| SeqRange {
                    first: *s,
                    last: *s,
                }))
                .iter()
                .collect(),
                gaps: row.gaps.clone(),
            })
            .collect())
    }

    async fn epoch(&self) -> Result<Epoch, BufferError> {
        Ok(self.epoch_now())
    }

    async fn read(
        &self,
        lane: Lane,
        range: SeqRange,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, BufferError> {
        let inner = self.inner.lock().unwrap();
        let mut read = Vec::new();
        let mut bytes = 0;
        if let Some(row) = inner.rows.get(&lane) {
            for (seq, body) in row.held.range(range.first..=range.last) {
                if !read.is_empty() && bytes + body.len() > max_bytes {
                    break;
                }
                bytes += body.len();
                read.push(Stored {
                    seq: *seq,
                    sum: Checksum::of(body),
                    wall_ms: 0,
                    body: body.clone(),
                });
            }
        }
        Ok(read)
    }

    async fn acknowledge(
        &self,
        lane: Lane,
        watermark: Seq,
        stored: Vec<SeqRange>,
    ) -> Result<(), BufferError> {
        let mut inner = self.inner.lock().unwrap();
        if let Some(row) = inner.rows.get_mut(&lane) {
            row.acked.insert(SeqRange {
                first: 1,
                last: watermark,
            });
            stored.into_iter().for_each(|r| row.acked.insert(r));
        }
        Ok(())
    }

    async fn want_again(&self, lane: Lane, wanted: Vec<SeqRange>) -> Result<(), BufferError> {
        let mut inner = self.inner.lock().unwrap();
        if let Some(row) = inner.rows.get_mut(&lane) {
            wanted.into_iter().for_each(|r| row.acked.remove(r));
        }
        Ok(())
    }

    async fn unacknowledged(&self, lane: Lane) -> Result<Vec<SeqRange>, BufferError> {
        let inner = self.inner.lock().unwrap();
        let row = inner.rows.get(&lane);
        let waiting = row.map(|row| backlog(row).map(|(seq, _)| *seq));
        let one = |seq| SeqRange {
            first: seq,
            last: seq,
        };
        Ok(waiting.into_iter().flatten().map(one).collect())
    }

    async fn begin_epoch(&self, _reason: &str) -> Result<Epoch, BufferError> {
        let mut inner = self.inner.lock().unwrap();
        inner.epoch = Epoch(inner.epoch.0 + 1);
        Ok(inner.epoch)
    }

    async fn stat(&self) -> Result<Vec<LaneHealth>, BufferError> {
        let inner = self.inner.lock().unwrap();
        Ok(inner
            .rows
            .iter()
            .map(|(lane, row)| LaneHealth {
                epoch: lane.epoch,
                stream: lane.stream,
                next: row.next,
                records: backlog(row).count() as u64,
                bytes: backlog(row).map(|(_, b)| b.len() as u64).sum(),
                oldest_ms: None,
                lost: 0,
            })
            .collect())
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
