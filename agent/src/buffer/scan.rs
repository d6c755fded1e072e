//! Reading a file of records without the index.
//!
//! Promise: every record whose header is whole is found, whatever lies between; reading never takes
//! more memory than one block and one body. Where a header is damaged, the scan goes on at the next
//! bytes that are a header of this very file (magic, CRC, stream and epoch).

use std::fs::File;

use scc_common::checksum::{Checksum, Running};

use super::disk::{FileId, read_or_zeros};
use super::format::{HEADER_LEN, Header, MAGIC};

/// Bytes read at once while looking for the next header.
const BLOCK: usize = 64 * 1024;

/// Which bodies are read and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Every one.
    All,
    /// Only the last: a file that was closed long ago is checked when it is read, but its end may
    /// be torn.
    Last,
    /// None: whoever asks reads and checks them.
    None,
}

/// A record that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// What its header says.
    pub(super) header: Header,
    /// Where its header begins.
    pub(super) offset: u64,
}

/// What a scan saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scan {
    /// Where the last good record ends (or where the scan began, if there was none).
    pub(super) end: u64,
    /// Bytes that belong to no good record, the torn end included.
    pub(super) bad: u64,
}

/// Tells `each` every good record from offset `from` on, in the order of the file.
pub(super) fn scan(
    file: &File,
    id: FileId,
    from: u64,
    len: u64,
    verify: Verify,
    mut each: impl FnMut(Found),
) -> Scan {
    let mut result = Scan { end: from, bad: 0 };
    let mut at = from;
    let mut good = from;
    // the newest find waits until it is known not to be the last one, or has been checked
    let mut waiting: Option<Found> = None;
    while let Some(found) = next_header(file, id, &mut at, len) {
        at = found.offset + found.header.total();
        if verify == Verify::All && !body_is_whole(file, found) {
            continue;
        }
        if let Some(known) = waiting.replace(found) {
            good += known.header.total();
            result.end = known.offset + known.header.total();
            each(known);
        }
    }
    if let Some(last) = waiting
        && (verify != Verify::Last || body_is_whole(file, last))
    {
        good += last.header.total();
        result.end = last.offset + last.header.total();
        each(last);
    }
    result.bad = len.saturating_sub(good);
    result
}

/// The first header at or after `at` that is of this file and whose body lies within it.
fn next_header(file: &File, id: FileId, at: &mut u64, len: u64) -> Option<Found> {
    let fits = |offset: u64, bytes: &[u8]| {
        let header = Header::decode(bytes).ok()?;
        let ours = header.stream == id.stream && header.epoch == id.epoch;
        (ours && offset + header.total() <= len).then_some(Found { header, offset })
    };
    // the usual case first: a header stands exactly here
    let mut head = [0; HEADER_LEN];
    if *at + HEADER_LEN as u64 <= len {
        read_or_zeros(file, &mut head, *at);
        if let Some(found) = fits(*at, &head) {
            return Some(found);
        }
    }
    let mut block = vec![0; BLOCK];
    while *at + HEADER_LEN as u64 <= len {
        let have = usize::try_from(len - *at).map_or(BLOCK, |left| left.min(BLOCK));
        read_or_zeros(file, &mut block[..have], *at);
        let ends = have - HEADER_LEN;
        let starts = block[..have]
            .windows(MAGIC.len())
            .enumerate()
            .take(ends + 1);
        for (i, _) in starts.filter(|(_, window)| *window == MAGIC) {
            if let Some(found) = fits(*at + i as u64, &block[i..have]) {
                return Some(found);
            }
        }
        *at += (ends + 1) as u64;
    }
    None
}

/// Whether the body after a header has the checksum that the header names.
pub(super) fn body_is_whole(file: &File, found: Found) -> bool {
    body_sum(file, found) == found.header.sum
}

fn body_sum(file: &File, found: Found) -> Checksum {
    let mut running = Running::new();
    let mut block = vec![0; BLOCK];
    let mut at = found.offset + HEADER_LEN as u64;
    let end = found.offset + found.header.total();
    while at < end {
        let have = usize::try_from(end - at).map_or(BLOCK, |left| left.min(BLOCK));
        read_or_zeros(file, &mut block[..have], at);
        running.update(&block[..have]);
        at += have as u64;
    }
    running.finish()
}
