//! Taking a body apart into its picture or video and the rest, and putting it together again.
//!
//! The file of a picture is the picture, so that it can be served as it is; the row keeps the rest.
//! Nothing is lost by that: [`join`] gives back the body byte for byte, which whoever stores it
//! checks against the record's checksum first.

use scc_common::record::{BodyError, Content, RecordBody};

use super::MediaKind;

/// Takes the bytes of the picture or video out of a body and leaves none there. None if the body
/// has no such bytes.
#[must_use]
pub fn take(body: &mut RecordBody) -> Option<(MediaKind, Vec<u8>)> {
    match &mut body.content {
        Content::Snapshot(snapshot) if !snapshot.jpeg.is_empty() => {
            Some((MediaKind::Jpeg, std::mem::take(&mut snapshot.jpeg)))
        }
        Content::Segment(segment) if !segment.mp4.is_empty() => {
            Some((MediaKind::Mp4, std::mem::take(&mut segment.mp4)))
        }
        _ => None,
    }
}

/// The whole body from the rest (as the row has it) and the bytes of its file.
///
/// # Errors
/// [`BodyError`] if the rest cannot be read.
pub fn join(rest: &[u8], media: Vec<u8>) -> Result<Vec<u8>, BodyError> {
    let mut body = RecordBody::decode(rest)?;
    match &mut body.content {
        Content::Snapshot(snapshot) => snapshot.jpeg = media,
        Content::Segment(segment) => segment.mp4 = media,
        _ => {}
    }
    Ok(body.encode())
}
