//! Holds `docs/design/wire.cddl` and `export.cddl` and the code together: every map that the code
//! writes has exactly the keys of one map in the documents, and every map in them is one that the code
//! writes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod samples;

use std::collections::BTreeSet;

use ciborium::Value;
use samples::samples;

type Keys = BTreeSet<String>;

/// The keys of each `{ … }` in the documents; a choice of one-entry maps counts one by one.
fn documented() -> BTreeSet<Keys> {
    let text = concat!(
        include_str!("../../docs/design/wire.cddl"),
        include_str!("../../docs/design/export.cddl")
    );
    let mut maps = BTreeSet::new();
    let mut open: Vec<(Keys, i32)> = Vec::new();
    let code: String = text
        .lines()
        .map(|line| line.split(';').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
        .replace("  range,", "  first: seq, last: seq,")
        .replace("{ range }", "{ first: seq, last: seq }");
    let mut word = String::new();
    let mut array = 0;
    for c in code.chars() {
        match c {
            '{' => open.push((Keys::new(), array)),
            '}' => {
                maps.insert(open.pop().expect("braces match").0);
            }
            '[' => array += 1,
            ']' => array -= 1,
            ':' => {
                // a name in an array is no key
                if let Some((keys, depth)) = open.last_mut()
                    && *depth == array
                {
                    keys.insert(word.clone());
                }
            }
            _ => {}
        }
        match c {
            'a'..='z' | '0'..='9' | '_' | '-' => word.push(c),
            '"' | ':' => {}
            _ => word.clear(),
        }
        if c == ':' {
            word.clear();
        }
    }
    maps
}

fn collect(value: &Value, maps: &mut BTreeSet<Keys>) {
    match value {
        Value::Map(entries) => {
            let key = |k: &Value| k.as_text().expect("keys are text").to_owned();
            maps.insert(entries.iter().map(|(k, _)| key(k)).collect());
            entries.iter().for_each(|(_, v)| collect(v, maps));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, maps)),
        _ => {}
    }
}

#[test]
fn the_document_and_the_code_name_the_same_maps() {
    let mut written = BTreeSet::new();
    for (_, sample) in samples() {
        collect(&ciborium::from_reader(&sample[..]).unwrap(), &mut written);
    }
    let documented = documented();
    let only =
        |a: &BTreeSet<Keys>, b: &BTreeSet<Keys>| a.difference(b).cloned().collect::<Vec<_>>();
    assert_eq!(
        only(&written, &documented),
        Vec::<Keys>::new(),
        "not in the documents"
    );
    assert_eq!(
        only(&documented, &written),
        Vec::<Keys>::new(),
        "no such map in the code"
    );
}
