//! Mutants: our own code with one promise broken on purpose, each with the test that must notice.
//!
//! `tests/mutants.toml` lists them. `make faults-selftest` copies the source tree, holds every named
//! test against the copy as it is (it must pass), then against each mutant (it must fail by its own name:
//! neither a build that fails or is killed nor a test that takes its process down says that it noticed). A
//! mutant whose text is no longer in the code is an error, and `make test`
//! says so at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// All of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutants {
    /// In the order of the file.
    pub mutant: Vec<Mutant>,
}

/// One promise that is broken.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Short, as in `no-fsync`.
    pub name: String,
    /// What is broken.
    pub what: String,
    /// What is changed.
    pub edit: Vec<Edit>,
    /// What must notice.
    pub test: Test,
}

/// A change of one place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Below the top of the source tree.
    pub file: PathBuf,
    /// Must be in the file exactly once.
    pub old: String,
    /// What stands there instead.
    pub new: String,
}

/// A test by its whole name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The crate.
    pub package: String,
    /// `lib`, or the name of the file in `tests/`.
    pub target: String,
    /// Path and name.
    pub name: String,
}

impl Mutants {
    /// Reads the list of this source tree.
    ///
    /// # Errors
    /// What cannot be read, with its place in the file.
    pub fn read(tree: &Path) -> anyhow::Result<Self> {
        let file = tree.join("tests/mutants.toml");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        toml::from_str(&text).with_context(|| file.display().to_string())
    }
}

impl Edit {
    /// The file's text with the change made.
    ///
    /// # Errors
    /// If the file cannot be read, or does not hold the text exactly once.
    pub fn applied(&self, tree: &Path) -> anyhow::Result<String> {
        let text = std::fs::read_to_string(tree.join(&self.file))
            .with_context(|| format!("{} cannot be read", self.file.display()))?;
        let found = text.matches(&self.old).count();
        ensure!(
            found == 1,
            "{} holds this {found} times instead of once; bring tests/mutants.toml up to date:\n{}",
            self.file.display(),
            self.old
        );
        Ok(text.replace(&self.old, &self.new))
    }
}

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Passed,
    Failed,
}

impl Test {
    /// Runs it in `tree`; nothing else of the crate runs.
    fn run(&self, tree: &Path, build: &Path, log: &Path) -> anyhow::Result<Ended> {
        // Apart, because cargo says the same of a compiler and of a test that were killed.
        let (built, said) = self.cargo(tree, build, &["--no-run"])?;
        std::fs::write(log, &said)?;
        ensure!(
            built,
            "`{}` cannot be built; see {}",
            self.name,
            log.display()
        );
        let (passed, ran) = self.cargo(tree, build, &["--", "--exact", &self.name])?;
        std::fs::write(log, said + &ran)?;
        let line = |end: &str| {
            let wanted = format!("test {} ... {end}", self.name);
            ran.lines().any(|line| line.starts_with(&wanted))
        };
        match (passed, line("ok"), line("FAILED")) {
            (true, true, false) => Ok(Ended::Passed),
            (false, false, true) => Ok(Ended::Failed),
            _ => bail!(
                "`{}` neither passed nor failed; see {}",
                self.name,
                log.display()
            ),
        }
    }

    /// Whether `cargo test` for its target succeeds, and all that is said meanwhile.
    fn cargo(&self, tree: &Path, build: &Path, rest: &[&str]) -> anyhow::Result<(bool, String)> {
        let target = match self.target.as_str() {
            "lib" => vec!["--lib"],
            file => vec!["--test", file],
        };
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(tree)
            .args(["test", "--locked", "--package", &self.package])
            .args(target)
            .arg("--target-dir")
            .arg(build)
            .args(rest)
            .output()
            .context("cargo cannot be started")?;
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ok((output.status.success(), said))
    }
}

