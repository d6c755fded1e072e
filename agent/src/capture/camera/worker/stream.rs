//! One RTSP session through FFmpeg, with a deadline on every wait.
//!
//! FFmpeg's own time-outs do not cover everything (a stopped camera held `av_read_frame` for
//! minutes), so a callback that FFmpeg asks several times a second compares the clock with our own
//! deadline. It must not panic: it only touches atomics and the clock.
//!
//! When the deadline has passed, FFmpeg first hands out the packet that its parser still held and
//! tells of the interruption with the next read. So what the callback has seen is remembered: a
//! deadline that has passed once ends the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ffmpeg::codec::Parameters;
use ffmpeg::format::context::Input;
use ffmpeg::{Dictionary, Packet, media};
use ffmpeg_next as ffmpeg;
use scc_common::clock::{Clock, MonoMs, SystemClock};

use super::super::address;
use super::super::fault::{Failure, Fault};
use super::super::protocol::Job;
use super::timeline::{Place, TICKS, Timeline};

/// For connecting, describing and looking at the first packets.
const OPEN_MS: MonoMs = 15_000;

/// Without a packet of video.
const STALL_MS: MonoMs = 5_000;

/// Damaged packets in a row, without a good one, after which the camera sends garbage.
const DAMAGED_IN_A_ROW: u32 = 250;

/// When FFmpeg is to give up.
#[derive(Debug)]
struct Deadline {
    at_ms: AtomicU64,
    passed: AtomicBool,
    clock: Arc<SystemClock>,
}

impl Deadline {
    fn set(&self, in_ms: MonoMs) {
        self.at_ms
            .store(self.clock.mono_ms() + in_ms, Ordering::Relaxed);
    }

    /// What FFmpeg asks.
    fn overdue(&self) -> bool {
        let overdue = self.clock.mono_ms() > self.at_ms.load(Ordering::Relaxed);
        if overdue {
            self.passed.store(true, Ordering::Relaxed);
        }
        overdue
    }

    /// # Errors
    /// As FFmpeg would tell it, if the deadline has passed.
    fn kept(&self) -> Result<(), ffmpeg::Error> {
        if self.passed.load(Ordering::Relaxed) {
            Err(ffmpeg::Error::Exit)
        } else {
            Ok(())
        }
    }
}

/// An open session.
pub(super) struct Session {
    input: Input,
    index: usize,
    base: ffmpeg::Rational,
    timeline: Timeline,
    deadline: Arc<Deadline>,
    /// Of the video.
    pub(super) parameters: Parameters,
    /// Pixels.
    pub(super) width: u16,
    /// Pixels.
    pub(super) height: u16,
}

/// A packet of video with its repaired time.
pub(super) struct Arrived {
    pub(super) packet: Packet,
    pub(super) place: Place,
    /// Monotonic.
    pub(super) at_ms: MonoMs,
}

