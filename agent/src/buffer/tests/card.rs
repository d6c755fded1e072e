//! The card of a dead box: looked at, exported, imported into the replacement.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use scc_common::clock::{ClockQuality, SystemClock};
use scc_common::export::{self, Begin, End, Item, Reader, Writer};
use scc_common::id::AgentId;
use scc_common::ranges::RangeSet;

use super::*;
use crate::buffer::export::{ExportFailure, Exported, export};
use crate::buffer::import::{Export, ImportFailure, Imported, import};
use crate::buffer::{BufferError, check, inspect, owner};

fn agent() -> AgentId {
    AgentId::new("salotungo").unwrap()
}

/// The card of a dead box: 40 events of which the hub has 1 … 10, 12 stills, 4 segments.
async fn dead_box(dir: &Path) -> Contents {
    let clock = clock();
    let buffer = open(dir, &clock);
    owner::note(&inspect::root(dir), &agent()).unwrap();
    for n in 0..40 {
        buffer
            .append(&event(&*clock, &format!("event {n}")))
            .await
            .unwrap();
    }
    for seed in 0..12 {
        buffer
            .append(&snapshot(&*clock, seed, 20_000))
            .await
            .unwrap();
    }
    for seed in 0..4 {
        buffer
            .append(&segment(&*clock, 100 + seed, 300_000))
            .await
            .unwrap();
    }
    let lane = lane_of(buffer.epoch().await.unwrap(), Stream::Event);
    buffer.acknowledge(lane, 10, Vec::new()).await.unwrap();
    let contents = Contents::of_buffer(&buffer).await;
    buffer.close().await;
    contents
}

/// Every file below a folder with its bytes and the time of its last change.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

/// The only file of records of a stream.
fn file_of(dir: &Path, stream: Stream) -> PathBuf {
    let folder = inspect::root(dir).join(stream.name());
    let mut files = fs::read_dir(folder).unwrap();
    let path = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none(), "{stream}: more than one file");
    path
}

/// Turns bytes of a file over.
fn spoil(path: &Path, at: usize, len: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + len].iter_mut().for_each(|b| *b ^= 0xff);
    fs::write(path, bytes).unwrap();
}

/// Where the header of a number stands in a file.
fn offset_of(path: &Path, seq: Seq) -> usize {
    use crate::buffer::format::Header;
    let bytes = fs::read(path).unwrap();
    let mut at = 0;
    loop {
        let header = Header::decode(&bytes[at..]).unwrap();
        if header.seq == seq {
            return at;
        }
        at += usize::try_from(header.total()).unwrap();
    }
}

fn do_export(dir: &Path, file: &Path) -> Result<Exported, ExportFailure> {
    export(&inspect::root(dir), None, file, &SystemClock::new())
}

fn do_import(dir: &Path, file: &Path, limits: BufferLimits) -> Result<Imported, ImportFailure> {
    let clock: SharedClock = clock();
    import(dir, limits, &clock, &agent(), file)
}

fn records(file: &Path) -> BTreeMap<(Lane, Seq), Checksum> {
    let file = BufReader::new(fs::File::open(file).unwrap());
    let (_, mut reader) = Reader::open(file).unwrap();
    let mut found = BTreeMap::new();
    while let Item::Record(header, _) = reader.step().unwrap() {
        let lane = lane_of(header.epoch, header.stream);
        let twice = found.insert((lane, header.seq), header.sum);
        assert!(twice.is_none(), "{lane:?} {} stands twice", header.seq);
    }
    found
}

fn ends(file: &Path) -> (Begin, End) {
    export::verify(BufReader::new(fs::File::open(file).unwrap())).unwrap()
}

async fn contents(dir: &Path) -> Contents {
    let buffer = open(dir, &clock());
    let contents = Contents::of_buffer(&buffer).await;
    buffer.close().await;
    contents
}

#[tokio::test]
async fn a_check_counts_every_record_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let held = dead_box(dir.path()).await.held;
    let before = tree(dir.path());
    let root = check::folder(dir.path());
    assert_eq!(check::folder(&root), root, "either folder may be named");
    let seen = check::check(&root).unwrap();
    assert!(seen.is_clean() && !seen.in_use);
    let whole: u64 = seen.lanes.values().map(|lane| lane.whole.count()).sum();
    assert_eq!(whole, held.len() as u64);
    assert_eq!(tree(dir.path()), before);
    let nothing = check::check(&dir.path().join("nowhere")).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::NotFound);
    let foreign = tempfile::tempdir().unwrap();
    assert!(check::check(foreign.path()).is_err());
}

