//! The process ends at any moment: nothing that was accepted is lost, nothing is torn.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rand::{Rng, SeedableRng};
use scc_common::clock::SystemClock;

use super::*;

/// Records, rotations, evictions, acknowledgements: every kind of durable step.
fn script(
    store: &mut Store,
    clock: &Arc<ManualClock>,
    accepted: &mut BTreeMap<(Lane, Seq), Checksum>,
) -> Option<()> {
    for round in 0..9u64 {
        let mut bodies = vec![event(&**clock, &format!("round {round}"))];
        bodies.push(segment(&**clock, round, 40_000));
        bodies.push(event(&**clock, &format!("round {round} again")));
        let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
        for (answer, incoming) in store.append(&group).into_iter().zip(&group) {
            let Ok(answer) = answer else { continue };
            let lane = lane_of(answer.epoch, answer.stream);
            let former = accepted.insert((lane, answer.seq), Checksum::of(&incoming.body));
            assert_eq!(former, None, "a number was given twice");
        }
        if store.broken.is_some() {
            return None;
        }
        if round == 4 {
            let lane = lane_of(store.epoch, Stream::Segment);
            store.acknowledge(lane, 3, &[]).ok()?;
        }
        clock.advance(60_000);
        store.tend().ok()?;
    }
    Some(())
}

#[test]
fn whatever_step_is_the_last_one_accepted_records_stay() {
    let mut n = 0;
    loop {
        let (dir, clock) = (in_memory(), clock());
        let mut accepted = BTreeMap::new();
        let steps = Steps::ending_after(n);
        let whole = open_store(dir.path(), tight(), &clock, &steps)
            .ok()
            .and_then(|mut store| script(&mut store, &clock, &mut accepted));
        let last = n + 1;
        // the first restart may end early too
        let again = Steps::ending_after(n % 7);
        drop(open_store(dir.path(), tight(), &clock, &again));
        let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
        assert_eq!(
            store.damage,
            crate::buffer::Damage::default(),
            "step {last}"
        );
        let contents = Contents::of(&mut store);
        for (key, sum) in &accepted {
            match (contents.held.get(key), contents.gaps.get(key)) {
                (Some(held), None) => assert_eq!(held, sum, "step {last}: {key:?}"),
                (None, Some(GapReason::EvictedBySize | GapReason::EvictedAfterAck)) => {
                    assert_eq!(key.0.stream, Stream::Segment, "step {last}: {key:?}");
                }
                other => panic!("step {last}: {key:?} is {other:?}"),
            }
        }
        let more = store.append(&[incoming(&event(&*clock, "afterwards"))]);
        let more = more[0].as_ref().unwrap();
        let lane = lane_of(more.epoch, more.stream);
        assert!(!accepted.contains_key(&(lane, more.seq)), "step {last}");
        if whole.is_some() {
            assert!(steps.left() >= 0);
            break;
        }
        n += 1;
    }
    assert!(n > 80, "only {n} steps were tried");
}

const CHILD: &str = "SCC_TEST_BUFFER_CHILD";

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let clock = SystemClock::shared();
    let buffer = Buffer::open(Path::new(&dir), roomy(), clock.clone()).unwrap();
    assert_eq!(buffer.damage(), None);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6u64 {
        let (buffer, clock) = (buffer.clone(), clock.clone());
        tasks.spawn(async move {
            for n in 0u64.. {
                let body = if task == 0 {
                    snapshot(&*clock, n, 30_000)
                } else {
                    event(&*clock, &format!("{task} {n}"))
                };
                let sum = Checksum::of(&body.encode());
                let a = buffer.append(&body).await.unwrap();
                let line = format!(
                    "\naccepted {} {} {} {sum} .\n",
                    a.epoch.0,
                    a.stream.code(),
                    a.seq
                );
                std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn what_was_reported_accepted_is_there_after_twenty_kills() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut accepted: BTreeMap<(Lane, Seq), String> = BTreeMap::new();
    for round in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "buffer::tests::crash::child_that_appends_until_it_is_killed",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let at_least = rng.random_range(1..120);
        let mut seen = 0;
        // after the kill the pipe is read to its end: what stands there was accepted
        for line in lines {
            let Ok(line) = line else { break };
            let fields: Vec<&str> = line.split(' ').collect();
            if let ["accepted", epoch, stream, seq, sum, "."] = fields[..] {
                let lane = lane_of(
                    Epoch(epoch.parse().unwrap()),
                    Stream::from_code(stream.parse().unwrap()).unwrap(),
                );
                let former = accepted.insert((lane, seq.parse().unwrap()), sum.to_owned());
                assert_eq!(former, None, "{line}: a number was given twice");
                seen += 1;
                if seen == at_least {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        if seen < at_least {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
            panic!("round {round}: the child ended by itself: {text}");
        }
    }
    let buffer = Buffer::open(dir.path(), roomy(), SystemClock::shared()).unwrap();
    assert_eq!(buffer.damage(), None);
    let contents = Contents::of_buffer(&buffer).await;
    assert!(contents.gaps.is_empty(), "{:?}", contents.gaps);
    assert!(accepted.len() >= 20);
    for (key, sum) in &accepted {
        let held = contents.held.get(key).map(ToString::to_string);
        assert_eq!(held.as_ref(), Some(sum), "{key:?}");
    }
}
