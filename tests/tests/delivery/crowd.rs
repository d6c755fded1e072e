//! 200 agents that lose their hub at the same moment: real links over TLS, nothing in their buffers.

use std::collections::BTreeSet;
use std::time::Duration;

use scc_agent::config::Hub as HubAddress;
use scc_agent::uplink::Uplink;
use scc_agent::uplink::mqtt::Mqtt;
use scc_common::clock::SystemClock;
use scc_common::id::AgentId;
use scc_tests::bench::agents::Empty;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stage::{Hub, PATIENCE, authority, given, identity, restarted};

const AGENTS: usize = 200;

/// Waits until all are connected; when each came.
async fn all_here(hub: &Hub) -> Vec<Duration> {
    let start = Instant::now();
    let (mut here, mut came) = (BTreeSet::new(), Vec::new());
    while came.len() < AGENTS {
        assert!(start.elapsed() < PATIENCE, "only {} came", came.len());
        for present in hub.gate.connected() {
            if here.insert(present.agent) {
                came.push(start.elapsed());
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    came
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_agents_are_back_soon_after_a_restart_and_not_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let clock = SystemClock::shared();
    let mut authority = authority(dir.path(), &*clock);
    let hub = Hub::start(dir.path(), "127.0.0.1:0".parse().unwrap()).await;
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let address = HubAddress {
        host: "127.0.0.1".into(),
        port: hub.address.port(),
    };
    let mut uplinks = tokio::task::JoinSet::new();
    for seed in (0..).take(AGENTS) {
        let agent = AgentId::new(format!("a{seed}")).unwrap();
        let id = dir.path().join("ids").join(agent.as_str());
        let identity = identity(&mut authority, &agent, &id, &*clock);
        let given = given(agent.clone(), Empty::default(), clock.clone(), &stop);
        let (uplink, _) = Uplink::new(given, Mqtt::new(agent, address.clone(), identity), seed);
        uplinks.spawn(uplink.run());
    }
    all_here(&hub).await;

    // the hub is away until everybody has tried three times or so
    let listen = hub.address;
    drop(hub);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let hub = restarted(dir.path(), listen).await;
    let came = all_here(&hub).await;
    let (last, mut most) = (*came.last().unwrap(), 0);
    for from in &came {
        let second = *from..*from + Duration::from_secs(1);
        most = most.max(came.iter().filter(|at| second.contains(*at)).count());
    }
    println!("all back after {last:.1?}, {most} in the busiest second");
    // the longest pause, and the handshakes of a busy machine
    assert!(last <= Duration::from_secs(30), "{last:?}");
    assert!(most <= 120, "{most} in one second: {came:?}");
}
