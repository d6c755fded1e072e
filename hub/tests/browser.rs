//! The pages in a real browser: starts a house and lets `tests/browser/look.mjs` look at it.
//!
//! Run by `make test` after `npm ci` in `tests/browser`; pictures are left in `target/screenshots`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

mod web_house;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use scc_common::record::{DeviceKind, State};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use web_house::{House, PASSWORD, device_state};

#[tokio::test]
#[ignore = "needs Chromium, and `npm ci` in tests/browser"]
async fn pages_look_right_on_phone_pc_and_wall_in_both_languages() {
    let house = House::build().await;
    house.wrong_clocks();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut looking = Command::new("node")
        .arg("look.mjs")
        .arg(format!("https://127.0.0.1:{}", house.address.port()))
        .args(["meja-2"])
        .arg(
            root.join("target/screenshots")
                .canonicalize()
                .unwrap_or_else(|_| root.join("target/screenshots")),
        )
        .current_dir(root.join("tests/browser"))
        .env("SCC_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node");
    let mut tell = looking.stdin.take().unwrap();
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    let whole = tokio::time::timeout(Duration::from_secs(300), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            println!("{line}");
            if line == "change" {
                house.now(
                    "rsud",
                    vec![device_state("apotek", DeviceKind::Camera, State::Up, None)],
                );
                tell.write_all(b"changed\n").await.unwrap();
            }
            if line == "silence" {
                house.fall_silent();
            }
        }
        looking.wait().await.unwrap()
    });
    assert!(whole.await.expect("the browser finishes in time").success());
}
