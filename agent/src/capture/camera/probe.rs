//! One look at a camera by a person: does it play?

use scc_common::clock::SharedClock;
use tokio::time::{Duration, timeout_at};

use super::fault::{Failure, Fault};
use super::protocol::{Head, Job};
use super::reader::{Program, Reader};
use super::{address, reach};
use crate::config::Camera;

/// A person waits. Somewhat longer than a reader needs to say by itself what is wrong.
const WAIT: Duration = Duration::from_secs(18);

/// Opens the camera as the agent would, user and password included, and hangs up as soon as video
/// has come; its width and height.
///
/// # Errors
/// What is wrong, named as on the board.
pub async fn probe(camera: &Camera, clock: &SharedClock) -> Result<(u16, u16), Failure> {
    reach::look(&camera.url).await?;
    let crashed = |what: String| Failure::new(Fault::Crashed, what);
    let program = Program::this().map_err(|e| crashed(e.to_string()))?;
    let job = Job::of(camera, None);
    let mut reader = Reader::start(&program, &job, &camera.id, clock).await?;
    let until = tokio::time::Instant::now() + WAIT;
    let seen = loop {
        match timeout_at(until, reader.next()).await {
            Err(_) => break Err(Failure::new(Fault::Stalled, "no video came")),
            Ok(Err(failure)) => break Err(failure),
            Ok(Ok(None)) => break Err(crashed("its reader process ended unexpectedly".into())),
            Ok(Ok(Some(message))) => match message.head {
                Head::Playing { width, height } => break Ok((width, height)),
                Head::Fault { fault, detail } => {
                    let detail = address::redacted(&detail, camera.password.as_deref());
                    break Err(Failure::new(fault, detail));
                }
                _ => {}
            },
        }
    };
    reader.end().await;
    seen
}
