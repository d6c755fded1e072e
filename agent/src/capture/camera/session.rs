//! One session with a camera, from the first look to its end, and the records that it yields.

use std::time::Duration;

use scc_common::clock::{MonoMs, Stamp};
use scc_common::record::{Cause, Content, DeviceKind, RecordBody, Segment, Snapshot, State};
use scc_common::stream::Stream;
use tokio::time::timeout;

use super::assembly::{Assembly, stamp_ago};
use super::fault::{Failure, Fault};
use super::keep::Keep;
use super::protocol::{Head, Job, Message};
use super::reader::{Program, Reader};
use super::{Surroundings, reach};
use crate::buffer::BufferError;
use crate::capture::accept::Accept;
use crate::config::Camera;

/// A reader says something at least this often until it plays: its own deadline and some room.
const OPEN: Duration = Duration::from_secs(20);

/// The same once it plays.
const PLAY: Duration = Duration::from_secs(10);

/// Packets without a usable keyframe for this long are not a picture.
const NO_KEYFRAME_MS: u64 = 60_000;

/// How long a camera counts as degraded after video was left out: it happens once per keyframe
/// interval, and must not be an event each time.
const LEFT_OUT_MS: u64 = 600_000;

/// For the last segment to be accepted when the agent stops; the agent waits a little longer.
const LAST_APPEND: Duration = Duration::from_millis(1_500);

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) failure: Failure,
    /// For how long video had come.
    pub(super) played_ms: u64,
}

/// Sessions of one camera, one after the other.
pub(super) struct Session<'a, A> {
    camera: &'a Camera,
    program: &'a Program,
    around: &'a Surroundings<A>,
    segment: Assembly,
    /// The same on the card, for the next life.
    keep: &'a Keep,
    /// Streams of which the buffer refused the newest record.
    refused: Vec<(Stream, String)>,
    playing_since: Option<MonoMs>,
    /// Packets that the reader left out of its segments.
    left_out: u64,
    left_out_at: Option<MonoMs>,
}

impl<'a, A: Accept> Session<'a, A> {
    pub(super) fn new(
        camera: &'a Camera,
        program: &'a Program,
        around: &'a Surroundings<A>,
        keep: &'a Keep,
    ) -> Self {
        Self {
            camera,
            program,
            around,
            segment: Assembly::default(),
            keep,
            refused: Vec::new(),
            playing_since: None,
            left_out: 0,
            left_out_at: None,
        }
    }

    /// Runs one session; none if the agent stops.
    pub(super) async fn run(&mut self) -> Option<Ended> {
        self.playing_since = None;
        self.left_out = 0;
        let stop = self.around.stop.clone();
        let failure = tokio::select! {
            failure = self.attempt() => Some(failure),
            () = stop.cancelled() => None,
        };
        // whichever way it ended: fragments that have come are not lost
        if let Some((stamp, segment)) = self.segment.end() {
            let last = self.append_segment(stamp, segment);
            if timeout(LAST_APPEND, last).await.is_err() {
                tracing::warn!(device = %self.camera.id, "the last segment was not accepted in time");
            }
        }
        let played_ms = self
            .playing_since
            .map_or(0, |since| self.around.clock.mono_ms().saturating_sub(since));
        failure.map(|failure| Ended { failure, played_ms })
    }

    async fn attempt(&mut self) -> Failure {
        if let Err(failure) = reach::look(&self.camera.url).await {
            return failure;
        }
        let segment_s = self.camera.segments.then_some(self.camera.segment_s);
        let job = Job::of(self.camera, segment_s);
        let start = Reader::start(self.program, &job, &self.camera.id, &self.around.clock).await;
        let mut reader = match start {
            Ok(reader) => reader,
            Err(failure) => return failure,
        };
        let heard = self.listen(&mut reader).await;
        let ending = reader.end().await;
        match heard {
            Err(failure) => failure,
            Ok(()) => Failure::new(
                Fault::Crashed,
                format!("its reader process ended unexpectedly ({ending})"),
            ),
        }
    }

