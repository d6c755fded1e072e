//! `scc-hub fleet check|diff|apply FILE`: the register, looked at before it is changed.

use std::io::{self, Write};
use std::path::Path;

use scc_common::clock::Clock as _;
use scc_common::config::ConfigError;
use scc_common::record::DeviceKind;
use scc_common::register::Register;

use crate::config::Config;
use crate::fleet::diff::{self, Change};
use crate::store::{Store, StoreError};

/// Why a register was not looked at or applied.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The file is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The database refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The terminal is gone.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Checks a file and counts what it declares.
///
/// # Errors
/// [`FleetError::Config`] names the line that is wrong.
pub fn check(file: &Path, out: &mut impl Write) -> Result<(), FleetError> {
    let register = Register::load(file)?;
    writeln!(
        out,
        "{}: {} agencies, {} sites, {} cameras of {} installed, {} terminals",
        file.display(),
        register.agencies.len(),
        register.sites.len(),
        register.count(DeviceKind::Camera),
        register.installed_cameras,
        register.count(DeviceKind::Terminal),
    )?;
    Ok(())
}

/// Prints what would change; says so if nothing would, or if there is no database yet to compare with.
///
/// # Errors
/// [`FleetError`]; nothing is changed or made either way.
pub async fn diff(
    config: &Config,
    file: &Path,
    out: &mut impl Write,
) -> Result<Vec<Change>, FleetError> {
    let register = Register::load(file)?;
    let now = match Store::look(&config.database()) {
        Ok(store) => store.declared().await?,
        Err(StoreError::Missing(database)) => {
            let database = database.display();
            writeln!(out, "{database}: there is no database yet: all is new")?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    compare(now.as_ref().map(|d| &d.register), &register, out)
}

fn compare(
    now: Option<&Register>,
    register: &Register,
    out: &mut impl Write,
) -> Result<Vec<Change>, FleetError> {
    let changes = diff::between(now, register);
    for change in &changes {
        writeln!(out, "{change}")?;
    }
    if changes.is_empty() {
        writeln!(out, "nothing would change")?;
    }
    Ok(changes)
}

/// Makes the file the register; a running hub takes it up within two seconds. Devices that are no
/// longer in it keep their data.
///
/// # Errors
/// [`FleetError`]; then nothing was changed.
pub async fn apply(
    config: &Config,
    file: &Path,
    dry_run: bool,
    out: &mut impl Write,
) -> Result<(), FleetError> {
    if dry_run {
        if !diff(config, file, out).await?.is_empty() {
            writeln!(out, "dry run: nothing was changed")?;
        }
        return Ok(());
    }
    let register = Register::load(file)?;
    // The register is often applied before the hub first runs: this makes the database.
    let store = Store::open(&config.database())?;
    let now = store.declared().await?;
    let changes = compare(now.as_ref().map(|d| &d.register), &register, out)?;
    if changes.is_empty() {
        return Ok(());
    }
    let now_ms = scc_common::clock::SystemClock::new().wall_ms();
    store.apply(register, "terminal".into(), now_ms).await?;
    writeln!(out, "applied {} changes", changes.len())?;
    Ok(())
}
