//! What can go wrong, said so that the reader knows what to do next, in both languages.
//!
//! `Display` is English; [`Error::text`] is what the technician sees, in the language asked for.
//! What is wrong in a file, in a certificate read from the disk, or with the system is said in
//! English only, see [`Error::text`].

use std::io;
use std::path::{Path, PathBuf};

use scc_common::config::{ConfigError, EXIT_CONFIG};
use scc_common::id::AgentId;
use scc_common::identity::IdentityError;
use scc_common::lang::Lang;

use crate::hint;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{}: {why}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What the system said.
        why: String,
    },
    /// `authority init` on a folder that is in use.
    #[error(
        "{}: there is an authority here already, or a part of one, and it stays as it is; name another folder", dir.display()
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// No authority in the named folder.
    #[error(
        "{}: no authority here (no index.toml); name its folder with --authority, or make one with {}", dir.display(), hint::init(dir)
    )]
    NoAuthority {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process works on the same authority.
    #[error("{}: another scc-provision is at work on this authority; wait until it has ended", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// A key that does not belong to the certificate beside it.
    #[error(
        "{}: this key does not belong to the certificate beside it; restore the folder from the authority's backup", key.display()
    )]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
    },
    /// The output folder already holds a key.
    #[error(
        "{}: there is a key here already; name an empty folder, or say --replace", key.display()
    )]
    KeyInTheWay {
        /// The key file.
        key: PathBuf,
    },
    /// The machine's clock cannot be right.
    #[error(
        "this machine's clock says {now}, which cannot be; set it, or every certificate will have wrong dates"
    )]
    Clock {
        /// What it says.
        now: String,
    },
    /// A certificate would outlive its issuing level.
    #[error("the issuing level itself ends on {end}; give at most --days {days}")]
    TooLong {
        /// End of the issuing level.
        end: String,
        /// Whole days left to it.
        days: i64,
    },
    /// A name that cannot stand in a certificate.
    #[error("`{name}` cannot stand in a certificate: {}", why.text(Lang::En))]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: NameFault,
    },
    /// The register does not know the site.
    #[error("{}: no site `{id}` is declared here; declare it first, or correct the id", fleet.display())]
    Undeclared {
        /// The site.
        id: AgentId,
        /// The register's file.
        fleet: PathBuf,
    },
    /// Nothing was ever issued for the site.
    #[error(
        "no certificate was issued for `{id}`; {} shows all",
        hint::list(authority)
    )]
    NeverIssued {
        /// The site.
        id: AgentId,
        /// The authority's folder.
        authority: PathBuf,
    },
    /// The site has no certificate with that serial number.
    #[error(
        "`{id}` has no certificate with the serial number {serial}; {} shows all",
        hint::list(authority)
    )]
    NoSuchSerial {
        /// The site.
        id: AgentId,
        /// The serial number.
        serial: String,
        /// The authority's folder.
        authority: PathBuf,
    },
    /// A configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate on disk is wrong.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate library refused.
    #[error("the certificate library refused: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The index could not be written as TOML.
    #[error("the index cannot be written: {0}")]
    Index(#[from] toml::ser::Error),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers; restart the machine and try again")]
    NoRandomness,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameFault {
    /// Nothing but white space.
    Empty,
    /// Longer than X.509 allows.
    Long {
        /// What it allows, in characters.
        most: usize,
    },
    /// Control characters.
    Control,
    /// An IP address where a host name should be.
    Address,
    /// No host name at all.
    NoHost,
}

impl NameFault {
    fn text(self, lang: Lang) -> String {
        match self {
            Self::Empty => lang.pick("kosong", "it is empty").into(),
            Self::Long { most } => match lang {
                Lang::Id => format!("lebih panjang dari {most} huruf"),
                Lang::En => format!("longer than {most} characters"),
            },
            Self::Control => lang
                .pick("berisi karakter kendali", "it holds control characters")
                .into(),
            Self::Address => lang
                .pick(
                    "alamat ditulis sesudah --address",
                    "an address goes after --address",
                )
                .into(),
            Self::NoHost => lang
                .pick(
                    "bukan nama host (huruf, angka, tanda hubung, titik)",
                    "not a host name (letters, digits, hyphens, dots)",
                )
                .into(),
        }
    }
}

impl Error {
    pub(crate) fn name(name: &str, why: NameFault) -> Self {
        Self::Name {
            name: name.to_owned(),
            why,
        }
    }

    pub(crate) fn file(file: &Path, error: &io::Error) -> Self {
        Self::File {
            file: file.to_path_buf(),
            why: error.to_string(),
        }
    }

    /// The exit status: 2 if the command or a file that a person wrote is wrong, otherwise 1.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Exists { .. }
            | Self::NoAuthority { .. }
            | Self::KeyInTheWay { .. }
            | Self::TooLong { .. }
            | Self::Name { .. }
            | Self::Undeclared { .. }
            | Self::NeverIssued { .. }
            | Self::NoSuchSerial { .. }
            | Self::Config(_) => EXIT_CONFIG,
            Self::File { .. }
            | Self::Busy { .. }
            | Self::KeyMismatch { .. }
            | Self::Clock { .. }
            | Self::Identity(_)
            | Self::Certificate(_)
            | Self::Index(_)
            | Self::NoRandomness => 1,
        }
    }

    /// One sentence for a person. Indonesian, but for `File`, `Config`, `Identity`, `Certificate` and
    /// `Index`, which have English only.
    #[must_use]
    pub fn text(&self, lang: Lang) -> String {
        match lang {
            Lang::En => self.to_string(),
            Lang::Id => self.indonesian(),
        }
    }

    fn indonesian(&self) -> String {
        match self {
            Self::Exists { dir } => format!(
                "{}: di sini sudah ada otoritas, atau sebagian darinya, dan dibiarkan seperti semula; sebutkan folder lain",
                dir.display()
            ),
            Self::NoAuthority { dir } => format!(
                "{}: tidak ada otoritas di sini (tidak ada index.toml); sebutkan foldernya dengan --authority, atau buat dengan {}",
                dir.display(),
                hint::init(dir)
            ),
            Self::Busy { dir } => format!(
                "{}: scc-provision lain sedang memakai otoritas ini; tunggu sampai selesai",
                dir.display()
            ),
            Self::KeyMismatch { key } => format!(
                "{}: kunci ini bukan pasangan sertifikat di sebelahnya; pulihkan folder dari cadangan otoritas",
                key.display()
            ),
            Self::KeyInTheWay { key } => format!(
                "{}: di sini sudah ada kunci; sebutkan folder kosong, atau pakai --replace",
                key.display()
            ),
            Self::Clock { now } => format!(
                "jam komputer ini menunjuk {now}, itu tidak mungkin; betulkan dulu, kalau tidak semua tanggal sertifikat salah"
            ),
            Self::TooLong { end, days } => {
                format!("tingkat penerbit sendiri berakhir {end}; beri paling banyak --days {days}")
            }
            Self::Name { name, why } => {
                format!(
                    "`{name}` tidak dapat ditulis di sertifikat: {}",
                    why.text(Lang::Id)
                )
            }
            Self::Undeclared { id, fleet } => format!(
                "{}: lokasi `{id}` belum terdaftar di sini; daftarkan dulu, atau betulkan id-nya",
                fleet.display()
            ),
            Self::NeverIssued { id, authority } => format!(
                "belum pernah ada sertifikat untuk `{id}`; lihat semuanya dengan {}",
                hint::list(authority)
            ),
            Self::NoSuchSerial {
                id,
                serial,
                authority,
            } => format!(
                "`{id}` tidak punya sertifikat bernomor seri {serial}; lihat semuanya dengan {}",
                hint::list(authority)
            ),
            Self::NoRandomness => {
                "sistem tidak memberi bilangan acak; nyalakan ulang komputer lalu coba lagi".into()
            }
            // English in both languages: `common` says its own in English (docs/teknisi.md explains
            // these sentences), and what the system or a library says nobody has translated.
            Self::File { .. }
            | Self::Config(_)
            | Self::Identity(_)
            | Self::Certificate(_)
            | Self::Index(_) => self.to_string(),
        }
    }
}
