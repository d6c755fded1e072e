//! The fragments of the open segment, kept where a kill of the agent does not reach them.
//!
//! A camera has one file, `state_dir/open/<device>`. Each closed fragment is appended to it as it
//! comes, and once the buffer has accepted the segment the file is emptied. What a source finds there
//! at its start is what a killed agent was holding: it is handed over before the first session.
//!
//! Promises:
//! - A SIGKILL or a panic loses the open fragment and what was in the reader's pipe, no closed one.
//! - It is stored once. The buffer accepts, then the file is emptied: no order of kills loses it, and
//!   after a kill between the two the buffer says that it [holds](Accept::holds) these very bytes.
//! - A *power cut* may lose the whole open segment: nothing here is fsynced. The page cache outlives
//!   the process, not the box.
//! - Little wear: a file is emptied after one segment (about 10 s), and the kernel writes back what is
//!   older than 30 s, so most of it never reaches the card. Nothing is renamed or made anew. The price
//!   is memory: one open segment per camera, in the page cache.
//! - A file that cannot be written costs this safety net, for that segment, and nothing else.
//! - Whatever bytes stand there, nothing panics: reading ends at the first that are no entry (the
//!   torn tail of a kill, foreign bytes), they are told in the log and go with the next segment. No
//!   segment grows beyond what a record may hold.
//!
//! Format: [`MAGIC`], then entries, the first a beginning and all others fragments. An entry is three
//! little-endian `u32` (bytes of its head, bytes of its blob, CRC-32 of these two and of all that
//! follows), the head (JSON, [`Head`]) and the blob (boxes of MP4).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use scc_common::clock::Stamp;
use scc_common::id::DeviceId;
use scc_common::record::{Content, RecordBody, Segment};
use scc_common::wire::MAX_BODY;
use serde::{Deserialize, Serialize};

use super::assembly::Assembly;
use crate::buffer::BufferError;
use crate::capture::accept::Accept;

/// The first bytes of a file; the last of them is the version.
const MAGIC: &[u8; 8] = b"SCCOPEN1";

/// Bytes before the head of an entry.
const LENGTHS: usize = 12;

/// The head of an entry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    /// A segment begins; the blob is its `ftyp` and `moov`.
    Begin {
        stamp: Stamp,
        codec: String,
        width: u16,
        height: u16,
    },
    /// The next piece of it; the blob is one `moof` and its `mdat`.
    Fragment { frames: u32, duration_ms: u32 },
}

/// The file of one camera. The card may make a write wait, so none happens on the runtime's threads.
#[derive(Debug)]
pub(super) struct Keep {
    device: DeviceId,
    kept: Arc<Mutex<Kept>>,
}

impl Keep {
    /// Of this camera, under `dir`.
    pub(super) fn new(dir: &Path, device: DeviceId) -> Self {
        let kept = Kept {
            path: dir.join(device.as_str()),
            open: None,
            failed: false,
        };
        Self {
            device,
            kept: Arc::new(Mutex::new(kept)),
        }
    }

