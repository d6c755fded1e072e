//! The load: so many agents that send records and wait for the acknowledgement after the commit.
//!
//! The same for every stand: the same bytes, over MQTT 3.1.1 with QoS 1 and TLS client certificates, and
//! in flight at most what our agents allow themselves. Our hub is greeted with hello and acknowledges
//! by watermark; a consumer beside a broker acknowledges with the first numbers of the messages that it
//! has committed, as text. The envelopes are made before the clock starts.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Parser;
use rumqttc::mqttbytes::v4::Packet;
use scc_common::clock::SystemClock;
use scc_common::id::{AgentId, BootId, Epoch, Seq};
use scc_common::topic;
use scc_common::wire::{
    Down, DownMessage, Hello, LaneOffer, MAX_BATCH, MAX_PART, SeqRange, Up, UpMessage,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::bodies::{BODY, Kind};
use super::figures::{Line, percentile};
use super::mqtt::{Call, Connection};
use super::place;

/// Bytes that an agent has in flight: one part, the least that our agents allow themselves, and more than half
/// a second of what a saturated hub acknowledges to one of a hundred.
const WINDOW: usize = MAX_PART;

/// Publishes of one agent in flight; `rumqttc`'s own limit.
const MESSAGES: usize = 100;

/// What the load is.
#[derive(Debug, Clone, Parser)]
pub struct Options {
    /// Where the hub or the broker listens.
    #[arg(long)]
    pub to: SocketAddr,
    /// Folder of the identities.
    #[arg(long)]
    pub identity: PathBuf,
    /// It is our hub: hello, and acknowledgements as it gives them.
    #[arg(long)]
    pub hub: bool,
    /// Agents.
    #[arg(long, default_value_t = 100)]
    pub agents: usize,
    /// What the records are.
    #[arg(long, default_value = "health")]
    pub kind: Kind,
    /// Records of each agent.
    #[arg(long)]
    pub records: u64,
    /// As many records in a message as fit 64 KiB; otherwise one.
    #[arg(long)]
    pub batched: bool,
    /// Records per second of all agents together; as many as go if not given.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Ends after so many seconds whatever is missing.
    #[arg(long, default_value_t = 60)]
    pub within: u64,
    /// Writes there what became of each message: `agent first count puback ack`, the last two 0 or 1.
    #[arg(long)]
    pub account: Option<PathBuf>,
}

/// A message on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    first: Seq,
    count: u64,
    bytes: usize,
    pkid: u16,
    at: Instant,
    puback: bool,
    ack: bool,
}

/// What became of one agent's records.
#[derive(Debug, Default)]
struct Fate {
    name: String,
    sent: Vec<Sent>,
    /// Milliseconds from sending to acknowledgement, and of how many records.
    waits: Vec<(u32, u32)>,
    acked: u64,
    /// When the last acknowledgement came.
    ended: Option<Instant>,
    /// Why it ended early.
    why: Option<String>,
}

/// Connects, says `ready` on standard output, waits for a line on standard input, sends, and gives the
/// line of figures.
///
/// # Errors
/// If an agent does not get in.
pub async fn run(options: Options) -> anyhow::Result<Line> {
    let options = Arc::new(options);
    let clock = SystemClock::shared();
    let mut agents = JoinSet::new();
    let (go, gone) = watch::channel(false);
    let (ready, mut all_ready) = tokio::sync::mpsc::channel::<()>(options.agents.max(1));
    for no in 0..options.agents {
        let (options, ready, gone) = (Arc::clone(&options), ready.clone(), gone.clone());
        let wall_ms = clock.wall_ms();
        agents.spawn(async move {
            let mut agent = Agent::open(&options, no, wall_ms).await?;
            let _ = ready.send(()).await;
            drop(ready);
            agent.run(&options, gone).await
        });
    }
    drop(ready);
    let mut open = 0;
    while all_ready.recv().await.is_some() {
        open += 1;
    }
    if open < options.agents {
        while let Some(ended) = agents.join_next().await {
            ended??;
        }
        bail!("only {open} of {} agents got in", options.agents);
    }
    say("ready");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    say("ok");
    let begun = Instant::now();
    go.send_replace(true);
    let mut fates = Vec::new();
    while let Some(ended) = agents.join_next().await {
        fates.push(ended??);
    }
    if let Some(file) = &options.account {
        std::fs::write(file, account(&fates)?).with_context(|| file.display().to_string())?;
    }
    Ok(figures(begun, &fates))
}

