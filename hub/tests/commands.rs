//! The pages tell people which command to run; each of them must be there when they do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it expected by failing"
)]

use std::path::Path;
use std::process::Command;

/// What follows `program` wherever the pages' words name it, with the line for the message.
fn named<'t>(text: &'t str, program: &str) -> Vec<(Vec<&'t str>, &'t str)> {
    let told = text.lines().filter(|l| !l.starts_with('#'));
    let mut found = Vec::new();
    for line in told {
        let words: Vec<&str> = line.split_whitespace().collect();
        for (at, _) in words.iter().enumerate().filter(|(_, w)| **w == program) {
            let rest = words.iter().skip(at + 1);
            let rest = rest.map(|w| w.trim_end_matches(['.', ',', ':'])).collect();
            found.push((rest, line));
        }
    }
    found
}

fn locales() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("locales");
    ["id.ftl", "en.ftl"]
        .map(|name| std::fs::read_to_string(folder.join(name)).unwrap())
        .join("\n")
}

#[test]
fn every_command_of_the_hub_in_the_pages_words_exists() {
    let text = locales();
    let commands = named(&text, "scc-hub");
    assert!(!commands.is_empty());
    for (words, line) in commands {
        // a command and, where it has subcommands, which; `--help` runs neither
        let help = |n: usize| {
            let args = words.iter().take(n);
            let mut command = Command::new(env!("CARGO_BIN_EXE_scc-hub"));
            let output = command.args(args).arg("--help").output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            output.status.success().then_some(text)
        };
        let first = help(1).unwrap_or_else(|| panic!("no such command: {line}"));
        assert!(
            !first.contains("Commands:") || help(2).is_some(),
            "no such subcommand: {line}"
        );
    }
}

#[test]
fn every_command_of_the_agent_in_the_pages_words_exists() {
    // the agent's crate needs FFmpeg, which no hub has, so its definition is read as text
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/src/cmd/mod.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, body) = source.split_once("enum Command {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let variants: Vec<String> = body
        .lines()
        .filter_map(|l| l.strip_prefix("    ")?.split([' ', '(', ',', '{']).next())
        .filter(|w| w.starts_with(char::is_uppercase))
        .map(str::to_lowercase)
        .collect();
    assert!(variants.contains(&"doctor".to_owned()), "{variants:?}");
    let text = locales();
    let commands = named(&text, "scc-agent");
    assert!(!commands.is_empty());
    for (words, line) in commands {
        let exists = words
            .first()
            .is_some_and(|w| variants.iter().any(|v| v == w));
        assert!(exists, "no such command: {line}");
    }
}
