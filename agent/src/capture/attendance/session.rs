//! One session with a terminal, over any byte stream (zk.md §3, §5, §9, §10).
//!
//! Promises: an answer is matched to its request by reply id alone, as terminals are careless with
//! the session id; events may come at any moment and are confirmed at once; a table is returned
//! whole or not at all; every wait ends. All state lives in [`Session`], so any of its futures may
//! be dropped at any await and the session can still be [left](Session::exit) properly.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::auth::scramble;
use super::command::{Opt, Request, Table, reply};
use super::event::ATTENDANCE;
use super::frame::{FrameError, Framer, Packet, text, u32_at};
use super::pace::Pace;

/// Largest slice of the buffered read on TCP, bytes.
const SLICE: u32 = 65_472;
/// Tries per slice.
const TRIES: u32 = 3;
/// Largest table that is believed: 200,000 records of 80 bytes.
const MAX_TABLE: u32 = 16 << 20;
/// Events that may wait for their consumer; more are left to the log.
pub const EVENT_QUEUE: usize = 256;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The terminal closed the connection.
    #[error("the terminal closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// No answer in time.
    #[error("no answer to {0} in time")]
    Silent(&'static str),
    /// CONNECT was refused: another program holds the session.
    #[error("the terminal refuses a session (code {0})")]
    Busy(u16),
    /// The comm key was refused.
    #[error("the terminal refuses the comm key")]
    KeyRefused,
    /// A command was refused.
    #[error("the terminal refuses {what} (code {code})")]
    Refused {
        /// The command.
        what: &'static str,
        /// Its reply code.
        code: u16,
    },
    /// The stream is not one of frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A table did not come whole; what came has been thrown away.
    #[error("{got} of {of} bytes came: {why}")]
    Partial {
        /// Bytes that came.
        got: usize,
        /// Bytes announced; 0 when it broke before that.
        of: u32,
        /// What broke it.
        why: String,
    },
}

/// The counters that are of use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Users.
    pub users: Option<u32>,
    /// Attendance records.
    pub records: Option<u32>,
}

impl Sizes {
    /// Reads the answer to [`Request::Sizes`]; what is not there is none, and an answer too short
    /// for the record counter has no counters.
    #[must_use]
    pub fn parse(data: &[u8]) -> Self {
        let at = |offset| u32_at(data, offset).filter(|n| i32::try_from(*n).is_ok());
        if data.len() < 36 {
            return Self::default();
        }
        Self {
            users: at(16),
            records: at(32),
        }
    }
}

enum Heard {
    Bytes,
    Event,
    Packet(Packet),
}

/// A session.
#[derive(Debug)]
pub struct Session<S> {
    stream: S,
    framer: Framer,
    out: BytesMut,
    id: u16,
    /// The reply id of the next request.
    next_reply: u16,
    /// The terminal has answered CONNECT and holds a slot for us.
    open: bool,
    events: mpsc::Sender<Bytes>,
    pace: Pace,
    /// 1503 was refused; remembered so that it is not tried at each read.
    direct_only: bool,
    bad_sums: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Wraps a fresh connection. The data of attendance events goes to `events`.
    pub fn new(stream: S, pace: Pace, events: mpsc::Sender<Bytes>) -> Self {
        Self {
            stream,
            framer: Framer::default(),
            out: BytesMut::new(),
            id: 0,
            next_reply: 0,
            open: false,
            events,
            pace,
            direct_only: false,
            bad_sums: 0,
        }
    }

    /// Opens the session, with the comm key if the terminal wants one.
    ///
    /// # Errors
    /// [`SessionError::KeyRefused`], [`SessionError::Busy`], or what broke.
    pub async fn open(&mut self, comm_key: u32) -> Result<(), SessionError> {
        let answer = self.call(Request::Connect, "CONNECT").await?;
        match answer.code {
            reply::OK => {
                self.open = true;
                self.id = answer.session;
                Ok(())
            }
            reply::UNAUTH => {
                self.open = true;
                self.id = answer.session;
                let token = scramble(comm_key, self.id);
                match self.call(Request::Auth(token), "AUTH").await?.code {
                    reply::OK => Ok(()),
                    _ => Err(SessionError::KeyRefused),
                }
            }
            code => Err(SessionError::Busy(code)),
        }
    }

