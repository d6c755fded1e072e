//! What may be said to a terminal, and nothing else (zk.md §4).
//!
//! [`Request`] is the allow-list as a type: there is no value of it that clears a log, writes a
//! user, reads a template, restarts, unlocks or disables. Adding a variant here is adding a command
//! to the allow-list, and the test below must then be told so.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{HEAD, MAGIC, checksum};

/// Reply codes of the terminal.
pub mod reply {
    /// Done; data may follow.
    pub const OK: u16 = 2000;
    /// The comm key is missing or wrong.
    pub const UNAUTH: u16 = 2005;
    /// Data will follow in DATA packets.
    pub const PREPARE: u16 = 1500;
    /// Data.
    pub const DATA: u16 = 1501;
    /// An event; no answer to anything.
    pub const EVENT: u16 = 500;
}

/// Options that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opt {
    /// The terminal's identity.
    SerialNumber,
    /// Its stand-in where a rebranded unit has no serial number.
    Mac,
    /// The model; may be empty.
    DeviceName,
    /// The board.
    Platform,
}

impl Opt {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SerialNumber => "~SerialNumber",
            Self::Mac => "MAC",
            Self::DeviceName => "~DeviceName",
            Self::Platform => "~Platform",
        }
    }
}

/// A table that is read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The attendance log.
    Attendance,
    /// The users, to turn internal numbers into user ids. Never the templates.
    Users,
}

/// Everything that this program can say to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Opens a session.
    Connect,
    /// Gives the scrambled comm key.
    Auth([u8; 4]),
    /// Ends the session.
    Exit,
    /// Firmware version.
    Version,
    /// One option.
    Option(Opt),
    /// The terminal's clock. It is never set from here.
    Time,
    /// The counters.
    Sizes,
    /// Prepares a table to be read by slices.
    Buffered(Table),
    /// One slice of what was prepared, bytes.
    Slice {
        /// Offset.
        start: u32,
        /// Length.
        count: u32,
    },
    /// Releases what was prepared.
    Free,
    /// Reads a table at once; for firmware that refuses [`Request::Buffered`].
    Direct(Table),
    /// Asks for attendance events.
    Listen,
    /// Confirms an event; goes out with reply id 0.
    Heard,
}

/// Finger templates are table 2, users table 5; only the latter can be named here.
const USERS: u8 = 5;

