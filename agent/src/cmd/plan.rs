//! `scc-agent buffer plan`: what would survive an outage of the hub, at the rates of this card.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use scc_common::lang::Lang;

use super::units::{ago, size};
use super::words::{stream, unreadable};
use super::{print, run};
use crate::buffer::inspect;
use crate::buffer::plan::{self, Forecast};
use crate::capture::health;
use crate::config::BufferLimits;

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
    run::with_state(file, |dir, limits| {
        print(&page(dir, limits, outage, lang)?);
        Ok(())
    })
}

fn page(dir: &Path, limits: &BufferLimits, outage: Outage, lang: Lang) -> Result<String, String> {
    let measured = plan::measure(dir).map_err(|error| {
        let root = inspect::root(dir);
        unreadable(&root, &error, "scc-agent buffer plan", lang)
    })?;
    let free = health::disk(dir).map_or(0, |(_, free)| free);
    let forecast = plan::forecast(&measured, limits, free, f64::from(outage.hours));
    let room = plan::room(&measured, limits, free);
    Ok(table(&forecast, outage, room, lang))
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

    #[tokio::test]
    async fn the_rates_are_those_of_the_records_on_this_card() {
        use crate::buffer::Buffer;
        use scc_common::clock::{Clock, ManualClock};
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
        let text = page(dir.path(), &limits, Outage { hours: 72 }, Lang::Id).unwrap();
        let row = text.lines().find(|line| line.starts_with("kejadian"));
        let cells: Vec<_> = row.unwrap().split_whitespace().collect();
        assert_eq!(
            (cells[1], cells[6], cells[7]),
            ("8640", "semua", "-"),
            "{text}"
        );
        assert!(!text.contains("?: "), "{text}");
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
        let said = page(dir.path(), &BufferLimits::default(), outage, Lang::En).unwrap_err();
        assert!(said.contains("no agent has run here yet"), "{said}");
    }
}