/// Runs them all; how many were noticed. Prints a line for each.
///
/// # Errors
/// If a named test fails on the unchanged code, a mutant is not noticed, or one cannot be tried.
#[expect(clippy::print_stdout, reason = "this is what a person waits for")]
pub fn run(tree: &Path, work: &Path) -> anyhow::Result<usize> {
    let mutants = Mutants::read(tree)?;
    let (copy, build) = (work.join("tree"), work.join("build"));
    copy_tree(tree, &copy)?;
    let tests: BTreeSet<&Test> = mutants.mutant.iter().map(|m| &m.test).collect();
    for (n, test) in tests.iter().enumerate() {
        let ended = test.run(&copy, &build, &work.join(format!("unchanged-{n}.log")))?;
        ensure!(
            ended == Ended::Passed,
            "`{}` fails on the unchanged code",
            test.name
        );
    }
    let mut unnoticed = Vec::new();
    for mutant in &mutants.mutant {
        let edits: Vec<(PathBuf, String)> = mutant
            .edit
            .iter()
            .map(|edit| Ok((copy.join(&edit.file), edit.applied(&copy)?)))
            .collect::<anyhow::Result<_>>()
            .with_context(|| mutant.name.clone())?;
        let before: Vec<(PathBuf, Vec<u8>)> = edits
            .iter()
            .map(|(file, _)| Ok((file.clone(), std::fs::read(file)?)))
            .collect::<anyhow::Result<_>>()?;
        for (file, text) in &edits {
            std::fs::write(file, text)?;
        }
        let ended = mutant
            .test
            .run(&copy, &build, &work.join(format!("{}.log", mutant.name)));
        for (file, text) in &before {
            std::fs::write(file, text)?;
        }
        let noticed = ended.with_context(|| mutant.name.clone())? == Ended::Failed;
        println!(
            "{} {}: {} ({})",
            if noticed {
                "noticed    "
            } else {
                "NOT NOTICED"
            },
            mutant.name,
            mutant.what,
            mutant.test.name
        );
        if !noticed {
            unnoticed.push(mutant.name.as_str());
        }
    }
    ensure!(
        unnoticed.is_empty(),
        "not noticed: {}",
        unnoticed.join(", ")
    );
    Ok(mutants.mutant.len())
}

/// Copies what git knows of the tree, changes that are not committed included.
fn copy_tree(tree: &Path, copy: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git")
        .current_dir(tree)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .context("git cannot be started")?;
    ensure!(listed.status.success(), "git does not list the files");
    for name in listed.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = std::str::from_utf8(name).context("a file name is not UTF-8")?;
        let (from, to) = (tree.join(name), copy.join(name));
        let Ok(bytes) = std::fs::read(&from) else {
            // removed and not committed yet
            continue;
        };
        // what has not changed keeps its time, so that cargo builds only what it must
        if std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::copy(&from, &to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate with this library and build script, and what became of its test `red`.
    fn ended(library: &str, script: &str) -> anyhow::Result<Ended> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        write(
            "Cargo.toml",
            "[package]\nname = \"small\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n",
        );
        write(
            "Cargo.lock",
            "version = 4\n\n[[package]]\nname = \"small\"\nversion = \"0.0.0\"\n",
        );
        write("src/lib.rs", library);
        write("build.rs", script);
        let test = Test {
            package: "small".into(),
            target: "lib".into(),
            name: "red".into(),
        };
        test.run(
            dir.path(),
            &dir.path().join("build"),
            &dir.path().join("log"),
        )
    }

    #[test]
    fn only_a_named_test_that_fails_has_noticed() {
        const SCRIPT: &str = "fn main() {}";
        let test = |body: &str| ended(&format!("#[test] fn red() {{ {body} }}"), SCRIPT);
        assert_eq!(test("").unwrap(), Ended::Passed);
        assert_eq!(test("panic!()").unwrap(), Ended::Failed);
        // the build fails, or is killed
        let said = test("let n: u8 = \"\";").unwrap_err().to_string();
        assert!(said.contains("cannot be built"), "{said}");
        let killed = "fn main() { std::process::abort() }";
        let said = ended("#[test] fn red() {}", killed).unwrap_err();
        assert!(said.to_string().contains("cannot be built"), "{said}");
        // the test's process is killed, or there is no such test, whatever else fails
        for library in [
            "#[test] fn red() { std::process::abort() }",
            "#[test] fn other() { panic!() }",
        ] {
            let said = ended(library, SCRIPT).unwrap_err().to_string();
            assert!(said.contains("neither passed nor failed"), "{said}");
        }
    }
}
