//! A damaged buffer still sends: what is whole reaches the hub, what is not is a gap there, and what is
//! taken afterwards arrives too. Which damage costs what is the matter of the buffer's own tests.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::stage::*;
use scc_agent::buffer::Buffer;
use scc_agent::buffer::inspect;
use scc_common::clock::SystemClock;
use scc_common::wire::GapReason;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

impl Site {
    /// Stops the agent; where its buffer is.
    async fn stopped(&mut self) -> PathBuf {
        self.stop.cancel();
        self.buffer.close().await;
        inspect::root(&self.dir.path().join("state"))
    }

    /// Starts the agent again; how many records it found lost.
    fn started(&mut self) -> u64 {
        let state = self.dir.path().join("state");
        self.buffer = Buffer::open(&state, limits(), SystemClock::shared()).unwrap();
        let damage = self.buffer.damage();
        self.stop = CancellationToken::new();
        self.link = connect(
            self.buffer.clone(),
            self.dialer.clone(),
            &self.lines,
            &self.stop,
        );
        damage.map_or(0, |damage| damage.records)
    }

    async fn some_of_each(&mut self) {
        for _ in 0..6 {
            self.punch().await;
            self.still(45_000).await;
            self.segment(300_000).await;
        }
    }
}

/// The one file of a stream.
fn file_of(root: &Path, stream: &str) -> File {
    let mut names = std::fs::read_dir(root.join(stream)).unwrap();
    let path = names.next().unwrap().unwrap().path();
    assert!(names.next().is_none());
    File::options().write(true).open(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_with_damaged_files_sends_all_that_is_whole_and_tells_the_rest() {
    let (mut site, _hub) = Site::start().await;
    let root = site.stopped().await;
    let state = site.dir.path().join("state");
    site.buffer = Buffer::open(&state, limits(), SystemClock::shared()).unwrap();
    site.some_of_each().await;
    site.stopped().await;
    // a block within the first video, and the end of the last still
    let rot = file_of(&root, "segment").write_all_at(&[0; 4096], 8192);
    rot.unwrap();
    let stills = file_of(&root, "snapshot");
    let len = stills.metadata().unwrap().len();
    stills.set_len(len - 100).unwrap();

    let lost = site.started();
    assert_eq!(lost, 1, "the still; the video shows when it is read");
    let segment = scc_common::stream::Stream::Segment.code();
    let snapshot = scc_common::stream::Stream::Snapshot.code();
    for key in [(segment, 1), (snapshot, 6)] {
        assert!(site.written.remove(&key).is_some());
    }
    site.delivered().await;
    let gaps = site.gaps_arrive().await;
    let expected = [
        ((snapshot, 6), GapReason::Damaged),
        ((segment, 1), GapReason::Damaged),
    ];
    assert_eq!(gaps.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(site.buffer.damage().unwrap().records, 1);
    site.some_of_each().await;
    site.delivered().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buffer_whose_index_is_destroyed_sends_everything() {
    let (mut site, _hub) = Site::start().await;
    site.punch().await;
    site.delivered().await;
    let root = site.stopped().await;
    let state = site.dir.path().join("state");
    site.buffer = Buffer::open(&state, limits(), SystemClock::shared()).unwrap();
    site.some_of_each().await;
    site.stopped().await;
    let index = root.join("index/db");
    let len = std::fs::metadata(&index).unwrap().len();
    let index = File::options().write(true).open(index).unwrap();
    let garbage = noise(1, usize::try_from(len).unwrap());
    index.write_all_at(&garbage, 0).unwrap();

    assert_eq!(site.started(), 0);
    site.delivered().await;
    // new records begin a new epoch, so that no number is given twice
    let epoch = site.buffer.epoch().await.unwrap();
    let key = site.punch().await;
    assert_eq!(key.1, 1);
    let arrived = async {
        while site.stored_in(epoch) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let arrived = tokio::time::timeout(PATIENCE, arrived).await;
    arrived.expect("what is taken afterwards does not arrive");
    assert!(site.gaps_arrive().await.is_empty());
}

impl Site {
    /// Records that the hub has of an epoch.
    fn stored_in(&self, epoch: scc_common::id::Epoch) -> i64 {
        let sql = self.ledger();
        let query = "SELECT count(*) FROM record WHERE epoch = ?1";
        sql.query_row(query, [epoch.0.cast_signed()], |row| row.get(0))
            .unwrap()
    }
}
