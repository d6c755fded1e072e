//! What an agent with a good certificate may send as payload: nothing of it stops the others, what is no
//! envelope is counted, and what is an envelope is stored whatever is in it.

use metrics_exporter_prometheus::PrometheusBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scc_common::wire::Up;

use crate::ALONE;
use crate::gate_support::house::{Honest, House, acknowledged, envelope, event, send};

/// Deep enough for the stack of a thread, if somebody recursed into it.
const DEEP: usize = 200_000;

/// The header of a CBOR item of this major type that claims 2^62 bytes or items.
fn claims(major: u8) -> Vec<u8> {
    let mut item = vec![major << 5 | 27];
    item.extend((1_u64 << 62).to_be_bytes());
    item
}

/// Bodies and payloads that are no CBOR, or CBOR that wants to be more than it is.
fn garbage(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let mut all = vec![
        Vec::new(),
        vec![0xff; 9],
        vec![0; 4_096],
        b"{\"json\": true}".to_vec(),
        b"\x63\xff\xfe\xfd".to_vec(),  // text that is no UTF-8
        vec![0x9f; DEEP],              // arrays in arrays, without end
        vec![0x81; DEEP],              // arrays of one in arrays of one
        b"\xa1\x61a".repeat(DEEP / 3), // maps in maps
        vec![0xc1; DEEP],              // tags on tags
        b"\xa1\x63msg".repeat(DEEP / 5),
        [&b"\xa1\x61v"[..], &vec![0x81; DEEP]].concat(),
    ];
    // byte string, text, array, map
    for major in [2, 3, 4, 5] {
        all.push(claims(major));
        all.push([&b"\xa1\x61v"[..], &claims(major)].concat());
        all.push([&b"\xa1\x63msg"[..], &claims(major), &[0; 64]].concat());
    }
    for _ in 0..100 {
        let length = rng.random_range(1..2_000);
        all.push((0..length).map(|_| rng.random()).collect());
    }
    all
}

#[tokio::test]
async fn what_cannot_be_read_is_counted_or_stored_and_stops_nobody() {
    let _alone = ALONE.lock().await;
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let refused = || -> usize {
        let text = metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("scc_ingest_refused_total "));
        line.map_or(0, |count| count.parse().unwrap())
    };
    let seed = rand::random();
    println!("seed {seed}");
    let garbage = garbage(&mut StdRng::seed_from_u64(seed));
    let whole = envelope("rsud", 1, event(1));
    let mut payloads = garbage.clone();
    payloads.extend((0..whole.len()).map(|to| whole[..to].to_vec()));
    for payload in &payloads {
        assert!(Up::decode(payload).is_err(), "seed {seed}: {payload:02x?}");
    }

    let house = House::open(&["rsud", "psc"]).await;
    let mut honest = Honest::new("psc");
    let mut hostile = house.world.connect("rsud").await;
    hostile.subscribe("scc/down/rsud").await;
    for (i, payload) in payloads.iter().enumerate() {
        hostile.publish("scc/up/rsud", payload).await;
        hostile.puback().await;
        if i % 50 == 0 {
            honest.delivers(&house.world, &format!("payload {i}")).await;
        }
    }
    // somebody else's envelope: not believed, and not stored as anybody's
    hostile
        .publish("scc/up/rsud", &envelope("psc", 1_000, event(1)))
        .await;
    hostile.puback().await;

    // the same as bodies: valid envelopes, so each is stored and acknowledged and said to be unreadable
    let small: Vec<_> = garbage.iter().filter(|body| body.len() < 5_000).collect();
    for (seq, body) in (1..).zip(&small) {
        send(&mut hostile, "rsud", seq, (*body).clone()).await;
        acknowledged(&mut hostile, seq).await;
    }
    // deep ones as well, nested to where an envelope of one record still goes inline
    let next = small.len() as u64 + 1;
    for (seq, item) in (next..).zip([0x9f, 0x81, 0xc1]) {
        send(&mut hostile, "rsud", seq, vec![item; 30_000]).await;
        acknowledged(&mut hostile, seq).await;
    }
    honest.delivers(&house.world, "all payloads").await;

    let hostiles = "FROM record WHERE agent = 'rsud'";
    assert_eq!(
        house.count(&format!("SELECT count(*) {hostiles} AND readable = 0")),
        i64::try_from(small.len() + 3).unwrap(),
        "each body was stored and none of them was read"
    );
    assert_eq!(
        house.count(&format!("SELECT count(*) {hostiles} AND readable = 1")),
        0
    );
    assert_eq!(
        house.count("SELECT count(*) FROM record WHERE readable = 1"),
        i64::try_from(honest.delivered()).unwrap()
    );
    house.close().await;
    assert_eq!(
        refused(),
        payloads.len() + 1,
        "each payload is counted once"
    );
}
