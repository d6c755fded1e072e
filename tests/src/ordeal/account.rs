//! The account: what is true against what the hub has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug};

use super::ledger::{Gap, Ledger};
use super::oracle::{Key, Punches, Records};

/// Most violations of one sort that are told one by one.
const TOLD: usize = 10;

/// Records that a killed agent may have committed without having told so: one group of its buffer.
const UNTOLD_PER_KILL: usize = 32;

/// What was found.
#[derive(Debug, Default)]
pub struct Account {
    /// Punches that were made.
    pub punches: u64,
    /// Records that buffers said they had accepted.
    pub accepted: usize,
    /// Records in the ledger.
    pub ledger: usize,
    /// Punches and accepted records that are not at the hub.
    pub missing: usize,
    /// Punches at the hub that nobody made.
    pub extra: usize,
    /// Records at the hub that no log tells of: a kill fell between commit and line.
    pub untold: usize,
    /// Records announced as lost.
    pub gaps: u64,
    /// Numbers below the highest of their lane that are neither stored nor announced.
    pub unannounced: u64,
    /// Records of which the same bytes are stored more than once.
    pub duplicates_stored: i64,
    /// Records that came again and were stored once.
    pub duplicates_refused: i64,
    /// Records of one number and two contents.
    pub conflicts: i64,
    /// Records whose bytes do not give their checksum.
    pub damaged: usize,
    /// Records that could not be read.
    pub unreadable: i64,
    /// Lives of buffers; one for each agent unless one began to number anew.
    pub epochs: usize,
    /// What must not be, with what and where.
    pub violations: Vec<String>,
}

/// What [`Account::take`] compares.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What the terminals say.
    pub punched: &'a Punches,
    /// What the buffers had accepted by the time that everything was waited for.
    pub due: &'a Records,
    /// What the hub has.
    pub stored: &'a Records,
    /// What the buffers had accepted when that was read.
    pub told: &'a Records,
    /// How many agents there are.
    pub agents: usize,
    /// How often agents were killed.
    pub agent_kills: usize,
}

/// Punches of which `have` has fewer than `want`.
#[must_use]
pub fn lacking(want: &Punches, have: &Punches) -> Vec<String> {
    let fewer = want.iter().filter_map(|(punch, n)| {
        let there = have.get(punch).copied().unwrap_or(0);
        (there < *n).then(|| format!("{punch:?}: {there} of {n}"))
    });
    fewer.collect()
}

/// Records of `want` that `have` does not have with the same checksum.
#[must_use]
pub fn absent<'a>(want: &'a Records, have: &Records) -> Vec<(&'a Key, String)> {
    want.iter()
        .filter_map(|(key, sum)| match have.get(key) {
            Some(stored) if stored == sum => None,
            Some(stored) => Some((key, format!("{key:?} is stored as {stored}, not {sum}"))),
            None => Some((key, format!("{key:?} {sum}"))),
        })
        .collect()
}

impl Account {
    /// Compares.
    ///
    /// # Errors
    /// If the hub's database cannot be read.
    pub fn take(
        evidence: &Evidence<'_>,
        ledger: &Ledger,
        media: &std::path::Path,
    ) -> anyhow::Result<Self> {
        let stored = evidence.stored;
        let punches = ledger.punches()?;
        let gaps = ledger.gaps()?;
        let lost = lacking(evidence.punched, &punches);
        let invented = lacking(&punches, evidence.punched);
        let absent = absent(evidence.due, stored);
        let untold = stored
            .keys()
            .filter(|key| !evidence.told.contains_key(key))
            .count();
        let unannounced = unannounced(stored, &gaps);
        let damaged = ledger.damaged(media)?;
        let epochs: BTreeSet<_> = stored.keys().map(|k| (&k.agent, k.epoch)).collect();
        let mut account = Self {
            punches: evidence.punched.values().sum(),
            accepted: evidence.due.len(),
            ledger: stored.len(),
            missing: lost.len() + absent.len(),
            extra: invented.len(),
            untold,
            gaps: gaps.iter().map(|g| g.last - g.first.seq + 1).sum(),
            unannounced: unannounced.iter().map(|(_, n)| n).sum(),
            duplicates_stored: ledger.count(
                "SELECT count(*) - (SELECT count(*) FROM (SELECT DISTINCT agent, stream, sum FROM record)) FROM record",
            )?,
            duplicates_refused: ledger.count("SELECT coalesce(sum(count), 0) FROM duplicate")?,
            conflicts: ledger.count("SELECT count(*) FROM conflict")?,
            damaged: damaged.len(),
            unreadable: ledger.count("SELECT count(*) FROM record WHERE readable = 0")?,
            epochs: epochs.len(),
            violations: Vec::new(),
        };
        account.all("a punch is missing", &lost);
        account.all("nobody made this punch", &invented);
        account.all(
            "an accepted record is missing",
            absent.iter().map(|(_, what)| what),
        );
        account.all("a hole is not announced", &unannounced);
        account.all("a record was given up", &gaps);
        account.all("the bytes do not give the checksum", &damaged);
        let (twice, conflicts, unreadable) = (
            account.duplicates_stored,
            account.conflicts,
            account.unreadable,
        );
        account.none(twice, "records are stored twice");
        account.none(conflicts, "numbers have two contents");
        account.none(unreadable, "records cannot be read");
        if untold > evidence.agent_kills * UNTOLD_PER_KILL {
            account.violation(format!("{untold} records came from no buffer"));
        }
        if epochs.len() != evidence.agents {
            let (is, should) = (epochs.len(), evidence.agents);
            account.violation(format!("{is} epochs of {should} agents: {epochs:?}"));
        }
        Ok(account)
    }

