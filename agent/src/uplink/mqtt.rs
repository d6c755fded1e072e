//! The link over MQTT 3.1.1 and TLS, by rumqttc.
//!
//! Clean session, client id = agent id, up at QoS 1 (a PUBACK only paces), down at QoS 0. A new
//! client object per connection: rumqttc 0.25 keeps state across reconnects that can livelock
//! (bytebeamio/rumqtt#1056). Identity files are read for each connection, so that a renewed
//! certificate needs no restart; while they cannot be used (half written, a key that does not belong),
//! the connection is made with what they held before.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet,
    QoS, StateError, SubscribeReasonCode, TlsConfiguration, TlsError, Transport,
};
use scc_common::clock::SharedClock;
use scc_common::id::AgentId;
use scc_common::identity::CheckTime;
use scc_common::{identity, topic};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::floor::Floor;
use super::link::{Closed, Dial, Link};
use super::pace::Pace;
use crate::config::{Hub, Identity};

/// Publishes without PUBACK. The window bounds bytes; this bounds packets.
const INFLIGHT: u16 = 16;

/// Largest packet, bytes.
const MAX_PACKET: usize = 1024 * 1024;

/// What the kernel may hold unsent, bytes (it doubles the number itself). A punch waits behind it.
const SEND_BUFFER: u32 = 32 * 1024;

/// Messages of the hub that may wait for the session.
const DOWN_QUEUE: usize = 64;

/// Makes MQTT connections to one hub as one agent.
#[derive(Debug, Clone)]
pub struct Mqtt {
    agent: AgentId,
    hub: Hub,
    identity: Identity,
    usable: Arc<std::sync::Mutex<Usable>>,
    pace: Pace,
    time: Option<(SharedClock, Arc<Floor>)>,
}

/// What the files held when they were last usable, and what has been said since of why they are not.
#[derive(Debug, Default)]
struct Usable {
    tls: Option<Arc<rustls::ClientConfig>>,
    said: String,
}

impl Mqtt {
    /// Nothing is read or connected yet. Certificates are checked by the machine's clock.
    #[must_use]
    pub fn new(agent: AgentId, hub: Hub, identity: Identity) -> Self {
        Self {
            agent,
            hub,
            identity,
            usable: Arc::default(),
            pace: Pace::default(),
            time: None,
        }
    }

    /// Checks certificates by this clock and what the hub has told of the time.
    #[must_use]
    pub fn timed(mut self, clock: SharedClock, floor: Arc<Floor>) -> Self {
        self.time = Some((clock, floor));
        self
    }

    fn check_time(&self) -> CheckTime {
        let Some((clock, floor)) = &self.time else {
            return CheckTime::of_system();
        };
        CheckTime {
            clock: Arc::clone(clock),
            told_ms: floor.credible_ms(&**clock),
        }
    }

    /// The TLS side of the next connection.
    fn tls(&self) -> Result<Arc<rustls::ClientConfig>, Closed> {
        let files = &self.identity;
        let time = self.check_time();
        let read = identity::agent_tls_at(&files.certificate, &files.key, &files.hub_ca, &time);
        let mut usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(tls) => {
                usable.tls = Some(Arc::clone(&tls));
                usable.said.clear();
                Ok(tls)
            }
            Err(error) => {
                let before = usable.tls.clone();
                let before = before.ok_or_else(|| Closed::Identity(error.to_string()))?;
                let text = error.to_string();
                if usable.said == text {
                    return Ok(before);
                }
                usable.said = text;
                tracing::error!(
                    "the new identity cannot be used, this connection is made with the old one: {error}; \
                     fetch certificate and key again from the site's folder of the authority"
                );
                Ok(before)
            }
        }
    }

    /// More or less patient than usual.
    #[must_use]
    pub const fn at_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    async fn connect(&self) -> Result<Box<dyn Link>, Closed> {
        let tls = self.tls()?;
        let mut options = MqttOptions::new(self.agent.as_str(), &self.hub.host, self.hub.port);
        options
            .set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)))
            .set_keep_alive(self.pace.keep_alive())
            .set_clean_session(true)
            .set_max_packet_size(MAX_PACKET, MAX_PACKET)
            .set_inflight(INFLIGHT);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_tcp_send_buffer_size(SEND_BUFFER);
        // also the time for flushing one packet: a part must get through a slow link within it
        let step = self.pace.step();
        network.set_connection_timeout(step.as_secs());
        // one request waits in the channel; everything else waits where priorities are known
        let (client, mut events) = AsyncClient::new(options, 1);
        events.set_network_options(network);
        events.poll().await.map_err(|e| closed(e, step))?; // CONNACK
        client
            .subscribe(topic::down(&self.agent), QoS::AtMostOnce)
            .await
            .map_err(|e| Closed::Ended(e.to_string()))?;
        let granted = tokio::time::timeout(step, granted(&mut events, step));
        granted
            .await
            .map_err(|_| Closed::Silent("no answer to the subscription".into()))??;
        Ok(Box::new(Connection::begin(
            &self.agent,
            client,
            events,
            self.pace,
        )))
    }
}

