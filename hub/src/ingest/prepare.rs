//! From the bytes of a body to a row: what it says, and where its bytes go.

use std::sync::Arc;

use bytes::Bytes;
use scc_common::checksum::Checksum;
use scc_common::clock::WallMs;
use scc_common::record::{Content, RecordBody};
use scc_common::wire::MAX_INLINE;

use crate::brief;
use crate::media::{Media, MediaKind, split};
use crate::store::{NewRecord, RecordKey, StoredBody};

/// Characters of a name by which something is told from its like: more than any device has. To cut one
/// would make one of two people, so a body with a longer one is unreadable.
const LONGEST_NAME: usize = 64;

/// A record that is ready for the ledger once its file, if it has one, is durable.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) new: NewRecord,
    /// Path and bytes of its file.
    pub(super) file: Option<(String, Bytes)>,
}

/// Decides about a body whose checksum has been verified. Costs time in proportion to its size.
pub(super) fn prepare(key: RecordKey, sum: Checksum, body: Bytes, now: WallMs) -> Prepared {
    let mut said = readable(&key, &body);
    let captured_ms = said.as_ref().map(|s| s.stamp.wall_ms);
    let path = |kind| {
        let lane = &key.lane;
        Media::path(
            &lane.agent,
            lane.stream,
            lane.epoch,
            key.seq,
            sum,
            captured_ms,
            kind,
        )
    };
    let size = body.len() as u64;
    // Written by a program whose CBOR differs from ours, it could not be put together again: such a
    // body is kept whole and waits, as unreadable, for a program that knows how.
    if said.as_ref().is_some_and(has_media)
        && !said
            .as_ref()
            .is_some_and(|s| Checksum::of(&s.encode()) == sum)
    {
        said = None;
    }
    let (stored, file) = match said.as_mut().and_then(split::take) {
        Some((kind, bytes)) => {
            let media = path(kind);
            let rest = said.as_ref().map(RecordBody::encode).unwrap_or_default();
            let split = StoredBody::Split {
                rest: rest.into(),
                media: media.clone(),
                media_size: bytes.len() as u64,
            };
            (split, Some((media, Bytes::from(bytes))))
        }
        None if said.is_none() && body.len() > MAX_INLINE => {
            let media = path(MediaKind::Body);
            (StoredBody::File(media.clone()), Some((media, body)))
        }
        None => (StoredBody::Row(body), None),
    };
    Prepared {
        new: NewRecord {
            key,
            sum,
            size,
            body: stored,
            said: said.map(Arc::new),
            received_ms: now,
        },
        file,
    }
}

/// What a body says, if it is one of this stream and names the device that it is about.
fn readable(key: &RecordKey, body: &[u8]) -> Option<RecordBody> {
    let mut said = RecordBody::decode(body).ok()?;
    let about_a_device = matches!(
        said.content,
        Content::Punches(_) | Content::Snapshot(_) | Content::Segment(_)
    );
    let fits = said.stream() == key.lane.stream
        && (said.device.is_some() || !about_a_device)
        && names_fit(&said.content);
    brief::shorten_all(&mut said.content);
    fits.then_some(said)
}

/// Whether each name that goes to a column as it is has the length of a name.
fn names_fit(content: &Content) -> bool {
    let fits = |name: &str| name.chars().nth(LONGEST_NAME).is_none();
    match content {
        Content::Punches(batch) => {
            fits(&batch.serial)
                && batch.read.as_ref().is_none_or(|read| fits(&read.layout))
                && batch.punches.iter().all(|punch| fits(&punch.user))
        }
        Content::Segment(segment) => fits(&segment.codec),
        Content::Event(_) | Content::Health(_) | Content::Snapshot(_) => true,
    }
}

