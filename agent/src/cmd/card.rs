//! `scc-agent buffer check|export|import`: the card of a dead box, from a first look to the replacement
//! box.

use std::fmt::Write;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use scc_common::clock::SystemClock;
use scc_common::config::EXIT_CONFIG;
use scc_common::id::AgentId;
use scc_common::lang::Lang;
use scc_common::ranges::RangeSet;

use super::units::size;
use super::words::{as_agent, stream, unreadable};
use super::{print, refuse};
use crate::buffer::BufferError;
use crate::buffer::check::{self, Check};
use crate::buffer::export::{self, ExportFailure, Exported};
use crate::buffer::import::{self, ImportFailure, Imported};
use crate::config::{self, Config};

/// Exit status of a check that could not read the buffer.
const UNREADABLE: u8 = 2;

/// Ranges that a table names.
const RANGES: usize = 5;

/// Checks the buffer of a card, or of the configuration's state directory.
pub fn check(dir: Option<&Path>, file: &Path, lang: Lang) -> ExitCode {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => match config::state(file) {
            Ok(state) => state.dir,
            Err(error) => return refuse(&error, EXIT_CONFIG),
        },
    };
    let root = check::folder(&dir);
    match check::check(&root) {
        Ok(seen) => {
            print(&table(&seen, lang));
            ExitCode::from(u8::from(!seen.is_clean()))
        }
        Err(error) => refuse(&no_buffer(&root, &error, "check", lang), UNREADABLE),
    }
}

/// Exports the buffer of a card.
pub fn export(dir: &Path, to: &Path, agent: Option<AgentId>, lang: Lang) -> ExitCode {
    let root = check::folder(dir);
    match export::export(&root, agent, to, &SystemClock::new()) {
        Ok(done) => {
            print(&exported(&done, to, lang));
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&not_exported(&root, &error, lang), 1),
    }
}

/// Imports a file into the buffer that the configuration names.
pub fn import(from: &Path, file: &Path, lang: Lang) -> ExitCode {
    let config = match Config::load_to_run(file) {
        Ok(config) => config,
        Err(error) => return refuse(&error, EXIT_CONFIG),
    };
    let clock = SystemClock::shared();
    let done = import::import(
        &config.state_dir,
        config.buffer,
        &clock,
        &config.agent,
        from,
    );
    match done {
        Ok(done) => {
            print(&imported(&done, lang));
            ExitCode::SUCCESS
        }
        Err(error) => refuse(&not_imported(&error, lang), 1),
    }
}

fn table(seen: &Check, lang: Lang) -> String {
    let mut text = String::new();
    let mut line = |cells: [&str; 6]| {
        let [stream, epoch, whole, bytes, damaged, ranges] = cells;
        // writing into a String cannot fail
        let _ = writeln!(
            text,
            "{stream:<11} {epoch:<16} {whole:>10} {bytes:>10} {damaged:>8}  {ranges}"
        );
    };
    line([
        lang.pick("aliran", "stream"),
        lang.pick("epoch", "epoch"),
        lang.pick("utuh", "whole"),
        lang.pick("ukuran", "size"),
        lang.pick("rusak", "damaged"),
        lang.pick("nomor yang rusak", "damaged numbers"),
    ]);
    for (at, lane) in &seen.lanes {
        let mut ranges = ranges(&lane.damaged);
        if lane.unreadable > 0 {
            let bytes = size(lane.unreadable);
            let note = match lang {
                Lang::Id => format!("({bytes} tidak terbaca)"),
                Lang::En => format!("({bytes} unreadable)"),
            };
            ranges = format!("{ranges} {note}").trim_start().to_owned();
        }
        line([
            stream(at.stream, lang),
            &at.epoch.to_string(),
            &lane.whole.count().to_string(),
            &size(lane.bytes),
            &lane.damaged.count().to_string(),
            if ranges.is_empty() { "-" } else { &ranges },
        ]);
    }
    if seen.lanes.is_empty() {
        text.push_str(lang.pick("(tidak ada catatan)\n", "(no records)\n"));
    }
    text.push_str(match (seen.in_use, seen.is_clean()) {
        (true, true) => lang.pick(
            "Semua utuh. Agen sedang berjalan dan mengirimkannya sendiri: tidak ada yang perlu dilakukan.\n",
            "All is whole. The agent is running and delivers it by itself: there is nothing to do.\n",
        ),
        (true, false) => lang.pick(
            "Ada yang rusak. Agen sedang berjalan, mengirim yang utuh, dan melaporkan sisanya sebagai celah: \
             ganti kartunya bila ini berulang.\n",
            "Something is damaged. The agent is running, delivers what is whole and reports the rest as \
             gaps: replace the card if this happens again.\n",
        ),
        (false, true) => lang.pick(
            "Semua utuh. Bila kotaknya mati, ambil isinya dengan `scc-agent buffer export`.\n",
            "All is whole. If its box is dead, take the records with `scc-agent buffer export`.\n",
        ),
        (false, false) => lang.pick(
            "Ada yang rusak. Ambil yang utuh dengan `scc-agent buffer export`; yang rusak tampil sebagai \
             celah, dan kartu ini jangan dipakai lagi.\n",
            "Something is damaged. Take what is whole with `scc-agent buffer export`; what is damaged is \
             shown as gaps, and this card should not be used again.\n",
        ),
    });
    text
}