    /// One option; none if the terminal lacks it.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn option(&mut self, option: Opt) -> Result<Option<String>, SessionError> {
        let answer = self.call(Request::Option(option), "an option").await?;
        if answer.code != reply::OK {
            return Ok(None);
        }
        let line = text(&answer.data);
        let value = line.split_once('=').map_or("", |(_, value)| value.trim());
        Ok((!value.is_empty()).then(|| value.to_owned()))
    }

    /// The firmware's version; none if it does not tell.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn version(&mut self) -> Result<Option<String>, SessionError> {
        let answer = self.call(Request::Version, "GET_VERSION").await?;
        let version = text(&answer.data);
        Ok((answer.code == reply::OK && !version.is_empty()).then_some(version))
    }

    /// The terminal's encoded time; none if it does not tell. Also the probe of a quiet session.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn time(&mut self) -> Result<Option<u32>, SessionError> {
        let answer = self
            .call_within(self.pace.probe, Request::Time, "GET_TIME")
            .await?;
        Ok(u32_at(&answer.data, 0).filter(|_| answer.code == reply::OK))
    }

    /// The counters.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn sizes(&mut self) -> Result<Sizes, SessionError> {
        let answer = self.call(Request::Sizes, "GET_FREE_SIZES").await?;
        Ok(if answer.code == reply::OK {
            Sizes::parse(&answer.data)
        } else {
            Sizes::default()
        })
    }

    /// Asks for attendance events. `false`: this firmware has none.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn listen(&mut self) -> Result<bool, SessionError> {
        Ok(self.call(Request::Listen, "REG_EVENT").await?.code == reply::OK)
    }

    /// Reads a table whole: by slices, or at once where the firmware refuses slices.
    ///
    /// # Errors
    /// [`SessionError::Partial`] if it did not come whole; then leave and begin a new session.
    pub async fn table(&mut self, table: Table) -> Result<Vec<u8>, SessionError> {
        let mut got = Vec::new();
        let mut of = 0;
        let patience = self.pace.table;
        let outcome = match timeout(patience, self.table_into(table, &mut got, &mut of)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SessionError::Silent("the whole table")),
        };
        match outcome {
            Ok(()) => Ok(got),
            Err(SessionError::Frame(error)) => Err(SessionError::Frame(error)),
            Err(why) => Err(SessionError::Partial {
                got: got.len(),
                of,
                why: why.to_string(),
            }),
        }
    }

    async fn table_into(
        &mut self,
        table: Table,
        got: &mut Vec<u8>,
        of: &mut u32,
    ) -> Result<(), SessionError> {
        self.free().await?;
        if !self.direct_only {
            let (id, first) = self.data_call(Request::Buffered(table)).await?;
            match first.code {
                reply::OK if first.data.len() < 5 => return self.free().await,
                reply::OK => {
                    *of = u32_at(&first.data, 1).unwrap_or(0);
                    self.slices(got, *of).await?;
                    return self.free().await;
                }
                reply::DATA | reply::PREPARE => {
                    *of = u32_at(&first.data, 0).unwrap_or(0);
                    self.collect(id, first, got).await?;
                    return self.free().await;
                }
                code => {
                    tracing::info!(
                        code,
                        "the terminal refuses the buffered read; reading directly"
                    );
                    self.direct_only = true;
                }
            }
        }
        let (id, first) = self.data_call(Request::Direct(table)).await?;
        self.collect(id, first, got).await?;
        self.free().await
    }

    async fn slices(&mut self, got: &mut Vec<u8>, of: u32) -> Result<(), SessionError> {
        believable(of)?;
        let mut start = 0;
        while start < of {
            let count = SLICE.min(of - start);
            let mut tries = 1;
            let slice = loop {
                match self.slice(start, count).await {
                    Ok(slice) => break slice,
                    Err(
                        SessionError::Silent(_)
                        | SessionError::Refused { .. }
                        | SessionError::Partial { .. },
                    ) if tries < TRIES => tries += 1,
                    Err(error) => return Err(error),
                }
            };
            got.extend_from_slice(&slice);
            start += count;
        }
        Ok(())
    }

    async fn slice(&mut self, start: u32, count: u32) -> Result<Vec<u8>, SessionError> {
        let (id, first) = self.data_call(Request::Slice { start, count }).await?;
        let mut slice = Vec::new();
        self.collect(id, first, &mut slice).await?;
        if usize::try_from(count) == Ok(slice.len()) {
            Ok(slice)
        } else {
            Err(SessionError::Partial {
                got: slice.len(),
                of: count,
                why: "the terminal ended the slice early".into(),
            })
        }
    }

    /// Gathers the data of one answer: one DATA, or PREPARE, DATA …, OK.
    async fn collect(
        &mut self,
        id: u16,
        first: Packet,
        got: &mut Vec<u8>,
    ) -> Result<(), SessionError> {
        let total = match first.code {
            reply::DATA => {
                got.extend_from_slice(&first.data);
                return Ok(());
            }
            reply::OK => return Ok(()),
            reply::PREPARE => u32_at(&first.data, 0).unwrap_or(0),
            code => {
                return Err(SessionError::Refused {
                    what: "the read",
                    code,
                });
            }
        };
        believable(total)?;
        let total_len = usize::try_from(total).unwrap_or(usize::MAX);
        let begun = got.len();
        let short = |got: usize, why: &str| SessionError::Partial {
            got,
            of: total,
            why: why.into(),
        };
        loop {
            let have = got.len() - begun;
            let next = self
                .answer(id, self.pace.data_first, self.pace.data_next, "data")
                .await;
            match next {
                Ok(packet) if packet.code == reply::DATA => {
                    if have + packet.data.len() > total_len {
                        return Err(short(have + packet.data.len(), "more than announced"));
                    }
                    got.extend_from_slice(&packet.data);
                }
                Ok(packet) if packet.code == reply::OK && have == total_len => return Ok(()),
                Ok(_) => return Err(short(have, "the terminal ended the data early")),
                // all of it is here; the closing OK is only manners
                Err(SessionError::Silent(_)) if have == total_len => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Releases what the terminal holds prepared, ours or a crashed reader's. The answer says
    /// nothing of use.
    async fn free(&mut self) -> Result<(), SessionError> {
        match self.call(Request::Free, "FREE_DATA").await {
            Ok(_) | Err(SessionError::Silent(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes in what the terminal says by itself, for ever. May be dropped at any time.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn pump(&mut self) -> Result<std::convert::Infallible, SessionError> {
        loop {
            self.hear().await?;
        }
    }

    /// Takes in what has already arrived.
    ///
    /// # Errors
    /// What broke the session.
    pub async fn pump_ready(&mut self) -> Result<(), SessionError> {
        match timeout(Duration::from_millis(1), self.pump()).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(never)) => match never {},
            Err(_) => Ok(()),
        }
    }

    /// Leaves, so that the terminal frees the session's slot; to be called on every path.
    pub async fn exit(mut self) {
        if self.bad_sums > 0 {
            tracing::warn!(count = self.bad_sums, "packets with a wrong checksum");
        }
        if self.open {
            let pace = self.pace.exit;
            let _ = timeout(pace, self.call(Request::Exit, "EXIT")).await;
        }
        let _ = timeout(self.pace.exit, self.stream.shutdown()).await;
    }

    /// Sends a request and waits for its one answer.
    async fn call(&mut self, request: Request, what: &'static str) -> Result<Packet, SessionError> {
        self.call_within(self.pace.answer, request, what).await
    }

    async fn call_within(
        &mut self,
        wait: Duration,
        request: Request,
        what: &'static str,
    ) -> Result<Packet, SessionError> {
        let id = self.send(request);
        match timeout(wait, self.answer(id, wait, wait, what)).await {
            Ok(answer) => answer,
            Err(_) => Err(SessionError::Silent(what)),
        }
    }

    /// Sends a request whose answer may take long to begin.
    async fn data_call(&mut self, request: Request) -> Result<(u16, Packet), SessionError> {
        let id = self.send(request);
        let first = self
            .answer(id, self.pace.data_first, self.pace.data_next, "the read")
            .await?;
        Ok((id, first))
    }

    fn send(&mut self, request: Request) -> u16 {
        let id = self.next_reply;
        // 65535 is never sent: it has the checksum of 0
        self.next_reply = if id >= 65_534 { 0 } else { id + 1 };
        self.out.extend_from_slice(&request.frame(self.id, id));
        id
    }

    /// Waits for the answer with this reply id: `first` until any byte, `next` between bytes.
    async fn answer(
        &mut self,
        id: u16,
        first: Duration,
        next: Duration,
        what: &'static str,
    ) -> Result<Packet, SessionError> {
        let mut wait = first;
        loop {
            match timeout(wait, self.hear()).await {
                Err(_) => return Err(SessionError::Silent(what)),
                Ok(heard) => match heard? {
                    Heard::Packet(packet) if packet.reply == id => return Ok(packet),
                    // the late answer to a request that was given up
                    Heard::Packet(_) => {}
                    Heard::Bytes | Heard::Event => wait = next,
                },
            }
        }
    }

    /// One step: what waits to be sent goes out, then one packet or some bytes come in. Holds no
    /// state of its own, so it may be dropped at any time.
    async fn hear(&mut self) -> Result<Heard, SessionError> {
        while !self.out.is_empty() {
            if self.stream.write_buf(&mut self.out).await? == 0 {
                return Err(SessionError::Closed);
            }
        }
        let Some(packet) = self.framer.packet()? else {
            return match self.stream.read_buf(self.framer.buffer()).await? {
                0 => Err(SessionError::Closed),
                _ => Ok(Heard::Bytes),
            };
        };
        self.bad_sums += u64::from(!packet.sum_ok);
        if packet.code != reply::EVENT {
            return Ok(Heard::Packet(packet));
        }
        self.out
            .extend_from_slice(&Request::Heard.frame(self.id, 0));
        if packet.session == ATTENDANCE && self.events.try_send(packet.data).is_err() {
            tracing::debug!("too many events wait; the log will tell");
        }
        Ok(Heard::Event)
    }
}

fn believable(bytes: u32) -> Result<(), SessionError> {
    if bytes <= MAX_TABLE {
        Ok(())
    } else {
        Err(SessionError::Partial {
            got: 0,
            of: bytes,
            why: "no table is that long".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::attendance::frame::{MAGIC, checksum};
    use proptest::prelude::*;
    use tokio::io::DuplexStream;

    fn packet(code: u16, session: u16, reply: u16, data: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        for word in [code, 0, session, reply] {
            packet.extend(word.to_le_bytes());
        }
        packet.extend(data);
        let sum = checksum(&packet).to_le_bytes();
        packet[2..4].copy_from_slice(&sum);
        let length = u32::try_from(packet.len()).unwrap().to_le_bytes();
        [&MAGIC[..], &length, &packet].concat()
    }

    fn session() -> (Session<DuplexStream>, DuplexStream, mpsc::Receiver<Bytes>) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (events, queue) = mpsc::channel(EVENT_QUEUE);
        (Session::new(ours, Pace::default(), events), theirs, queue)
    }

    #[tokio::test]
    async fn events_and_late_answers_between_request_and_answer_confuse_nothing() {
        let (mut session, mut peer, mut queue) = session();
        let event = [[b'7'; 1].as_slice(), &[0; 31]].concat();
        let script = [
            packet(500, 1, 0, &event),
            packet(2000, 0x1F2E, 77, b"late"),
            packet(500, 256, 0, &[0x64]),
            // a wrong session id, as a K40 sends it
            packet(2000, 0x54, 0, &[0xF6, 0x98, 0x86, 0x33]),
        ];
        peer.write_all(&script.concat()).await.unwrap();
        assert_eq!(session.time().await.unwrap(), Some(0x3386_98F6));
        assert_eq!(&queue.try_recv().unwrap()[..], &event[..]);
        assert!(
            queue.try_recv().is_err(),
            "only attendance events are passed on"
        );
        session.pump_ready().await.unwrap();
        let mut said = vec![0; 16 * 3];
        peer.read_exact(&mut said).await.unwrap();
        let codes: Vec<u8> = said.chunks(16).map(|f| f[8]).collect();
        assert_eq!(codes, [201, 0xD0, 0xD0], "each event is confirmed");
        assert_eq!(said[30..32], [0, 0], "with reply id 0");
    }

    #[tokio::test]
    async fn a_small_table_in_one_packet_and_a_large_one_in_slices_are_the_same() {
        let body = b"\x06\0\0\0abcdef";
        let size = 10u32.to_le_bytes();
        let large = [&[0][..], &size, &size, &[0; 4]].concat();
        let free = |id| packet(2000, 1, id, &[]);
        let scripts = [
            vec![free(0), packet(1501, 1, 1, body), free(2)],
            vec![
                free(0),
                packet(2000, 1, 1, &large),
                packet(1500, 1, 2, &[&size[..], &[0, 16, 0, 0]].concat()),
                packet(1501, 0, 2, &body[..3]),
                packet(1501, 0, 2, &body[3..]),
                packet(2000, 10, 2, &[]),
                free(3),
            ],
            // a slice as one packet, without PREPARE and OK
            vec![
                free(0),
                packet(2000, 1, 1, &large),
                packet(1501, 1, 2, body),
                free(3),
            ],
        ];
        for script in scripts {
            let (mut session, mut peer, _queue) = session();
            peer.write_all(&script.concat()).await.unwrap();
            assert_eq!(session.table(Table::Attendance).await.unwrap(), body);
        }
    }

    #[tokio::test]
    async fn a_table_that_claims_too_much_is_refused_without_room_being_made() {
        let (mut session, mut peer, _queue) = session();
        let claim = u32::MAX.to_le_bytes();
        let script = [
            packet(2000, 1, 0, &[]),
            packet(2000, 1, 1, &[&[0][..], &claim, &claim, &[0; 4]].concat()),
        ];
        peer.write_all(&script.concat()).await.unwrap();
        let error = session.table(Table::Attendance).await.unwrap_err();
        assert!(
            matches!(
                error,
                SessionError::Partial {
                    got: 0,
                    of: u32::MAX,
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn counters_are_read_only_where_they_are() {
        assert_eq!(Sizes::parse(&[0; 35]), Sizes::default());
        let mut data = [0; 80];
        data[32] = 214;
        assert_eq!(Sizes::parse(&data).records, Some(214));
        data[32..36].fill(0xFF);
        assert_eq!(
            Sizes::parse(&data).records,
            None,
            "a negative count is none"
        );
    }

    /// Answers to the first requests as (reply id, code, data): mostly codes that mean something.
    fn answers() -> impl Strategy<Value = Vec<(u16, u16, Vec<u8>)>> {
        let code = prop_oneof![
            4 => Just(reply::DATA),
            4 => Just(reply::PREPARE),
            4 => Just(reply::OK),
            1 => Just(reply::EVENT),
            1 => any::<u16>(),
        ];
        let small = (0u32..64, proptest::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(n, rest)| [&n.to_le_bytes()[..], &rest].concat());
        let large = (0u32..64).prop_map(|n| [&[0][..], &n.to_le_bytes(), &[0; 8]].concat());
        let data = prop_oneof![small, large, proptest::collection::vec(any::<u8>(), 0..80)];
        // in the order of the requests, or most would be late answers to an earlier one
        proptest::collection::vec((0u16..4, code, data), 0..24).prop_map(|mut script| {
            script.sort_by_key(|(reply, ..)| *reply);
            script
        })
    }

    proptest! {
        #[test]
        fn counters_of_any_answer_are_what_stands_at_their_places(data in proptest::collection::vec(any::<u8>(), 0..120)) {
            let sizes = Sizes::parse(&data);
            if let Some(n) = sizes.records {
                prop_assert!(data.len() >= 36 && i32::try_from(n).is_ok());
                prop_assert_eq!(&data[32..36], &n.to_le_bytes());
            }
            prop_assert!(data.len() >= 36 || sizes == Sizes::default());
        }

        #[test]
        fn whatever_a_terminal_answers_a_table_ends_and_is_never_longer_than_what_came(script in answers()) {
            let came: usize = script.iter().map(|(_, _, data)| data.len()).sum();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut session, mut peer, _queue) = session();
                let frames: Vec<u8> = script
                    .iter()
                    .flat_map(|(reply, code, data)| packet(*code, 1, *reply, data))
                    .collect();
                peer.write_all(&frames).await.unwrap();
                // the peer stays silent afterwards, so whatever is missing has to be given up
                let within = session.pace.table + Duration::from_secs(1);
                let table = timeout(within, session.table(Table::Attendance)).await;
                let table = table.expect("every wait ends");
                if let Ok(table) = table {
                    assert!(table.len() <= came, "{} of {came}", table.len());
                }
            });
        }
    }
}