#[allow(clippy::print_stdout, reason = "its interface")]
fn say(what: &str) {
    println!("{what}");
}

fn account(fates: &[Fate]) -> anyhow::Result<String> {
    let mut text = String::new();
    for fate in fates {
        for s in &fate.sent {
            writeln!(
                text,
                "{} {} {} {} {}",
                fate.name,
                s.first,
                s.count,
                u8::from(s.puback),
                u8::from(s.ack)
            )?;
        }
    }
    Ok(text)
}

fn figures(begun: Instant, fates: &[Fate]) -> Line {
    let acked: u64 = fates.iter().map(|f| f.acked).sum();
    let ended = fates.iter().filter_map(|f| f.ended).max().unwrap_or(begun);
    let seconds = ended.duration_since(begun).as_secs_f64();
    let mut waits: Vec<_> = fates.iter().flat_map(|f| f.waits.iter().copied()).collect();
    let early = fates.iter().find_map(|f| f.why.clone());
    #[allow(clippy::cast_precision_loss, reason = "millions of rows")]
    let rate = if seconds > 0.0 {
        acked as f64 / seconds
    } else {
        0.0
    };
    Line::new("load")
        .with("rows", acked)
        .with("seconds", format!("{seconds:.3}"))
        .with("rows_per_s", format!("{rate:.0}"))
        .with("p50_ms", percentile(&mut waits, 50).unwrap_or(0))
        .with("p99_ms", percentile(&mut waits, 99).unwrap_or(0))
        .with("early", early.unwrap_or_else(|| "no".into()))
}

struct Agent {
    connection: Connection,
    topic: String,
    messages: VecDeque<(Seq, u64, Bytes)>,
    fate: Fate,
    /// Index in `fate.sent` of the first message that is not acknowledged.
    unacked: usize,
    /// Index of the first that has no PUBACK.
    unpubacked: usize,
    in_flight: usize,
}

impl Agent {
    async fn open(options: &Options, no: usize, wall_ms: i64) -> anyhow::Result<Self> {
        let name = place::agent(no);
        let id = AgentId::new(&name)?;
        let epoch = Epoch::random();
        let per = if options.batched {
            // what lies about a body in its envelope takes less than 48 bytes
            (MAX_BATCH / (BODY + 48)) as u64
        } else {
            1
        };
        let mut messages = VecDeque::new();
        let mut first = 1;
        while first <= options.records {
            let count = per.min(options.records - first + 1);
            let bytes = options.kind.envelope(&id, epoch, first, count, wall_ms);
            messages.push_back((first, count, Bytes::from(bytes)));
            first += count;
        }
        let call = Call {
            to: options.to,
            from: None,
            tls: place::tls(&options.identity, &name)?,
            id: name.clone(),
            filter: topic::down(&id),
            keep_alive: 60,
        };
        let mut connection = Connection::open(&call).await?;
        let topic = topic::up(&id);
        if options.hub {
            let hello = Hello {
                nonce: rand::random(),
                version: "bench".into(),
                boot: BootId([7; 16]),
                wall_ms,
                epoch,
                lanes: vec![LaneOffer {
                    epoch,
                    stream: options.kind.stream(),
                    next: options.records + 1,
                    held: vec![SeqRange {
                        first: 1,
                        last: options.records,
                    }],
                    gaps: Vec::new(),
                }],
                partial: false,
            };
            let payload = Up::new(id.clone(), UpMessage::Hello(hello)).encode();
            connection.publish(&topic, u16::MAX - 1, payload.into())?;
            connection.flush().await?;
            loop {
                let Packet::Publish(publish) = connection.next().await? else {
                    continue;
                };
                if matches!(Down::decode(&publish.payload)?.msg, DownMessage::Answer(_)) {
                    break;
                }
            }
        }
        Ok(Self {
            connection,
            topic,
            messages,
            fate: Fate {
                name,
                ..Fate::default()
            },
            unacked: 0,
            unpubacked: 0,
            in_flight: 0,
        })
    }

