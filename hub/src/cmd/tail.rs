//! `scc-hub tail`: records as JSON lines, as they are committed.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use crate::config::Config;
use crate::store::{Followed, Follower, StoreError};

/// How often the ledger is looked at.
const EVERY: Duration = Duration::from_millis(200);

/// Records per look, so that a burst is printed as it is read.
const LIMIT: u32 = 500;

/// Why `tail` has ended.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The output takes nothing more.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Prints each record that is committed from now on, until whoever reads has gone.
///
/// # Errors
/// [`TailError`].
pub fn run(config: &Config) -> Result<(), TailError> {
    let mut follower = Follower::open(&config.database())?;
    let mut out = io::stdout().lock();
    loop {
        let records = follower.next(LIMIT)?;
        if records.is_empty() {
            std::thread::sleep(EVERY);
            continue;
        }
        print(&mut out, &records)?;
    }
}

fn print(out: &mut impl Write, records: &[Followed]) -> io::Result<()> {
    for record in records {
        writeln!(out, "{}", line(record))?;
    }
    out.flush()
}

/// One record; times as RFC 3339 in UTC, the epoch in hex as everywhere else.
fn line(record: &Followed) -> serde_json::Value {
    json!({
        "id": record.id,
        "received": time(record.received_ms),
        "agent": record.agent,
        "epoch": record.epoch.to_string(),
        "stream": record.stream.map(|s| s.name()),
        "seq": record.seq,
        "device": record.device,
        "declared": record.declared,
        "captured": record.wall_ms.and_then(time),
        "size": record.size,
        "media": record.media,
        "readable": record.body.is_some(),
        "content": record.body.as_ref().map(|body| json!(body.content)),
    })
}

fn time(ms: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;

    #[test]
    fn a_line_is_one_json_object_that_names_the_record() {
        let record = Followed {
            id: 7,
            agent: "rsud".into(),
            epoch: Epoch(255),
            stream: Some(Stream::Attendance),
            seq: 3,
            device: Some("loket".into()),
            declared: true,
            wall_ms: Some(0),
            received_ms: 1_500,
            size: 12,
            media: None,
            body: None,
        };
        let mut out = Vec::new();
        print(&mut out, &[record]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["epoch"], "00000000000000ff");
        assert_eq!(value["stream"], "attendance");
        assert_eq!(value["captured"], "1970-01-01T00:00:00Z");
        assert_eq!(value["received"], "1970-01-01T00:00:01.5Z");
        assert_eq!(value["readable"], false);
    }
}
