//! The table of peers that break the rules of TCP, TLS or MQTT.

use std::any::Any;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::gate_support::{Raw, World, connect_packet};

/// What keeps a peer's sockets open until it is dropped.
pub(crate) type Held = Vec<Box<dyn Any + Send>>;

type Stranger = for<'a> fn(&'a World) -> BoxFuture<'a, Held>;

/// Those that hold sockets give them back; all others are gone when they return, and what has to be
/// refused was refused.
pub(crate) const ALL: &[(&str, Stranger)] = &[
    ("mute sockets", |w| mute(w, b"").boxed()),
    ("half a handshake, then silence", |w| {
        mute(w, HALF_A_HELLO).boxed()
    }),
    ("plain MQTT without TLS", |w| {
        mute(w, b"\x10\x10\0\x04MQTT\x04\x02\0\x1e\0\x04rsud").boxed()
    }),
    ("a handshake, then silence", |w| greeted(w, b"").boxed()),
    ("half a CONNECT, then silence", |w| {
        greeted(w, b"\x10\x10\0\x04MQ").boxed()
    }),
    ("sockets closed by FIN and by RST", |w| aborted(w).boxed()),
    ("wrong client ids", |w| wrong_ids(w).boxed()),
    ("CONNECTs of another kind", |w| other_connects(w).boxed()),
    ("foreign topics", |w| foreign_topics(w).boxed()),
    ("foreign filters", |w| foreign_filters(w).boxed()),
    ("retained, QoS 2 and QoS 3", |w| publishes(w).boxed()),
    ("packets that only a hub sends", |w| {
        other_packets(w).boxed()
    }),
    ("oversize packets and length bombs", |w| bombs(w).boxed()),
    ("a packet without end", |w| endless(w).boxed()),
];

/// A TLS record of 512 bytes of which ten come.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03";

async fn mute(world: &World, said: &[u8]) -> Held {
    let mut held: Held = Vec::new();
    for _ in 0..60 {
        let mut socket = TcpStream::connect(world.address).await.unwrap();
        socket.write_all(said).await.unwrap();
        held.push(Box::new(socket));
    }
    held
}

async fn greeted(world: &World, said: &[u8]) -> Held {
    let tls = world.tls("rsud");
    let mut held: Held = Vec::new();
    for _ in 0..60 {
        let mut raw = Raw::with(world, tls.clone()).await;
        raw.send(said).await;
        held.push(Box::new(raw));
    }
    held
}

/// 200 at five stages, each stage by FIN and by RST.
async fn aborted(world: &World) -> Held {
    let tls = world.tls("rsud");
    let connect = connect_packet("rsud");
    let half_a_publish = [&connect[..], b"\x32\x7f\0\x0bscc/up/rsud\0\x01"].concat();
    for i in 0..200 {
        let by_reset = i % 2 == 0;
        let said: Option<&[u8]> = match i / 2 % 5 {
            0 => None,
            1 => Some(b""),
            2 => Some(&connect[..7]),
            3 => Some(&connect),
            _ => Some(&half_a_publish),
        };
        if let Some(said) = said {
            let mut raw = Raw::with(world, tls.clone()).await;
            raw.send(said).await;
            if by_reset {
                raw.reset();
            }
        } else {
            let socket = TcpStream::connect(world.address).await.unwrap();
            if by_reset {
                socket.set_zero_linger().unwrap();
            }
        }
    }
    Held::new()
}

/// Says each of these after the handshake and is thrown out.
async fn refused(world: &World, sayings: &[Vec<u8>]) -> Held {
    let tls = world.tls("rsud");
    for said in sayings {
        let raw = Raw::with(world, tls.clone()).await;
        thrown_out(raw, said).await;
    }
    Held::new()
}

/// The same after a good CONNECT.
async fn refused_later(world: &World, sayings: &[Vec<u8>]) -> Held {
    let tls = world.tls("rsud");
    for said in sayings {
        let mut raw = Raw::with(world, tls.clone()).await;
        raw.send(&connect_packet("rsud")).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        thrown_out(raw, said).await;
    }
    Held::new()
}

async fn thrown_out(mut raw: Raw, said: &[u8]) {
    // the gate may have closed before all of it was written
    let _ = raw.try_send(said).await;
    let closed = tokio::time::timeout(Duration::from_secs(25), raw.closed());
    let closed = closed.await;
    assert!(closed.is_ok(), "it was not thrown out for {said:02x?}");
}

async fn wrong_ids(world: &World) -> Held {
    // each twice: stock rumqttd keeps a poisoned lock after the second of the one with `#`
    let ids = [
        "",
        "psc",
        "rsud.live",
        "RSUD",
        "rsud ",
        "a#b",
        "+",
        "$share",
        "scc.ingest",
        "../rsud",
    ];
    let sayings: Vec<_> = ids
        .iter()
        .chain(&ids)
        .map(|id| connect_packet(id))
        .collect();
    refused(world, &sayings).await
}

/// CONNECT with this protocol name, level, flags and payload.
fn connect(name: &[u8], level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut rest = vec![0, u8::try_from(name.len()).unwrap()];
    rest.extend(name);
    rest.extend([level, flags, 0, 30]);
    rest.extend(payload);
    [&[0x10, u8::try_from(rest.len()).unwrap()][..], &rest].concat()
}

