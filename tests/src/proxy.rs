//! A bad network: a TCP proxy that can delay, throttle, stall, half-open, refuse, forget and cut.
//!
//! Bytes are never changed or lost while a connection lives, unless it is [forgotten](Proxy::forget).
//! [`Weather`] may be changed at any moment and holds for existing connections too.
//!
//! A direction of a connection is built like a modem and a long wire: a queue of at most
//! [`QUEUE`] bytes, a sender that takes `1 / rate` for each byte, and a wire on which any number of
//! pieces travel for `delay`. So a rate is kept whatever the delay, and what waits for it fills the
//! peer's send buffer, not this proxy. A direction that was idle does not save up: it may be at most
//! [`BURST`] ahead, which is what the timers of a busy machine are late.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// What the network is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// How long each byte travels, in each direction; a round trip is twice this.
    pub delay: Duration,
    /// Bytes per second in each direction; none = unlimited.
    pub rate: Option<u32>,
    /// Nothing passes from the client to the server; it is held back, not lost.
    pub stall_up: bool,
    /// Nothing passes from the server to the client; it is held back, not lost.
    pub stall_down: bool,
    /// New connections are taken and never led on: half-open.
    pub half_open: bool,
    /// New connections are reset at once.
    pub refuse: bool,
    /// Largest piece that is passed on; none = as it comes.
    pub piece: Option<usize>,
}

/// Bytes that wait for their turn in one direction. The kernel doubles the number itself.
pub const QUEUE: usize = 32 * 1024;

/// What a sender whose timer was late may make up for.
pub const BURST: Duration = Duration::from_millis(20);

/// Largest piece that is sent at once.
const PIECE: usize = 4 * 1024;

/// Pieces on the wire: at this many the peer must wait, however long the delay.
const WIRE: usize = 16 * 1024;

