//! Live attendance events (zk.md §12). An event is a hint that is worth showing at once; the log
//! is the truth. What is not plausible is no punch, only a reason to read the log.

use std::borrow::Cow;

use super::frame::{u16_at, u32_at};
use super::layout::{Record, Who, plausible, user_text};
use super::time::{LocalS, from_event};

/// The code of attendance events, in the session field.
pub const ATTENDANCE: u16 = 1;

/// Reads the data of an attendance event. `None` for a length or a content that is not known.
/// Bytes behind the known ones are not interpreted. `uid_only`: this terminal's log names people by
/// internal number, so its short events do too.
#[must_use]
pub fn decode(data: &[u8], newest: LocalS, uid_only: bool) -> Option<Record<'_>> {
    let short = |number: u32| match u16::try_from(number) {
        Ok(uid) if uid_only => Who::Uid(uid),
        _ => Who::User(Cow::Owned(number.to_string())),
    };
    let (who, verify_at) = match data.len() {
        10 | 14 => (short(u32::from(u16_at(data, 0)?)), 2),
        12 => (short(u32_at(data, 0)?), 4),
        32.. => (Who::User(user_text(data.get(..24)?)?.into()), 24),
        _ => return None,
    };
    let [verify, state, time @ ..] = *data.get(verify_at..)?.first_chunk::<8>()?;
    let local_s = from_event(time)?;
    plausible(local_s, state, verify, newest).then_some(Record {
        who,
        local_s,
        state,
        verify,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEWEST: LocalS = 848_966_400;
    const TIME: [u8; 6] = [0x12, 0x0B, 0x1D, 0x0C, 0x37, 0x03];

    fn long(user: &str, verify: u8, tail: usize) -> Vec<u8> {
        let mut data = vec![0; 24];
        data[..user.len()].copy_from_slice(user.as_bytes());
        data.extend([verify, 0]);
        data.extend(TIME);
        data.extend(vec![0xAB; tail]);
        data
    }

    #[test]
    fn captured_events_and_every_known_length() {
        for tail in [0, 4, 5, 20, 33] {
            let data = long("1140064", 15, tail);
            let record = decode(&data, NEWEST, false).unwrap();
            assert_eq!(record.who, Who::User("1140064".into()), "{tail}");
            assert_eq!(Some(record.local_s), from_event(TIME));
            assert_eq!((record.verify, record.state), (15, 0));
        }
        let short = [&[7, 0, 1, 5][..], &TIME].concat();
        assert_eq!(decode(&short, NEWEST, true).unwrap().who, Who::Uid(7));
        assert_eq!(decode(&short, NEWEST, true).unwrap().state, 5);
        assert_eq!(
            decode(&[&short[..], &[0; 4]].concat(), NEWEST, false)
                .unwrap()
                .who,
            Who::User("7".into())
        );
        let twelve = [&[0x40, 0xE2, 1, 0, 1, 0][..], &TIME].concat();
        assert_eq!(
            decode(&twelve, NEWEST, false).unwrap().who,
            Who::User("123456".into())
        );
    }

    #[test]
    fn what_is_not_plausible_is_no_punch() {
        assert_eq!(decode(&[0; 32], NEWEST, false), None);
        assert_eq!(decode(&[1; 11], NEWEST, false), None);
        assert_eq!(decode(&long("7", 222, 0), NEWEST, false), None);
        assert_eq!(decode(&long("7", 1, 0), 0, false), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), uid: bool) {
            let _ = decode(&bytes, NEWEST, uid);
        }
    }
}
