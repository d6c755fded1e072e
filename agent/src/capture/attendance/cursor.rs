//! What has already been handed over: the terminal's cursor.
//!
//! A terminal's log has no numbers and no order that can be relied on, so the cursor is no position
//! but a set: for each record identity (serial, who, time, state, verify) how many of the identical
//! records the buffer has accepted. Beside it stand the punches that came live and wait for the log
//! to confirm them, so that the same punch from event and log is handed over once.
//!
//! Promise: an entry is made only after the buffer has accepted the punch. A crash between the two
//! hands a punch over again, with the same identity, and the hub stores it once; no order of crashes
//! leaves one out.
//!
//! The entries hold for one [`Life`] of the buffer. If the buffer has lost what it had accepted, the
//! terminal still has it: a cursor of another life is forgotten and the whole log handed over again.
//!
//! On disk: a journal, appended and synced per batch, so that one punch costs tens of bytes of card
//! wear and not a rewrite. `SCCSEEN1`, then entries of [`ENTRY`] bytes: kind, key (16), second
//! (16), CRC-32 of the 33 before it. The life is an entry too, the first; a journal without one
//! was written before there were any, and is of no life that can be proven. What follows the first
//! damaged entry is cut off at opening; at worst its punches are handed over again. Identities are
//! hashed, so the file names nobody.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scc_common::checksum::Checksum;
use scc_common::id::Epoch;

use super::layout::{Record, Who};
use crate::capture::accept::Life;
use crate::durable::replace;

const MAGIC: &[u8; 8] = b"SCCSEEN1";
/// Bytes of an entry.
pub const ENTRY: usize = 37;
const SEEN: u8 = 1;
const LIVE: u8 = 2;
const CONFIRMED: u8 = 3;
const LIFE: u8 = 4;

/// A hashed identity. 128 bits: among 100,000 records no two will meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 16]);

/// The two identities of a punch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// With state and verify: which record it is.
    pub exact: Key,
    /// Who and when: which punch it is, whether told by log or by event.
    pub punch: Key,
}

impl Keys {
    /// Of a record of this terminal.
    #[must_use]
    pub fn of(serial: &str, record: &Record<'_>) -> Self {
        use ring::digest::{Context, SHA256};
        let mut context = Context::new(&SHA256);
        context.update(serial.as_bytes());
        match &record.who {
            Who::User(id) => {
                context.update(b"\0user\0");
                context.update(id.as_bytes());
            }
            Who::Uid(uid) => {
                context.update(b"\0uid\0");
                context.update(&uid.to_le_bytes());
            }
        }
        context.update(b"\0");
        context.update(&record.local_s.to_le_bytes());
        let mut exact = context.clone();
        exact.update(&[record.state, record.verify]);
        Self {
            exact: Key::from(exact),
            punch: Key::from(context),
        }
    }
}

impl From<ring::digest::Context> for Key {
    fn from(context: ring::digest::Context) -> Self {
        let digest = context.finish();
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        Self(key)
    }
}

/// One step of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// One more record of this identity has been accepted.
    Seen(Key),
    /// A live punch has been accepted.
    Live(Keys),
    /// The log has shown a punch that had come live; the record's exact identity.
    Confirmed(Keys),
    /// What stands here was accepted in this life of the buffer.
    Life(Life),
}

impl Step {
    /// The bytes of its entry.
    #[must_use]
    pub fn entry(self) -> [u8; ENTRY] {
        let (kind, first, second) = match self {
            Self::Seen(key) => (SEEN, key, Key([0; 16])),
            Self::Live(keys) => (LIVE, keys.punch, keys.exact),
            Self::Confirmed(keys) => (CONFIRMED, keys.punch, keys.exact),
            Self::Life(life) => {
                let mut epoch = [0; 16];
                epoch[..8].copy_from_slice(&life.epoch.0.to_le_bytes());
                (LIFE, Key(epoch), Key(life.damage.0))
            }
        };
        let mut entry = [0; ENTRY];
        entry[0] = kind;
        entry[1..17].copy_from_slice(&first.0);
        entry[17..33].copy_from_slice(&second.0);
        let sum = crc32fast::hash(&entry[..33]);
        entry[33..].copy_from_slice(&sum.to_le_bytes());
        entry
    }

