//! Every block of 4 KiB of every file below the buffer's folder, each once zeroed, once with flipped
//! bits, once as the end of its file: the buffer opens within ten seconds, yields every record whose
//! bytes were not touched and no other, tells the rest as gaps, and goes on.
//!
//! `make test` tries a seeded sample of the blocks, each file with each form at least once;
//! `SCC_SWEEP=all cargo test -p scc-agent --lib sweep -- --nocapture` all of them,
//! `SCC_SWEEP_SEED` repeats one. What this does not prove: damage in two places at once.

use std::fs;
use std::path::PathBuf;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};
use scc_common::id::AgentId;
use scc_common::ranges::RangeSet;

use super::damage::{files, open_damaged};
use super::limits::punches;
use super::*;
use crate::buffer::format::HEADER_LEN;
use crate::buffer::owner;

const BLOCK: usize = 4096;

/// Blocks of a sample, beside one of each file.
const SAMPLE: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// The block reads as zeros.
    Zeroed,
    /// Some bits of it are others.
    Flipped,
    /// The file ends where the block began.
    Truncated,
}

impl Form {
    const ALL: [Self; 3] = [Self::Zeroed, Self::Flipped, Self::Truncated];

    /// What becomes of a file whose block at `at` is harmed.
    fn harm(self, bytes: &[u8], at: usize, rng: &mut StdRng) -> Vec<u8> {
        let mut harmed = bytes.to_vec();
        let end = bytes.len().min(at + BLOCK);
        match self {
            Self::Zeroed => harmed[at..end].fill(0),
            Self::Truncated => harmed.truncate(at),
            Self::Flipped => {
                for _ in 0..8 {
                    harmed[rng.random_range(at..end)] ^= 1 << rng.random_range(0..8);
                }
            }
        }
        harmed
    }
}

/// One block of one file, below the folder of the buffer.
#[derive(Debug, Clone)]
struct Block {
    file: PathBuf,
    at: usize,
}

/// A buffer as it should be, and what is where in it.
struct Golden {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    contents: Contents,
    acked: BTreeMap<Lane, RangeSet>,
    /// Where the bytes of a record are: file, first byte, end.
    places: BTreeMap<(Lane, Seq), (PathBuf, usize, usize)>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Golden {
    /// Four streams in two epochs, several files of each, some records acknowledged, some dropped,
    /// with the ballast and the name of the agent.
    fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
        let small = limits(384 << 10, 512 << 10, 128 << 10);
        let mut store = open_store(dir.path(), small, &clock, &Steps::default()).unwrap();
        for n in 0..48u64 {
            let mut bodies = vec![
                event(&*clock, &format!("event {n} {}", "x".repeat(700))),
                segment(&*clock, n, 10_000),
            ];
            if n % 3 == 0 {
                bodies.push(punches(&*clock, n));
                bodies.push(snapshot(&*clock, n, 5_000));
            }
            let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
            assert!(store.append(&group).iter().all(Result::is_ok));
            if n == 30 {
                for (stream, water) in [(Stream::Event, 9), (Stream::Segment, 15)] {
                    let lane = lane_of(store.epoch, stream);
                    store.acknowledge(lane, water, &[range(20, 21)]).unwrap();
                }
                store.begin_epoch().unwrap();
            }
        }
        store.tend().unwrap();
        owner::note(store.disk.root(), &AgentId::new("rsud").unwrap()).unwrap();
        let contents = Contents::of(&mut store);
        let mut places = BTreeMap::new();
        for (lane, seq) in contents.held.keys() {
            let place = store.index.place(*lane, *seq).unwrap().unwrap();
            let lane_files = store.files.keys().filter(|id| id.lane() == *lane);
            let id = lane_files.into_iter().find(|id| id.no == place.file);
            let path = store.disk.path(*id.unwrap());
            let path = path.strip_prefix(dir.path()).unwrap().to_owned();
            let first = usize::try_from(place.offset).unwrap();
            let end = first + HEADER_LEN + place.len as usize;
            places.insert((*lane, *seq), (path, first, end));
        }
        let acked = store.lanes.iter();
        let acked = acked.map(|(lane, state)| (*lane, state.acked.clone()));
        let acked = acked.collect();
        drop(store);
        let mut paths = Vec::new();
        files(dir.path(), &mut paths);
        let name = |path: &PathBuf| path.strip_prefix(dir.path()).unwrap().to_owned();
        let read = paths.iter().map(|p| (name(p), fs::read(p).unwrap()));
        let files = read.collect();
        Self {
            dir,
            clock,
            contents,
            acked,
            places,
            files,
        }
    }

    fn blocks(&self) -> Vec<Block> {
        let of = |(file, bytes): (&PathBuf, &Vec<u8>)| {
            let blocks = (0..bytes.len()).step_by(BLOCK);
            let block = |at| Block {
                file: file.clone(),
                at,
            };
            blocks.map(block).collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of).collect()
    }

    /// Records of which a byte is another one in `harmed`.
    fn touched(&self, file: &Path, harmed: &[u8]) -> Vec<(Lane, Seq)> {
        let bytes = &self.files[file];
        let here = self.places.iter().filter(|(_, (path, ..))| path == file);
        let touched = here
            .filter(|(_, (_, first, end))| harmed.get(*first..*end) != Some(&bytes[*first..*end]));
        touched.map(|(key, _)| *key).collect()
    }

