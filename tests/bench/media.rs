//! `make bench-media`: pictures and video to durable storage at the hub.
//!
//! A few connections send stills of 100 KB and segments of 2 MB as agents do, in parts and with no more in
//! flight than is permitted, each waiting for the acknowledgement that follows the commit. Bytes written
//! are the hub's own (`write_bytes` of `/proc/PID/io`). Ends with one line of figures.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rumqttc::mqttbytes::v4::Packet;
use scc_common::checksum::Checksum;
use scc_common::clock::{ClockQuality, Stamp};
use scc_common::id::{AgentId, BootId, DeviceId, Epoch};
use scc_common::record::{Content, RecordBody, Segment, Snapshot};
use scc_common::stream::Stream;
use scc_common::topic;
use scc_common::wire::{
    Down, DownMessage, Hello, LaneOffer, MAX_PART, Part, SeqRange, Up, UpMessage,
};
use scc_tests::bench::figures::{Line, Rounds};
use scc_tests::bench::mqtt::{Call, Connection};
use scc_tests::bench::place::{self, Place};
use scc_tests::bench::process;
use scc_tests::bench::stand::{Stand, Who};
use serde_bytes::ByteBuf;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Bytes in flight of one agent: what the hub permits.
const PERMITTED: usize = 512 * 1024;

