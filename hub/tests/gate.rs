//! The gate as agents and strangers meet it: real sockets, real certificates, rumqttc as the agent.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "these are tests; clippy knows it only of functions marked as such"
)]

mod gate_support;

use std::time::Duration;

use bytes::Bytes;
use gate_support::{Agent, Raw, World, connect_packet, soon};
use rumqttc::{Event, Packet, QoS, SubscribeFilter};
use scc_hub::gate::limits::{MESSAGE_OVERHEAD, POOL, SHARE};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// How long an honest agent may take to connect, whatever others do.
const HONEST: Duration = Duration::from_secs(2);

#[tokio::test]
async fn an_honest_agent_publishes_and_is_answered() {
    let mut world = World::open(&["rsud"]).await;
    let mut presence = world.gate.presence();
    let mut agent = world.connect("rsud").await;
    let came = soon(presence.recv()).await.unwrap();
    assert!(came.connected && came.agent.as_str() == "rsud", "{came:?}");
    assert_eq!(world.gate.connected(), vec![came]);

    agent.publish("scc/up/rsud", b"first").await;
    agent.puback().await;
    let arrived = world.arrived().await;
    assert_eq!(arrived.agent.as_str(), "rsud");
    assert_eq!(&arrived.payload[..], b"first");

    agent.subscribe("scc/down/rsud").await;
    world
        .gate
        .send(&arrived.agent, Bytes::from_static(b"answer"));
    assert_eq!(agent.received().await, b"answer");

    agent.client.disconnect().await.unwrap();
    agent.flush().await;
    let left = soon(presence.recv()).await.unwrap();
    assert!(!left.connected && left.why.contains("good-bye"), "{left:?}");
    assert_eq!(world.gate.connected(), vec![]);
    world.close().await;
}

#[tokio::test]
async fn order_and_content_survive_a_burst_of_many_batches() {
    let mut world = World::open(&["rsud"]).await;
    let mut agent = world.connect("rsud").await;
    let client = agent.client.clone();
    let sender = tokio::spawn(async move {
        for i in 0..2_000_u32 {
            let payload = i.to_be_bytes().to_vec();
            client
                .publish("scc/up/rsud", QoS::AtLeastOnce, false, payload)
                .await
                .unwrap();
        }
    });
    let polling = tokio::spawn(async move { while agent.events.poll().await.is_ok() {} });
    for i in 0..2_000_u32 {
        assert_eq!(world.arrived().await.payload, i.to_be_bytes()[..]);
    }
    sender.await.unwrap();
    polling.abort();
}

#[tokio::test]
async fn what_goes_down_needs_a_subscription() {
    let mut world = World::open(&["rsud"]).await;
    let mut agent = world.connect("rsud").await;
    agent.publish("scc/up/rsud", b"hello").await;
    agent.puback().await;
    let arrived = world.arrived().await;
    world
        .gate
        .send(&arrived.agent, Bytes::from_static(b"too early"));
    agent.subscribe("scc/down/rsud").await;
    world
        .gate
        .send(&arrived.agent, Bytes::from_static(b"in time"));
    assert_eq!(agent.received().await, b"in time");
}

/// What is relied on of the pair rumqttc and rumqttd (field complaint 10): that a broker keeps sessions was
/// broken by versions of others, so nothing may depend on one, and nothing of one may come back.
#[tokio::test]
async fn a_clean_session_keeps_nothing_of_the_one_before() {
    let mut world = World::open(&["rsud"]).await;
    let mut first = world.connect("rsud").await;
    first.subscribe("scc/down/rsud").await;
    first.publish("scc/up/rsud", b"before").await;
    first.puback().await;
    let agent = world.arrived().await.agent;
    drop(first);

    let mut again = Agent::new(world.options("rsud", "rsud"));
    let session_present = loop {
        if let Event::Incoming(Packet::ConnAck(ack)) = soon(again.events.poll()).await.unwrap() {
            break ack.session_present;
        }
    };
    assert!(!session_present);
    // neither the subscription nor what went down meanwhile nor a publish twice
    world.gate.send(&agent, Bytes::from_static(b"meanwhile"));
    again.publish("scc/up/rsud", b"after").await;
    again.puback().await;
    assert_eq!(&world.arrived().await.payload[..], b"after");
    again.subscribe("scc/down/rsud").await;
    world.gate.send(&agent, Bytes::from_static(b"now"));
    assert_eq!(again.received().await, b"now");
}

