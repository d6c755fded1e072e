//! Cameras against the stand-in: real RTSP, real footage, real FFmpeg, a reader process each.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of a test fail it as the test itself would"
)]

mod faults;
mod kills;
mod pictures;
mod playable;
mod read;
mod relay;
