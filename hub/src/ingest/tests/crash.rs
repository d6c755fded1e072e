//! The hub ends by SIGKILL between any two of: media being written, written, durable, statements done,
//! transaction committed, spool emptied, acknowledgement sent. This binary runs again as a child with
//! a whole ingest in it; the test is the agent, and believes only what it heard from the child.
//!
//! A kill is not a power cut: what was written and not synced survives it. That media and database
//! sync at all is held by `store` (synchronous FULL) and `media` (`with_fsync`), not by these tests.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use scc_common::id::{BootId, Seq};
use scc_common::wire::{Down, DownMessage, Gap, GapReason, Hello, LaneOffer, SeqRange, UpMessage};

use super::harness::{EVENTS, Ear, Hub, Lane, STILLS, event, still};
use crate::crash::{self, Point};

const CHILD: &str = "SCC_TEST_CRASH";
const NAME: &str = "ingest::tests::crash::child_that_ends_where_it_is_told";

/// Rounds of [`what_is_sent_again_after_a_kill_before_the_ack_stands_once`]; 500 takes two minutes.
const ROUNDS: &str = "SCC_CRASH_ROUNDS";

/// Acknowledged before anything is armed, in each lane.
const BASE: Seq = 3;
/// The last number of a batch, and of a gap.
const LAST: Seq = 43;
const PICTURE: usize = 40_000;
/// Large enough that writing and syncing it takes a while.
const SEGMENT: usize = 3_000_000;
const PART: usize = 120_000;
/// Exit status of a child that did not come to see its media file being written.
const MISSED: i32 = 3;

/// What is on its way when the hub ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Small,
    Batch,
    Picture,
    Parts,
    HelloWithGap,
}

/// Where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The media file is being written: a part of its bytes, or all of them, is there, its name is not.
    MediaBegun,
    At(Point),
    /// The acknowledgement of what is on its way has left.
    Acked,
}

const ENDS: [End; 7] = [
    End::MediaBegun,
    End::At(Point::MediaWritten),
    End::At(Point::MediaDurable),
    End::At(Point::Uncommitted),
    End::At(Point::Committed),
    End::At(Point::Unspooled),
    End::Acked,
];
const KINDS: [Kind; 5] = [
    Kind::Small,
    Kind::Batch,
    Kind::Picture,
    Kind::Parts,
    Kind::HelloWithGap,
];

impl Kind {
    /// Whether its way comes past there at all.
    fn passes(self, end: End) -> bool {
        match end {
            End::MediaBegun | End::At(Point::MediaWritten | Point::MediaDurable) => {
                matches!(self, Self::Picture | Self::Parts)
            }
            End::At(Point::Unspooled) => self == Self::Parts,
            End::At(_) | End::Acked => true,
        }
    }

    fn lane(self) -> Lane {
        match self {
            Self::Picture | Self::Parts => STILLS,
            _ => EVENTS,
        }
    }

    fn last(self) -> Seq {
        match self {
            Self::Batch | Self::HelloWithGap => LAST,
            _ => BASE + 1,
        }
    }

    fn body(self, seq: Seq) -> Vec<u8> {
        match self {
            Self::Picture => still(seq, PICTURE),
            Self::Parts if seq > BASE => still(seq, SEGMENT),
            Self::Parts => still(seq, PICTURE),
            _ => event(seq),
        }
    }

    /// Sends numbers `from` … [`last`](Self::last), as the agent that has not heard of them.
    async fn send(self, hub: &Hub, from: Seq) {
        let lane = self.lane();
        match self {
            Self::HelloWithGap => hub.say(UpMessage::Hello(hello_with_gap())).await,
            Self::Parts => hub.parts(lane, from, &self.body(from), 0, PART).await,
            _ => {
                let records = (from..=self.last()).map(|seq| (seq, self.body(seq)));
                hub.records(lane, records).await;
            }
        }
    }
}

fn hello_with_gap() -> Hello {
    let gap = Gap {
        epoch: EVENTS.0,
        stream: EVENTS.1,
        range: SeqRange {
            first: BASE + 1,
            last: LAST,
        },
        reason: GapReason::Damaged,
        at_ms: 1,
    };
    Hello {
        nonce: 77,
        version: "test".into(),
        boot: BootId([1; 16]),
        wall_ms: 0,
        epoch: EVENTS.0,
        lanes: vec![LaneOffer {
            epoch: EVENTS.0,
            stream: EVENTS.1,
            next: LAST + 1,
            held: Vec::new(),
            gaps: vec![gap],
        }],
        partial: false,
    }
}

