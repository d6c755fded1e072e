//! `scc-hub import FILE`: what a pulled card still had, brought into the ledger by an operator.

use std::io::{self, Write};
use std::path::Path;

use scc_common::clock::SystemClock;
use scc_common::export::ExportError;
use scc_common::lang::Lang;

use crate::config::Config;
use crate::ingest::import::{self, ImportError, Imported};
use crate::lock::{self, LockError};
use crate::media::{Media, MediaError};
use crate::store::{Store, StoreError};

/// Why nothing, or not all, was imported; in the language of whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Said to the person, with what to do.
    #[error("{0}")]
    Said(String),
    /// The terminal is gone.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Imports a file and prints what became of it.
///
/// # Errors
/// [`CommandError`]; what was stored before it stays, and repeating the command stores the rest.
pub async fn run(
    config: &Config,
    file: &Path,
    lang: Lang,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let said = |error: Trouble| CommandError::Said(error.words(file, lang));
    let _lock = lock::take(&config.state_dir).map_err(|e| said(e.into()))?;
    let store = Store::open(&config.database()).map_err(|e| said(e.into()))?;
    let media = Media::open(&config.media()).map_err(|e| said(e.into()))?;
    let done = import::import(&store, &media, &SystemClock::new(), who(), file).await;
    let done = done.map_err(|e| said(e.into()))?;
    Ok(write!(out, "{}", summary(&done, lang))?)
}

/// The person at the terminal, as the system knows them: for the audit, not for a decision.
fn who() -> String {
    let name = ["SUDO_USER", "USER"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    name.map_or_else(|| "terminal".into(), |name| format!("terminal ({name})"))
}

fn summary(done: &Imported, lang: Lang) -> String {
    let agent = &done.agent;
    let c = &done.counts;
    let rows = [
        (c.stored, "catatan disimpan", "records stored"),
        (c.known, "sudah ada", "stored before"),
        (
            c.conflicts,
            "bernomor sama dengan isi lain; keduanya disimpan",
            "have the number of another record; both are kept",
        ),
        (
            c.lost,
            "tidak terbaca pada kartu, tampil sebagai celah sejauh belum ada di pusat",
            "not readable on the card, gaps as far as the hub does not have them",
        ),
    ];
    let mut text = format!("{agent}:\n");
    for (n, id, en) in rows {
        text.push_str(&format!("{n:>8} {}\n", lang.pick(id, en)));
    }
    text.push_str(lang.pick(
        "Nyalakan pusat: `sudo systemctl start scc-hub`.\n",
        "Start the hub: `sudo systemctl start scc-hub`.\n",
    ));
    text
}

/// Everything that can be in the way.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Trouble {
    Lock(#[from] LockError),
    Store(#[from] StoreError),
    Media(#[from] MediaError),
    Import(#[from] ImportError),
}

impl Trouble {
    fn words(&self, file: &Path, lang: Lang) -> String {
        let (id, en) = match self {
            Self::Lock(LockError::Taken(_)) => (
                "pusat sedang berjalan; jalankan `sudo systemctl stop scc-hub`, ulangi perintah ini, lalu \
                 `sudo systemctl start scc-hub`: kotak-kotak menunggu dan tidak ada yang hilang"
                    .to_owned(),
                "the hub is running; run `sudo systemctl stop scc-hub`, repeat this command, then \
                 `sudo systemctl start scc-hub`: the boxes wait and nothing is lost"
                    .to_owned(),
            ),
            Self::Import(ImportError::File(error)) => {
                return not_taken(file, error, lang);
            }
            Self::Import(ImportError::Unknown(agent)) => (
                format!(
                    "`{agent}` belum terdaftar; betulkan `--agent` saat ekspor, atau daftarkan dengan \
                     `scc-hub fleet apply`; tidak ada yang disimpan"
                ),
                format!(
                    "the register has no `{agent}`; correct `--agent` of the export, or declare it with \
                     `scc-hub fleet apply`; nothing was stored"
                ),
            ),
            other => (
                format!("{other}; yang sudah tersimpan tetap ada, ulangi perintah ini sesudahnya"),
                format!("{other}; what is stored stays, repeat this command afterwards"),
            ),
        };
        lang.pick(&id, &en).to_owned()
    }
}

fn not_taken(file: &Path, error: &ExportError, lang: Lang) -> String {
    let (file, why) = (file.display(), error.words(lang));
    match lang {
        Lang::Id => format!("{file}: {why}; tidak ada yang disimpan"),
        Lang::En => format!("{file}: {why}; nothing was stored"),
    }
}
