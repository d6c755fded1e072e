//! The upload budget over a link that could carry far more.

use std::time::Duration;

use scc_agent::uplink::budget::Budget;
use tokio::time::{Instant, sleep};

use super::stage::{Manner, PATIENCE, Site};

const RATE: u32 = 60_000;

/// All bytes of the connection count, TLS and MQTT included, as the proxy's meter sees them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn video_keeps_to_the_budget_within_five_percent_and_a_punch_does_not_wait_for_it() {
    let (mut site, _hub) = Site::start_with(Manner {
        budget: Budget {
            usual: Some(RATE),
            ..Budget::default()
        },
        ..Manner::default()
    })
    .await;
    site.proxy.weather(|w| w.delay = Duration::from_millis(10));
    for _ in 0..3 {
        site.segment(600_000).await;
    }
    let flowing = async {
        while site.proxy.passed().0 < 100_000 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, flowing).await.unwrap();
    assert_eq!(site.link.status.borrow().budget, Some(RATE));

    let (start, before) = (Instant::now(), site.proxy.passed().0);
    let mut waits = Vec::new();
    while start.elapsed() < Duration::from_secs(10) {
        let made = Instant::now();
        let key = site.punch().await;
        site.committed(key).await;
        waits.push(made.elapsed());
        sleep(Duration::from_millis(700)).await;
    }
    let passed = (site.proxy.passed().0 - before) as f64;
    let worth = start.elapsed().as_secs_f64() * f64::from(RATE);
    assert!(site.backlog().await > 0, "there was nothing to hold back");
    println!("{:.3} of the budget, waits {waits:.0?}", passed / worth);
    assert!(passed <= worth * 1.05, "{passed} of {worth}");
    // a busy machine may leave some of it
    assert!(passed >= worth * 0.85, "only {passed} of {worth}");
    let worst = waits.iter().max().unwrap();
    assert!(*worst < Duration::from_secs(1), "{waits:?}");
}
