//! What an agent's socket delivers, in any split: the first byte says where it is cut.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use scc_common::id::AgentId;
use scc_hub::gate::limits::MAX_PACKET;
use scc_hub::gate::packet::{Front, Inbound, Rules, next};

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, stream)) = bytes.split_first() else {
        return;
    };
    let Ok(agent) = AgentId::new("a") else {
        return;
    };
    let rules = Rules::new(agent);
    let mut buffer = BytesMut::new();
    for part in stream.chunks(usize::from(*cut).max(1)) {
        buffer.extend_from_slice(part);
        loop {
            let before = buffer.len();
            match next(&mut buffer, MAX_PACKET) {
                Ok(Front::Packet(packet)) => {
                    assert!(buffer.len() < before, "a packet has bytes");
                    admit(&rules, packet);
                }
                Ok(Front::Need(missing)) => {
                    assert!(missing >= 1 && buffer.len() == before);
                    break;
                }
                Err(_) => return,
            }
        }
    }
});

fn admit(rules: &Rules, packet: Inbound) {
    match packet {
        Inbound::Publish { publish, .. } => {
            if rules.publish(&publish).is_ok() {
                let payload = publish.payload.clone();
                assert_eq!(rules.detach(publish).payload, payload);
            }
        }
        Inbound::Subscribe { filters, .. } => drop(rules.subscribe(&filters)),
        other => drop(rules.connect(other)),
    }
}
