//! A look at a camera before a reader process is spent on it: does its name resolve, does its port
//! answer, does it speak RTSP?
//!
//! This names most faults exactly, costs one round trip, and keeps bytes that are no RTSP away from
//! the parser in C.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address;
use super::fault::{Failure, Fault};
use crate::dial;

/// For the name to resolve.
const RESOLVE: Duration = Duration::from_secs(3);

/// For the port to answer. The system asks at 0, 1 and 3 s: a limit of 3 s would wait for two seconds
/// after the last question that is ever asked.
pub(super) const CONNECT: Duration = Duration::from_secs(2);

/// For the first line of the answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Succeeds if somebody who speaks RTSP listens at `url`.
///
/// # Errors
/// What is wrong, named.
pub(super) async fn look(url: &str) -> Result<(), Failure> {
    let (host, port) = address::host_and_port(url)
        .ok_or_else(|| Failure::new(Fault::Unresolved, "its address cannot be read"))?;
    let addresses = dial::resolve(&host, port, RESOLVE).await?;
    let mut socket = dial::connect(&addresses, CONNECT).await?;
    timeout(ANSWER, greet(&mut socket, url))
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                Fault::Stalled,
                "it accepts a connection and says nothing",
            ))
        })
}

async fn greet(socket: &mut TcpStream, url: &str) -> Result<(), Failure> {
    const GREETING: &[u8] = b"RTSP/1.";
    let hung_up = || Failure::new(Fault::Offline, "it closes the connection at once");
    let question = format!("OPTIONS {url} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: scc-agent\r\n\r\n");
    socket
        .write_all(question.as_bytes())
        .await
        .map_err(|_| hung_up())?;
    let mut answer = [0; GREETING.len()];
    let mut have = 0;
    while have < answer.len() {
        let n = socket
            .read(&mut answer[have..])
            .await
            .map_err(|_| hung_up())?;
        if n == 0 && have == 0 {
            return Err(hung_up());
        }
        have += n;
        if n == 0 || answer[..have] != GREETING[..have] {
            return Err(Failure::new(
                Fault::Garbage,
                "what answers there does not speak RTSP",
            ));
        }
    }
    Ok(())
}
