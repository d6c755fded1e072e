//! The way of a loss: a card that others have filled gives records up, and the hub's table of gaps
//! and the delivery receipt hold each of them, with the reason *disk full*.

use std::collections::BTreeSet;

use scc_common::wire::GapReason;
use scc_tests::small_card::{run_again, take_all};

use super::stage::*;
use scc_agent::buffer::Buffer;
use scc_agent::buffer::BufferError;
use scc_common::checksum::Checksum;
use scc_common::clock::{Clock, SystemClock};
use scc_common::id::DeviceId;
use scc_common::record::Content;
use scc_common::record::RecordBody;
use scc_common::record::Segment;
use scc_common::record::Snapshot;
use scc_hub::store::Store;
use scc_hub::store::views::Day;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CARD: &str = "SCC_TEST_DELIVERY_CARD";

/// (stream code, seq) of what is lost.
type Gaps = BTreeMap<(u8, i64), GapReason>;

#[test]
fn what_a_full_card_has_given_up_is_a_gap_at_the_hub_and_on_the_receipt() {
    let test = "full::child_whose_card_is_small";
    let Some(text) = run_again(test, CARD, 24).unwrap() else {
        return;
    };
    assert!(text.contains("full card:"), "{text}");
    println!("{text}");
}

/// What was offered to the buffer, and what it refused for good.
#[derive(Default)]
struct Offered {
    numbers: BTreeMap<u8, u64>,
    given_up: BTreeSet<[u8; 16]>,
}

