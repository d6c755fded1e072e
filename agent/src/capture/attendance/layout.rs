//! Records out of the attendance log (zk.md §10c, §11).
//!
//! A terminal does not say which of its family's record layouts it uses, and a log that is read in
//! the wrong one yields rubbish without an error. So a layout is recognised, never assumed: it must
//! divide the log, and at least 99 of 100 records must be plausible under it. The terminal's counter
//! only breaks ties, for it may be wrong. What no layout fits is refused whole; single implausible
//! records of a recognised log are set aside raw and counted.

use std::borrow::Cow;

use super::frame::{u16_at, u32_at};
use super::time::{LocalS, OLDEST_PLAUSIBLE, decode};

/// Some firmware puts these bytes before the first record, or before or behind each.
const MARKER: [u8; 9] = [0xFF, b'2', b'5', b'5', 0, 0, 0, 0, 0];
/// Longest record that is believed.
const WIDEST: usize = 128;
/// Share of records that must be plausible, per cent.
const PLAUSIBLE_PERCENT: usize = 99;

/// A record layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// 8 bytes: internal number, verify, time, state.
    EightA,
    /// 8 bytes: internal number, two flags of unsure meaning, time.
    EightB,
    /// 16 bytes, numeric user id, state before verify.
    Sixteen,
    /// The same with verify before state.
    SixteenSwapped,
    /// 40 bytes, text user id; wider ones carry these 40 bytes and something more.
    Forty {
        /// Bytes before the first record.
        skip: usize,
        /// From one record to the next.
        stride: usize,
        /// Where the 40 bytes begin in a record.
        at: usize,
    },
}

/// Who punched, as the log names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who<'a> {
    /// The number that the person types.
    User(Cow<'a, str>),
    /// The terminal's internal number; the user table may know the user id.
    Uid(u16),
}

/// How well a layout fits a log; the greater the better. Shares are per mille, so that layouts
/// with different numbers of records compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// It gives as many records as the terminal counts.
    counted: bool,
    good: usize,
    tidy: usize,
}

/// A plausible record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who.
    pub who: Who<'a>,
    /// When, on the terminal's wall.
    pub local_s: LocalS,
    /// In/out key as sent.
    pub state: u8,
    /// How verified, as sent.
    pub verify: u8,
}

/// Why a log was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The length that the log begins with is not its length: the transfer was damaged.
    #[error("the log says it has {told} bytes and has {got}")]
    Damaged {
        /// The length told.
        told: u32,
        /// The length that came.
        got: usize,
    },
    /// No layout fits.
    #[error("{bytes} bytes of log are in no known record layout")]
    Unknown {
        /// Length of the log.
        bytes: usize,
    },
}

/// Takes the leading length off a table's body.
///
/// # Errors
/// [`LayoutError::Damaged`] if it is not the length of the rest.
pub fn records(body: &[u8]) -> Result<&[u8], LayoutError> {
    if body.is_empty() {
        return Ok(body);
    }
    let (told, rest) = match body.split_first_chunk::<4>() {
        Some((told, rest)) => (u32::from_le_bytes(*told), rest),
        None => (0, body),
    };
    if usize::try_from(told) == Ok(rest.len()) {
        Ok(rest)
    } else {
        Err(LayoutError::Damaged {
            told,
            got: rest.len(),
        })
    }
}

impl Layout {
    /// The plain 40-byte layout.
    pub const FORTY: Self = Self::Forty {
        skip: 0,
        stride: 40,
        at: 0,
    };

