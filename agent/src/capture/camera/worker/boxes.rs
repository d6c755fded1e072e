//! Just enough of ISO/IEC 14496-12 to cut a muxer's output at its top-level boxes and to read the
//! codec string (RFC 6381) out of the sample description.

/// What a muxer's output is made of. FFmpeg writes `ftyp moov (moof mdat)* mfra` in pieces of its own
/// choosing; what is wanted are the boxes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// `ftyp` and `moov`: what a player needs first.
    Init(&'a [u8]),
    /// `moof` and `mdat`: a playable stretch.
    Fragment(&'a [u8]),
    /// A box that nobody needs: `mfra`, `sidx`, `free`.
    Other,
}

/// The first piece and where the next one begins; none if it is not complete yet.
pub(super) fn first_piece(bytes: &[u8]) -> Option<(Piece<'_>, usize)> {
    let (mut at, mut piece_from) = (0, None);
    loop {
        let (kind, len) = header(bytes.get(at..)?)?;
        let end = at.checked_add(len)?;
        let piece = bytes.get(piece_from.unwrap_or(at)..end)?;
        match &kind {
            b"ftyp" | b"moof" => piece_from = Some(at),
            b"moov" => return Some((Piece::Init(piece), end)),
            b"mdat" => return Some((Piece::Fragment(piece), end)),
            _ if piece_from.is_none() => return Some((Piece::Other, end)),
            _ => {}
        }
        at = end;
    }
}

/// Kind and length of the box at the front.
fn header(bytes: &[u8]) -> Option<([u8; 4], usize)> {
    let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = bytes.get(4..8)?.try_into().ok()?;
    let len = match size {
        1 => usize::try_from(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)).ok()?,
        small => usize::try_from(small).ok()?,
    };
    (len >= 8).then_some((kind, len))
}

/// The contents of the first box of this kind among the boxes in `bytes`.
fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    let mut rest = bytes;
    loop {
        let (found, len) = header(rest)?;
        let whole = rest.get(..len)?;
        if &found == kind {
            return whole.get(8..);
        }
        rest = rest.get(len..)?;
    }
}

/// The codec string of the first track, from the `avcC` or `hvcC` of an `ftyp moov`.
pub(super) fn codec_string(init: &[u8]) -> Option<String> {
    /// Fixed fields of a `stsd` before its entries, and of a visual sample entry before its boxes.
    const STSD_FIELDS: usize = 8;
    const VISUAL_FIELDS: usize = 78;
    let mut inner = find(init, b"moov")?;
    for kind in [b"trak", b"mdia", b"minf", b"stbl", b"stsd"] {
        inner = find(inner, kind)?;
    }
    let entries = inner.get(STSD_FIELDS..)?;
    if let Some(entry) = find(entries, b"avc1") {
        let avcc = find(entry.get(VISUAL_FIELDS..)?, b"avcC")?;
        let [profile, compatible, level] = avcc.get(1..4)?.try_into().ok()?;
        return Some(format!("avc1.{profile:02x}{compatible:02x}{level:02x}"));
    }
    let entry = find(entries, b"hvc1")?;
    hevc_string(find(entry.get(VISUAL_FIELDS..)?, b"hvcC")?)
}

/// ISO/IEC 14496-15, annex E.3.
fn hevc_string(hvcc: &[u8]) -> Option<String> {
    use std::fmt::Write as _;
    let [general, c0, c1, c2, c3, constraints @ .., level]: [u8; 12] =
        hvcc.get(1..13)?.try_into().ok()?;
    let space = ["", "A", "B", "C"].get(usize::from(general >> 6))?;
    let tier = if general & 0x20 == 0 { 'L' } else { 'H' };
    let compatible = u32::from_be_bytes([c0, c1, c2, c3]).reverse_bits();
    let mut text = format!(
        "hvc1.{space}{}.{compatible:x}.{tier}{level}",
        general & 0x1f
    );
    let used = constraints
        .iter()
        .rposition(|b| *b != 0)
        .map_or(0, |i| i + 1);
    for byte in constraints.iter().take(used) {
        // writing into a String cannot fail
        let _ = write!(text, ".{byte:x}");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxed(kind: &[u8; 4], inside: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(inside.len() + 8)
            .unwrap()
            .to_be_bytes()
            .to_vec();
        bytes.extend(kind);
        bytes.extend(inside);
        bytes
    }

    fn init(entry: &[u8; 4], config: &[u8; 4], config_bytes: &[u8]) -> Vec<u8> {
        let mut visual = vec![0; 78];
        visual.extend(boxed(config, config_bytes));
        let mut stsd = vec![0; 8];
        stsd.extend(boxed(entry, &visual));
        let mut inner = boxed(b"stsd", &stsd);
        for kind in [b"stbl", b"minf", b"mdia", b"trak", b"moov"] {
            inner = boxed(kind, &inner);
        }
        [boxed(b"ftyp", b"isom"), inner].concat()
    }

    #[test]
    fn codec_strings_are_those_that_browsers_know() {
        let avc = init(b"avc1", b"avcC", &[1, 0x4d, 0x40, 0x28, 0xff]);
        assert_eq!(codec_string(&avc).as_deref(), Some("avc1.4d4028"));
        let hevc = [1, 0x01, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 153, 0xf0];
        let hevc = init(b"hvc1", b"hvcC", &hevc);
        assert_eq!(codec_string(&hevc).as_deref(), Some("hvc1.1.6.L153.b0"));
        assert_eq!(codec_string(&boxed(b"ftyp", b"isom")), None);
    }

    proptest! {
        #[test]
        fn pieces_are_the_same_however_the_muxer_writes_them(cut in 1usize..200, bodies in proptest::collection::vec(0usize..300, 1..5)) {
            let first = init(b"avc1", b"avcC", &[1, 2, 3, 4]);
            let fragments: Vec<_> = bodies.iter().map(|n| [boxed(b"moof", &[7; 20]), boxed(b"mdat", &vec![9; *n])].concat()).collect();
            let mut stream = first.clone();
            stream.extend(boxed(b"free", b""));
            stream.extend(fragments.concat());
            stream.extend(boxed(b"mfra", &[1; 30]));
            let (mut from, mut got) = (0, Vec::new());
            for written in (0..stream.len()).step_by(cut).chain([stream.len()]) {
                while let Some((piece, len)) = first_piece(&stream[from..written]) {
                    from += len;
                    got.push(piece);
                }
            }
            let mut expected = vec![Piece::Init(&first), Piece::Other];
            expected.extend(fragments.iter().map(|f| Piece::Fragment(f)));
            expected.push(Piece::Other);
            prop_assert_eq!(got, expected);
            prop_assert_eq!(from, stream.len());
        }

        #[test]
        fn foreign_bytes_never_panic_nor_hang(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = codec_string(&bytes);
            let mut rest = &bytes[..];
            while let Some((_, len)) = first_piece(rest) {
                prop_assert!(len > 0);
                rest = &rest[len..];
            }
        }
    }
}
