//! A short ordeal in every test run; `make kills` and `make outage` are the long ones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use scc_tests::ordeal::kills;
use scc_tests::ordeal::stage::Place;

/// Each victim at least once.
const ROUNDS: u32 = 4;

/// Cargo builds the programs of this package for a test, but not those of the others. With the tests,
/// because these bring features of their own: so nothing is compiled twice.
fn programs() -> PathBuf {
    let bin = Path::new(env!("CARGO_BIN_EXE_scc-ordeal"))
        .parent()
        .expect("a program lies in a folder");
    let target = bin.parent().expect("a profile lies in the target folder");
    let profile = match bin.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(profile) => profile,
    };
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--workspace",
            "--bins",
            "--tests",
            "--locked",
            "--quiet",
        ])
        .args(["--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the programs cannot be built");
    bin.to_owned()
}

#[test]
fn nothing_that_was_accepted_is_lost_or_doubled_when_programs_are_killed() {
    let bin = programs();
    let dir = tempfile::tempdir().unwrap();
    let footage = bin
        .parent()
        .expect("the target folder is there")
        .join("footage");
    let seed = rand::random::<u32>().into();
    println!("seed {seed}");
    let place = Place {
        bin,
        state: dir.path().join("ordeal"),
        footage,
        interrupted: Arc::new(AtomicBool::new(false)),
    };
    let report = kills::run(place, ROUNDS, seed).unwrap();
    let violations: Vec<_> = report.violations().collect();
    assert!(violations.is_empty(), "{report}\n{violations:#?}");
    assert!(report.account.punches > 400, "{report}");
    println!("{report}");
}
