//! The file that carries a buffer's records away: `scc-agent buffer export` writes it, `scc-agent
//! buffer import` and `scc-hub import` read it. The format is documented in `docs/design/export.md`
//! and, for what is CBOR in it, `docs/design/export.cddl`.
//!
//! Promises: a record in it has the bytes that it had on the card, header included; a file that was
//! cut off, or in which a single bit is another, is recognised as such before anything is taken from
//! it ([`verify`]); reading never takes more memory than one record, whatever the file claims.
//!
//! Format, version 1, integers little-endian: a *begin* mark, then records, each a [`Header`] and its
//! body, then an *end* mark, and nothing after it. A mark is 32 bytes and a CBOR map:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | magic `SccX` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | kind: 1 begin ([`Begin`]), 2 end ([`End`]) |
//! | 6 | 2 | 0 |
//! | 8 | 4 | length of the map |
//! | 12 | 16 | checksum of the map ([`Checksum`]) |
//! | 28 | 4 | CRC-32 (IEEE) of bytes 0 … 27 |

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::cbor;
use crate::checksum::{Checksum, Running};
use crate::clock::WallMs;
use crate::header::{self, HEADER_LEN, Header};
use crate::id::{AgentId, Epoch, Seq};
use crate::lang::Lang;
use crate::stream::Stream;
use crate::wire::{Gap, SeqRange};

/// First bytes of a mark.
pub const MAGIC: [u8; 4] = *b"SccX";

/// Version that this program writes and reads.
pub const VERSION: u8 = 1;

/// Length of a mark without its map, bytes.
const MARK_LEN: usize = 32;

/// Longest map of a mark, bytes: a hundred thousand gaps.
const MAX_MAP: u32 = 16 << 20;

/// Largest number that an export may name: the ledger's integers are signed.
const MAX_NEXT: Seq = i64::MAX.cast_unsigned();

/// What the file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Whose records these are.
    pub agent: AgentId,
    /// When the file was made, by the clock of the machine that made it.
    pub made_ms: WallMs,
    /// Version of the program that made it.
    pub version: String,
}

/// What the card knew of one lane beside its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneFacts {
    /// The epoch.
    pub epoch: Epoch,
    /// The stream.
    pub stream: Stream,
    /// The number that the next record would have got.
    pub next: Seq,
    /// What the hub had acknowledged, as far as the card knew.
    pub acked: Vec<SeqRange>,
    /// Numbers that are not in the file, with the reason; with its records they cover 1 … next − 1.
    pub gaps: Vec<Gap>,
}

/// What must have been read by the time that this comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Every lane that has a record in the file, or a gap.
    pub lanes: Vec<LaneFacts>,
    /// Records in the file.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Checksum of every byte before this mark.
    pub sum: Checksum,
}

/// Why a file is not taken. Offsets are where the part begins that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is some other file.
    #[error("it is no export of a buffer")]
    Foreign,
    /// It is of a version that this program does not read.
    #[error("it has version {0}, this program reads {VERSION}")]
    Version(u8),
    /// It ends before its end mark.
    #[error("it was cut off at byte {0}")]
    CutOff(u64),
    /// A part is not what was written.
    #[error("it is damaged at byte {at} ({what})")]
    Damaged {
        /// Where.
        at: u64,
        /// What was found, in English, for the developer.
        what: String,
    },
}

impl ExportError {
    /// The error as a person at the command line reads it, and what to do.
    #[must_use]
    pub fn words(&self, lang: Lang) -> String {
        let id = match self {
            Self::Io(e) => format!("tidak dapat dibaca ({e})"),
            Self::Foreign => "bukan hasil `scc-agent buffer export`".into(),
            Self::Version(v) => {
                format!("versinya {v}, program ini membaca {VERSION}; perbarui program ini")
            }
            Self::CutOff(at) => format!("terpotong pada byte {at}; ekspor atau salin sekali lagi"),
            Self::Damaged { at, what } => {
                format!("rusak pada byte {at} ({what}); ekspor atau salin sekali lagi")
            }
        };
        let en = match self {
            Self::Io(_) | Self::Foreign => self.to_string(),
            Self::Version(_) => format!("{self}; update this program"),
            Self::CutOff(_) | Self::Damaged { .. } => format!("{self}; export or copy it again"),
        };
        lang.pick(&id, &en).to_owned()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Begin,
    End,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::End => 2,
        }
    }
}

