//! Video as it came, put into fragmented MP4 without decoding it.
//!
//! A segment begins with a keyframe, ends before a keyframe, counts its time from zero and is a
//! complete file. It leaves piece by piece: what a reader process has in memory, and what its death
//! can lose, is one open fragment. Fragments end at keyframes, or at [`FRAGMENT_BYTES`] where a
//! camera sends none for long.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use ffmpeg::codec::{self, Parameters};
use ffmpeg::format::context::{Output, StreamIo};
use ffmpeg::{Dictionary, Packet, Rational};
use ffmpeg_next as ffmpeg;

use super::boxes::{self, Piece};
use super::timeline::{Place, TICKS};

/// A fragment is closed when it would grow beyond this.
const FRAGMENT_BYTES: usize = 2 * 1024 * 1024;

/// A segment ends at the next keyframe after this, whatever its duration.
const SEGMENT_BYTES: usize = 12 * 1024 * 1024;

/// A segment ends here even without a keyframe; packets are then left out until there is one. Below
/// the size that a record may have.
const SEGMENT_MAX_BYTES: usize = 15 * 1024 * 1024;

/// The same for time: a keyframe that does not come must not keep a segment open for ever.
const SEGMENT_MAX_TICKS: i64 = 120 * TICKS;

/// What a segment says of itself while it grows.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// It begins.
    Begin {
        /// RFC 6381 codec string.
        codec: String,
        /// `ftyp` and `moov`.
        init: &'a [u8],
    },
    /// It goes on.
    Fragment {
        /// Packets in it.
        frames: u32,
        /// Its duration.
        duration_ms: u32,
        /// `moof` and `mdat`.
        bytes: &'a [u8],
    },
    /// It is complete.
    End,
}

/// Where the muxer writes. Its room is used again for each fragment: a page that is new costs more
/// than what is copied into it.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<u8>>>);