/// Whether this says that everything of the kind up to its last number is committed.
fn tells_all(kind: Kind, down: &Down) -> bool {
    let lane = kind.lane();
    match &down.msg {
        DownMessage::Ack(ack) => ack
            .lanes
            .iter()
            .any(|l| (l.epoch, l.stream) == (lane.0, lane.1) && l.watermark >= kind.last()),
        DownMessage::Answer(answer) => {
            kind == Kind::HelloWithGap && answer.lanes.iter().any(|l| l.from > LAST)
        }
        _ => false,
    }
}

/// Writes what goes down where the parent reads it, before ingest goes on.
fn ear(kind: Kind, end: End) -> Ear {
    use std::io::Write as _;
    Box::new(move |down| {
        if tells_all(kind, down) {
            std::io::stdout().lock().write_all(b"\nacked .\n").unwrap();
            match end {
                End::Acked => crash::end(),
                // the file had its name before it was seen without one: once more
                End::MediaBegun => std::process::exit(MISSED),
                End::At(_) => {}
            }
        }
    })
}

/// Ends the process as soon as a media file is there that does not have its name.
fn end_while_written(media: PathBuf) {
    std::thread::spawn(move || {
        loop {
            if files(&media).iter().any(|file| is_unnamed(file)) {
                crash::end();
            }
        }
    });
}

/// Not a test of its own: a hub that is told where to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_ends_where_it_is_told() {
    let Some(given) = std::env::var_os(CHILD) else {
        return;
    };
    let given = given.into_string().unwrap();
    let mut given = given.splitn(4, ' ');
    let mut number = || given.next().unwrap().parse::<usize>().unwrap();
    let (kind, end, from) = (KINDS[number()], ENDS[number()], number() as Seq);
    let dir = PathBuf::from(given.next().unwrap());
    let hub = Hub::start_at(&dir, Some(ear(kind, end))).await;
    if from == BASE + 1 {
        for seq in 1..=BASE {
            hub.records(kind.lane(), [(seq, kind.body(seq))]).await;
        }
        hub.until_watermark(kind.lane(), BASE).await;
    }
    match end {
        End::MediaBegun => end_while_written(hub.media_root()),
        End::At(point) => crash::arm(point),
        End::Acked => {}
    }
    if kind == Kind::Small {
        // in a later round the one before, too: nobody heard that it was stored
        let first = if from > BASE + 1 { from - 1 } else { from };
        hub.records(EVENTS, (first..=from).map(|n| (n, event(n))))
            .await;
    } else {
        kind.send(&hub, from).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    panic!("{kind:?} did not come past {end:?}");
}

/// Runs the child; whether it has acknowledged all before it ended where it was told. None if it did not
/// come to end there.
fn end_at(dir: &Path, kind: Kind, end: End, from: Seq) -> Option<bool> {
    let (kind_at, end_at) = (
        KINDS.iter().position(|k| *k == kind).unwrap(),
        ENDS.iter().position(|e| *e == end).unwrap(),
    );
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", NAME])
        .env(
            CHILD,
            format!("{kind_at} {end_at} {from} {}", dir.display()),
        )
        .output()
        .unwrap();
    if end == End::MediaBegun && output.status.code() == Some(MISSED) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{kind:?}, {end:?}: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let heard = |word: &str| said.lines().any(|line| line == word);
    assert!(heard("here ."), "{kind:?}: {end:?} was not hit: {said}");
    Some(heard("acked ."))
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|e| e.ok().map(|e| e.path()));
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

/// Whether it is being written, or was when the hub ended.
fn is_unnamed(file: &Path) -> bool {
    file.to_string_lossy().contains('#')
}