fn ranges(set: &RangeSet) -> String {
    let first = set.iter().take(RANGES);
    let mut words: Vec<String> = first
        .map(|range| match range.len() {
            1 => range.first.to_string(),
            _ => format!("{}-{}", range.first, range.last),
        })
        .collect();
    if set.as_slice().len() > RANGES {
        words.push("…".into());
    }
    words.join(", ")
}

/// The command again, as the user who may read a box's card.
fn again(command: &str) -> String {
    as_agent(&format!("buffer {command}"), Path::new(super::CONFIG))
}

fn no_buffer(root: &Path, error: &std::io::Error, command: &str, lang: Lang) -> String {
    if error.kind() != ErrorKind::NotFound {
        return unreadable(root, error, &again(command), lang);
    }
    let root = root.display();
    match lang {
        Lang::Id => format!(
            "{root} bukan folder penyangga; sebut folder `scc-agent` atau `buffer` pada kartu yang dipasang"
        ),
        Lang::En => format!(
            "{root} is no folder of a buffer; name the folder `scc-agent` or `buffer` of the mounted card"
        ),
    }
}

fn exported(done: &Exported, to: &Path, lang: Lang) -> String {
    let (agent, file) = (&done.agent, to.display());
    let (records, bytes) = (done.end.records, size(done.end.bytes));
    let mut text = match lang {
        Lang::Id => format!("{file}: {records} catatan milik `{agent}`, {bytes}.\n"),
        Lang::En => format!("{file}: {records} records of `{agent}`, {bytes}.\n"),
    };
    if done.damaged > 0 {
        let n = done.damaged;
        text.push_str(&match lang {
            Lang::Id => format!("{n} catatan tidak terbaca dan tercatat sebagai celah.\n"),
            Lang::En => format!("{n} records cannot be read and are noted as gaps.\n"),
        });
    }
    if !done.index {
        text.push_str(lang.pick(
            "Indeks kartu tidak terbaca: sebab setiap celah dan sebagian tanda terima tidak diketahui.\n",
            "The card's index cannot be read: why numbers are missing, and some acknowledgements, is unknown.\n",
        ));
    }
    text.push_str(lang.pick(
        "Berikutnya: `scc-agent buffer import` di kotak pengganti, atau `scc-hub import` di pusat. Berkas ini \
         berisi absensi dan gambar: hapus sesudahnya.\n",
        "Next: `scc-agent buffer import` on the replacement box, or `scc-hub import` at the hub. This file \
         holds punches and pictures: delete it afterwards.\n",
    ));
    text
}