    async fn run(
        &mut self,
        options: &Options,
        mut go: watch::Receiver<bool>,
    ) -> anyhow::Result<Fate> {
        go.wait_for(|go| *go).await?;
        let within = Duration::from_secs(options.within);
        match timeout(within, self.send(options)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fate.why = Some(format!("{error:#}")),
            Err(_) => self.fate.why = Some("out of time".into()),
        }
        Ok(std::mem::take(&mut self.fate))
    }

    async fn send(&mut self, options: &Options) -> anyhow::Result<()> {
        let begun = Instant::now();
        #[allow(clippy::cast_precision_loss, reason = "a hundred agents")]
        let every = options
            .rate
            .map(|rate| Duration::from_secs_f64(options.agents as f64 / rate));
        // spread over the time between two records
        let offset = every.map(|every| every.mul_f64(rand::random::<f64>()));
        let mut sent = 0_u32;
        while !self.messages.is_empty() || self.unacked < self.fate.sent.len() {
            let mut due = None;
            while let Some((_, _, bytes)) = self.messages.front()
                && self.fate.sent.len() - self.unpubacked < MESSAGES
                && (self.in_flight == 0 || self.in_flight + bytes.len() <= WINDOW)
            {
                let at = every.zip(offset).map(|(e, o)| begun + o + e * sent);
                if let Some(at) = at
                    && at > Instant::now()
                {
                    due = Some(at);
                    break;
                }
                self.put(at)?;
                sent += 1;
            }
            self.connection.flush().await?;
            tokio::select! {
                read = self.connection.read() => read?,
                () = async {
                    match due {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            while let Some(packet) = self.connection.pop()? {
                self.take(options, packet)?;
            }
        }
        Ok(())
    }

    /// `due`: when it should have been sent; a wait is counted from then.
    fn put(&mut self, due: Option<Instant>) -> anyhow::Result<()> {
        let Some((first, count, bytes)) = self.messages.pop_front() else {
            return Ok(());
        };
        let pkid = u16::try_from(self.fate.sent.len() % 60_000 + 1)?;
        self.fate.sent.push(Sent {
            first,
            count,
            bytes: bytes.len(),
            pkid,
            at: due.unwrap_or_else(Instant::now),
            puback: false,
            ack: false,
        });
        self.in_flight += bytes.len();
        self.connection.publish(&self.topic, pkid, bytes)
    }

    fn take(&mut self, options: &Options, packet: Packet) -> anyhow::Result<()> {
        match packet {
            Packet::PubAck(ack) => {
                let waiting = self.fate.sent.iter_mut().skip(self.unpubacked);
                if let Some(sent) = waiting.take(MESSAGES).find(|s| s.pkid == ack.pkid) {
                    sent.puback = true;
                }
                let done = |s: &Sent| s.puback;
                while self.fate.sent.get(self.unpubacked).is_some_and(done) {
                    self.unpubacked += 1;
                }
            }
            Packet::Publish(publish) if options.hub => {
                let down = Down::decode(&publish.payload)?;
                if let DownMessage::Ack(ack) = down.msg {
                    for lane in ack.lanes {
                        self.committed(|s| s.first + s.count - 1 <= lane.watermark);
                    }
                }
            }
            Packet::Publish(publish) => {
                let text = std::str::from_utf8(&publish.payload)?;
                let firsts: Vec<Seq> = text.split(' ').filter_map(|f| f.parse().ok()).collect();
                self.committed(|s| firsts.contains(&s.first));
            }
            _ => {}
        }
        Ok(())
    }

    fn committed(&mut self, is: impl Fn(&Sent) -> bool) {
        let now = Instant::now();
        for sent in self.fate.sent.iter_mut().skip(self.unacked) {
            if !sent.ack && is(sent) {
                sent.ack = true;
                self.in_flight -= sent.bytes;
                self.fate.acked += sent.count;
                let wait = now.saturating_duration_since(sent.at).as_millis();
                self.fate.waits.push((
                    u32::try_from(wait).unwrap_or(u32::MAX),
                    u32::try_from(sent.count).unwrap_or(u32::MAX),
                ));
                self.fate.ended = Some(now);
            }
        }
        while self.fate.sent.get(self.unacked).is_some_and(|s| s.ack) {
            self.unacked += 1;
        }
    }
}
