//! The program as a person meets it: what it prints, what it leaves, how it ends.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's allowance for tests does not reach their helpers"
)]

use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, line: &str) -> (i32, String) {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_scc-provision"))
        .args(line.split(' '))
        .current_dir(dir)
        .output()
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text.push_str(std::str::from_utf8(&output.stderr).unwrap());
    (output.status.code().unwrap(), text)
}

#[test]
fn from_an_empty_folder_to_a_withdrawn_site() {
    let dir = tempfile::tempdir().unwrap();
    let fleet = "[fleet]\nname = \"U\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 0\n\
        [[agency]]\nid = \"rsud\"\nname = \"R\"\n\
        [[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\nname = \"R\"\nkind = \"clinic\"\n";
    std::fs::write(dir.path().join("fleet.toml"), fleet).unwrap();
    std::fs::write(dir.path().join("wrong.toml"), "[fleet]\nnama = 1\n").unwrap();

    for (line, status, said) in [
        ("site list --authority ca", 2, "tidak ada otoritas di sini"),
        ("authority init ca", 0, "tempat aman"),
        (
            "authority init ca --lang en",
            2,
            "there is an authority here already",
        ),
        (
            "hub issue --authority ca --name hub.scc --address 127.0.0.1 --dns localhost --out hub",
            0,
            "/etc/scc/",
        ),
        (
            "hub issue --authority ca --name hub_scc! --out hub2",
            2,
            "hub_scc!",
        ),
        (
            "site issue rsud --authority ca --out a --fleet fleet.toml",
            0,
            "/etc/scc/",
        ),
        (
            "site issue psc --authority ca --out b --fleet fleet.toml",
            2,
            "belum terdaftar",
        ),
        (
            "site issue psc --authority ca --out b --fleet wrong.toml",
            2,
            "wrong.toml:2: `nama`",
        ),
        (
            "site issue RSUD --authority ca --out b",
            2,
            "not a valid id",
        ),
        ("site issue rsud --authority ca --out a", 2, "--replace"),
        (
            "site issue psc --authority ca --out b --days 0",
            2,
            "--days",
        ),
        ("site list --authority ca", 0, "396 hari lagi"),
        ("site revoke psc --authority ca", 2, "belum pernah ada"),
        (
            "site revoke rsud --authority ca --serial 12",
            2,
            "32 hexadecimal",
        ),
        (
            "site revoke rsud --authority ca",
            0,
            "Belum selesai: salin ca/agents/agents.crl.pem",
        ),
        (
            "site revoke rsud --authority ca --crl-out hub/agents.crl.pem --lang en",
            0,
            "the hub reads it by itself",
        ),
        (
            "authority crl --authority ca --crl-out hub/agents.crl.pem",
            0,
            "hub/agents.crl.pem",
        ),
        ("site list --authority ca --lang en", 0, "revoked"),
        (
            "site revoke rsud --authority ca --crl-out none/x.pem",
            1,
            "none/x.pem",
        ),
    ] {
        let (code, text) = run(dir.path(), line);
        assert_eq!(code, status, "{line}\n{text}");
        assert!(text.contains(said), "{line}\n{text}");
    }
    assert!(
        !dir.path().join("b").exists(),
        "a refused command leaves nothing"
    );
    // everything that was handed out can be loaded by the programs that need it
    let at = |name: &str| dir.path().join(name);
    scc_common::identity::agent_tls(&at("a/agent.pem"), &at("a/agent.key"), &at("a/hub-ca.pem"))
        .unwrap();
}
