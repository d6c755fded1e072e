//! The register as applied: what should exist, and since when it has been declared.
//!
//! A device that disappears from the register keeps its data: records are keyed by agent and device
//! names, never by rows of the register, so that declaring it again brings everything back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;
use rusqlite::{OptionalExtension, Transaction, params};
use scc_common::clock::WallMs;
use scc_common::id::{AgencyId, AgentId, DeviceId};
use scc_common::record::DeviceKind;
use scc_common::register::{Agency, Device, Register, Site, SiteKind};

use super::{Store, StoreError};

/// The register together with the days on which its parts were first declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// What should exist.
    pub register: Register,
    /// When it was last applied.
    pub applied_ms: WallMs,
    /// When each site was first declared.
    pub sites: BTreeMap<AgentId, WallMs>,
    /// When each device was first declared.
    pub devices: BTreeMap<(AgentId, DeviceId), WallMs>,
}

/// The zone that counts before a register names one: Soppeng's.
const ZONE: &str = "Asia/Makassar";

/// The zone in which a day of the fleet begins and ends, on pages, in the terminal and in what is
/// counted by day: the register's, as it names it.
pub(crate) fn zone(named: Option<&str>) -> TimeZone {
    // a register with another zone than this machine knows is not applied
    TimeZone::get(named.unwrap_or(ZONE)).unwrap_or(TimeZone::UTC)
}

impl Declared {
    /// [`zone`] of what is declared, if anything is.
    pub(crate) fn zone(declared: Option<&Self>) -> TimeZone {
        zone(declared.map(|d| d.register.timezone.as_str()))
    }
}

impl Store {
    /// The register as last applied; none before the first time.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn declared(&self) -> Result<Option<Declared>, StoreError> {
        self.read(declared).await
    }

    /// When the register was last applied, to notice a new one cheaply.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot be read.
    pub async fn applied_ms(&self) -> Result<Option<WallMs>, StoreError> {
        self.read(|db| {
            db.query_row("SELECT applied_ms FROM fleet", [], |r| r.get(0))
                .optional()
        })
        .await
    }

    /// Makes `register` the register.
    ///
    /// # Errors
    /// [`StoreError`] if the database refuses; then nothing has changed.
    pub async fn apply(
        &self,
        register: Register,
        who: String,
        now_ms: WallMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| apply(tx, &register, &who, now_ms))
            .await
    }
}

