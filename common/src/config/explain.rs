//! What the TOML reader complains of, told to the person who wrote the file: which key in which line,
//! and what would be right there, quoted from the example that is shipped with the program.
//!
//! The reader names a missing key by the table that lacks it, a wrong value by its place, and types
//! by their names in the program; the tree of the file turns places into keys, and the tree of the
//! example turns keys into right values.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, in the words of the file.
pub(super) struct Explained {
    /// Where it stands, in bytes.
    pub(super) at: usize,
    /// The last part of the key, where one can be named.
    pub(super) key: Option<String>,
    /// What is wrong and what would be right.
    pub(super) what: String,
}

/// Where the top-level keys must stand.
const TOP: &str = "above the first [table]";

/// The example with everything in it that a reader may leave out: `# key = value` and `# [table]`.
#[must_use]
pub fn uncommented(example: &str) -> String {
    let is_toml = |line: &str| {
        let key = line.split(" = ").next().unwrap_or_default();
        let named = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (named && line.contains(" = ")) || line.starts_with('[')
    };
    let lines = example.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_toml(rest) => rest,
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

pub(super) fn explain(text: &str, error: &toml::de::Error, example: &str) -> Explained {
    let example = uncommented(example);
    let example = Tree::of(&example);
    let span = error.span().unwrap_or(0..0);
    let message = one_line(error.message());
    let Some(tree) = Tree::of(text) else {
        return syntax(text, span, &message, example.as_ref());
    };
    let path = tree.path_of(&span);
    let sample = |path: &[String]| example.as_ref().and_then(|e| Some((e, e.find(path)?)));
    let explained = |key: Option<&String>, what: String| Explained {
        at: span.start,
        key: key.cloned(),
        what,
    };
    if let Some(field) = quoted_after(&message, "missing field ") {
        let mut path = path;
        let place = match sample(&path) {
            _ if path.is_empty() => TOP.to_owned(),
            Some((example, table)) if example.is_header(table) => {
                format!("under `{}`", example.written(table))
            }
            Some((example, table)) => {
                let name = path.last().map_or("", String::as_str);
                format!("as in `{}`", example.line(name, table))
            }
            None => "here".to_owned(),
        };
        path.push(field);
        let what = match sample(&path) {
            Some((example, value)) if example.is_header(value) => {
                let first = value.get_ref().as_table().and_then(|t| t.iter().next());
                let first = first.map(|(key, value)| example.line(key.get_ref(), value));
                format!(
                    "is missing; add a line `{}` and its keys below it, such as `{}`",
                    example.written(value),
                    first.unwrap_or_default()
                )
            }
            Some((example, value)) => {
                let line = example.line(path.last().map_or("", String::as_str), value);
                format!("is missing; add it {place}, such as `{line}`")
            }
            None => format!("is missing; add it {place}"),
        };
        return explained(path.last(), what);
    }
    if let Some(field) = quoted_after(&message, "unknown field ") {
        let known = message.split_once(", ").map_or("", |(_, known)| known);
        let home = example.as_ref().and_then(|e| e.home_of(&field));
        let what = match home {
            Some(home) => format!("is no key of this table; it belongs {home}"),
            None => format!("is no key of this table; {known}"),
        };
        return explained(Some(&field), what);
    }
    // "wanted" is what the reader says where a word of a closed list should stand
    let of_another_type = ["invalid type", "invalid value", "wanted "];
    if of_another_type.iter().any(|said| message.starts_with(said)) {
        let whole = tree.find_at(&span).is_some_and(DeValue::is_integer);
        let what = sample(&path).map(|(example, value)| {
            let line = example.line(path.last().map_or("", String::as_str), value);
            match value.get_ref() {
                _ if example.is_header(value) => format!(
                    "must be a table: a line `{}` and its keys below it",
                    example.written(value)
                ),
                DeValue::Integer(_) if whole => format!("is out of range; write it like `{line}`"),
                DeValue::Integer(_) => format!("must be a whole number, such as `{line}`"),
                DeValue::Boolean(_) => format!("must be true or false, such as `{line}`"),
                DeValue::Array(_) => format!("must be a list, such as `{line}`"),
                DeValue::Table(_) => format!("must be a table in braces, such as `{line}`"),
                _ => format!("must be text in quotes, such as `{line}`"),
            }
        });
        return explained(path.last(), what.unwrap_or(message));
    }
    explained(path.last(), message)
}

/// A text that is no TOML has no tree, so the key is read from its line.
fn syntax(text: &str, span: Range<usize>, message: &str, example: Option<&Tree<'_>>) -> Explained {
    let at = span.start;
    let named = text.get(span).filter(|named| bare(named));
    if message == "duplicate key"
        && let Some(named) = named
    {
        return Explained {
            at,
            key: Some(named.to_owned()),
            what: "is there twice; keep one of the two".into(),
        };
    }
    let begin = text
        .get(..at)
        .map_or(0, |before| before.rfind('\n').map_or(0, |n| n + 1));
    let line = text
        .get(begin..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    let key = line.split('=').next().unwrap_or_default().trim();
    let key = Some(key).filter(|key| bare(key));
    let sample = key.and_then(|key| example?.line_of(key));
    let what = match sample {
        Some(line) => format!("{message}; write it like `{line}`"),
        None if line.trim_start().starts_with('[') => {
            format!("{message}; a table begins with a line `[name]` or `[[name]]`")
        }
        None => format!("{message}; a line is `key = value`, and text stands in quotes"),
    };
    Explained {
        at,
        key: key.map(str::to_owned),
        what,
    }
}

fn bare(key: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !key.is_empty() && key.bytes().all(fits)
}

fn quoted_after(message: &str, before: &str) -> Option<String> {
    let rest = message.strip_prefix(before)?.strip_prefix('`')?;
    Some(rest.split_once('`')?.0.to_owned())
}

fn one_line(message: &str) -> String {
    message
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// A file as a tree that knows its places. A table begun by a header has the header's place; the
/// elements of a list have the list's key.
struct Tree<'t> {
    text: &'t str,
    root: Spanned<DeValue<'t>>,
}

impl<'t> Tree<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let root = DeTable::parse(text).ok()?;
        Some(Self {
            text,
            root: Spanned::new(0..0, DeValue::Table(root.into_inner())),
        })
    }

    /// The keys from the top to what stands at this place; none for the file as a whole.
    fn path_of(&self, span: &Range<usize>) -> Vec<String> {
        let mut found = Vec::new();
        if !span.is_empty() {
            self.each(&mut |path, key, value| {
                let here = value.span() == *span || key.is_some_and(|key| key == *span);
                if here && path.len() >= found.len() {
                    found = path.to_vec();
                }
            });
        }
        found
    }

    fn find_at(&self, span: &Range<usize>) -> Option<&DeValue<'t>> {
        let mut found = None;
        self.each(&mut |_, _, value| {
            if value.span() == *span {
                found = Some(value.get_ref());
            }
        });
        found
    }

    /// The first value with these keys.
    fn find(&self, path: &[String]) -> Option<&Spanned<DeValue<'t>>> {
        let mut found = None;
        self.each(&mut |here, key, value| {
            if found.is_none() && key.is_some() && here == path {
                found = Some(value);
            }
        });
        found
    }

    /// A right line for this key, in whichever table it is.
    fn line_of(&self, key: &str) -> Option<String> {
        let key = key.rsplit('.').next()?;
        let mut found = None;
        self.each(&mut |path, named, value| {
            let here = named.is_some() && path.last().is_some_and(|last| last == key);
            if found.is_none() && here && !self.is_header(value) {
                found = Some(self.line(key, value));
            }
        });
        found
    }

    /// Where a key belongs, if there is one table only that has it.
    fn home_of(&self, key: &str) -> Option<String> {
        let mut homes = std::collections::BTreeSet::new();
        self.each(&mut |path, named, value| {
            if let (Some((last, above)), Some(_)) = (path.split_last(), named)
                && last == key
                && !self.is_header(value)
            {
                homes.insert(above.to_vec());
            }
        });
        let mut homes = homes.into_iter();
        match (homes.next()?, homes.next()) {
            (home, None) if home.is_empty() => Some(TOP.to_owned()),
            (home, None) => Some(format!("under `{}`", self.written(self.find(&home)?))),
            _ => None,
        }
    }

    fn each<'s>(
        &'s self,
        visit: &mut impl FnMut(&[String], Option<Range<usize>>, &'s Spanned<DeValue<'t>>),
    ) {
        fn walk<'s, 't>(
            path: &mut Vec<String>,
            value: &'s Spanned<DeValue<'t>>,
            visit: &mut impl FnMut(&[String], Option<Range<usize>>, &'s Spanned<DeValue<'t>>),
        ) {
            match value.get_ref() {
                DeValue::Table(table) => {
                    for (key, value) in table.iter() {
                        path.push(key.get_ref().to_string());
                        visit(path, Some(key.span()), value);
                        walk(path, value, visit);
                        path.pop();
                    }
                }
                DeValue::Array(list) => {
                    for value in list.iter() {
                        visit(path, None, value);
                        walk(path, value, visit);
                    }
                }
                _ => {}
            }
        }
        walk(&mut Vec::new(), &self.root, visit);
    }

    fn written(&self, value: &Spanned<DeValue<'_>>) -> &'t str {
        self.text.get(value.span()).unwrap_or_default()
    }

    /// Whether it is a table, or a list of tables, that lines `[name]` begin.
    fn is_header(&self, value: &Spanned<DeValue<'_>>) -> bool {
        let written = self.written(value);
        match value.get_ref() {
            DeValue::Table(_) => !written.starts_with('{'),
            DeValue::Array(_) => written.starts_with("[["),
            _ => false,
        }
    }

    fn line(&self, key: &str, value: &Spanned<DeValue<'_>>) -> String {
        format!("{key} = {}", self.written(value))
    }
}
