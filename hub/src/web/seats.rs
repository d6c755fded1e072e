//! Places for connections and event streams: so many in all, and so many for one holder. Anybody in
//! the county's network can open sockets; without an end they would take the file descriptors of the
//! whole process, and the agents at the gate would be the first to feel it.
//!
//! Invariant: a place is free again when its [`Seat`] is dropped, however that comes about.

use std::collections::HashMap;
use std::fmt;
use std::future::{Ready, ready};
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Places, counted by holder.
#[derive(Debug, Clone)]
pub(crate) struct Seats<K> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    in_all: usize,
    each: usize,
}

/// A place that is taken until this is dropped.
pub(crate) struct Seat<K: Eq + Hash> {
    taken: Arc<Mutex<HashMap<K, usize>>>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Seats<K> {
    pub(crate) fn new(in_all: usize, each: usize) -> Self {
        Self {
            taken: Arc::default(),
            in_all,
            each,
        }
    }

    /// A place for this holder, if there is one.
    pub(crate) fn take(&self, holder: K) -> Option<Seat<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&holder).copied().unwrap_or(0);
        if own >= self.each || taken.values().sum::<usize>() >= self.in_all {
            return None;
        }
        taken.insert(holder.clone(), own + 1);
        Some(Seat {
            taken: Arc::clone(&self.taken),
            holder,
        })
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.holder) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

impl<K: Eq + Hash> fmt::Debug for Seat<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // the holder may be a session
        f.write_str("Seat")
    }
}

/// Closes a connection for which there is no place, before its TLS handshake costs anything.
#[derive(Debug, Clone)]
pub(crate) struct Door(pub(crate) Seats<IpAddr>);

impl<S> Accept<TcpStream, S> for Door {
    type Stream = Seated;
    type Service = S;
    type Future = Ready<io::Result<(Seated, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let seated = stream.peer_addr().and_then(|peer| {
            let seat = self.0.take(peer.ip().to_canonical());
            let seat = seat.ok_or_else(|| {
                metrics::counter!("scc_web_connections_refused_total").increment(1);
                io::Error::other("too many connections")
            })?;
            Ok((
                Seated {
                    stream,
                    _seat: seat,
                },
                service,
            ))
        });
        ready(seated)
    }
}

/// A connection with its place.
#[derive(Debug)]
pub(crate) struct Seated {
    stream: TcpStream,
    _seat: Seat<IpAddr>,
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_end_for_one_and_for_all_and_come_back() {
        let seats = Seats::new(3, 2);
        let a = [seats.take('a').unwrap(), seats.take('a').unwrap()];
        assert!(seats.take('a').is_none());
        let b = seats.take('b').unwrap();
        assert!(seats.take('c').is_none(), "three in all");
        drop(b);
        assert!(seats.take('c').is_some());
        drop(a);
        assert!(seats.take('a').is_some());
        assert!(seats.taken.lock().unwrap().is_empty(), "nobody is kept");
    }
}
