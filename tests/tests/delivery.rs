//! The way of a record from the agent's buffer to the hub's database, with everything real in
//! between: buffer, uplink, MQTT over TLS, gate, ingest. The network is a proxy that can be slow,
//! cut and stalled; the certificates are the authority's own.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test"
)]

#[path = "delivery/budget.rs"]
mod budget;
#[path = "delivery/card.rs"]
mod card;
#[path = "delivery/cards.rs"]
mod cards;
#[path = "delivery/certificates.rs"]
mod certificates;
#[path = "delivery/clock.rs"]
mod clock;
#[path = "delivery/crowd.rs"]
mod crowd;
#[path = "delivery/damaged.rs"]
mod damaged;
#[path = "../bench/link/drain.rs"]
mod drain;
#[path = "delivery/full.rs"]
mod full;
#[path = "delivery/links.rs"]
mod links;
#[path = "delivery/restore.rs"]
mod restore;
#[path = "delivery/stage.rs"]
mod stage;

use std::time::Duration;

use scc_common::record::{Content, Event, LinkMode};
use stage::{PATIENCE, Site, restarted};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_every_size_arrive_and_leave_the_buffer() {
    let (mut site, _hub) = Site::start().await;
    for n in 0..40 {
        site.punch().await;
        let version = format!("{n}");
        site.append("loket", Content::Event(Event::AgentStarted { version }))
            .await;
        if n % 4 == 0 {
            site.still(45_000).await;
            site.segment(700_000).await;
        }
    }
    site.delivered().await;
    assert_eq!(site.link.status.borrow().mode, LinkMode::Normal);
    assert_eq!(
        site.duplicates(),
        0,
        "nothing went wrong, and yet it was sent again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_link_delivers_a_punch_within_a_second() {
    let (mut site, _hub) = Site::start().await;
    let first = site.punch().await;
    site.committed(first).await;
    for _ in 0..5 {
        let start = Instant::now();
        let key = site.punch().await;
        site.committed(key).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// delivery.md, promise 4, over a link of 1 Mbit/s with 60 ms of delay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_punch_arrives_within_two_seconds_while_video_drains() {
    let (mut site, _hub) = Site::start().await;
    site.proxy.weather(|w| {
        w.rate = Some(125_000);
        w.delay = Duration::from_millis(30);
    });
    for _ in 0..10 {
        site.segment(900_000).await;
        site.still(50_000).await;
    }
    // the drain is under way, its rate is known
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        let start = Instant::now();
        let key = site.punch().await;
        site.committed(key).await;
        waits.push(start.elapsed());
    }
    assert!(
        site.backlog().await > 3,
        "the backlog is gone already; this shows nothing"
    );
    let worst = waits.iter().max().unwrap();
    assert!(*worst < Duration::from_secs(2), "{waits:?}");
    println!("waits: {waits:?}, link {:?}", site.link.status.borrow());
}

/// The short form of `make bench-link`, which runs ten minutes with 2 GB (`tests/bench/link.rs`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_and_long_link_is_used_while_punches_alarms_and_health_pass_the_backlog() {
    let figures = drain::measure(drain::Load {
        rate: 125_000,
        delay: Duration::from_millis(100),
        segments: 25,
        warm_up: Duration::from_secs(4),
        time: Duration::from_secs(20),
        every: Duration::from_secs(1),
    })
    .await;
    println!("{figures}");
    assert!(figures.backlog > 15, "the backlog is gone: {figures}");
    assert!(figures.used >= 0.9, "{figures}");
    assert!(figures.used <= 1.01, "the link is not one: {figures}");
    for waits in [&figures.punches, &figures.events] {
        assert!(waits.len() >= 15, "{figures}");
        assert!(
            drain::percentile(waits, 99) <= Duration::from_secs(2),
            "{figures}"
        );
    }
    assert!(
        figures.health_longest_gap <= Duration::from_secs(6),
        "{figures}"
    );
    assert_eq!((figures.lost, figures.duplicates), (0, 0), "{figures}");
}

/// Row 9 of the complaints: `SCC_HUB_RESTARTS=20` restarts the hub that often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_and_restarts_of_the_hub_lose_and_double_nothing() {
    let (mut site, mut hub) = Site::start().await;
    let address = hub.address;
    let restarts: u32 = std::env::var("SCC_HUB_RESTARTS").map_or(3, |n| n.parse().unwrap());
    for round in 0..2 * restarts {
        for _ in 0..10 {
            site.punch().await;
        }
        site.segment(600_000).await;
        if round % 2 == 0 {
            site.proxy.cut();
        } else {
            drop(hub);
            hub = restarted(site.dir.path(), address).await;
        }
    }
    site.delivered().await;
}

/// delivery.md, promise 3: a hub restored from yesterday's backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_restored_from_an_older_copy_gets_the_rest_again() {
    let (mut site, hub) = Site::start().await;
    let address = hub.address;
    for _ in 0..5 {
        site.punch().await;
    }
    site.segment(300_000).await;
    site.delivered().await;
    let database = site.dir.path().join("hub.sqlite");
    let backup = site.dir.path().join("yesterday.sqlite");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute("VACUUM INTO ?1", [backup.to_str().unwrap()])
        .unwrap();
    for _ in 0..5 {
        site.punch().await;
    }
    site.segment(600_000).await;
    site.still(60_000).await;
    site.delivered().await;

    site.proxy.weather(|w| w.rate = Some(60_000)); // slow enough for the backlog to be seen
    drop(hub);
    for tail in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{tail}", database.display()));
    }
    std::fs::rename(&backup, &database).unwrap();
    let _hub = restarted(site.dir.path(), address).await;
    let told = async {
        while site.backlog().await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("the buffer is not told that its records are wanted again");
    site.delivered().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_says_goodbye() {
    let (mut site, hub) = Site::start().await;
    let mut presence = hub.gate.presence();
    site.punch().await;
    site.delivered().await;
    site.stop.cancel();
    let left = async {
        loop {
            let news = presence.recv().await.unwrap();
            if !news.connected {
                return news.why;
            }
        }
    };
    let why = tokio::time::timeout(PATIENCE, left).await.unwrap();
    assert_eq!(why, "it said good-bye");
}
