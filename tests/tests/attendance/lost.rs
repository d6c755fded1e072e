//! What the box loses, the terminal still has: with the real buffer, and harm done to its files.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use scc_agent::buffer::{Buffer, Lane, Stored};
use scc_agent::capture::attendance::TerminalSource;
use scc_agent::capture::board::Board;
use scc_agent::config::BufferLimits;
use scc_common::id::AgentId;
use scc_common::record::{Content, Punch, PunchBatch, RecordBody};
use scc_common::stream::Stream;
use scc_common::wire::SeqRange;
use scc_tests::terminal::{Setup, Terminal};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::site::{SystemClockKnown, assert_same, quick, settings, terminal};

fn open(dir: &Path) -> Buffer {
    let clock = SystemClockKnown::shared();
    Buffer::open(dir, BufferLimits::default(), clock).unwrap()
}

/// Every attendance record that can be read, in whichever epoch.
async fn stored(buffer: &Buffer) -> Vec<Stored> {
    let mut all = Vec::new();
    for offer in buffer.offers().await.unwrap() {
        if offer.stream != Stream::Attendance || offer.next == 1 {
            continue;
        }
        let lane = Lane {
            epoch: offer.epoch,
            stream: offer.stream,
        };
        let range = SeqRange {
            first: 1,
            last: offer.next - 1,
        };
        all.extend(buffer.read(lane, range, usize::MAX).await.unwrap());
    }
    all
}

async fn batches(buffer: &Buffer) -> Vec<PunchBatch> {
    let records = stored(buffer).await;
    let bodies = records.iter().map(|r| RecordBody::decode(&r.body).unwrap());
    bodies
        .filter_map(|body| match body.content {
            Content::Punches(batch) => Some(batch),
            _ => None,
        })
        .collect()
}

/// One life of the agent's source: it reads the log once more and ends. Returns what the buffer
/// holds then.
async fn one_more_read(terminal: &Terminal, dir: &Path, buffer: &Buffer) -> Vec<Punch> {
    let proofs = |batches: &[PunchBatch]| {
        let proven = batches.iter().filter_map(|b| b.read.as_ref());
        proven.filter(|proof| proof.complete).count()
    };
    let before = proofs(&batches(buffer).await);
    let clock = SystemClockKnown::shared();
    let (board, _) = Board::new(clock.clone());
    let stop = CancellationToken::new();
    let agent = AgentId::new("rsud").unwrap();
    let config = settings(terminal.address(), 0);
    let source = TerminalSource::with_pace(agent, config, dir.to_owned(), quick());
    let run = tokio::spawn(source.run_with(buffer.clone(), board, clock, stop.clone()));
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let found = batches(buffer).await;
            if proofs(&found) > before {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let found = found.await.expect("another complete read");
    stop.cancel();
    run.await.unwrap();
    found.into_iter().flat_map(|b| b.punches).collect()
}

#[tokio::test]
async fn a_buffer_that_was_emptied_gets_the_whole_log_again_and_a_kept_one_nothing() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let buffer = open(dir.path());
    let punches = one_more_read(&terminal, dir.path(), &buffer).await;
    assert_same(&punches, &terminal.log());
    buffer.close().await;

    let buffer = open(dir.path());
    let punches = one_more_read(&terminal, dir.path(), &buffer).await;
    assert_same(&punches, &terminal.log());
    buffer.close().await;

    std::fs::remove_dir_all(dir.path().join("buffer")).unwrap();
    let buffer = open(dir.path());
    let punches = one_more_read(&terminal, dir.path(), &buffer).await;
    assert_same(&punches, &terminal.log());
    buffer.close().await;
}

#[tokio::test]
async fn punches_that_the_card_has_damaged_are_taken_from_the_terminal_again() {
    let terminal = terminal(Setup::default()).await;
    let dir = TempDir::new().unwrap();
    let buffer = open(dir.path());
    one_more_read(&terminal, dir.path(), &buffer).await;
    buffer.close().await;

    let folder = dir.path().join("buffer/attendance");
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::File::options()
            .write(true)
            .open(entry.unwrap().path());
        // behind the first record's header
        file.unwrap().write_all_at(&[0x55; 64], 1_000).unwrap();
    }
    let buffer = open(dir.path());
    // as the uplink would find it
    let left = batches(&buffer).await;
    let left: usize = left.iter().map(|b| b.punches.len()).sum();
    assert!(left < terminal.log().len(), "{left} punches are left");
    let punches = one_more_read(&terminal, dir.path(), &buffer).await;
    let mut last: Vec<Punch> = Vec::new();
    for punch in punches {
        // what was not damaged comes twice, with the same identity
        if !last.contains(&punch) {
            last.push(punch);
        }
    }
    assert_same(&last, &terminal.log());
    buffer.close().await;
}