fn has_media(said: &RecordBody) -> bool {
    matches!(said.content, Content::Snapshot(_) | Content::Segment(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LaneKey;
    use scc_common::clock::{Clock, ManualClock};
    use scc_common::id::{AgentId, DeviceId, Epoch};
    use scc_common::record::{Punch, PunchBatch, Segment, Snapshot, Way};
    use scc_common::stream::Stream;

    fn key(stream: Stream) -> RecordKey {
        RecordKey {
            lane: LaneKey {
                agent: AgentId::new("rsud").unwrap(),
                epoch: Epoch(1),
                stream,
            },
            seq: 1,
        }
    }

    fn still(jpeg: Vec<u8>, device: Option<&str>) -> Bytes {
        let snapshot = Snapshot {
            width: 640,
            height: 360,
            cadence_s: 60,
            jpeg,
        };
        RecordBody::new(
            ManualClock::at(0).stamp(),
            device.map(|d| DeviceId::new(d).unwrap()),
            Content::Snapshot(snapshot),
        )
        .encode()
        .into()
    }

    fn prepared(stream: Stream, body: &Bytes) -> Prepared {
        prepare(key(stream), Checksum::of(body), body.clone(), 5)
    }

    #[test]
    fn a_pictures_file_is_the_picture_and_the_body_comes_back_byte_for_byte() {
        let body = still(vec![0xff, 0xd8, 7, 7, 0xff, 0xd9], Some("pintu"));
        let ready = prepared(Stream::Snapshot, &body);
        let (path, bytes) = ready.file.unwrap();
        assert!(path.ends_with(".jpg"));
        assert_eq!(&bytes[..2], [0xff, 0xd8]);
        let StoredBody::Split { rest, .. } = ready.new.body else {
            panic!("not split: {:?}", ready.new.body);
        };
        assert_eq!(split::join(&rest, bytes.to_vec()).unwrap(), body);
        assert_eq!(ready.new.size, body.len() as u64);
    }

    #[test]
    fn what_cannot_be_read_is_kept_whole_in_the_row_or_in_a_file_by_its_size() {
        let small = Bytes::from_static(b"not cbor");
        let ready = prepared(Stream::Event, &small);
        assert_eq!(ready.new.body, StoredBody::Row(small));
        assert!(ready.new.said.is_none() && ready.file.is_none());
        let large = Bytes::from(vec![0xff; MAX_INLINE + 1]);
        let ready = prepared(Stream::Segment, &large);
        let (path, bytes) = ready.file.unwrap();
        assert!(
            path.contains("/undated/") && path.ends_with(".bin"),
            "{path}"
        );
        assert_eq!(bytes, large);
    }

    #[test]
    fn a_picture_in_the_wrong_lane_or_of_no_device_is_unreadable() {
        assert!(
            prepared(Stream::Event, &still(vec![1], Some("a")))
                .new
                .said
                .is_none()
        );
        assert!(
            prepared(Stream::Snapshot, &still(vec![1], None))
                .new
                .said
                .is_none()
        );
    }

    #[test]
    fn a_name_longer_than_any_device_has_makes_its_body_unreadable_and_is_never_cut() {
        let of_a_door = |content| -> Bytes {
            let door = DeviceId::new("pintu").unwrap();
            RecordBody::new(ManualClock::at(0).stamp(), Some(door), content)
                .encode()
                .into()
        };
        let punches = |serial: &str, user: &str| {
            let punch = |user: &str| Punch {
                user: user.into(),
                local_s: 0,
                state: 0,
                verify: 1,
                ordinal: 0,
                raw: Vec::new(),
            };
            of_a_door(Content::Punches(PunchBatch {
                serial: serial.into(),
                way: Way::Live,
                utc_offset_min: 480,
                drift_ms: None,
                read: None,
                punches: vec![punch("1"), punch(user)],
            }))
        };
        let segment = |codec: &str| {
            of_a_door(Content::Segment(Segment {
                duration_ms: 1,
                frames: 1,
                codec: codec.into(),
                width: 1,
                height: 1,
                mp4: vec![1],
            }))
        };
        let (most, more) = ("é".repeat(64), "é".repeat(65));
        for (stream, body, is_readable) in [
            (Stream::Attendance, punches(&most, &most), true),
            (Stream::Attendance, punches(&more, "1"), false),
            (Stream::Attendance, punches("CGKK1", &more), false),
            (Stream::Segment, segment(&most), true),
            (Stream::Segment, segment(&more), false),
        ] {
            let ready = prepared(stream, &body);
            assert_eq!(ready.new.said.is_some(), is_readable, "{stream}");
            if !is_readable {
                assert_eq!(ready.new.body, StoredBody::Row(body));
            }
        }
    }

    #[test]
    fn a_body_that_would_not_come_back_byte_for_byte_is_not_taken_apart() {
        // The same map with one more key: valid, but our encoder would not write it.
        let mut body = still(vec![1, 2, 3], Some("a")).to_vec();
        assert_eq!(body[0] & 0xe0, 0xa0, "a map of definite length");
        body[0] += 1;
        body.extend([0x61, b'x', 0x01]);
        let ready = prepared(Stream::Snapshot, &Bytes::from(body.clone()));
        assert_eq!(ready.new.body, StoredBody::Row(body.into()));
        assert!(ready.new.said.is_none());
    }
}
