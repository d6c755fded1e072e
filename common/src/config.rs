//! Configuration files: TOML, and errors that name file, line and key and say what would be right.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

mod explain;

pub use explain::uncommented;

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

/// The content of a kind of configuration file.
pub trait Content: DeserializeOwned {
    /// A right file of this kind, as it is shipped with the program: errors quote from it what would
    /// be right. Every key is in it; one that may be left out may be commented out, see
    /// [`uncommented`].
    const EXAMPLE: &'static str;
}

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

impl<T: Content> Document<T> {
    /// Reads and parses a file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and, for a wrong line, its number and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let bytes = std::fs::read(file).map_err(|e| ConfigError::Unreadable {
            file: file.to_path_buf(),
            why: e.to_string(),
        })?;
        let text = String::from_utf8(bytes).map_err(|e| ConfigError::Wrong {
            file: file.to_path_buf(),
            line: line_of(e.as_bytes(), e.utf8_error().valid_up_to()),
            key: None,
            what: "is not UTF-8; save the file as UTF-8 text".into(),
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
                let found = explain::explain(&text, &error, T::EXAMPLE);
                Err(ConfigError::Wrong {
                    file: file.to_path_buf(),
                    line: line_of(text.as_bytes(), found.at),
                    key: found.key,
                    what: found.what,
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
            line: line_of(self.text.as_bytes(), at),
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

fn line_of(text: &[u8], at: usize) -> usize {
    let upto = text.get(..at).unwrap_or(text);
    upto.iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sample {
        port: u16,
        #[serde(default)]
        quiet: bool,
        door: Option<Door>,
        #[serde(default)]
        site: Vec<Site>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Door {
        key: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Site {
        id: String,
        lamps: Vec<Lamp>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Lamp {
        id: String,
    }

    impl Content for Sample {
        const EXAMPLE: &'static str = "# A sample.\n\
            port = 80 # of the door\n\
            # quiet = false\n\
            # [door]\n\
            # key = \"k.pem\"\n\
            [[site]]\n\
            id = \"rsud\"\n\
            lamps = [{ id = \"a\" }]\n";
    }

    #[test]
    fn each_mistake_is_told_with_line_and_key_and_what_would_be_right() {
        for (text, expected) in [
            (
                "# a\nport = \"x\"\n",
                "a:2: `port`: must be a whole number, such as `port = 80`",
            ),
            (
                "\nport = -1\n",
                "a:2: `port`: is out of range; write it like `port = 80`",
            ),
            (
                "port = 99999999999999999999\n",
                "a:1: `port`: is out of range; write it like `port = 80`",
            ),
            (
                "port = 1\nprot = 2\n",
                "a:2: `prot`: is no key of this table; expected one of `port`, `quiet`, `door`, `site`",
            ),
            (
                "quiet = true\n[door]\nkey = \"a\"\n",
                "a:1: `port`: is missing; add it above the first [table], such as `port = 80`",
            ),
            (
                "port = 1\n[door]\n",
                "a:2: `key`: is missing; add it under `[door]`, such as `key = \"k.pem\"`",
            ),
            (
                "port = 1\ndoor = {}\n",
                "a:2: `key`: is missing; add it under `[door]`, such as `key = \"k.pem\"`",
            ),
            (
                "port = 1\n[[site]]\nid = \"a\"\nlamps = []\n[[site]]\nlamps = []\n",
                "a:5: `id`: is missing; add it under `[[site]]`, such as `id = \"rsud\"`",
            ),
            (
                "port = 1\n[[site]]\nid = \"a\"\nlamps = [\n { id = \"a\" },\n {}]\n",
                "a:6: `id`: is missing; add it as in `lamps = [{ id = \"a\" }]`, such as `id = \"a\"`",
            ),
            (
                "[door]\nkey = \"a\"\nport = 1\n",
                "a:3: `port`: is no key of this table; it belongs above the first [table]",
            ),
            (
                "port = 1\nkey = \"a\"\n",
                "a:2: `key`: is no key of this table; it belongs under `[door]`",
            ),
            (
                "port = 1\ndoor = 3\n",
                "a:2: `door`: must be a table: a line `[door]` and its keys below it",
            ),
            (
                "port = 1\n[[door]]\n",
                "a:2: `door`: must be a table: a line `[door]` and its keys below it",
            ),
            (
                "port = 1\n[site]\nid = \"a\"\n",
                "a:2: `site`: must be a table: a line `[[site]]` and its keys below it",
            ),
            (
                "port = 1\n[[site]]\nid = \"a\"\nlamps = [{ id = 1 }]\n",
                "a:4: `id`: must be text in quotes, such as `id = \"a\"`",
            ),
            (
                "port = 1\nquiet = 1\n",
                "a:2: `quiet`: must be true or false, such as `quiet = false`",
            ),
            (
                "port = 1\nport = 2\n",
                "a:2: `port`: is there twice; keep one of the two",
            ),
            (
                "port = 1\n[door]\nkey = \"a\"\n[door]\n",
                "a:4: `door`: is there twice",
            ),
            ("port = 1\n[door]\nkey = k.pem\n", "a:3: `key`: "),
            (
                "port\n",
                "a:1: `port`: key with no value, expected `=`; write it like `port = 80`",
            ),
            (
                "port = 1\n[door\n",
                "a:2: unclosed table, expected `]`; a table begins with a line `[name]`",
            ),
        ] {
            let error = Document::<Sample>::parse(Path::new("a"), text.into()).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_whole_table_that_is_missing_is_shown_with_a_line_of_it() {
        #[derive(Debug, Deserialize)]
        struct Strict {
            #[allow(dead_code)]
            door: Door,
        }
        impl Content for Strict {
            const EXAMPLE: &'static str = Sample::EXAMPLE;
        }
        let error = Document::<Strict>::parse(Path::new("a"), "port = 1\n".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a:1: `door`: is missing; add a line `[door]` and its keys below it, such as `key = \"k.pem\"`"
        );
    }

    #[test]
    fn a_file_in_another_encoding_is_named_by_its_line() {
        let dir = std::env::temp_dir().join(format!("scc-config-{}", std::process::id()));
        std::fs::write(&dir, b"port = 1\n# caf\xe9\n").unwrap();
        let error = Document::<Sample>::load(&dir).unwrap_err().to_string();
        std::fs::remove_file(&dir).unwrap();
        assert!(
            error.ends_with(":2: is not UTF-8; save the file as UTF-8 text"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_is_one_sentence() {
        let error = Document::<Sample>::load(Path::new("/nonexistent/agent.toml")).unwrap_err();
        assert!(!error.to_string().contains('\n'));
    }
}
