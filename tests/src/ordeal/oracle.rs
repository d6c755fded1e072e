//! What is true, told by others than the hub: the terminals' truth files and the agents' logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use scc_common::stream::Stream;
use serde::Deserialize;

/// One punch. Two equal ones in one second are two.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Punch {
    /// The terminal's serial number.
    pub serial: String,
    /// The person's number.
    pub user: String,
    /// The terminal's own clock.
    pub local_s: i64,
    /// In/out key.
    pub state: u8,
    /// How verified.
    pub verify: u8,
}

/// Punches and how often each was made.
pub type Punches = BTreeMap<Punch, u64>;

/// The identity of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The agent.
    pub agent: String,
    /// Its epoch.
    pub epoch: u64,
    /// Its stream's code.
    pub stream: u8,
    /// Its number.
    pub seq: u64,
}

/// Records by identity, each with its checksum in hex.
pub type Records = BTreeMap<Key, String>;

/// All that the terminals say was punched.
///
/// # Errors
/// If a file is not whole: the terminals are never killed.
pub fn punched(folder: &Path) -> anyhow::Result<Punches> {
    let mut punches = Punches::new();
    for entry in fs::read_dir(folder)? {
        let file = entry?.path();
        let text = fs::read_to_string(&file)?;
        // the line that is being written now is not yet a punch
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        for line in whole.lines() {
            let punch = serde_json::from_str(line).with_context(|| file.display().to_string())?;
            *punches.entry(punch).or_default() += 1;
        }
    }
    Ok(punches)
}

/// What marks the lines of the log that tell of an accepted record.
const MARK: &str = " scc_agent::accepted: accepted ";

/// Digits of a checksum in hex.
const SUM_LEN: usize = 32;

/// Adds what the agent's log says its buffer has accepted. A kill may tear the last line of a life.
///
/// # Errors
/// If the log says that one number was given twice.
pub fn accepted(log: &Path, agent: &str, records: &mut Records) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    for line in text.lines() {
        let Some((key, sum)) = line.split_once(MARK).and_then(|(_, t)| told(t, agent)) else {
            continue;
        };
        if let Some(before) = records.insert(key.clone(), sum.clone())
            && before != sum
        {
            bail!("{key:?} was given to two records: {before} and {sum}");
        }
    }
    ensure!(
        !records.is_empty(),
        "{} tells of no accepted record",
        log.display()
    );
    Ok(())
}

/// `epoch=… stream=… seq=… sum=…`; none if it is torn.
fn told(text: &str, agent: &str) -> Option<(Key, String)> {
    let mut words = text.split(' ');
    let mut value = |name: &str| {
        let (found, value) = words.next()?.split_once('=')?;
        (found == name).then_some(value)
    };
    let epoch = u64::from_str_radix(value("epoch")?, 16).ok()?;
    let name = value("stream")?;
    let stream = Stream::ALL.into_iter().find(|s| s.name() == name)?.code();
    let seq = value("seq")?.parse().ok()?;
    let sum = value("sum")?.trim();
    let key = Key {
        agent: agent.to_owned(),
        epoch,
        stream,
        seq,
    };
    (sum.len() == SUM_LEN).then(|| (key, sum.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "2026-11-24T07:41:00.000001Z DEBUG scc_agent::accepted: accepted \
                        epoch=00000000000000ff stream=segment seq=7 sum=000102030405060708090a0b0c0d0e0f\n";

    fn read(text: &str) -> anyhow::Result<Records> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, text).unwrap();
        let mut records = Records::new();
        accepted(&log, "kantor", &mut records).map(|()| records)
    }

    #[test]
    fn a_line_of_the_log_is_a_record_and_a_torn_one_is_none() {
        let torn = &LINE[..LINE.len() - 10];
        let records = read(&format!("noise\n{LINE}{torn}")).unwrap();
        let (key, sum) = records.first_key_value().unwrap();
        assert_eq!(
            (key.epoch, key.stream, key.seq, records.len()),
            (255, 6, 7, 1)
        );
        assert_eq!(sum, "000102030405060708090a0b0c0d0e0f");
        assert!(
            read(torn).is_err(),
            "a log that tells nothing proves nothing"
        );
    }

    #[test]
    fn a_number_that_was_given_twice_is_found() {
        let other = LINE.replace("sum=00", "sum=ff");
        assert!(read(&format!("{LINE}{LINE}")).is_ok());
        assert!(read(&format!("{LINE}{other}")).is_err());
    }
}
