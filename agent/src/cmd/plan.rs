//! `scc-agent buffer plan`: what would survive an outage of the hub, at the rates of this card, and how long
//! it then takes to be sent.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use scc_common::clock::{Clock as _, SystemClock, WallMs};
use scc_common::lang::Lang;

use super::units::{ago, size};
use super::words::{stream, unreadable};
use super::{print, run};
use crate::buffer::inspect;
use crate::buffer::plan::{self, Forecast};
use crate::capture::health;
use crate::config::State;
use crate::uplink::budget::Budget;
use crate::uplink::drain::{Drained, drain, per_day};

/// Longest outage that is planned for, hours.
const MOST_HOURS: u32 = 366 * 24;

/// How long the hub is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    hours: u32,
}

impl FromStr for Outage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hours = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(hours), _) => hours.parse().ok(),
            (_, Some(days)) => days.parse().ok().and_then(|n: u32| n.checked_mul(24)),
            _ => None,
        };
        let hours = hours.filter(|n| (1..=MOST_HOURS).contains(n));
        let hours = hours.ok_or("write hours or days, such as 72h or 3d; 366d at most")?;
        Ok(Self { hours })
    }
}

/// Prints one table of the streams, the one that goes first standing first.
pub fn main(file: &Path, outage: Outage, lang: Lang) -> ExitCode {
    run::with_state(file, |state| {
        print(&page(state, outage, SystemClock::new().wall_ms(), lang)?);
        Ok(())
    })
}

/// As if the outage began now.
fn page(state: &State, outage: Outage, now: WallMs, lang: Lang) -> Result<String, String> {
    let (dir, limits) = (&state.dir, &state.buffer);
    let measured = plan::measure(dir).map_err(|error| {
        let root = inspect::root(dir);
        unreadable(&root, &error, "scc-agent buffer plan", lang)
    })?;
    let free = health::disk(dir).map_or(0, |(_, free)| free);
    let forecast = plan::forecast(&measured, limits, free, f64::from(outage.hours));
    let room = plan::room(&measured, limits, free);
    let back = now.saturating_add(i64::from(outage.hours) * 3_600_000);
    let mut text = table(&forecast, outage, room, lang);
    text.push_str(&afterwards(&forecast, &state.budget, back, lang));
    Ok(text)
}

/// How long what waits takes to be sent once the hub is `back`.
fn afterwards(forecast: &[Forecast], budget: &Budget, back: WallMs, lang: Lang) -> String {
    let backlog: f64 = forecast.iter().map(|row| row.kept_bytes).sum();
    let per_hour: f64 = forecast.iter().map(|f| f.measured.bytes_per_hour()).sum();
    let waiting = size(whole(backlog));
    let unknown = forecast
        .iter()
        .any(|row| row.measured.records > 0 && row.measured.per_hour.is_none());
    let sent = match (drain(budget, backlog, per_hour / 3_600.0, back), lang) {
        (Drained::Within(_) | Drained::Never, _) if unknown => lang
            .pick(
                "Kapan semuanya terkirim belum dapat dikatakan: aliran yang bertanda ? belum terukur.",
                "When all of it is sent cannot be told yet: a stream marked ? has not been measured.",
            )
            .to_owned(),
        (Drained::Within(hours), _) => {
            let span = span(hours, lang);
            match lang {
                Lang::Id => format!(
                    "Dengan anggaran di `[uplink]` semuanya terkirim dalam {span}, di samping yang baru."
                ),
                Lang::En => format!(
                    "Under the budget of `[uplink]` all of it is sent within {span}, beside what is new."
                ),
            }
        }
        (Drained::ByTheLink(hours), Lang::Id) if hours > 0.0 => format!(
            "Setelah {} `[uplink]` tidak membatasi lagi; sisanya terkirim secepat jalurnya.",
            span(hours, lang)
        ),
        (Drained::ByTheLink(hours), Lang::En) if hours > 0.0 => format!(
            "After {} `[uplink]` sets no limit; what is left is sent as fast as the link can.",
            span(hours, lang)
        ),
        (Drained::ByTheLink(_), _) => lang
            .pick(
                "`[uplink]` tidak membatasi: semuanya terkirim secepat jalurnya.",
                "`[uplink]` sets no limit: all of it is sent as fast as the link can.",
            )
            .to_owned(),
        (Drained::Never, _) => {
            let day = size(whole(per_hour * 24.0));
            let may = size(whole(per_day(budget).unwrap_or(0.0)));
            match lang {
                Lang::Id => format!(
                    "Dengan anggaran di `[uplink]`, antrean ini TIDAK AKAN PERNAH habis terkirim: data baru\n\
                     {day}/hari, padahal yang boleh dikirim hanya {may}/hari. Naikkan anggarannya, atau\n\
                     kurangi rekaman dan cuplikan."
                ),
                Lang::En => format!(
                    "Under the budget of `[uplink]` it NEVER comes to an end: {day}/day are new, {may}/day may\n\
                     be sent. Raise the budget, or take less video and fewer stills."
                ),
            }
        }
    };
    match lang {
        Lang::Id => {
            format!(
                "Sesudah itu {waiting} menunggu; kejadian dan absensi dikirim lebih dahulu.\n{sent}\n"
            )
        }
        Lang::En => format!("{waiting} wait then; events and punches are sent first.\n{sent}\n"),
    }
}

