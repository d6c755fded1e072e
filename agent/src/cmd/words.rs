//! What the commands call things: streams, the clock's worth, the faults of a device and of the link,
//! and the first thing to do about each. The technician's page (docs/teknisi.md) has the same, with
//! more room.

use std::io::ErrorKind;
use std::path::Path;

use scc_common::clock::ClockQuality;
use scc_common::identity::IdentityError;
use scc_common::lang::Lang;
use scc_common::record::Cause;
use scc_common::stream::Stream;

use crate::uplink::link::Trouble;

/// A stream, as the hub's pages call it.
#[must_use]
pub fn stream(stream: Stream, lang: Lang) -> &'static str {
    match stream {
        Stream::Event => lang.pick("kejadian", "event"),
        Stream::Attendance => lang.pick("absensi", "attendance"),
        Stream::Warehouse => lang.pick("warehouse", "warehouse"),
        Stream::Health => lang.pick("kesehatan", "health"),
        Stream::Snapshot => lang.pick("cuplikan", "snapshot"),
        Stream::Segment => lang.pick("rekaman", "segment"),
    }
}

/// What the wall clock is worth.
#[must_use]
pub fn clock(quality: ClockQuality, lang: Lang) -> &'static str {
    match quality {
        ClockQuality::Unconfirmed => lang.pick("belum dipastikan", "unconfirmed"),
        ClockQuality::Hub => lang.pick("sesuai pusat", "confirmed by the hub"),
        ClockQuality::Ntp => lang.pick("sesuai NTP", "set by NTP"),
    }
}

/// What is wrong with the link.
#[must_use]
pub fn trouble(trouble: Trouble, lang: Lang) -> &'static str {
    match trouble {
        Trouble::Identity => lang.pick(
            "identitas kotak ini tidak dapat dipakai",
            "this box's identity cannot be used",
        ),
        Trouble::Network => lang.pick("pusat tidak terjangkau", "the hub cannot be reached"),
        Trouble::Tls => lang.pick(
            "sambungan aman (TLS) dengan pusat gagal",
            "the secure connection (TLS) to the hub failed",
        ),
        Trouble::Refused => lang.pick("pusat menolak", "the hub refuses"),
        Trouble::Silent => lang.pick("pusat tidak menjawab", "the hub is silent"),
        Trouble::Ended => lang.pick("sambungan berakhir", "the connection ended"),
        Trouble::Buffer => lang.pick("penyangga tidak dapat dipakai", "the buffer cannot be used"),
        Trouble::Late => lang.pick("jawaban pusat terlambat", "the hub answers late"),
    }
}

/// What is wrong with the link, and what was seen of it: evidence in English, to be read out over the
/// telephone. `why` is the sentence for the log, `KIND: WHAT WAS SEEN`; the kind is said in words here.
#[must_use]
pub fn link(kind: Trouble, why: &str, lang: Lang) -> String {
    let kind = trouble(kind, lang);
    match why.split_once(": ") {
        Some((_, seen)) => format!("{kind} ({seen})"),
        None => kind.to_owned(),
    }
}

/// Why an identity cannot be used; what the system or a library said of it stays as it is.
#[must_use]
pub fn identity(error: &IdentityError, lang: Lang) -> String {
    let id = match error {
        IdentityError::Unreadable { file, why } => {
            format!("{} tidak dapat dibaca ({why})", file.display())
        }
        IdentityError::Wrong { file, what } => {
            format!("{} tidak dapat dipakai ({what})", file.display())
        }
        IdentityError::Exposed { file } => format!(
            "{} dapat dibaca orang lain; jalankan `chmod 600` pada berkas itu",
            file.display()
        ),
        IdentityError::Profile(what) => format!("sertifikat tidak menurut profil ({what})"),
        IdentityError::Tls(what) => format!("identitas ditolak pustaka TLS ({what})"),
    };
    lang.pick(&id, &error.to_string()).to_owned()
}

/// How a person who may not read something runs the same command as the user who may. `config`: the
/// configuration that was asked for.
#[must_use]
pub fn as_agent(command: &str, config: &Path) -> String {
    let mut line = format!("sudo -u scc-agent scc-agent {command}");
    if config != Path::new(super::CONFIG) {
        line.push_str(" --config ");
        line.push_str(&config.to_string_lossy());
    }
    line
}

