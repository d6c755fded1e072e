//! Pictures and video as files below one folder.
//!
//! The path of a file follows from the record alone (who, stream, day of capture, epoch, number,
//! checksum), so storing a record again writes the same file again, and two different bodies under
//! one identity never share a file. What [`Media::put`] returned `Ok` for survives a power cut:
//! file and folders are fsynced before.

mod held;
pub mod split;
pub(crate) mod sweep;

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Location;
use object_store::{MultipartUpload as _, ObjectStoreExt, PutPayload};
use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::stream::Stream;
use tokio::runtime::Handle;

use crate::crash::{self, Point};
pub use held::Held;
use held::Holds;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// A JPEG picture.
    Jpeg,
    /// A fragmented MP4 file.
    Mp4,
    /// A whole record body that this program cannot take apart.
    Body,
}

impl MediaKind {
    const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Mp4 => "mp4",
            Self::Body => "bin",
        }
    }
}

/// Why media cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The folder cannot be used.
    #[error("{}: the media folder cannot be used: {why}", root.display())]
    Root {
        /// The folder.
        root: PathBuf,
        /// What the system said.
        why: String,
    },
    /// There is no such file.
    #[error("media `{0}` is missing")]
    Missing(String),
    /// No room.
    #[error("no room for media: {0}")]
    Full(String),
    /// The disk refused or failed.
    #[error("the media disk failed: {0}")]
    Io(String),
}

/// The folder of pictures and video; cheap to clone.
#[derive(Debug, Clone)]
pub struct Media {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    files: LocalFileSystem,
    /// Folders that this process knows to be durable. `object_store` fsyncs the folders that it
    /// makes, but not one that another upload has made a moment earlier and not yet fsynced.
    durable: Mutex<HashSet<PathBuf>>,
    holds: Holds,
}

/// Beyond this many known folders the set is forgotten: a few fsyncs more, no growth for ever.
const MAX_KNOWN: usize = 10_000;