    /// Harms one block and looks at what is left of the buffer. None if the harm changes nothing;
    /// otherwise how many records it cost.
    fn try_one(&self, block: &Block, form: Form, rng: &mut StdRng) -> Option<usize> {
        let bytes = &self.files[&block.file];
        let harmed = form.harm(bytes, block.at, rng);
        if harmed == *bytes {
            return None;
        }
        let touched = self.touched(&block.file, &harmed);
        let (dir, mut store) = open_damaged(self.dir.path(), &self.clock, |copy| {
            fs::write(copy.join(&block.file), &harmed).unwrap();
        });
        let contents = Contents::of(&mut store);
        for (key, sum) in &self.contents.held {
            match (contents.held.get(key), contents.gaps.get(key)) {
                (Some(held), None) => {
                    assert_eq!(held, sum, "{key:?} has changed");
                    assert!(!touched.contains(key), "{key:?} is yielded");
                }
                (None, Some(reason)) => {
                    assert!(touched.contains(key), "{key:?} is lost: {reason:?}");
                    let expected = match self.is_acked(key) {
                        true => GapReason::EvictedAfterAck,
                        false => GapReason::Damaged,
                    };
                    assert_eq!(*reason, expected, "{key:?}");
                }
                other => panic!("{key:?} is {other:?}"),
            }
        }
        let known = |key| self.contents.held.contains_key(key);
        assert!(contents.held.keys().all(known), "a record from nowhere");
        // what policy had dropped before is told as such, or as damaged if only the index knew it
        for key in self.contents.gaps.keys() {
            assert!(contents.gaps.contains_key(key), "{key:?} is forgotten");
        }
        for (lane, state) in &store.lanes {
            let none = RangeSet::default();
            let truth = self.acked.get(lane).unwrap_or(&none);
            let more = state.acked.minus(truth);
            assert!(more.is_empty(), "{lane:?}: {more:?} the hub never had");
        }
        let lost = touched.iter().filter(|key| !self.is_acked(key)).count();
        if lost > 0 {
            assert!(store.damage.detail.is_some(), "not reported");
            assert_eq!(store.damage.records, lost as u64, "{:?}", store.damage);
        }
        self.goes_on(dir.path(), store, contents);
        Some(touched.len())
    }

    fn is_acked(&self, (lane, seq): &(Lane, Seq)) -> bool {
        self.acked.get(lane).is_some_and(|set| set.contains(*seq))
    }

    /// New records are accepted under new numbers, and another opening finds it all the same.
    fn goes_on(&self, dir: &Path, mut store: Store, mut contents: Contents) {
        for body in [event(&*self.clock, "on"), segment(&*self.clock, 99, 9_000)] {
            let answer = store.append(&[incoming(&body)]).remove(0).unwrap();
            let key = (lane_of(answer.epoch, answer.stream), answer.seq);
            assert!(!self.contents.held.contains_key(&key), "{key:?} again");
            assert!(!self.contents.gaps.contains_key(&key), "{key:?} again");
            contents.held.insert(key, Checksum::of(&body.encode()));
        }
        drop(store);
        let mut store = open_store(dir, roomy(), &self.clock, &Steps::default()).unwrap();
        let again = Contents::of(&mut store);
        assert_eq!((again.held, again.gaps), (contents.held, contents.gaps));
    }
}

#[test]
fn whatever_block_is_damaged_all_other_records_come_and_the_rest_is_told() {
    let seed =
        std::env::var("SCC_SWEEP_SEED").map_or_else(|_| rand::random(), |n| n.parse().unwrap());
    println!("SCC_SWEEP_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let golden = Golden::new();
    let blocks = golden.blocks();
    let all = std::env::var("SCC_SWEEP").is_ok_and(|form| form == "all");
    let mut figures: BTreeMap<Form, [usize; 4]> = BTreeMap::new();
    for form in Form::ALL {
        let chosen: Vec<&Block> = if all {
            blocks.iter().collect()
        } else {
            sample(&blocks, &mut rng)
        };
        for block in chosen {
            let place = format!("{form:?} {} at {}", block.file.display(), block.at);
            // a panic names the place by what was printed last
            println!("{place}");
            let [tried, unchanged, costly, records] = figures.entry(form).or_default();
            match golden.try_one(block, form, &mut rng) {
                None => *unchanged += 1,
                Some(lost) => {
                    *tried += 1;
                    *costly += usize::from(lost > 0);
                    *records += lost;
                }
            }
        }
    }
    println!(
        "{} files, {} blocks, {} records",
        golden.files.len(),
        blocks.len(),
        golden.contents.held.len()
    );
    for (form, [tried, unchanged, costly, records]) in figures {
        println!(
            "{form:?}: {tried} tried ({unchanged} changed nothing), {costly} cost records, {records} in all"
        );
        assert!(costly > 5, "{form:?} harmed {costly} times only");
    }
}

/// One block of each file, and some more of those that hold something.
fn sample<'a>(blocks: &'a [Block], rng: &mut StdRng) -> Vec<&'a Block> {
    let mut chosen = Vec::new();
    for of_file in blocks.chunk_by(|a, b| a.file == b.file) {
        chosen.extend(of_file.choose(rng));
    }
    let held: Vec<&Block> = blocks
        .iter()
        .filter(|block| !block.file.ends_with("ballast"))
        .collect();
    chosen.extend(held.choose_multiple(rng, SAMPLE));
    chosen
}
