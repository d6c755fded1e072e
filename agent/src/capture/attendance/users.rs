//! The user table (zk.md §11f), read for one purpose: old terminals log an internal number, and
//! only this table says which user id a person types.
//!
//! A user record holds a password, a name and a card number. None of them leaves this file: the
//! parser copies internal number and user id and nothing else, and the bytes it was given are not
//! kept by its caller.

use std::collections::HashMap;

use super::frame::{text, u16_at, u32_at};

/// Internal number → user id.
pub type Users = HashMap<u16, String>;

/// Reads the records of the user table. `count` is the terminal's own number of users, which tells
/// the two strides apart where both divide the length. `None` if the table has neither stride.
#[must_use]
pub fn parse(records: &[u8], count: Option<u32>) -> Option<Users> {
    if records.is_empty() {
        return Some(Users::new());
    }
    let counted = count
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0 && records.len().is_multiple_of(*n))
        .map(|n| records.len() / n);
    let stride = match counted {
        Some(stride @ (28 | 72)) => stride,
        // no counter, or the table changed since: the stride under which every user has an id
        _ => [72, 28].into_iter().find(|stride| {
            records.len().is_multiple_of(*stride)
                && records.chunks_exact(*stride).all(|r| user(r).is_some())
        })?,
    };
    Some(records.chunks_exact(stride).filter_map(user).collect())
}

fn user(record: &[u8]) -> Option<(u16, String)> {
    let uid = u16_at(record, 0)?;
    let id = if record.len() == 72 {
        text(record.get(48..72)?)
    } else {
        u32_at(record, 24)?.to_string()
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
        let wide: Vec<u8> = (1..=7).flat_map(|uid| wide(uid, "77")).collect();
        assert_eq!(parse(&wide, Some(7)).unwrap().len(), 7);
        assert_eq!(parse(&wide, None).unwrap().len(), 7);
        assert_eq!(parse(&wide[..71], Some(1)), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), count: Option<u32>) {
            let _ = parse(&bytes, count);
        }
    }
}
