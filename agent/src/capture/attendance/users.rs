//! The user table (zk.md §11f), read for one purpose: old terminals log an internal number, and
//! only this table says which user id a person types.
//!
//! A user record holds a password, a name and a card number. None of them leaves this file: the
//! parser copies internal number and user id and nothing else, and the bytes it was given are not
//! kept by its caller.

use std::collections::{HashMap, HashSet};

use super::frame::{text, u16_at, u32_at};

/// Internal number → user id.
pub type Users = HashMap<u16, String>;

/// Lengths of a user record, the likeliest first; 16 is of firmware before 5.04.
const STRIDES: [usize; 3] = [72, 28, 16];

/// Reads the records of the user table. `count` is the terminal's own number of users, which tells
/// the strides apart where several divide the length. `None` if the table has none of them.
#[must_use]
pub fn parse(records: &[u8], count: Option<u32>) -> Option<Users> {
    if records.is_empty() {
        return Some(Users::new());
    }
    let counted = count
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0 && records.len().is_multiple_of(*n))
        .map(|n| records.len() / n)
        .filter(|stride| STRIDES.contains(stride));
    let stride = match counted {
        Some(stride) => stride,
        // no counter, or the table changed since: the stride under which all are plausible users
        None => STRIDES
            .into_iter()
            .find(|stride| plausible(records, *stride))?,
    };
    Some(records.chunks_exact(stride).filter_map(user).collect())
}

/// Whether these can be users of this length: each with a number of his own, a known kind of
/// privilege and an id.
fn plausible(records: &[u8], stride: usize) -> bool {
    let mut known = HashSet::new();
    records.len().is_multiple_of(stride)
        && records.chunks_exact(stride).all(|record| {
            let privileged = record.get(2).is_some_and(|bits| *bits < 16);
            user(record).is_some_and(|(uid, _)| privileged && uid != 0 && known.insert(uid))
        })
}

fn user(record: &[u8]) -> Option<(u16, String)> {
    let uid = u16_at(record, 0)?;
    let id = match record.len() {
        72 => text(record.get(48..72)?),
        28 => u32_at(record, 24)?.to_string(),
        // the number that people type is the internal one
        _ => uid.to_string(),
    };
    (!id.is_empty() && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ')).then_some((uid, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide(uid: u16, id: &str) -> Vec<u8> {
        let mut r = vec![0; 72];
        r[..2].copy_from_slice(&uid.to_le_bytes());
        r[2] = 6;
        r[3..9].copy_from_slice(b"123456");
        r[11..16].copy_from_slice(b"Nuevo");
        r[48..48 + id.len()].copy_from_slice(id.as_bytes());
        r
    }

    #[test]
    fn the_captured_user_gives_his_id_and_nothing_else() {
        let users = parse(&wide(14, "11224488"), Some(1)).unwrap();
        assert_eq!(users, Users::from([(14, "11224488".into())]));
        assert!(!format!("{users:?}").contains("123456"));
    }

    #[test]
    fn the_counter_tells_the_strides_apart() {
        // 504 bytes are 18 users of 28 or 7 of 72
        let mut narrow = Vec::new();
        for uid in 1..=18u16 {
            let mut r = [0; 28];
            r[..2].copy_from_slice(&uid.to_le_bytes());
            r[24..].copy_from_slice(&(u32::from(uid) + 100).to_le_bytes());
            narrow.extend(r);
        }
        let users = parse(&narrow, Some(18)).unwrap();
        assert_eq!((users.len(), users[&18].as_str()), (18, "118"));
        let seven: Vec<u8> = (1..=7).flat_map(|uid| wide(uid, "77")).collect();
        assert_eq!(parse(&seven, Some(7)).unwrap().len(), 7);
        assert_eq!(parse(&seven, None).unwrap().len(), 7);
        assert_eq!(parse(&wide(14, "7")[..71], Some(1)), None);
    }

    #[test]
    fn users_of_old_firmware_are_known_by_their_number_with_and_without_a_counter() {
        let old = |n: u16| {
            let mut table = Vec::new();
            for uid in 1..=n {
                let mut r = [0; 16];
                r[..2].copy_from_slice(&(uid * 7).to_le_bytes());
                r[3..8].copy_from_slice(b"R4hs!");
                r[8..11].copy_from_slice(b"Ani");
                table.extend(r);
            }
            table
        };
        // 63 users are 36 of 28 bytes and 14 of 72 as well
        for n in [1, 7, 9, 63] {
            let wanted: Users = (1..=n)
                .map(|uid| (uid * 7, (uid * 7).to_string()))
                .collect();
            let counted = parse(&old(n), Some(u32::from(n)));
            assert_eq!(counted.as_ref(), Some(&wanted), "{n}");
            assert_eq!(parse(&old(n), None), Some(wanted), "{n}, no counter");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), count: Option<u32>) {
            let _ = parse(&bytes, count);
        }
    }
}