/// Why what an agent keeps in its state directory cannot be shown, and what to do. `again`: what
/// [`as_agent`] says of the command that the person ran.
#[must_use]
pub fn unreadable(path: &Path, error: &std::io::Error, again: &str, lang: Lang) -> String {
    let path = path.display();
    let (id, en) = match error.kind() {
        ErrorKind::NotFound => (
            format!(
                "agen belum pernah berjalan di sini: {path} tidak ada; nyalakan dengan `sudo systemctl \
                 enable --now scc-agent`, atau sebut konfigurasi yang lain dengan `--config`"
            ),
            format!(
                "no agent has run here yet: there is no {path}; start it with `sudo systemctl \
                 enable --now scc-agent`, or name another configuration with `--config`"
            ),
        ),
        ErrorKind::PermissionDenied => (
            format!("{path} tidak boleh dibaca oleh pengguna ini; jalankan `{again}`"),
            format!("this user may not read {path}; run `{again}`"),
        ),
        // what serde_json says of a text that is no status of this version, or not a whole one
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => (
            format!(
                "{path} ditulis versi lain, atau terpotong saat listrik padam ({error}); nyalakan \
                 ulang agen: `sudo systemctl restart scc-agent`"
            ),
            format!(
                "{path} is of another version, or was cut short by a power failure ({error}); \
                 restart the agent: `sudo systemctl restart scc-agent`"
            ),
        ),
        _ => (
            format!("{path} tidak dapat dibaca ({error}); periksa kartunya"),
            format!("{path} cannot be read ({error}); check the card"),
        ),
    };
    lang.pick(&id, &en).to_owned()
}

/// The cause in words.
#[must_use]
pub fn cause(cause: Cause, lang: Lang) -> &'static str {
    match cause {
        Cause::Offline => lang.pick(
            "tidak menjawab (listrik, kabel?)",
            "no answer (power, cable?)",
        ),
        Cause::Refused => lang.pick("menolak sambungan", "refuses the connection"),
        Cause::Unresolved => lang.pick("namanya tidak dikenal", "its name does not resolve"),
        Cause::Unauthorized => lang.pick("nama pengguna/sandi ditolak", "user or password refused"),
        Cause::Stalled => lang.pick("tersambung tetapi diam", "connected, but silent"),
        Cause::NoVideo => lang.pick("tidak ada video", "no video"),
        Cause::Garbage => lang.pick("mengirim data rusak", "sends garbage"),
        Cause::Crashed => lang.pick("pembacanya berhenti", "its reader crashed"),
        Cause::Silent => lang.pick("port terbuka tetapi diam", "port open, but silent"),
        Cause::KeyRefused => lang.pick("comm key ditolak", "comm key refused"),
        Cause::Busy => lang.pick("dipakai program lain", "in use by another program"),
        Cause::Incomplete => lang.pick("tidak terbaca sampai habis", "not read to the end"),
        Cause::UnknownFormat => lang.pick("format tidak dikenal", "unknown format"),
        Cause::Encrypted => lang.pick("memakai mode terenkripsi", "speaks the encrypted dialect"),
        Cause::ClockDrift => lang.pick("jamnya salah", "its clock is wrong"),
        Cause::BufferFull => lang.pick("penyangga penuh", "the buffer is full"),
        Cause::Starting => lang.pick("baru mulai dilihat", "only just begun to look"),
        Cause::Other => lang.pick("sebab lain", "another cause"),
    }
}