    fn read(entry: &[u8; ENTRY]) -> Option<Self> {
        let key = |at: usize| entry.get(at..)?.first_chunk::<16>().copied().map(Key);
        let told = entry.last_chunk::<4>().copied().map(u32::from_le_bytes)?;
        if crc32fast::hash(entry.get(..33)?) != told {
            return None;
        }
        let keys = Keys {
            punch: key(1)?,
            exact: key(17)?,
        };
        match entry[0] {
            SEEN => Some(Self::Seen(keys.punch)),
            LIVE => Some(Self::Live(keys)),
            CONFIRMED => Some(Self::Confirmed(keys)),
            LIFE => Some(Self::Life(Life {
                epoch: Epoch(u64::from_le_bytes(*keys.punch.0.first_chunk()?)),
                damage: Checksum(keys.exact.0),
            })),
            _ => None,
        }
    }
}

/// The entries of a journal up to the first damaged one; none if it is no journal.
#[must_use]
pub fn journal(bytes: &[u8]) -> Option<impl Iterator<Item = Step>> {
    let (whole, _) = bytes.strip_prefix(MAGIC)?.as_chunks::<ENTRY>();
    Some(whole.iter().map_while(Step::read))
}

/// The cursor of one terminal.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: Arc<File>,
    /// Where the journal ends for us; a failed write is overwritten by the next.
    len: u64,
    /// Entries that the disk has refused so far.
    pending: Vec<u8>,
    life: Option<Life>,
    seen: HashMap<Key, u32>,
    /// Punch → the exact identity under which it came live.
    live: HashMap<Key, Key>,
}