fn mark<T: Serialize>(kind: Kind, map: &T) -> io::Result<Vec<u8>> {
    let cbor = cbor::write(map);
    let len = u32::try_from(cbor.len()).ok().filter(|len| *len <= MAX_MAP);
    let len = len.ok_or_else(|| io::Error::other("there are too many gaps for one file"))?;
    let mut out = Vec::with_capacity(MARK_LEN + cbor.len());
    out.extend(MAGIC);
    out.extend([VERSION, kind.code(), 0, 0]);
    out.extend(len.to_le_bytes());
    out.extend(Checksum::of(&cbor).0);
    let crc = header::crc(&out);
    out.extend(crc);
    out.extend(cbor);
    Ok(out)
}

/// Writes an export; it is one only when [`end`](Self::end) has returned.
pub struct Writer<W> {
    to: W,
    running: Running,
    records: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What the system said.
    pub fn begin(mut to: W, begin: &Begin) -> io::Result<Self> {
        let mark = mark(Kind::Begin, begin)?;
        let mut running = Running::new();
        running.update(&mark);
        to.write_all(&mark)?;
        Ok(Self {
            to,
            running,
            records: 0,
            bytes: 0,
        })
    }

    /// Adds a record whose body has been found to match its header.
    ///
    /// # Errors
    /// What the system said.
    pub fn record(&mut self, header: &Header, body: &[u8]) -> io::Result<()> {
        let head = header.encode();
        for piece in [head.as_slice(), body] {
            self.running.update(piece);
            self.to.write_all(piece)?;
        }
        self.records += 1;
        self.bytes += u64::from(header.len);
        Ok(())
    }

    /// Ends the file; what it says at its end, and where it was written to, for the caller to make
    /// durable.
    ///
    /// # Errors
    /// What the system said.
    pub fn end(mut self, lanes: Vec<LaneFacts>) -> io::Result<(End, W)> {
        let end = End {
            lanes,
            records: self.records,
            bytes: self.bytes,
            sum: self.running.finish(),
        };
        self.to.write_all(&mark(Kind::End, &end)?)?;
        self.to.flush()?;
        Ok((end, self.to))
    }
}

/// The next thing in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A record whose body matches its header.
    Record(Header, Vec<u8>),
    /// The end; all that came before it is as it was written.
    End(End),
}

/// Reads an export from the front to the back.
pub struct Reader<R> {
    from: R,
    at: u64,
    running: Running,
    records: u64,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    /// [`ExportError`]; [`ExportError::Foreign`] if it is some other file.
    pub fn open(from: R) -> Result<(Begin, Self), ExportError> {
        let mut reader = Self {
            from,
            at: 0,
            running: Running::new(),
            records: 0,
            bytes: 0,
        };
        let mut magic = [0; 4];
        match reader.take(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(ExportError::Io(e)) => return Err(ExportError::Io(e)),
            _ => return Err(ExportError::Foreign),
        }
        let begin = reader.mark(Kind::Begin, None)?;
        Ok((begin, reader))
    }