impl Pieces {
    fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Hands out what is complete, in order, and forgets it.
    fn each<E>(&self, mut tell: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut from = 0;
        while let Some((piece, len)) = boxes::first_piece(held.get(from..).unwrap_or_default()) {
            from += len;
            tell(piece)?;
        }
        held.drain(..from);
        if held.is_empty() {
            // after one that was out of all proportion
            held.shrink_to(2 * FRAGMENT_BYTES);
        }
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The segment that is being written.
struct Open {
    output: Output,
    pieces: Pieces,
    /// The stream's time when it began.
    origin: i64,
    /// The stream's time when its open fragment began.
    fragment_from: i64,
    /// Packets of the open fragment.
    frames: u32,
    bytes: usize,
}

/// Cuts one stream of video into segments.
pub(super) struct Segments {
    parameters: Parameters,
    length: i64,
    pieces: Pieces,
    open: Option<Open>,
    /// The last segment ended at its limit, and no keyframe has come since.
    cut: bool,
    left_out: u64,
}

impl Segments {
    /// Of the stream that these are the parameters of.
    pub(super) fn new(parameters: Parameters, length_ms: u64) -> Self {
        let ms = i64::try_from(length_ms).unwrap_or(i64::MAX);
        Self {
            parameters,
            length: ms.saturating_mul(TICKS / 1_000),
            pieces: Pieces::default(),
            open: None,
            cut: false,
            left_out: 0,
        }
    }

    /// Packets that were left out because a segment had grown to its limit.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes the next packet in, and gives it the segment's own time; `tell` gets what is ready, in
    /// order.
    ///
    /// # Errors
    /// The muxer's, or `tell`'s. The segment cannot be continued.
    pub(super) fn push<E: From<ffmpeg::Error>>(
        &mut self,
        packet: &mut Packet,
        place: Place,
        tell: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(open) = &self.open {
            let ticks = place.dts - open.origin;
            let due = ticks >= self.length || open.bytes >= SEGMENT_BYTES;
            let must = ticks >= SEGMENT_MAX_TICKS || open.bytes + packet.size() > SEGMENT_MAX_BYTES;
            if must || (due && packet.is_key()) {
                self.close(place.dts, tell)?;
                self.cut = true;
            }
        }
        if self.open.is_none() && packet.is_key() {
            self.cut = false;
            self.open = Some(self.begin(place.dts, tell)?);
        }
        match &mut self.open {
            Some(open) => open.write(packet, place, tell),
            None => {
                self.left_out += u64::from(self.cut);
                Ok(())
            }
        }
    }

    /// Ends the open segment at this time of the stream.
    fn close<E: From<ffmpeg::Error>>(
        &mut self,
        until: i64,
        tell: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        open.output.write_trailer()?;
        open.tell_fragment(until, tell)?;
        tell(Part::End)
    }

    fn begin<E: From<ffmpeg::Error>>(
        &self,
        origin: i64,
        tell: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<Open, E> {
        let pieces = self.pieces.clone();
        // whatever the muxer before still had to say when it was dropped
        pieces.clear();
        let io = StreamIo::from_write(pieces.clone())?;
        let mut output = ffmpeg::format::output_to_stream(io, None, Some("mp4"))?;
        let mut stream = output.add_stream(codec::Id::None)?;
        stream.set_parameters(self.parameters.clone());
        stream.set_time_base(Rational(1, 90_000));
        let tag = match self.parameters.id() {
            // parameter sets outside the samples: what Safari and Chromium take
            codec::Id::HEVC => u32::from_le_bytes(*b"hvc1"),
            _ => 0,
        };
        // SAFETY: the stream and its parameters live as long as `output`, which is borrowed here
        unsafe {
            (*(*stream.as_mut_ptr()).codecpar).codec_tag = tag;
        }
        let mut options = Dictionary::new();
        options.set("movflags", "frag_keyframe+empty_moov+default_base_moof");
        options.set("frag_size", &FRAGMENT_BYTES.to_string());
        output.write_header_with(options)?;
        let mut bytes = 0;
        pieces.each(|piece| {
            let Piece::Init(init) = piece else {
                return Err(ffmpeg::Error::InvalidData.into());
            };
            bytes = init.len();
            let codec = boxes::codec_string(init).ok_or(ffmpeg::Error::InvalidData)?;
            tell(Part::Begin { codec, init })
        })?;
        if bytes == 0 {
            return Err(ffmpeg::Error::InvalidData.into());
        }
        Ok(Open {
            output,
            pieces,
            origin,
            fragment_from: origin,
            frames: 0,
            bytes,
        })
    }
}

impl Open {
    fn write<E: From<ffmpeg::Error>>(
        &mut self,
        packet: &mut Packet,
        place: Place,
        tell: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        packet.set_stream(0);
        packet.set_position(-1);
        packet.set_dts(Some(place.dts - self.origin));
        packet.set_pts(Some(place.pts - self.origin));
        packet.set_duration(place.duration);
        // a muxer closes a fragment before it takes the packet that begins the next one
        packet.write(&mut self.output)?;
        self.tell_fragment(place.dts, tell)?;
        self.frames += 1;
        self.bytes += packet.size();
        Ok(())
    }

    fn tell_fragment<E: From<ffmpeg::Error>>(
        &mut self,
        until: i64,
        tell: &mut impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (frames, fragment_from) = (&mut self.frames, &mut self.fragment_from);
        self.pieces.each(|piece| {
            let bytes = match piece {
                Piece::Fragment(bytes) => bytes,
                Piece::Other => return Ok(()),
                Piece::Init(_) => return Err(ffmpeg::Error::InvalidData.into()),
            };
            let frames = std::mem::take(frames);
            let ticks = until - std::mem::replace(fragment_from, until);
            let duration_ms = u32::try_from(ticks / (TICKS / 1_000)).unwrap_or(u32::MAX);
            tell(Part::Fragment {
                frames,
                duration_ms,
                bytes,
            })
        })
    }
}
