//! The register: what should exist. `fleet.toml` declares agencies, sites and devices; what is
//! declared and has never sent is a fault, not an absence.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::config::{ConfigError, Content, Document};
use crate::id::{AgencyId, AgentId, DeviceId};
use crate::record::DeviceKind;

/// What a place is; decides the defaults for privacy and retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKind {
    /// An office.
    Office,
    /// An office with a public counter.
    Counter,
    /// A clinic or hospital: masked stills, video stays on the box.
    Clinic,
    /// A school: as a clinic.
    School,
    /// A place of worship: as a clinic.
    Worship,
    /// A park, a street, a monument.
    Public,
}

impl SiteKind {
    /// The word in the API and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Office => "office",
            Self::Counter => "counter",
            Self::Clinic => "clinic",
            Self::School => "school",
            Self::Worship => "worship",
            Self::Public => "public",
        }
    }
}

/// The declared fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Register {
    /// The command center's name.
    pub name: String,
    /// IANA name of the time zone that pages use, such as `Asia/Makassar`.
    pub timezone: String,
    /// Cameras that the county has installed, whether listed below or not.
    pub installed_cameras: u32,
    /// In the order of the file.
    pub agencies: Vec<Agency>,
    /// In the order of the file.
    pub sites: Vec<Site>,
}

/// A government office.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agency {
    /// Its id.
    pub id: AgencyId,
    /// Its name.
    pub name: String,
    /// Watched, not managed (a school of the province).
    pub external: bool,
}

/// A place with a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Its id, which is also its agent's.
    pub id: AgentId,
    /// The agencies that it belongs to, at least one.
    pub agencies: Vec<AgencyId>,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: SiteKind,
    /// District, where the file names one.
    pub kecamatan: Option<String>,
    /// Cameras, then terminals, in the order of the file; ids are unique within the site.
    pub devices: Vec<Device>,
}

impl Site {
    /// Devices of one kind.
    pub fn devices_of(&self, kind: DeviceKind) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(move |d| d.kind == kind)
    }
}

/// A declared camera or terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// What it is.
    pub kind: DeviceKind,
    /// Name on the pages; the id with a capital where the file gives none.
    pub name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileShape {
    fleet: FleetShape,
    #[serde(default)]
    agency: Vec<AgencyShape>,
    #[serde(default)]
    site: Vec<SiteShape>,
}

