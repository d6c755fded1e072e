//! What `status` and `doctor` call the faults of a device, and the first thing to do about each. The
//! technician's page (docs/teknisi.md) has the same, with more room.

use scc_common::lang::Lang;
use scc_common::record::Cause;

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
    fn the_technicians_page_has_a_row_for_every_cause() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/teknisi.md");
        let page = std::fs::read_to_string(page).unwrap();
        for cause in Cause::ALL {
            let row = format!("| `{}` |", cause.name());
            assert!(page.contains(&row), "{row} is missing");
        }
    }
}