impl Session {
    /// Connects and finds the video.
    ///
    /// # Errors
    /// What is wrong with the camera.
    pub(super) fn open(job: &Job, clock: Arc<SystemClock>) -> Result<Self, Failure> {
        let url =
            address::with_credentials(&job.url, job.user.as_deref(), job.password.as_deref())?;
        let deadline = Arc::new(Deadline {
            at_ms: AtomicU64::new(0),
            passed: AtomicBool::new(false),
            clock,
        });
        deadline.set(OPEN_MS);
        let overdue = {
            let deadline = Arc::clone(&deadline);
            move || deadline.overdue()
        };
        let mut options = Dictionary::new();
        options.set("rtsp_transport", "tcp");
        // the first thing not asked for is the sound of an office
        options.set("allowed_media_types", "video");
        // a second belt, microseconds
        options.set("timeout", &(OPEN_MS * 1_000).to_string());
        // it stops looking as soon as it knows size and rate, mostly at once; a camera that tells
        // them with its keyframes only gets the time for one
        options.set("analyzeduration", "10000000");
        options.set("probesize", "5000000");
        options.set("fpsprobesize", "3");
        let input = ffmpeg::format::input_with_interrupt_and_dictionary(&url, overdue, options)
            .and_then(|input| deadline.kept().map(|()| input))
            .map_err(on_open)?;
        let no_video = |what: &str| Failure::new(Fault::NoVideo, what);
        let stream = input
            .streams()
            .best(media::Type::Video)
            .ok_or_else(|| no_video("it offers no video"))?;
        let parameters = stream.parameters();
        let codec = parameters.id();
        if !matches!(codec, ffmpeg::codec::Id::H264 | ffmpeg::codec::Id::HEVC) {
            return Err(no_video(&format!(
                "its video is {}; set the camera to H.264 or H.265",
                codec.name()
            )));
        }
        // SAFETY: `parameters` is a valid AVCodecParameters that is only read
        let (width, height) =
            unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
        let pixels = |n: i32| {
            u16::try_from(n)
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| no_video("its video has no size that can be read"))
        };
        let rate = stream.avg_frame_rate();
        let step = match (i64::from(rate.numerator()), i64::from(rate.denominator())) {
            (n, d) if n > 0 && d > 0 && n <= d * 120 && n >= d => TICKS * d / n,
            _ => TICKS / 25,
        };
        let (index, base) = (stream.index(), stream.time_base());
        Ok(Self {
            width: pixels(width)?,
            height: pixels(height)?,
            index,
            base,
            timeline: Timeline::new(step),
            input,
            parameters,
            deadline,
        })
    }

    /// Waits for the next packet of video.
    ///
    /// # Errors
    /// The session is over, and why.
    pub(super) fn next(&mut self) -> Result<Arrived, Failure> {
        // set before the wait and not after the last packet: time that our own side took is not the
        // camera's fault
        self.deadline.set(STALL_MS);
        let mut damaged = 0;
        loop {
            let mut packet = Packet::empty();
            let read = packet.read(&mut self.input);
            match self.deadline.kept().and(read) {
                Ok(()) if packet.stream() == self.index && packet.size() > 0 => {
                    let at_ms = self.deadline.clock.mono_ms();
                    packet.rescale_ts(self.base, ffmpeg::Rational(1, 90_000));
                    let place = self.timeline.place(packet.pts(), packet.dts(), at_ms);
                    return Ok(Arrived {
                        packet,
                        place,
                        at_ms,
                    });
                }
                Ok(()) => {}
                Err(ffmpeg::Error::InvalidData) if damaged < DAMAGED_IN_A_ROW => damaged += 1,
                Err(e) => return Err(on_read(e)),
            }
        }
    }
}

fn on_open(error: ffmpeg::Error) -> Failure {
    use ffmpeg::Error as E;
    use ffmpeg::error as errno;
    let (fault, detail) = match error {
        E::Exit => (
            Fault::Stalled,
            "it answered, but no video came within 15 s".into(),
        ),
        E::HttpUnauthorized | E::HttpForbidden => (
            Fault::Unauthorized,
            "it refuses the user name or password".into(),
        ),
        E::HttpNotFound => (Fault::NoVideo, "it has no stream at this path".into()),
        E::HttpServerError | E::HttpOther4xx | E::HttpBadRequest | E::StreamNotFound => (
            Fault::NoVideo,
            format!("it does not offer its stream: {error}"),
        ),
        E::InvalidData => (
            Fault::Garbage,
            "what it answers is not RTSP or not video".into(),
        ),
        E::Other {
            errno: errno::ECONNREFUSED,
        } => (Fault::Refused, "its port is closed".into()),
        E::Other {
            errno: errno::ETIMEDOUT,
        } => (
            Fault::Stalled,
            "it stopped answering while the session began".into(),
        ),
        other => (
            Fault::Offline,
            format!("the session did not begin: {other}"),
        ),
    };
    Failure { fault, detail }
}

fn on_read(error: ffmpeg::Error) -> Failure {
    use ffmpeg::Error as E;
    use ffmpeg::error as errno;
    let (fault, detail) = match error {
        E::Exit
        | E::Other {
            errno: errno::ETIMEDOUT,
        } => (Fault::Stalled, "no video for 5 s".to_owned()),
        E::InvalidData => (Fault::Garbage, "its packets cannot be read".into()),
        E::Eof => (Fault::Ended, "it closed the session".into()),
        other => (Fault::Ended, format!("the session broke: {other}")),
    };
    Failure { fault, detail }
}
