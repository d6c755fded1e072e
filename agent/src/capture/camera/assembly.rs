//! A segment as it grows on the agent's side.
//!
//! The agent holds the fragments, not the reader: when a reader dies, what it had told is still a
//! playable file, and only its open fragment is lost.

use bytes::Bytes;
use scc_common::clock::{Clock, Stamp};
use scc_common::record::Segment;
use scc_common::wire::MAX_BODY;

/// Room that the rest of a record's body needs beside its video.
const BODY_MARGIN: usize = 4_096;

/// A stamp of `age_ms` ago.
#[must_use]
pub(super) fn stamp_ago(clock: &dyn Clock, age_ms: u64) -> Stamp {
    let now = clock.stamp();
    // an age is seconds at most; a reader that claims more is not believed
    let age_ms = age_ms.min(60_000);
    Stamp {
        mono_ms: now.mono_ms.saturating_sub(age_ms),
        wall_ms: now
            .wall_ms
            .saturating_sub(i64::try_from(age_ms).unwrap_or(0)),
        ..now
    }
}

/// The open segment of one camera, if there is one.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    open: Option<(Stamp, Segment)>,
    /// Room for a segment like the one before: one that doubles while it grows is copied on the way
    /// and leaves holes.
    usual: usize,
}

/// A segment whose pieces do not fit together or into a record.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssemblyError {
    /// A fragment without a beginning.
    #[error("a fragment came without a segment")]
    NotBegun,
    /// More than a record may hold.
    #[error("a segment grew beyond {MAX_BODY} bytes")]
    TooLarge,
}

impl Assembly {
    /// A segment begins. What was open is returned as by [`end`](Self::end).
    pub(super) fn begin(
        &mut self,
        stamp: Stamp,
        codec: String,
        (width, height): (u16, u16),
        init: &Bytes,
    ) -> Option<(Stamp, Segment)> {
        let before = self.end();
        let mut mp4 = Vec::with_capacity(self.usual.max(init.len()));
        mp4.extend_from_slice(init);
        let segment = Segment {
            duration_ms: 0,
            frames: 0,
            codec,
            width,
            height,
            mp4,
        };
        self.open = Some((stamp, segment));
        before
    }

    /// It grows.
    ///
    /// # Errors
    /// [`AssemblyError`]: the reader does not keep to the protocol.
    pub(super) fn fragment(
        &mut self,
        frames: u32,
        duration_ms: u32,
        bytes: &Bytes,
    ) -> Result<(), AssemblyError> {
        let (_, segment) = self.open.as_mut().ok_or(AssemblyError::NotBegun)?;
        if segment.mp4.len() + bytes.len() + BODY_MARGIN > MAX_BODY {
            return Err(AssemblyError::TooLarge);
        }
        segment.frames = segment.frames.saturating_add(frames);
        segment.duration_ms = segment.duration_ms.saturating_add(duration_ms);
        segment.mp4.extend_from_slice(bytes);
        Ok(())
    }

    /// It is over, complete or not. A segment without a single fragment is none.
    pub(super) fn end(&mut self) -> Option<(Stamp, Segment)> {
        let (stamp, segment) = self.open.take()?;
        // bounded: nothing longer than a body is taken in
        self.usual = segment.mp4.len() + segment.mp4.len() / 8;
        (segment.frames > 0).then_some((stamp, segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scc_common::clock::ManualClock;

    #[test]
    fn what_a_dead_reader_had_told_is_still_a_segment() {
        let clock = ManualClock::at(100_000);
        let mut assembly = Assembly::default();
        let stamp = stamp_ago(&*clock, 40);
        assert_eq!(stamp.wall_ms, 99_960);
        assert!(
            assembly
                .begin(
                    stamp,
                    "avc1.4d4028".into(),
                    (768, 576),
                    &Bytes::from_static(b"init")
                )
                .is_none()
        );
        assembly
            .fragment(50, 2_000, &Bytes::from_static(b"one"))
            .unwrap();
        assembly
            .fragment(50, 2_000, &Bytes::from_static(b"two"))
            .unwrap();
        let (at, segment) = assembly.end().unwrap();
        assert_eq!(at, stamp);
        assert_eq!(
            (segment.frames, segment.duration_ms, segment.mp4.as_slice()),
            (100, 4_000, &b"initonetwo"[..])
        );
        assert!(assembly.end().is_none());
    }

    #[test]
    fn a_reader_cannot_make_it_grow_without_bound() {
        let mut assembly = Assembly::default();
        let piece = Bytes::from(vec![0; 9 << 20]);
        assert_eq!(
            assembly.fragment(1, 1, &piece),
            Err(AssemblyError::NotBegun)
        );
        let stamp = stamp_ago(&*ManualClock::at(0), u64::MAX);
        assembly.begin(stamp, String::new(), (1, 1), &Bytes::new());
        assert_eq!(assembly.fragment(1, 1, &piece), Ok(()));
        assert_eq!(
            assembly.fragment(1, 1, &piece),
            Err(AssemblyError::TooLarge)
        );
        assert!(
            assembly
                .begin(stamp, String::new(), (1, 1), &Bytes::new())
                .is_some()
        );
        assert!(assembly.end().is_none(), "nothing came after the beginning");
    }
}