    /// Adds something that must not be.
    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn none(&mut self, n: i64, what: &str) {
        if n != 0 {
            self.violation(format!("{n} {what}"));
        }
    }

    fn all<T: Debug>(&mut self, what: &str, found: impl IntoIterator<Item = T>) {
        let found: Vec<_> = found.into_iter().collect();
        for one in found.iter().take(TOLD) {
            self.violation(format!("{what}: {one:?}"));
        }
        if found.len() > TOLD {
            self.violation(format!("{what}: {} more", found.len() - TOLD));
        }
    }
}

/// How many numbers of each lane, up to its highest, are neither stored nor in a gap.
fn unannounced(stored: &Records, gaps: &[Gap]) -> Vec<(String, u64)> {
    // highest number, and how many are accounted for; the hub keeps gaps and records apart
    let mut lanes: BTreeMap<(&str, u64, u8), (u64, u64)> = BTreeMap::new();
    let ranges = gaps.iter().map(|g| (&g.first, g.last));
    for (first, last) in stored.keys().map(|k| (k, k.seq)).chain(ranges) {
        let lane = lanes
            .entry((&first.agent, first.epoch, first.stream))
            .or_default();
        lane.0 = lane.0.max(last);
        lane.1 += last - first.seq + 1;
    }
    lanes
        .into_iter()
        .filter(|(_, (highest, there))| highest != there)
        .map(|(lane, (highest, there))| (format!("{lane:?}"), highest.abs_diff(there)))
        .collect()
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "punches={} accepted={} ledger={} missing={} extra={} untold={} gaps={} unannounced={} \
             duplicates_stored={} duplicates_refused={} conflicts={} damaged={} unreadable={} epochs={}",
            self.punches,
            self.accepted,
            self.ledger,
            self.missing,
            self.extra,
            self.untold,
            self.gaps,
            self.unannounced,
            self.duplicates_stored,
            self.duplicates_refused,
            self.conflicts,
            self.damaged,
            self.unreadable,
            self.epochs,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ordeal::oracle::Punch;

    fn at(seq: u64) -> Key {
        Key {
            agent: "kantor".into(),
            epoch: 1,
            stream: 6,
            seq,
        }
    }

    fn records(numbers: &[u64]) -> Records {
        numbers.iter().map(|n| (at(*n), "ab".into())).collect()
    }

    #[test]
    fn a_hole_is_found_unless_it_was_announced() {
        let gap = Gap {
            first: at(2),
            last: 3,
            reason: "evicted".into(),
        };
        let stored = records(&[1, 4]);
        assert_eq!(unannounced(&stored, &[])[0].1, 2);
        assert_eq!(unannounced(&stored, &[gap]), []);
        assert_eq!(unannounced(&records(&[2]), &[])[0].1, 1);
    }

    #[test]
    fn another_content_under_the_same_number_is_absent() {
        let mut have = records(&[1, 2]);
        have.insert(at(2), "cd".into());
        let want = records(&[1, 2, 3]);
        let absent: Vec<_> = absent(&want, &have).iter().map(|(k, _)| k.seq).collect();
        assert_eq!(absent, [2, 3]);
    }

    #[test]
    fn two_equal_punches_are_two() {
        let punch = Punch {
            serial: "A".into(),
            user: "1".into(),
            local_s: 1,
            state: 0,
            verify: 1,
        };
        let made = Punches::from([(punch.clone(), 2)]);
        let stored = Punches::from([(punch, 1)]);
        assert_eq!(lacking(&made, &stored).len(), 1);
        assert_eq!(lacking(&stored, &made).len(), 0);
        assert_eq!(lacking(&made, &made).len(), 0);
    }
}
