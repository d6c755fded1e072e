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

/// Everything between backquotes that is a command of this program.
fn commands(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|q| q.starts_with("scc-provision "))
        .map(str::to_owned)
        .collect()
}

/// Runs a line as a person's shell would who has installed the program.
fn shell(dir: &Path, line: &str) -> (i32, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_scc-provision"));
    let path = std::env::join_paths(
        std::iter::once(program.parent().unwrap().to_path_buf())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

#[test]
fn every_command_that_is_printed_runs_as_it_stands() {
    use scc_common::clock::{Clock as _, SystemClock};
    use scc_common::lang::Lang;

    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("kunci ibu's/otoritas");
    std::fs::create_dir(ca.parent().unwrap()).unwrap();
    let authority = "--authority \"kunci ibu's/otoritas\"";
    let works = |line: &str| {
        let (code, text) = shell(dir.path(), line);
        assert_eq!(code, 0, "{line}\n{text}");
        text
    };

    let (_, text) = shell(dir.path(), &format!("scc-provision site list {authority}"));
    assert_eq!(commands(&text).len(), 1, "{text}");
    works(&commands(&text)[0]);
    let text = works(&format!("scc-provision site list {authority}"));
    assert_eq!(commands(&text).len(), 1, "{text}");
    works(&commands(&text)[0]);
    for line in [
        "rsud",
        "salotungo --serial 4a00112233445566778899aabbccddee",
    ] {
        let line = format!("scc-provision site revoke {line} {authority}");
        let (code, text) = shell(dir.path(), &line);
        assert_eq!((code, commands(&text).len()), (2, 1), "{text}");
        works(&commands(&text)[0]);
    }

    // what ends is issued anew, the hub under all of its names, whatever folders are still there
    works(&format!(
        "scc-provision hub issue {authority} --name hub.scc --address 10.10.0.5 --address fd00::5 --dns pusat.scc --out hub.scc"
    ));
    let at = scc_provision::Authority::open(&ca).unwrap();
    let later = SystemClock::new().wall_ms() + 720 * 86_400_000;
    let texts = [Lang::Id, Lang::En].map(|lang| scc_provision::listing::listing(&at, later, lang));
    drop(at);
    let [id, en] = texts.map(|text| commands(&text.unwrap()));
    assert_eq!(id, en);
    assert_eq!(id.len(), 3, "a site, the hub, the revocation list: {id:?}");
    for line in &id {
        works(line);
    }
    let at = scc_provision::Authority::open(&ca).unwrap();
    let hubs = at.index.entries().iter().filter(|e| e.id == "hub.scc");
    let names: Vec<&[String]> = hubs.filter_map(|e| e.also.as_deref()).collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[0], names[1], "no name is lost when a hub is renewed");
    assert_eq!(names[0].len(), 3, "{names:?}");
    drop(at);

    // an index of before these names were noted: what it does not know is asked for
    let index = ca.join("index.toml");
    let noted = std::fs::read_to_string(&index).unwrap();
    let older: Vec<&str> = noted.lines().filter(|l| !l.starts_with("also")).collect();
    assert_eq!(older.len() + 2, noted.lines().count());
    std::fs::write(&index, older.join("\n")).unwrap();
    let at = scc_provision::Authority::open(&ca).unwrap();
    for (lang, said) in [
        (Lang::Id, "`; tambahkan --address dan --dns seperti dahulu"),
        (Lang::En, "`; add --address and --dns as before"),
    ] {
        let text = scc_provision::listing::listing(&at, later, lang).unwrap();
        let hub = text.lines().find(|l| l.contains("hub issue")).unwrap();
        assert!(hub.ends_with(said), "{text}");
    }
}

#[test]
fn a_name_that_cannot_stand_is_explained_in_the_language_of_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(60);
    run(dir.path(), "authority init ca");
    for (line, id, en) in [
        (
            format!("authority init b --name {long}"),
            "lebih panjang dari 57",
            "longer than 57",
        ),
        (
            "hub issue --authority ca --name 10.0.0.1 --out h".into(),
            "alamat ditulis sesudah --address",
            "an address goes after",
        ),
        (
            "hub issue --authority ca --name hub_scc! --out h".into(),
            "bukan nama host",
            "not a host name",
        ),
        (
            "authority init b --name \u{7}".into(),
            "karakter kendali",
            "control characters",
        ),
    ] {
        for (lang, said) in [("id", id), ("en", en)] {
            let (code, text) = run(dir.path(), &format!("{line} --lang {lang}"));
            assert_eq!(code, 2, "{line}\n{text}");
            assert!(text.contains(said), "{line}\n{text}");
        }
    }
}