#[tokio::test]
async fn a_check_names_the_numbers_that_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let held = dead_box(dir.path()).await.held;
    let events = file_of(dir.path(), Stream::Event);
    // a body, two headers one after the other, and the end of the file
    spoil(&events, offset_of(&events, 15) + 90, 3);
    let (from, to) = (offset_of(&events, 20), offset_of(&events, 22));
    spoil(&events, from, to - from);
    let len = fs::metadata(&events).unwrap().len();
    let cut = fs::OpenOptions::new().write(true).open(&events).unwrap();
    cut.set_len(len - 5).unwrap();
    let before = tree(dir.path());
    let seen = check::check(&inspect::root(dir.path())).unwrap();
    assert!(!seen.is_clean());
    let epoch = held.keys().next().unwrap().0.epoch;
    let lane = &seen.lanes[&lane_of(epoch, Stream::Event)];
    assert_eq!(lane.damaged.as_slice(), [range(15, 15), range(20, 21)]);
    assert_eq!(lane.whole.count(), 40 - 3 - 1, "the last one is torn");
    assert!(lane.unreadable > 0);
    let stills = &seen.lanes[&lane_of(epoch, Stream::Snapshot)];
    assert_eq!(stills.whole.as_slice(), [range(1, 12)]);
    assert!(stills.damaged.is_empty() && stills.unreadable == 0);
    assert_eq!(tree(dir.path()), before);
}

#[tokio::test]
async fn a_check_of_a_running_buffer_is_let_and_does_not_call_a_record_on_its_way_damage() {
    let dir = tempfile::tempdir().unwrap();
    dead_box(dir.path()).await;
    let buffer = open(dir.path(), &clock());
    let events = file_of(dir.path(), Stream::Event);
    let file = fs::OpenOptions::new().append(true).open(&events).unwrap();
    std::io::Write::write_all(&mut &file, b"SccR half a header").unwrap();
    let seen = check::check(&inspect::root(dir.path())).unwrap();
    assert!(seen.in_use && seen.is_clean(), "{seen:?}");
    buffer.close().await;
    let seen = check::check(&inspect::root(dir.path())).unwrap();
    assert!(!seen.in_use && !seen.is_clean(), "{seen:?}");
}

#[tokio::test]
async fn an_export_has_every_record_once_and_leaves_the_card_alone() {
    let dir = tempfile::tempdir().unwrap();
    let held = dead_box(dir.path()).await.held;
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("salotungo.sccx");
    let before = tree(dir.path());
    let done = do_export(dir.path(), &file).unwrap();
    assert_eq!(tree(dir.path()), before);
    assert_eq!(records(&file), held);
    let (begin, end) = ends(&file);
    assert_eq!((&begin.agent, &end), (&agent(), &done.end));
    assert_eq!(end.records, held.len() as u64);
    assert!(done.index && done.damaged == 0);
    let events = end.lanes.iter().find(|l| l.stream == Stream::Event);
    let events = events.unwrap();
    assert_eq!((events.next, events.acked[0]), (41, range(1, 10)));
    assert!(events.gaps.is_empty());
    // nothing but the file, for nobody else to read
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = do_export(dir.path(), &file).unwrap_err();
    assert!(matches!(again, ExportFailure::Exists(_)), "{again}");
}

#[tokio::test]
async fn what_is_damaged_is_a_gap_in_the_export_with_and_without_an_index() {
    for with_index in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let held = dead_box(dir.path()).await.held;
        let events = file_of(dir.path(), Stream::Event);
        spoil(&events, offset_of(&events, 3) + 90, 1);
        spoil(&events, offset_of(&events, 30) + 90, 1);
        if !with_index {
            fs::remove_dir_all(inspect::root(dir.path()).join("index")).unwrap();
        }
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("x");
        let done = do_export(dir.path(), &file).unwrap();
        assert_eq!(done.index, with_index);
        assert_eq!(records(&file).len(), held.len() - 2);
        let (_, end) = ends(&file);
        let events = end.lanes.iter().find(|l| l.stream == Stream::Event);
        let gaps = events.unwrap().gaps.iter();
        let gaps: Vec<_> = gaps.map(|g| (g.range, g.reason)).collect();
        // no header here was written after the acknowledgement: only the index knows of it
        let third = match with_index {
            true => GapReason::EvictedAfterAck,
            false => GapReason::Damaged,
        };
        let expected = [(range(3, 3), third), (range(30, 30), GapReason::Damaged)];
        assert_eq!(gaps, expected);
        assert_eq!(done.damaged, if with_index { 1 } else { 2 });
    }
}

