//! Every key of every configuration file that a person writes, spoiled in every way that a person
//! spoils one: file, line, key and what would be right are named each time, in one sentence.
//!
//! The keys are those of the examples; that these show all that a program knows is checked too.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy's allowance for tests does not reach their helpers"
)]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use scc_common::config::{ConfigError, uncommented};
use toml::de::{DeTable, DeValue};

/// A kind of file.
struct Kind {
    name: &'static str,
    example: &'static str,
    read: fn(&Path) -> Result<(), ConfigError>,
    /// What may be left out: keys, and tables as a whole.
    optional: &'static [&'static str],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "agent.toml",
        example: include_str!("../../systemd/agent.toml.example"),
        read: |file| scc_agent::config::Config::load(file).map(drop),
        optional: &[
            "health_every_s",
            "buffer",
            "buffer.segment",
            "buffer.segment.max_bytes",
            "buffer.segment.max_hours",
            "buffer.snapshot",
            "buffer.snapshot.max_bytes",
            "buffer.snapshot.max_hours",
            "buffer.health",
            "buffer.health.max_bytes",
            "buffer.health.max_hours",
            "buffer.event",
            "buffer.event.max_bytes",
            "buffer.event.max_hours",
            "buffer.warehouse",
            "buffer.warehouse.max_bytes",
            "buffer.warehouse.max_hours",
            "buffer.attendance",
            "buffer.attendance.max_bytes",
            "buffer.attendance.max_hours",
            "buffer.drop_order",
            "buffer.min_free_bytes",
            "uplink",
            "uplink.bytes_per_s",
            "uplink.budget",
            "uplink.utc_offset",
            "camera",
            "camera.password_file",
            "camera.snapshot_every_s",
            "camera.segments",
            "camera.segment_s",
            "terminal",
            "terminal.comm_key_file",
            "terminal.utc_offset",
            "terminal.full_read_every_s",
        ],
    },
    Kind {
        name: "hub.toml",
        example: include_str!("../../systemd/hub.toml.example"),
        read: |file| scc_hub::config::Config::load(file).map(drop),
        optional: &["gate.max_connections"],
    },
    Kind {
        name: "fleet.toml",
        example: "[fleet]\nname = \"Soppeng\"\ntimezone = \"Asia/Makassar\"\ninstalled_cameras = 1\n\
            [[agency]]\nid = \"rsud\"\nname = \"RSUD\"\nexternal = true\n\
            [[site]]\nid = \"rsud\"\nagencies = [\"rsud\"]\nname = \"RSUD\"\nkind = \"clinic\"\n\
            kecamatan = \"Lalabata\"\ncameras = [{ id = \"igd\", name = \"IGD\" }]\n\
            terminals = [{ id = \"absensi\", name = \"Absensi\" }]\n",
        read: |file| scc_common::register::Register::load(file).map(drop),
        optional: &[
            "agency.external",
            "site",
            "site.kecamatan",
            "site.cameras",
            "site.cameras.name",
            "site.terminals",
            "site.terminals.name",
        ],
    },
];

/// A key of a whole file, and where it stands.
#[derive(Debug)]
struct Key {
    path: String,
    key: Range<usize>,
    value: Range<usize>,
    /// A value of another type.
    other: &'static str,
    is_number: bool,
    /// Begun by a line `[name]`.
    is_header: bool,
}

impl Key {
    fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap()
    }
}

