//! One connection of the stand-in.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::log::{table, users};
use super::wire::{Asked, encode, frame, key_token, le32, take};
use super::{Counter, Faults, Shared};

const OK: u16 = 2000;
const ERROR: u16 = 2001;
const UNAUTH: u16 = 2005;
const UNKNOWN: u16 = 65_535;

/// Why a connection ends.
enum End {
    /// Properly.
    Bye,
    /// With a reset.
    Reset,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Bye
    }
}

struct Connection {
    shared: Arc<Shared>,
    stream: TcpStream,
    session: u16,
    /// It holds the one session's slot.
    entered: bool,
    open: bool,
    listening: bool,
    sent: u64,
    prepared: Option<Vec<u8>>,
}

pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let number = shared.next_session();
    let mut connection = Connection {
        shared: Arc::clone(&shared),
        stream,
        session: number,
        entered: false,
        open: false,
        listening: false,
        sent: 0,
        prepared: None,
    };
    let end = connection.run().await;
    if connection.entered {
        shared.leave();
    }
    if matches!(end, Err(End::Reset)) {
        let _ =
            socket2::SockRef::from(&connection.stream).set_linger(Some(std::time::Duration::ZERO));
    }
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        let _ = self.stream.set_nodelay(true);
        let mut punches = self.shared.live.subscribe();
        let mut cuts = self.shared.cuts.subscribe();
        let mut come = Vec::new();
        loop {
            tokio::select! {
                _ = cuts.changed() => return Err(End::Reset),
                punch = punches.recv() => {
                    let faults = self.faults();
                    if let Ok(punch) = punch && self.listening && !faults.mute {
                        let data = punch.event(self.shared.setup.layout, faults.event_tail);
                        self.send(frame(500, 1, 0, &data)).await?;
                    }
                }
                read = self.stream.read_buf(&mut come) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    while let Some(asked) = take(&mut come).map_err(|()| End::Bye)? {
                        self.shared.note(&asked);
                        self.answer(asked).await?;
                    }
                }
            }
        }
    }

    fn faults(&self) -> Faults {
        self.shared.faults()
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        let faults = self.faults();
        for chunk in bytes.chunks(faults.split.unwrap_or(usize::MAX).max(1)) {
            let room = faults
                .reset_after
                .map(|most| most.saturating_sub(self.sent));
            let length = u64::try_from(chunk.len()).expect("64 bits");
            if let Some(room) = room.filter(|room| *room < length) {
                let part = usize::try_from(room).expect("64 bits");
                self.stream.write_all(&chunk[..part]).await?;
                self.shared.heal_reset();
                return Err(End::Reset);
            }
            self.stream.write_all(chunk).await?;
            self.sent += length;
        }
        Ok(())
    }

    async fn reply(&mut self, asked: &Asked, code: u16, data: &[u8]) -> Result<(), End> {
        self.send(frame(code, self.session, asked.reply, data))
            .await
    }

    async fn answer(&mut self, asked: Asked) -> Result<(), End> {
        let faults = self.faults();
        if faults.silent {
            return Ok(());
        }
        if faults.garbage {
            return self.send(b"HTTP/1.0 400 Bad Request\r\nServer: nothing of the kind at all, nor anything like it\r\n\r\n".to_vec()).await;
        }
        if faults.encrypted {
            return self
                .send(b"\x50\x50\x83\x7c\x10\0\0\0????????????????".to_vec())
                .await;
        }
        if !self.open {
            return self.greet(&asked, &faults).await;
        }
        match asked.code {
            2000 => Ok(()),
            1001 => {
                self.reply(&asked, OK, &[]).await?;
                Err(End::Bye)
            }
            11 => self.option(&asked).await,
            1100 => self.reply(&asked, OK, b"Ver 6.60 Nov 13 2019\0").await,
            201 => {
                let now = encode(self.shared.now()).to_le_bytes();
                self.reply(&asked, OK, &now).await
            }
            50 => self.sizes(&asked, &faults).await,
            500 => {
                self.listening = asked.data.first().is_some_and(|mask| mask & 1 == 1);
                self.reply(&asked, OK, &[]).await
            }
            1502 => {
                self.prepared = None;
                self.reply(&asked, OK, &[]).await
            }
            1503 if !faults.refuse_buffered => self.prepare(&asked, &faults).await,
            1504 => self.slice(&asked, &faults).await,
            13 | 9 => self.direct(&asked, &faults).await,
            // stop and start of verification, enable and disable: other clients say these
            60 | 62 | 1002 | 1003 => self.reply(&asked, OK, &[]).await,
            _ => self.reply(&asked, UNKNOWN, &[]).await,
        }
    }

    async fn greet(&mut self, asked: &Asked, faults: &Faults) -> Result<(), End> {
        let key = self.shared.setup.comm_key;
        match asked.code {
            1000 if self.shared.setup.one_session && !self.enter() => {
                self.reply(asked, ERROR, &[]).await
            }
            1000 if key == 0 => {
                self.open = true;
                self.reply(asked, OK, &[]).await
            }
            1000 => self.reply(asked, UNAUTH, &[]).await,
            1102 if asked.data == key_token(key, self.session)
                && asked.session == self.session
                && !faults.refuse_key =>
            {
                self.open = true;
                self.reply(asked, OK, &[]).await
            }
            _ => self.reply(asked, UNAUTH, &[]).await,
        }
    }

    fn enter(&mut self) -> bool {
        self.entered = self.entered || self.shared.enter();
        self.entered
    }

    async fn option(&mut self, asked: &Asked) -> Result<(), End> {
        let name = String::from_utf8_lossy(&asked.data);
        let name = name.trim_end_matches('\0');
        let value = match name {
            "~SerialNumber" => self.shared.setup.serial.clone(),
            "~DeviceName" => "Stand-in".into(),
            "~Platform" => "ZEM760_TFT".into(),
            _ => return self.reply(asked, ERROR, &[]).await,
        };
        let line = format!("{name}={value}\0");
        self.reply(asked, OK, line.as_bytes()).await
    }

    async fn sizes(&mut self, asked: &Asked, faults: &Faults) -> Result<(), End> {
        let (records, people) = self.shared.counts();
        let mut data = [0; 80];
        let mut put = |at: usize, n: u32| data[at..at + 4].copy_from_slice(&n.to_le_bytes());
        put(16, people);
        put(60, 3_000);
        put(64, 200_000);
        match faults.counter {
            Counter::Right => put(32, records),
            Counter::Says(n) => put(32, n),
            Counter::Absent => return self.reply(asked, OK, &data[..20]).await,
        }
        self.reply(asked, OK, &data).await
    }

    fn table_of(&self, command: u16) -> Vec<u8> {
        let punches = self.shared.punches();
        match command {
            9 => users(&punches, self.faults().old_users),
            _ => table(&punches, self.shared.setup.layout),
        }
    }

    async fn prepare(&mut self, asked: &Asked, faults: &Faults) -> Result<(), End> {
        let command = u16::from(asked.data[1]);
        let mut table = self.table_of(command);
        if command == 13 {
            for user in 0..faults.grow {
                self.shared.punch(60_000 + user, 0, 1);
            }
            if faults.rubbish {
                table[4..].fill(0x77);
            }
        }
        if table.len() <= 1_024 {
            return self.reply(asked, 1501, &table).await;
        }
        let length = u32::try_from(table.len())
            .expect("a short table")
            .to_le_bytes();
        let data = [&[0][..], &length, &length, &[1, 2, 3, 4]].concat();
        self.prepared = Some(table);
        self.reply(asked, OK, &data).await
    }

    async fn slice(&mut self, asked: &Asked, faults: &Faults) -> Result<(), End> {
        let from = usize::try_from(le32(&asked.data, 0)).expect("64 bits");
        let count = usize::try_from(le32(&asked.data, 4)).expect("64 bits");
        let slice = self
            .prepared
            .as_ref()
            .and_then(|table| table.get(from..from + count))
            .map(<[u8]>::to_vec);
        let Some(mut slice) = slice.filter(|slice| slice.len() <= 0xFFC0) else {
            return self.reply(asked, ERROR, &[]).await;
        };
        let told = u32::try_from(count).expect("a short slice");
        if self.shared.spoil_slice() || faults.truncate {
            slice.truncate(count / 2);
        }
        self.data(asked, told, &slice, &[0, 0x10, 0, 0]).await
    }

    async fn direct(&mut self, asked: &Asked, faults: &Faults) -> Result<(), End> {
        let mut table = self.table_of(asked.code);
        if faults.rubbish {
            table[4..].fill(0x77);
        }
        let told = u32::try_from(table.len()).expect("a short table");
        self.data(asked, told, &table, &[0xF0, 3, 0, 0]).await
    }

    /// PREPARE, DATA …, OK; careless with the session id as a K40 is.
    async fn data(
        &mut self,
        asked: &Asked,
        told: u32,
        data: &[u8],
        more: &[u8],
    ) -> Result<(), End> {
        let length = told.to_le_bytes();
        self.reply(asked, 1500, &[&length[..], more].concat())
            .await?;
        let most = self.faults().data_packet.unwrap_or(0xFFC0).max(1);
        for part in data.chunks(most) {
            self.send(frame(1501, 0, asked.reply, part)).await?;
        }
        let odd = u16::from_le_bytes([length[0], length[1]]);
        self.send(frame(OK, odd, asked.reply, &[])).await
    }
}