#[tokio::test]
async fn an_export_is_refused_while_an_agent_runs_and_without_knowing_whose_it_is() {
    let dir = tempfile::tempdir().unwrap();
    dead_box(dir.path()).await;
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("x");
    let root = inspect::root(dir.path());
    let buffer = open(dir.path(), &clock());
    let refused = do_export(dir.path(), &file).unwrap_err();
    assert!(matches!(refused, ExportFailure::InUse), "{refused}");
    buffer.close().await;
    let rsud = AgentId::new("rsud").unwrap();
    let try_as = |said| export(&root, said, &file, &SystemClock::new());
    let refused = try_as(Some(rsud.clone())).unwrap_err();
    assert!(matches!(refused, ExportFailure::OtherAgent(a) if a == agent()));
    fs::remove_file(root.join("agent")).unwrap();
    let refused = try_as(None).unwrap_err();
    assert!(matches!(refused, ExportFailure::NoAgent), "{refused}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    assert_eq!(try_as(Some(rsud.clone())).unwrap().agent, rsud);
}

#[tokio::test]
async fn the_replacement_box_holds_what_the_card_had_beside_its_own_and_a_repeat_changes_nothing() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let card = dead_box(old.path()).await;
    let file = old.path().join("x");
    do_export(old.path(), &file).unwrap();
    let own = dead_box(new.path()).await;
    let done = do_import(new.path(), &file, roomy()).unwrap();
    assert_eq!(done.stored, card.held.len() as u64);
    let both: BTreeMap<_, _> = card.held.iter().chain(&own.held).collect();
    let after = contents(new.path()).await;
    assert_eq!(after.held.iter().collect::<BTreeMap<_, _>>(), both);
    assert!(after.gaps.is_empty());
    let again = do_import(new.path(), &file, roomy()).unwrap();
    assert_eq!((again.stored, again.held), (0, card.held.len() as u64));
    assert_eq!(contents(new.path()).await.held, after.held);
    // what the old box knew to be at the hub is not sent again unless the hub asks
    let buffer = open(new.path(), &clock());
    let epoch = card.held.keys().next().unwrap().0.epoch;
    let told = buffer.stat().await.unwrap();
    let events = told
        .iter()
        .find(|l| (l.epoch, l.stream) == (epoch, Stream::Event));
    assert_eq!(events.unwrap().records, 30);
    // and new records have numbers of this box
    let one_more = buffer.append(&event(&*clock(), "new")).await.unwrap();
    assert_ne!(one_more.epoch, epoch);
    buffer.close().await;
}

#[tokio::test]
async fn an_import_killed_between_any_two_steps_is_completed_by_repeating_it() {
    let (old, steps_of) = (tempfile::tempdir().unwrap(), in_memory());
    let card = dead_box(old.path()).await;
    let file = old.path().join("x");
    do_export(old.path(), &file).unwrap();
    // without the lock file: a test that forks beside this one may hold it for a moment
    let clock = clock();
    let import = |dir: &Path, steps: &Steps| {
        let store = open_store(dir, roomy(), &clock, steps)?;
        Export::open(&file, &agent())?.into(store)
    };
    let contents = |dir: &Path| {
        let mut store = open_store(dir, roomy(), &clock, &Steps::default()).unwrap();
        Contents::of(&mut store)
    };
    let counting = Steps::ending_after(1_000_000);
    import(steps_of.path(), &counting).unwrap();
    let steps = 1_000_000 - counting.left();
    assert!(steps > 20, "{steps}");
    for n in 0..steps {
        let new = in_memory();
        let done = import(new.path(), &Steps::ending_after(n));
        assert!(done.is_err(), "step {n} of {steps}");
        // the agent may be started in between: what it tells is complete
        let between = contents(new.path());
        for (key, sum) in &between.held {
            assert_eq!(card.held[key], *sum, "step {n}");
        }
        let damaged = |reason: &GapReason| *reason == GapReason::Damaged;
        assert!(!between.gaps.values().any(damaged), "step {n}");
        import(new.path(), &Steps::default()).unwrap();
        let after = contents(new.path());
        assert_eq!(after.held, card.held, "step {n}");
        assert!(after.gaps.is_empty(), "step {n}");
    }
}

