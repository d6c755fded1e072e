//! A random peer: it delays, forgets, repeats, restarts and hangs up. Whatever it does, every record
//! arrives with its own body, and what the shelf gave away was stored.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::Config;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scc_common::stream::Stream;
use scc_common::wire::{Down, UpMessage};

use super::peer::{Hub, Rig};
use super::shelf::Shelf;

/// How hostile the peer is, in percent per message.
#[derive(Debug, Clone)]
struct Weather {
    hang_up: u32,
    lose_ack: u32,
    repeat_ack: u32,
    restart: u32,
    lose_up: u32,
    permission: u32,
}

fn weather() -> impl Strategy<Value = Weather> {
    (
        0u32..8,
        0u32..40,
        0u32..30,
        0u32..4,
        0u32..6,
        2_000u32..600_000,
    )
        .prop_map(
            |(hang_up, lose_ack, repeat_ack, restart, lose_up, permission)| Weather {
                hang_up,
                lose_ack,
                repeat_ack,
                restart,
                lose_up,
                permission,
            },
        )
}

async fn live(weather: Weather, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let shelf = Shelf::new(1);
    let mut hub = Hub::new(weather.permission);
    let mut to_put = 120;
    let put = |rng: &mut StdRng, shelf: &Shelf| {
        let (stream, bytes) = match rng.random_range(0..10) {
            0..3 => (Stream::Event, rng.random_range(1..500)),
            3..5 => (Stream::Attendance, rng.random_range(1..40_000)),
            5 => (Stream::Health, 400),
            6..9 => (Stream::Snapshot, rng.random_range(1..70_000)),
            _ => (Stream::Segment, rng.random_range(1..300_000)),
        };
        shelf.put(stream, bytes, rng.random());
    };
    for _ in 0..40 {
        put(&mut rng, &shelf);
    }
    let rig = Rig::start(shelf, seed);
    let chance = |rng: &mut StdRng, percent: u32| rng.random_range(0..100) < percent;
    let mut weather = weather;
    let mut steps = 0u32;
    while to_put > 0 || rig.shelf.unacknowledged() > 0 {
        let mut wire = rig.accept(rng.random_range(1..8)).await;
        let mut last: Option<Down> = None;
        loop {
            if to_put == 0 && rig.shelf.unacknowledged() == 0 {
                break;
            }
            steps += 1;
            if steps == 4_000 {
                // the storm ends some day; then everything has to arrive
                weather = Weather {
                    hang_up: 0,
                    lose_ack: 0,
                    restart: 0,
                    lose_up: 0,
                    ..weather
                };
            }
            assert!(steps < 60_000, "it does not converge");
            if to_put > 0 && chance(&mut rng, 10) {
                put(&mut rng, &rig.shelf);
                to_put -= 1;
            }
            if chance(&mut rng, weather.hang_up) {
                break;
            }
            let Some(message) = wire.any().await else {
                break;
            };
            if chance(&mut rng, weather.lose_up) && !matches!(message, UpMessage::Hello(_)) {
                continue; // the router's ring has overwritten it
            }
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
            if chance(&mut rng, weather.restart) {
                hub.run += 1;
                if chance(&mut rng, 50) {
                    hub.spool.clear();
                }
            }
            let down = hub.take(message);
            if !chance(&mut rng, weather.lose_ack)
                && let Some(down) = &down
            {
                wire.say(down);
            }
            if chance(&mut rng, weather.repeat_ack)
                && let Some(last) = &last
            {
                wire.say(last);
            }
            last = down.or(last);
        }
    }
    let all = rig.shelf.all();
    assert_eq!(all.len(), hub.stored.len());
    for (key, body) in all {
        assert_eq!(
            hub.stored.get(&key).map(Vec::as_slice),
            Some(&body[..]),
            "{key:?}"
        );
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn every_record_arrives_exactly_as_it_was_written(weather in weather(), seed in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(live(weather, seed));
    }
}