#[tokio::test]
async fn publishing_to_anothers_topic_ends_the_connection_and_delivers_nothing() {
    let mut world = World::open(&["rsud", "psc"]).await;
    for topic in ["scc/up/psc", "scc/up/rsud/x", "scc/down/rsud", "$SYS/x"] {
        let mut agent = world.connect("rsud").await;
        agent.publish(topic, b"stolen").await;
        agent.ended().await;
    }
    let mut honest = world.connect("psc").await;
    honest.publish("scc/up/psc", b"mine").await;
    honest.puback().await;
    let arrived = world.arrived().await;
    assert_eq!(
        (arrived.agent.as_str(), &arrived.payload[..]),
        ("psc", &b"mine"[..])
    );
}

#[tokio::test]
async fn subscribing_to_anothers_topic_ends_the_connection() {
    let world = World::open(&["rsud", "psc"]).await;
    let mut presence = world.gate.presence();
    for filter in [
        "scc/down/psc",
        "scc/down/+",
        "scc/#",
        "#",
        "$share/g/scc/down/rsud",
        "scc/up/rsud",
    ] {
        let mut agent = world.connect("rsud").await;
        agent
            .client
            .subscribe(filter, QoS::AtMostOnce)
            .await
            .unwrap();
        agent.ended().await;
        let why = loop {
            let told = soon(presence.recv()).await.unwrap();
            if !told.connected {
                break told.why;
            }
        };
        assert!(why.contains("subscribed to"), "{filter}: {why}");
    }
    let mut agent = world.connect("rsud").await;
    let many =
        ["scc/down/rsud", "scc/down/psc"].map(|f| SubscribeFilter::new(f.into(), QoS::AtMostOnce));
    agent.client.subscribe_many(many).await.unwrap();
    agent.ended().await;
}

#[tokio::test]
async fn retained_and_exactly_once_end_the_connection() {
    let world = World::open(&["rsud"]).await;
    let mut agent = world.connect("rsud").await;
    agent
        .client
        .publish("scc/up/rsud", QoS::AtLeastOnce, true, "x")
        .await
        .unwrap();
    agent.ended().await;
    let mut agent = world.connect("rsud").await;
    agent
        .client
        .publish("scc/up/rsud", QoS::ExactlyOnce, false, "x")
        .await
        .unwrap();
    agent.ended().await;
}

#[tokio::test]
async fn connect_must_be_as_an_agents_is() {
    let world = World::open(&["rsud", "psc"]).await;
    let refused = async |options: rumqttc::MqttOptions| {
        let mut agent = Agent::new(options);
        let error = agent.connected().await.expect_err("must be refused");
        assert!(
            matches!(error, rumqttc::ConnectionError::ConnectionRefused(_)),
            "{error:?}"
        );
    };
    refused(world.options("rsud", "psc")).await;
    refused(world.options("rsud", "rsud.live")).await;
    let mut options = world.options("rsud", "rsud");
    options.set_clean_session(false);
    refused(options).await;
    let mut options = world.options("rsud", "rsud");
    options.set_last_will(rumqttc::LastWill::new(
        "scc/up/rsud",
        "gone",
        QoS::AtLeastOnce,
        false,
    ));
    refused(options).await;
    let mut options = world.options("rsud", "rsud");
    options.set_keep_alive(Duration::from_secs(301));
    refused(options).await;
    assert_eq!(world.gate.connected(), vec![]);
    world.connect("rsud").await;
}