/// A whole and right file, with secrets that can be read.
fn whole(kind: &Kind, dir: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let secrets = dir.join("secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    for name in ["ruang-tunggu", "absensi"] {
        let file = secrets.join(name);
        std::fs::write(&file, "1234\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    uncommented(kind.example).replace("/etc/scc/secrets", secrets.to_str().unwrap())
}

fn keys(text: &str) -> Vec<Key> {
    let mut found = Vec::new();
    walk(
        "",
        DeTable::parse(text).unwrap().get_ref(),
        text,
        &mut found,
    );
    found
}

fn walk(above: &str, table: &DeTable<'_>, text: &str, found: &mut Vec<Key>) {
    for (key, value) in table.iter() {
        let path = match above {
            "" => key.get_ref().to_string(),
            _ => format!("{above}.{}", key.get_ref()),
        };
        let written = &text[value.span()];
        let is_table = matches!(value.get_ref(), DeValue::Table(_));
        found.push(Key {
            key: key.span(),
            value: value.span(),
            other: match value.get_ref() {
                DeValue::String(_) => "17",
                _ => "\"seventeen\"",
            },
            is_number: matches!(value.get_ref(), DeValue::Integer(_)),
            is_header: written.starts_with("[[") || (is_table && !written.starts_with('{')),
            path: path.clone(),
        });
        match value.get_ref() {
            DeValue::Table(inner) => walk(&path, inner, text, found),
            DeValue::Array(list) => {
                for inner in list.iter().filter_map(|v| v.get_ref().as_table()) {
                    walk(&path, inner, text, found);
                }
            }
            _ => {}
        }
    }
}

fn read(kind: &Kind, dir: &Path, text: &str) -> Result<(), String> {
    let file = dir.join(kind.name);
    std::fs::write(&file, text).unwrap();
    let said = (kind.read)(&file).map_err(|e| e.to_string());
    if let Err(sentence) = &said {
        assert!(!sentence.contains('\n'), "{sentence}");
        for inner in [
            "struct ", "u16", "u32", "u64", "usize", "i64", "sequence", "map,",
        ] {
            assert!(
                !sentence.contains(inner),
                "words of the program: {sentence}"
            );
        }
    }
    said
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn without(text: &str, range: Range<usize>) -> String {
    format!("{}{}", &text[..range.start], &text[range.end..])
}

fn with(text: &str, range: &Range<usize>, instead: &str) -> String {
    format!("{}{instead}{}", &text[..range.start], &text[range.end..])
}

/// The file without the key; a table goes with all that stands below its line.
fn remove(text: &str, key: &Key) -> String {
    let begin = text[..key.key.start]
        .rfind(['\n', '{', ','])
        .map_or(0, |n| n + 1);
    if key.is_header {
        let after = key.value.end;
        let end = text[after..]
            .find("\n[")
            .map_or(text.len(), |n| after + n + 1);
        return without(text, begin..end);
    }
    let inline = begin > 0 && text.as_bytes()[begin - 1] != b'\n';
    let mut range = begin..key.value.end;
    if inline && text[range.end..].starts_with(',') {
        range.end += 1;
    } else if inline && text.as_bytes()[begin - 1] == b',' {
        range.start -= 1;
    }
    without(text, range)
}

/// The line that a missing key is told by: its table's, or the first.
fn home(text: &str, path: &str, all: &[Key]) -> usize {
    match path.rsplit_once('.') {
        None => 1,
        Some((table, _)) => {
            let table = all.iter().find(|k| k.path == table).unwrap();
            line_of(text, table.value.start)
        }
    }
}

#[track_caller]
fn told(said: Result<(), String>, dir: &Path, kind: &Kind, line: usize, key: &str) -> String {
    let Err(sentence) = said else {
        panic!("{} was accepted with `{key}` spoiled", kind.name);
    };
    let place = format!("{}:{line}: `{key}`: ", dir.join(kind.name).display());
    let Some(what) = sentence.strip_prefix(&place) else {
        panic!("{sentence}\nshould begin with\n{place}");
    };
    what.to_owned()
}

#[test]
fn the_whole_files_are_right() {
    let dir = tempfile::tempdir().unwrap();
    for kind in &KINDS {
        read(kind, dir.path(), &whole(kind, dir.path())).unwrap();
    }
}

#[test]
fn a_missing_key_is_named_with_its_table_and_a_right_value() {
    let dir = tempfile::tempdir().unwrap();
    for kind in &KINDS {
        let text = whole(kind, dir.path());
        let all = keys(&text);
        let mut spared = BTreeSet::new();
        for key in &all {
            let said = read(kind, dir.path(), &remove(&text, key));
            // these are held to each other
            if matches!(
                (kind.name, &*key.path),
                ("agent.toml", "camera.user") | ("fleet.toml", "agency")
            ) {
                said.unwrap_err();
                continue;
            }
            if kind.optional.contains(&&*key.path) {
                said.unwrap_or_else(|e| panic!("{} is optional: {e}", key.path));
                spared.insert(&*key.path);
                continue;
            }
            let line = home(&text, &key.path, &all);
            let what = told(said, dir.path(), kind, line, key.name());
            let hint = if key.is_header {
                format!("`[{}]`", key.path)
            } else {
                format!("such as `{} = ", key.name())
            };
            assert!(what.starts_with("is missing; add "), "{what}");
            assert!(what.contains(&hint), "{what}");
            let table = key.path.rsplit_once('.').map_or("", |(table, _)| table);
            assert!(
                what.contains(table.rsplit('.').next().unwrap()),
                "names not {table}: {what}"
            );
        }
        assert_eq!(spared, kind.optional.iter().copied().collect());
    }
}

#[test]
fn a_value_of_another_type_is_told_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    for kind in &KINDS {
        let text = whole(kind, dir.path());
        for key in &keys(&text) {
            let (spoiled, line) = if key.is_header {
                let below = remove(&text, key);
                if key.path.contains('.') {
                    continue;
                }
                (format!("{} = {}\n{below}", key.path, key.other), 1)
            } else {
                (
                    with(&text, &key.value, key.other),
                    line_of(&text, key.value.start),
                )
            };
            let what = told(
                read(kind, dir.path(), &spoiled),
                dir.path(),
                kind,
                line,
                key.name(),
            );
            let hint = if key.is_header {
                format!("must be a table: a line `{}`", &text[key.value.clone()])
            } else {
                format!("`{} = ", key.name())
            };
            let choice = key.path == "site.kind" && what.contains("`clinic`");
            assert!(what.starts_with("must be ") || choice, "{what}");
            assert!(what.contains(&hint) || choice, "{what}");
        }
    }
}

#[test]
fn a_number_out_of_range_is_told_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for kind in &KINDS {
        let text = whole(kind, dir.path());
        for key in keys(&text).iter().filter(|key| key.is_number) {
            let line = line_of(&text, key.value.start);
            for n in ["-1", "4611686018427387904", "99999999999999999999999"] {
                let spoiled = with(&text, &key.value, n);
                let what = told(
                    read(kind, dir.path(), &spoiled),
                    dir.path(),
                    kind,
                    line,
                    key.name(),
                );
                // a key with bounds of its own names them, any other a right value
                assert!(
                    what.contains("; write ") || what.contains("; give "),
                    "{what}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn an_unknown_key_is_refused_in_every_table_and_the_examples_show_all_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    for kind in &KINDS {
        let text = whole(kind, dir.path());
        let all = keys(&text);
        let mut tables = BTreeSet::from([""]);
        tables.extend(all.iter().filter_map(|k| Some(k.path.rsplit_once('.')?.0)));
        for table in tables {
            let of_table = |k: &&Key| k.path.rsplit_once('.').map_or("", |(t, _)| t) == table;
            let first = all
                .iter()
                .filter(of_table)
                .min_by_key(|k| k.key.start)
                .unwrap();
            let separator = if text[..first.key.start].ends_with(['{', ' ']) {
                ", "
            } else {
                "\n"
            };
            let at = if first.is_header { 0 } else { first.key.start };
            let spoiled = with(&text, &(at..at), &format!("qqq = 1{separator}"));
            let what = told(
                read(kind, dir.path(), &spoiled),
                dir.path(),
                kind,
                line_of(&text, at),
                "qqq",
            );
            assert!(
                what.starts_with("is no key of this table; expected "),
                "{what}"
            );
            let shown: BTreeSet<_> = all.iter().filter(of_table).map(Key::name).collect();
            let known: BTreeSet<_> = what.split('`').skip(1).step_by(2).collect();
            let known: BTreeSet<_> = known.into_iter().filter(|k| *k != "qqq").collect();
            assert_eq!(shown, known, "{} [{table}]", kind.name);
        }
    }
}

#[test]
fn a_line_that_is_no_toml_is_told_what_a_right_one_looks_like() {
    let dir = tempfile::tempdir().unwrap();
    for kind in &KINDS {
        let text = whole(kind, dir.path());
        for key in keys(&text).iter().filter(|key| !key.is_header) {
            let line = line_of(&text, key.value.start);
            // the value's first quote, or a number's meaning, is lost
            let spoiled = with(&text, &key.value, "=");
            let sentence = read(kind, dir.path(), &spoiled).unwrap_err();
            let place = format!("{}:{line}: ", dir.path().join(kind.name).display());
            assert!(
                sentence.starts_with(&place),
                "{sentence}\nshould begin with {place}"
            );
            assert!(
                sentence.contains("write it like `")
                    || sentence.contains("a line is `key = value`"),
                "{sentence}"
            );
        }
    }
}