fn not_exported(root: &Path, error: &ExportFailure, lang: Lang) -> String {
    let (id, en) = match error {
        ExportFailure::InUse => (
            "agen sedang memakai penyangga ini dan mengirimkannya sendiri; bila kotaknya memang harus \
             diganti, jalankan `sudo systemctl stop scc-agent` dulu"
                .to_owned(),
            "an agent is using this buffer and delivers it by itself; if its box must be replaced all the \
             same, run `sudo systemctl stop scc-agent` first"
                .to_owned(),
        ),
        ExportFailure::Card { path, error } if path == root => {
            return no_buffer(root, error, "export", lang);
        }
        ExportFailure::Card { path, error } => {
            return unreadable(path, error, &again("export"), lang);
        }
        ExportFailure::NoAgent => (
            "kartu ini belum mencatat milik agen mana; sebut id lokasinya dengan `--agent ID` (tertulis di \
             label kotak)"
                .to_owned(),
            "this card does not say which agent it is of; name its site's id with `--agent ID` (it is on \
             the box's label)"
                .to_owned(),
        ),
        ExportFailure::OtherAgent(agent) => (
            format!("kartu ini milik `{agent}`; betulkan atau hilangkan `--agent`"),
            format!("this card is of `{agent}`; correct `--agent` or leave it out"),
        ),
        ExportFailure::Exists(file) => {
            let file = file.display();
            (
                format!("{file} sudah ada; pakai nama lain"),
                format!("{file} is there already; use another name"),
            )
        }
        ExportFailure::File { path, error } => {
            let path = path.display();
            (
                format!("{path} tidak dapat ditulis ({error}); tidak ada yang diekspor"),
                format!("{path} cannot be written ({error}); nothing was exported"),
            )
        }
    };
    lang.pick(&id, &en).to_owned()
}

fn imported(done: &Imported, lang: Lang) -> String {
    let mut text = String::new();
    let mut line = |n: u64, id: &str, en: &str| {
        if n > 0 {
            // writing into a String cannot fail
            let _ = writeln!(text, "{n:>8} {}", lang.pick(id, en));
        }
    };
    line(done.stored, "catatan dimasukkan", "records taken in");
    line(done.held, "sudah ada", "held already");
    line(
        done.dropped,
        "melewati batas umur atau pernah dibuang di sini; masukkan lewat pusat: `scc-hub import`",
        "too old, or dropped here before; bring them in at the hub: `scc-hub import`",
    );
    line(
        done.no_room,
        "tidak muat; tunggu antreannya habis lalu ulangi perintah ini, atau pakai `scc-hub import`",
        "do not fit; wait for the backlog to drain and repeat this command, or use `scc-hub import`",
    );
    line(
        done.conflicts,
        "bernomor sama dengan isi lain dan tidak diubah; pakai `scc-hub import`, yang menyimpan keduanya",
        "have the number of another record, which was left alone; use `scc-hub import`, which keeps both",
    );
    if let Some(damage) = &done.damage.detail {
        let _ = match lang {
            Lang::Id => writeln!(text, "Kerusakan pada penyangga kotak ini: {damage}"),
            Lang::En => writeln!(text, "Damage in this box's own buffer: {damage}"),
        };
    }
    text.push_str(lang.pick(
        "Nyalakan agen: `sudo systemctl start scc-agent`; ia mengirimkannya sendiri.\n",
        "Start the agent: `sudo systemctl start scc-agent`; it delivers them by itself.\n",
    ));
    text
}