/// What has passed.
#[derive(Debug, Default)]
struct Meter {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    cuts: watch::Sender<u64>,
    forgotten: watch::Sender<u64>,
    target: watch::Sender<SocketAddr>,
    meter: Arc<Meter>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Starts one on a free port of the loopback, leading to `target`.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), target).await
    }

    /// Starts one at an address; port 0 is any free one.
    ///
    /// # Errors
    /// The system's.
    pub async fn start_at(listen: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        // what is accepted inherits it; afterwards the window would be open already
        socket2::SockRef::from(&listener).set_recv_buffer_size(QUEUE)?;
        let address = listener.local_addr()?;
        let weather = watch::channel(Weather::default()).0;
        let cuts = watch::channel(0).0;
        let forgotten = watch::channel(0).0;
        let target = watch::channel(target).0;
        let meter = Arc::new(Meter::default());
        let way = Way {
            target: target.subscribe(),
            weather: weather.subscribe(),
            cuts: cuts.subscribe(),
            forgotten: forgotten.subscribe(),
            meter: Arc::clone(&meter),
        };
        let task = tokio::spawn(accept(listener, way));
        Ok(Self {
            address,
            weather,
            cuts,
            forgotten,
            target,
            meter,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather.
    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Resets every connection of this moment, on both sides.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// Forgets every connection of this moment without telling anybody, as a router does that has
    /// lost its table: what still comes is swallowed, nothing is ever answered. New ones pass.
    pub fn forget(&self) {
        self.forgotten.send_modify(|n| *n += 1);
    }

    /// New connections lead there.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Bytes that have passed: client to server, server to client.
    #[must_use]
    pub fn passed(&self) -> (u64, u64) {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (read(&self.meter.up), read(&self.meter.down))
    }

    /// Connections taken so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.meter.connections.load(Ordering::Relaxed)
    }
}

/// What a connection is given.
#[derive(Clone)]
struct Way {
    target: watch::Receiver<SocketAddr>,
    weather: watch::Receiver<Weather>,
    cuts: watch::Receiver<u64>,
    forgotten: watch::Receiver<u64>,
    meter: Arc<Meter>,
}

async fn accept(listener: TcpListener, way: Way) {
    // dropped with this task, and with it every connection
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                way.meter.connections.fetch_add(1, Ordering::Relaxed);
                let mut way = way.clone();
                way.cuts.mark_unchanged();
                way.forgotten.mark_unchanged();
                connections.spawn(lead(client, way));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(client: TcpStream, way: Way) {
    let Way {
        target,
        weather,
        mut cuts,
        mut forgotten,
        meter,
    } = way;
    let now = *weather.borrow();
    if now.refuse {
        reset(&client);
        return;
    }
    if now.half_open {
        let _ = cuts.changed().await;
        reset(&client);
        return;
    }
    let target = *target.borrow();
    let Ok(server) = connect(target).await else {
        reset(&client);
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let up = pass(
        &mut from_client,
        &mut to_server,
        weather.clone(),
        true,
        &meter.up,
    );
    let down = pass(
        &mut from_server,
        &mut to_client,
        weather,
        false,
        &meter.down,
    );
    enum End {
        Closed,
        Cut,
        Forgotten,
    }
    let end = tokio::select! {
        _ = async { tokio::join!(up, down) } => End::Closed,
        _ = cuts.changed() => End::Cut,
        Ok(()) = forgotten.changed() => End::Forgotten,
    };
    match end {
        End::Closed => {}
        End::Cut => {
            reset(&from_client.unsplit(to_client));
            reset(&from_server.unsplit(to_server));
        }
        End::Forgotten => {
            let swallow = async {
                let mut nobody = tokio::io::sink();
                let _ = tokio::io::copy(&mut from_client, &mut nobody).await;
            };
            let swallow_back = async {
                let mut nobody = tokio::io::sink();
                let _ = tokio::io::copy(&mut from_server, &mut nobody).await;
            };
            tokio::select! {
                _ = async { tokio::join!(swallow, swallow_back) } => {}
                _ = cuts.changed() => {}
            }
        }
    }
}

/// As [`TcpStream::connect`], with a small queue for what comes back.
async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_recv_buffer_size(u32::try_from(QUEUE).unwrap_or(u32::MAX))?;
    socket.connect(target).await
}

/// Makes the close of a socket a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Waits while this direction is still; none when the proxy has ended.
async fn moving(weather: &mut watch::Receiver<Weather>, up: bool) -> Option<Weather> {
    let moves = |w: &Weather| !if up { w.stall_up } else { w.stall_down };
    weather.wait_for(moves).await.ok().map(|w| *w)
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    weather: watch::Receiver<Weather>,
    up: bool,
    passed: &AtomicU64,
) {
    let (wire, end_of_wire) = mpsc::channel(WIRE);
    tokio::join!(
        modem(from, wire, weather.clone(), up),
        arrive(end_of_wire, to, weather, up, passed)
    );
}

/// Takes bytes at the rate of the weather and puts them on the wire, each piece with the time at which
/// it comes out there.
async fn modem(
    from: &mut (impl AsyncRead + Unpin),
    wire: mpsc::Sender<(Instant, Bytes)>,
    mut weather: watch::Receiver<Weather>,
    up: bool,
) {
    let mut chunk = vec![0; 16 * 1024];
    // when the sender has sent all it was given
    let mut free_at = Instant::now();
    loop {
        // the network may be still; the peer's window fills by itself
        let Some(now) = moving(&mut weather, up).await else {
            return;
        };
        weather.mark_unchanged();
        let usual = if now.rate.is_some() {
            PIECE
        } else {
            chunk.len()
        };
        let most = now.piece.unwrap_or(usual).clamp(1, usual);
        let read = tokio::select! {
            read = from.read(&mut chunk[..most]) => read,
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = wire.closed() => return,
        };
        let Ok(n @ 1..) = read else { return };
        if let Some(rate) = now.rate {
            let size = u32::try_from(n).unwrap_or(u32::MAX);
            let earliest = Instant::now().checked_sub(BURST);
            free_at = earliest.map_or(free_at, |at| free_at.max(at));
            free_at += Duration::from_secs(1) * size / rate.max(1);
            sleep_until(free_at).await;
        }
        let out = Instant::now() + now.delay;
        let piece = Bytes::copy_from_slice(&chunk[..n]);
        if wire.send((out, piece)).await.is_err() {
            return;
        }
    }
}

/// Takes what comes out of the wire to the other side; ends, and says so there, when nothing more can.
async fn arrive(
    mut wire: mpsc::Receiver<(Instant, Bytes)>,
    to: &mut (impl AsyncWrite + Unpin),
    mut weather: watch::Receiver<Weather>,
    up: bool,
    passed: &AtomicU64,
) {
    while let Some((out, piece)) = wire.recv().await {
        sleep_until(out).await;
        // the weather may have turned while the piece was under way
        if moving(&mut weather, up).await.is_none() || to.write_all(&piece).await.is_err() {
            return;
        }
        passed.fetch_add(u64::try_from(piece.len()).unwrap_or(0), Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    /// A peer that swallows what it gets.
    async fn sink() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut peer, &mut tokio::io::sink()).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_rate_is_never_exceeded_and_a_long_delay_does_not_lower_it() {
        let proxy = Proxy::start(sink().await).await.unwrap();
        let rate = 200_000;
        proxy.weather(|w| (w.rate, w.delay) = (Some(rate), Duration::from_millis(300)));
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let writing = tokio::spawn(async move {
            let noise = vec![7; 64 * 1024];
            while client.write_all(&noise).await.is_ok() {}
        });
        while proxy.passed().0 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let (start, before) = (Instant::now(), proxy.passed().0);
        sleep(Duration::from_secs(3)).await;
        let passed = proxy.passed().0 - before;
        let worth = start.elapsed().as_millis() * u128::from(rate) / 1_000;
        writing.abort();
        let (passed, piece) = (u128::from(passed), PIECE as u128);
        let ahead = BURST.as_millis() * u128::from(rate) / 1_000;
        assert!(passed <= worth + ahead + 2 * piece, "{passed} of {worth}");
        // a machine that is busy elsewhere may take some of it
        assert!(passed * 10 >= worth * 8, "only {passed} of {worth}");
    }

    #[tokio::test]
    async fn a_forgotten_connection_is_silent_and_a_new_one_passes() {
        let proxy = Proxy::start(sink().await).await.unwrap();
        let mut old = TcpStream::connect(proxy.address()).await.unwrap();
        old.write_all(b"before").await.unwrap();
        let until = async |bytes| {
            while proxy.passed().0 < bytes {
                sleep(Duration::from_millis(5)).await;
            }
        };
        until(6).await;
        proxy.forget();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        new.write_all(b"after").await.unwrap();
        until(11).await;
        old.write_all(b"swallowed").await.unwrap();
        let mut byte = [0];
        let heard = tokio::time::timeout(Duration::from_millis(200), old.read(&mut byte)).await;
        assert!(heard.is_err(), "{heard:?}");
        assert_eq!(proxy.passed().0, 11);
    }
}
