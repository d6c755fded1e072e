//! The hub's memory does not grow with how often and under how many names it is connected to, nor with
//! what somebody does not read (field complaint 12). Anonymous memory of the hub as a process of its own.
//!
//! `SCC_CHURN=10000 cargo test -p scc-hub --test hostile memory` is the long form.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use scc_hub::gate::limits::{RING_ENTRY, RING_SEGMENT, RING_SEGMENTS};

use crate::ALONE;
use crate::gate_support::house::{envelope, event};
use crate::gate_support::place::{Place, Running};
use crate::gate_support::{Raw, World, connect_packet};

const CHURN: usize = 1_500;
const CERTIFICATES: [&str; 4] = ["rsud", "psc", "damkar", "kominfo"];
const SAMPLES: usize = 30;
/// More messages than the router's ring holds: it forgets only what it has no room for.
const RING: usize = RING_SEGMENT * RING_SEGMENTS / RING_ENTRY;
/// What the allocator's own to and fro may look like, KiB.
const NOISE_KIB: u64 = 3 * 1024;

/// Sends records and never reads an acknowledgement; when the hub has had enough it comes back.
fn stuck(world: &World) -> JoinHandle<()> {
    let (address, tls) = (world.address, world.tls("stuck"));
    let record = envelope("stuck", 1, event(1));
    let mut said = connect_packet("stuck");
    said.extend(b"\x82\x13\0\x01\0\x0escc/down/stuck\0");
    let mut publish = vec![0x30];
    let topic = b"\0\x0cscc/up/stuck";
    let length = topic.len() + record.len();
    publish.extend([
        u8::try_from(length % 128).unwrap() | 0x80,
        u8::try_from(length / 128).unwrap(),
    ]);
    publish.extend(topic);
    publish.extend(&record);
    let publishes = publish.repeat(20);
    tokio::spawn(async move {
        loop {
            let mut raw = Raw::to(address, Arc::clone(&tls)).await;
            let mut taken = raw.try_send(&said).await;
            while taken.is_ok() {
                taken = raw.try_send(&publishes).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    })
}

/// As many of the smallest messages as the ring takes, and then one that has come through.
async fn fill_the_ring(world: &World) {
    let mut raw = Raw::connect(world, "rsud").await;
    raw.send(&connect_packet("rsud")).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    let empty = b"\x30\x0d\0\x0bscc/up/rsud".repeat(1_000);
    for _ in 0..RING.div_ceil(1_000) {
        raw.send(&empty).await;
    }
    raw.send(b"\xc0\0").await;
    raw.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn memory_stays_while_names_churn_and_a_consumer_is_stuck() {
    let _alone = ALONE.lock().await;
    let churn = std::env::var("SCC_CHURN").map_or(CHURN, |n| n.parse().unwrap());
    let mut world = World::open(&CERTIFICATES).await;
    world.issue_as("stuck", "scc:agent:stuck");
    let mut place = Place::with(world);
    let mut command = place.hub(&place.text, &["serve"]);
    // the log of a hundred thousand refusals is another test's matter
    command.env("SCC_LOG", "error,scc_hub::serve=info");
    let (hub, address) = Running::serving(command);
    place.world.address = address;
    fill_the_ring(&place.world).await;
    let stuck = stuck(&place.world);

    let tls = CERTIFICATES.map(|name| place.world.tls(name));
    let mut samples = Vec::new();
    for i in 0..churn {
        let of = i % CERTIFICATES.len();
        let mut raw = Raw::to(address, Arc::clone(&tls[of])).await;
        if i % 8 < CERTIFICATES.len() {
            // a name that was never heard before
            raw.send(&connect_packet(&format!("site-{i}"))).await;
            raw.expect(&[0x20, 2, 0, 2]).await;
        } else {
            raw.send(&connect_packet(CERTIFICATES[of])).await;
            raw.expect(&[0x20, 2, 0, 0]).await;
        }
        if i % 3 == 0 {
            raw.reset();
        }
        if i % (churn / SAMPLES).max(1) == 0 {
            samples.push(hub.anonymous_kib());
        }
    }
    assert!(
        !stuck.is_finished(),
        "the stuck consumer was at it all the time"
    );
    stuck.abort();
    println!("anonymous memory over {churn} connections, KiB: {samples:?}");
    let third = samples.len() / 3;
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    let (before, after) = (
        middle(&samples[third..2 * third]),
        middle(&samples[2 * third..]),
    );
    assert!(
        after <= before + NOISE_KIB,
        "{before} KiB in the second third, {after} KiB in the last: {samples:?}"
    );
}