    /// Hands over what a killed agent has left.
    pub(super) async fn recover<A: Accept>(&self, accept: &A) {
        let device = &self.device;
        let bytes = match self.with(Kept::read).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%device, %error, "what was open at the last end cannot be read");
                return;
            }
        };
        let (segment, unread) = replay(bytes);
        if unread > 0 {
            tracing::warn!(%device, bytes = unread, "the end of what was open at the last end is torn or foreign");
        }
        let Some((stamp, segment)) = segment else {
            return;
        };
        let (frames, ms) = (segment.frames, segment.duration_ms);
        let body = RecordBody::new(stamp, Some(device.clone()), Content::Segment(segment));
        let done = match accept.holds(&body).await {
            Ok(true) => Ok(()),
            Ok(false) => accept.append(&body).await.map(|_| {
                tracing::info!(%device, frames, ms, "the segment that a killed agent had open is kept");
            }),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => self.empty().await,
            Err(BufferError::Closed) => {}
            Err(error) => {
                tracing::warn!(%device, %error, "the segment that a killed agent had open is dropped");
                accept.give_up(&body, &error).await;
                self.empty().await;
            }
        }
    }

    /// A segment begins; what was kept is gone.
    pub(super) async fn begin(
        &self,
        stamp: Stamp,
        codec: String,
        (width, height): (u16, u16),
        init: Bytes,
    ) {
        let head = Head::Begin {
            stamp,
            codec,
            width,
            height,
        };
        self.write(move |kept| {
            kept.empty()?;
            kept.open()?.write_all(MAGIC)?;
            kept.put(&head, &init)
        })
        .await;
    }

    /// It grows.
    pub(super) async fn fragment(&self, frames: u32, duration_ms: u32, bytes: Bytes) {
        let head = Head::Fragment {
            frames,
            duration_ms,
        };
        self.write(move |kept| {
            // an entry behind a missing one would be part of another segment
            if kept.failed {
                return Ok(());
            }
            kept.put(&head, &bytes)
        })
        .await;
    }

    /// The buffer has accepted the segment.
    pub(super) async fn empty(&self) {
        self.write(Kept::empty).await;
    }

    /// Does something to the file. After a failure it is empty until the next segment begins: the
    /// beginning of a segment must not be handed over beside the whole of it.
    async fn write(&self, run: impl FnOnce(&mut Kept) -> io::Result<()> + Send + 'static) {
        let done = self.with(|kept| {
            let done = run(kept);
            if done.is_err() {
                kept.failed = true;
                if let Some(file) = &kept.open {
                    // best effort: what stays is at worst handed over twice, after a kill
                    let _ = file.set_len(0);
                }
            }
            done
        });
        if let Err(error) = done.await {
            tracing::warn!(device = %self.device, %error, "the open segment is in memory only");
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Kept) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let kept = Arc::clone(&self.kept);
        let work = move || run(&mut kept.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await?
    }
}

/// What runs on a thread that may wait.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Opened at the first segment.
    open: Option<File>,
    /// Something could not be written; nothing more of this segment is.
    failed: bool,
}

impl Kept {
    fn open(&mut self) -> io::Result<&mut File> {
        if self.open.is_none() {
            if let Some(dir) = self.path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(&self.path)?;
            self.open = Some(file);
        }
        self.open
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn empty(&mut self) -> io::Result<()> {
        self.open()?.set_len(0)?;
        self.failed = false;
        Ok(())
    }

    fn put(&mut self, head: &Head, blob: &[u8]) -> io::Result<()> {
        let file = self.open()?;
        file.write_all(&entry(head, blob)?)?;
        file.write_all(blob)
    }

    /// All that is there, as far as it could be ours; nothing if there is no file.
    fn read(&mut self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            // a file of ours is a record and little more
            Ok(file) => file.take(2 * MAX_BODY as u64).read_to_end(&mut bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(bytes.into())
    }
}

/// The bytes of an entry before its blob.
fn entry(head: &Head, blob: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(head)?;
    let mut bytes = Vec::with_capacity(LENGTHS + json.len());
    for len in [json.len(), blob.len()] {
        let len = u32::try_from(len).map_err(io::Error::other)?;
        bytes.extend(len.to_le_bytes());
    }
    bytes.extend(crc(&bytes, &json, blob).to_le_bytes());
    bytes.extend(json);
    Ok(bytes)
}

fn crc(lengths: &[u8], json: &[u8], blob: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for piece in [lengths, json, blob] {
        crc.update(piece);
    }
    crc.finalize()
}

/// Takes the next entry off `bytes`; none, and nothing taken, if none begins there.
fn next(bytes: &mut Bytes) -> Option<(Head, Bytes)> {
    let (lengths, after) = bytes.split_first_chunk::<LENGTHS>()?;
    let number = |at: usize| {
        let four = lengths.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*four))
    };
    let json_len = usize::try_from(number(0)?).ok()?;
    let blob_len = usize::try_from(number(4)?).ok()?;
    let (json, after) = after.split_at_checked(json_len)?;
    let (blob, after) = after.split_at_checked(blob_len)?;
    if crc(&lengths[..8], json, blob) != number(8)? {
        return None;
    }
    let head = serde_json::from_slice(json).ok()?;
    let blob = bytes.slice_ref(blob);
    bytes.advance(bytes.len() - after.len());
    Some((head, blob))
}