fn text_id<T: std::str::FromStr>(text: &str) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse().map_err(|e| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

fn kind_of(name: &str) -> SiteKind {
    use SiteKind::{Clinic, Counter, Office, Public, School, Worship};
    [Office, Counter, Clinic, School, Worship, Public]
        .into_iter()
        .find(|k| k.name() == name)
        .unwrap_or(Office)
}

fn declared(db: &rusqlite::Connection) -> rusqlite::Result<Option<Declared>> {
    let head = db
        .query_row(
            "SELECT name, timezone, installed_cameras, applied_ms FROM fleet",
            [],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)),
        )
        .optional()?;
    let Some((name, timezone, installed_cameras, applied_ms)) = head else {
        return Ok(None);
    };
    let agencies = db
        .prepare("SELECT id, name, external FROM agency ORDER BY position")?
        .query_map([], |r| {
            Ok(Agency {
                id: text_id(&r.get::<_, String>(0)?)?,
                name: r.get(1)?,
                external: r.get(2)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut since_sites = BTreeMap::new();
    let mut since_devices = BTreeMap::new();
    let mut sites: Vec<Site> = Vec::new();
    let mut rows =
        db.prepare("SELECT id, name, kind, kecamatan, since_ms FROM site ORDER BY position")?;
    let mut rows = rows.query([])?;
    while let Some(r) = rows.next()? {
        let id: AgentId = text_id(&r.get::<_, String>(0)?)?;
        since_sites.insert(id.clone(), r.get(4)?);
        sites.push(Site {
            id,
            agencies: Vec::new(),
            name: r.get(1)?,
            kind: kind_of(&r.get::<_, String>(2)?),
            kecamatan: r.get(3)?,
            devices: Vec::new(),
        });
    }
    let place: BTreeMap<String, usize> = sites
        .iter()
        .enumerate()
        .map(|(i, s)| (s.id.as_str().to_owned(), i))
        .collect();
    let mut rows = db.prepare("SELECT site, agency FROM site_agency ORDER BY site, position")?;
    let mut rows = rows.query([])?;
    while let Some(r) = rows.next()? {
        if let Some(site) = place
            .get(&r.get::<_, String>(0)?)
            .and_then(|i| sites.get_mut(*i))
        {
            let agency: AgencyId = text_id(&r.get::<_, String>(1)?)?;
            site.agencies.push(agency);
        }
    }
    let mut rows =
        db.prepare("SELECT site, id, kind, name, since_ms FROM device ORDER BY site, position")?;
    let mut rows = rows.query([])?;
    while let Some(r) = rows.next()? {
        if let Some(site) = place
            .get(&r.get::<_, String>(0)?)
            .and_then(|i| sites.get_mut(*i))
        {
            let id: DeviceId = text_id(&r.get::<_, String>(1)?)?;
            since_devices.insert((site.id.clone(), id.clone()), r.get(4)?);
            let camera = r.get::<_, String>(2)? == DeviceKind::Camera.name();
            site.devices.push(Device {
                id,
                kind: if camera {
                    DeviceKind::Camera
                } else {
                    DeviceKind::Terminal
                },
                name: r.get(3)?,
            });
        }
    }
    Ok(Some(Declared {
        register: Register {
            name,
            timezone,
            installed_cameras,
            agencies,
            sites,
        },
        applied_ms,
        sites: since_sites,
        devices: since_devices,
    }))
}

fn apply(
    tx: &Transaction<'_>,
    register: &Register,
    who: &str,
    now_ms: WallMs,
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO fleet (only, name, timezone, installed_cameras, applied_ms) VALUES (1, ?1, ?2, ?3, ?4)
         ON CONFLICT (only) DO UPDATE SET name = ?1, timezone = ?2, installed_cameras = ?3, applied_ms = ?4",
        params![register.name, register.timezone, register.installed_cameras, now_ms],
    )?;
    tx.execute("DELETE FROM site_agency", [])?;
    for (position, agency) in register.agencies.iter().enumerate() {
        tx.execute(
            "INSERT INTO agency (id, name, external, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET name = ?2, external = ?3, position = ?4",
            params![
                agency.id.as_str(),
                agency.name,
                agency.external,
                i64_of(position)
            ],
        )?;
    }
    for (position, site) in register.sites.iter().enumerate() {
        tx.execute(
            "INSERT INTO site (id, name, kind, kecamatan, position, since_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET name = ?2, kind = ?3, kecamatan = ?4, position = ?5",
            params![site.id.as_str(), site.name, site.kind.name(), site.kecamatan, i64_of(position), now_ms],
        )?;
        for (position, agency) in site.agencies.iter().enumerate() {
            tx.execute(
                "INSERT INTO site_agency (site, agency, position) VALUES (?1, ?2, ?3)",
                params![site.id.as_str(), agency.as_str(), i64_of(position)],
            )?;
        }
        for (position, device) in site.devices.iter().enumerate() {
            tx.execute(
                "INSERT INTO device (site, id, kind, name, position, since_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (site, id) DO UPDATE SET kind = ?3, name = ?4, position = ?5",
                params![
                    site.id.as_str(), device.id.as_str(), device.kind.name(), device.name, i64_of(position), now_ms
                ],
            )?;
        }
    }
    let keep: BTreeSet<(&str, &str)> = register
        .sites
        .iter()
        .flat_map(|s| s.devices.iter().map(|d| (s.id.as_str(), d.id.as_str())))
        .collect();
    for (site, device) in pairs(tx, "SELECT site, id FROM device")? {
        if !keep.contains(&(site.as_str(), device.as_str())) {
            tx.execute(
                "DELETE FROM device WHERE site = ?1 AND id = ?2",
                params![site, device],
            )?;
        }
    }
    for (site, _) in pairs(tx, "SELECT id, '' FROM site")? {
        if !register.sites.iter().any(|s| s.id.as_str() == site) {
            tx.execute("DELETE FROM site WHERE id = ?1", [site])?;
        }
    }
    for (agency, _) in pairs(tx, "SELECT id, '' FROM agency")? {
        if !register.agencies.iter().any(|a| a.id.as_str() == agency) {
            tx.execute("DELETE FROM agency WHERE id = ?1", [agency])?;
        }
    }
    super::people::audit(tx, now_ms, who, "fleet apply", &register.name)
}

fn pairs(tx: &Transaction<'_>, sql: &str) -> rusqlite::Result<Vec<(String, String)>> {
    tx.prepare(sql)?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect()
}

fn i64_of(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
