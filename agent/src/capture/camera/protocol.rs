//! What a reader process says to the agent: messages on its standard output.
//!
//! One message, all integers little-endian:
//!
//! ```text
//! u32  bytes that follow (head length, head, blob)
//! u32  bytes of the head
//! ...  head: JSON, one `Head`
//! ...  blob: bytes that belong to it (a picture, boxes of MP4), often none
//! ```
//!
//! The reader parses hostile bytes in C, so the agent trusts nothing that comes out of it: lengths
//! are checked before anything is reserved for them, a message that is not understood ends that
//! reader and nothing else. Times are ages ("so many milliseconds ago"): the agent's clock is the
//! only one that dates a record.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::config::Camera;

/// Largest message, bytes: one fragment of video.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Largest head, bytes.
pub const MAX_HEAD: usize = 2_048;

const LENGTHS: usize = 8;

/// What the agent tells a reader, once, as one JSON document on its standard input. Never on the
/// command line or in the environment, which others may read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Job {
    /// `rtsp://…` without user and password.
    pub url: String,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Milliseconds between two stills.
    pub still_every_ms: u64,
    /// Length of a segment in milliseconds; none if no video is wanted.
    pub segment_ms: Option<u64>,
    /// The agent's process id: a reader whose parent is another is an orphan.
    pub parent: i32,
}

impl Job {
    /// For a camera; `segment_s`: the length of its segments, none for no video.
    pub(super) fn of(camera: &Camera, segment_s: Option<u32>) -> Self {
        Self {
            url: camera.url.clone(),
            user: camera.user.clone(),
            password: camera.password.clone(),
            still_every_ms: u64::from(camera.snapshot_every_s) * 1_000,
            segment_ms: segment_s.map(|s| u64::from(s) * 1_000),
            parent: i32::try_from(std::process::id()).unwrap_or(0),
        }
    }
}

/// The head of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Head {
    /// The first packet of video has come.
    Playing {
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
    /// Packets come; about once a second.
    Beat {
        /// Since the last keyframe that could be used.
        keyframe_age_ms: u64,
        /// Video packets that went into no segment, because one had grown to its limit and no
        /// keyframe has come since.
        #[serde(default)]
        left_out: u64,
    },
    /// A segment begins; the blob is its `ftyp` and `moov`.
    Begin {
        /// Since its first frame arrived.
        age_ms: u64,
        /// RFC 6381 codec string.
        codec: String,
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
    /// The next piece of the segment; the blob is one `moof` and its `mdat`.
    Fragment {
        /// Video packets in it.
        frames: u32,
        /// Its duration by the stream's own time.
        duration_ms: u32,
    },
    /// The segment is complete.
    End,
    /// A still; the blob is a JPEG.
    Still {
        /// Since its frame arrived.
        age_ms: u64,
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
    /// The reader gives up; it says nothing more.
    Fault {
        /// Why.
        fault: Fault,
        /// What was seen.
        detail: String,
    },
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is said.
    pub head: Head,
    /// The bytes that belong to it.
    pub blob: Bytes,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A length that no honest reader sends.
    #[error("a message claims {message} bytes with a head of {head}")]
    Length {
        /// Bytes claimed for the message.
        message: usize,
        /// Bytes claimed for the head.
        head: usize,
    },
    /// The head is not JSON or not of a known shape.
    #[error("the head of a message cannot be read: {0}")]
    Head(String),
}

/// The bytes before the blob.
///
/// # Errors
/// [`ProtocolError::Length`] if the message would be larger than the other side takes.
pub fn encode(head: &Head, blob_len: usize) -> Result<Vec<u8>, ProtocolError> {
    let json = serde_json::to_vec(head).map_err(|e| ProtocolError::Head(e.to_string()))?;
    let message = json.len().saturating_add(blob_len).saturating_add(4);
    let too_large = || ProtocolError::Length {
        message,
        head: json.len(),
    };
    if message > MAX_MESSAGE || json.len() > MAX_HEAD {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(LENGTHS + json.len());
    bytes.extend(
        u32::try_from(message)
            .map_err(|_| too_large())?
            .to_le_bytes(),
    );
    bytes.extend(
        u32::try_from(json.len())
            .map_err(|_| too_large())?
            .to_le_bytes(),
    );
    bytes.extend(&json);
    Ok(bytes)
}

/// Takes the next message off the front of `bytes`; none if it is not complete yet.
///
/// # Errors
/// [`ProtocolError`]; the bytes that follow cannot be understood either.
pub fn decode(bytes: &mut BytesMut) -> Result<Option<Message>, ProtocolError> {
    let (Some(message), Some(head)) = (length_at(bytes, 0), length_at(bytes, 4)) else {
        return Ok(None);
    };
    if message > MAX_MESSAGE || head > MAX_HEAD || head.saturating_add(4) > message {
        return Err(ProtocolError::Length { message, head });
    }
    let missing = (4 + message).saturating_sub(bytes.len());
    if missing > 0 {
        bytes.reserve(missing);
        return Ok(None);
    }
    bytes.advance(LENGTHS);
    let json = bytes.split_to(head);
    let blob = bytes.split_to(message - 4 - head).freeze();
    let head = serde_json::from_slice(&json).map_err(|e| ProtocolError::Head(e.to_string()))?;
    Ok(Some(Message { head, blob }))
}

fn length_at(bytes: &BytesMut, at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(head: &Head, blob: &[u8]) -> Vec<u8> {
        let mut bytes = encode(head, blob.len()).unwrap();
        bytes.extend(blob);
        bytes
    }

    fn heads() -> impl Strategy<Value = Head> {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(width, height)| Head::Playing { width, height }),
            any::<(u64, u64)>().prop_map(|(keyframe_age_ms, left_out)| Head::Beat {
                left_out,
                keyframe_age_ms
            }),
            (any::<u64>(), "[a-z0-9.]{0,40}", any::<u16>()).prop_map(|(age_ms, codec, px)| {
                Head::Begin {
                    age_ms,
                    codec,
                    width: px,
                    height: px,
                }
            }),
            any::<(u32, u32)>().prop_map(|(frames, duration_ms)| Head::Fragment {
                frames,
                duration_ms
            }),
            Just(Head::End),
            "\\PC{0,60}".prop_map(|detail| Head::Fault {
                fault: Fault::Garbage,
                detail
            }),
        ]
    }

    proptest! {
        #[test]
        fn messages_come_back_however_the_pipe_cuts_them(
            messages in proptest::collection::vec((heads(), proptest::collection::vec(any::<u8>(), 0..300)), 1..6),
            cut in 1usize..97,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(h, b)| bytes_of(h, b)).collect();
            let mut held = BytesMut::new();
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                held.extend_from_slice(piece);
                while let Some(message) = decode(&mut held).unwrap() {
                    got.push((message.head, message.blob.to_vec()));
                }
            }
            prop_assert_eq!(got, messages);
            prop_assert!(held.is_empty());
        }

        #[test]
        fn foreign_bytes_never_panic_and_never_reserve_what_they_claim(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut held = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut held) {}
            prop_assert!(held.capacity() <= MAX_MESSAGE + 4_096);
        }
    }

    #[test]
    fn a_length_that_no_reader_sends_is_an_error_at_once() {
        for (message, head) in [(u32::MAX, 4), (100, u32::MAX), (10, 7), (0, 0)] {
            let mut held = BytesMut::new();
            held.extend_from_slice(&message.to_le_bytes());
            held.extend_from_slice(&head.to_le_bytes());
            assert!(decode(&mut held).is_err(), "{message} {head}");
        }
        assert!(encode(&Head::End, MAX_MESSAGE).is_err());
    }
}