impl Dial for Mqtt {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Link>, Closed>> {
        self.connect().boxed()
    }
}

/// Waits for the SUBACK.
async fn granted(events: &mut EventLoop, step: Duration) -> Result<(), Closed> {
    loop {
        if let Event::Incoming(Packet::SubAck(ack)) =
            events.poll().await.map_err(|e| closed(e, step))?
        {
            return match ack.return_codes.first() {
                Some(SubscribeReasonCode::Success(_)) => Ok(()),
                _ => Err(Closed::Refused("it refused the subscription".into())),
            };
        }
    }
}

/// One MQTT connection; ends when it is dropped.
struct Connection {
    topic: String,
    client: AsyncClient,
    down: Mutex<mpsc::Receiver<Bytes>>,
    ended: Arc<OnceLock<Closed>>,
    sign: watch::Receiver<Option<Instant>>,
    pump: JoinHandle<()>,
}

impl Connection {
    fn begin(agent: &AgentId, client: AsyncClient, mut events: EventLoop, pace: Pace) -> Self {
        let (sender, down) = mpsc::channel(DOWN_QUEUE);
        let ended = Arc::new(OnceLock::new());
        let reason = Arc::clone(&ended);
        let (unasked, sign) = watch::channel(None);
        let pump = tokio::spawn(async move {
            // when a ping went out after which nothing has come in; rumqttc itself would wait until
            // the next ping is due
            let mut pinged: Option<Instant> = None;
            let mut unanswered = 0_u32;
            let why = loop {
                let polled = match pinged {
                    None => Ok(events.poll().await),
                    Some(at) => tokio::time::timeout_at(at + pace.pong(), events.poll()).await,
                };
                let Ok(polled) = polled else {
                    break Closed::Silent("no answer to a ping".into());
                };
                match &polled {
                    Ok(Event::Incoming(packet)) => {
                        pinged = None;
                        if matches!(packet, Packet::PingResp) {
                            match unanswered.checked_sub(1) {
                                Some(less) => unanswered = less,
                                None => drop(unasked.send_replace(Some(Instant::now()))),
                            }
                        }
                    }
                    Ok(Event::Outgoing(Outgoing::PingReq)) => {
                        pinged = Some(Instant::now());
                        unanswered += 1;
                    }
                    _ => {}
                }
                match polled {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        if sender.send(publish.payload).await.is_err() {
                            return;
                        }
                    }
                    // it has been flushed when this comes
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                        break Closed::Ended("this agent disconnected".into());
                    }
                    Ok(Event::Incoming(Packet::Disconnect)) => {
                        break Closed::Ended("the hub disconnected".into());
                    }
                    Ok(_) => {}
                    Err(error) => break closed(error, pace.step()),
                }
            };
            let _ = reason.set(why);
        });
        Self {
            topic: topic::up(agent),
            client,
            down: Mutex::new(down),
            ended,
            sign,
            pump,
        }
    }

    fn why(&self) -> Closed {
        self.ended
            .get()
            .cloned()
            .unwrap_or_else(|| Closed::Ended("the client stopped".into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Link for Connection {
    fn publish(&self, payload: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
        async move {
            self.client
                .publish_bytes(&self.topic, QoS::AtLeastOnce, false, payload)
                .await
                .map_err(|_| self.why())
        }
        .boxed()
    }

    fn receive(&self) -> BoxFuture<'_, Result<Bytes, Closed>> {
        async move {
            self.down
                .lock()
                .await
                .recv()
                .await
                .ok_or_else(|| self.why())
        }
        .boxed()
    }

    fn sign_of_life(&self) -> Option<Instant> {
        *self.sign.borrow()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if self.client.disconnect().await.is_ok() {
                // what still comes is not for us any more; the pump's end is what is waited for
                let mut down = self.down.lock().await;
                while down.recv().await.is_some() {}
            }
        }
        .boxed()
    }
}

/// What rumqttc saw, in our words.
fn closed(error: ConnectionError, step: Duration) -> Closed {
    let seconds = step.as_secs();
    match error {
        ConnectionError::ConnectionRefused(code) => Closed::Refused(format!("{code:?}")),
        ConnectionError::NetworkTimeout => {
            Closed::Network(format!("no connection within {seconds} s"))
        }
        ConnectionError::FlushTimeout => {
            Closed::Silent(format!("it took no bytes for {seconds} s"))
        }
        ConnectionError::Tls(TlsError::Io(error)) => Closed::Tls(error.to_string()),
        ConnectionError::Tls(error) => Closed::Tls(error.to_string()),
        ConnectionError::Io(error) => Closed::Network(error.to_string()),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            Closed::Silent("no answer to a ping".into())
        }
        // TLS alerts after the handshake (a refused client certificate in TLS 1.3) come as I/O
        ConnectionError::MqttState(StateError::Io(error)) => Closed::Ended(error.to_string()),
        other => Closed::Ended(other.to_string()),
    }
}
