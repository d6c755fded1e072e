//! rumqttd's router behind the gate: one link into which all agents publish, and one that hears it.
//!
//! What rumqttd 0.20 needs to be treated like:
//! - A link reserves 200 kB of queues and lists before it has carried anything, and the queues of its
//!   acknowledgements are rings: three hundred messages have touched all of their 75 kB. So agents have
//!   no links of their own: their publishes share one, and its PUBACKs are handed to whoever they are
//!   due to ([`Due`]).
//! - The router acknowledges what came through a link in the order in which it came, at once and only
//!   with the message in its ring. A PUBACK out of order is a router that cannot be trusted, and is
//!   treated as one that has ended.
//! - A link on which the router has given up panics the router when it is woken, and one that it has
//!   closed may put it to sleep with work in its queue. So neither link is ever closed while the gate
//!   lives. The link of the agents never subscribes: nothing but PUBACKs comes out of it, and it is
//!   never parked. For a publish the router closes a link when its topic is none or has no subscriber;
//!   both are excluded before (`packet`).
//! - Messages that a link holds are lost when its client id is taken over. No agent's id is a link's:
//!   what an agent handed over before it was taken over is as good as what it hands over later.
//! - Its ring overwrites what was not read, and keeps what was read until it is overwritten. It counts
//!   payloads and topics only, not the 250 bytes of its own entry, so that it would hold a flood of empty
//!   messages in twenty times its size. So payloads wait in the [`Ledger`], and what goes into the ring
//!   is a ticket with a weight that says what its entry takes. The pool is half of what it surely holds.
//! - Sending to it blocks while its queue of 1,000 events is full. It never waits for anybody, and it
//!   is told only of the first packet that it has not yet taken, so this queue is all but empty.
//! - [`LinkBuilder::build`] waits without async, and for ever if the router ends meanwhile.
//!
//! A router that has ended is fatal: the hub exits, is restarted, and the agents send again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::FutureExt;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish, PublishProperties};
use rumqttd::{Forward, Notification, Router, RouterConfig};
use scc_common::id::AgentId;
use scc_common::topic;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::limits::{ARRIVALS, RING_ENTRY, RING_SEGMENT, RING_SEGMENTS, ROUTER_ANSWER};
use super::pool::{Charge, Charged, Ledger, Ticket};
use super::session::Answer;
use super::{Arrived, GateError, events, lock};

/// Not a valid agent id, so no agent can ever take it over.
const INGEST: &str = "scc.ingest";

/// Nor is this.
const AGENTS: &str = "scc.agents";

/// The router hands over so many messages before it waits to be woken.
const BATCH: u64 = 200;

/// What the ring is made to count for an entry: the same bytes for all of them.
static WEIGHT: &[u8] = &[0; RING_ENTRY];

type Link = (LinkTx, LinkRx);

/// Where publishes enter the router. Cheap to clone.
#[derive(Clone)]
pub(super) struct Entrance {
    agents: Arc<Mutex<Agents>>,
    ledger: Arc<Ledger>,
    /// Cancelled when the router has ended.
    pub(super) ended: CancellationToken,
    _acknowledging: Arc<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}

/// The link of all agents, and what the router has still to acknowledge, in the order of handing on.
struct Agents {
    tx: LinkTx,
    due: VecDeque<Due>,
}

/// A PUBACK that the router owes, and to whom.
#[derive(Debug)]
pub(super) struct Due {
    pkid: u16,
    to: mpsc::UnboundedSender<Answer>,
}

impl Due {
    pub(super) fn new(pkid: u16, to: &mpsc::UnboundedSender<Answer>) -> Self {
        let to = to.clone();
        Self { pkid, to }
    }
}

/// There is no router any more; the gate knows it.
#[derive(Debug)]
pub(super) struct Gone;

/// Starts the router's thread and subscribes the one reader, before any agent can publish: what is
/// published without a subscriber is acknowledged and thrown away.
pub(super) async fn start(stop: CancellationToken) -> Result<(Entrance, Arrivals), GateError> {
    start_on(router(), stop).await
}

