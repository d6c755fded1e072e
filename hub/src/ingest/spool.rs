//! Parts of large records that are not yet whole.
//!
//! `<spool>/<agent>/<epoch>-<stream>-<seq>-<checksum>-<total>.part` holds the first bytes of a body;
//! its length says how many. The files are not fsynced, because an acknowledged part deletes nothing
//! at the agent: what a power cut tears is found by the checksum of the whole and asked for again.
//! A whole file stays until its record is committed, so a crash in between costs no second upload.
//!
//! Invariants: one file per (agent, epoch, stream, seq); parts of one agent are handled by one worker,
//! in order; the files of one agent never claim more than [`MAX_AGENT`] together, unless they are whole.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::stream::Stream;
use scc_common::wire::{MAX_BODY, Part, PartAck};

use crate::store::{LaneKey, RecordKey};

/// Bytes that the unfinished records of one agent may come to.
const MAX_AGENT: u64 = 4 * MAX_BODY as u64;

/// A file that nobody has added to for so long is given up.
const MAX_AGE_MS: i64 = 7 * 24 * 3_600 * 1_000;

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// So many bytes from the beginning are here; the next part begins there.
    Progress(u32),
    /// This part was the last.
    Whole,
}

#[derive(Debug, Clone)]
struct Entry {
    epoch: Epoch,
    stream: Stream,
    seq: Seq,
    sum: Checksum,
    total: u32,
    received: u32,
    touched_ms: WallMs,
}

impl Entry {
    fn is(&self, key: &RecordKey) -> bool {
        (self.epoch, self.stream, self.seq) == (key.lane.epoch, key.lane.stream, key.seq)
    }

    fn whole(&self) -> bool {
        self.received == self.total
    }

    fn file_name(&self) -> String {
        format!(
            "{}-{}-{}-{}-{}.part",
            self.epoch,
            self.stream.code(),
            self.seq,
            self.sum,
            self.total
        )
    }

    fn from_file_name(name: &str) -> Option<Self> {
        let mut fields = name.strip_suffix(".part")?.split('-');
        let epoch = u64::from_str_radix(fields.next()?, 16).ok()?;
        let stream = Stream::from_code(fields.next()?.parse().ok()?)?;
        let seq = fields.next()?.parse().ok()?;
        let sum = u128::from_str_radix(fields.next()?, 16).ok()?;
        let total = fields.next()?.parse().ok()?;
        Some(Self {
            epoch: Epoch(epoch),
            stream,
            seq,
            sum: Checksum(sum.to_be_bytes()),
            total,
            received: 0,
            touched_ms: 0,
        })
    }
}

/// The folder of unfinished records. All but [`progress`](Spool::progress) and
/// [`knows`](Spool::knows) wait for the disk.
#[derive(Debug)]
pub(super) struct Spool {
    root: PathBuf,
    /// Never locked while the disk is waited for.
    agents: Mutex<HashMap<AgentId, Vec<Entry>>>,
}

