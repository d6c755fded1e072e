//! What the pages for people tell them to type is understood: each command of ours is parsed by its
//! program's own definition, each `make` and `cargo test` names what is there, and so does each path.
//!
//! Read are README.md, the pages in docs/, and the commands in systemd/. Not docs/design/, which also
//! speaks of what is to come. A word in capitals (`NAMA`, `FILE`) is the reader's to replace; a line
//! with `…` is a fragment and no command.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's allowance for tests does not reach their helpers"
)]

use std::path::{Path, PathBuf};

use clap::Parser;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The files in a folder of the project that end so.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut found: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file() && p.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
}

/// Lines of code blocks and inline code; inline code may go on in the next line of its paragraph.
fn code(markdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut paragraphs = vec![String::new()];
    let mut in_block = false;
    for line in markdown.lines().map(str::trim) {
        let is_fence = line.starts_with("```");
        if is_fence || line.is_empty() || line.starts_with('|') {
            paragraphs.push(String::new());
        }
        if is_fence {
            in_block = !in_block;
        } else if in_block {
            found.push(line.to_owned());
        } else if let Some(paragraph) = paragraphs.last_mut() {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    for paragraph in paragraphs {
        let parts: Vec<&str> = paragraph.split('`').collect();
        assert!(
            parts.len() % 2 == 1,
            "a backquote without its pair: {paragraph}"
        );
        found.extend(parts.into_iter().skip(1).step_by(2).map(str::to_owned));
    }
    found
}

/// The line with some word in place of each `$(…)`.
fn substituted(line: &str) -> String {
    let Some((before, rest)) = line.split_once("$(") else {
        return line.to_owned();
    };
    let after = rest.split_once(')').map_or("", |(_, after)| after);
    format!("{before}x{}", substituted(after))
}

/// The commands of a line, each as words, without `sudo` and who it is to be.
fn commands(line: &str) -> Vec<Vec<String>> {
    let simple = substituted(line).replace("&&", ";").replace('|', ";");
    let parts = simple.split(';').map(|part| {
        let mut words: Vec<String> = part.split_whitespace().map(str::to_owned).collect();
        if words.first().is_some_and(|w| w == "sudo") {
            words.remove(0);
            if words.first().is_some_and(|w| w == "-u") {
                words.drain(..2.min(words.len()));
            }
        }
        for word in &mut words {
            if word.bytes().all(|b| b.is_ascii_uppercase()) {
                *word = word.to_lowercase();
            }
        }
        words
    });
    parts
        .filter(|words| words.len() > 1 && !words.iter().any(|w| w.contains('…')))
        .collect()
}

/// Everything that a person or a unit is told to run, with the file that says so.
fn all() -> Vec<(PathBuf, Vec<String>)> {
    let mut found = Vec::new();
    let pages = files("docs", ".md").into_iter();
    for file in pages.chain([root().join("README.md")]) {
        let lines = code(&read(&file));
        found.extend(
            lines
                .iter()
                .flat_map(|l| commands(l))
                .map(|c| (file.clone(), c)),
        );
    }
    for file in files("systemd", ".example") {
        let lines = code(&read(&file));
        found.extend(
            lines
                .iter()
                .flat_map(|l| commands(l))
                .map(|c| (file.clone(), c)),
        );
    }
    for file in files("systemd", ".service") {
        let text = read(&file);
        let lines = text.lines().filter_map(|l| l.strip_prefix("ExecStart="));
        found.extend(lines.flat_map(commands).map(|c| (file.clone(), c)));
    }
    found
}

/// Checks every command of one program and says how many there were.
fn check(program: &str, right: impl Fn(&[String]) -> Result<(), String>) -> usize {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (file, words) in all() {
        if words[0] != program && words[0] != format!("/usr/bin/{program}") {
            continue;
        }
        count += 1;
        if let Err(why) = right(&words) {
            wrong.push(format!("{}: `{}`: {why}", file.display(), words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    count
}

fn parses<P: Parser>(words: &[String]) -> Result<(), String> {
    P::try_parse_from(words)
        .map(drop)
        .map_err(|e| e.to_string())
}

#[test]
fn every_command_in_the_pages_is_one_that_the_program_knows() {
    assert!(check("scc-agent", parses::<scc_agent::cmd::Cli>) >= 4);
    assert!(check("scc-hub", parses::<scc_hub::cmd::Cli>) >= 8);
    assert!(check("scc-provision", parses::<scc_provision::cmd::Cli>) >= 6);
}

#[test]
fn every_make_in_the_pages_has_its_target_and_its_variables() {
    let makefile = read(&root().join("Makefile"));
    let rules = makefile
        .lines()
        .filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase()));
    let targets: Vec<&str> = rules
        .filter_map(|l| l.split_once(':'))
        .filter(|(_, rest)| !rest.starts_with('='))
        .flat_map(|(names, _)| names.split_whitespace())
        .collect();
    let count = check("make", |words| {
        for word in &words[1..] {
            let there = match word.split_once('=') {
                Some((variable, _)) => makefile.contains(&format!("$({variable})")),
                None => targets.contains(&word.as_str()),
            };
            if !there {
                return Err(format!("the Makefile has no {word}"));
            }
        }
        Ok(())
    });
    assert!(count >= 6, "{count}");
}

#[test]
fn every_cargo_test_in_the_pages_names_a_crate_and_a_test_file_that_are_there() {
    let count = check("cargo", |words| {
        let after = |option: &str| {
            let at = words.iter().position(|w| w == option);
            at.and_then(|at| words.get(at + 1))
        };
        let Some(package) = after("-p") else {
            return Ok(());
        };
        let folder = match package.strip_prefix("scc-") {
            Some("provision") => "provisioning",
            Some(folder) => folder,
            None => return Err("not a crate of ours".into()),
        };
        let folder = root().join(folder);
        if !read(&folder.join("Cargo.toml")).contains(&format!("name = \"{package}\"")) {
            return Err(format!("{} is not {package}", folder.display()));
        }
        let Some(test) = after("--test") else {
            return Ok(());
        };
        let tests = folder.join("tests");
        let there = [format!("{test}.rs"), format!("{test}/main.rs")]
            .iter()
            .any(|name| tests.join(name).is_file());
        if there {
            Ok(())
        } else {
            Err(format!("there is no test {test} in {}", tests.display()))
        }
    });
    assert!(count >= 5, "{count}");
}

#[test]
fn every_file_that_the_pages_name_is_there() {
    let ours = |word: &str| {
        let folders = [
            "agent",
            "hub",
            "common",
            "provisioning",
            "tests",
            "docs",
            "systemd",
        ];
        word.split_once('/')
            .is_some_and(|(first, _)| folders.contains(&first))
    };
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in files("docs", ".md")
        .into_iter()
        .chain([root().join("README.md")])
    {
        let text = read(&page);
        let links = text.split("](").skip(1).filter_map(|l| l.split_once(')'));
        let beside = page.parent().unwrap();
        let linked = links
            .map(|(to, _)| to.to_owned())
            .filter(|to| !to.contains("://") && !to.starts_with('#'))
            .map(|to| (beside.join(&to), to));
        let code = code(&text);
        let words = code.iter().flat_map(|line| line.split_whitespace());
        let named = words
            .filter(|word| ours(word))
            .map(|word| (root().join(word), word.to_owned()));
        for (path, name) in linked.chain(named) {
            count += 1;
            if !path.exists() {
                wrong.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 30, "{count}");
}

/// What of a source file can end in the program: neither its tests nor its comments, which may say
/// what no message says any longer.
fn spoken(source: &str) -> String {
    let lines = source.lines();
    let code = lines.take_while(|line| *line != "mod tests {");
    code.filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn every_message_that_the_technicians_page_explains_is_one_of_a_program() {
    let mut sources = String::new();
    let mut folders: Vec<PathBuf> = ["common/src", "agent/src", "provisioning/src"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_tests = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_tests {
                folders.push(path);
            } else if path.is_file() && !is_tests {
                sources.push_str(&spoken(&read(&path)).replace('`', ""));
            }
        }
    }
    let page = read(&root().join("docs/teknisi.md"));
    let tables = page.split("| isi pesan | artinya |").skip(1);
    let rows = tables.flat_map(|t| t.lines().skip(2).take_while(|l| l.starts_with('|')));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let fragments: Vec<&str> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .flat_map(|message| message.split('…'))
        .map(|part| part.trim_matches([' ', ',', ';', ':']))
        .filter(|part| !part.is_empty())
        .collect();
    let unknown: Vec<&&str> = fragments
        .iter()
        .filter(|f| !sources.contains(**f))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(fragments.len() >= 20, "{fragments:?}");
}

#[test]
#[should_panic(expected = "a backquote without its pair: | `a` | b` |")]
fn a_backquote_without_its_pair_does_not_turn_the_rest_of_the_page_around() {
    code("`o p`\n\n| `a` | b` |\n| `c` |\n");
}

#[test]
fn a_message_that_only_a_test_or_a_comment_holds_is_none_of_the_program() {
    let source = "#[cfg(test)]\nmod tests;\n//! satu\nfn f() {\n    // dua\n    say(\"tiga\");\n}\n\n#[cfg(test)]\nmod tests {\n    empat\n";
    let said = spoken(source);
    let found = ["satu", "dua", "tiga", "empat"].map(|word| said.contains(word));
    assert_eq!(found, [false, false, true, false], "{said}");
}

#[test]
fn commands_are_found_wherever_a_page_holds_them() {
    let page = "Tulis `a\nb NAMA` dan `sudo -u c d e && f g`, `h … i`, `j`.\n   ```\n   sudo k $(x y).l | m n\n   ```\n`o p`\n";
    let found: Vec<String> = code(page)
        .iter()
        .flat_map(|line| commands(line))
        .map(|words| words.join(" "))
        .collect();
    assert_eq!(found, ["k x.l", "m n", "a b nama", "d e", "f g", "o p"]);
}