/// Makes links to a router. The type of the router's channel is not exported by rumqttd, so a closure
/// keeps it.
fn router() -> impl Fn(&str) -> Result<Link, GateError> + Clone + Send + 'static {
    let config = RouterConfig {
        // Two are used; each place that is kept free costs the router a few hundred bytes.
        max_connections: 8,
        max_outgoing_packet_count: BATCH,
        max_segment_size: RING_SEGMENT,
        max_segment_count: RING_SEGMENTS,
        initialized_filters: Some(vec![topic::UP_FILTER.to_owned()]),
        ..RouterConfig::default()
    };
    let events = Router::new(0, config).spawn();
    move |client| {
        LinkBuilder::new(client, events.clone())
            .build()
            .map(|(tx, rx, _)| (tx, rx))
            .map_err(ended)
    }
}

async fn start_on(
    connect: impl Fn(&str) -> Result<Link, GateError> + Clone + Send + 'static,
    stop: CancellationToken,
) -> Result<(Entrance, Arrivals), GateError> {
    let (mut tx, mut rx) = linked(connect.clone(), INGEST).await?;
    tx.subscribe(topic::UP_FILTER).map_err(ended)?;
    // Handled in order, so the subscription stands before anything can be published; its SUBACK
    // is waited for only to know that the router works.
    while rx.next().await.map_err(ended)?.is_none() {}
    let (agents, acks) = linked(connect, AGENTS).await?;
    let agents = Arc::new(Mutex::new(Agents {
        tx: agents,
        due: VecDeque::new(),
    }));
    let (ledger, ended) = (Arc::<Ledger>::default(), CancellationToken::new());
    let acknowledging = tokio::spawn(acknowledge(acks, Arc::clone(&agents), ended.clone()));
    let arrivals = Arrivals {
        _tx: tx,
        rx,
        ledger: Arc::clone(&ledger),
        ended: ended.clone(),
        stop,
    };
    let entrance = Entrance {
        agents,
        ledger,
        ended,
        _acknowledging: Arc::new(AbortOnDropHandle::new(acknowledging)),
    };
    Ok((entrance, arrivals))
}

fn ended(why: impl ToString) -> GateError {
    GateError::RouterEnded(why.to_string())
}

async fn linked(
    connect: impl Fn(&str) -> Result<Link, GateError> + Send + 'static,
    client: &'static str,
) -> Result<Link, GateError> {
    let (made, link) = oneshot::channel();
    // rumqttd waits for the router's answer without async, and for ever when the router ends at that
    // moment. A thread of its own does not keep the process from exiting then, as a thread of the
    // runtime's pool would.
    std::thread::Builder::new()
        .name("gate-link".into())
        .spawn(move || {
            // An error only says that nobody waits for the link any more.
            let _ = made.send(connect(client));
        })
        .map_err(|e| GateError::RouterEnded(format!("no thread for a link: {e}")))?;
    match timeout(ROUTER_ANSWER, link).await {
        Ok(Ok(link)) => link,
        Ok(Err(_)) => Err(ended("the thread that made a link has panicked")),
        Err(_) => Err(ended("it does not answer")),
    }
}

impl Entrance {
    /// Hands a checked and charged publish on. The payload waits in the ledger; what goes through the
    /// router is its ticket, as MQTT 5 correlation data, which never reaches a socket, and a weight.
    /// What is due (with QoS 1) goes out as [`Answer::Puback`] once the router has it.
    pub(super) fn publish(
        &self,
        agent: &AgentId,
        mut publish: Publish,
        charge: Charge,
        due: Option<Due>,
    ) -> Result<(), Gone> {
        if self.ended.is_cancelled() {
            return Err(Gone);
        }
        let payload = std::mem::replace(&mut publish.payload, Bytes::from_static(WEIGHT));
        let ticket = self.ledger.enter(agent, Charged { payload, charge });
        let properties = PublishProperties {
            correlation_data: Some(Bytes::copy_from_slice(&ticket.to_be_bytes())),
            ..PublishProperties::default()
        };
        let mut agents = lock(&self.agents);
        // Under the same lock as the publish, so that both are in the same order.
        agents.due.extend(due);
        let handed_on = agents.push(Packet::Publish(publish, Some(properties)));
        handed_on.inspect_err(|Gone| self.ended.cancel())
    }
}