    /// The name in proofs.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::EightA => "8a".into(),
            Self::EightB => "8b".into(),
            Self::Sixteen => "16".into(),
            Self::SixteenSwapped => "16s".into(),
            Self::Forty { stride, .. } => stride.to_string(),
        }
    }

    /// Whether records name people by internal number only.
    #[must_use]
    pub const fn needs_users(self) -> bool {
        matches!(self, Self::EightA | Self::EightB)
    }

    /// Whether records tell state and verify, or only who and when.
    #[must_use]
    pub const fn tells_state(self) -> bool {
        !matches!(self, Self::EightB)
    }

    const fn stride(self) -> usize {
        match self {
            Self::EightA | Self::EightB => 8,
            Self::Sixteen | Self::SixteenSwapped => 16,
            Self::Forty { stride, .. } => stride,
        }
    }

    const fn skip(self) -> usize {
        match self {
            Self::Forty { skip, .. } => skip,
            _ => 0,
        }
    }

    /// The records as raw slices, in the log's order. `log` is what [`records`] gave.
    pub fn split(self, log: &[u8]) -> std::slice::ChunksExact<'_, u8> {
        log.get(self.skip()..)
            .unwrap_or_default()
            .chunks_exact(self.stride())
    }

    fn divides(self, log: &[u8]) -> Option<usize> {
        let rest = log.len().checked_sub(self.skip())?;
        (rest > 0 && rest.is_multiple_of(self.stride())).then(|| rest / self.stride())
    }

    /// Reads one raw record; `None` if it is not plausible. `newest` is the latest believable time.
    #[must_use]
    pub fn read(self, raw: &[u8], newest: LocalS) -> Option<Record<'_>> {
        let byte = |at: usize| raw.get(at).copied();
        let record = match self {
            Self::EightA => Record {
                who: Who::Uid(u16_at(raw, 0)?),
                verify: byte(2)?,
                local_s: decode(u32_at(raw, 3)?)?,
                state: byte(7)?,
            },
            Self::EightB => Record {
                who: Who::Uid(u16_at(raw, 0)?),
                // the two flags' meaning is not certain, so nothing is derived from them: they
                // stay in the raw bytes
                verify: 255,
                local_s: decode(u32_at(raw, 4)?)?,
                state: 255,
            },
            Self::Sixteen => Record {
                who: Who::User(u32_at(raw, 0)?.to_string().into()),
                local_s: decode(u32_at(raw, 4)?)?,
                state: byte(8)?,
                verify: byte(9)?,
            },
            Self::SixteenSwapped => Record {
                who: Who::User(u32_at(raw, 0)?.to_string().into()),
                local_s: decode(u32_at(raw, 4)?)?,
                verify: byte(8)?,
                state: byte(9)?,
            },
            Self::Forty { at, .. } => {
                let raw = raw.get(at..)?;
                Record {
                    who: Who::User(user_text(raw.get(2..26)?)?.into()),
                    verify: *raw.get(26)?,
                    local_s: decode(u32_at(raw, 27)?)?,
                    state: *raw.get(31)?,
                }
            }
        };
        plausible(record.local_s, record.state, record.verify, newest).then_some(record)
    }

    /// How well this layout fits, if it does.
    fn rank(self, log: &[u8], counts: [Option<u32>; 2], newest: LocalS) -> Option<Rank> {
        let total = self.divides(log)?;
        let counted = counts
            .into_iter()
            .flatten()
            .any(|count| usize::try_from(count) == Ok(total));
        let (mut good, mut tidy) = (0, 0);
        for raw in self.split(log) {
            if self.read(raw, newest).is_some() {
                good += 1;
                tidy += usize::from(self.is_tidy(raw));
            }
        }
        // two small numbers in the other order ask for little, so here the rest must fit as well
        let strange = self == Self::SixteenSwapped && tidy < good;
        (good > 0 && !strange && good * 100 >= total * PLAUSIBLE_PERCENT).then(|| Rank {
            counted,
            good: good * 1_000 / total,
            tidy: tidy * 1_000 / total,
        })
    }

    fn is_tidy(self, raw: &[u8]) -> bool {
        match self {
            Self::EightA | Self::EightB => true,
            // reserved, and a work code of at most eight digits
            Self::Sixteen | Self::SixteenSwapped => {
                u16_at(raw, 10) == Some(0) && u32_at(raw, 12).is_some_and(|code| code < 100_000_000)
            }
            Self::Forty { at, .. } => raw
                .get(at + 2..at + 26)
                .is_some_and(|id| id.iter().skip_while(|b| **b != 0).all(|b| *b == 0)),
        }
    }
}

/// The test of zk.md §11e for what is not the user id.
#[must_use]
pub fn plausible(local_s: LocalS, state: u8, verify: u8, newest: LocalS) -> bool {
    (OLDEST_PLAUSIBLE..=newest).contains(&local_s)
        && (state <= 5 || state == 255)
        && (verify <= 200 || verify == 255)
}

/// A user id out of a zero-padded field, if it is one.
#[must_use]
pub fn user_text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    let id = std::str::from_utf8(field.get(..end)?).ok()?;
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ')).then_some(id)
}

