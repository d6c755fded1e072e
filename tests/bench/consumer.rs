//! What stands between a broker and SQLite where there is no hub: subscribes, gathers 500 rows or what
//! comes in 50 ms, commits with the settings of the hub's database, and only then acknowledges, to the
//! agent (the first number of each message, as text) and to the broker.
//!
//! `bench-consumer --bare ROWS` writes the same rows into the same table without any of that: the bare loop.

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, Publish, QoS, TlsConfiguration, Transport};
use rusqlite::{Connection, params};
use scc_common::checksum::Checksum;
use scc_common::clock::SystemClock;
use scc_common::id::{AgentId, Epoch};
use scc_common::topic;
use scc_common::wire::{Records, Up, UpMessage};
use scc_tests::bench::bodies::Kind;
use scc_tests::bench::figures::Line;
use scc_tests::bench::place;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Rows in one transaction, as in the hub.
const ROWS: usize = 500;
/// How long a transaction gathers, as in the hub.
const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug, Parser)]
struct Options {
    /// The database.
    #[arg(long)]
    database: PathBuf,
    /// Port of the broker.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder of the identities, if the broker wants TLS of its consumer too.
    #[arg(long)]
    identity: Option<PathBuf>,
    /// Only writes so many rows.
    #[arg(long)]
    bare: Option<u64>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let database = open(&options.database)?;
    match options.bare {
        Some(rows) => bare(database, rows),
        None => consume(&options, database),
    }
}

/// The pragmas of hub/src/store/open.rs, and the least that keeps a record once.
fn open(path: &PathBuf) -> anyhow::Result<Connection> {
    let database = Connection::open(path)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "foreign_keys", "ON")?;
    database.pragma_update(None, "cache_size", -16 * 1024)?;
    database.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS record (
           id INTEGER PRIMARY KEY AUTOINCREMENT,
           agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream INTEGER NOT NULL, seq INTEGER NOT NULL,
           sum BLOB NOT NULL, received_ms INTEGER NOT NULL, body BLOB NOT NULL,
           UNIQUE (agent, epoch, stream, seq)) STRICT",
    )?;
    Ok(database)
}

fn insert(
    c: &Connection,
    agent: &AgentId,
    records: &Records,
    received_ms: i64,
) -> rusqlite::Result<()> {
    let mut insert = c.prepare_cached(
        "INSERT INTO record (agent, epoch, stream, seq, sum, received_ms, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )?;
    for record in &records.records {
        insert.execute(params![
            agent.as_str(),
            records.epoch.0.cast_signed(),
            records.stream.code(),
            record.seq.cast_signed(),
            record.sum.0.as_slice(),
            received_ms,
            record.body.as_slice(),
        ])?;
    }
    Ok(())
}

/// The rows of 100 agents, 500 in a transaction, made beforehand.
fn bare(mut database: Connection, rows: u64) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    let now = clock.wall_ms();
    let mut envelopes = Vec::new();
    let (agents, per) = (100, 100);
    for no in 0..rows.div_ceil(per) {
        let agent = AgentId::new(place::agent(usize::try_from(no % agents)?))?;
        let first = no / agents * per + 1;
        let bytes = Kind::Health.envelope(&agent, Epoch(no % agents + 1), first, per, now);
        if let UpMessage::Records(records) = Up::decode(&bytes)?.msg {
            envelopes.push((agent, records));
        }
    }
    let begun = Instant::now();
    for batch in envelopes.chunks(ROWS / usize::try_from(per)?) {
        let tx = database.transaction()?;
        for (agent, records) in batch {
            insert(&tx, agent, records, now)?;
        }
        tx.commit()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rows = u32::try_from(rows)?;
    println!(
        "{}",
        Line::new("bare").with("rows_per_s", format!("{:.0}", f64::from(rows) / seconds))
    );
    Ok(())
}

/// A message with its rows.
struct Taken {
    publish: Publish,
    agent: AgentId,
    records: Records,
}

#[tokio::main]
async fn consume(options: &Options, database: Connection) -> anyhow::Result<()> {
    let mut mqtt = MqttOptions::new("consumer", "localhost", options.port);
    if let Some(folder) = &options.identity {
        let tls = TlsConfiguration::Rustls(place::tls(folder, &place::agent(0))?);
        mqtt.set_transport(Transport::tls_with_config(tls));
    }
    mqtt.set_clean_session(false);
    mqtt.set_manual_acks(true);
    mqtt.set_max_packet_size(1 << 20, 1 << 20);
    mqtt.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(mqtt, 100_000);
    let (give, take) = mpsc::channel(10_000);
    let asking = client.clone();
    let writer = std::thread::spawn(move || write(database, take, &client));
    loop {
        match events.poll().await {
            // a broker that was killed may have forgotten the session
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                asking.try_subscribe(topic::UP_FILTER, QoS::AtLeastOnce)?;
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => println!("subscribed"),
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let up = Up::decode(&publish.payload)?;
                if let UpMessage::Records(records) = up.msg {
                    let taken = Taken {
                        publish,
                        agent: up.agent,
                        records,
                    };
                    if give.send(taken).await.is_err() {
                        break;
                    }
                }
            }
            Ok(_) => {}
            // the broker was killed: it is asked again until it is back
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    drop(give);
    writer.join().ok().context("the writer has panicked")?
}

/// Commits and acknowledges. Gathers while there is more, as the hub does: an idle database commits at once.
fn write(
    mut database: Connection,
    mut queue: mpsc::Receiver<Taken>,
    client: &AsyncClient,
) -> anyhow::Result<()> {
    let clock = SystemClock::shared();
    while let Some(first) = queue.blocking_recv() {
        let begun = Instant::now();
        let mut rows = first.records.records.len();
        let mut batch = vec![first];
        while rows < ROWS
            && begun.elapsed() < GATHER
            && let Ok(next) = queue.try_recv()
        {
            rows += next.records.records.len();
            batch.push(next);
        }
        let now = clock.wall_ms();
        let tx = database.transaction()?;
        for taken in &batch {
            debug_assert!(
                taken
                    .records
                    .records
                    .iter()
                    .all(|r| Checksum::of(&r.body) == r.sum)
            );
            insert(&tx, &taken.agent, &taken.records, now)?;
        }
        tx.commit()?;
        let mut acks: BTreeMap<AgentId, String> = BTreeMap::new();
        for taken in &batch {
            let text = acks.entry(taken.agent.clone()).or_default();
            if let Some(record) = taken.records.records.first() {
                write!(text, "{} ", record.seq)?;
            }
        }
        for (agent, text) in acks {
            // a broker that is away loses it; the sender then waits, which is its matter
            let _ = client.try_publish(topic::down(&agent), QoS::AtMostOnce, false, text);
        }
        for taken in &batch {
            let _ = client.try_ack(&taken.publish);
        }
    }
    Ok(())
}