impl Request {
    /// The command code.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Connect => 1000,
            Self::Auth(_) => 1102,
            Self::Exit => 1001,
            Self::Version => 1100,
            Self::Option(_) => 11,
            Self::Time => 201,
            Self::Sizes => 50,
            Self::Buffered(_) => 1503,
            Self::Slice { .. } => 1504,
            Self::Free => 1502,
            Self::Direct(Table::Attendance) => 13,
            Self::Direct(Table::Users) => 9,
            Self::Listen => 500,
            Self::Heard => reply::OK,
        }
    }

    fn put_data(self, out: &mut BytesMut) {
        match self {
            Self::Connect
            | Self::Exit
            | Self::Version
            | Self::Time
            | Self::Sizes
            | Self::Free
            | Self::Direct(Table::Attendance)
            | Self::Heard => {}
            Self::Auth(token) => out.put_slice(&token),
            Self::Option(option) => {
                out.put_slice(option.name().as_bytes());
                out.put_u8(0);
            }
            Self::Buffered(Table::Attendance) => {
                out.put_slice(&[1, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            Self::Buffered(Table::Users) => {
                out.put_slice(&[1, 9, 0, USERS, 0, 0, 0, 0, 0, 0, 0]);
            }
            Self::Slice { start, count } => {
                out.put_u32_le(start);
                out.put_u32_le(count);
            }
            Self::Direct(Table::Users) => out.put_u8(USERS),
            Self::Listen => out.put_u32_le(1),
        }
    }

    /// The whole frame, prefix included.
    #[must_use]
    pub fn frame(self, session: u16, reply_id: u16) -> Bytes {
        let mut packet = BytesMut::with_capacity(64);
        packet.put_u16_le(self.code());
        packet.put_u16_le(0);
        packet.put_u16_le(session);
        packet.put_u16_le(reply_id);
        self.put_data(&mut packet);
        let sum = checksum(&packet).to_le_bytes();
        packet[2..4].copy_from_slice(&sum);
        let mut frame = BytesMut::with_capacity(HEAD + packet.len());
        frame.put_slice(&MAGIC);
        frame.put_u32_le(u32::try_from(packet.len()).expect("a request has few bytes"));
        frame.put_slice(&packet);
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The allow-list of zk.md §4, less 34, 1002, 1003 and 1500-1501 for which there is no use here; 2000
    /// confirms events.
    const ALLOWED: [u16; 14] = [
        9, 11, 13, 50, 201, 500, 1000, 1001, 1100, 1102, 1502, 1503, 1504, 2000,
    ];
    const NEVER: [u16; 24] = [
        7, 8, 10, 12, 14, 15, 18, 19, 20, 31, 33, 61, 87, 88, 110, 134, 202, 1003, 1004, 1005,
        1009, 1012, 1013, 1017,
    ];

    fn any_request() -> impl Strategy<Value = Request> {
        // a new variant fails to compile here until it has been added to the strategy
        let _ = |r: Request| match r {
            Request::Connect
            | Request::Auth(_)
            | Request::Exit
            | Request::Version
            | Request::Option(Opt::SerialNumber | Opt::Mac | Opt::DeviceName | Opt::Platform)
            | Request::Time
            | Request::Sizes
            | Request::Buffered(Table::Attendance | Table::Users)
            | Request::Slice { .. }
            | Request::Free
            | Request::Direct(Table::Attendance | Table::Users)
            | Request::Listen
            | Request::Heard => (),
        };
        prop_oneof![
            Just(Request::Connect),
            any::<[u8; 4]>().prop_map(Request::Auth),
            Just(Request::Exit),
            Just(Request::Version),
            Just(Request::Option(Opt::SerialNumber)),
            Just(Request::Option(Opt::Mac)),
            Just(Request::Option(Opt::DeviceName)),
            Just(Request::Option(Opt::Platform)),
            Just(Request::Time),
            Just(Request::Sizes),
            Just(Request::Buffered(Table::Attendance)),
            Just(Request::Buffered(Table::Users)),
            any::<(u32, u32)>().prop_map(|(start, count)| Request::Slice { start, count }),
            Just(Request::Free),
            Just(Request::Direct(Table::Attendance)),
            Just(Request::Direct(Table::Users)),
            Just(Request::Listen),
            Just(Request::Heard),
        ]
    }

    #[test]
    fn a_whole_session_of_the_sheet_byte_by_byte() {
        let hex = |text: &str| -> Vec<u8> {
            text.split_whitespace()
                .map(|b| u8::from_str_radix(b, 16).unwrap())
                .collect()
        };
        let s = 0x1F2E;
        let token = super::super::auth::scramble(1234, s);
        for (request, session, reply_id, bytes) in [
            (
                Request::Connect,
                0,
                0,
                "50 50 82 7D 08 00 00 00 E8 03 17 FC 00 00 00 00",
            ),
            (
                Request::Connect,
                0,
                1,
                "50 50 82 7D 08 00 00 00 E8 03 16 FC 00 00 01 00",
            ),
            (
                Request::Auth(token),
                s,
                1,
                "50 50 82 7D 0C 00 00 00 4E 04 0F 40 2E 1F 01 00 41 36 32 66",
            ),
            (
                Request::Version,
                s,
                2,
                "50 50 82 7D 08 00 00 00 4C 04 83 DC 2E 1F 02 00",
            ),
            (
                Request::Option(Opt::SerialNumber),
                s,
                3,
                "50 50 82 7D 16 00 00 00 0B 00 C0 97 2E 1F 03 00 7E 53 65 72 69 61 6C 4E 75 6D 62 65 72 00",
            ),
            (
                Request::Option(Opt::Platform),
                0x8DF3,
                12,
                "50 50 82 7D 12 00 00 00 0B 00 B9 E6 F3 8D 0C 00 7E 50 6C 61 74 66 6F 72 6D 00",
            ),
            (
                Request::Time,
                s,
                4,
                "50 50 82 7D 08 00 00 00 C9 00 04 E0 2E 1F 04 00",
            ),
            (
                Request::Sizes,
                s,
                5,
                "50 50 82 7D 08 00 00 00 32 00 9A E0 2E 1F 05 00",
            ),
            (
                Request::Buffered(Table::Attendance),
                s,
                6,
                "50 50 82 7D 13 00 00 00 DF 05 EB CD 2E 1F 06 00 01 0D 00 00 00 00 00 00 00 00 00",
            ),
            (
                Request::Slice {
                    start: 0,
                    count: 84,
                },
                s,
                7,
                "50 50 82 7D 10 00 00 00 E0 05 96 DA 2E 1F 07 00 00 00 00 00 54 00 00 00",
            ),
            (
                Request::Free,
                s,
                8,
                "50 50 82 7D 08 00 00 00 DE 05 EB DA 2E 1F 08 00",
            ),
            (
                Request::Listen,
                s,
                9,
                "50 50 82 7D 0C 00 00 00 F4 01 D3 DE 2E 1F 09 00 01 00 00 00",
            ),
            (
                Request::Exit,
                s,
                10,
                "50 50 82 7D 08 00 00 00 E9 03 DE DC 2E 1F 0A 00",
            ),
            (
                Request::Direct(Table::Attendance),
                0x6BA0,
                2,
                "50 50 82 7D 08 00 00 00 0D 00 50 94 A0 6B 02 00",
            ),
            (
                Request::Exit,
                0x6BA0,
                3,
                "50 50 82 7D 08 00 00 00 E9 03 73 90 A0 6B 03 00",
            ),
        ] {
            assert_eq!(
                &request.frame(session, reply_id)[..],
                hex(bytes),
                "{request:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]
        #[test]
        fn nothing_but_the_allow_list_can_be_said(request in any_request(), session: u16, reply_id: u16) {
            let frame = request.frame(session, reply_id);
            prop_assert_eq!(&frame[..4], &MAGIC);
            let code = u16::from_le_bytes([frame[8], frame[9]]);
            prop_assert!(ALLOWED.contains(&code) && !NEVER.contains(&code), "command {code}");
            let data = &frame[16..];
            match code {
                1503 => {
                    let inner = u16::from_le_bytes([data[1], data[2]]);
                    let table = u32::from_le_bytes([data[3], data[4], data[5], data[6]]);
                    prop_assert!((inner, table) == (13, 0) || (inner, table) == (9, 5));
                }
                9 => prop_assert_eq!(data, &[5][..]),
                11 => prop_assert!(!data.contains(&b'='), "an option is asked, never written"),
                500 => prop_assert_eq!(data, &[1, 0, 0, 0][..]),
                _ => {}
            }
        }
    }
}
