//! What of the demo's devices has arrived at the hub, read from its database.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags, params};
use scc_common::record::DeviceKind;
use scc_common::register::{Register, SiteKind};
use scc_common::stream::Stream;

/// What has arrived of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The site.
    pub site: String,
    /// The device.
    pub id: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether its site lets video leave.
    pub video: bool,
    /// Stills.
    pub pictures: i64,
    /// Segments.
    pub segments: i64,
    /// Different punches.
    pub punches: i64,
    /// Records of the newest complete read by the terminal's own counter.
    pub counter: Option<i64>,
}

impl Device {
    /// What is missing, if anything is.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        match self.kind {
            DeviceKind::Camera if self.pictures == 0 => Some("no picture"),
            DeviceKind::Camera if self.video && self.segments == 0 => Some("no segment"),
            DeviceKind::Terminal if self.counter.is_none() => Some("no complete read"),
            DeviceKind::Terminal if self.counter > Some(self.punches) => {
                Some("fewer punches than the terminal counts")
            }
            _ => None,
        }
    }
}

/// The day's receipt of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The site.
    pub site: String,
    /// Records in the ledger.
    pub stored: i64,
    /// Records told as lost.
    pub gaps: i64,
    /// Records that came more than once and were stored once.
    pub duplicates: i64,
    /// Records that could not be read.
    pub unreadable: i64,
}

/// Everything that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Every declared device of these sites.
    pub devices: Vec<Device>,
    /// Each of these sites.
    pub receipts: Vec<Receipt>,
}

impl Arrived {
    /// Looks into the hub's database for what came from `sites`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn look(database: &Path, register: &Register, sites: &[String]) -> anyhow::Result<Self> {
        let db = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| database.display().to_string())?;
        db.busy_timeout(Duration::from_secs(5))?;
        let mut found = Self {
            devices: Vec::new(),
            receipts: Vec::new(),
        };
        for site in register
            .sites
            .iter()
            .filter(|s| sites.iter().any(|id| id == s.id.as_str()))
        {
            let id = site.id.as_str();
            for device in &site.devices {
                found.devices.push(Device {
                    site: id.to_owned(),
                    id: device.id.to_string(),
                    kind: device.kind,
                    video: site.kind != SiteKind::Clinic,
                    pictures: pictures(&db, id, device.id.as_str(), Stream::Snapshot)?,
                    segments: pictures(&db, id, device.id.as_str(), Stream::Segment)?,
                    punches: db.query_row(
                        "SELECT count(DISTINCT user || ' ' || local_s || ' ' || ordinal) FROM punch WHERE agent = ?1 AND device = ?2",
                        params![id, device.id.as_str()],
                        |row| row.get(0),
                    )?,
                    counter: db.query_row(
                        "SELECT max(counter_after) FROM terminal_read WHERE agent = ?1 AND device = ?2 AND complete = 1",
                        params![id, device.id.as_str()],
                        |row| row.get(0),
                    )?,
                });
            }
            let count = |sql: &str| db.query_row(sql, params![id], |row| row.get::<_, i64>(0));
            found.receipts.push(Receipt {
                site: id.to_owned(),
                stored: count("SELECT count(*) FROM record WHERE agent = ?1")?,
                gaps: count("SELECT coalesce(sum(last - first + 1), 0) FROM gap WHERE agent = ?1")?,
                duplicates: count(
                    "SELECT coalesce(sum(count), 0) FROM duplicate WHERE agent = ?1",
                )?,
                unreadable: count("SELECT count(*) FROM record WHERE agent = ?1 AND readable = 0")?,
            });
        }
        Ok(found)
    }

    /// Devices that have not delivered, each with what is missing.
    pub fn missing(&self) -> impl Iterator<Item = (&Device, &'static str)> {
        self.devices.iter().filter_map(|d| Some((d, d.missing()?)))
    }
}

fn pictures(db: &Connection, site: &str, device: &str, stream: Stream) -> rusqlite::Result<i64> {
    db.query_row(
        "SELECT count(*) FROM picture WHERE agent = ?1 AND device = ?2 AND stream = ?3",
        params![site, device, stream.code()],
        |row| row.get(0),
    )
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<20} {:<16} {:>8} {:>8}  terminal / hub",
            "site", "device", "pictures", "segments"
        )?;
        for d in &self.devices {
            write!(f, "{:<20} {:<16} ", d.site, d.id)?;
            match (d.kind, d.counter) {
                (DeviceKind::Camera, _) if d.video => {
                    writeln!(f, "{:>8} {:>8}", d.pictures, d.segments)?
                }
                (DeviceKind::Camera, _) => writeln!(f, "{:>8} {:>8}", d.pictures, "-")?,
                (DeviceKind::Terminal, Some(n)) => writeln!(f, "{:>17}  {n} / {}", "", d.punches)?,
                (DeviceKind::Terminal, None) => writeln!(f, "{:>17}  ? / {}", "", d.punches)?,
            }
        }
        writeln!(
            f,
            "{:<20} {:>8} {:>8} {:>11} {:>11}",
            "receipt", "stored", "gaps", "duplicates", "unreadable"
        )?;
        for r in &self.receipts {
            writeln!(
                f,
                "{:<20} {:>8} {:>8} {:>11} {:>11}",
                r.site, r.stored, r.gaps, r.duplicates, r.unreadable
            )?;
        }
        Ok(())
    }
}
