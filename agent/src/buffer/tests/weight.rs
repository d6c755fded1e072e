//! What the buffer costs: memory and time to open a large backlog, bytes written to the card, fsyncs.
//!
//! What is measured is a process of its own, that nothing else has warmed up or written in. `make test`
//! has the small forms; the gigabyte is
//! `cargo test -p scc-agent --lib weight -- --ignored --nocapture --test-threads 1`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use scc_common::clock::SystemClock;

use super::mount::Mounted;
use super::*;

/// A number from a file of `/proc/self`.
fn proc(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

fn generous() -> BufferLimits {
    limits(4 << 30, 4 << 30, 64 << 20)
}

/// A folder on a disk even where the one for temporary files is in memory: beside this program.
fn on_a_disk() -> tempfile::TempDir {
    let exe = std::env::current_exe().unwrap();
    tempfile::tempdir_in(exe.parent().unwrap()).unwrap()
}

/// What a weighed process does with the buffer in `DIR`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
enum Task {
    /// Appends records of `len` bytes, `at_once` of them waiting together, and then waits to be killed.
    Fill {
        stream: Stream,
        records: u64,
        len: usize,
        at_once: u64,
    },
    /// Opens it and reads all of it, as an uplink would.
    Drain,
    /// Appends a small record each second.
    Drip { records: u64 },
}

const TASK: &str = "SCC_TEST_WEIGHT_TASK";
const DIR: &str = "SCC_TEST_WEIGHT_DIR";

/// Not a test of its own: the process that is weighed.
#[tokio::test]
async fn child_that_is_weighed() {
    let Some(task) = std::env::var_os(TASK) else {
        return;
    };
    let task: Task = serde_json::from_str(task.to_str().unwrap()).unwrap();
    let dir = std::env::var_os(DIR).unwrap();
    let clock = SystemClock::shared();
    let begun = clock.mono_ms();
    let buffer = Buffer::open(Path::new(&dir), generous(), clock.clone()).unwrap();
    tell("opened_ms", clock.mono_ms() - begun);
    tell("opened_peak_kib", proc("status", "VmHWM"));
    match task {
        Task::Fill {
            stream,
            records,
            len,
            at_once,
        } => {
            let before = proc("io", "write_bytes");
            let payload = fill(&buffer, &clock, stream, records, len, at_once).await;
            tell("payload", payload);
            tell("written", proc("io", "write_bytes") - before);
        }
        Task::Drain => {
            let (mut records, mut bytes) = (0, 0);
            for offer in buffer.offers().await.unwrap() {
                let mut from = 1;
                loop {
                    let wanted = range(from, Seq::MAX);
                    let read = buffer.read(lane(&offer), wanted, 128 << 10).await.unwrap();
                    let Some(last) = read.last() else { break };
                    from = last.seq + 1;
                    records += read.len() as u64;
                    bytes += read.iter().map(|r| r.body.len() as u64).sum::<u64>();
                }
            }
            tell("records", records);
            tell("bytes", bytes);
        }
        Task::Drip { records } => {
            let mut second = tokio::time::interval(std::time::Duration::from_secs(1));
            for n in 0..records {
                second.tick().await;
                let body = event(&*clock, &n.to_string());
                buffer.append(&body).await.unwrap();
            }
        }
    }
    tell("peak_kib", proc("status", "VmHWM"));
    tell("done", 1);
    // until it is killed: nothing is closed
    std::future::pending::<()>().await;
}

fn tell(key: &str, value: u64) {
    writeln!(std::io::stdout().lock(), "\n>{key} {value}").unwrap();
}

/// Bytes of bodies that were appended.
async fn fill(
    buffer: &Buffer,
    clock: &SharedClock,
    stream: Stream,
    records: u64,
    len: usize,
    at_once: u64,
) -> u64 {
    let mut tasks = tokio::task::JoinSet::new();
    let mut payload = 0;
    for n in 0..records {
        if n >= at_once {
            payload += tasks.join_next().await.unwrap().unwrap();
        }
        let (buffer, clock) = (buffer.clone(), clock.clone());
        tasks.spawn(async move {
            let body = match stream {
                Stream::Segment => segment(&*clock, n, len),
                Stream::Snapshot => snapshot(&*clock, n, len),
                _ => event(&*clock, &format!("{n:08}{}", "x".repeat(len - 8))),
            };
            buffer.append(&body).await.unwrap();
            body.encode().len() as u64
        });
    }
    payload + tasks.join_all().await.iter().sum::<u64>()
}

/// Has a process do it, and kills it; what it told.
fn weigh(dir: &Path, task: &Task) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("buffer::tests::weight::child_that_is_weighed")
        .env(TASK, serde_json::to_string(task).unwrap())
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((key, value)) = line.strip_prefix('>').and_then(|l| l.split_once(' ')) else {
            continue;
        };
        told.insert(key.to_owned(), value.parse().unwrap());
        if key == "done" {
            // SIGKILL
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    println!("{task:?}: {told:?}");
    assert!(told.contains_key("done"), "it ended by itself");
    told
}

/// Fills a new buffer; bytes written for a thousand bytes of bodies.
fn written_per_thousand(stream: Stream, records: u64, len: usize, at_once: u64) -> u64 {
    let dir = on_a_disk();
    let task = Task::Fill {
        stream,
        records,
        len,
        at_once,
    };
    let told = weigh(dir.path(), &task);
    let (written, payload) = (told["written"], told["payload"]);
    assert!(payload >= records * len as u64);
    assert!(
        written >= payload,
        "the disk under {} does not count what is written to it",
        dir.path().display()
    );
    written * 1_000 / payload
}

#[test]
fn media_is_written_to_the_card_hardly_more_than_once() {
    for (stream, records, len) in [
        (Stream::Snapshot, 320, 100_000),
        (Stream::Segment, 16, 2_000_000),
    ] {
        // as cameras do: each waits for its own
        for at_once in [1, 4] {
            let written = written_per_thousand(stream, records, len, at_once);
            println!("{stream}, {at_once} at once: {written} bytes written for 1,000");
            assert!(written <= 1_300, "{stream}: {written} for 1,000");
        }
    }
}

#[test]
fn a_thousand_small_records_in_groups_are_written_less_than_three_times() {
    let written = written_per_thousand(Stream::Event, 1_000, 2_000, 32);
    println!("2 KB, 32 at once: {written} bytes written for 1,000");
    assert!(written <= 3_000, "{written} for 1,000");
    // and if each comes alone, once a second: 17 minutes of them
    let alone = written_per_thousand(Stream::Event, 1_000, 2_000, 1);
    println!("2 KB, each alone: {alone} bytes written for 1,000");
    assert!(alone <= 20_000, "{alone} for 1,000");
}

/// Counted by the disk itself, with all that half a minute brings: housekeeping, acknowledgements.
/// sled's own flush asks for `sync_file_range`, which makes a disk flush nothing and is no fsync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_small_record_each_second_costs_two_fsyncs_each() {
    let Some(card) = Mounted::new(64 << 20) else {
        return;
    };
    let clock = clock();
    let buffer = Buffer::open(card.path(), roomy(), clock.clone()).unwrap();
    let append = async |n: u64| {
        clock.advance(1_000);
        let accepted = buffer
            .append(&event(&*clock, &n.to_string()))
            .await
            .unwrap();
        let lane = lane_of(accepted.epoch, accepted.stream);
        buffer
            .acknowledge(lane, accepted.seq, vec![])
            .await
            .unwrap();
    };
    // the first makes its file and the ballast
    append(0).await;
    let before = card.disk().fsyncs;
    for n in 1..=60 {
        append(n).await;
    }
    let fsyncs = card.disk().fsyncs - before;
    println!("{fsyncs} fsyncs for 60 records");
    // of the file of records, and of sled's: neither more nor fewer
    assert_eq!(fsyncs, 120);
    buffer.close().await;
}