/// Files of the media folder, by the names that rows have for them.
fn media_files(hub: &Hub) -> BTreeSet<String> {
    let root = hub.media_root();
    let below = |path: PathBuf| {
        path.strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    let agents = files(&root.join("agents"));
    agents.into_iter().map(below).collect()
}

/// What must be so of a lane whose records 1 … `last` are stored: each once, each with its bytes.
async fn is_whole(hub: &Hub, kind: Kind, last: Seq) {
    let rows = hub.rows();
    let numbers: BTreeSet<Seq> = rows.iter().map(|((_, seq), _)| *seq).collect();
    assert_eq!(numbers.len(), rows.len(), "{kind:?}: a record stands twice");
    for seq in 1..=last {
        assert!(hub.has(kind.lane(), seq), "{kind:?}: {seq} is gone");
    }
    if kind.lane().1.is_media() {
        let named: BTreeSet<String> = hub
            .texts("SELECT media FROM record ORDER BY seq")
            .into_iter()
            .collect();
        assert_eq!(named.len(), rows.len());
        for path in &named {
            let bytes = hub.media.get(path).await.unwrap();
            let seq = path.rsplit('/').next().unwrap().split('-').nth(1).unwrap();
            let body = kind.body(seq.parse().unwrap());
            let picture = &bytes[..];
            assert!(
                body.windows(picture.len()).any(|w| w == picture),
                "{path} does not hold its picture"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_between_any_two_steps_loses_and_doubles_nothing() {
    for kind in KINDS {
        for end in ENDS.into_iter().filter(|end| kind.passes(*end)) {
            // seeing a file in the few milliseconds of its writing needs luck on a busy machine
            let (dir, acked) = (0..100)
                .find_map(|_| {
                    let dir = tempfile::tempdir().unwrap();
                    let acked = end_at(dir.path(), kind, end, BASE + 1)?;
                    Some((dir, acked))
                })
                .expect("it was never hit");
            assert_eq!(acked, end == End::Acked, "{kind:?}, {end:?}: acked");
            let unnamed = || files(dir.path()).iter().filter(|f| is_unnamed(f)).count();
            if end != End::MediaBegun {
                // which may have got its name between being seen and the end
                let expected = usize::from(end == End::At(Point::MediaWritten));
                assert_eq!(unnamed(), expected, "{kind:?}, {end:?}");
            }
            let hub = Hub::start_at(dir.path(), None).await;
            hub.until(|_| unnamed() == 0).await;
            let gaps = hub.gap_rows();
            match (kind, acked) {
                (Kind::HelloWithGap, true) => assert_eq!(gaps.len(), 1),
                (_, true) => is_whole(&hub, kind, kind.last()).await,
                (_, false) => is_whole(&hub, kind, BASE).await,
            }
            if !acked {
                kind.send(&hub, BASE + 1).await;
                if kind == Kind::HelloWithGap {
                    hub.until(|hub| hub.gap_rows().len() == 1).await;
                } else {
                    hub.until_watermark(kind.lane(), kind.last()).await;
                }
            }
            if kind == Kind::HelloWithGap {
                is_whole(&hub, kind, BASE).await;
                assert_eq!(hub.gap_rows(), [(4, 43)]);
            } else {
                is_whole(&hub, kind, kind.last()).await;
                assert_eq!(hub.rows().len() as u64, kind.last());
            }
            // the record's own file was written again, under the same name
            let named = hub.texts("SELECT media FROM record WHERE media IS NOT NULL");
            assert_eq!(media_files(&hub), named.into_iter().collect());
            assert_eq!(hub.spooled_files(), 0, "{kind:?}, {end:?}");
            println!("{kind:?} ended at {end:?}");
        }
    }
}

/// Row 11 of the complaints: killed between commit and acknowledgement again and again over one
/// database, and each time all that was not acknowledged is sent once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_after_a_kill_before_the_ack_stands_once() {
    let rounds: Seq = std::env::var(ROUNDS).map_or(12, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let from = BASE + 1 + round;
        let end = match round % 2 {
            0 => End::At(Point::Committed),
            _ => End::Acked,
        };
        end_at(dir.path(), Kind::Small, end, from).unwrap();
    }
    let hub = Hub::start_at(dir.path(), None).await;
    let last = BASE + rounds;
    hub.records(EVENTS, (1..=last).map(|n| (n, event(n)))).await;
    hub.until_watermark(EVENTS, last).await;
    is_whole(&hub, Kind::Small, last).await;
    let duplicates = hub.count("SELECT sum(count) FROM duplicate");
    println!(
        "rounds={rounds} rows={} duplicates={duplicates}",
        hub.rows().len()
    );
    assert_eq!(hub.rows().len() as u64, last);
    assert_eq!(duplicates.cast_unsigned(), last + rounds - 1);
}
