//! Writing all that a card still has into one file ([`scc_common::export`]), so that it can be taken to
//! the replacement box or to the hub.
//!
//! Promises: nothing is written to the card, which may be read-only or dying; every record whose header
//! and body are whole is in the file once, with its identity; what is not, and was given a number, is a
//! gap in it; the file appears under its name only when it is whole and durable, and never in place of
//! another.
//!
//! Gaps, acknowledgements and counters are the index's to know. sled writes whenever it opens, so a
//! copy beside the export is opened, and removed again. Where the index is gone or damaged the headers
//! say what was acknowledged, as in an opening by the agent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use scc_common::checksum::Checksum;
use scc_common::clock::Clock;
use scc_common::export::{Begin, End, LaneFacts, Writer};
use scc_common::id::AgentId;
use scc_common::ranges::RangeSet;
use scc_common::wire::{GapReason, SeqRange};

use super::disk::{self, FileId, read_or_zeros, sync_dir};
use super::format::HEADER_LEN;
use super::index::Index;
use super::lane::LaneState;
use super::scan::{Found, Verify, scan};
use super::steps::Steps;
use super::{Lane, check, owner, recover};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailure {
    /// A running agent has the buffer open.
    #[error("an agent has this buffer open")]
    InUse,
    /// The card cannot be read.
    #[error("{}: {error}", path.display())]
    Card {
        /// What.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The card does not say whose it is, and nobody has.
    #[error("the card does not say which agent it is of")]
    NoAgent,
    /// The card says another agent than the person.
    #[error("the card is of `{0}`")]
    OtherAgent(AgentId),
    /// There is a file of this name.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{}: {error}", path.display())]
    File {
        /// What.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// What was exported.
#[derive(Debug)]
pub struct Exported {
    /// Whose records.
    pub agent: AgentId,
    /// What the file says at its end.
    pub end: End,
    /// Records that had a number, were not at the hub as far as the card knew, and cannot be read.
    pub damaged: u64,
    /// The index could be read: gaps have their true reasons.
    pub index: bool,
}

/// Exports the buffer in the folder `root` to `file`. `said`: the agent's id, for a card that does not
/// have it.
///
/// # Errors
/// [`ExportFailure`]; then there is no file.
pub fn export(
    root: &Path,
    said: Option<AgentId>,
    file: &Path,
    clock: &dyn Clock,
) -> Result<Exported, ExportFailure> {
    let card = |path: &Path, error| ExportFailure::Card {
        path: path.to_owned(),
        error,
    };
    let held = check::hold(root).map_err(|e| card(root, e))?;
    let _held = held.ok_or(ExportFailure::InUse)?;
    let noted = owner::read(root).map_err(|e| card(root, e))?;
    let agent = match (noted, said) {
        (Some(noted), Some(said)) if noted != said => {
            return Err(ExportFailure::OtherAgent(noted));
        }
        (Some(agent), _) | (None, Some(agent)) => agent,
        (None, None) => return Err(ExportFailure::NoAgent),
    };
    let unwritten = |error| ExportFailure::File {
        path: file.to_owned(),
        error,
    };
    if file.try_exists().map_err(unwritten)? {
        return Err(ExportFailure::Exists(file.to_owned()));
    }
    let index = Scratch::beside(file, ".index");
    let mut lanes = index.lanes(&root.join("index")).unwrap_or_default();
    let has_index = !lanes.is_empty();
    drop(index);

    let part = Scratch::beside(file, ".part");
    let to = part.create().map_err(unwritten)?;
    let begin = Begin {
        agent: agent.clone(),
        made_ms: clock.wall_ms(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let mut writer = Writer::begin(BufWriter::new(to), &begin).map_err(unwritten)?;
    for (id, len) in disk::list(root).map_err(|e| card(root, e))? {
        let path = disk::path(root, id);
        let from = File::open(&path).map_err(|e| card(&path, e))?;
        let state = lanes.entry(id.lane()).or_default();
        copy(&from, id, len, state, has_index, &mut writer).map_err(unwritten)?;
    }
    let mut damaged = 0;
    let lanes = lanes.into_iter().filter(|(_, state)| state.next > 1);
    let facts = lanes.map(|(lane, mut state)| {
        let missing = state.unexplained();
        damaged += missing.minus(&state.acked).count();
        state.lose(lane, &missing, GapReason::Damaged, begin.made_ms);
        told(lane, state)
    });
    let facts = facts.collect();
    let (end, to) = writer.end(facts).map_err(unwritten)?;
    let to = to.into_inner().map_err(|e| unwritten(e.into_error()))?;
    to.sync_all().map_err(unwritten)?;
    fs::rename(&part.0, file).map_err(unwritten)?;
    sync_dir(folder_of(file)).map_err(unwritten)?;
    Ok(Exported {
        agent,
        end,
        damaged,
        index: has_index,
    })
}

/// Copies the whole records of one file that are not in the export yet.
fn copy(
    from: &File,
    id: FileId,
    len: u64,
    state: &mut LaneState,
    has_index: bool,
    writer: &mut Writer<BufWriter<File>>,
) -> io::Result<()> {
    let mut done = Ok(());
    scan(
        from,
        id,
        0,
        len,
        Verify::None,
        |Found { header, offset }| {
            // its number was given, whatever has become of its body
            state.next = state.next.max(header.seq + 1);
            if !has_index {
                state.acked.insert(SeqRange {
                    first: 1,
                    last: header.acked.min(header.seq - 1),
                });
            }
            if done.is_err() || state.held.contains(header.seq) {
                return;
            }
            let mut body = vec![0; usize::try_from(header.len).unwrap_or(0)];
            read_or_zeros(from, &mut body, offset + HEADER_LEN as u64);
            if Checksum::of(&body) == header.sum {
                state.hold(header.seq);
                done = writer.record(&header, &body);
            }
        },
    );
    done
}

fn told(lane: Lane, state: LaneState) -> LaneFacts {
    let given = SeqRange {
        first: 1,
        last: state.next - 1,
    };
    LaneFacts {
        epoch: lane.epoch,
        stream: lane.stream,
        next: state.next,
        acked: state.acked.within(given).as_slice().to_vec(),
        gaps: state.gaps,
    }
}

/// Something beside the export that must not outlive the command.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(file: &Path, suffix: &str) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        Self(name.into())
    }

    /// A file that only this user can read: punches and pictures are in it.
    fn create(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&self.0)
    }

    /// What the index in `dir` knows of each lane, but for what it holds; read from a copy.
    fn lanes(&self, dir: &Path) -> Option<BTreeMap<Lane, LaneState>> {
        // of a run that was killed
        let _ = fs::remove_dir_all(&self.0);
        let loaded = copy_folder(dir, &self.0)
            .map_err(|e| e.to_string())
            .and_then(|()| {
                let index = Index::open(&self.0, Steps::default());
                index.and_then(recover::load).map_err(|e| e.to_string())
            });
        match loaded {
            Ok((_, loaded, Some(_))) => {
                let mut lanes = loaded.lanes;
                for state in lanes.values_mut() {
                    state.held = RangeSet::default();
                }
                Some(lanes)
            }
            Ok((_, _, None)) => None,
            Err(why) => {
                tracing::warn!(why, "the card's index cannot be read; its files are");
                None
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // best effort: what stays is a folder or file with a name that says what it was
        let _ = if self.0.is_dir() {
            fs::remove_dir_all(&self.0)
        } else {
            fs::remove_file(&self.0)
        };
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
