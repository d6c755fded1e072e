//! The stand-in's log: who punched when, in the bytes of each record layout.

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, ToSpan};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use super::wire::encode;

/// A record layout of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// 8 bytes, dialect A.
    #[value(name = "8a")]
    EightA,
    /// 8 bytes, dialect B.
    #[value(name = "8b")]
    EightB,
    /// 16 bytes.
    #[value(name = "16")]
    Sixteen,
    /// 16 bytes, verify before state.
    #[value(name = "16s")]
    SixteenSwapped,
    /// 40 bytes.
    #[value(name = "40")]
    Forty,
    /// 40 bytes, the marker once before the first.
    #[value(name = "40m")]
    FortyMarked,
    /// 49 bytes, the marker before each.
    #[value(name = "49")]
    FortyNine,
    /// 49 bytes, the marker behind each.
    #[value(name = "49t")]
    FortyNineTail,
    /// 52 bytes: a wide record.
    #[value(name = "52")]
    Wide,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::EightA,
        Self::EightB,
        Self::Sixteen,
        Self::SixteenSwapped,
        Self::Forty,
        Self::FortyMarked,
        Self::FortyNine,
        Self::FortyNineTail,
        Self::Wide,
    ];
}

const MARKER: [u8; 9] = *b"\xff255\0\0\0\0\0";

/// One punch, as an oracle wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Punched {
    /// The person's number.
    pub user: u32,
    /// The terminal's wall, seconds since 2000-01-01 00:00, true calendar.
    pub local_s: i64,
    /// In/out key.
    pub state: u8,
    /// How verified.
    pub verify: u8,
}

impl Punched {
    pub(super) fn at(&self) -> DateTime {
        date(2000, 1, 1)
            .at(0, 0, 0, 0)
            .checked_add(SignedDuration::from_secs(self.local_s))
            .expect("a time of this century")
    }

    /// The bytes of a live event.
    pub(super) fn event(&self, layout: Layout, tail: usize) -> Vec<u8> {
        let at = self.at();
        let n = |v: i8| u8::try_from(v).expect("calendar fields are positive");
        let mut data = match layout {
            Layout::EightA | Layout::EightB => uid(self.user).to_le_bytes().to_vec(),
            Layout::Sixteen | Layout::SixteenSwapped => self.user.to_le_bytes().to_vec(),
            _ => padded(&self.user.to_string(), 24),
        };
        data.extend([self.verify, self.state]);
        data.push(u8::try_from(at.year() - 2000).expect("this century"));
        data.extend([at.month(), at.day(), at.hour(), at.minute(), at.second()].map(n));
        data.extend(vec![0xA5; tail]);
        data
    }

    fn record(&self, layout: Layout, serial: usize) -> Vec<u8> {
        let time = encode(self.at()).to_le_bytes();
        match layout {
            Layout::EightA => [
                &uid(self.user).to_le_bytes()[..],
                &[self.verify],
                &time,
                &[self.state],
            ]
            .concat(),
            Layout::EightB => [&uid(self.user).to_le_bytes()[..], &[0x28, 0], &time].concat(),
            Layout::Sixteen => [
                &self.user.to_le_bytes()[..],
                &time,
                &[self.state, self.verify],
                &[0; 6],
            ]
            .concat(),
            Layout::SixteenSwapped => [
                &self.user.to_le_bytes()[..],
                &time,
                &[self.verify, self.state],
                &[0; 6],
            ]
            .concat(),
            Layout::Forty | Layout::FortyMarked => self.forty(serial),
            Layout::FortyNine => [&MARKER[..], &self.forty(serial)].concat(),
            Layout::FortyNineTail => [&self.forty(serial)[..], &MARKER].concat(),
            Layout::Wide => [&self.forty(serial)[..], &[0x5A; 12]].concat(),
        }
    }

    fn forty(&self, serial: usize) -> Vec<u8> {
        let low = u16::try_from(serial % 65_536).expect("a rest of 65536");
        let mut r = low.to_le_bytes().to_vec();
        r.extend(padded(&self.user.to_string(), 24));
        r.push(self.verify);
        r.extend(encode(self.at()).to_le_bytes());
        r.push(self.state);
        r.extend([0, 0, 0, 0, 0xFF, 0, 0, 0]);
        r
    }
}

fn padded(text: &str, to: usize) -> Vec<u8> {
    let mut field = text.as_bytes().to_vec();
    field.resize(to, 0);
    field
}

/// The internal number of a person: old terminals have room for 65,535.
pub(super) fn uid(user: u32) -> u16 {
    u16::try_from(user % 65_521).expect("a rest below 65536")
}

/// The attendance table: its length, then the records.
pub(super) fn table(punches: &[Punched], layout: Layout) -> Vec<u8> {
    let mut records = Vec::new();
    if layout == Layout::FortyMarked && !punches.is_empty() {
        records.extend(MARKER);
    }
    for (i, punch) in punches.iter().enumerate() {
        records.extend(punch.record(layout, i));
    }
    with_length(records)
}

/// The user table of an old terminal, 28 bytes a user or, before firmware 5.04, 16, with what must never leave the site.
pub(super) fn users(punches: &[Punched], before_5_04: bool) -> Vec<u8> {
    let known: std::collections::BTreeSet<u32> = punches.iter().map(|p| p.user).collect();
    let mut records = Vec::new();
    for user in known {
        records.extend(uid(user).to_le_bytes());
        records.push(0);
        records.extend(SECRET_PASSWORD);
        records.extend(padded("", 8));
        if !before_5_04 {
            records.extend([0; 8]);
            records.extend(user.to_le_bytes());
        }
    }
    with_length(records)
}

/// Stands in every user record; a test looks for it where it must not be.
pub const SECRET_PASSWORD: [u8; 5] = *b"R4hs!";

fn with_length(records: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(records.len()).expect("a short table");
    [&length.to_le_bytes()[..], &records].concat()
}

/// A realistic log of exactly `records` punches that ends at `now`: up to forty people, in between 07:00 and
/// 07:45, out between 16:00 and 16:40, on working days.
#[must_use]
pub(super) fn days(seed: u64, records: usize, now_s: i64) -> Vec<Punched> {
    let mut rng = StdRng::seed_from_u64(seed);
    let people: Vec<u32> = (0..40).map(|_| rng.random_range(10_000..60_000)).collect();
    let mut day = date(2000, 1, 1)
        .checked_add((now_s.div_euclid(86_400)).days())
        .expect("a day of this century");
    let mut punches = Vec::new();
    while punches.len() < records {
        let midnight = day.duration_since(date(2000, 1, 1)).as_secs();
        if day.weekday().to_monday_one_offset() <= 5 {
            for &user in &people {
                let verify = if rng.random_bool(0.7) { 1 } else { 15 };
                let mut punch = |from: i64, to: i64, state| {
                    let local_s = midnight + rng.random_range(from..to);
                    if local_s <= now_s {
                        punches.push(Punched {
                            user,
                            local_s,
                            state,
                            verify,
                        });
                    }
                };
                punch(7 * 3_600, 7 * 3_600 + 2_700, 0);
                punch(16 * 3_600, 16 * 3_600 + 2_400, 1);
            }
        }
        day = day.yesterday().expect("a day of this century");
    }
    punches.sort_by_key(|p| p.local_s);
    punches.drain(..punches.len() - records);
    punches
}