/// The first thing to do about it.
#[must_use]
pub fn remedy(cause: Cause, lang: Lang) -> &'static str {
    match cause {
        Cause::Offline => lang.pick(
            "periksa listrik dan kabelnya, lalu alamatnya",
            "check its power and cable, then its address",
        ),
        Cause::Refused => lang.pick(
            "periksa alamat dan port di agent.toml, lalu apakah layanannya dinyalakan di menunya",
            "check address and port in agent.toml, then whether its menu has the service on",
        ),
        Cause::Unresolved => lang.pick(
            "tulis alamat IP di agent.toml",
            "write its IP address into agent.toml",
        ),
        Cause::Unauthorized => lang.pick(
            "perbaiki `user` dan `password_file`",
            "correct `user` and `password_file`",
        ),
        Cause::Stalled | Cause::Silent => lang.pick("nyalakan ulang perangkat itu", "restart it"),
        Cause::NoVideo => lang.pick(
            "pilih H.264 di menu kamera, periksa alamat alirannya",
            "choose H.264 in its menu, check the path of the stream",
        ),
        Cause::Garbage => lang.pick(
            "pastikan alamat itu memang milik perangkat ini",
            "make sure that the address is this device's",
        ),
        Cause::Crashed => lang.pick(
            "bila berulang, kirim `journalctl -u scc-agent` ke pusat",
            "if it happens again, send `journalctl -u scc-agent` to the hub",
        ),
        Cause::KeyRefused => lang.pick(
            "samakan `comm_key_file` dengan menu mesin",
            "make `comm_key_file` agree with the terminal's menu",
        ),
        Cause::Busy => lang.pick(
            "tutup aplikasi absensi lama di komputer kantor",
            "close the old attendance program on the office's computer",
        ),
        Cause::Incomplete | Cause::Starting => lang.pick(
            "tunggu beberapa menit; bila tetap, periksa kabelnya",
            "wait some minutes; if it stays, check its cable",
        ),
        Cause::UnknownFormat => lang.pick(
            "catat merek, tipe, versi firmware, kirim ke pusat",
            "send brand, type and firmware version to the hub",
        ),
        Cause::Encrypted => lang.pick(
            "matikan enkripsi di menu mesin",
            "turn encryption off in its menu",
        ),
        Cause::ClockDrift => lang.pick("betulkan jam di menunya", "set its clock in its menu"),
        Cause::BufferFull => lang.pick(
            "periksa kartu dan jalur ke pusat",
            "check the card and the link to the hub",
        ),
        Cause::Other => lang.pick("perbarui program", "update this program"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_is_told_which_user_may() {
        let denied = std::io::Error::from(ErrorKind::PermissionDenied);
        let path = Path::new("/var/lib/scc-agent/status.json");
        for (lang, part) in [(Lang::Id, "tidak boleh dibaca"), (Lang::En, "may not read")] {
            let again = as_agent("status", Path::new("/etc/scc/agent.toml"));
            let said = unreadable(path, &denied, &again, lang);
            assert!(said.contains(part), "{said}");
            assert!(said.contains("/var/lib/scc-agent/status.json"), "{said}");
            assert!(
                said.contains("`sudo -u scc-agent scc-agent status`"),
                "{said}"
            );
        }
        assert_eq!(
            as_agent("buffer stat", Path::new("uji/agent.toml")),
            "sudo -u scc-agent scc-agent buffer stat --config uji/agent.toml"
        );
    }

    #[test]
    fn a_status_that_this_version_cannot_read_is_not_blamed_on_the_card() {
        use crate::status::{Status, path};
        let dir = tempfile::tempdir().unwrap();
        for (kept, cut) in [
            ("{\"agent\": \"rsud\"}", false),
            ("{\"agent\":", true),
            ("", true),
        ] {
            std::fs::write(path(dir.path()), kept).unwrap();
            let error = Status::read(dir.path()).unwrap_err();
            assert_eq!(error.kind() == ErrorKind::UnexpectedEof, cut, "{error}");
            for (lang, part) in [(Lang::Id, "versi lain"), (Lang::En, "another version")] {
                let said = unreadable(&path(dir.path()), &error, "", lang);
                assert!(
                    said.contains(part) && said.contains("systemctl restart scc-agent"),
                    "{said}"
                );
            }
        }
        let failing = std::io::Error::from_raw_os_error(5);
        let said = unreadable(&path(dir.path()), &failing, "", Lang::Id);
        assert!(said.contains("periksa kartunya"), "{said}");
    }

    #[test]
    fn what_is_wrong_with_the_link_is_said_once_with_what_was_seen() {
        use crate::uplink::link::Closed;
        let seen = || "10.0.0.9:8883: no route".to_owned();
        for closed in [
            Closed::Identity(seen()),
            Closed::Network(seen()),
            Closed::Tls(seen()),
            Closed::Refused(seen()),
            Closed::Silent(seen()),
            Closed::Ended(seen()),
        ] {
            let kind = closed.trouble();
            for lang in [Lang::Id, Lang::En] {
                assert_eq!(
                    link(kind, &closed.to_string(), lang),
                    format!("{} ({})", trouble(kind, lang), seen())
                );
            }
        }
        assert_eq!(
            link(Trouble::Late, "acknowledgements are late", Lang::En),
            "the hub answers late"
        );
    }

    #[test]
    fn the_technicians_page_has_a_row_for_every_cause() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/teknisi.md");
        let page = std::fs::read_to_string(page).unwrap();
        for cause in Cause::ALL {
            let row = format!("| `{}` |", cause.name());
            assert!(page.contains(&row), "{row} is missing");
        }
    }
}
