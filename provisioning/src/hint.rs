//! Commands as a person is told to type them: whole, with that person's own paths, ready for a shell.

use std::net::IpAddr;
use std::path::Path;

use scc_common::lang::Lang;

use crate::index::Entry;

/// `authority init`.
#[must_use]
pub(crate) fn init(authority: &Path) -> String {
    format!("`scc-provision authority init {}`", path(authority))
}

/// `site list`.
#[must_use]
pub(crate) fn list(authority: &Path) -> String {
    format!("`scc-provision site list --authority {}`", path(authority))
}

/// `site issue`, into the folder `out`.
#[must_use]
pub(crate) fn site_issue(authority: &Path, id: &str, out: &str) -> String {
    format!(
        "`scc-provision site issue {} --authority {} --out {}`",
        word(id),
        path(authority),
        word(out)
    )
}

/// `hub issue` for all names of an earlier certificate, into the folder `out`. Where the index does not
/// know them all, it says that some are to be added: a hub without its address lets no agent in.
#[must_use]
pub(crate) fn hub_issue(authority: &Path, earlier: &Entry, out: &str, lang: Lang) -> String {
    let mut names = format!("--name {}", word(&earlier.id));
    for name in earlier.also.iter().flatten() {
        let option = match name.parse::<IpAddr>() {
            Ok(_) => "--address",
            Err(_) => "--dns",
        };
        names.push_str(&format!(" {option} {}", word(name)));
    }
    let more = match earlier.also {
        Some(_) => "",
        None => lang.pick(
            "; tambahkan --address dan --dns seperti dahulu",
            "; add --address and --dns as before",
        ),
    };
    format!(
        "`scc-provision hub issue --authority {} {names} --out {}`{more}",
        path(authority),
        word(out)
    )
}

/// `authority crl`, with a copy to carry to the hub.
#[must_use]
pub(crate) fn crl(authority: &Path) -> String {
    format!(
        "`scc-provision authority crl --authority {} --crl-out {}`",
        path(authority),
        crate::authority::CRL
    )
}

fn path(path: &Path) -> String {
    word(&path.display().to_string())
}

/// One word of a POSIX shell.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