impl Media {
    /// Opens the folder, creates it where there is none.
    ///
    /// # Errors
    /// [`MediaError::Root`] if it cannot be used.
    pub fn open(root: &Path) -> Result<Self, MediaError> {
        let unusable = |why: String| MediaError::Root {
            root: root.to_path_buf(),
            why,
        };
        std::fs::create_dir_all(root).map_err(|e| unusable(e.to_string()))?;
        let root = root.canonicalize().map_err(|e| unusable(e.to_string()))?;
        // The folder itself is made once; what is durable in it is nothing without its name.
        if let Some(parent) = root.parent() {
            let sync = File::open(parent).and_then(|folder| folder.sync_all());
            sync.map_err(|e| unusable(e.to_string()))?;
        }
        let files = LocalFileSystem::new_with_prefix(&root)
            .map_err(|e| unusable(e.to_string()))?
            .with_fsync(true);
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                files,
                durable: Mutex::new(HashSet::new()),
                holds: Holds::default(),
            }),
        })
    }

    /// Where the file of a record belongs:
    /// `agents/<agent>/<stream>/<yyyy-mm-dd>/<epoch>-<seq>-<checksum>.<ext>`, the day in UTC, or
    /// `undated` for a body whose time cannot be read.
    #[must_use]
    pub fn path(
        agent: &AgentId,
        stream: Stream,
        epoch: Epoch,
        seq: Seq,
        sum: Checksum,
        captured_ms: Option<WallMs>,
        kind: MediaKind,
    ) -> String {
        let day = captured_ms
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(
                || "undated".to_owned(),
                |t| t.to_zoned(jiff::tz::TimeZone::UTC).date().to_string(),
            );
        format!(
            "agents/{agent}/{stream}/{day}/{epoch}-{seq}-{sum}.{}",
            kind.extension()
        )
    }

    /// Whose file this is: agent, stream, epoch and number, as [`path`](Self::path) has written them. None
    /// for a file that is not a record's.
    #[must_use]
    pub fn whose(path: &str) -> Option<(AgentId, Stream, Epoch, Seq)> {
        let mut parts = path.strip_prefix("agents/")?.split('/');
        let agent = AgentId::new(parts.next()?).ok()?;
        let stream = parts.next()?;
        let stream = Stream::ALL.into_iter().find(|s| s.name() == stream)?;
        let _day = parts.next()?;
        let mut name = parts.next()?.split('-');
        if parts.next().is_some() {
            return None;
        }
        let epoch = u64::from_str_radix(name.next()?, 16).ok()?;
        let seq = name.next()?.parse().ok()?;
        Some((agent, stream, Epoch(epoch), seq))
    }

    /// Writes a file; it is durable when this returns `Ok`. An existing file is replaced at once. Nothing
    /// sweeps it away as long as what is returned lives: until its row is committed.
    ///
    /// # Errors
    /// [`MediaError::Full`] or [`MediaError::Io`].
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<Held, MediaError> {
        let location = location(path)?;
        let media = self.clone();
        let path = path.to_owned();
        let runtime = Handle::current();
        // All of it on a thread that may wait: object_store opens the file where it is asked to, and a
        // disk that hangs must not hold up who takes in punches.
        tokio::task::spawn_blocking(move || {
            let held = media.inner.holds.take(&path);
            if let Some(folder) = Path::new(&path).parent() {
                media.durable_folder(folder)?;
            }
            if let Err(error) = runtime.block_on(media.write(&location, bytes)) {
                // It would keep room that others need. If somebody else is writing this file, one of the
                // attempts is theirs: then the sweep removes what is left.
                let file = media.inner.root.join(location.as_ref());
                let alone = || sweep::remove_attempts(&file);
                let _ = media.inner.holds.if_alone(&held, alone);
                return Err(failed(&path, &error));
            }
            Ok(held)
        })
        .await
        .map_err(|e| MediaError::Io(e.to_string()))?
    }

    /// Bytes into a file of another name; then fsync, rename, fsync of the folder.
    async fn write(&self, location: &Location, bytes: Bytes) -> Result<(), object_store::Error> {
        let mut upload = self.inner.files.put_multipart(location).await?;
        if let Err(error) = upload.put_part(PutPayload::from_bytes(bytes)).await {
            // Dropped, it would remove the file some time later, when the name may be another attempt's.
            let _ = upload.abort().await;
            return Err(error);
        }
        crash::here(Point::MediaWritten);
        upload.complete().await.map(drop)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`MediaError::Missing`] or [`MediaError::Io`].
    pub async fn get(&self, path: &str) -> Result<Bytes, MediaError> {
        let found = self.inner.files.get(&location(path)?).await;
        match found {
            Ok(found) => found.bytes().await.map_err(|e| failed(path, &e)),
            Err(e) => Err(failed(path, &e)),
        }
    }

    /// Removes a file that nothing refers to any longer; one that is not there is removed already.
    ///
    /// # Errors
    /// [`MediaError::Io`].
    pub async fn remove(&self, path: &str) -> Result<(), MediaError> {
        match self.inner.files.delete(&location(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(path, &e)),
        }
    }

    /// Whether the disk takes a file at all: writes one and removes it.
    ///
    /// # Errors
    /// [`MediaError`], as [`put`](Self::put) would give it.
    pub async fn probe(&self) -> Result<(), MediaError> {
        const NAME: &str = "probe";
        let _held = self.put(NAME, Bytes::from_static(b"probe")).await?;
        self.remove(NAME).await
    }

    /// Whether the file is there and not empty. Asks the disk: call it from a blocking thread.
    #[must_use]
    pub fn is_there(&self, path: &str) -> bool {
        location(path).is_ok_and(|location| {
            std::fs::metadata(self.inner.root.join(location.as_ref()))
                .is_ok_and(|meta| meta.is_file() && meta.len() > 0)
        })
    }

    /// Room left for files, bytes; none if the disk does not say. Asks the disk.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.inner.root).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }

    /// Makes a folder below the root, and fsyncs it and each one above it, once per process.
    fn durable_folder(&self, below_root: &Path) -> Result<(), MediaError> {
        // Held during the fsyncs on purpose: who finds a folder in the set may rely on it.
        let mut durable = self
            .inner
            .durable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if durable.contains(below_root) {
            return Ok(());
        }
        if durable.len() >= MAX_KNOWN {
            durable.clear();
        }
        let full = self.inner.root.join(below_root);
        let sync = || -> std::io::Result<()> {
            std::fs::create_dir_all(&full)?;
            for folder in full.ancestors() {
                File::open(folder)?.sync_all()?;
                if folder == self.inner.root {
                    break;
                }
            }
            Ok(())
        };
        sync().map_err(|e| MediaError::from(&e))?;
        durable.insert(below_root.to_path_buf());
        Ok(())
    }
}

