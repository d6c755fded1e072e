//! The example configurations are read by the programs that they are written for.

use std::path::{Path, PathBuf};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../systemd")
        .join(name)
}

#[test]
fn the_agents_example_is_whole_and_its_comments_show_the_defaults() {
    let file = example("agent.toml.example");
    let config = scc_agent::config::Config::load(&file).unwrap();
    assert_eq!((config.cameras.len(), config.terminals.len()), (1, 1));
    assert_eq!(config.hub.port, scc_agent::config::GATE_PORT);

    // a reader who takes away every `# ` before a key gets the same, but for the secret files
    let text = std::fs::read_to_string(&file).unwrap();
    let open: Vec<&str> = text.lines().filter(|l| !l.contains("_file = ")).collect();
    let uncommented = scc_common::config::uncommented(&open.join("\n"));
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("agent.toml");
    std::fs::write(&all, uncommented).unwrap();
    let full = scc_agent::config::Config::load(&all).unwrap();
    assert_eq!(full.buffer, config.buffer);
    // the hours are an example; without them there is no limit
    assert_eq!((full.budget.usual, full.budget.hours.len()), (None, 1));
    assert_eq!((config.budget.usual, config.budget.hours.len()), (None, 0));
    assert_eq!(full.budget.utc_offset_min, config.budget.utc_offset_min);
    assert_eq!(full.health_every_s, config.health_every_s);
    assert_eq!(
        full.cameras[0].snapshot_every_s,
        config.cameras[0].snapshot_every_s
    );
    assert_eq!(full.cameras[0].segments, config.cameras[0].segments);
    assert_eq!(full.cameras[0].segment_s, config.cameras[0].segment_s);
    assert_eq!(full.cameras[0].user.as_deref(), Some("scc"));
    assert_eq!(full.terminals, config.terminals);
}

#[test]
fn the_hubs_example_is_whole_and_its_comments_show_the_defaults() {
    let config = scc_hub::config::Config::load(&example("hub.toml.example")).unwrap();
    assert_eq!(config.gate.listen.port(), scc_agent::config::GATE_PORT);
    assert_eq!(config.gate.max_connections, 1_000);
    assert_eq!(config.gate.certificate, config.web.certificate);
}