#[tokio::test]
async fn strangers_certificates_are_refused() {
    let mut world = World::open(&["rsud"]).await;
    // Another authority altogether, of the same name.
    let foreign = gate_support::Authority::new("agents");
    world.issue_by(&foreign, "psc", "scc:agent:psc");
    assert!(world.try_connect("psc").await.is_err());
    // Ours, but not following the profile.
    world.issue_as("kominfo", "scc:hub");
    assert!(world.try_connect("kominfo").await.is_err());
    assert_eq!(world.gate.connected(), vec![]);
    world.connect("rsud").await;
}

#[tokio::test]
async fn a_revoked_agent_is_cut_and_stays_out_and_the_others_stay_in() {
    let mut world = World::open(&["rsud", "psc"]).await;
    let mut presence = world.gate.presence();
    let mut stolen = world.connect("psc").await;
    let mut honest = world.connect("rsud").await;
    world.revoke("psc", 2099);
    stolen.ended().await;
    let told = loop {
        let told = soon(presence.recv()).await.unwrap();
        if !told.connected {
            break told;
        }
    };
    assert!(
        told.agent.as_str() == "psc" && told.why.contains("revoked"),
        "{told:?}"
    );
    assert!(world.try_connect("psc").await.is_err());

    honest.publish("scc/up/rsud", b"still here").await;
    honest.puback().await;
    assert_eq!(&world.arrived().await.payload[..], b"still here");
    assert_eq!(world.gate.connected().len(), 1);
}

#[tokio::test]
async fn a_revocation_list_past_its_date_still_holds_and_keeps_nobody_else_out() {
    let world = World::open(&["rsud", "psc"]).await;
    let mut stolen = world.connect("psc").await;
    world.revoke("psc", 2025);
    stolen.ended().await;
    assert!(world.try_connect("psc").await.is_err());
    world.connect("rsud").await;
}