    /// Takes what the reader says until it says no more.
    async fn listen(&mut self, reader: &mut Reader) -> Result<(), Failure> {
        loop {
            let patience = if self.playing_since.is_some() {
                PLAY
            } else {
                OPEN
            };
            match timeout(patience, reader.next()).await {
                Ok(Ok(Some(message))) => self.take(message).await?,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(failure)) => return Err(failure),
                Err(_) => {
                    let detail = format!("its reader process hangs for {} s", patience.as_secs());
                    return Err(Failure::new(Fault::Crashed, detail));
                }
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), Failure> {
        let nonsense = |e: &dyn std::fmt::Display| Failure::new(Fault::Crashed, e.to_string());
        let clock = &*self.around.clock;
        match message.head {
            Head::Playing { width, height } => {
                tracing::debug!(device = %self.camera.id, width, height, "camera plays");
                self.playing_since = Some(clock.mono_ms());
                self.tell_state(0);
            }
            Head::Beat {
                keyframe_age_ms,
                left_out,
            } => {
                if left_out > self.left_out {
                    self.left_out = left_out;
                    self.left_out_at = Some(clock.mono_ms());
                }
                self.tell_state(keyframe_age_ms);
            }
            Head::Still {
                age_ms,
                width,
                height,
            } => {
                let picture = Snapshot {
                    width,
                    height,
                    cadence_s: self.camera.snapshot_every_s,
                    jpeg: message.blob.to_vec(),
                };
                let stamp = stamp_ago(clock, age_ms);
                self.append_still(stamp, picture).await;
            }
            Head::Begin {
                age_ms,
                codec,
                width,
                height,
            } => {
                let stamp = stamp_ago(clock, age_ms);
                let size = (width, height);
                if let Some((stamp, unended)) =
                    self.segment
                        .begin(stamp, codec.clone(), size, &message.blob)
                {
                    self.append_segment(stamp, unended).await;
                }
                self.keep.begin(stamp, codec, size, message.blob).await;
            }
            Head::Fragment {
                frames,
                duration_ms,
            } => {
                self.segment
                    .fragment(frames, duration_ms, &message.blob)
                    .map_err(|e| nonsense(&e))?;
                self.keep.fragment(frames, duration_ms, message.blob).await;
            }
            Head::End => {
                if let Some((stamp, segment)) = self.segment.end() {
                    self.append_segment(stamp, segment).await;
                }
            }
            Head::Fault { fault, detail } => {
                let password = self.camera.password.as_deref();
                let detail = super::address::redacted(&detail, password);
                return Err(Failure::new(fault, detail));
            }
        }
        Ok(())
    }

    async fn append_still(&mut self, stamp: Stamp, picture: Snapshot) {
        // on the board first: a wall that shows now does not wait for the disk
        self.around
            .board
            .still(&self.camera.id, stamp, picture.clone());
        self.append(stamp, Content::Snapshot(picture)).await;
    }

    async fn append_segment(&mut self, stamp: Stamp, segment: Segment) {
        if self.append(stamp, Content::Segment(segment)).await {
            self.keep.empty().await;
        }
    }

    /// Appends a record, or gives it up and says so. Whether it was accepted.
    async fn append(&mut self, stamp: Stamp, content: Content) -> bool {
        let stream = content.stream();
        let body = RecordBody::new(stamp, Some(self.camera.id.clone()), content);
        let result = self.around.accept.append(&body).await;
        let was_refused = self.refused.iter().any(|(s, _)| *s == stream);
        self.refused.retain(|(s, _)| *s != stream);
        match result {
            Ok(_) => return true,
            Err(BufferError::Closed) => {
                tracing::debug!(device = %self.camera.id, %stream, "the buffer is closed, a record is dropped");
                return false;
            }
            Err(e) => {
                if !was_refused {
                    tracing::warn!(device = %self.camera.id, %stream, error = %e, "a record is dropped");
                }
                self.around.accept.give_up(&body, &e).await;
                self.refused.push((stream, e.to_string()));
            }
        }
        self.tell_state(0);
        false
    }

    fn tell_state(&self, keyframe_age_ms: u64) {
        let (id, board) = (&self.camera.id, &self.around.board);
        let degraded = |cause, detail: String| {
            board.fault(id, DeviceKind::Camera, State::Degraded, cause, detail);
        };
        if self.playing_since.is_none() {
            // a segment of a session that is over; its end has its own word
        } else if let Some((stream, error)) = self.refused.first() {
            degraded(
                Cause::BufferFull,
                format!("a {stream} was dropped: {error}"),
            );
        } else if keyframe_age_ms > NO_KEYFRAME_MS {
            degraded(
                Cause::Garbage,
                format!(
                    "packets come, but no picture for {} s",
                    keyframe_age_ms / 1_000
                ),
            );
        } else if self
            .left_out_at
            .is_some_and(|at| self.around.clock.mono_ms().saturating_sub(at) < LEFT_OUT_MS)
        {
            degraded(
                Cause::Incomplete,
                "video is left out: its keyframes are too far apart for its bit rate; shorten the \
                 keyframe interval (GOP) in its menu"
                    .into(),
            );
        } else {
            board.good(id, DeviceKind::Camera);
        }
    }
}
