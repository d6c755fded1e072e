//! Every number of the gate, each with its reason. Sizes are bytes.

use std::time::Duration;

use scc_common::id::MAX_ID_LEN;
use scc_common::wire::MAX_PAYLOAD;

/// What all agents together may have on the way to ingest. One second of a busy county (200 agents,
/// 80 KiB/s each), small beside the hub's memory, and more than ingest takes in one transaction.
pub const POOL: usize = 16 * 1024 * 1024;

/// What one agent may have on the way to ingest: two of the largest payloads, so that the next one
/// is read while one is being stored, and a sixteenth of the pool, so that one agent cannot hold it.
pub const SHARE: usize = 1024 * 1024;

/// Charged for a message beside its payload: topic, ticket and rumqttd's own entry. Without it a
/// flood of empty messages would cost nothing and fill the router's ring.
pub const MESSAGE_OVERHEAD: usize = 512;

/// Payloads that ingest may be handed ahead of what it is at; the charges bound their bytes.
pub const ARRIVALS: usize = 16;

/// What an entry of rumqttd's ring takes in memory: a publish, its properties and a ticket. The payload
/// is not in it. The ring's sizes below are counted by this and the topic.
pub const RING_ENTRY: usize = 320;

/// One segment of the ring in which rumqttd keeps what was published.
pub const RING_SEGMENT: usize = 3 * 1024 * 1024;

/// Segments of the ring. It drops its oldest segment whether or not that was read, and the newest is
/// only partly filled, so what it surely keeps is `(segments - 1) × segment`: twice as many entries as
/// the pool lets in.
pub const RING_SEGMENTS: usize = 10;

/// Length of rumqttd's own count and of the longest topic.
const RING_TOPIC: usize = 4 + "scc/up/".len() + MAX_ID_LEN;

const _: () = assert!(
    (RING_SEGMENTS - 1) * RING_SEGMENT / (RING_ENTRY + RING_TOPIC) >= 2 * (POOL / MESSAGE_OVERHEAD)
);
const _: () = assert!(SHARE >= 2 * MAX_PAYLOAD && SHARE + MESSAGE_OVERHEAD <= POOL);

/// Longest MQTT packet after its fixed header: the payload, the longest topic, the packet id.
pub const MAX_PACKET: usize = MAX_PAYLOAD + 256;

/// Longest packet that is no PUBLISH; an honest CONNECT or SUBSCRIBE has less than 200 bytes.
pub const MAX_CONTROL: usize = 1024;

/// How much is read from a socket at one time, so that a receive buffer grows with what has come in
/// and not with what was announced.
pub const READ_STEP: usize = 16 * 1024;

/// A receive buffer that has grown beyond this is given back after the packet that needed it.
pub const KEEP_BUFFER: usize = 64 * 1024;

/// One that has grown beyond this is given back once nothing has come for [`QUIET`].
pub const QUIET_BUFFER: usize = 512;

/// Who has said nothing for so long is not in the middle of something.
pub const QUIET: Duration = Duration::from_secs(2);

/// Time for the TLS handshake, and again for CONNECT.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Sockets that have not finished CONNECT. Reserved beside `max_connections`: silent strangers use up
/// this room and never that of the agents. When it is full, the oldest of the address with the most
/// is dropped; an honest agent needs two round trips, so it is out of here before it is the oldest.
pub const PENDING: usize = 256;

/// Of these, from one address. Many agents may stand behind one router of the county's network.
pub const PENDING_PER_ADDRESS: usize = 128;

/// File descriptors do not come back by asking at once.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shortest and longest keep alive that is accepted, seconds: below, an agent wakes the link for
/// nothing; above, a dead agent is shown as alive for more than seven minutes.
pub const KEEP_ALIVE: std::ops::RangeInclusive<u16> = 5..=300;

/// Packets that were asked for and are not yet written: PUBACK, PINGRESP, SUBACK. Beyond, reading
/// stops: without a limit a peer that never reads would grow this list for ever. rumqttc keeps at most
/// 100 publishes in flight.
pub const OWED: usize = 128;

/// An agent that is held back is told that the gate lives, so many times in its keep alive: it gives a
/// ping a third of it (`scc-agent`), and the gate cannot see the ping behind what it does not read.
pub const SIGNS_OF_LIFE: u32 = 6;

/// Payloads waiting to go down to one agent; the oldest are dropped, because a newer acknowledgement
/// says all that an older one said.
pub const DOWN_QUEUE: usize = 256;

/// Bytes waiting to go down to one agent.
pub const DOWN_BYTES: usize = 1024 * 1024;

/// A peer that takes none of a write for so long does not read.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Time for closing TLS politely after everything else about a connection is done.
pub const CLOSE: Duration = Duration::from_secs(1);

/// How long the connection that is being replaced may take to leave. It only has to hand one packet
/// to the router.
pub const TAKEOVER: Duration = Duration::from_secs(5);

/// How often the files of the TLS identity and the revocation list are looked at.
pub const WATCH: Duration = Duration::from_secs(1);

/// Comings and goings that a slow listener may be behind before it has to ask for the whole list.
pub const PRESENCE_BACKLOG: usize = 1024;

/// Log lines about refused connections in a minute; the rest is counted.
pub const REFUSALS_LOGGED: u32 = 10;

/// The kernel begins to ask a silent peer whether it still lives, then every ten seconds, three times.
pub const TCP_IDLE: Duration = Duration::from_secs(30);

/// See [`TCP_IDLE`].
pub const TCP_INTERVAL: Duration = Duration::from_secs(10);

/// A router that has not made a link in this time is not going to: it is never busy for milliseconds.
pub const ROUTER_ANSWER: Duration = Duration::from_secs(10);
