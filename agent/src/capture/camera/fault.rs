//! What can be wrong with a camera, and the word that the board has for it.

use scc_common::record::Cause;
use serde::{Deserialize, Serialize};

use crate::dial::DialError;

/// Why an attempt to read a camera ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nobody answers at its address.
    Offline,
    /// Its host refuses the connection.
    Refused,
    /// Its name does not resolve.
    Unresolved,
    /// It refuses the user name or the password.
    Unauthorized,
    /// It is connected and says nothing.
    Stalled,
    /// It has no video that can be recorded.
    NoVideo,
    /// What it says is no RTSP, or no video.
    Garbage,
    /// It closed a session that was going well.
    Ended,
    /// The reader process ended without saying why, or spoke nonsense.
    Crashed,
}

impl Fault {
    /// The board's word.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            // a camera that hangs up is gone until the next attempt tells more
            Self::Offline | Self::Ended => Cause::Offline,
            Self::Refused => Cause::Refused,
            Self::Unresolved => Cause::Unresolved,
            Self::Unauthorized => Cause::Unauthorized,
            Self::Stalled => Cause::Stalled,
            Self::NoVideo => Cause::NoVideo,
            Self::Garbage => Cause::Garbage,
            Self::Crashed => Cause::Crashed,
        }
    }
}

/// A fault with what was seen: one short English sentence without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// The kind.
    pub fault: Fault,
    /// What was seen.
    pub detail: String,
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        let fault = match &error {
            DialError::Unresolved(_) => Fault::Unresolved,
            DialError::Refused => Fault::Refused,
            DialError::Offline(_) => Fault::Offline,
        };
        Self::new(fault, error.to_string())
    }
}

impl Failure {
    /// A failure.
    pub fn new(fault: Fault, detail: impl Into<String>) -> Self {
        Self {
            fault,
            detail: detail.into(),
        }
    }
}
