//! Every type of packet, changed at random: nothing comes of it but the end of that connection.
//!
//! `SCC_MUTANTS=100000 SCC_SEED=7 cargo test -p scc-hub --test hostile mutations` is the long form.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::ALONE;
use crate::gate_support::house::{Honest, House};
use crate::gate_support::{Raw, World, connect_packet};

const MUTANTS: usize = 2_000;
/// Sent over one connection, until the gate ends it.
const AT_ONCE: usize = 4;
/// Connections between two visits of the honest agent.
const BETWEEN: usize = 50;

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A packet of each type of MQTT 3.1.1, as a client or a broker would send it.
fn packets() -> Vec<Vec<u8>> {
    let mut all = vec![
        connect_packet("rsud"),
        b"\x20\x02\0\0".to_vec(),
        b"\x30\x0f\0\x0bscc/up/rsudxx".to_vec(),
        b"\x32\x11\0\x0bscc/up/rsud\0\x01xx".to_vec(),
        b"\x34\x11\0\x0bscc/up/rsud\0\x01xx".to_vec(),
        b"\x82\x12\0\x01\0\x0dscc/down/rsud\0".to_vec(),
        b"\x90\x03\0\x01\0".to_vec(),
        b"\xa2\x11\0\x01\0\x0dscc/down/rsud".to_vec(),
        b"\xb0\x02\0\x01".to_vec(),
        b"\xc0\0".to_vec(),
        b"\xd0\0".to_vec(),
        b"\xe0\0".to_vec(),
    ];
    for first in [0x40, 0x50, 0x62, 0x70] {
        all.push(vec![first, 2, 0, 1]);
    }
    all
}

/// One to three changes: a byte, a bit, a cut, bytes put in or doubled.
fn mutant(rng: &mut StdRng, packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, rng.random()),
            4 => bytes[at] = [0, 0x7f, 0x80, 0xff][rng.random_range(0..4)],
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

#[tokio::test]
async fn mutations_of_every_packet_cost_their_own_connection_only() {
    let _alone = ALONE.lock().await;
    let seed = number("SCC_SEED").map_or_else(rand::random, |seed| seed as u64);
    let mutants = number("SCC_MUTANTS").unwrap_or(MUTANTS);
    println!("SCC_SEED={seed} SCC_MUTANTS={mutants}");
    let mut rng = StdRng::seed_from_u64(seed);
    let house = House::open(&["rsud", "psc"]).await;
    let mut honest = Honest::new("psc");
    let packets = packets();
    let tls = house.world.tls("rsud");
    for connection in 0..mutants.div_ceil(AT_ONCE) {
        let mut said = Vec::new();
        // every other one is in already
        if connection % 2 == 0 {
            said.extend(connect_packet("rsud"));
        }
        for _ in 0..AT_ONCE {
            let packet = &packets[rng.random_range(0..packets.len())];
            said.extend(mutant(&mut rng, packet));
        }
        tell(&house.world, tls.clone(), &said).await;
        if connection % BETWEEN == 0 {
            let after = format!("{} mutants of seed {seed}", connection * AT_ONCE);
            honest.delivers(&house.world, &after).await;
        }
    }
    honest.delivers(&house.world, "all mutants").await;
    let delivered = i64::try_from(honest.delivered()).unwrap();
    assert_eq!(house.count("SELECT count(*) FROM record"), delivered);
    house.close().await;
}

/// Says it and waits until the gate has read all of it or ended the connection.
async fn tell(world: &World, tls: std::sync::Arc<rustls::ClientConfig>, said: &[u8]) {
    let mut raw = Raw::with(world, tls).await;
    // the gate may have closed before all of it was written
    let _ = raw.try_send(said).await;
    raw.finish().await;
}
