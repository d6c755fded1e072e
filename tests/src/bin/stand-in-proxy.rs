//! The bad network as a program: prints `listening 127.0.0.1:PORT`, then obeys lines on its
//! standard input, answering each with `ok …` or `error …`.
//!
//! `delay MS` · `rate BYTES|off` · `stall up|down|both|off` · `half-open on|off` · `refuse on|off` ·
//! `piece BYTES|off` · `cut` · `passed` · `quit`

#![allow(clippy::print_stdout, reason = "its standard output is its interface")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use scc_tests::control;
use scc_tests::proxy::Proxy;

/// A TCP proxy that misbehaves on request.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where it leads.
    #[arg(long)]
    to: SocketAddr,
    /// End when standard input closes.
    #[arg(long)]
    with_parent: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let proxy = Proxy::start_at(args.listen, args.to)
        .await
        .context("the proxy cannot start")?;
    println!("listening {}", proxy.address());
    let mut lines = control::lines();
    while let Some(line) = lines.recv().await {
        if line.trim() == "quit" {
            return Ok(());
        }
        match obey(&proxy, &line) {
            Ok(said) => println!("ok {said}"),
            Err(error) => println!("error {error:#}"),
        }
    }
    if !args.with_parent {
        std::future::pending::<()>().await;
    }
    Ok(())
}

fn obey(proxy: &Proxy, line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let switch = |word: &str| match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => bail!("say on or off"),
    };
    match words.as_slice() {
        ["delay", ms] => {
            let delay = Duration::from_millis(ms.parse()?);
            proxy.weather(|w| w.delay = delay);
        }
        ["rate", "off"] => proxy.weather(|w| w.rate = None),
        ["rate", bytes] => {
            let rate = bytes.parse()?;
            proxy.weather(|w| w.rate = Some(rate));
        }
        ["piece", "off"] => proxy.weather(|w| w.piece = None),
        ["piece", bytes] => {
            let piece = bytes.parse()?;
            proxy.weather(|w| w.piece = Some(piece));
        }
        ["stall", which] => {
            let (up, down) = match *which {
                "up" => (true, false),
                "down" => (false, true),
                "both" => (true, true),
                "off" => (false, false),
                _ => bail!("say up, down, both or off"),
            };
            proxy.weather(|w| (w.stall_up, w.stall_down) = (up, down));
        }
        ["half-open", word] => {
            let on = switch(word)?;
            proxy.weather(|w| w.half_open = on);
        }
        ["refuse", word] => {
            let on = switch(word)?;
            proxy.weather(|w| w.refuse = on);
        }
        ["cut"] => proxy.cut(),
        ["passed"] => {
            let (up, down) = proxy.passed();
            return Ok(format!("{up} {down}"));
        }
        _ => bail!("`{line}` is no command of the proxy"),
    }
    Ok(String::new())
}
