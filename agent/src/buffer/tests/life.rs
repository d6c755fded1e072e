//! One life of a process that is ended before it is done: what it is told to do, what it says of it,
//! and what must be on the card afterwards. [`power`](super::power) ends it by a power cut,
//! [`kill`](super::kill) by SIGKILL at a named step.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use scc_common::ranges::RangeSet;
use serde::{Deserialize, Serialize};

use super::model::{Step, bodies, part};
use super::*;
use crate::buffer::Damage;
use crate::buffer::steps::Point;

/// What one life is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) steps: Vec<Step>,
    /// Where the numbers that make each record different begin.
    pub(super) seed: u64,
    /// Hours since the start of the trial.
    pub(super) hours: u64,
    /// When it kills itself; never, if there is none.
    pub(super) aim: Option<Aim>,
}

/// A durable step that is not taken any more.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Aim {
    /// How many are taken before.
    pub(super) after: i64,
    /// Only those of this name count.
    pub(super) only: Option<Point>,
}

/// What it says before and after each thing that the oracle must know.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    Offered(Checksum),
    Accepted(u64, u8, Seq, Checksum),
    /// Ranges of a lane, from first to last.
    Acked(u64, u8, Vec<(Seq, Seq)>),
    Waited(u64),
    LostIndex,
    Done,
    /// The last word: the step that is not taken, or how many were.
    Killed(Point),
    Ended(i64),
}

const ORDER: &str = "SCC_TEST_LIFE_ORDER";
const CARD: &str = "SCC_TEST_LIFE_CARD";

fn say(word: &Word) {
    let line = serde_json::to_string(word).unwrap();
    writeln!(std::io::stdout().lock(), "\n>{line}").unwrap();
}

fn lane_in_words(epoch: u64, stream: u8) -> Lane {
    lane_of(Epoch(epoch), Stream::from_code(stream).unwrap())
}

/// What may be there and what must.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Accepted, with the answer that said so.
    accepted: BTreeMap<(Lane, Seq), Checksum>,
    /// Ever handed to the store.
    offered: HashSet<Checksum>,
    /// Ever told to be at the hub.
    acked: BTreeMap<Lane, RangeSet>,
    /// Hours since the start.
    pub(super) hours: u64,
    /// The card may have torn sled's file where it was not yet synced. Then it is rebuilt from the
    /// records, and what only it knew (what was dropped, what the hub has) is told as damaged.
    may_tear_the_index: bool,
    /// Whether the index was lost once.
    rebuilt: bool,
}

impl Oracle {
    fn hear(&mut self, word: Word) {
        match word {
            Word::Offered(sum) => drop(self.offered.insert(sum)),
            Word::Accepted(epoch, stream, seq, sum) => {
                let lane = lane_in_words(epoch, stream);
                let former = self.accepted.insert((lane, seq), sum);
                assert_eq!(former, None, "{lane:?} {seq} was given twice");
            }
            Word::Acked(epoch, stream, ranges) => {
                let known = self.acked.entry(lane_in_words(epoch, stream)).or_default();
                let ranges = ranges.into_iter();
                ranges.for_each(|(first, last)| known.insert(range(first, last)));
            }
            Word::Waited(hours) => self.hours += hours,
            Word::LostIndex => self.rebuilt = true,
            Word::Done | Word::Killed(_) | Word::Ended(_) => {}
        }
    }

    /// Opens what is on the card and holds it against what was said.
    pub(super) fn check(&mut self, card: &Path) -> Contents {
        let clock = clock();
        clock.advance(u32::try_from(self.hours * 3_600_000).unwrap());
        let mut store = open_store(card, tight(), &clock, &Steps::default()).unwrap();
        let contents = Contents::of(&mut store);
        self.rebuilt |= self.may_tear_the_index && store.damage.detail.is_some();
        if !self.rebuilt {
            assert_eq!(store.damage, Damage::default());
        }
        for (key @ (lane, seq), sum) in &self.accepted {
            let acked = self.acked.get(lane).is_some_and(|set| set.contains(*seq));
            let droppable = acked || lane.stream.is_media();
            match (contents.held.get(key), contents.gaps.get(key)) {
                (Some(held), None) => assert_eq!(held, sum, "{key:?} has changed"),
                (None, Some(GapReason::EvictedBySize | GapReason::EvictedByAge)) => {
                    assert!(lane.stream.is_media(), "{key:?} was given up");
                }
                (None, Some(GapReason::EvictedAfterAck)) => {
                    assert!(acked, "{key:?} was never acknowledged");
                }
                (None, Some(GapReason::Damaged)) => {
                    assert!(self.rebuilt && droppable, "{key:?} is lost");
                }
                // the lane of a former epoch, of which the hub has everything, has been forgotten,
                // or all that was left of it was the index
                (None, None) => {
                    let former = lane.epoch != store.epoch;
                    let known = acked || (self.rebuilt && droppable);
                    assert!(former && known, "{key:?} is unknown");
                }
                other => panic!("{key:?} is {other:?}"),
            }
        }
        for (key, sum) in &contents.held {
            assert!(self.offered.contains(sum), "{key:?} was never captured");
        }
        contents
    }

    /// Of a card that may have torn its index.
    pub(super) fn of_a_card_that_tears() -> Self {
        Self {
            may_tear_the_index: true,
            ..Self::default()
        }
    }

