//! Pictures and video.

use bytes::Bytes;

/// Why media cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("media cannot be read: {0}")]
pub struct MediaError(String);

/// The media store.
#[derive(Debug, Clone)]
pub struct Media {
    root: std::path::PathBuf,
}

impl Media {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`MediaError`] if it cannot be made.
    pub fn open(root: &std::path::Path) -> Result<Self, MediaError> {
        std::fs::create_dir_all(root).map_err(|e| MediaError(e.to_string()))?;
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`MediaError`] if there is no such file.
    pub async fn read(&self, path: &str) -> Result<Bytes, MediaError> {
        let bytes = tokio::fs::read(self.root.join(path)).await;
        bytes
            .map(Bytes::from)
            .map_err(|e| MediaError(e.to_string()))
    }
}