fn not_imported(error: &ImportFailure, lang: Lang) -> String {
    let (id, en) = match error {
        ImportFailure::File { file, error } => {
            return format!("{}: {}", file.display(), error.words(lang));
        }
        ImportFailure::OtherAgent { file, here } => (
            format!(
                "berkas ini milik `{file}` dan kotak ini `{here}`; masukkan di kotak pengganti `{file}`, atau \
                 di pusat dengan `scc-hub import`"
            ),
            format!(
                "this file is of `{file}`, and this box is `{here}`; import it on the replacement box of \
                 `{file}`, or at the hub with `scc-hub import`"
            ),
        ),
        ImportFailure::Buffer(BufferError::InUse(_)) => (
            "agen sedang berjalan; jalankan `sudo systemctl stop scc-agent`, lalu ulangi"
                .to_owned(),
            "the agent is running; run `sudo systemctl stop scc-agent`, then repeat".to_owned(),
        ),
        ImportFailure::Buffer(error) => (
            format!(
                "penyangga tidak dapat dipakai ({error}); yang sudah masuk tetap ada, ulangi sesudahnya"
            ),
            format!("the buffer cannot be used ({error}); what is in it stays, repeat afterwards"),
        ),
    };
    lang.pick(&id, &en).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use scc_common::export::ExportError;
    use scc_common::id::Epoch;
    use scc_common::stream::Stream;
    use scc_common::wire::SeqRange;

    use super::*;
    use crate::buffer::Lane;
    use crate::buffer::check::LaneCheck;

    fn seen(in_use: bool, damaged: &[(u64, u64)], unreadable: u64) -> Check {
        let ranges = |of: &[(u64, u64)]| {
            RangeSet::of(of.iter().map(|&(first, last)| SeqRange { first, last }))
        };
        let lane = Lane {
            epoch: Epoch(0xabc),
            stream: Stream::Attendance,
        };
        let check = LaneCheck {
            whole: ranges(&[(1, 90)]),
            bytes: 136_000_000,
            damaged: ranges(damaged),
            unreadable,
        };
        Check {
            in_use,
            lanes: BTreeMap::from([(lane, check)]),
        }
    }

    #[test]
    fn a_technician_sees_what_is_whole_what_is_damaged_and_what_to_do() {
        let text = table(&seen(false, &[(91, 91), (95, 99)], 4_000), Lang::Id);
        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let cells = ["absensi", "0000000000000abc", "90", "136", "MB", "6"];
        assert_eq!(row[..6], cells);
        assert!(text.contains("91, 95-99 (4000 B tidak terbaca)"), "{text}");
        assert!(text.contains("scc-agent buffer export"), "{text}");
        let many: Vec<_> = (1..9).map(|n| (n * 10, n * 10)).collect();
        let text = table(&seen(true, &many, 0), Lang::En);
        assert!(text.contains("10, 20, 30, 40, 50, …"), "{text}");
        assert!(text.contains("The agent is running"), "{text}");
        let text = table(&seen(false, &[], 0), Lang::En);
        assert!(text.contains("All is whole. If its box is dead"), "{text}");
    }

    #[test]
    fn what_was_not_taken_in_is_told_with_another_way_and_what_is_nought_is_not_told() {
        let done = Imported {
            stored: 30,
            no_room: 2,
            ..Imported::default()
        };
        let text = imported(&done, Lang::Id);
        assert!(text.contains("      30 catatan dimasukkan"), "{text}");
        assert!(text.contains("2 tidak muat") && text.contains("scc-hub import"));
        assert!(!text.contains("sudah ada") && text.contains("systemctl start scc-agent"));
    }

    #[test]
    fn every_refusal_names_what_to_do() {
        let rsud = AgentId::new("rsud").unwrap();
        let file = PathBuf::from("/media/x.sccx");
        let root = Path::new("/media/kartu/buffer");
        let card = |error: ErrorKind| ExportFailure::Card {
            path: root.to_owned(),
            error: error.into(),
        };
        let exports = [
            (ExportFailure::InUse, "systemctl stop scc-agent"),
            (ExportFailure::NoAgent, "--agent ID"),
            (ExportFailure::OtherAgent(rsud.clone()), "--agent"),
            (ExportFailure::Exists(file.clone()), "/media/x.sccx"),
            (card(ErrorKind::NotFound), "`scc-agent`"),
            (card(ErrorKind::PermissionDenied), "sudo -u scc-agent"),
        ];
        let imports = [
            (
                ImportFailure::OtherAgent {
                    file: rsud.clone(),
                    here: rsud,
                },
                "scc-hub import",
            ),
            (
                ImportFailure::Buffer(BufferError::InUse(String::new())),
                "systemctl stop scc-agent",
            ),
            (
                ImportFailure::File {
                    file,
                    error: ExportError::CutOff(9),
                },
                "/media/x.sccx",
            ),
        ];
        for lang in [Lang::Id, Lang::En] {
            for (error, part) in &exports {
                let said = not_exported(root, error, lang);
                assert!(said.contains(part), "{said}");
            }
            for (error, part) in &imports {
                let said = not_imported(error, lang);
                assert!(said.contains(part), "{said}");
            }
        }
    }
}
