//! rumqttd's router behind the gate: one link per agent, and one that hears what all of them publish.
//!
//! What rumqttd 0.20 needs to be treated like, and where it is kept (docs/design, broker-and-buffer):
//! - A link on which the router has given up panics the router when it is woken. So agents' links never
//!   subscribe (the gate writes what goes down itself): the router never sends them more than PUBACKs,
//!   never parks them, and they never wake it. Only the link of [`Arrivals`] does, and that one is never
//!   dropped while the gate lives.
//! - A link is closed by a DISCONNECT packet pushed into it ([`AgentLink::close`]); dropping it is not
//!   noticed by the router, which would keep the client id taken.
//! - Messages that a link holds are lost when its client id is taken over. The registry lets a new link
//!   in only after the old one was closed, and the router handles events in order.
//! - Its ring overwrites what was not read, and keeps what was read until it is overwritten. It counts
//!   payloads and topics only, not the 250 bytes of its own entry, so that it would hold a flood of empty
//!   messages in twenty times its size. So payloads wait in the [`Ledger`], and what goes into the ring
//!   is a ticket with a weight that says what its entry takes. The pool is half of what it surely holds.
//! - After a disconnect it may go to sleep with work in its queue, until any next event (`run_inner`
//!   blocks when the first in line is already gone). [`Arrivals::recv`] pokes it while it waits.
//! - Sending to it blocks while its queue of 1,000 events is full. It never waits for anybody, so this
//!   is a matter of microseconds and is done on the runtime's threads.
//!
//! - [`LinkBuilder::build`] waits without async, and for ever if the router ends meanwhile.
//!
//! A router that has ended is fatal: the hub exits, is restarted, and the agents send again.

use std::sync::Arc;

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Packet, PingReq, Publish, PublishProperties,
};
use rumqttd::{Forward, Notification, Router, RouterConfig};
use scc_common::id::AgentId;
use scc_common::topic;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::limits::{ARRIVALS, POKE, RING_ENTRY, RING_SEGMENT, RING_SEGMENTS, ROUTER_ANSWER};
use super::pool::{Charge, Charged, Ledger, Ticket};
use super::{Arrived, GateError, events};

/// Not a valid agent id, so no agent can ever take it over.
const INGEST: &str = "scc.ingest";

/// The router hands over so many messages before it waits to be woken.
const BATCH: u64 = 200;

/// What the ring is made to count for an entry: the same bytes for all of them.
static WEIGHT: &[u8] = &[0; RING_ENTRY];

type Connect = dyn Fn(&str) -> Result<(LinkTx, LinkRx), GateError> + Send + Sync;

/// Makes links. Cheap to clone.
#[derive(Clone)]
pub(super) struct Links {
    /// The type of the router's channel is not exported by rumqttd, so a closure keeps it.
    connect: Arc<Connect>,
    ledger: Arc<Ledger>,
    /// Cancelled when the router has ended.
    pub(super) ended: CancellationToken,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

/// Starts the router's thread and subscribes the one reader, before any agent can publish: what is
/// published without a subscriber is acknowledged and thrown away.
pub(super) async fn start(
    max_connections: usize,
    stop: CancellationToken,
) -> Result<(Links, Arrivals), GateError> {
    let config = RouterConfig {
        // Every agent, the reader, and room for links on their way out.
        max_connections: max_connections + 64,
        max_outgoing_packet_count: BATCH,
        max_segment_size: RING_SEGMENT,
        max_segment_count: RING_SEGMENTS,
        initialized_filters: Some(vec![topic::UP_FILTER.to_owned()]),
        ..RouterConfig::default()
    };
    let events = Router::new(0, config).spawn();
    let connect: Arc<Connect> = Arc::new(move |client: &str| {
        LinkBuilder::new(client, events.clone())
            .build()
            .map(|(tx, rx, _)| (tx, rx))
            .map_err(ended)
    });
    let links = Links {
        connect,
        ledger: Arc::default(),
        ended: CancellationToken::new(),
    };
    let (mut tx, mut rx) = links.connect(INGEST.to_owned()).await?;
    tx.subscribe(topic::UP_FILTER).map_err(ended)?;
    // Handled in order, so the subscription stands before the first agent's link exists; its SUBACK
    // is waited for only to know that the router works.
    while rx.next().await.map_err(ended)?.is_none() {}
    let arrivals = Arrivals {
        tx,
        rx,
        ledger: Arc::clone(&links.ledger),
        ended: links.ended.clone(),
        stop,
    };
    Ok((links, arrivals))
}

fn ended(why: impl ToString) -> GateError {
    GateError::RouterEnded(why.to_string())
}

impl Links {
    async fn connect(&self, client: String) -> Result<(LinkTx, LinkRx), GateError> {
        let connect = Arc::clone(&self.connect);
        let (made, link) = oneshot::channel();
        // rumqttd waits for the router's answer without async, and for ever when the router ends at that
        // moment. A thread of its own does not keep the process from exiting then, as a thread of the
        // runtime's pool would.
        std::thread::Builder::new()
            .name("gate-link".into())
            .spawn(move || {
                // An error only says that nobody waits for the link any more.
                let _ = made.send(connect(&client));
            })
            .map_err(|e| GateError::RouterEnded(format!("no thread for a link: {e}")))?;
        let answer = tokio::select! {
            answer = timeout(ROUTER_ANSWER, link) => answer,
            () = self.ended.cancelled() => return Err(ended("it has ended")),
        };
        match answer {
            Ok(Ok(link)) => link,
            Ok(Err(_)) => Err(ended("the thread that made a link has panicked")),
            Err(_) => Err(ended("it does not answer")),
        }
    }