/// Recognises the layout of a log that is not empty. `counts` are the terminal's counters around
/// the read.
///
/// # Errors
/// [`LayoutError::Unknown`] if no layout fits, or if the two 8-byte dialects fit alike.
pub fn recognise(
    log: &[u8],
    counts: [Option<u32>; 2],
    newest: LocalS,
) -> Result<Layout, LayoutError> {
    let unknown = LayoutError::Unknown { bytes: log.len() };
    let forty = |skip, stride, at| Layout::Forty { skip, stride, at };
    let mut usual = vec![
        Layout::EightA,
        Layout::EightB,
        // first of the two: where both fit alike, the sheet's order stands
        Layout::Sixteen,
        Layout::SixteenSwapped,
        Layout::FORTY,
    ];
    if log.starts_with(&MARKER) {
        usual.push(forty(MARKER.len(), 40, 0));
        usual.push(forty(0, 40 + MARKER.len(), MARKER.len()));
    }
    usual.push(forty(0, 40 + MARKER.len(), 0));
    // wide records only where nothing usual fits: every second record of a 40-byte log is a
    // plausible 80-byte record, and a wrong counter must not halve a log
    let wide = (41..=WIDEST).map(|stride| forty(0, stride, 0)).collect();
    for candidates in [usual, wide] {
        let mut best: Option<(Rank, Layout)> = None;
        for layout in candidates {
            let Some(rank) = layout.rank(log, counts, newest) else {
                continue;
            };
            match best {
                Some((held, other)) if held == rank && other.needs_users() => return Err(unknown),
                Some((held, _)) if held >= rank => {}
                _ => best = Some((rank, layout)),
            }
        }
        if let Some((_, layout)) = best {
            return Ok(layout);
        }
    }
    Err(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-25, a day after the sheet.
    const NEWEST: LocalS = 848_966_400 + 10 * 86_400;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace()
            .map(|b| u8::from_str_radix(b, 16).unwrap())
            .collect()
    }

    fn forty(user: &str, verify: u8, time: [u8; 4], state: u8) -> Vec<u8> {
        let mut r = vec![0; 40];
        r[0] = 1;
        r[2..2 + user.len()].copy_from_slice(user.as_bytes());
        r[26] = verify;
        r[27..31].copy_from_slice(&time);
        r[31] = state;
        r
    }

    fn only(log: &[u8], counts: [Option<u32>; 2]) -> (Layout, Vec<Record<'_>>) {
        let layout = recognise(log, counts, NEWEST).unwrap();
        let records = layout
            .split(log)
            .map(|raw| layout.read(raw, NEWEST).unwrap())
            .collect();
        (layout, records)
    }

    #[test]
    fn captured_records_of_forty_bytes() {
        let log = [
            forty("10036", 15, [0xB8, 0xEB, 0xC9, 0x29], 0),
            forty("999111333", 1, [0x6B, 0xB3, 0x68, 0x23], 0),
        ]
        .concat();
        for counts in [[None; 2], [Some(2); 2], [Some(1); 2], [Some(0), Some(9)]] {
            let (layout, records) = only(&log, counts);
            assert_eq!(layout.name(), "40", "{counts:?}");
            assert_eq!(records[0].who, Who::User("10036".into()));
            assert_eq!((records[0].verify, records[0].state), (15, 0));
            assert_eq!(records[1].who, Who::User("999111333".into()));
        }
    }

    #[test]
    fn captured_records_of_sixteen_bytes() {
        let log = hex("15 00 00 00 EC 15 4F 23 00 00 00 00 00 00 00 00 \
                       16 00 00 00 85 82 4F 23 01 00 00 00 00 00 00 00");
        let (layout, records) = only(&log, [Some(2); 2]);
        assert_eq!(layout.name(), "16");
        assert_eq!(records[0].who, Who::User("21".into()));
        assert_eq!((records[1].state, records[1].verify), (1, 0));
        assert_eq!(only(&log, [None; 2]).0, layout);
    }

    #[test]
    fn the_captured_record_of_eight_bytes_is_of_dialect_b() {
        let log = hex("07 00 28 00 A8 EB A7 1E");
        let (layout, records) = only(&log, [Some(1); 2]);
        assert_eq!(layout, Layout::EightB);
        assert_eq!(records[0].who, Who::Uid(7));
        assert_eq!(decode(0x1EA7_EBA8), Some(records[0].local_s));
    }

    #[test]
    fn the_marker_is_found_once_and_per_record_before_and_behind() {
        let one = forty("10036", 15, [0xB8, 0xEB, 0xC9, 0x29], 0);
        let (layout, records) = {
            let log: &'static [u8] = Vec::leak([&MARKER[..], &one, &one].concat());
            only(log, [Some(2); 2])
        };
        assert_eq!((layout.name().as_str(), records.len()), ("40", 2));
        for log in [
            [&MARKER[..], &one, &MARKER, &one].concat(),
            [&one[..], &MARKER, &one, &MARKER].concat(),
        ] {
            let (layout, records) = only(&log, [None; 2]);
            assert_eq!((layout.name().as_str(), records.len()), ("49", 2));
        }
        let wide = [&one[..], &[7; 12], &one, &[7; 12]].concat();
        let (layout, records) = only(&wide, [Some(2); 2]);
        assert_eq!((layout.name().as_str(), records.len()), ("52", 2));
    }

    #[test]
    fn rubbish_and_a_damaged_length_are_refused() {
        assert_eq!(
            recognise(&[0x41; 400], [Some(10); 2], NEWEST),
            Err(LayoutError::Unknown { bytes: 400 })
        );
        assert_eq!(
            records(&[8, 0, 0, 0, 1]),
            Err(LayoutError::Damaged { told: 8, got: 1 })
        );
        assert_eq!(
            records(&[1, 0]),
            Err(LayoutError::Damaged { told: 0, got: 2 })
        );
        assert_eq!(records(&[0; 4]), Ok(&[][..]));
        assert_eq!(records(&[]), Ok(&[][..]));
    }

    #[test]
    fn a_few_bad_records_are_set_aside_and_many_refuse_the_log() {
        let good = forty("7", 1, [0xF6, 0x98, 0x86, 0x33], 0);
        let mut log = good.repeat(99);
        log.extend([0xEE; 40]);
        let layout = recognise(&log, [Some(100); 2], NEWEST).unwrap();
        let read = layout
            .split(&log)
            .filter(|r| layout.read(r, NEWEST).is_some());
        assert_eq!(read.count(), 99);
        log.extend([0xEE; 40]);
        assert!(recognise(&log, [Some(101); 2], NEWEST).is_err());
    }

    fn build(layout: Layout, uid: u16, time: u32, verify: u8, state: u8) -> Vec<u8> {
        let (u, t) = (uid.to_le_bytes(), time.to_le_bytes());
        match layout {
            Layout::EightA => [&u[..], &[verify], &t, &[state]].concat(),
            Layout::EightB => [&u[..], &[verify, state], &t].concat(),
            Layout::Sixteen => [&u[..], &[0, 0], &t, &[state, verify, 0, 0, 0, 0, 0, 0]].concat(),
            Layout::SixteenSwapped => {
                [&u[..], &[0, 0], &t, &[verify, state, 0, 0, 0, 0, 0, 0]].concat()
            }
            Layout::Forty { stride, at, .. } => {
                let mut r = vec![0; stride];
                if stride == 49 {
                    r[if at == 0 { 40 } else { 0 }..][..9].copy_from_slice(&MARKER);
                }
                r[at..at + 40].copy_from_slice(&forty(&uid.to_string(), verify, t, state));
                r
            }
        }
    }

    proptest! {
        #[test]
        fn every_plausible_log_is_read_in_the_layout_it_was_written_in(
            which in 0usize..7,
            punches in proptest::collection::vec(
                // 2012 to 2026, as working logs are
                (1u16.., 385_689_600u32..864_000_000, prop_oneof![Just(1u8), Just(4), Just(15)], 0u8..6), 1..60),
            counted: bool,
        ) {
            let layout = [
                Layout::EightA, Layout::EightB, Layout::Sixteen, Layout::FORTY,
                Layout::Forty { skip: 0, stride: 49, at: 9 }, Layout::Forty { skip: 0, stride: 49, at: 0 },
                Layout::SixteenSwapped,
            ][which];
            let punches: Vec<_> = punches.into_iter().filter(|p| decode(p.1).is_some()).collect();
            prop_assume!(!punches.is_empty());
            let log: Vec<u8> = punches.iter().flat_map(|&(u, t, v, s)| build(layout, u, t, v, s)).collect();
            let count = counted.then(|| u32::try_from(punches.len()).unwrap());
            let found = recognise(&log, [count; 2], NEWEST).unwrap();
            // one record behind one marker is the same bytes either way, and only what is no state
            // tells that state and verify are swapped
            let told = match layout {
                Layout::SixteenSwapped => punches.iter().any(|p| p.2 > 5),
                _ => which != 4 || punches.len() > 1,
            };
            if told {
                prop_assert_eq!(found.name(), layout.name());
            }
            let records: Vec<_> = found.split(&log).map(|raw| found.read(raw, NEWEST).unwrap()).collect();
            prop_assert_eq!(records.len(), punches.len());
            for (record, (uid, time, verify, state)) in records.iter().zip(&punches) {
                if told && layout.tells_state() {
                    prop_assert_eq!((record.verify, record.state), (*verify, *state));
                }
                prop_assert_eq!(Some(record.local_s), decode(*time));
                let who = if layout.needs_users() { Who::Uid(*uid) } else { Who::User(uid.to_string().into()) };
                prop_assert_eq!(&record.who, &who);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..800),
            counts in any::<[Option<u32>; 2]>(),
            marked: bool,
        ) {
            let bytes = if marked { [&MARKER[..], &bytes].concat() } else { bytes };
            let _ = records(&bytes);
            if let Ok(layout) = recognise(&bytes, counts, NEWEST) {
                for raw in layout.split(&bytes) {
                    let _ = layout.read(raw, NEWEST);
                }
            }
        }
    }
}