    /// The next record, or the end.
    ///
    /// # Errors
    /// [`ExportError`]; then nothing more can be read.
    pub fn step(&mut self) -> Result<Item, ExportError> {
        let at = self.at;
        let before = self.running.clone();
        let mut magic = [0; 4];
        self.take(&mut magic)?;
        if magic == header::MAGIC {
            return self.record(at);
        }
        if magic != MAGIC {
            return Err(damaged(at, "neither a record nor the end"));
        }
        let end: End = self.mark(Kind::End, Some(at))?;
        if (end.records, end.bytes, end.sum) != (self.records, self.bytes, before.finish()) {
            return Err(damaged(at, "its counts are others than what was read"));
        }
        end.lanes.iter().try_for_each(|lane| sane(lane, at))?;
        let mut more = [0];
        loop {
            match self.from.read(&mut more) {
                Ok(0) => return Ok(Item::End(end)),
                Ok(_) => return Err(damaged(self.at, "something follows the end")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn record(&mut self, at: u64) -> Result<Item, ExportError> {
        let mut head = [0; HEADER_LEN];
        head[..4].copy_from_slice(&header::MAGIC);
        self.take(&mut head[4..])?;
        let header = Header::decode(&head).map_err(|e| damaged(at, e.to_string()))?;
        if header.seq >= MAX_NEXT {
            return Err(damaged(at, "a number out of range"));
        }
        let body = self.bytes(header.len)?;
        if Checksum::of(&body) != header.sum {
            return Err(damaged(at, "a body does not match its checksum"));
        }
        self.records += 1;
        self.bytes += u64::from(header.len);
        Ok(Item::Record(header, body))
    }

    /// The mark whose magic has just been read.
    fn mark<T: DeserializeOwned>(&mut self, kind: Kind, at: Option<u64>) -> Result<T, ExportError> {
        let at = at.unwrap_or(0);
        let mut head = [0; MARK_LEN];
        head[..4].copy_from_slice(&MAGIC);
        self.take(&mut head[4..])?;
        let (sealed, crc) = head.split_at(MARK_LEN - 4);
        if header::crc(sealed) != crc {
            return Err(damaged(at, "a mark does not match its checksum"));
        }
        if head[4] != VERSION {
            return Err(ExportError::Version(head[4]));
        }
        let mut len = [0; 4];
        len.copy_from_slice(&head[8..12]);
        let len = u32::from_le_bytes(len);
        if head[5] != kind.code() || len > MAX_MAP {
            return Err(damaged(at, "a mark that does not belong here"));
        }
        let map = self.bytes(len)?;
        if Checksum::of(&map).0 != head[12..28] {
            return Err(damaged(at, "a map does not match its checksum"));
        }
        cbor::read(&map).map_err(|why| damaged(at, why))
    }

    /// So many bytes; their number has been checked, and still no more is allocated than there is.
    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, ExportError> {
        let mut bytes = Vec::new();
        let read = (&mut self.from)
            .take(u64::from(len))
            .read_to_end(&mut bytes)?;
        self.at += read as u64;
        self.running.update(&bytes);
        if read as u64 == u64::from(len) {
            Ok(bytes)
        } else {
            Err(ExportError::CutOff(self.at))
        }
    }

    fn take(&mut self, into: &mut [u8]) -> Result<(), ExportError> {
        match self.from.read_exact(into) {
            Ok(()) => {
                self.at += into.len() as u64;
                self.running.update(into);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(ExportError::CutOff(self.at)),
            Err(e) => Err(e.into()),
        }
    }
}

fn damaged(at: u64, what: impl Into<String>) -> ExportError {
    let what = what.into();
    ExportError::Damaged { at, what }
}

/// Whether what is said of a lane can be so.
fn sane(lane: &LaneFacts, at: u64) -> Result<(), ExportError> {
    let within = |range: &SeqRange| range.first > 0 && !range.is_empty() && range.last < lane.next;
    let of_it = |gap: &Gap| (gap.epoch, gap.stream) == (lane.epoch, lane.stream);
    let right = (1..=MAX_NEXT).contains(&lane.next)
        && lane.acked.iter().all(within)
        && lane.gaps.iter().all(|gap| of_it(gap) && within(&gap.range));
    right
        .then_some(())
        .ok_or_else(|| damaged(at, "what is said of a lane cannot be"))
}

/// Reads a whole file and believes it only if all of it is as it was written; what it says at both
/// ends.
///
/// # Errors
/// [`ExportError`]; then nothing of the file is to be used.
pub fn verify(from: impl Read) -> Result<(Begin, End), ExportError> {
    let (begin, mut reader) = Reader::open(from)?;
    let mut last: BTreeMap<(Epoch, Stream), Seq> = BTreeMap::new();
    loop {
        match reader.step()? {
            Item::Record(header, _) => {
                let seq = last.entry((header.epoch, header.stream)).or_default();
                *seq = header.seq.max(*seq);
            }
            Item::End(end) => {
                for lane in &end.lanes {
                    if last
                        .remove(&(lane.epoch, lane.stream))
                        .is_some_and(|seq| seq >= lane.next)
                    {
                        return Err(damaged(reader.at, "a record is beyond its lane's end"));
                    }
                }
                if last.is_empty() {
                    return Ok((begin, end));
                }
                return Err(damaged(reader.at, "a lane is missing at the end"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::wire::GapReason;
    use proptest::prelude::*;

    fn record(seq: Seq, body: &[u8]) -> Header {
        Header {
            stream: Stream::Attendance,
            epoch: Epoch(7),
            seq,
            stamp: ManualClock::at(5).stamp(),
            acked: 1,
            len: u32::try_from(body.len()).unwrap(),
            sum: Checksum::of(body),
        }
    }

    fn facts(next: Seq) -> LaneFacts {
        let range = SeqRange { first: 1, last: 1 };
        LaneFacts {
            epoch: Epoch(7),
            stream: Stream::Attendance,
            next,
            acked: vec![range],
            gaps: vec![Gap {
                epoch: Epoch(7),
                stream: Stream::Attendance,
                range,
                reason: GapReason::EvictedAfterAck,
                at_ms: 9,
            }],
        }
    }

    fn begin() -> Begin {
        Begin {
            agent: AgentId::new("rsud").unwrap(),
            made_ms: 1,
            version: "1.2.3".into(),
        }
    }

    fn written(next: Seq) -> (Vec<u8>, End) {
        let mut writer = Writer::begin(Vec::new(), &begin()).unwrap();
        for (seq, body) in [(2, b"satu".as_slice()), (3, b""), (4, &[9; 300])] {
            writer.record(&record(seq, body), body).unwrap();
        }
        let (end, bytes) = writer.end(vec![facts(next)]).unwrap();
        (bytes, end)
    }

    #[test]
    fn what_was_written_is_read_and_the_counts_are_those_of_the_records() {
        let (bytes, end) = written(5);
        assert_eq!((end.records, end.bytes), (3, 304));
        assert_eq!(verify(bytes.as_slice()).unwrap(), (begin(), end.clone()));
        let (_, mut reader) = Reader::open(bytes.as_slice()).unwrap();
        let first = reader.step().unwrap();
        assert_eq!(first, Item::Record(record(2, b"satu"), b"satu".to_vec()));
        reader.step().unwrap();
        reader.step().unwrap();
        assert_eq!(reader.step().unwrap(), Item::End(end));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_recognised() {
        let (bytes, _) = written(5);
        for len in 0..bytes.len() {
            let error = verify(&bytes[..len]).unwrap_err();
            let expected = match error {
                ExportError::Foreign => len < 4,
                ExportError::CutOff(_) => len >= 4,
                _ => false,
            };
            assert!(expected, "{len}: {error}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_byte_too_many_is_noticed() {
        let (good, _) = written(5);
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(verify(bad.as_slice()).is_err(), "byte {at} bit {bit}");
            }
        }
        let mut more = good;
        more.push(0);
        assert!(verify(more.as_slice()).is_err());
    }

    #[test]
    fn records_taken_out_or_swapped_between_files_are_noticed() {
        // each part is whole by itself; only the end mark knows that one is missing
        let (bytes, _) = written(5);
        let second = 32 + {
            let mut len = [0; 4];
            len.copy_from_slice(&bytes[8..12]);
            usize::try_from(u32::from_le_bytes(len)).unwrap()
        };
        let third = second + HEADER_LEN + 4;
        let without = [&bytes[..second], &bytes[third..]].concat();
        let error = verify(without.as_slice()).unwrap_err();
        assert!(matches!(error, ExportError::Damaged { .. }), "{error}");
    }

    #[test]
    fn what_is_said_of_a_lane_must_fit_its_records() {
        for next in [0, 1, 4, u64::MAX] {
            let (bytes, _) = written(next);
            let error = verify(bytes.as_slice()).unwrap_err();
            assert!(matches!(error, ExportError::Damaged { .. }), "{next}");
        }
    }

    #[test]
    fn another_file_and_a_version_of_the_future_are_told_apart() {
        for foreign in [b"".as_slice(), b"PK\x03\x04...."] {
            let error = verify(foreign).unwrap_err();
            assert!(matches!(error, ExportError::Foreign), "{error}");
        }
        let (mut bytes, _) = written(5);
        bytes[4] = 9;
        let crc = header::crc(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc);
        assert!(matches!(
            verify(bytes.as_slice()),
            Err(ExportError::Version(9))
        ));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..500) {
            let (mut bytes, _) = written(5);
            bytes.truncate(at);
            bytes.extend(tail);
            let _ = verify(bytes.as_slice());
        }
    }
}
