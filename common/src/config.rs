//! Configuration files: TOML, and errors that name file, line and key and say what would be right.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// A configuration file that cannot be used. Its text is one sentence for the person who wrote the
/// file; a program that meets one exits with status 2 and has started nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read at all.
    #[error("{}: cannot be read: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A line of it is wrong.
    #[error("{}:{line}: {}{what}", file.display(), key.as_ref().map(|k| format!("`{k}`: ")).unwrap_or_default())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key, where one can be named.
        key: Option<String>,
        /// What is wrong and what would be right.
        what: String,
    },
}

/// The exit status of a program whose configuration is wrong.
pub const EXIT_CONFIG: u8 = 2;

/// A parsed file together with its text, so that later checks can still name a line.
#[derive(Debug)]
pub struct Document<T> {
    /// Where it came from.
    pub file: PathBuf,
    /// Its text.
    pub text: String,
    /// Its content.
    pub value: T,
}

impl<T: DeserializeOwned> Document<T> {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and, for a wrong line, its number and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError::Unreadable {
            file: file.to_path_buf(),
            why: e.to_string(),
        })?;
        Self::parse(file, text)
    }

    /// Parses a text that came from `file`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(value) => Ok(Self {
                file: file.to_path_buf(),
                text,
                value,
            }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                Err(ConfigError::Wrong {
                    file: file.to_path_buf(),
                    line: line_of(&text, span.start),
                    key: key_at(&text, span.start),
                    what: one_line(error.message()),
                })
            }
        }
    }
}

impl<T> Document<T> {
    /// An error at a place of the text, as [`toml::Spanned::span`] gives it.
    #[must_use]
    pub fn wrong(&self, at: usize, key: &str, what: impl Into<String>) -> ConfigError {
        self.place(at, key).wrong(what)
    }

    /// A place of the text, for what is found wrong with it when the text is no longer at hand.
    #[must_use]
    pub fn place(&self, at: usize, key: &str) -> ConfigPlace {
        ConfigPlace {
            file: self.file.clone(),
            line: line_of(&self.text, at),
            key: key.to_owned(),
        }
    }
}

/// Where a value stands in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPlace {
    file: PathBuf,
    line: usize,
    key: String,
}

impl ConfigPlace {
    /// An error at this place.
    #[must_use]
    pub fn wrong(&self, what: impl Into<String>) -> ConfigError {
        ConfigError::Wrong {
            file: self.file.clone(),
            line: self.line,
            key: Some(self.key.clone()),
            what: what.into(),
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    let upto = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    upto.iter().filter(|b| **b == b'\n').count() + 1
}

fn key_at(text: &str, at: usize) -> Option<String> {
    let line = text.lines().nth(line_of(text, at) - 1)?;
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.is_empty() && !key.starts_with('#')).then(|| key.to_owned())
}

fn one_line(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        port: u16,
    }

    #[test]
    fn a_wrong_value_is_named_by_file_line_and_key() {
        let error =
            Document::<Sample>::parse(Path::new("agent.toml"), "# a\nport = \"x\"\n".into())
                .unwrap_err()
                .to_string();
        assert!(error.starts_with("agent.toml:2: `port`: "), "{error}");
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = Document::<Sample>::parse(Path::new("a"), "port = 1\nprot = 2\n".into())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("a:2: `prot`: "), "{error}");
    }

    #[test]
    fn a_missing_file_is_one_sentence() {
        let error = Document::<Sample>::load(Path::new("/nonexistent/agent.toml")).unwrap_err();
        assert!(!error.to_string().contains('\n'));
    }
}