impl Content for FileShape {
    const EXAMPLE: &'static str = include_str!("../../docs/fleet-soppeng.toml");
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetShape {
    name: String,
    timezone: Spanned<String>,
    installed_cameras: Spanned<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgencyShape {
    id: Spanned<AgencyId>,
    name: String,
    #[serde(default)]
    external: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteShape {
    id: Spanned<AgentId>,
    agencies: Spanned<Vec<Spanned<AgencyId>>>,
    name: String,
    kind: SiteKind,
    kecamatan: Option<String>,
    #[serde(default)]
    cameras: Vec<DeviceShape>,
    #[serde(default)]
    terminals: Vec<DeviceShape>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceShape {
    id: Spanned<DeviceId>,
    name: Option<String>,
}

impl Register {
    /// Reads and checks a register.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::build(&Document::load(file)?)
    }

    /// Checks a register that is already in memory; `file` is only named in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        Self::build(&Document::parse(file, text)?)
    }

    fn build(doc: &Document<FileShape>) -> Result<Self, ConfigError> {
        let shape = &doc.value;
        let zone = &shape.fleet.timezone;
        if jiff::tz::TimeZone::get(zone.get_ref()).is_err() {
            return Err(doc.wrong(
                zone.span().start,
                "timezone",
                format!(
                    "`{}` is no time zone; Soppeng's is \"Asia/Makassar\"",
                    zone.get_ref()
                ),
            ));
        }
        let mut seen = Unique::new(doc, "id");
        let mut agencies = Vec::new();
        for a in &shape.agency {
            seen.add("agency", a.id.get_ref().as_str(), a.id.span())?;
            agencies.push(Agency {
                id: a.id.get_ref().clone(),
                name: a.name.clone(),
                external: a.external,
            });
        }
        let mut sites = Vec::new();
        for s in &shape.site {
            seen.add("site", s.id.get_ref().as_str(), s.id.span())?;
            sites.push(site(doc, s, &agencies)?);
        }
        let register = Self {
            name: shape.fleet.name.clone(),
            timezone: zone.get_ref().clone(),
            installed_cameras: *shape.fleet.installed_cameras.get_ref(),
            agencies,
            sites,
        };
        let listed = register.count(DeviceKind::Camera);
        if usize::try_from(register.installed_cameras).is_ok_and(|n| n < listed) {
            return Err(doc.wrong(
                shape.fleet.installed_cameras.span().start,
                "installed_cameras",
                format!(
                    "{} is less than the {listed} cameras listed below; give the number that the county has installed",
                    register.installed_cameras
                ),
            ));
        }
        Ok(register)
    }

    /// The site with this id.
    #[must_use]
    pub fn site(&self, id: &AgentId) -> Option<&Site> {
        self.sites.iter().find(|s| &s.id == id)
    }

    /// Declared devices of one kind.
    #[must_use]
    pub fn count(&self, kind: DeviceKind) -> usize {
        self.sites.iter().map(|s| s.devices_of(kind).count()).sum()
    }
}

fn site(
    doc: &Document<FileShape>,
    s: &SiteShape,
    agencies: &[Agency],
) -> Result<Site, ConfigError> {
    if s.agencies.get_ref().is_empty() {
        return Err(doc.wrong(
            s.agencies.span().start,
            "agencies",
            "is empty; name at least one agency",
        ));
    }
    for agency in s.agencies.get_ref() {
        if !agencies.iter().any(|a| &a.id == agency.get_ref()) {
            return Err(doc.wrong(
                agency.span().start,
                "agencies",
                format!(
                    "`{}` is not declared above as an [[agency]]",
                    agency.get_ref()
                ),
            ));
        }
    }
    let mut seen = Unique::new(doc, "id");
    let mut devices = Vec::new();
    let cameras = s.cameras.iter().map(|d| (d, DeviceKind::Camera));
    let terminals = s.terminals.iter().map(|d| (d, DeviceKind::Terminal));
    for (d, kind) in cameras.chain(terminals) {
        seen.add("device of this site", d.id.get_ref().as_str(), d.id.span())?;
        devices.push(Device {
            id: d.id.get_ref().clone(),
            kind,
            name: d.name.clone().unwrap_or_else(|| spoken(d.id.get_ref())),
        });
    }
    Ok(Site {
        id: s.id.get_ref().clone(),
        agencies: s
            .agencies
            .get_ref()
            .iter()
            .map(|a| a.get_ref().clone())
            .collect(),
        name: s.name.clone(),
        kind: s.kind,
        kecamatan: s.kecamatan.clone(),
        devices,
    })
}

/// `igd-depan` is spoken "Igd depan".
fn spoken(id: &DeviceId) -> String {
    let words = id.as_str().replace('-', " ");
    let mut chars = words.chars();
    chars
        .next()
        .map(|c| c.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

struct Unique<'a> {
    doc: &'a Document<FileShape>,
    key: &'static str,
    seen: BTreeMap<(&'static str, String), usize>,
}

impl<'a> Unique<'a> {
    fn new(doc: &'a Document<FileShape>, key: &'static str) -> Self {
        Self {
            doc,
            key,
            seen: BTreeMap::new(),
        }
    }

    fn add(&mut self, what: &'static str, id: &str, span: Range<usize>) -> Result<(), ConfigError> {
        match self.seen.insert((what, id.to_owned()), span.start) {
            None => Ok(()),
            Some(_) => Err(self.doc.wrong(
                span.start,
                self.key,
                format!("there is already a {what} `{id}`; give this one another id"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
[fleet]
name = "SCC"
timezone = "Asia/Makassar"
installed_cameras = 3

[[agency]]
id = "rsud"
name = "Rumah Sakit Umum Daerah"

[[site]]
id = "rsud"
agencies = ["rsud"]
name = "RSUD"
kind = "clinic"
cameras = [{ id = "igd-depan" }, { id = "apotek", name = "Apotek" }]
terminals = [{ id = "absensi" }]
"#;

    fn parse(text: &str) -> Result<Register, String> {
        Register::parse(Path::new("fleet.toml"), text.into()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_small_fleet_is_read_with_its_denominators() {
        let register = parse(SMALL).unwrap();
        assert_eq!(register.installed_cameras, 3);
        assert_eq!(register.count(DeviceKind::Camera), 2);
        assert_eq!(register.count(DeviceKind::Terminal), 1);
        let names: Vec<_> = register.sites[0]
            .devices
            .iter()
            .map(|d| d.name.as_str())
            .collect();
        assert_eq!(names, ["Igd depan", "Apotek", "Absensi"]);
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        for (from, to, expected) in [
            (
                "Asia/Makassar",
                "Asia/Watansoppeng",
                "fleet.toml:4: `timezone`: ",
            ),
            (
                "= 3",
                "= 1",
                "fleet.toml:5: `installed_cameras`: 1 is less than the 2 cameras",
            ),
            (
                "agencies = [\"rsud\"]",
                "agencies = [\"psc\"]",
                "fleet.toml:13: `agencies`: `psc` is not declared",
            ),
            (
                "agencies = [\"rsud\"]",
                "agencies = []",
                "fleet.toml:13: `agencies`: is empty",
            ),
            (
                "id = \"absensi\"",
                "id = \"apotek\"",
                "fleet.toml:17: `id`: there is already a device of this site `apotek`",
            ),
            (
                "kind = \"clinic\"",
                "kind = \"klinik\"",
                "fleet.toml:15: `kind`: ",
            ),
            (
                "kind = \"clinic\"",
                "kind = \"clinic\"\ncolour = 1",
                "fleet.toml:16: `colour`: ",
            ),
        ] {
            let error = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(expected), "{error}\nexpected {expected}");
        }
    }
}