fn table(forecast: &[Forecast], outage: Outage, room: u64, lang: Lang) -> String {
    let mut text = match lang {
        Lang::Id => format!("Bila pusat tidak terjangkau {} jam:\n", outage.hours),
        Lang::En => format!("If the hub is away for {} h:\n", outage.hours),
    };
    let mut line = |cells: [&str; 6]| {
        let [stream, records, bytes, waiting, kept, lost] = cells;
        // writing into a String cannot fail
        let _ = writeln!(
            text,
            "{stream:<11} {records:>12} {bytes:>10} {waiting:>10} {kept:>18} {lost:>18}"
        );
    };
    line([
        lang.pick("aliran", "stream"),
        lang.pick("catatan/hari", "records/day"),
        lang.pick("byte/hari", "bytes/day"),
        lang.pick("menunggu", "waiting"),
        lang.pick("bertahan", "survives"),
        lang.pick("hilang mulai", "lost from"),
    ]);
    let mut unknown = false;
    for row in forecast {
        let measured = row.measured;
        let waiting = size(measured.waiting_bytes);
        let name = stream(row.stream, lang);
        let Some(per_hour) = measured.per_hour else {
            unknown |= measured.records > 0;
            let mark = if measured.records > 0 { "?" } else { "-" };
            line([name, mark, mark, &waiting, mark, mark]);
            continue;
        };
        let kept = match row.lost_after_hours {
            None => lang.pick("semua", "all").to_owned(),
            Some(_) => match lang {
                Lang::Id => format!("{} terakhir", span(row.kept_hours, lang)),
                Lang::En => format!("the last {}", span(row.kept_hours, lang)),
            },
        };
        let lost = row.lost_after_hours.map_or_else(
            || "-".to_owned(),
            |hours| match lang {
                Lang::Id => format!("setelah {}", span(hours, lang)),
                Lang::En => format!("after {}", span(hours, lang)),
            },
        );
        line([
            name,
            &whole(per_hour * 24.0).to_string(),
            &size(whole(measured.bytes_per_hour() * 24.0)),
            &waiting,
            &kept,
            &lost,
        ]);
    }
    let room = size(room);
    text.push_str(&match lang {
        Lang::Id => format!(
            "Ruang untuk penyangga: {room}. Bila habis, aliran di baris atas dibuang lebih dahulu. Bila kartunya\n\
             sendiri penuh, kejadian dan absensi yang baru ditolak; absensi menunggu di mesinnya.\n"
        ),
        Lang::En => format!(
            "Room for the buffer: {room}. When it is used up, the streams in the upper rows go first. When the\n\
             card itself is full, new events and punches are refused; punches wait in their terminal.\n"
        ),
    });
    if unknown {
        text.push_str(lang.pick(
            "?: catatannya mencakup kurang dari satu menit; lajunya belum diketahui.\n",
            "?: its records span less than a minute; its rate is not known yet.\n",
        ));
    }
    text
}

