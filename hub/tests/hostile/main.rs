//! Hostile peers, as a table: after each of them an honest agent connects within two seconds and its
//! record is in the ledger, through the real gate, ingest and database.
//!
//! Field complaints (agents, buffers, links) 7, 12 and 19. What these do not prove: that a machine
//! under a flood of the network itself keeps its promise; all of it is one machine's loopback.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

#[path = "../gate_support/mod.rs"]
mod gate_support;
mod memory;
mod mutations;
mod payloads;
mod strangers;

use gate_support::house::{Honest, House};
use tokio::sync::Mutex;

/// One at a time: each has two seconds to keep on a small machine, and some count what all of the
/// process did.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn after_each_stranger_an_honest_agent_connects_and_delivers() {
    let _alone = ALONE.lock().await;
    let house = House::open(&["rsud", "psc"]).await;
    let mut honest = Honest::new("psc");
    honest.delivers(&house.world, "nothing at all").await;
    for (name, stranger) in strangers::ALL {
        let held = stranger(&house.world).await;
        honest.delivers(&house.world, name).await;
        drop(held);
        honest.delivers(&house.world, name).await;
    }
    let delivered = i64::try_from(honest.delivered()).unwrap();
    assert_eq!(house.count("SELECT count(*) FROM record"), delivered);
    assert_eq!(house.count("SELECT count(DISTINCT agent) FROM record"), 1);
    house.close().await;
}