    /// A link for an agent that has no other now.
    pub(super) async fn open(&self, agent: &AgentId) -> Result<AgentLink, GateError> {
        let opened = self.connect(agent.as_str().to_owned()).await;
        let (tx, rx) = opened.inspect_err(|_| self.ended.cancel())?;
        Ok(AgentLink {
            up: UpLink {
                agent: agent.clone(),
                tx,
                ledger: Arc::clone(&self.ledger),
                ended: self.ended.clone(),
            },
            acks: Acks {
                rx,
                ended: self.ended.clone(),
            },
        })
    }
}

/// An agent's two directions to the router.
pub(super) struct AgentLink {
    pub(super) up: UpLink,
    pub(super) acks: Acks,
}

impl AgentLink {
    /// Tells the router that this agent has gone. After this nothing may be sent.
    pub(super) async fn close(mut self) {
        let leave = Packet::Disconnect(
            Disconnect {
                reason_code: DisconnectReasonCode::NormalDisconnection,
            },
            None,
        );
        if self.up.tx.send(leave).await.is_err() {
            self.up.ended.cancel();
        }
    }
}

/// There is no router any more; the gate knows it.
#[derive(Debug)]
pub(super) struct Gone;

/// Where an agent's publishes enter.
pub(super) struct UpLink {
    agent: AgentId,
    tx: LinkTx,
    ledger: Arc<Ledger>,
    ended: CancellationToken,
}

impl UpLink {
    /// Hands a checked and charged publish on. The payload waits in the ledger; what goes through the
    /// router is its ticket, as MQTT 5 correlation data, which never reaches a socket, and a weight.
    pub(super) async fn publish(
        &mut self,
        mut publish: Publish,
        charge: Charge,
    ) -> Result<(), Gone> {
        let payload = std::mem::replace(&mut publish.payload, Bytes::from_static(WEIGHT));
        let ticket = self.ledger.enter(&self.agent, Charged { payload, charge });
        let properties = PublishProperties {
            correlation_data: Some(Bytes::copy_from_slice(&ticket.to_be_bytes())),
            ..PublishProperties::default()
        };
        let sent = self.tx.send(Packet::Publish(publish, Some(properties)));
        match sent.await {
            Ok(_) => Ok(()),
            Err(_) => {
                self.ended.cancel();
                Err(Gone)
            }
        }
    }
}

/// Where the router's acknowledgements for one agent come out.
pub(super) struct Acks {
    rx: LinkRx,
    ended: CancellationToken,
}

impl Acks {
    /// The next packet for the socket. Loses nothing when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Packet, Gone> {
        loop {
            match self.rx.next().await {
                Ok(Some(Notification::DeviceAck(ack))) => return Ok(ack.into()),
                Ok(_) => {}
                Err(_) => {
                    self.ended.cancel();
                    return Err(Gone);
                }
            }
        }
    }
}

/// What agents have published, in the order of arrival per agent.
pub struct Arrivals {
    tx: LinkTx,
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
                () = tokio::time::sleep(POKE) => {
                    // Answered by a PINGRESP, which `arrived` passes over; so never more than one
                    // answer is waiting.
                    match self.tx.send(Packet::PingReq(PingReq)).await {
                        Ok(_) => continue,
                        Err(error) => Err(error),
                    }
                }
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
    use std::time::Duration;

    /// rumqttd's real router, killed by what really kills it: waking a link that has been closed.
    #[tokio::test]
    async fn a_router_that_ends_ends_the_arrivals() {
        let (links, mut arrivals) = start(1, CancellationToken::new()).await.unwrap();
        let agent = AgentId::new("rsud").unwrap();
        let AgentLink { up, acks } = links.open(&agent).await.unwrap();
        let wake = acks.rx;
        let acks = links
            .open(&AgentId::new("psc").unwrap())
            .await
            .unwrap()
            .acks;
        AgentLink { up, acks }.close().await;
        wake.ready().unwrap();
        let next = tokio::time::timeout(Duration::from_secs(10), arrivals.recv()).await;
        assert!(next.expect("must not wait for ever").is_none());
        assert!(links.ended.is_cancelled());
        assert!(links.open(&agent).await.is_err());
    }
}