impl Cursor {
    /// Opens or makes the journal `DIR/DEVICE.seen`; damage costs only that some punches are handed
    /// over again.
    ///
    /// # Errors
    /// The disk's. Blocking: call it where that does no harm.
    pub fn open(dir: &Path, device: &str) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(format!("{device}.seen"));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut cursor = Self {
            path,
            file: Arc::new(file),
            len: 0,
            pending: Vec::new(),
            life: None,
            seen: HashMap::new(),
            live: HashMap::new(),
        };
        if let Some(steps) = journal(&bytes) {
            cursor.len = u64::try_from(MAGIC.len()).unwrap_or(0);
            for step in steps {
                cursor.take(step);
                cursor.len += u64::try_from(ENTRY).unwrap_or(0);
            }
        } else {
            cursor.file.set_len(0)?;
            cursor.file.write_all_at(MAGIC, 0)?;
            cursor.len = u64::try_from(MAGIC.len()).unwrap_or(0);
        }
        if usize::try_from(cursor.len) != Ok(bytes.len()) {
            if !bytes.is_empty() {
                tracing::warn!(file = %cursor.path.display(), kept = cursor.len, "the cursor's end was damaged and has been cut off");
            }
            cursor.file.set_len(cursor.len)?;
            cursor.file.sync_all()?;
            File::open(dir)?.sync_all()?;
        }
        Ok(cursor)
    }

    /// How many records of this identity have been accepted.
    #[must_use]
    pub fn seen(&self, exact: Key) -> u32 {
        self.seen.get(&exact).copied().unwrap_or(0)
    }

    /// The exact identity under which this punch came live, while the log has not confirmed it.
    #[must_use]
    pub fn live(&self, punch: Key) -> Option<Key> {
        self.live.get(&punch).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Seen(key) => *self.seen.entry(key).or_default() += 1,
            Step::Live(keys) => {
                self.live.insert(keys.punch, keys.exact);
            }
            Step::Confirmed(keys) => {
                self.live.remove(&keys.punch);
                *self.seen.entry(keys.exact).or_default() += 1;
            }
            Step::Life(life) => self.life = Some(life),
        }
    }

    /// Makes the cursor one of this life of the buffer. If it is of another, or of none that is
    /// known, it forgets everything, so that whatever the log holds is handed over again.
    pub async fn belong(&mut self, life: Life) {
        if self.life == Some(life) {
            return;
        }
        if !self.seen.is_empty() || !self.live.is_empty() {
            tracing::warn!(file = %self.path.display(), epoch = %life.epoch, "the buffer may have lost punches; the terminal's log is handed over again");
        }
        self.seen.clear();
        self.live.clear();
        self.life = Some(life);
        // a journal that cannot be replaced stays one of the other life: the next start forgets it
        self.rewrite().await;
    }

    /// Moves on, after the buffer has accepted. If the disk refuses, the cursor still moves in
    /// memory, for the punches *are* safe, and the entries are written with the next ones.
    pub async fn advance(&mut self, steps: &[Step]) {
        for step in steps {
            self.take(*step);
            self.pending.extend_from_slice(&step.entry());
        }
        if self.pending.is_empty() {
            return;
        }
        let (file, at) = (Arc::clone(&self.file), self.len);
        let bytes = std::mem::take(&mut self.pending);
        let write = tokio::task::spawn_blocking(move || {
            let done = file
                .write_all_at(&bytes, at)
                .and_then(|()| file.sync_data());
            (bytes, done)
        });
        match write.await {
            Ok((bytes, Ok(()))) => self.len += u64::try_from(bytes.len()).unwrap_or(0),
            Ok((bytes, Err(error))) => {
                tracing::error!(file = %self.path.display(), %error, "the cursor cannot be written; kept in memory and tried again");
                self.pending = bytes;
            }
            Err(stopped) => tracing::error!(%stopped, "the cursor's writer ended"),
        }
    }

    /// Forgets identities that a complete read of the log no longer shows, once they are the larger
    /// part: a cleared log would otherwise be remembered for ever. What is forgotten and comes back
    /// is handed over again.
    pub async fn retain(&mut self, log: &HashMap<Key, u32>) {
        let gone = self
            .seen
            .keys()
            .filter(|key| !log.contains_key(key))
            .count();
        if gone <= 1_000.max(self.seen.len() / 2) {
            return;
        }
        self.seen.retain(|key, _| log.contains_key(key));
        self.rewrite().await;
    }

    /// Writes the journal anew with what is in memory. If the disk refuses, the old one stands, and
    /// what waits to be added to it still waits.
    async fn rewrite(&mut self) {
        let seen = self.seen.iter().flat_map(|(key, n)| {
            let times = usize::try_from(*n).unwrap_or(usize::MAX);
            std::iter::repeat_n(Step::Seen(*key), times)
        });
        let live = self.live.iter().map(|(punch, exact)| {
            let keys = Keys {
                exact: *exact,
                punch: *punch,
            };
            Step::Live(keys)
        });
        let steps = self
            .life
            .map(Step::Life)
            .into_iter()
            .chain(seen)
            .chain(live);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(steps.flat_map(Step::entry));
        let path = self.path.clone();
        let len = u64::try_from(bytes.len()).unwrap_or(0);
        match tokio::task::spawn_blocking(move || replace(&path, &bytes)).await {
            Ok(Ok(file)) => {
                self.file = Arc::new(file);
                self.len = len;
                self.pending.clear();
            }
            Ok(Err(error)) => {
                tracing::warn!(file = %self.path.display(), %error, "the cursor could not be written anew");
            }
            Err(stopped) => tracing::error!(%stopped, "the cursor's writer ended"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(user: &str, state: u8) -> Keys {
        let record = Record {
            who: Who::User(user.into()),
            local_s: 848_000_000,
            state,
            verify: 1,
        };
        Keys::of("CGKK223862906", &record)
    }

    #[test]
    fn identities_differ_in_each_part() {
        let one = keys("7", 0);
        assert_eq!(one, keys("7", 0));
        assert_eq!(one.punch, keys("7", 1).punch);
        assert_ne!(one.exact, keys("7", 1).exact);
        assert_ne!(one.punch, keys("8", 0).punch);
        let uid = Record {
            who: Who::Uid(7),
            local_s: 848_000_000,
            state: 0,
            verify: 1,
        };
        assert_ne!(Keys::of("CGKK223862906", &uid), one);
    }

    proptest! {
        #[test]
        fn what_a_journal_says_is_what_was_written_whatever_follows(
            steps in proptest::collection::vec((0u8..4, any::<[u8; 16]>(), any::<[u8; 16]>()), 0..20),
            rest in proptest::collection::vec(any::<u8>(), 0..ENTRY),
        ) {
            let steps: Vec<Step> = steps
                .into_iter()
                .map(|(kind, a, b)| match kind {
                    0 => Step::Seen(Key(a)),
                    1 => Step::Live(Keys { punch: Key(a), exact: Key(b) }),
                    2 => Step::Confirmed(Keys { punch: Key(a), exact: Key(b) }),
                    _ => Step::Life(life(u64::from_le_bytes(*a.first_chunk().unwrap()), &b)),
                })
                .collect();
            let entries = steps.iter().flat_map(|step| step.entry());
            let bytes: Vec<u8> = MAGIC.iter().copied().chain(entries).chain(rest).collect();
            prop_assert_eq!(journal(&bytes).unwrap().collect::<Vec<_>>(), steps);
        }

        #[test]
        fn foreign_bytes_are_no_entry_and_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            marked: bool,
        ) {
            let bytes = if marked { [&MAGIC[..], &bytes].concat() } else { bytes };
            prop_assert_eq!(journal(&bytes).map_or(0, Iterator::count), 0);
        }
    }

    #[tokio::test]
    async fn a_restart_forgets_nothing_and_a_torn_end_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, live) = (keys("1", 0), keys("2", 0), keys("3", 0));
        let mut cursor = Cursor::open(dir.path(), "absensi").unwrap();
        cursor
            .advance(&[Step::Seen(a.exact), Step::Seen(a.exact)])
            .await;
        cursor.advance(&[Step::Live(live)]).await;
        cursor.advance(&[Step::Seen(b.exact)]).await;
        drop(cursor);
        let path = dir.path().join("absensi.seen");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut cursor = Cursor::open(dir.path(), "absensi").unwrap();
            let entries = cut.saturating_sub(MAGIC.len()) / ENTRY;
            assert_eq!(cursor.seen(a.exact), u32::try_from(entries.min(2)).unwrap());
            assert_eq!(cursor.live(live.punch).is_some(), entries >= 3);
            assert_eq!(cursor.seen(b.exact), 0, "cut at {cut}");
            // and it goes on from there
            cursor.advance(&[Step::Seen(b.exact)]).await;
            let again = Cursor::open(dir.path(), "absensi").unwrap();
            assert_eq!(again.seen(b.exact), 1, "cut at {cut}");
        }
    }

    fn life(epoch: u64, damaged: &[u8]) -> Life {
        Life {
            epoch: Epoch(epoch),
            damage: Checksum::of(damaged),
        }
    }

    #[tokio::test]
    async fn another_life_of_the_buffer_forgets_all_and_the_same_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (logged, live) = (keys("1", 0), keys("2", 0));
        let steps = [Step::Seen(logged.exact), Step::Live(live)];
        let open = || Cursor::open(dir.path(), "t").unwrap();
        // as journals were written before: readable, and of no known life
        open().advance(&steps).await;
        let old = open();
        assert_eq!((old.seen(logged.exact), old.life), (1, None));
        assert!(old.live(live.punch).is_some());
        drop(old);
        for (new, told) in [
            (true, life(1, b"")),
            (false, life(1, b"")),
            (true, life(1, b"gap")),
            (true, life(2, b"gap")),
            (false, life(2, b"gap")),
        ] {
            let mut cursor = open();
            cursor.belong(told).await;
            let kept = (cursor.seen(logged.exact), cursor.live(live.punch).is_some());
            assert_eq!(kept, if new { (0, false) } else { (1, true) }, "{told:?}");
            // durable before anything else is: a crash here must not bring the old entries back
            assert_eq!(open().seen(logged.exact), kept.0, "{told:?}");
            if new {
                cursor.advance(&steps).await;
            }
        }
        assert_eq!(open().life, Some(life(2, b"gap")));
    }

    #[tokio::test]
    async fn a_flipped_bit_never_makes_an_unseen_punch_seen() {
        let dir = tempfile::tempdir().unwrap();
        let all: Vec<Keys> = (0..5).map(|n| keys(&n.to_string(), 0)).collect();
        let steps: Vec<Step> = all.iter().map(|k| Step::Seen(k.exact)).collect();
        Cursor::open(dir.path(), "t").unwrap().advance(&steps).await;
        let path = dir.path().join("t.seen");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let cursor = Cursor::open(dir.path(), "t").unwrap();
            let damaged = at.checked_sub(MAGIC.len()).map_or(0, |n| n / ENTRY);
            for (n, keys) in all.iter().enumerate() {
                assert_eq!(cursor.seen(keys.exact), u32::from(n < damaged), "byte {at}");
            }
        }
    }

    #[tokio::test]
    async fn a_live_punch_is_settled_by_the_log_and_a_cleared_log_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(dir.path(), "t").unwrap();
        cursor.belong(life(1, b"")).await;
        let live = keys("9", 255);
        cursor.advance(&[Step::Live(live)]).await;
        let logged = keys("9", 0);
        cursor.advance(&[Step::Confirmed(logged)]).await;
        assert_eq!(
            (cursor.live(live.punch), cursor.seen(logged.exact)),
            (None, 1)
        );

        let old: Vec<Step> = (0..2_000)
            .map(|n| Step::Seen(keys(&n.to_string(), 3).exact))
            .collect();
        cursor.advance(&old).await;
        let waiting = keys("10", 0);
        cursor.advance(&[Step::Live(waiting)]).await;
        cursor.retain(&HashMap::from([(logged.exact, 1)])).await;
        drop(cursor);
        let size = std::fs::metadata(dir.path().join("t.seen")).unwrap().len();
        assert_eq!(usize::try_from(size), Ok(MAGIC.len() + 3 * ENTRY));
        let mut cursor = Cursor::open(dir.path(), "t").unwrap();
        assert_eq!(cursor.life, Some(life(1, b"")));
        assert_eq!(cursor.seen(logged.exact), 1);
        assert!(cursor.live(waiting.punch).is_some());
        cursor.advance(&[Step::Seen(logged.exact)]).await;
        assert_eq!(Cursor::open(dir.path(), "t").unwrap().seen(logged.exact), 2);
    }
}
