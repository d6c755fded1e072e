//! The reader process: one camera, one session, then it ends.
//!
//! It is started by the agent, gets its job on standard input, speaks [`protocol`](super::protocol)
//! on standard output and leaves standard error to FFmpeg. It lives for one session: whatever FFmpeg
//! leaks over a reconnect ends with the process, and whatever hostile bytes do to it ends with it
//! too. It dies with the agent.

mod boxes;
mod segments;
mod still;
mod stream;
mod timeline;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use scc_common::clock::{Clock, MonoMs, SystemClock};

use super::fault::{Failure, Fault};
use super::protocol::{Head, Job, encode};
use segments::{Part, Segments};
use stream::{Arrived, Session};

/// A backstop: libav alone maps 200 MB, a 4K decoder some more. Beyond, the process dies and the
/// agent starts another.
const ADDRESS_SPACE: u64 = 768 * 1024 * 1024;

/// A job is small.
const MAX_JOB: u64 = 64 * 1024;

const BEAT_MS: MonoMs = 1_000;

/// Why the process ends.
enum End {
    /// The camera.
    Camera(Failure),
    /// The agent does not listen any more.
    Agent,
}

impl From<ffmpeg_next::Error> for End {
    fn from(error: ffmpeg_next::Error) -> Self {
        Self::Camera(Failure::new(
            Fault::Garbage,
            format!("its video cannot be put into a file: {error}"),
        ))
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Camera(failure)
    }
}

/// The whole life of the process. The exit code is 0 if it could tell the agent why it ends.
#[must_use]
pub fn main() -> ExitCode {
    let Some((job, out)) = prepare() else {
        return ExitCode::from(2);
    };
    let mut out = Out(out);
    match read(&job, &mut out) {
        Err(End::Camera(Failure { fault, detail })) => {
            if out.say(&Head::Fault { fault, detail }, &[]).is_err() {
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(End::Agent) => ExitCode::FAILURE,
        Ok(never) => match never {},
    }
}

/// Limits the process and takes its job.
fn prepare() -> Option<(Job, File)> {
    use rustix::process::{Resource, Rlimit, Signal};
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok()?;
    let limit = Rlimit {
        current: Some(ADDRESS_SPACE),
        maximum: Some(ADDRESS_SPACE),
    };
    rustix::process::setrlimit(Resource::As, limit).ok()?;
    // the agent's own work goes first; a box that does not allow even this may still read cameras
    let _ = rustix::process::nice(5);
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_JOB)
        .read_to_string(&mut text)
        .ok()?;
    let job: Job = serde_json::from_str(&text).ok()?;
    // it may have died before the signal was asked for
    let parent = rustix::process::getppid()?;
    if parent.as_raw_nonzero().get() != job.parent {
        return None;
    }
    // a file of its own: what std::io::stdout() writes, it first searches for line ends
    let out = std::io::stdout().as_fd().try_clone_to_owned().ok()?;
    ffmpeg_next::init().ok()?;
    ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Error);
    Some((job, File::from(out)))
}

struct Out(File);

impl Out {
    fn say(&mut self, head: &Head, blob: &[u8]) -> Result<(), End> {
        let bytes = encode(head, blob.len())
            .map_err(|e| Failure::new(Fault::Garbage, format!("too much at once: {e}")))?;
        self.0.write_all(&bytes).map_err(|_| End::Agent)?;
        self.0.write_all(blob).map_err(|_| End::Agent)
    }
}

fn read(job: &Job, out: &mut Out) -> Result<std::convert::Infallible, End> {
    let clock = Arc::new(SystemClock::new());
    let mut session = Session::open(job, Arc::clone(&clock))?;
    let (width, height) = (session.width, session.height);
    let mut segments = job
        .segment_ms
        .map(|ms| Segments::new(session.parameters.clone(), ms));
    let mut playing = false;
    let mut last_keyframe = clock.mono_ms();
    let mut next_beat = 0;
    let mut next_still = 0;
    loop {
        let mut arrived = session.next()?;
        if !playing {
            playing = true;
            out.say(&Head::Playing { width, height }, &[])?;
        }
        if arrived.packet.is_key() {
            if arrived.at_ms >= next_still {
                // a damaged keyframe makes no picture; the next one may
                if tell_still(&session, &arrived, &clock, out)? {
                    next_still = next_after(next_still, job.still_every_ms, arrived.at_ms);
                    last_keyframe = arrived.at_ms;
                }
            } else {
                last_keyframe = arrived.at_ms;
            }
        }
        if let Some(segments) = &mut segments {
            segments.push(&mut arrived.packet, arrived.place, &mut |part| {
                let age_ms = clock.mono_ms().saturating_sub(arrived.at_ms);
                tell_part(part, age_ms, (width, height), out)
            })?;
        }
        if arrived.at_ms >= next_beat {
            next_beat = arrived.at_ms + BEAT_MS;
            let keyframe_age_ms = arrived.at_ms.saturating_sub(last_keyframe);
            let beat = Head::Beat {
                keyframe_age_ms,
                left_out: segments.as_ref().map_or(0, Segments::left_out),
            };
            out.say(&beat, &[])?;
        }
    }
}

/// When the next still is due: in step with the ones before, unless one or more were missed.
fn next_after(due: MonoMs, every: MonoMs, now: MonoMs) -> MonoMs {
    let next = due.saturating_add(every);
    if next > now {
        next
    } else {
        now.saturating_add(every)
    }
}

fn tell_still(
    session: &Session,
    arrived: &Arrived,
    clock: &SystemClock,
    out: &mut Out,
) -> Result<bool, End> {
    let picture = still::picture(&session.parameters, &arrived.packet);
    give_back();
    let Ok(picture) = picture else {
        return Ok(false);
    };
    let head = Head::Still {
        age_ms: clock.mono_ms().saturating_sub(arrived.at_ms),
        width: picture.width,
        height: picture.height,
    };
    out.say(&head, &picture.jpeg)?;
    Ok(true)
}

/// Returns memory that is free to the system. A decoder needs several frames of it, twice a minute;
/// what a fragment needs comes again every second or two, and is kept for the next one.
fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            /// `malloc_trim(3)`.
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}

fn tell_part(
    part: Part<'_>,
    age_ms: u64,
    (width, height): (u16, u16),
    out: &mut Out,
) -> Result<(), End> {
    match part {
        Part::Begin { codec, init } => {
            let head = Head::Begin {
                age_ms,
                codec,
                width,
                height,
            };
            out.say(&head, init)
        }
        Part::Fragment {
            frames,
            duration_ms,
            bytes,
        } => {
            let head = Head::Fragment {
                frames,
                duration_ms,
            };
            out.say(&head, bytes)
        }
        Part::End => out.say(&Head::End, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::next_after;

    #[test]
    fn stills_keep_step_and_do_not_pile_up() {
        assert_eq!(next_after(0, 30_000, 5_000_000), 5_030_000);
        assert_eq!(next_after(5_030_000, 30_000, 5_031_500), 5_060_000);
        assert_eq!(next_after(5_060_000, 30_000, 5_200_000), 5_230_000);
    }
}