impl Offered {
    /// Offers a picture or video once, as a camera does.
    async fn offer(&mut self, site: &mut Site, content: Content) {
        let stamp = SystemClock::new().stamp();
        let device = DeviceId::new("loket").unwrap();
        let body = RecordBody::new(stamp, Some(device), content);
        let sum = Checksum::of(&body.encode()).0;
        *self.numbers.entry(body.stream().code()).or_default() += 1;
        match site.buffer.append(&body).await {
            Ok(accepted) => {
                let seq = i64::try_from(accepted.seq).unwrap();
                site.written.insert((accepted.stream.code(), seq), sum);
            }
            Err(refused @ (BufferError::Full(_) | BufferError::Disk(_))) => {
                site.buffer.give_up(&body, &refused).await;
                self.given_up.insert(sum);
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Somebody else takes all room, again and again, and goes away.
    async fn while_it_is_full(&mut self, site: &mut Site, foreign: &Path, records: usize) {
        let before = self.given_up.len();
        for n in 0..records {
            // what the buffer drops to make room is taken too
            take_all(foreign).unwrap();
            let seed = self.numbers.values().sum::<u64>();
            let seed = usize::try_from(seed).unwrap();
            let content = match n % 3 {
                0 => still(seed),
                _ => video(seed),
            };
            self.offer(site, content).await;
        }
        assert!(self.given_up.len() > before + 3, "the card was never full");
        std::fs::remove_file(foreign).unwrap();
        // there is room, and within seconds it is used: the punch waited in its terminal
        let accepted = async {
            while site.try_punch().await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let accepted = tokio::time::timeout(PATIENCE, accepted).await;
        accepted.expect("there is room, and it still refuses");
    }
}

fn still(seed: usize) -> Content {
    Content::Snapshot(Snapshot {
        width: 640,
        height: 360,
        cadence_s: 30,
        jpeg: noise(seed, 60_000),
    })
}

fn video(seed: usize) -> Content {
    Content::Segment(Segment {
        duration_ms: 10_000,
        frames: 250,
        codec: "avc1.4d4028".into(),
        width: 1_920,
        height: 1_080,
        mp4: noise(seed, 500_000),
    })
}

impl Site {
    /// What the hub lists as lost.
    fn gaps(&self) -> Gaps {
        let sql = self.ledger();
        let mut rows = sql
            .prepare("SELECT stream, first, last, reason FROM gap")
            .unwrap();
        let row = |r: &rusqlite::Row<'_>| {
            let reason = GapReason::from_name(&r.get::<_, String>(3)?);
            Ok((r.get::<_, u8>(0)?, r.get(1)?..=r.get(2)?, reason))
        };
        let mut gaps = Gaps::new();
        for found in rows.query_map([], row).unwrap() {
            let (stream, range, reason) = found.unwrap();
            let range: std::ops::RangeInclusive<i64> = range;
            gaps.extend(range.map(|seq| ((stream, seq), reason)));
        }
        gaps
    }

    /// What the buffer lists as lost; not what it dropped because the hub had it.
    async fn gaps_of_the_buffer(&self) -> Gaps {
        let mut gaps = Gaps::new();
        for gap in self
            .buffer
            .offers()
            .await
            .unwrap()
            .iter()
            .flat_map(|o| &o.gaps)
        {
            let seqs = gap.range.first.cast_signed()..=gap.range.last.cast_signed();
            if gap.reason != GapReason::EvictedAfterAck {
                gaps.extend(seqs.map(|seq| ((gap.stream.code(), seq), gap.reason)));
            }
        }
        gaps
    }

    /// Waits until the hub lists what the buffer does.
    pub(super) async fn gaps_arrive(&self) -> Gaps {
        let until = Instant::now() + PATIENCE;
        loop {
            let (here, there) = (self.gaps_of_the_buffer().await, self.gaps());
            if here == there {
                return there;
            }
            assert!(Instant::now() < until, "buffer {here:?}, hub {there:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Not a test of its own: runs where a small tmpfs is mounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_whose_card_is_small() {
    let Some(card) = std::env::var_os(CARD) else {
        return;
    };
    let card = Path::new(&card);
    let foreign = card.join("foreign");
    let (mut site, hub) = Site::start().await;
    site.stop.cancel();
    site.buffer.close().await;
    // the caps promise more than the card has
    site.buffer = Buffer::open(card, limits(), SystemClock::shared()).unwrap();
    let mut offered = Offered::default();
    let punched = site.punch().await;
    for n in 0..12 {
        offered.offer(&mut site, still(n)).await;
        offered.offer(&mut site, video(n)).await;
    }
    offered.while_it_is_full(&mut site, &foreign, 24).await;
    // told by the hello
    site.stop = CancellationToken::new();
    site.link = connect(
        site.buffer.clone(),
        site.dialer.clone(),
        &site.lines,
        &site.stop,
    );
    site.committed(punched).await;
    let first = site.gaps_arrive().await;
    let of = |gaps: &Gaps, wanted| gaps.values().filter(|r| **r == wanted).count();
    assert!(of(&first, GapReason::DiskFull) > 0, "{first:?}");
    // and told while connected
    offered.while_it_is_full(&mut site, &foreign, 24).await;
    let drained = async {
        while site.backlog().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let drained = tokio::time::timeout(PATIENCE, drained).await;
    drained.expect("what is left does not arrive");
    let gaps = site.gaps_arrive().await;
    assert!(of(&gaps, GapReason::DiskFull) > of(&first, GapReason::DiskFull));

    // each number is a record or a loss, and each loss was told
    let stored = site.stored();
    assert!(gaps.keys().all(|key| !stored.contains_key(key)));
    for (key, sum) in &site.written {
        match (stored.get(key), gaps.get(key)) {
            (Some(stored), None) => assert_eq!(stored, sum),
            (None, Some(reason)) => assert_eq!(*reason, GapReason::EvictedBySize, "{key:?}"),
            other => panic!("{key:?}: {other:?}"),
        }
    }
    for (stream, numbers) in &offered.numbers {
        let of_stream = stored
            .keys()
            .chain(gaps.keys())
            .filter(|(s, _)| s == stream);
        assert_eq!(of_stream.count() as u64, *numbers, "stream {stream}");
    }
    let after_all = stored
        .values()
        .filter(|sum| offered.given_up.contains(*sum));
    let told = of(&gaps, GapReason::DiskFull) + of(&gaps, GapReason::Damaged);
    assert_eq!(told + after_all.count(), offered.given_up.len());

    // and on the receipt
    site.stop.cancel();
    let address = hub.address;
    drop(hub);
    ended(address).await;
    let store = Store::open(&site.dir.path().join("hub.sqlite")).unwrap();
    let receipt = store
        .receipt(agent(), Day::running("today".into(), 0))
        .await
        .unwrap();
    let lost: u64 = receipt.streams.iter().map(|(_, s)| s.lost).sum();
    assert_eq!(lost, gaps.len() as u64);
    assert!(
        receipt.gaps.len() < 20,
        "the list is cut, its sum says nothing"
    );
    let full = receipt
        .gaps
        .iter()
        .filter(|g| g.reason == GapReason::DiskFull);
    let full: u64 = full.map(|gap| gap.lost).sum();
    assert_eq!(full, of(&gaps, GapReason::DiskFull) as u64);
    println!(
        "full card: {} stored, {} lost, of them {full} refused by the full card",
        stored.len(),
        gaps.len()
    );
}