impl Spool {
    /// Takes up what an earlier life of the hub has left. A file that is longer than it may be, or
    /// older than a week, is removed.
    pub(super) fn open(root: &Path, now: WallMs) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let mut agents: HashMap<AgentId, Vec<Entry>> = HashMap::new();
        for folder in fs::read_dir(root)? {
            let folder = folder?;
            let name = folder.file_name();
            let Some(agent) = name.to_str().and_then(|n| AgentId::new(n).ok()) else {
                continue;
            };
            for file in fs::read_dir(folder.path())? {
                let file = file?;
                let meta = file.metadata()?;
                let name = file.file_name();
                let Some(mut entry) = name.to_str().and_then(Entry::from_file_name) else {
                    continue;
                };
                entry.received = u32::try_from(meta.len()).unwrap_or(u32::MAX);
                entry.touched_ms = modified_ms(&meta).unwrap_or(now);
                if entry.received > entry.total || expired(&entry, now) {
                    fs::remove_file(file.path())?;
                } else {
                    agents.entry(agent.clone()).or_default().push(entry);
                }
            }
        }
        Ok(Self {
            root: root.to_path_buf(),
            agents: Mutex::new(agents),
        })
    }

    /// Adds a part. One that begins beyond what is here, or that contradicts itself, adds nothing.
    pub(super) fn add(&self, agent: &AgentId, part: &Part, now: WallMs) -> io::Result<Added> {
        let key = RecordKey {
            lane: LaneKey {
                agent: agent.clone(),
                epoch: part.epoch,
                stream: part.stream,
            },
            seq: part.seq,
        };
        let entry = match self.entry(&key) {
            Some(entry) if entry.sum == part.sum && entry.total == part.total => entry,
            other => {
                // Another body under the same identity begins: the newer one is the one being sent.
                if other.is_some() {
                    self.remove(&key)?;
                }
                if part.offset != 0 {
                    return Ok(Added::Progress(0));
                }
                self.make_room(&key, part.total)?;
                Entry {
                    epoch: part.epoch,
                    stream: part.stream,
                    seq: part.seq,
                    sum: part.sum,
                    total: part.total,
                    received: 0,
                    touched_ms: now,
                }
            }
        };
        let end = u64::from(part.offset) + part.data.len() as u64;
        let fits = part.offset <= entry.received && end <= u64::from(entry.total);
        let known =
            usize::try_from(entry.received.saturating_sub(part.offset)).unwrap_or(usize::MAX);
        let new = part.data.get(known..).filter(|new| fits && !new.is_empty());
        let Some(new) = new else {
            return Ok(Added::Progress(entry.received));
        };
        let path = self.path(agent, &entry);
        fs::create_dir_all(self.root.join(agent.as_str()))?;
        let file = OpenOptions::new()
            .create(true)
            .append(false)
            .write(true)
            .truncate(false)
            .open(&path)?;
        if let Err(error) = file.write_all_at(new, u64::from(entry.received)) {
            // Best effort: a longer file is cut when the next part is written over its end, and the
            // checksum of the whole has the last word.
            let _ = file.set_len(u64::from(entry.received));
            return Err(error);
        }
        let entry = Entry {
            received: u32::try_from(end).unwrap_or(entry.total),
            touched_ms: now,
            ..entry
        };
        let added = if entry.whole() {
            Added::Whole
        } else {
            Added::Progress(entry.received)
        };
        let mut agents = self.lock();
        let entries = agents.entry(agent.clone()).or_default();
        entries.retain(|e| !e.is(&key));
        entries.push(entry);
        Ok(added)
    }

    /// The bytes of a whole record and the checksum that they should have.
    pub(super) fn read(&self, key: &RecordKey) -> io::Result<(Vec<u8>, Checksum)> {
        let entry = self
            .entry(key)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut bytes = Vec::new();
        File::open(self.path(&key.lane.agent, &entry))?
            .take(MAX_BODY as u64)
            .read_to_end(&mut bytes)?;
        Ok((bytes, entry.sum))
    }

    /// Forgets a record: it is committed, or was wrong.
    pub(super) fn remove(&self, key: &RecordKey) -> io::Result<()> {
        let Some(entry) = self.entry(key) else {
            return Ok(());
        };
        match fs::remove_file(self.path(&key.lane.agent, &entry)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        if let Some(entries) = self.lock().get_mut(&key.lane.agent) {
            entries.retain(|e| !e.is(key));
        }
        Ok(())
    }

    /// Gives up what nobody has added to for a week.
    pub(super) fn remove_expired(&self, now: WallMs) -> io::Result<()> {
        for (key, entry) in self.all() {
            if expired(&entry, now) {
                self.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Records that were whole when the hub stopped, with their sizes.
    pub(super) fn whole(&self) -> Vec<(RecordKey, u32)> {
        let whole = self.all().into_iter().filter(|(_, entry)| entry.whole());
        whole.map(|(key, entry)| (key, entry.total)).collect()
    }

    /// Whether the first part of this very body is here.
    pub(super) fn knows(&self, key: &RecordKey, sum: Checksum) -> bool {
        self.entry(key).is_some_and(|entry| entry.sum == sum)
    }

    /// How far the unfinished records of a lane are, ascending.
    pub(super) fn progress(&self, lane: &LaneKey) -> Vec<PartAck> {
        let agents = self.lock();
        let entries = agents.get(&lane.agent).map_or(&[][..], Vec::as_slice);
        let mut parts: Vec<PartAck> = entries
            .iter()
            .filter(|e| e.epoch == lane.epoch && e.stream == lane.stream)
            .map(|e| PartAck {
                seq: e.seq,
                received: e.received,
            })
            .collect();
        parts.sort_unstable_by_key(|p| p.seq);
        parts
    }

    /// Gives up the agent's oldest unfinished records until `total` more bytes may be claimed.
    fn make_room(&self, key: &RecordKey, total: u32) -> io::Result<()> {
        loop {
            let oldest = {
                let agents = self.lock();
                let entries = agents.get(&key.lane.agent).map_or(&[][..], Vec::as_slice);
                let claimed: u64 = entries.iter().map(|e| u64::from(e.total)).sum();
                if claimed + u64::from(total) <= MAX_AGENT {
                    return Ok(());
                }
                let unfinished = entries.iter().filter(|e| !e.whole());
                unfinished.min_by_key(|e| e.touched_ms).map(|e| RecordKey {
                    lane: LaneKey {
                        agent: key.lane.agent.clone(),
                        epoch: e.epoch,
                        stream: e.stream,
                    },
                    seq: e.seq,
                })
            };
            match oldest {
                Some(oldest) => self.remove(&oldest)?,
                // Only whole ones are left; they leave with their commit.
                None => return Ok(()),
            }
        }
    }

    fn entry(&self, key: &RecordKey) -> Option<Entry> {
        let agents = self.lock();
        agents
            .get(&key.lane.agent)?
            .iter()
            .find(|e| e.is(key))
            .cloned()
    }

    fn all(&self) -> Vec<(RecordKey, Entry)> {
        let agents = self.lock();
        let one = |agent: &AgentId, e: &Entry| {
            let lane = LaneKey {
                agent: agent.clone(),
                epoch: e.epoch,
                stream: e.stream,
            };
            (RecordKey { lane, seq: e.seq }, e.clone())
        };
        agents
            .iter()
            .flat_map(|(agent, entries)| entries.iter().map(move |e| one(agent, e)))
            .collect()
    }

    fn path(&self, agent: &AgentId, entry: &Entry) -> PathBuf {
        self.root.join(agent.as_str()).join(entry.file_name())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Vec<Entry>>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn expired(entry: &Entry, now: WallMs) -> bool {
    now.saturating_sub(entry.touched_ms) > MAX_AGE_MS
}

fn modified_ms(meta: &fs::Metadata) -> Option<WallMs> {
    let since = meta
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;

    fn part(seq: Seq, body: &[u8], offset: usize, end: usize) -> Part {
        Part {
            epoch: Epoch(9),
            stream: Stream::Segment,
            seq,
            sum: Checksum::of(body),
            total: u32::try_from(body.len()).unwrap(),
            offset: u32::try_from(offset).unwrap(),
            gaps: Vec::new(),
            data: ByteBuf::from(body[offset..end].to_vec()),
        }
    }

    fn agent() -> AgentId {
        AgentId::new("rsud").unwrap()
    }

    fn key(seq: Seq) -> RecordKey {
        RecordKey {
            lane: LaneKey {
                agent: agent(),
                epoch: Epoch(9),
                stream: Stream::Segment,
            },
            seq,
        }
    }

    /// The clock of these tests stands where the files' own times are.
    fn now() -> WallMs {
        use scc_common::clock::Clock;
        scc_common::clock::SystemClock::new().wall_ms()
    }

    #[test]
    fn parts_add_up_over_a_restart_whatever_comes_twice_or_too_early() {
        let dir = tempfile::tempdir().unwrap();
        let body: Vec<u8> = (0..100).collect();
        let spool = Spool::open(dir.path(), now()).unwrap();
        let add = |spool: &Spool, p: &Part| spool.add(&agent(), p, now()).unwrap();
        assert_eq!(add(&spool, &part(3, &body, 40, 60)), Added::Progress(0));
        assert_eq!(add(&spool, &part(3, &body, 0, 40)), Added::Progress(40));
        assert_eq!(add(&spool, &part(3, &body, 0, 40)), Added::Progress(40));
        assert_eq!(add(&spool, &part(3, &body, 50, 60)), Added::Progress(40));
        let spool = Spool::open(dir.path(), now()).unwrap();
        let progress = PartAck {
            seq: 3,
            received: 40,
        };
        assert_eq!(spool.progress(&key(3).lane), [progress]);
        assert_eq!(add(&spool, &part(3, &body, 20, 60)), Added::Progress(60));
        assert_eq!(add(&spool, &part(3, &body, 60, 100)), Added::Whole);
        let spool = Spool::open(dir.path(), now()).unwrap();
        assert_eq!(spool.whole(), [(key(3), 100)]);
        assert_eq!(
            spool.read(&key(3)).unwrap(),
            (body.clone(), Checksum::of(&body))
        );
        spool.remove(&key(3)).unwrap();
        assert!(Spool::open(dir.path(), now()).unwrap().whole().is_empty());
    }

    #[test]
    fn another_body_under_the_same_number_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), now()).unwrap();
        spool
            .add(&agent(), &part(1, &[1; 50], 0, 20), now())
            .unwrap();
        let added = spool
            .add(&agent(), &part(1, &[2; 50], 20, 30), now())
            .unwrap();
        assert_eq!(added, Added::Progress(0));
        spool
            .add(&agent(), &part(1, &[2; 50], 0, 50), now())
            .unwrap();
        assert_eq!(spool.read(&key(1)).unwrap().0, [2; 50]);
    }

    #[test]
    fn an_agent_that_begins_and_never_ends_costs_a_bounded_number_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), now()).unwrap();
        for seq in 1..=20 {
            let mut first = part(seq, &[7; 10], 0, 10);
            first.total = u32::try_from(MAX_BODY).unwrap();
            spool
                .add(&agent(), &first, now() + i64::try_from(seq).unwrap())
                .unwrap();
        }
        let left: Vec<Seq> = spool.progress(&key(1).lane).iter().map(|p| p.seq).collect();
        assert_eq!(left, [17, 18, 19, 20]);
        let files = fs::read_dir(dir.path().join("rsud")).unwrap().count();
        assert_eq!(files, 4);
    }

    #[test]
    fn a_week_old_piece_and_a_file_that_is_too_long_are_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), now()).unwrap();
        spool
            .add(&agent(), &part(1, &[1; 50], 0, 20), now())
            .unwrap();
        spool
            .add(&agent(), &part(2, &[2; 50], 0, 20), now())
            .unwrap();
        let file = spool.path(&agent(), &spool.entry(&key(2)).unwrap());
        fs::write(file, [0; 51]).unwrap();
        let spool = Spool::open(dir.path(), now()).unwrap();
        assert!(!spool.knows(&key(2), Checksum::of(&[2; 50])));
        assert!(spool.knows(&key(1), Checksum::of(&[1; 50])));
        spool.remove_expired(now() + MAX_AGE_MS + 60_000).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("rsud")).unwrap().count(), 0);
    }
}