/// Hours in one unit.
fn span(hours: f64, lang: Lang) -> String {
    let span = Duration::try_from_secs_f64(hours * 3_600.0).unwrap_or_default();
    ago(i64::try_from(span.as_millis()).unwrap_or(i64::MAX), lang)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float that is cast is cut at the bounds, and rates are not negative"
)]
const fn whole(n: f64) -> u64 {
    n.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::plan::Measured;
    use scc_common::stream::Stream;

    fn row(stream: Stream, per_hour: Option<f64>, lost_after_hours: Option<f64>) -> Forecast {
        Forecast {
            stream,
            measured: Measured {
                records: u64::from(stream != Stream::Warehouse),
                bytes: 200_000,
                waiting_bytes: 40_000,
                per_hour,
            },
            kept_hours: 31.0,
            kept_bytes: 200_000_000.0,
            lost_after_hours,
        }
    }

    #[test]
    fn a_technician_sees_what_survives_and_when_the_first_is_lost() {
        let rows = [
            row(Stream::Segment, Some(360.0), Some(41.2)),
            row(Stream::Snapshot, Some(120.0), None),
            row(Stream::Event, None, None),
            row(Stream::Warehouse, None, None),
        ];
        let outage = "72h".parse().unwrap();
        let cells = |text: &str, at| {
            let row = text.lines().nth(at).unwrap();
            row.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let text = table(&rows, outage, 8_000_000_000, Lang::Id);
        assert!(
            text.starts_with("Bila pusat tidak terjangkau 72 jam:\n"),
            "{text}"
        );
        assert_eq!(
            cells(&text, 2),
            "rekaman 8640 1728 MB 40 kB 31 jam terakhir setelah 41 jam"
        );
        assert_eq!(cells(&text, 3), "cuplikan 2880 576 MB 40 kB semua -");
        assert_eq!(cells(&text, 4), "kejadian ? ? 40 kB ? ?");
        assert_eq!(cells(&text, 5), "warehouse - - 40 kB - -");
        assert!(text.contains("8000 MB") && text.contains("?: "), "{text}");
        let text = table(&rows, outage, 8_000_000_000, Lang::En);
        assert_eq!(
            cells(&text, 2),
            "segment 8640 1728 MB 40 kB the last 31 h after 41 h"
        );
    }

    #[test]
    fn a_technician_sees_how_long_sending_takes_and_whether_it_ever_ends() {
        // 20 kB/s come and 400 MB wait
        let rows = [
            row(Stream::Segment, Some(180.0), None),
            row(Stream::Snapshot, Some(180.0), None),
        ];
        let said = |usual, lang| {
            let budget = Budget {
                usual,
                ..Budget::default()
            };
            afterwards(&rows, &budget, 0, lang)
        };
        let text = said(Some(60_000), Lang::Id);
        assert!(text.starts_with("Sesudah itu 400 MB menunggu;"), "{text}");
        assert!(text.contains("terkirim dalam 2 jam"), "{text}");
        let text = said(Some(60_000), Lang::En);
        assert!(text.starts_with("400 MB wait then;"), "{text}");
        assert!(text.contains("is sent within 2 h"), "{text}");
        let text = said(Some(15_000), Lang::Id);
        assert!(
            text.contains("TIDAK AKAN PERNAH habis terkirim: data baru\n1728 MB/hari"),
            "{text}"
        );
        assert!(text.contains("1296 MB/hari"), "{text}");
        assert!(said(Some(15_000), Lang::En).contains("NEVER"));
        assert!(said(None, Lang::Id).contains("tidak membatasi: semuanya"));
        let office = Budget {
            usual: None,
            hours: vec![crate::uplink::budget::Hours {
                days: [true; 7],
                from: 0,
                to: 8 * 60,
                bytes_per_s: 4_000,
            }],
            utc_offset_min: 0,
        };
        let text = afterwards(&rows, &office, 0, Lang::Id);
        assert!(
            text.contains("Setelah 8 jam `[uplink]` tidak membatasi lagi"),
            "{text}"
        );
        assert!(afterwards(&rows, &office, 0, Lang::En).contains("After 8 h `[uplink]`"));
    }

    #[tokio::test]
    async fn the_rates_are_those_of_the_records_on_this_card() {
        use crate::buffer::Buffer;
        use crate::config::BufferLimits;
        use scc_common::clock::ManualClock;
        use scc_common::record::{Content, Event, RecordBody};
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
        let limits = BufferLimits {
            min_free_bytes: 0,
            ..BufferLimits::default()
        };
        let buffer = Buffer::open(dir.path(), limits, clock.clone()).unwrap();
        for _ in 0..20 {
            let content = Content::Event(Event::AgentStopped {});
            let body = RecordBody::new(clock.stamp(), None, content);
            buffer.append(&body).await.unwrap();
            clock.advance(10_000);
        }
        // also while the agent runs
        let state = State {
            dir: dir.path().to_owned(),
            buffer: limits,
            budget: Budget {
                usual: Some(4_000),
                ..Budget::default()
            },
        };
        let text = page(&state, Outage { hours: 72 }, 0, Lang::Id).unwrap();
        let row = text.lines().find(|line| line.starts_with("kejadian"));
        let cells: Vec<_> = row.unwrap().split_whitespace().collect();
        assert_eq!(
            (cells[1], cells[6], cells[7]),
            ("8640", "semua", "-"),
            "{text}"
        );
        assert!(!text.contains("?: "), "{text}");
        assert!(text.contains("semuanya terkirim dalam "), "{text}");
        buffer.close().await;
    }

    #[test]
    fn an_outage_is_hours_or_days() {
        let hours = |text: &str| text.parse::<Outage>().map(|outage| outage.hours);
        assert_eq!((hours("72h"), hours("3d")), (Ok(72), Ok(72)));
        for wrong in ["", "72", "0h", "h", "-1h", "367d", "4294967295d", "1w"] {
            assert!(hours(wrong).unwrap_err().contains("72h or 3d"), "{wrong}");
        }
    }

    #[test]
    fn a_box_where_no_agent_ran_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let outage = Outage { hours: 72 };
        let state = State {
            dir: dir.path().to_owned(),
            buffer: crate::config::BufferLimits::default(),
            budget: Budget::default(),
        };
        let said = page(&state, outage, 0, Lang::En).unwrap_err();
        assert!(said.contains("no agent has run here yet"), "{said}");
    }
}