#[tokio::test]
async fn an_import_drops_nothing_that_the_hub_has_not() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let card = dead_box(old.path()).await;
    let file = old.path().join("x");
    do_export(old.path(), &file).unwrap();
    let clock = clock();
    let own = {
        let buffer = Buffer::open(new.path(), tight(), clock.clone()).unwrap();
        for seed in 200..208 {
            let still = snapshot(&*clock, seed, 20_000);
            buffer.append(&still).await.unwrap();
        }
        let own = Contents::of_buffer(&buffer).await;
        buffer.close().await;
        own
    };
    let done = do_import(new.path(), &file, tight()).unwrap();
    let store_with = |dir: &Path| {
        let mut store = open_store(dir, tight(), &clock, &Steps::default()).unwrap();
        Contents::of(&mut store)
    };
    let after = store_with(new.path());
    assert!(own.held.iter().all(|(key, sum)| after.held[key] == *sum));
    let all = card.held.len() as u64;
    assert_eq!(done.stored + done.no_room, all);
    // every segment is larger than all room for media, the events fit
    assert!(done.no_room >= 4 && done.stored >= 40, "{done:?}");
    let events = |held: &BTreeMap<(Lane, Seq), Checksum>| {
        let events = held.keys().filter(|(l, _)| l.stream == Stream::Event);
        events.count()
    };
    assert_eq!(events(&after.held), 40);
    let bytes: u64 = tree(&inspect::root(new.path()))
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "rec"))
        .map(|(_, (bytes, _))| bytes.len() as u64)
        .sum();
    assert!(bytes <= tight().all_bytes());
    let again = do_import(new.path(), &file, tight()).unwrap();
    assert_eq!((again.stored, again.held), (0, done.stored));
    assert_eq!(store_with(new.path()).held, after.held);
}

#[tokio::test]
async fn media_past_its_age_is_left_to_the_hub_and_told_as_a_gap() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let clock = clock();
    clock.set_quality(ClockQuality::Ntp);
    let buffer = open(old.path(), &clock);
    owner::note(&inspect::root(old.path()), &agent()).unwrap();
    buffer.append(&event(&*clock, "kept")).await.unwrap();
    buffer.append(&snapshot(&*clock, 1, 900)).await.unwrap();
    buffer.close().await;
    let file = old.path().join("x");
    do_export(old.path(), &file).unwrap();
    let later: SharedClock = ManualClock::at(NOW + 25 * 3_600_000);
    let done = import(new.path(), roomy(), &later, &agent(), &file).unwrap();
    assert_eq!((done.stored, done.dropped), (1, 1));
    let after = contents(new.path()).await;
    let reasons: Vec<_> = after.gaps.values().collect();
    assert_eq!(reasons, [&GapReason::EvictedByAge]);
    let again = import(new.path(), roomy(), &later, &agent(), &file).unwrap();
    assert_eq!((again.stored, again.held, again.dropped), (0, 1, 1));
    assert_eq!(contents(new.path()).await.gaps, after.gaps);
}

#[tokio::test]
async fn a_copy_of_this_very_card_fills_its_holes_and_new_records_begin_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let card = dead_box(dir.path()).await;
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("x");
    do_export(dir.path(), &file).unwrap();
    let events = file_of(dir.path(), Stream::Event);
    let (from, to) = (offset_of(&events, 12), offset_of(&events, 14));
    spoil(&events, from, to - from);
    let spoiled = contents(dir.path()).await;
    assert_eq!(spoiled.held.len(), card.held.len() - 2);
    let done = do_import(dir.path(), &file, roomy()).unwrap();
    assert_eq!((done.stored, done.conflicts), (2, 0));
    let after = contents(dir.path()).await;
    assert_eq!(after.held, card.held);
    assert!(after.gaps.is_empty());
    let buffer = open(dir.path(), &clock());
    let next = buffer.append(&event(&*clock(), "new")).await.unwrap();
    assert!(card.held.keys().all(|(lane, _)| lane.epoch != next.epoch));
    buffer.close().await;
    assert_eq!(contents(dir.path()).await.held.len(), card.held.len() + 1);
}

