//! What the buffer costs: memory with a large backlog, bytes written to the card. Not part of the
//! usual run: `cargo test -p scc-agent --lib weight -- --ignored --nocapture --test-threads 1`.

use super::*;

/// A number from a file of `/proc/self`.
fn proc(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

async fn fill(buffer: &Buffer, clock: &Arc<ManualClock>, records: u64, len: usize, at_once: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..records {
        if n >= at_once {
            tasks.join_next().await.unwrap().unwrap();
        }
        let (buffer, clock) = (buffer.clone(), clock.clone());
        tasks.spawn(async move {
            let body = if len < 10_000 {
                event(&*clock, &"x".repeat(len))
            } else {
                snapshot(&*clock, n, len)
            };
            assert!(buffer.append(&body).await.is_ok());
        });
    }
    tasks.join_all().await;
}

fn generous() -> BufferLimits {
    limits(4 << 30, 4 << 30, 4 << 20)
}

#[tokio::test]
#[ignore = "writes a gigabyte"]
async fn a_gigabyte_waiting_needs_less_than_64_mb_and_opens_at_once() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = Buffer::open(dir.path(), generous(), clock.clone()).unwrap();
    let report = |what: &str| {
        let [peak, now, own] = ["VmHWM", "VmRSS", "RssAnon"].map(|key| proc("status", key));
        println!("{what}: peak {peak} KiB, now {now} KiB, of which own {own} KiB");
    };
    report("empty");
    let written = proc("io", "write_bytes");
    fill(&buffer, &clock, 10_000, 100_000, 8).await;
    let written = proc("io", "write_bytes") - written;
    println!(
        "1 GB of 100 KB: RSS {} KiB, written {written}",
        proc("status", "VmRSS")
    );
    assert!(written < 1_200_000_000);
    buffer.close().await;
    let begun = scc_common::clock::SystemClock::new();
    let at = begun.mono_ms();
    let buffer = Buffer::open(dir.path(), generous(), clock.clone()).unwrap();
    println!("opened in {} ms", begun.mono_ms() - at);
    report("opened");
    assert!(proc("status", "VmHWM") < 64 * 1024);
    buffer.close().await;
    std::fs::remove_dir_all(dir.path().join("buffer/index")).unwrap();
    let at = begun.mono_ms();
    let buffer = Buffer::open(dir.path(), generous(), clock.clone()).unwrap();
    println!("rebuilt in {} ms", begun.mono_ms() - at);
    assert_eq!(buffer.stat().await.unwrap()[0].records, 10_000);
    // includes what sled has not given back of the two former openings
    report("rebuilt");
}

#[tokio::test]
#[ignore = "counts the bytes that the whole process writes"]
async fn small_records_in_groups_are_written_less_than_three_times() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), clock());
    let buffer = Buffer::open(dir.path(), roomy(), clock.clone()).unwrap();
    for (at_once, most) in [(32, 3), (1, 20)] {
        let written = proc("io", "write_bytes");
        fill(&buffer, &clock, 1_000, 2_000, at_once).await;
        let written = proc("io", "write_bytes") - written;
        println!("1,000 of 2 KB, {at_once} at once: written {written}");
        assert!(written < most * 1_000 * 2_100);
    }
}