impl Agents {
    /// Leaves a packet for the router, which takes all that is there when it is told of the first.
    fn push(&mut self, packet: Packet) -> Result<(), Gone> {
        let mut waiting = self.tx.buffer();
        if !waiting.is_empty() {
            waiting.push_back(packet);
            return Ok(());
        }
        drop(waiting);
        // Async by name only.
        match self.tx.send(packet).now_or_never() {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(Gone),
        }
    }
}

/// Hands the router's PUBACKs to those whom they are due to, until it ends. It acknowledges in the order
/// of publishing; that the ids agree is checked, although agents that count alike could hide a mistake.
/// It would pace them wrongly: a PUBACK deletes nothing.
async fn acknowledge(mut acks: LinkRx, agents: Arc<Mutex<Agents>>, ended: CancellationToken) {
    loop {
        let pkid = match acks.next().await {
            Ok(Some(Notification::DeviceAck(ack))) => match ack.into() {
                Packet::PubAck(ack, _) => ack.pkid,
                _ => continue,
            },
            Ok(_) => continue,
            Err(_) => return ended.cancel(),
        };
        let due = lock(&agents).due.pop_front();
        let Some(due) = due.filter(|due| due.pkid == pkid) else {
            events::acknowledged_out_of_order();
            return ended.cancel();
        };
        // An error only says that the agent has left meanwhile.
        let _ = due.to.send(Answer::Puback(pkid));
    }
}

/// What agents have published, in the order of arrival per agent.
pub struct Arrivals {
    /// Nothing is said after the subscription, but a link has two ends.
    _tx: LinkTx,
    rx: LinkRx,
    ledger: Arc<Ledger>,
    ended: CancellationToken,
    stop: CancellationToken,
}

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}

impl Arrivals {
    /// The next payload; `None` when the gate has stopped or the router has ended (the gate's handle
    /// tells which). Loses nothing when the future is dropped.
    pub async fn recv(&mut self) -> Option<Arrived> {
        loop {
            let next = tokio::select! {
                biased;
                next = self.rx.next() => next,
                () = self.stop.cancelled() => return None,
                () = self.ended.cancelled() => return None,
            };
            match next {
                Ok(Some(Notification::Forward(forward))) => {
                    if let Some(arrived) = self.arrived(forward) {
                        return Some(arrived);
                    }
                }
                // The router has handed over a batch and now waits. Not `wake`: if that future is
                // dropped before it has sent, the router waits for ever.
                Ok(Some(Notification::Unschedule)) if self.rx.ready().is_ok() => {}
                Ok(Some(Notification::Unschedule)) | Err(_) => {
                    self.ended.cancel();
                    return None;
                }
                Ok(_) => {}
            }
        }
    }

    /// The same as a channel, for ingest; when ingest does not take from it, this takes no more either.
    #[must_use]
    pub fn queue(mut self) -> mpsc::Receiver<Arrived> {
        let (give, take) = mpsc::channel(ARRIVALS);
        tokio::spawn(async move {
            while let Some(arrived) = self.recv().await {
                if give.send(arrived).await.is_err() {
                    return;
                }
            }
        });
        take
    }