#[derive(Debug, Parser)]
struct Options {
    /// Rounds of each size.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Agents that send at one time.
    #[arg(long, default_value_t = 8)]
    agents: usize,
    /// MB of a round.
    #[arg(long, default_value_t = 400)]
    megabytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Still,
    Segment,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Still => "snapshot",
            Self::Segment => "segment",
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::Still => 100_000,
            Self::Segment => 2_000_000,
        }
    }

    const fn stream(self) -> Stream {
        match self {
            Self::Still => Stream::Snapshot,
            Self::Segment => Stream::Segment,
        }
    }

    fn body(self, wall_ms: i64) -> anyhow::Result<Vec<u8>> {
        use rand::RngCore as _;
        let mut bytes = vec![0; self.bytes()];
        rand::rng().fill_bytes(&mut bytes);
        let content = match self {
            Self::Still => Content::Snapshot(Snapshot {
                width: 1280,
                height: 720,
                cadence_s: 30,
                jpeg: bytes,
            }),
            Self::Segment => Content::Segment(Segment {
                duration_ms: 10_000,
                frames: 250,
                codec: "avc1.4d4028".into(),
                width: 1920,
                height: 1080,
                mp4: bytes,
            }),
        };
        let stamp = Stamp {
            boot: BootId([7; 16]),
            mono_ms: 1,
            wall_ms,
            quality: ClockQuality::Ntp,
        };
        Ok(RecordBody::new(stamp, Some(DeviceId::new("kamera")?), content).encode())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let place = Place::new(options.agents)?;
    let mut last = Line::new("bench-media");
    for what in [What::Still, What::Segment] {
        let (mut rate, mut written) = (Rounds::default(), Rounds::default());
        for _ in 0..options.rounds {
            let (mb_per_s, per_byte) = round(&place, &options, what).await?;
            println!(
                "round what={} mb_per_s={mb_per_s:.1} written_per_byte={per_byte:.3} machine_load={}",
                what.name(),
                process::machine_load()
            );
            rate.add(mb_per_s);
            written.add(per_byte);
        }
        last = last
            .with(&format!("{}_mb_per_s", what.name()), rate)
            .with(&format!("{}_written_per_byte", what.name()), written);
    }
    println!("{last}");
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "hundreds of megabytes")]
async fn round(place: &Place, options: &Options, what: What) -> anyhow::Result<(f64, f64)> {
    let stand = Stand::start(Who::Hub, place, options.agents)?;
    let pid = stand.pid("hub").context("no hub")?;
    let each = (options.megabytes * 1_000_000 / what.bytes() / options.agents).max(1);
    let mut agents = JoinSet::new();
    let mut senders = Vec::new();
    for no in 0..options.agents {
        senders.push(Sender::open(place, &stand, no, what, each).await?);
    }
    let before = process::written_bytes(pid).context("no /proc/PID/io")?;
    let begun = Instant::now();
    for mut sender in senders {
        agents.spawn(async move { timeout(Duration::from_secs(120), sender.run()).await? });
    }
    let mut payload = 0;
    while let Some(ended) = agents.join_next().await {
        payload += ended??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let written = process::written_bytes(pid).context("no /proc/PID/io")? - before;
    Ok((payload as f64 / 1e6 / seconds, written / payload as f64))
}

struct Sender {
    connection: Connection,
    agent: AgentId,
    epoch: Epoch,
    what: What,
    /// One body that is sent again and again, each time under its own number and with its own bytes.
    body: Vec<u8>,
    records: usize,
    /// Bytes of whole records that are stored, and of the parts of the next one that are spooled.
    stored: u64,
    spooled: usize,
}

impl Sender {
    async fn open(
        place: &Place,
        stand: &Stand<'_>,
        no: usize,
        what: What,
        records: usize,
    ) -> anyhow::Result<Self> {
        let name = place::agent(no);
        let agent = AgentId::new(&name)?;
        let wall_ms = place.clock().wall_ms();
        let call = Call {
            to: stand.to,
            from: None,
            tls: place::tls(&place.identity(), &name)?,
            id: name,
            filter: topic::down(&agent),
            keep_alive: 60,
        };
        let epoch = Epoch::random();
        let mut sender = Self {
            connection: Connection::open(&call).await?,
            agent,
            epoch,
            what,
            body: what.body(wall_ms)?,
            records,
            stored: 0,
            spooled: 0,
        };
        let last = u64::try_from(records)?;
        let hello = Hello {
            nonce: rand::random(),
            version: "bench".into(),
            boot: BootId([7; 16]),
            wall_ms,
            epoch,
            lanes: vec![LaneOffer {
                epoch,
                stream: what.stream(),
                next: last + 1,
                held: vec![SeqRange { first: 1, last }],
                gaps: Vec::new(),
            }],
            partial: false,
        };
        sender.publish(1, UpMessage::Hello(hello))?;
        sender.connection.flush().await?;
        loop {
            if let Some(Down {
                msg: DownMessage::Answer(_),
                ..
            }) = down(sender.connection.next().await?)?
            {
                return Ok(sender);
            }
        }
    }

    fn publish(&mut self, pkid: u16, msg: UpMessage) -> anyhow::Result<()> {
        let payload = Up::new(self.agent.clone(), msg).encode();
        let topic = topic::up(&self.agent);
        self.connection.publish(&topic, pkid, payload.into())
    }

    /// Sends all records, one after the other with parts of the next behind; gives the bytes of the pictures.
    async fn run(&mut self) -> anyhow::Result<usize> {
        let total = self.body.len();
        let mut pkid = 1;
        // the next part: of which record (from 0), from where
        let (mut record, mut offset) = (0, 0);
        let mut sum = self.next_body(record);
        loop {
            let done = usize::try_from(self.stored)?;
            if done >= self.records {
                return Ok(self.records * self.what.bytes());
            }
            let mut sent = record * total + offset;
            let arrived = done * total + self.spooled;
            while record < self.records && sent.saturating_sub(arrived) < PERMITTED {
                let data = self.body[offset..(offset + MAX_PART).min(total)].to_vec();
                offset += data.len();
                sent += data.len();
                let part = Part {
                    epoch: self.epoch,
                    stream: self.what.stream(),
                    seq: u64::try_from(record + 1)?,
                    sum,
                    total: u32::try_from(total)?,
                    offset: u32::try_from(offset - data.len())?,
                    gaps: Vec::new(),
                    data: ByteBuf::from(data),
                };
                pkid = pkid % 60_000 + 1;
                self.publish(pkid, UpMessage::Part(part))?;
                if offset == total {
                    (record, offset) = (record + 1, 0);
                    sum = self.next_body(record);
                }
            }
            self.connection.flush().await?;
            self.connection.read().await?;
            while let Some(packet) = self.connection.pop()? {
                self.take(packet)?;
            }
        }
    }

    /// Changes the picture's last bytes, so that no two records are the same.
    fn next_body(&mut self, record: usize) -> Checksum {
        let end = self.body.len();
        let mark = u64::try_from(record).unwrap_or(0).to_be_bytes();
        self.body[end - 8..].copy_from_slice(&mark);
        Checksum::of(&self.body)
    }

    fn take(&mut self, packet: Packet) -> anyhow::Result<()> {
        let Some(down) = down(packet)? else {
            return Ok(());
        };
        if !down.paused.is_empty() {
            bail!("the hub has paused {:?}: its disk is full", down.paused);
        }
        if let DownMessage::Ack(ack) = down.msg {
            for lane in ack.lanes {
                if lane.watermark > self.stored {
                    (self.stored, self.spooled) = (lane.watermark, 0);
                }
                for part in lane.parts {
                    if part.seq == self.stored + 1 {
                        self.spooled = self.spooled.max(usize::try_from(part.received)?);
                    }
                }
            }
        }
        Ok(())
    }
}

fn down(packet: Packet) -> anyhow::Result<Option<Down>> {
    match packet {
        Packet::Publish(publish) => Ok(Some(Down::decode(&publish.payload)?)),
        _ => Ok(None),
    }
}
