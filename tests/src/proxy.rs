//! A bad network: a TCP proxy that can delay, throttle, stall, half-open, refuse and cut.
//!
//! Bytes are never changed or lost while a connection lives. [`Weather`] may be changed at any
//! moment and holds for existing connections too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// What the network is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Added to every chunk in each direction.
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
        let address = listener.local_addr()?;
        let weather = watch::channel(Weather::default()).0;
        let cuts = watch::channel(0).0;
        let meter = Arc::new(Meter::default());
        let task = tokio::spawn(accept(
            listener,
            target,
            weather.subscribe(),
            cuts.subscribe(),
            Arc::clone(&meter),
        ));
        Ok(Self {
            address,
            weather,
            cuts,
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

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    cuts: watch::Receiver<u64>,
    meter: Arc<Meter>,
) {
    // dropped with this task, and with it every connection
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                meter.connections.fetch_add(1, Ordering::Relaxed);
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                connections.spawn(lead(client, target, weather.clone(), cuts, Arc::clone(&meter)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn lead(
    client: TcpStream,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut cuts: watch::Receiver<u64>,
    meter: Arc<Meter>,
) {
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
    let Ok(server) = TcpStream::connect(target).await else {
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
    let cut = tokio::select! {
        _ = async { tokio::join!(up, down) } => false,
        _ = cuts.changed() => true,
    };
    if cut {
        reset(&from_client.unsplit(to_client));
        reset(&from_server.unsplit(to_server));
    }
}

/// Makes the close of a socket a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut weather: watch::Receiver<Weather>,
    up: bool,
    passed: &AtomicU64,
) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let now = *weather.borrow_and_update();
        if if up { now.stall_up } else { now.stall_down } {
            // the network is still; the peer's window fills by itself
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let most = now.piece.unwrap_or(chunk.len()).clamp(1, chunk.len());
        let read = tokio::select! {
            read = from.read(&mut chunk[..most]) => read,
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok(n @ 1..) = read else {
            let _ = to.shutdown().await;
            return;
        };
        sleep(now.delay).await;
        if let Some(rate) = now.rate {
            let size = u32::try_from(n).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * size / rate.max(1)).await;
        }
        // the weather may have turned while the chunk was under way
        if weather
            .wait_for(|w| !if up { w.stall_up } else { w.stall_down })
            .await
            .is_err()
        {
            return;
        }
        if to.write_all(&chunk[..n]).await.is_err() {
            return;
        }
        passed.fetch_add(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
    }
}
