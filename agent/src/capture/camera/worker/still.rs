//! A keyframe, decoded and made into a small JPEG.
//!
//! Decoder, scaler and encoder live for one picture: a still every half a minute does not justify
//! holding a 1080p decoder's frames in memory, and a decoder that is new cannot carry damage over.

use ffmpeg::codec::{self, Parameters, threading};
use ffmpeg::format::Pixel;
use ffmpeg::software::scaling;
use ffmpeg::{Packet, Rational, frame};
use ffmpeg_next as ffmpeg;

/// Width of a still; a narrower camera keeps its own.
const WIDTH: u32 = 640;

/// Largest picture that is decoded, pixels each way; beyond is no camera of ours.
const LARGEST: u32 = 8_192;

/// FFmpeg's quantiser 5: about 22 kB for a 640 × 360 street scene.
const QUALITY: i32 = 5 * ffmpeg::ffi::FF_QP2LAMBDA;

/// A finished picture.
pub(super) struct Picture {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) jpeg: Vec<u8>,
}

/// Makes a picture of a keyframe.
///
/// # Errors
/// The decoder's, or `InvalidData` if it found damage in the frame.
pub(super) fn picture(
    parameters: &Parameters,
    keyframe: &Packet,
) -> Result<Picture, ffmpeg::Error> {
    encode(&scale(&decode(parameters, keyframe)?)?)
}

fn one_thread() -> threading::Config {
    threading::Config {
        kind: threading::Type::Slice,
        count: 1,
        ..threading::Config::default()
    }
}

fn decode(parameters: &Parameters, keyframe: &Packet) -> Result<frame::Video, ffmpeg::Error> {
    let mut context = codec::Context::from_parameters(parameters.clone())?;
    context.set_threading(one_thread());
    let mut decoder = context.decoder().video()?;
    decoder.send_packet(keyframe)?;
    // nothing follows: the frame must come out now
    decoder.send_eof()?;
    let mut frame = frame::Video::empty();
    decoder.receive_frame(&mut frame)?;
    let sane = |n: u32| (16..=LARGEST).contains(&n);
    if frame.is_corrupt()
        || frame.has_decode_errors()
        || !sane(frame.width())
        || !sane(frame.height())
    {
        return Err(ffmpeg::Error::InvalidData);
    }
    Ok(frame)
}

fn scale(frame: &frame::Video) -> Result<frame::Video, ffmpeg::Error> {
    let width = frame.width().min(WIDTH) & !1;
    let height = (frame.height() * width / frame.width()).max(2) & !1;
    let mut scaler = scaling::Context::get(
        frame.format(),
        frame.width(),
        frame.height(),
        Pixel::YUVJ420P,
        width,
        height,
        scaling::Flags::BILINEAR,
    )?;
    let mut small = frame::Video::empty();
    scaler.run(frame, &mut small)?;
    Ok(small)
}

fn encode(frame: &frame::Video) -> Result<Picture, ffmpeg::Error> {
    let codec = codec::encoder::find(codec::Id::MJPEG).ok_or(ffmpeg::Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(codec);
    context.set_threading(one_thread());
    context.set_flags(codec::Flags::QSCALE);
    let mut encoder = context.encoder().video()?;
    encoder.set_width(frame.width());
    encoder.set_height(frame.height());
    encoder.set_format(Pixel::YUVJ420P);
    encoder.set_time_base(Rational(1, 25));
    encoder.set_global_quality(QUALITY);
    let mut encoder = encoder.open()?;
    let mut frame = frame.clone();
    // SAFETY: the frame is ours alone; the encoder reads its quantiser from here
    unsafe {
        (*frame.as_mut_ptr()).quality = QUALITY;
    }
    frame.set_pts(Some(0));
    encoder.send_frame(&frame)?;
    encoder.send_eof()?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet)?;
    let pixels = |n: u32| u16::try_from(n).map_err(|_| ffmpeg::Error::InvalidData);
    Ok(Picture {
        width: pixels(frame.width())?,
        height: pixels(frame.height())?,
        jpeg: packet.data().unwrap_or_default().to_vec(),
    })
}
