//! The process is killed (SIGKILL, nothing is closed) between any two durable steps of the real store:
//! nothing that was accepted is lost, torn or numbered twice, and it opens again, twice.
//!
//! 40 rounds; `SCC_KILL_ROUNDS=200 cargo test -p scc-agent --lib kill::` for the long form,
//! `SCC_KILL_SEED` repeats one. What this does not prove: a kill leaves the kernel's cache as it was,
//! so that a missing fsync is not seen here but in [`power`](super::power).

use std::os::unix::process::ExitStatusExt;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

use super::life::{Aim, Heard, Life, Oracle, Order};
use super::model::{Step, steps};
use super::*;
use crate::buffer::steps::Point;

/// Durable steps of an opening: so few after the last kill are taken within the restart.
const OPENING: i64 = 60;

/// Every kind of durable step, in one life.
fn everything() -> Vec<Step> {
    let one = |kind, kb| Step::Append(vec![(kind, kb)]);
    let many = || Step::Append(vec![(2, 29), (1, 20), (0, 1), (2, 29), (1, 9)]);
    let mut all = vec![one(0, 1), one(0, 1), one(2, 3), Step::Wait(1)];
    all.extend((0..6).map(|_| many()));
    all.extend([Step::Acknowledge(40, 60, 20), Step::Reopen, many()]);
    all.extend([Step::WantAgain(10, 30), Step::Wait(25), many()]);
    all.extend([Step::NewEpoch, many(), Step::Acknowledge(100, 1, 0)]);
    // an odd number of records between, so that each way of losing it comes twice
    all.extend((0..4).flat_map(|_| [Step::LoseIndex, one(0, 1)]));
    all
}

/// What one round does, from the empty card on.
#[derive(Debug)]
struct Round {
    steps: Vec<Step>,
    aims: Vec<Aim>,
    /// After which kills the card is looked at before the next life begins.
    looks: Vec<bool>,
}

impl Round {
    /// Ends at a named step.
    fn at(point: Point, after: i64) -> Self {
        let only = |point, after| Aim {
            after,
            only: Some(point),
        };
        // only a file that was torn is cut: killed before the body of the second record
        let aims = match point {
            Point::Cut | Point::SyncCut => vec![only(Point::Write, 3), only(point, 0)],
            _ => vec![only(point, after)],
        };
        Self {
            steps: everything(),
            looks: vec![false; aims.len() - 1],
            aims,
        }
    }

    /// Ends anywhere, once or more, also within the restart after it.
    fn anywhere(rng: &mut StdRng) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let seeded = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), seeded);
        let mut random = || steps().new_tree(&mut runner).unwrap().current();
        let steps = [random(), random(), everything()].concat();
        let any = |rng: &mut StdRng| {
            let most = if rng.random() { OPENING } else { 2_000 };
            let after = rng.random_range(0..most);
            Aim { after, only: None }
        };
        let further = rng.random_range(0..3);
        let mut aims = vec![Aim {
            after: rng.random_range(0..2_000),
            only: None,
        }];
        aims.extend((0..further).map(|_| any(rng)));
        Self {
            steps,
            looks: (0..further).map(|_| rng.random()).collect(),
            aims,
        }
    }

    /// Runs it; where it was killed, and what was accepted.
    fn run(&self) -> (Vec<Point>, usize) {
        let card = in_memory();
        let mut oracle = Oracle::default();
        let (mut steps, mut killed) = (&self.steps[..], Vec::new());
        for (life, aim) in self.aims.iter().enumerate() {
            let heard = live(card.path(), Some(*aim), steps, life, &mut oracle);
            if let (0, Some(taken)) = (life, heard.taken) {
                return self.within(taken).run();
            }
            // what it was killed at is not tried again
            steps = steps.get(heard.done + 1..).unwrap_or_default();
            killed.extend(heard.killed);
            if self.looks.get(life) != Some(&false) {
                twice(&mut oracle, card.path());
            }
        }
        let end = live(card.path(), None, steps, self.aims.len(), &mut oracle);
        assert!(end.taken.is_some());
        twice(&mut oracle, card.path());
        (killed, oracle.accepted())
    }

    /// The same, with a first kill within the steps that its first life has.
    fn within(&self, taken: i64) -> Self {
        let mut aims = self.aims.clone();
        aims[0].after %= taken;
        Self {
            steps: self.steps.clone(),
            looks: self.looks.clone(),
            aims,
        }
    }
}

/// Restarts twice: the second finds what the first has left.
fn twice(oracle: &mut Oracle, card: &Path) {
    let once = oracle.check(card);
    let again = oracle.check(card);
    assert_eq!((once.held, once.gaps), (again.held, again.gaps));
    assert_eq!(once.next, again.next);
}

/// One life, to its end or to its kill.
fn live(card: &Path, aim: Option<Aim>, steps: &[Step], life: usize, oracle: &mut Oracle) -> Heard {
    let order = Order {
        steps: steps.to_vec(),
        seed: (life as u64 + 1) << 32,
        hours: oracle.hours,
        aim,
    };
    let Life { mut child, said } = Life::begin(card, &order);
    let heard = said.tell(oracle);
    let status = child.wait().unwrap();
    let killed = status.signal() == Some(rustix::process::Signal::KILL.as_raw());
    assert_eq!(killed, heard.killed.is_some(), "{status}");
    assert!(killed || status.success(), "{status}");
    heard
}

#[test]
fn killed_between_any_two_steps_it_keeps_what_it_accepted_and_opens_again() {
    let number = |name| std::env::var(name).ok().map(|n| n.parse().unwrap());
    let rounds = number("SCC_KILL_ROUNDS").map_or(40, |n| usize::try_from(n).unwrap());
    let seed = number("SCC_KILL_SEED").unwrap_or_else(rand::random);
    println!("SCC_KILL_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut kills: BTreeMap<Point, u32> = BTreeMap::new();
    let mut accepted = 0;
    for n in 0..rounds {
        let round = match Point::ALL.get(n) {
            Some(point) => Round::at(*point, 0),
            None if n % 3 == 0 => {
                let point = Point::ALL[rng.random_range(0..Point::ALL.len())];
                Round::at(point, rng.random_range(0..12))
            }
            None => Round::anywhere(&mut rng),
        };
        println!("round {n}: {:?}", round.aims);
        let (killed, held) = round.run();
        killed
            .iter()
            .for_each(|p| *kills.entry(*p).or_default() += 1);
        accepted += held;
    }
    let total: u32 = kills.values().sum();
    println!("{rounds} rounds, {total} kills, {accepted} records accepted: {kills:?}");
    for point in Point::ALL {
        assert!(kills.contains_key(&point), "never killed at {point:?}");
    }
}
