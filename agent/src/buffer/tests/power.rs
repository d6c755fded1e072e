//! The power fails after any change to the disk, and the disk forgets what was not synced: nothing
//! that was accepted is lost, torn or numbered twice. The real store with its files and sled, on a
//! [disk that forgets](super::forgetful).
//!
//! What this proves is our order of writes and fsyncs on a disk that keeps what an fsync has
//! answered. A card that lies about that is not covered by anything.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rand::{SeedableRng, rngs::StdRng};
use scc_common::clock::SystemClock;

use super::life::{Life, Oracle, Order};
use super::model::{Step, steps};
use super::mount::Mounted;
use super::*;

/// Large enough for all that [`tight`] allows with sled beside it.
const DISK: u64 = 64 << 20;

/// What a run does, and when the power fails.
#[derive(Debug, Clone)]
struct Trial {
    steps: Vec<Step>,
    /// Changes to the disk from one opening to the next failure, and what is then forgotten.
    cuts: Vec<(u64, u64)>,
}

fn trials() -> impl Strategy<Value = Trial> {
    // an opening alone makes some tens of changes, so that short distances fail within it
    let distance = prop_oneof![1 => 0u64..60, 3 => 0u64..600];
    let cuts = proptest::collection::vec((distance, any::<u64>()), 1..6);
    // an index that is lost leaves little to hold to, and a cut tears it often enough
    let steps = steps().prop_map(|mut steps| {
        steps.retain(|step| !matches!(step, Step::LoseIndex));
        steps
    });
    (steps, cuts).prop_map(|(steps, cuts)| Trial { steps, cuts })
}

const CARD: &str = "SCC_TEST_POWER_CARD";

/// One life: from an opening to the end of the steps or of the power, after `changes` to the disk.
/// Returns the steps done.
fn live(card: &Mounted, changes: Option<u64>, order: &Order, oracle: &mut Oracle) -> usize {
    let alarm = card.disk().fail_after(changes);
    let Life { mut child, said } = Life::begin(card.path(), order);
    // sled does not always come back from a failed write, and without power nobody runs anyway
    let ending = std::thread::spawn(move || {
        if alarm.recv().is_ok() {
            child.kill().unwrap();
        }
        child.wait().unwrap()
    });
    let heard = said.tell(oracle);
    let powerless = card.disk().is_off();
    drop(card.disk().fail_after(None));
    let status = ending.join().unwrap();
    assert!(
        status.success() || powerless,
        "{status}, and the power is on"
    );
    heard.done
}

/// Runs one trial.
fn run(card: &mut Mounted, trial: &Trial) {
    let mut oracle = Oracle::of_a_card_that_tears();
    let (mut steps, mut cuts) = (&trial.steps[..], trial.cuts.iter());
    let mut life = 0;
    loop {
        let cut = cuts.next();
        life += 1;
        let order = Order {
            steps: steps.to_vec(),
            seed: life << 32,
            hours: oracle.hours,
            aim: None,
        };
        let changes = cut.map(|(after, _)| *after);
        let done = live(card, changes, &order, &mut oracle);
        // the step that the power ended is not tried again
        steps = steps.get(done + 1..).unwrap_or_default();
        let Some((_, forgets)) = cut.filter(|_| card.disk().is_off()) else {
            break;
        };
        card.cut(&mut StdRng::seed_from_u64(*forgets));
        oracle.check(card.path());
    }
    oracle.check(card.path());
}

fn hold(card_lies: bool, cases: u32) -> Result<(), String> {
    let Some(first) = Mounted::new(DISK) else {
        return Ok(());
    };
    drop(first);
    let mut config = Config {
        cases,
        max_shrink_iters: 200,
        source_file: Some(file!()),
        ..Config::default()
    };
    if card_lies {
        // what fails as it should is no seed to keep, nor worth shrinking
        (config.failure_persistence, config.max_shrink_iters) = (None, 0);
    }
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&trials(), |trial| {
        let mut card = Mounted::new(DISK).unwrap();
        card.disk().lies = card_lies;
        run(&mut card, &trial);
        Ok(())
    });
    outcome.map_err(|e| e.to_string())
}

#[test]
fn what_was_accepted_survives_a_power_cut_after_any_change() {
    let cases = std::env::var("SCC_POWER_CASES").ok();
    let cases = cases.map_or(150, |n| n.parse().unwrap());
    if let Err(e) = hold(false, cases) {
        panic!("{e}");
    }
}

#[test]
fn a_card_that_lies_about_its_fsyncs_is_found_out() {
    if Mounted::new(DISK).is_some() {
        hold(true, 40).expect_err("the test above cannot fail");
    }
}

/// Not a test of its own: a process whose card fails for a while. It says of each append what came
/// of it.
#[tokio::test]
async fn child_whose_card_fails_for_a_while() {
    let Some(card) = std::env::var_os(CARD) else {
        return;
    };
    let clock = SystemClock::shared();
    let buffer = Buffer::open(Path::new(&card), roomy(), clock.clone()).unwrap();
    for n in 0u64.. {
        let body = event(&*clock, &n.to_string());
        let answer = tokio::time::timeout(HANGS, buffer.append(&body)).await;
        let word = match answer {
            Ok(Ok(_)) => "accepted".to_owned(),
            Ok(Err(e)) => format!("refused {e}"),
            Err(_) => "hangs".to_owned(),
        };
        writeln!(std::io::stdout().lock(), "\n>{word}").unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Longer than any append that will still be answered.
const HANGS: std::time::Duration = std::time::Duration::from_secs(5);

/// A process that appends to a card, and what it says of each append.
struct Appending {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Appending {
    fn start(card: &Mounted) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("buffer::tests::power::child_whose_card_fails_for_a_while")
            .env(CARD, card.path())
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn start_again(former: Self, card: &Mounted) -> Self {
        drop(former);
        Self::start(card)
    }

    fn word(&mut self) -> String {
        let word =
            |line: std::io::Result<String>| line.unwrap().strip_prefix('>').map(str::to_owned);
        let found = self.lines.by_ref().find_map(word);
        found.expect("the process ended by itself")
    }
}

impl Drop for Appending {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// sled panics where a write fails, or never returns from it. The first the buffer survives; of the
/// second the watchdog of the service frees it, which here the test is.
#[test]
fn after_a_card_has_failed_for_a_while_appends_are_accepted_again() {
    let Some(card) = Mounted::new(DISK) else {
        return;
    };
    let mut process = Appending::start(&card);
    let mut hung = 0;
    for changes in 0..40 {
        while process.word() != "accepted" {}
        drop(card.disk().fail_after(Some(changes)));
        let failed = loop {
            let word = process.word();
            if word != "accepted" {
                break word;
            }
        };
        card.disk().mend();
        if failed == "hangs" {
            process = Appending::start_again(process, &card);
            hung += 1;
        }
        let mut last = failed;
        for _ in 0..2_000 {
            last = process.word();
            if last == "hangs" {
                process = Appending::start_again(process, &card);
                hung += 1;
            }
            if last == "accepted" {
                break;
            }
        }
        assert_eq!(last, "accepted", "after {changes} changes");
    }
    println!("the watchdog would have ended {hung} of 40");
    assert!(hung < 20, "{hung} of 40 came back by a restart only");
}
