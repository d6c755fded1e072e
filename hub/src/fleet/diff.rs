//! What would change if another register were applied: lines for a person to read before they say yes.

use std::collections::BTreeMap;
use std::fmt;

use scc_common::register::Register;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Not in the register yet.
    Added(String),
    /// No longer in the register; its data stays.
    Removed(String),
    /// Declared differently.
    Changed(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(what) => write!(f, "+ {what}"),
            Self::Removed(what) => write!(f, "- {what}"),
            Self::Changed(what) => write!(f, "~ {what}"),
        }
    }
}

/// The differences, in the order of the register: the fleet, agencies, sites with their devices.
#[must_use]
pub fn between(old: Option<&Register>, new: &Register) -> Vec<Change> {
    let before = old.map(facts).unwrap_or_default();
    let after = facts(new);
    let mut changes = Vec::new();
    for (key, value) in &after {
        match before.get(key) {
            None => changes.push(Change::Added(line(key, value))),
            Some(was) if was != value => {
                changes.push(Change::Changed(format!("{} {was} -> {value}", key.1)));
            }
            Some(_) => {}
        }
    }
    for (key, value) in &before {
        if !after.contains_key(key) {
            changes.push(Change::Removed(line(key, value)));
        }
    }
    changes
}

fn line(key: &(u8, String), value: &str) -> String {
    format!("{} {value}", key.1)
}

/// Each declared thing as one line of text under a key that sorts fleet, agencies, sites.
fn facts(register: &Register) -> BTreeMap<(u8, String), String> {
    let mut facts = BTreeMap::new();
    facts.insert(
        (0, "fleet".to_owned()),
        format!("\"{}\", {}", register.name, register.timezone),
    );
    facts.insert(
        (0, "installed cameras".to_owned()),
        register.installed_cameras.to_string(),
    );
    for agency in &register.agencies {
        let external = if agency.external { ", external" } else { "" };
        facts.insert(
            (1, format!("agency {}", agency.id)),
            format!("\"{}\"{external}", agency.name),
        );
    }
    for site in &register.sites {
        let agencies: Vec<_> = site.agencies.iter().map(|a| a.as_str()).collect();
        let kecamatan = site
            .kecamatan
            .as_ref()
            .map(|k| format!(", {k}"))
            .unwrap_or_default();
        facts.insert(
            (2, format!("site {}", site.id)),
            format!(
                "\"{}\", {}, of {}{kecamatan}",
                site.name,
                site.kind.name(),
                agencies.join(" + ")
            ),
        );
        for device in &site.devices {
            facts.insert(
                (
                    2,
                    format!("site {} {} {}", site.id, device.kind.name(), device.id),
                ),
                format!("\"{}\"", device.name),
            );
        }
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn register(sites: &str) -> Register {
        let head = "[fleet]\nname = \"S\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 9\n\
                    [[agency]]\nid = \"rsud\"\nname = \"RSUD\"\n";
        Register::parse(Path::new("fleet.toml"), format!("{head}{sites}")).unwrap()
    }

    #[test]
    fn each_kind_of_change_is_one_line_with_its_sign() {
        let old = register(
            "[[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\nname = \"RSUD\"\nkind = \"clinic\"\n\
             cameras = [{ id = \"igd\" }, { id = \"apotek\" }]\n",
        );
        let new = register(
            "[[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\nname = \"RSUD\"\nkind = \"clinic\"\n\
             cameras = [{ id = \"igd\", name = \"IGD depan\" }]\nterminals = [{ id = \"absensi\" }]\n",
        );
        let lines: Vec<_> = between(Some(&old), &new)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "~ site rsud camera igd \"Igd\" -> \"IGD depan\"",
                "+ site rsud terminal absensi \"Absensi\"",
                "- site rsud camera apotek \"Apotek\"",
            ]
        );
        assert!(between(Some(&new), &new).is_empty());
        assert!(
            between(None, &new)
                .iter()
                .all(|c| matches!(c, Change::Added(_)))
        );
    }
}
