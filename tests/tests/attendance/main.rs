//! The attendance source against the stand-in terminal: what a punch may go through without being
//! lost, doubled or invented.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, not the helpers of a test file"
)]

mod database;
mod faults;
mod live;
mod lost;
mod reading;
mod site;

use site::Site;
use tempfile::TempDir;

#[tokio::test]
async fn the_programs_say_where_they_listen_obey_and_end_with_their_parent() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let start = |mut command: Command| {
        let mut child = command
            .arg("--with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next().unwrap().unwrap();
        let address: std::net::SocketAddr =
            line.strip_prefix("listening ").unwrap().parse().unwrap();
        (child, said, address)
    };
    let dir = TempDir::new().unwrap();
    let truth = dir.path().join("truth.jsonl");
    let mut terminal = Command::new(env!("CARGO_BIN_EXE_stand-in-terminal"));
    terminal.args(["--layout", "16", "--records", "20", "--truth"]);
    terminal.arg(&truth);
    let (mut terminal, mut terminal_said, address) = start(terminal);
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_stand-in-proxy"));
    proxy.args(["--to", &address.to_string()]);
    let (mut proxy, mut proxy_said, address) = start(proxy);

    let site = Site::start(address, &dir, 0);
    site.until_complete(20).await;
    writeln!(terminal.stdin.as_ref().unwrap(), "punch 31337").unwrap();
    assert!(terminal_said.next().unwrap().unwrap().starts_with("ok {"));
    site.until_complete(21).await;
    writeln!(proxy.stdin.as_ref().unwrap(), "cut").unwrap();
    assert_eq!(proxy_said.next().unwrap().unwrap(), "ok ");
    site.until("reconnected", |s| s.shelf.proofs().len() >= 3)
        .await;
    let mut got: Vec<(String, i64)> = site
        .stopped()
        .await
        .punches()
        .into_iter()
        .map(|p| (p.user, p.local_s))
        .collect();
    let mut told: Vec<(String, i64)> = std::fs::read_to_string(&truth)
        .unwrap()
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let user = line["user"].as_str().unwrap().to_owned();
            (user, line["local_s"].as_i64().unwrap())
        })
        .collect();
    got.sort();
    told.sort();
    assert_eq!(got, told);
    for child in [&mut terminal, &mut proxy] {
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
}