#[tokio::test]
async fn another_body_under_the_same_number_is_left_alone_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let card = dead_box(dir.path()).await;
    let lane = *card.held.keys().map(|(lane, _)| lane).next().unwrap();
    assert_eq!(lane.stream, Stream::Event);
    let file = dir.path().join("x");
    let begin = Begin {
        agent: agent(),
        made_ms: 0,
        version: String::new(),
    };
    let body = event(&*clock(), "something else").encode();
    let header = crate::buffer::format::Header {
        stream: lane.stream,
        epoch: lane.epoch,
        seq: 5,
        stamp: clock().stamp(),
        acked: 0,
        len: u32::try_from(body.len()).unwrap(),
        sum: Checksum::of(&body),
    };
    let mut writer = Writer::begin(fs::File::create(&file).unwrap(), &begin).unwrap();
    writer.record(&header, &body).unwrap();
    let facts = scc_common::export::LaneFacts {
        epoch: lane.epoch,
        stream: lane.stream,
        next: 6,
        acked: Vec::new(),
        gaps: Vec::new(),
    };
    writer.end(vec![facts]).unwrap();
    let done = do_import(dir.path(), &file, roomy()).unwrap();
    assert_eq!((done.stored, done.conflicts), (0, 1));
    assert_eq!(contents(dir.path()).await.held, card.held);
}

#[tokio::test]
async fn a_foreign_a_cut_and_a_running_buffers_file_are_refused_before_anything_is_made() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dead_box(old.path()).await;
    let file = old.path().join("x");
    do_export(old.path(), &file).unwrap();
    let clock: SharedClock = clock();
    let rsud = AgentId::new("rsud").unwrap();
    let refused = import(new.path(), roomy(), &clock, &rsud, &file).unwrap_err();
    assert!(matches!(refused, ImportFailure::OtherAgent { .. }));
    let bytes = fs::read(&file).unwrap();
    let cut = old.path().join("cut");
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let refused = do_import(new.path(), &cut, roomy()).unwrap_err();
    assert!(matches!(refused, ImportFailure::File { .. }), "{refused}");
    assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);
    let buffer = open(old.path(), &super::clock());
    let refused = do_import(old.path(), &file, roomy()).unwrap_err();
    let in_use = matches!(refused, ImportFailure::Buffer(BufferError::InUse(_)));
    assert!(in_use, "{refused}");
    buffer.close().await;
}

#[tokio::test]
async fn an_imported_lane_keeps_the_rules_of_its_files_when_it_is_dropped() {
    // two imports that interleave: no file may span a number that another one holds
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let card = dead_box(old.path()).await;
    let stills = file_of(old.path(), Stream::Snapshot);
    let whole = fs::read(&stills).unwrap();
    let hurt = [2, 3, 7, 11];
    for seq in hurt {
        spoil(&stills, offset_of(&stills, seq) + 90, 1);
    }
    let (first, second) = (old.path().join("first"), old.path().join("second"));
    do_export(old.path(), &first).unwrap();
    fs::write(&stills, whole).unwrap();
    do_export(old.path(), &second).unwrap();
    let done = do_import(new.path(), &first, roomy()).unwrap();
    assert_eq!(done.stored, card.held.len() as u64 - 4);
    let between = contents(new.path()).await;
    assert_eq!(between.gaps.len(), 4);
    let done = do_import(new.path(), &second, roomy()).unwrap();
    assert_eq!(done.stored, 4);
    assert_eq!(contents(new.path()).await.held, card.held);
    let store = open_store(new.path(), roomy(), &clock(), &Steps::default()).unwrap();
    let mut seen: BTreeMap<Lane, RangeSet> = BTreeMap::new();
    for (id, info) in &store.files {
        let lane = seen.entry(id.lane()).or_default();
        let span = info.range();
        assert!(lane.within(span).is_empty(), "{id:?} spans another file");
        lane.insert(span);
    }
}