#[tokio::test]
async fn no_session_is_resumed() {
    let world = World::open(&["rsud"]).await;
    // One client configuration, so that it would remember tickets.
    let tls = world.tls("rsud");
    for _ in 0..2 {
        let mut raw = Raw::with(&world, tls.clone()).await;
        raw.send(&connect_packet("rsud")).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        assert_eq!(raw.handshake(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn fifty_silent_sockets_of_each_kind_keep_nobody_out() {
    let world = World::open(&["rsud", "psc"]).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    for _ in 0..50 {
        // Begins a TLS record and never ends it.
        let mut socket = TcpStream::connect(world.address).await.unwrap();
        socket.write_all(&[0x16, 3, 1, 0, 0x80, 1]).await.unwrap();
        silent.push(socket);
    }
    let mut quiet = Vec::new();
    for _ in 0..50 {
        // Has a certificate and never says CONNECT.
        quiet.push(Raw::connect(&world, "psc").await);
    }
    let connected = tokio::time::timeout(HONEST, world.connect("rsud")).await;
    assert!(connected.is_ok(), "an honest agent waited for silent ones");
    drop((silent, quiet));
}

#[tokio::test]
async fn a_flood_of_silent_sockets_pushes_out_its_own() {
    let world = World::open(&["rsud"]).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let connected = tokio::time::timeout(HONEST, world.connect("rsud")).await;
    assert!(connected.is_ok(), "an honest agent waited for silent ones");
}

#[tokio::test]
async fn a_hundred_aborted_connects_leave_no_trace() {
    let mut world = World::open(&["rsud"]).await;
    for i in 0..100 {
        let mut raw = Raw::connect(&world, "rsud").await;
        raw.send(&connect_packet("rsud")).await;
        match i % 3 {
            0 => drop(raw),
            1 => raw.reset(),
            _ => {
                raw.expect(&[0x20, 2, 0, 0]).await;
                raw.reset();
            }
        }
    }
    let mut agent = world.connect("rsud").await;
    agent.publish("scc/up/rsud", b"after all that").await;
    agent.puback().await;
    assert_eq!(&world.arrived().await.payload[..], b"after all that");
}

#[tokio::test]
async fn garbage_after_connect_costs_that_connection_only() {
    let world = World::open(&["rsud", "psc"]).await;
    let mut honest = world.connect("psc").await;
    for garbage in [
        &b"\x00\x00"[..],
        b"\xff\xff\xff\xff\xff",
        b"\x10\x00",
        b"\x30\xff\xff\xff\xff",
        b"\x32\x02\x00\xff",
        b"\x82\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x40\x02\x00\x01",
        b"\xa2\x02\x00\x01",
        b"\xc0\x01\x00",
    ] {
        let mut raw = Raw::connect(&world, "rsud").await;
        raw.send(&connect_packet("rsud")).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        raw.send(garbage).await;
        raw.closed().await;
    }
    honest.publish("scc/up/psc", b"x").await;
    honest.puback().await;
}

#[tokio::test]
async fn a_second_connection_takes_over_at_once() {
    let mut world = World::open(&["rsud"]).await;
    let mut presence = world.gate.presence();
    let mut first = world.connect("rsud").await;
    first.publish("scc/up/rsud", b"from the first").await;
    first.puback().await;
    let mut second = world.connect("rsud").await;
    first.ended().await;
    second.publish("scc/up/rsud", b"from the second").await;
    second.puback().await;
    for expected in ["from the first", "from the second"] {
        assert_eq!(world.arrived().await.payload, expected.as_bytes());
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(soon(presence.recv()).await.unwrap());
    }
    assert_eq!(
        told.iter().map(|p| p.connected).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert!(told[1].why.contains("another connection"), "{told:?}");
    assert_eq!(world.gate.connected().len(), 1);
}

#[tokio::test]
async fn a_consumer_that_does_not_let_go_stops_the_sockets_and_nothing_is_lost() {
    // Two of these are an agent's whole share.
    const PAYLOAD: usize = SHARE / 2 - MESSAGE_OVERHEAD;
    const FULL: usize = POOL / SHARE;
    let names: Vec<String> = (0..=FULL).map(|i| format!("site-{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut world = World::open(&names).await;
    let mut held = Vec::new();
    let mut running = Vec::new();
    for (i, name) in names[..FULL].iter().enumerate() {
        let agent = world.connect(name).await;
        running.push(agent.flood(name, 3, PAYLOAD));
        // The third has to stay outside: the share is used up.
        for _ in 0..2 {
            held.push(world.arrived().await);
        }
        assert_eq!(held.len(), 2 * (i + 1));
    }
    let last = names[FULL];
    let latecomer = world.connect(last).await;
    running.push(latecomer.flood(last, 1, 10));
    world.nothing_arrives().await;

    // One lets go. The latecomer has waited for the pool longest; the other waited for its own share
    // and has to stand behind, for what is left is too little for it.
    let freed = held.remove(0);
    let freed_agent = freed.agent.clone();
    drop(freed);
    let next = world.arrived().await;
    assert_eq!(next.agent.as_str(), last);
    world.nothing_arrives().await;
    drop(next);
    let next = world.arrived().await;
    assert_eq!(next.agent, freed_agent);
    drop(next);

    // All let go: everything that was sent arrives.
    drop(held);
    for _ in 0..FULL - 1 {
        assert_eq!(world.arrived().await.payload.len(), PAYLOAD);
    }
    world.nothing_arrives().await;
    for task in running {
        task.abort();
    }
}

#[tokio::test]
async fn a_peer_that_never_reads_cannot_make_the_gate_collect_for_it() {
    let mut world = World::open(&["rsud", "psc"]).await;
    let mut raw = Raw::with_small_window(&world, "rsud").await;
    raw.send(&connect_packet("rsud")).await;
    // PINGREQs whose answers nobody reads: the gate must stop reading instead of queueing answers, so
    // at some point nothing more can be written.
    let pings = [0xC0, 0].repeat(10_000);
    let mut stopped = false;
    for _ in 0..5_000 {
        let written = tokio::time::timeout(Duration::from_secs(3), raw.try_send(&pings)).await;
        stopped = written.is_err();
        if stopped {
            break;
        }
    }
    assert!(stopped, "a hundred megabytes were taken in");
    let mut honest = world.connect("psc").await;
    honest.publish("scc/up/psc", b"x").await;
    honest.puback().await;
    assert_eq!(&world.arrived().await.payload[..], b"x");
}

#[tokio::test]
async fn a_silent_agent_is_gone_after_one_and_a_half_keep_alives() {
    let world = World::open(&["rsud"]).await;
    let mut presence = world.gate.presence();
    let mut raw = Raw::connect(&world, "rsud").await;
    let mut packet = connect_packet("rsud");
    packet[10..12].copy_from_slice(&5_u16.to_be_bytes());
    raw.send(&packet).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    // Downlink does not count as a sign of life.
    raw.send(b"\x82\x12\0\x01\0\x0dscc/down/rsud\0").await;
    raw.expect(&[0x90, 3, 0, 1, 0]).await;
    let began = tokio::time::Instant::now();
    let agent = soon(presence.recv()).await.unwrap().agent;
    let told = loop {
        world.gate.send(&agent, Bytes::from_static(b"x"));
        let wait = Duration::from_millis(200);
        if let Ok(told) = tokio::time::timeout(wait, presence.recv()).await {
            break told.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(15), "still there");
    };
    assert!(!told.connected && told.why.contains("7 s"), "{told:?}");
    assert!(began.elapsed() > Duration::from_secs(7));
}

#[tokio::test]
async fn stopping_ends_everything() {
    let mut world = World::open(&["rsud"]).await;
    let mut agent = world.connect("rsud").await;
    world.stop.cancel();
    agent.ended().await;
    assert!(soon(world.next()).await.is_none());
    assert!(matches!(soon(world.running).await, Ok(Ok(()))));
}

#[tokio::test]
async fn a_large_payload_arrives_whole() {
    let mut world = World::open(&["rsud"]).await;
    let mut agent = world.connect("rsud").await;
    let payload: Vec<u8> = (0..scc_common::wire::MAX_PAYLOAD)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    agent.publish("scc/up/rsud", &payload).await;
    agent.puback().await;
    assert!(world.arrived().await.payload == payload);
}

/// It cannot see a ping behind what it does not read.
#[tokio::test]
async fn who_is_held_back_hears_that_the_gate_lives() {
    const PAYLOAD: usize = SHARE / 2 - MESSAGE_OVERHEAD;
    let mut world = World::open(&["rsud"]).await;
    let mut raw = Raw::connect(&world, "rsud").await;
    let mut packet = connect_packet("rsud");
    packet[10..12].copy_from_slice(&5_u16.to_be_bytes());
    raw.send(&packet).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    let mut publish = vec![0x30];
    let topic = b"\0\x0bscc/up/rsud";
    let mut length = topic.len() + PAYLOAD;
    while length > 0x7F {
        publish.push(u8::try_from(length & 0x7F).unwrap() | 0x80);
        length >>= 7;
    }
    publish.push(u8::try_from(length).unwrap());
    publish.extend(topic);
    publish.resize(publish.len() + PAYLOAD, 7);
    for _ in 0..3 {
        raw.send(&publish).await;
    }
    let held = [world.arrived().await, world.arrived().await];
    // the third waits: twice as often as an agent needs it (a third of the keep alive)
    let began = tokio::time::Instant::now();
    for _ in 0..4 {
        raw.expect(&[0xD0, 0]).await;
    }
    let most = Duration::from_secs(5) * 4 / 3;
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    drop(held);
    world.arrived().await;
    // one may have been on its way; who is not held back gets no answers that it did not ask for
    let unasked = async {
        raw.expect(&[0xD0, 0]).await;
        raw.expect(&[0xD0, 0]).await;
    };
    let more = tokio::time::timeout(Duration::from_secs(3), unasked).await;
    assert!(more.is_err(), "answers without questions");
}