/// The segment that these bytes hold, as the agent would have had it, and how many bytes at the end
/// are no part of it.
fn replay(mut bytes: Bytes) -> (Option<(Stamp, Segment)>, usize) {
    let mut assembly = Assembly::default();
    if !bytes.starts_with(MAGIC) {
        return (None, bytes.len());
    }
    bytes.advance(MAGIC.len());
    let mut before = bytes.clone();
    if let Some((
        Head::Begin {
            stamp,
            codec,
            width,
            height,
        },
        init,
    )) = next(&mut bytes)
    {
        assembly.begin(stamp, codec, (width, height), &init);
        before = bytes.clone();
        while let Some((
            Head::Fragment {
                frames,
                duration_ms,
            },
            blob,
        )) = next(&mut bytes)
        {
            if assembly.fragment(frames, duration_ms, &blob).is_err() {
                break;
            }
            before = bytes.clone();
        }
    }
    (assembly.end(), before.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use scc_common::clock::{Clock as _, ManualClock};
    use scc_common::stream::Stream;
    use scc_common::wire::SeqRange;

    use crate::buffer::{Buffer, Lane};
    use crate::config::BufferLimits;

    const SIZE: (u16, u16) = (768, 576);

    fn keep(dir: &Path) -> Keep {
        Keep::new(&dir.join("open"), DeviceId::new("loket").unwrap())
    }

    fn file(dir: &Path) -> PathBuf {
        dir.join("open/loket")
    }

    /// What a life had written that was killed with two closed fragments.
    async fn killed(dir: &Path, stamp: Stamp) {
        let keep = keep(dir);
        let codec = "avc1.4d4028".to_owned();
        keep.begin(stamp, codec, SIZE, Bytes::from_static(b"init"))
            .await;
        for (ms, bytes) in [(2_000, &b"one"[..]), (2_040, &b"two"[..])] {
            keep.fragment(50, ms, Bytes::from_static(bytes)).await;
        }
    }

    fn buffer(dir: &Path, clock: &Arc<ManualClock>) -> Buffer {
        Buffer::open(dir, BufferLimits::default(), clock.clone()).unwrap()
    }

    async fn segments(buffer: &Buffer) -> Vec<RecordBody> {
        let lane = Lane {
            epoch: buffer.epoch().await.unwrap(),
            stream: Stream::Segment,
        };
        let all = SeqRange { first: 1, last: 99 };
        let records = buffer.read(lane, all, usize::MAX).await.unwrap();
        let bodies = records.iter().map(|r| RecordBody::decode(&r.body).unwrap());
        bodies.collect()
    }

    #[tokio::test]
    async fn what_a_killed_agent_had_open_is_stored_with_its_own_stamp_and_once() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(100_000));
        let stamp = clock.stamp();
        killed(dir.path(), stamp).await;
        let left = std::fs::read(file(dir.path())).unwrap();
        clock.advance(60_000);
        let buffer = buffer(dir.path(), &clock);
        keep(dir.path()).recover(&buffer).await;
        let expected = RecordBody::new(
            stamp,
            Some(DeviceId::new("loket").unwrap()),
            Content::Segment(Segment {
                duration_ms: 4_040,
                frames: 100,
                codec: "avc1.4d4028".into(),
                width: SIZE.0,
                height: SIZE.1,
                mp4: b"initonetwo".to_vec(),
            }),
        );
        assert_eq!(segments(&buffer).await, [expected]);
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), b"");

        // killed again after the buffer had accepted it and before the file was emptied
        std::fs::write(file(dir.path()), &left).unwrap();
        keep(dir.path()).recover(&buffer).await;
        assert_eq!(segments(&buffer).await.len(), 1);
        assert_eq!(std::fs::read(file(dir.path())).unwrap(), b"");
        buffer.close().await;
    }

    #[tokio::test]
    async fn a_buffer_that_is_closed_leaves_it_for_the_next_life() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
        killed(dir.path(), clock.stamp()).await;
        let closed = buffer(dir.path(), &clock);
        closed.close().await;
        keep(dir.path()).recover(&closed).await;
        let buffer = buffer(dir.path(), &clock);
        keep(dir.path()).recover(&buffer).await;
        assert_eq!(segments(&buffer).await.len(), 1);
        buffer.close().await;
    }

    #[tokio::test]
    async fn an_accepted_segment_leaves_nothing_and_the_next_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let keep = keep(dir.path());
        let stamp = ManualClock::at(5).stamp();
        for init in [&b"first"[..], &b"second"[..]] {
            keep.begin(stamp, String::new(), SIZE, Bytes::from_static(init))
                .await;
            keep.fragment(1, 40, Bytes::from_static(b".")).await;
            let (segment, unread) = replay(keep.with(Kept::read).await.unwrap());
            assert_eq!(segment.unwrap().1.mp4, [init, b"."].concat());
            assert_eq!(unread, 0);
            keep.empty().await;
            assert_eq!(std::fs::read(file(dir.path())).unwrap(), b"");
        }
    }

    #[tokio::test]
    async fn a_card_that_takes_no_more_costs_what_was_kept_and_no_more() {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        use std::os::fd::AsRawFd as _;
        let file: File = memfd_create("card", MemfdFlags::ALLOW_SEALING)
            .unwrap()
            .into();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        let kept = Kept {
            path,
            open: Some(file.try_clone().unwrap()),
            failed: false,
        };
        let keep = Keep {
            device: DeviceId::new("loket").unwrap(),
            kept: Arc::new(Mutex::new(kept)),
        };
        let stamp = ManualClock::at(5).stamp();
        keep.begin(stamp, String::new(), SIZE, Bytes::from_static(b"init"))
            .await;
        keep.fragment(1, 40, Bytes::from_static(b"one")).await;
        assert!(replay(keep.with(Kept::read).await.unwrap()).0.is_some());
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        keep.fragment(1, 40, Bytes::from_static(b"two")).await;
        // small enough for what the file has had: it is not for want of room that it is left out
        keep.fragment(1, 40, Bytes::new()).await;
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[tokio::test]
    async fn a_file_that_is_none_stops_nothing() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
        std::fs::create_dir_all(file(dir.path())).unwrap();
        let buffer = buffer(dir.path(), &clock);
        keep(dir.path()).recover(&buffer).await;
        killed(dir.path(), clock.stamp()).await;
        assert_eq!(segments(&buffer).await, []);
        buffer.close().await;
    }

    /// Beginning and fragments as they stand in a file, and where each ends.
    fn written() -> (Vec<u8>, Vec<usize>) {
        let begin = Head::Begin {
            stamp: ManualClock::at(7).stamp(),
            codec: "avc1.4d4028".into(),
            width: 1,
            height: 1,
        };
        let fragment = Head::Fragment {
            frames: 1,
            duration_ms: 40,
        };
        let (mut bytes, mut ends) = (MAGIC.to_vec(), Vec::new());
        for (head, blob) in [(&begin, "init"), (&fragment, "a"), (&fragment, "b")] {
            bytes.extend(entry(head, blob.as_bytes()).unwrap());
            bytes.extend(blob.as_bytes());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_tail_torn_anywhere_costs_its_own_fragment() {
        let (bytes, ends) = written();
        for cut in 0..=bytes.len() {
            let (segment, unread) = replay(Bytes::copy_from_slice(&bytes[..cut]));
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let mp4 = segment.map(|(_, segment)| segment.mp4);
            let expected = [None, None, Some("inita"), Some("initab")][whole];
            assert_eq!(mp4.as_deref(), expected.map(str::as_bytes), "{cut}");
            let read = ends.iter().rfind(|end| **end <= cut).copied();
            // of a torn magic nothing is ours, of a whole one all of it
            let read = read.unwrap_or(if cut < MAGIC.len() { 0 } else { MAGIC.len() });
            assert_eq!(unread, cut - read, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_never_gets_into_a_segment(at in 0..written().0.len(), bit in 0..8) {
            let mut bytes = written().0;
            bytes[at] ^= 1_u8 << bit;
            let (segment, unread) = replay(bytes.into());
            let mp4 = segment.map(|(_, segment)| segment.mp4);
            prop_assert!(mp4.is_none() || mp4.as_deref() == Some(b"inita"));
            prop_assert!(unread > 0);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for begin in [&b""[..], MAGIC, &written().0] {
                let (_, unread) = replay([begin, &bytes].concat().into());
                prop_assert!(unread >= bytes.len() || begin.is_empty());
            }
        }

        #[test]
        fn no_length_is_believed(json in any::<u32>(), blob in any::<u32>()) {
            let mut bytes = [json.to_le_bytes(), blob.to_le_bytes(), [0; 4]].concat();
            bytes.extend([0; 64]);
            prop_assert!(next(&mut bytes.into()).is_none());
        }
    }
}
