use super::*;
use proptest::prelude::*;

const LIMIT: usize = crate::gate::limits::MAX_PACKET;

fn agent() -> AgentId {
    AgentId::new("rsud").unwrap()
}

fn decode(bytes: &[u8]) -> Result<Front, Refusal> {
    next(&mut BytesMut::from(bytes), LIMIT)
}

fn inbound(bytes: &[u8]) -> Inbound {
    match decode(bytes) {
        Ok(Front::Packet(inbound)) => inbound,
        other => panic!("{other:?}"),
    }
}

/// CONNECT with these flags, keep alive 30 s.
fn connect(level: u8, flags: u8, client_id: &str, rest: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend([
        level,
        flags,
        0,
        30,
        0,
        u8::try_from(client_id.len()).unwrap(),
    ]);
    body.extend(client_id.as_bytes());
    body.extend(rest);
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

fn publish(first: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
    body.extend(topic.as_bytes());
    if first & 0b0110 != 0 {
        body.extend([0, 7]);
    }
    body.extend(payload);
    let mut packet = BytesMut::from(&[first][..]);
    v4::write_remaining_length(&mut packet, body.len()).unwrap();
    packet.extend_from_slice(&body);
    packet.to_vec()
}

fn subscribe(filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    for (path, qos) in filters {
        body.extend([0, u8::try_from(path.len()).unwrap()]);
        body.extend(path.as_bytes());
        body.push(*qos);
    }
    let mut packet = vec![0x82, u8::try_from(body.len()).unwrap()];
    packet.extend(body);
    packet
}

#[test]
fn an_honest_agents_packets_pass() {
    let rules = Rules::new(agent());
    assert_eq!(rules.connect(inbound(&connect(4, 2, "rsud", b""))), Ok(30));
    for first in [0x30, 0x32, 0x3A] {
        match inbound(&publish(first, "scc/up/rsud", b"hello")) {
            Inbound::Publish { publish, pkid } => {
                assert_eq!(pkid, (first != 0x30).then_some(7));
                assert_eq!(rules.publish(&publish), Ok(()));
                assert_eq!(&rules.detach(publish).payload[..], b"hello");
            }
            other => panic!("{other:?}"),
        }
    }
    match inbound(&subscribe(&[("scc/down/rsud", 0)])) {
        Inbound::Subscribe { pkid, filters } => {
            assert_eq!(pkid, 9);
            assert_eq!(rules.subscribe(&filters), Ok(()));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(inbound(&[0xC0, 0]), Inbound::Ping);
    assert_eq!(inbound(&[0xE0, 0]), Inbound::Disconnect);
}

#[test]
fn connect_is_refused_for_the_reason_that_it_has() {
    let rules = Rules::new(agent());
    let refused = |bytes: &[u8]| match decode(bytes) {
        Ok(Front::Packet(packet)) => rules.connect(packet).unwrap_err().label(),
        Ok(Front::Need(_)) => "short",
        Err(refusal) => refusal.label(),
    };
    assert_eq!(refused(&connect(3, 2, "rsud", b"")), "version");
    assert_eq!(refused(&connect(5, 2, "rsud", b"\0")), "version");
    assert_eq!(refused(&connect(4, 2, "psc", b"")), "client_id");
    assert_eq!(refused(&connect(4, 2, "rsud.live", b"")), "client_id");
    assert_eq!(refused(&connect(4, 2, "", b"")), "client_id");
    assert_eq!(refused(&connect(4, 0, "rsud", b"")), "persistent");
    assert_eq!(refused(&connect(4, 6, "rsud", b"\0\x01a\0\x01b")), "will");
    for (seconds, fine) in [
        (0_u16, false),
        (4, false),
        (5, true),
        (300, true),
        (301, false),
    ] {
        let mut packet = connect(4, 2, "rsud", b"");
        packet[10..12].copy_from_slice(&seconds.to_be_bytes());
        let expected = if fine {
            Ok(seconds)
        } else {
            Err(Refusal::KeepAlive(seconds))
        };
        assert_eq!(rules.connect(inbound(&packet)), expected);
    }
    assert_eq!(refused(&[0xC0, 0]), "order");
    assert_eq!(refused(&[0x10, 0xFF, 0xFF, 0x7F]), "too_large");
}

#[test]
fn what_agents_do_not_need_is_refused_by_its_first_byte() {
    for first in 0..=u8::MAX {
        let allowed = matches!(first, 0x10 | 0x82 | 0xC0 | 0xE0 | 0x30 | 0x32 | 0x38 | 0x3A);
        let answer = decode(&[first]);
        if allowed {
            assert!(matches!(answer, Ok(Front::Need(_))), "{first:#x}");
        } else {
            assert!(answer.is_err(), "{first:#x}");
        }
    }
}

#[test]
fn foreign_topics_and_filters_are_refused() {
    let rules = Rules::new(agent());
    for foreign in [
        "scc/up/psc",
        "scc/up/rsud/x",
        "scc/up/",
        "scc/up/+",
        "#",
        "$SYS/x",
        "scc/down/rsud",
        "",
    ] {
        let Inbound::Publish { publish, .. } = inbound(&publish(0x32, foreign, b"x")) else {
            panic!("no publish");
        };
        assert!(rules.publish(&publish).is_err(), "{foreign}");
    }
    for foreign in [
        &[("scc/down/psc", 0)][..],
        &[("scc/down/+", 0)],
        &[("#", 0)],
        &[("$share/g/scc/down/rsud", 0)],
        &[("scc/down/rsud", 1)],
        &[("scc/down/rsud", 0), ("scc/down/psc", 0)],
        &[("scc/down/rsud", 0), ("scc/down/rsud", 0)],
    ] {
        let Inbound::Subscribe { filters, .. } = inbound(&subscribe(foreign)) else {
            panic!("no subscribe");
        };
        assert!(rules.subscribe(&filters).is_err(), "{foreign:?}");
    }
}

#[test]
fn a_payload_may_be_as_long_as_the_wire_allows_and_no_longer() {
    let rules = Rules::new(agent());
    let check = |len: usize| match decode(&publish(0x32, "scc/up/rsud", &vec![0; len]))? {
        Front::Packet(Inbound::Publish { publish, .. }) => rules.publish(&publish),
        other => panic!("{other:?}"),
    };
    assert_eq!(check(wire::MAX_PAYLOAD), Ok(()));
    assert!(matches!(
        check(wire::MAX_PAYLOAD + 1),
        Err(Refusal::TooLarge(_))
    ));
    assert!(matches!(
        check(wire::MAX_PAYLOAD + 1024),
        Err(Refusal::TooLarge(_))
    ));
}

#[test]
fn names_from_strangers_cannot_move_a_terminals_cursor() {
    let rules = Rules::new(agent());
    let error = rules
        .connect(inbound(&connect(4, 2, "a\x1b[2J\n", b"")))
        .unwrap_err();
    assert!(!error.to_string().contains(['\x1b', '\n']));
}

proptest! {
    /// Any bytes, whole or in pieces, end in packets, a wish for more, or a refusal.
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut stream = BytesMut::from(&bytes[..]);
        while let Ok(Front::Packet(packet)) = next(&mut stream, LIMIT) {
            check_against_rules(packet);
        }
    }

    /// The same behind each of the allowed first bytes, with a length that fits.
    #[test]
    fn no_body_panics(
        first in prop::sample::select(vec![0x10_u8, 0x82, 0xC0, 0xE0, 0x30, 0x32, 0x3A]),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut stream = BytesMut::from(&[first][..]);
        v4::write_remaining_length(&mut stream, body.len()).unwrap();
        stream.extend_from_slice(&body);
        if let Ok(Front::Packet(packet)) = next(&mut stream, LIMIT) {
            check_against_rules(packet);
        }
    }

    /// A packet cut anywhere asks for at least one more byte and takes nothing.
    #[test]
    fn a_part_of_a_packet_is_left_alone(cut in 0_usize..300, len in 0_usize..280) {
        let whole = publish(0x32, "scc/up/rsud", &vec![7; len]);
        let cut = cut.min(whole.len() - 1);
        let mut stream = BytesMut::from(&whole[..cut]);
        match next(&mut stream, LIMIT) {
            Ok(Front::Need(missing)) => prop_assert!(missing >= 1 && cut + missing <= whole.len()),
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert_eq!(&stream[..], &whole[..cut]);
    }
}

fn check_against_rules(packet: Inbound) {
    let rules = Rules::new(agent());
    match packet {
        Inbound::Publish { publish, .. } => drop(rules.publish(&publish)),
        Inbound::Subscribe { filters, .. } => drop(rules.subscribe(&filters)),
        other => drop(rules.connect(other)),
    }
}