    fn arrived(&self, forward: Forward) -> Option<Arrived> {
        let topic = String::from_utf8_lossy(&forward.publish.topic);
        // The gate lets nothing else in, so this is `Some` as long as the gate is right.
        let agent = topic::owner_of_up(&topic)?;
        let ticket = forward.properties.and_then(|p| p.correlation_data);
        let ticket = Ticket::from_be_bytes(ticket?.as_ref().try_into().ok()?);
        let (charged, lost) = self.ledger.leave(&agent, ticket);
        if lost > 0 {
            events::lost_in_router(&agent, lost);
        }
        let Charged { payload, charge } = charged?;
        Some(Arrived {
            agent,
            payload,
            charge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::packet::{self, Front, Inbound};
    use crate::gate::pool::{Pool, Share};
    use bytes::BytesMut;
    use rumqttd::protocol::{Disconnect, DisconnectReasonCode};
    use std::time::Duration;

    async fn soon<F: Future>(what: F) -> F::Output {
        let within = Duration::from_secs(10);
        timeout(within, what).await.expect("must not wait for ever")
    }

    fn agent(name: &str) -> AgentId {
        AgentId::new(name).unwrap()
    }

    /// As it comes from a socket, with its packet id unless that is 0.
    fn publish(agent: &AgentId, pkid: u16) -> (Publish, Option<u16>) {
        let topic = topic::up(agent);
        let mut body = vec![0, u8::try_from(topic.len()).unwrap()];
        body.extend(topic.as_bytes());
        if pkid > 0 {
            body.extend(pkid.to_be_bytes());
        }
        body.push(b'x');
        let first = if pkid > 0 { 0x32 } else { 0x30 };
        let mut stream = BytesMut::from(&[first, u8::try_from(body.len()).unwrap()][..]);
        stream.extend_from_slice(&body);
        let Ok(Front::Packet(Inbound::Publish { publish, pkid })) = packet::next(&mut stream, 200)
        else {
            panic!("no publish");
        };
        (publish, pkid)
    }

    /// rumqttd's real router, killed by what really kills it: waking a link that has been closed.
    #[tokio::test]
    async fn a_router_that_ends_ends_the_arrivals() {
        let router = router();
        let (entrance, mut arrivals) = start_on(router.clone(), CancellationToken::new())
            .await
            .unwrap();
        let (mut tx, rx) = router("rsud").unwrap();
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let leave = Packet::Disconnect(Disconnect { reason_code }, None);
        tx.send(leave).await.unwrap();
        rx.ready().unwrap();
        assert!(soon(arrivals.recv()).await.is_none());
        assert!(entrance.ended.is_cancelled());
        let rsud = agent("rsud");
        let (late, _) = publish(&rsud, 0);
        let handed_on = entrance.publish(&rsud, late, Charge::default(), None);
        assert!(handed_on.is_err());
    }

    #[tokio::test]
    async fn each_gets_the_acknowledgements_of_its_own_packets_in_order() {
        let (entrance, mut arrivals) = start(CancellationToken::new()).await.unwrap();
        let (pool, share) = (Pool::new(), Share::new());
        let names = [agent("rsud"), agent("psc"), agent("sdn")];
        let mut boxes: Vec<_> = names.iter().map(|_| mpsc::unbounded_channel()).collect();
        // the second one leaves with acknowledgements on the way
        let (gone, _) = mpsc::unbounded_channel();
        for pkid in 0..300_u16 {
            for (at, name) in names.iter().enumerate() {
                let charge = pool.charge(&share, 1).await;
                let to = if at == 1 { &gone } else { &boxes[at].0 };
                // every third is a packet with QoS 0, which nobody acknowledges
                let (packet, pkid) = publish(name, pkid % 3 * pkid);
                let due = pkid.map(|pkid| Due::new(pkid, to));
                entrance.publish(name, packet, charge, due).unwrap();
            }
        }
        let mut arrived = 0;
        for at in [0, 2] {
            for pkid in (0..300_u16).filter(|pkid| pkid % 3 > 0) {
                while boxes[at].1.is_empty() && arrived < 900 {
                    soon(arrivals.recv()).await.unwrap();
                    arrived += 1;
                }
                let answer = soon(boxes[at].1.recv()).await.unwrap();
                assert_eq!(answer, Answer::Puback(pkid % 3 * pkid));
            }
            assert!(boxes[at].1.is_empty());
        }
        assert!(!entrance.ended.is_cancelled());
    }

    #[tokio::test]
    async fn a_router_that_acknowledges_what_was_not_published_has_ended() {
        let (entrance, _arrivals) = start(CancellationToken::new()).await.unwrap();
        let rsud = agent("rsud");
        let (answers, mut got) = mpsc::unbounded_channel();
        let (packet, _) = publish(&rsud, 4);
        let due = Due::new(9, &answers);
        let handed_on = entrance.publish(&rsud, packet, Charge::default(), Some(due));
        handed_on.unwrap();
        soon(entrance.ended.cancelled()).await;
        drop(answers);
        assert_eq!(soon(got.recv()).await, None);
    }
}