    /// How much has been accepted.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.len()
    }
}

/// A process that lives.
pub(super) struct Life {
    pub(super) child: Child,
    pub(super) said: Said,
}

/// What it says.
pub(super) struct Said(BufReader<ChildStdout>);

/// How it ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// Steps of its order that it did whole.
    pub(super) done: usize,
    /// Where it killed itself.
    pub(super) killed: Option<Point>,
    /// Durable steps that it took if it came to its end.
    pub(super) taken: Option<i64>,
}

impl Life {
    /// Begins one on a card.
    pub(super) fn begin(card: &Path, order: &Order) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("buffer::tests::life::child_that_does_as_ordered")
            .env(ORDER, serde_json::to_string(order).unwrap())
            .env(CARD, card)
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = Said(BufReader::new(child.stdout.take().unwrap()));
        Self { child, said }
    }
}

impl Said {
    /// Tells the oracle all of it, to the end of the process.
    pub(super) fn tell(self, oracle: &mut Oracle) -> Heard {
        let mut heard = Heard::default();
        for line in self.0.lines() {
            let Some(word) = line.unwrap().strip_prefix('>').map(str::to_owned) else {
                continue;
            };
            let word = serde_json::from_str(&word).unwrap();
            match &word {
                Word::Done => heard.done += 1,
                Word::Killed(point) => heard.killed = Some(*point),
                Word::Ended(taken) => heard.taken = Some(*taken),
                _ => {}
            }
            oracle.hear(word);
        }
        heard
    }
}

/// Steps that no life has.
const MANY: i64 = 1 << 40;

/// Not a test of its own: the process that is ended. It goes on until a step fails, as the worker
/// would, which then opens anew.
#[test]
fn child_that_does_as_ordered() {
    let Some(order) = std::env::var_os(ORDER) else {
        return;
    };
    let order: Order = serde_json::from_str(order.to_str().unwrap()).unwrap();
    let card = std::env::var_os(CARD).unwrap();
    let card = Path::new(&card);
    let clock = clock();
    clock.advance(u32::try_from(order.hours * 3_600_000).unwrap());
    let aim = order.aim.unwrap_or(Aim {
        after: MANY,
        only: None,
    });
    let durable = Steps::killing_after(aim.after, aim.only, |point| say(&Word::Killed(point)));
    let mut seed = order.seed;
    // without a drop: a process that ends so does not close anything
    let or_end = |opened: Result<Store, _>| opened.unwrap_or_else(|_| std::process::exit(1));
    let mut store = or_end(open_store(card, tight(), &clock, &durable));
    for step in &order.steps {
        take(step, &mut store, &clock, &mut seed);
        if store.broken.is_some() {
            std::process::exit(1);
        }
        match step {
            Step::Reopen => {
                drop(store);
                store = or_end(open_store(card, tight(), &clock, &durable));
            }
            Step::LoseIndex => {
                say(&Word::LostIndex);
                drop(store);
                let shared: SharedClock = clock.clone();
                let root = card.join("buffer");
                // it is gone, or it has failed while it was used
                let suspect = seed.is_multiple_of(2);
                if !suspect {
                    std::fs::remove_dir_all(root.join("index")).unwrap();
                }
                store = or_end(Store::open(&root, tight(), &shared, &durable, suspect));
            }
            _ => {}
        }
        say(&Word::Done);
    }
    say(&Word::Ended(aim.after - durable.left()));
    std::process::exit(0);
}

/// Does one step and says what is answered.
fn take(step: &Step, store: &mut Store, clock: &Arc<ManualClock>, seed: &mut u64) {
    match step {
        Step::Append(records) => {
            let bodies = bodies(records, &**clock, seed);
            let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
            let sums: Vec<Checksum> = group.iter().map(|r| Checksum::of(&r.body)).collect();
            sums.iter().for_each(|sum| say(&Word::Offered(*sum)));
            for (answer, sum) in store.append(&group).into_iter().zip(sums) {
                if let Ok(a) = answer {
                    say(&Word::Accepted(a.epoch.0, a.stream.code(), a.seq, sum));
                }
            }
        }
        Step::Acknowledge(water, first, len) => {
            for offer in store.offers() {
                let water = part(offer.next, *water);
                let first = part(offer.next, *first).max(1);
                let above = range(first, first + u64::from(*len) / 10);
                let said = vec![(1, water), (above.first, above.last)];
                say(&Word::Acked(offer.epoch.0, offer.stream.code(), said));
                // an answer of the hub that is forgotten is given again
                let _ = store.acknowledge(lane(&offer), water, &[above]);
            }
        }
        Step::WantAgain(first, last) => {
            for offer in store.offers() {
                let wanted = range(part(offer.next, *first).max(1), part(offer.next, *last));
                // a hub that wants them says so again at the next hello
                let _ = store.want_again(lane(&offer), &[wanted]);
            }
        }
        Step::NewEpoch => drop(store.begin_epoch()),
        Step::Wait(hours) => {
            clock.advance(u32::from(*hours) * 3_600_000);
            say(&Word::Waited(u64::from(*hours)));
            if hours % 2 == 1 {
                // as where room is short
                store.disk.drop_ballast();
            }
            // what could not be dropped now is dropped after the next opening
            let _ = store.tend();
        }
        Step::Reopen | Step::LoseIndex => {}
    }
}