/// A day of records that come and are acknowledged: what is dropped gives its room in sled back.
#[test]
fn a_day_of_small_records_does_not_grow_the_index() {
    let (dir, clock) = (in_memory(), clock());
    let mut store = open_store(dir.path(), tight(), &clock, &Steps::default()).unwrap();
    let lane = lane_of(store.epoch, Stream::Event);
    let mut sizes = Vec::new();
    for n in 0..900 {
        let bodies: Vec<RecordBody> = (0..32)
            .map(|m| event(&*clock, &format!("{n} {m}")))
            .collect();
        let group: Vec<Incoming> = bodies.iter().map(incoming).collect();
        assert!(store.append(&group).iter().all(Result::is_ok));
        store.acknowledge(lane, Seq::MAX, &[]).unwrap();
        clock.advance(96_000);
        store.tend().unwrap();
        if n % 300 == 299 {
            sizes.push(allocated(&dir.path().join("buffer/index")));
        }
    }
    println!("the index takes {sizes:?} bytes after each third of 28,800 records");
    assert!(sizes.iter().all(|size| *size <= 8 << 20), "{sizes:?}");
    assert!(sizes[2] <= sizes[0] + (1 << 20), "{sizes:?}");
}

/// Bytes that the files of a folder take on the disk.
fn allocated(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut paths = Vec::new();
    super::damage::files(dir, &mut paths);
    let of = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().blocks() * 512;
    paths.iter().map(of).sum()
}

#[test]
#[ignore = "writes a gigabyte, twice"]
fn a_gigabyte_waiting_opens_cold_within_two_seconds_and_64_mb() {
    for (stream, records, len) in [
        (Stream::Snapshot, 10_000, 100_000),
        (Stream::Segment, 500, 2_000_000),
    ] {
        let dir = on_a_disk();
        let task = Task::Fill {
            stream,
            records,
            len,
            at_once: 4,
        };
        let filled = weigh(dir.path(), &task);
        let written = filled["written"] * 1_000 / filled["payload"];
        println!("{stream}: {written} bytes written for 1,000");
        assert!((1_000..=1_300).contains(&written), "{written}");
        let told = weigh(dir.path(), &Task::Drain);
        assert_eq!(told["records"], records);
        assert_eq!(told["bytes"], filled["payload"]);
        assert!(told["opened_ms"] < 2_000, "{told:?}");
        assert!(told["opened_peak_kib"] < 64 << 10, "{told:?}");
        assert!(told["peak_kib"] < 64 << 10, "{told:?}");
        // and without its index, which is rebuilt by a scan of the headers
        std::fs::remove_dir_all(dir.path().join("buffer/index")).unwrap();
        let told = weigh(dir.path(), &Task::Drain);
        assert_eq!(told["records"], records);
        assert!(told["opened_ms"] < 10_000, "{told:?}");
        assert!(told["peak_kib"] < 96 << 10, "{told:?}");
    }
}

/// `strace -f -c -e trace=fsync,fdatasync,sync_file_range` before the command shows what it asks of the
/// system.
#[test]
#[ignore = "takes half a minute and shows nothing by itself"]
fn half_a_minute_of_one_record_each_second() {
    weigh(on_a_disk().path(), &Task::Drip { records: 30 });
}