fn location(path: &str) -> Result<Location, MediaError> {
    Location::parse(path).map_err(|_| MediaError::Missing(path.to_owned()))
}

impl From<&std::io::Error> for MediaError {
    fn from(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::Full(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

fn failed(path: &str, error: &object_store::Error) -> MediaError {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return MediaError::Missing(path.to_owned());
    }
    // object_store wraps the system's error; how deep depends on the step that failed.
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if let Some(system) = e.downcast_ref::<std::io::Error>() {
            return system.into();
        }
        source = e.source();
    }
    MediaError::Io(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(sum: &[u8], captured_ms: Option<WallMs>) -> String {
        Media::path(
            &AgentId::new("rsud").unwrap(),
            Stream::Snapshot,
            Epoch(255),
            7,
            Checksum::of(sum),
            captured_ms,
            MediaKind::Jpeg,
        )
    }

    #[test]
    fn a_path_says_whose_when_and_which_and_differs_for_a_different_body() {
        let one = path(b"one", Some(1_764_547_200_000));
        assert!(
            one.starts_with("agents/rsud/snapshot/2025-12-01/00000000000000ff-7-"),
            "{one}"
        );
        assert_ne!(one, path(b"two", Some(1_764_547_200_000)));
        assert!(path(b"one", None).contains("/undated/"));
        assert!(path(b"one", Some(i64::MAX)).contains("/undated/"));
        let whose = Media::whose(&one).unwrap();
        assert_eq!(whose.0.as_str(), "rsud");
        assert_eq!(
            (whose.1, whose.2, whose.3),
            (Stream::Snapshot, Epoch(255), 7)
        );
        for foreign in [
            "probe",
            "agents/rsud/notes.txt",
            "agents/rsud/snapshot/x/y/ff-7-a.jpg",
        ] {
            assert!(Media::whose(foreign).is_none(), "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_file_comes_back_and_a_missing_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(&dir.path().join("media")).unwrap();
        let path = path(b"x", Some(0));
        assert!(!media.is_there(&path));
        assert!(matches!(
            media.get(&path).await,
            Err(MediaError::Missing(_))
        ));
        media.put(&path, Bytes::from_static(b"a")).await.unwrap();
        media.put(&path, Bytes::from_static(b"bc")).await.unwrap();
        assert_eq!(media.get(&path).await.unwrap(), "bc");
        media.remove("agents/rsud/none.jpg").await.unwrap();
        assert!(media.is_there(&path));
        assert!(media.free_bytes().is_some_and(|n| n > 0));
    }

    #[tokio::test]
    async fn a_path_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), b"s").unwrap();
        let media = Media::open(&dir.path().join("media")).unwrap();
        for evil in ["../secret", "/../secret", "agents/../../secret"] {
            assert!(media.get(evil).await.is_err(), "{evil}");
            assert!(!media.is_there(evil), "{evil}");
        }
    }

    #[tokio::test]
    async fn what_a_failed_attempt_leaves_is_removed_unless_somebody_else_is_writing_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let media = Media::open(&dir.path().join("media")).unwrap();
        let path = path(b"x", Some(0));
        let file = media.inner.root.join(&path);
        // what stands in the way of the last step, the rename
        std::fs::create_dir_all(file.join("full")).unwrap();
        let left = || std::fs::read_dir(file.parent().unwrap()).unwrap().count() - 1;
        let other = media.inner.holds.take(&path);
        let theirs = PathBuf::from(format!("{}#1", file.display()));
        std::fs::write(&theirs, b"half").unwrap();
        media
            .put(&path, Bytes::from_static(b"a"))
            .await
            .unwrap_err();
        assert!(theirs.exists());
        drop(other);
        media
            .put(&path, Bytes::from_static(b"a"))
            .await
            .unwrap_err();
        assert_eq!(left(), 0);
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        assert!(matches!(MediaError::from(&full), MediaError::Full(_)));
        let broken = std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        assert!(matches!(MediaError::from(&broken), MediaError::Io(_)));
    }
}