async fn other_connects(world: &World) -> Held {
    let id = b"\0\x04rsud";
    let will = b"\0\x04rsud\0\x0bscc/up/rsud\0\x01x";
    let mut zero_keep_alive = connect_packet("rsud");
    zero_keep_alive[10..12].fill(0);
    let sayings = [
        connect(b"MQTT", 4, 0b0000_0000, id),   // a persistent session
        connect(b"MQTT", 4, 0b0000_0110, will), // a last will
        connect(b"MQTT", 4, 0b0010_1110, will), // retained, QoS 1
        connect(b"MQTT", 4, 0b0001_1110, will), // its QoS 3
        connect(b"MQTT", 4, 0b0000_0011, id),   // the reserved flag
        connect(b"MQTT", 5, 0b0000_0010, id),
        connect(b"MQIsdp", 3, 0b0000_0010, id),
        connect(b"MQTT", 0xff, 0b0000_0010, id),
        connect(b"\xff\xfe\xfd\xfc", 4, 0b0000_0010, id),
        connect(b"MQTT", 4, 0b0000_0010, b"\0\x04\xff\xfe\xfd\xfc"), // an id that is no UTF-8
        connect(b"MQTT", 4, 0b0000_0010, b"\xff\xffrsud"),           // an id longer than the packet
        zero_keep_alive,
        b"\x30\x0e\0\x0bscc/up/rsudx".to_vec(), // no CONNECT at all
        b"\xc0\0".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    refused(world, &sayings).await
}

fn publish(flags: u8, topic: &[u8]) -> Vec<u8> {
    let mut rest = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    rest.extend(topic);
    if flags & 0b0110 != 0 {
        rest.extend([0, 1]);
    }
    rest.extend(b"stolen");
    [
        &[0x30 | flags, u8::try_from(rest.len()).unwrap()][..],
        &rest,
    ]
    .concat()
}

async fn foreign_topics(world: &World) -> Held {
    let topics: [&[u8]; 14] = [
        b"",
        b"#",
        b"+",
        b"scc/up/psc",
        b"scc/up/+",
        b"scc/up/#",
        b"scc/up/rsud/",
        b"/scc/up/rsud",
        b"scc/down/rsud",
        b"scc/live/rsud",
        b"$SYS/broker",
        b"$share/g/scc/up/rsud",
        b"scc/up/rsud\0",
        b"scc/up/\xff\xfe",
    ];
    let sayings: Vec<_> = topics
        .iter()
        .flat_map(|topic| [publish(0, topic), publish(0b0010, topic)])
        .collect();
    refused_later(world, &sayings).await
}

fn subscribe(filters: &[(&[u8], u8)]) -> Vec<u8> {
    let mut rest = vec![0, 1];
    for (filter, qos) in filters {
        rest.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        rest.extend(*filter);
        rest.push(*qos);
    }
    [&[0x82, u8::try_from(rest.len()).unwrap()][..], &rest].concat()
}

async fn foreign_filters(world: &World) -> Held {
    let own: (&[u8], u8) = (b"scc/down/rsud", 0);
    let mut sayings: Vec<_> = [
        &b""[..],
        b"#",
        b"+",
        b"scc/#",
        b"scc/down/+",
        b"scc/down/psc",
        b"scc/up/rsud",
        b"$SYS/#",
        b"$share/g/scc/down/rsud",
        b"$share/g/#",
        b"scc/down/rsud/#",
        b"scc/down/\xff\xfe",
    ]
    .iter()
    .map(|filter| subscribe(&[(filter, 0)]))
    .collect();
    sayings.extend([
        subscribe(&[(own.0, 1)]),
        subscribe(&[(own.0, 2)]),
        subscribe(&[(own.0, 0xff)]),
        subscribe(&[]),
        subscribe(&[own, (b"scc/down/psc", 0)]),
        subscribe(&[own, own]),
        b"\xa2\x11\0\x01\0\x0dscc/down/rsud".to_vec(), // UNSUBSCRIBE
    ]);
    refused_later(world, &sayings).await
}

async fn publishes(world: &World) -> Held {
    let sayings: Vec<_> = [0b0001, 0b0011, 0b0100, 0b1100, 0b0110, 0b1111]
        .iter()
        .map(|flags| publish(*flags, b"scc/up/rsud"))
        .collect();
    refused_later(world, &sayings).await
}

async fn other_packets(world: &World) -> Held {
    let mut sayings = vec![
        connect_packet("rsud"),
        b"\x82\0".to_vec(),
        b"\x32\0".to_vec(),
    ];
    // each type with each of its flags, except those that an agent sends
    for first in 0..=u8::MAX {
        let an_agents = matches!(first, 0x10 | 0x82 | 0xc0 | 0xe0) || first & 0xf0 == 0x30;
        if !an_agents && first % 3 == 0 {
            sayings.push(vec![first, 2, 0, 1]);
        }
    }
    refused_later(world, &sayings).await
}

async fn bombs(world: &World) -> Held {
    let lengths: [&[u8]; 4] = [
        b"\xff\xff\xff\x7f",             // 256 MB, the most that MQTT has
        b"\xff\xff\xff\xff\xff\xff\x7f", // a length without end
        b"\x80\x80\x80\x80\x01",
        b"\x81\x84\x20", // one more than the longest payload with its topic
    ];
    let mut sayings = Vec::new();
    for first in [0x10, 0x30, 0x32, 0x82, 0xc0, 0xe0] {
        for length in lengths {
            sayings.push([&[first][..], length, &[0; 64]].concat());
        }
    }
    refused(world, &sayings).await;
    refused_later(world, &sayings).await
}

/// One byte of a large publish after the other: it is let do that, for an agent on a bad link looks
/// the same, but it keeps nobody waiting.
async fn endless(world: &World) -> Held {
    let mut raw = Raw::connect(world, "rsud").await;
    raw.send(&connect_packet("rsud")).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(b"\x32\x80\x80\x10\0\x0bscc/up/rsud\0\x01").await;
    for _ in 0..500 {
        raw.send(b"x").await;
    }
    vec![Box::new(raw)]
}
