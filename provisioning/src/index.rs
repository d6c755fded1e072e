//! `index.toml`: every certificate that was ever issued, and what became of it.
//!
//! The index is the truth of the authority: the revocation list is signed from it, `site list`
//! prints it. Each change writes the whole file anew ([`crate::files::write`]), so a crash leaves
//! the index before or after the change and never half a line. At the county's size, a few hundred
//! certificates a year, that is some 100 KB.
//!
//! Invariants: serial numbers are unique; entries are never removed; `revoked` is set once.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use scc_common::clock::WallMs;
use scc_common::config::{Content, Document};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::{self, Access};
use crate::profile::Serial;

/// Whose certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A site's.
    Agent,
    /// A hub's.
    Hub,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose.
    pub kind: Kind,
    /// The common name: a site's id, or a hub's host name.
    pub id: String,
    /// What else a hub's certificate calls it: further host names, and addresses. None: not noted, as
    /// for an agent, which has no other name, and for a hub of before this was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Vec<String>>,
    /// Its serial number.
    #[serde(with = "hex")]
    pub serial: Serial,
    /// When it was made.
    pub issued: Timestamp,
    /// Until when it is valid.
    pub expires: Timestamp,
    /// When it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    /// Number of the newest revocation list.
    crl_number: u64,
    /// Until when that list claims to be the newest.
    crl_until: Timestamp,
    #[serde(default)]
    certificate: Vec<Entry>,
}

impl Content for Shape {
    const EXAMPLE: &'static str = r#"
crl_number = 1
crl_until = "2027-01-01T00:00:00Z"
[[certificate]]
kind = "agent"
id = "rsud"
# also = ["10.10.0.5"]
serial = "40a1b2c3d4e5f60718293a4b5c6d7e8f"
issued = "2026-01-01T00:00:00Z"
expires = "2027-01-01T00:00:00Z"
# revoked = "2026-06-01T00:00:00Z"
"#;
}

/// The index in memory; [`save`](Self::save) makes it last.
#[derive(Debug)]
pub struct Index {
    file: PathBuf,
    shape: Shape,
}

const HEADER: &str =
    "# Every certificate of this authority. Written by scc-provision; do not edit.\n";

impl Index {
    /// An index without entries and without a revocation list.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self {
            file,
            shape: Shape {
                crl_number: 0,
                crl_until: Timestamp::UNIX_EPOCH,
                certificate: Vec::new(),
            },
        }
    }

    /// Reads the index.
    ///
    /// # Errors
    /// [`Error::Config`] names file, line and key of what cannot be read.
    pub fn load(file: &Path) -> Result<Self, Error> {
        Ok(Self {
            file: file.to_path_buf(),
            shape: Document::load(file)?.value,
        })
    }

    /// Writes the index so that a power cut does not undo it.
    ///
    /// # Errors
    /// [`Error::File`]; the file then holds what it held before.
    pub fn save(&self) -> Result<(), Error> {
        let text = format!("{HEADER}{}", toml::to_string(&self.shape)?);
        files::write(&self.file, text.as_bytes(), Access::Private)
    }

    /// All certificates, in the order of their making.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.shape.certificate
    }

    /// Enters a new certificate.
    pub fn add(&mut self, entry: Entry) {
        self.shape.certificate.push(entry);
    }

    /// Withdraws one certificate; does nothing if that has been done before.
    pub fn revoke(&mut self, serial: Serial, now_ms: WallMs) {
        for entry in &mut self.shape.certificate {
            if entry.serial == serial && entry.revoked.is_none() {
                entry.revoked = Some(timestamp(now_ms));
            }
        }
    }

    /// The agents' certificates that were withdrawn, and when.
    #[must_use]
    pub fn revoked_agents(&self) -> Vec<(Serial, WallMs)> {
        let agents = self.entries().iter().filter(|e| e.kind == Kind::Agent);
        agents
            .filter_map(|e| Some((e.serial, e.revoked?.as_millisecond())))
            .collect()
    }

    /// Takes the number for the next revocation list, which will claim to be the newest until then.
    pub fn next_crl(&mut self, until_ms: WallMs) -> u64 {
        self.shape.crl_number += 1;
        self.shape.crl_until = timestamp(until_ms);
        self.shape.crl_number
    }

    /// Until when the newest revocation list claims to be so.
    #[must_use]
    pub fn crl_until_ms(&self) -> WallMs {
        self.shape.crl_until.as_millisecond()
    }
}

/// A time in whole seconds, as certificates hold it.
#[must_use]
pub fn timestamp(ms: WallMs) -> Timestamp {
    Timestamp::from_second(ms.div_euclid(1_000)).unwrap_or(Timestamp::UNIX_EPOCH)
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::profile::Serial;

    pub(super) fn serialize<S: Serializer>(serial: &Serial, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serial.hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Serial, D::Error> {
        let text = String::deserialize(from)?;
        Serial::parse(&text)
            .ok_or_else(|| D::Error::custom("a serial number is 32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_read_back_and_a_certificate_is_withdrawn_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index.toml");
        let mut index = Index::new(file.clone());
        let serial = Serial::random().unwrap();
        index.add(Entry {
            kind: Kind::Agent,
            id: "rsud".into(),
            also: Some(vec!["::1".into(), "localhost".into()]),
            serial,
            issued: timestamp(1_000),
            expires: timestamp(9_000),
            revoked: None,
        });
        index.revoke(serial, 5_000);
        index.revoke(serial, 7_000);
        assert_eq!(index.next_crl(8_000), 1);
        index.save().unwrap();
        let read = Index::load(&file).unwrap();
        assert_eq!(read.entries(), index.entries());
        assert_eq!(read.revoked_agents(), [(serial, 5_000)]);
        assert_eq!(read.crl_until_ms(), 8_000);
    }

    #[test]
    fn a_damaged_index_is_named_with_its_line_and_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index.toml");
        let text = "crl_number = 1\ncrl_until = \"2027-01-01T00:00:00Z\"\n[[certificate]]\nserial = \"4a\"\n";
        std::fs::write(&file, text).unwrap();
        let error = Index::load(&file).unwrap_err().to_string();
        assert!(error.contains("index.toml:4: `serial`"), "{error}");
        std::fs::write(&file, "").unwrap();
        assert!(Index::load(&file).is_err());
    }
}
