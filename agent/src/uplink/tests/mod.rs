//! The uplink against scripted and random peers. Time is virtual (tokio's paused clock): a test
//! that waits a minute takes milliseconds and no longer on a busy machine.

mod model;
mod peer;
mod scenarios;
mod shelf;
