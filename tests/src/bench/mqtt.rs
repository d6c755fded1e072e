//! An MQTT 3.1.1 client without comfort: the codec of `rumqttc` on a TLS socket, so that the load
//! program costs little beside what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use rumqttc::QoS;
use rumqttc::mqttbytes::Error as Unfinished;
use rumqttc::mqttbytes::v4::{Connect, Packet, Publish, Subscribe};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Largest packet that is read.
const MAX_PACKET: usize = 1 << 20;

/// A connection that has been let in and is subscribed.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<tokio::net::TcpStream>,
    received: BytesMut,
    out: BytesMut,
}

/// Whom to call, and as whom.
#[derive(Debug, Clone)]
pub struct Call {
    /// The listener.
    pub to: SocketAddr,
    /// The address to call from, where one has too few ports.
    pub from: Option<SocketAddr>,
    /// Certificates.
    pub tls: Arc<rustls::ClientConfig>,
    /// Client id: the certificate's name.
    pub id: String,
    /// What is subscribed, with QoS 0.
    pub filter: String,
    /// Seconds.
    pub keep_alive: u16,
}

impl Connection {
    /// Connects and subscribes.
    ///
    /// # Errors
    /// If the other side is not there, does not let it in, or ends the connection.
    pub async fn open(call: &Call) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = call.from {
            socket.bind(from)?;
        }
        let socket = socket.connect(call.to).await.context("connect")?;
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::clone(&call.tls));
        let stream = connector.connect(name, socket).await.context("TLS")?;
        let mut connection = Self {
            stream,
            received: BytesMut::new(),
            out: BytesMut::new(),
        };
        let mut connect = Connect::new(&call.id);
        connect.keep_alive = call.keep_alive;
        connect.clean_session = true;
        connect.write(&mut connection.out)?;
        connection.flush().await?;
        match connection.next().await? {
            Packet::ConnAck(ack) if ack.code == rumqttc::ConnectReturnCode::Success => {}
            other => bail!("not let in: {other:?}"),
        }
        let mut subscribe = Subscribe::new(&call.filter, QoS::AtMostOnce);
        subscribe.pkid = u16::MAX;
        subscribe.write(&mut connection.out)?;
        connection.flush().await?;
        match connection.next().await? {
            Packet::SubAck(_) => Ok(connection),
            other => bail!("not subscribed: {other:?}"),
        }
    }

    /// Puts a publish with QoS 1 among what the next [`flush`](Self::flush) writes.
    ///
    /// # Errors
    /// If the codec refuses it.
    pub fn publish(&mut self, topic: &str, pkid: u16, payload: Bytes) -> anyhow::Result<()> {
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, payload);
        publish.pkid = pkid;
        publish.write(&mut self.out)?;
        Ok(())
    }

    /// Puts a PINGREQ among what is written next.
    pub fn ping(&mut self) {
        self.out.extend_from_slice(&[0xc0, 0]);
    }

    /// Writes what was put.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        self.stream.flush().await?;
        Ok(())
    }

    /// The next packet that has been read already.
    ///
    /// # Errors
    /// If what came is no MQTT.
    pub fn pop(&mut self) -> anyhow::Result<Option<Packet>> {
        match Packet::read(&mut self.received, MAX_PACKET) {
            Ok(packet) => Ok(Some(packet)),
            Err(Unfinished::InsufficientBytes(_)) => Ok(None),
            Err(error) => bail!("no MQTT: {error:?}"),
        }
    }

    /// Waits for bytes. Loses nothing when the future is dropped.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn read(&mut self) -> anyhow::Result<()> {
        self.received.reserve(16 * 1024);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            bail!("the connection was closed");
        }
        Ok(())
    }

    /// Waits for a packet.
    ///
    /// # Errors
    /// If the connection has ended, or nothing comes for half a minute.
    pub async fn next(&mut self) -> anyhow::Result<Packet> {
        loop {
            if let Some(packet) = self.pop()? {
                return Ok(packet);
            }
            tokio::time::timeout(Duration::from_secs(30), self.read())
                .await
                .context("nothing comes")??;
        }
    }
}
