//! Whether this box can run with what its configuration points to: the identity and the place of
//! the buffer. Looks only; makes and changes nothing.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};
use scc_common::config::{ConfigError, Document};
use scc_common::identity;
use toml::Spanned;

use super::{Config, Shape};

/// Finds the first thing that does not stand.
pub(super) fn check(doc: &Document<Shape>, config: &Config) -> Result<(), ConfigError> {
    state_dir(doc, config)?;
    identity(doc, config)
}

/// The folder, or the nearest one above it that is there: in it the rest will be made.
pub(crate) fn nearest(dir: &Path) -> Option<&Path> {
    dir.ancestors().find(|path| path.exists())
}

/// Whether this process may make files in a folder.
pub(crate) fn writable(dir: &Path) -> rustix::io::Result<()> {
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, dir, needed, AtFlags::EACCESS)
}

fn state_dir(doc: &Document<Shape>, config: &Config) -> Result<(), ConfigError> {
    let shape = &doc.value;
    let dir = shape.state_dir.get_ref();
    let wrong = |what: String| Err(doc.wrong(shape.state_dir.span().start, "state_dir", what));
    if !dir.is_absolute() {
        return wrong(
            "must be an absolute path, or it would move with the folder of the start".into(),
        );
    }
    // what is not there yet will be made: then its nearest folder must allow it
    let Some(there) = nearest(dir) else {
        return wrong(format!("{} cannot be reached", dir.display()));
    };
    if !there.is_dir() {
        return wrong(format!("{} is not a folder", there.display()));
    }
    if let Err(why) = writable(there) {
        return wrong(format!("{} cannot be written: {why}", there.display()));
    }
    let least = config.buffer.min_free_bytes;
    match (crate::capture::health::disk(there), &shape.buffer.min_free_bytes) {
        (Some((total, _)), Some(given)) if least >= total => Err(doc.wrong(
            given.span().start,
            "min_free_bytes",
            format!("{least} is more than the whole file system of state_dir has ({total}); nothing could ever be stored"),
        )),
        _ => Ok(()),
    }
}

fn identity(doc: &Document<Shape>, config: &Config) -> Result<(), ConfigError> {
    let files = &doc.value.identity;
    let wrong = |at: &Spanned<PathBuf>, key: &str, what: &dyn std::fmt::Display| {
        doc.wrong(at.span().start, key, what.to_string())
    };
    let chain = identity::certificates(files.certificate.get_ref())
        .map_err(|e| wrong(&files.certificate, "certificate", &e))?;
    identity::private_key(files.key.get_ref()).map_err(|e| wrong(&files.key, "key", &e))?;
    identity::trust_anchors(files.hub_ca.get_ref())
        .map_err(|e| wrong(&files.hub_ca, "hub_ca", &e))?;
    let named = chain.first().map(identity::agent_of).transpose();
    match named.map_err(|e| wrong(&files.certificate, "certificate", &e))? {
        Some(named) if named != config.agent => {
            let what = format!(
                "this is the certificate of `{named}`, and this box is `{}`; install its own",
                config.agent
            );
            return Err(wrong(&files.certificate, "certificate", &what));
        }
        _ => {}
    }
    let given = &config.identity;
    identity::pair(&given.certificate, &given.key).map_err(|e| wrong(&files.key, "key", &e))?;
    identity::agent_tls(&given.certificate, &given.key, &given.hub_ca)
        .map(drop)
        .map_err(|e| wrong(&files.certificate, "certificate", &e))
}
