//! Compares, every hour, each day that has ended with what the agents counted on it
//! ([`crate::store::Store::compare`]), and says where the hub has lost something.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use scc_common::clock::{SharedClock, WallMs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::ingest::{Trouble, TroubleKind};
use crate::store::fleet::Declared;
use crate::store::views::Day;
use crate::store::{Difference, Store, StoreError};

const EVERY: Duration = Duration::from_secs(3_600);

/// Days that were settled are compared again this often, and when the hub starts.
const HOURS_TO_ALL: u32 = 24;

/// A box that has been away for longer is compared on its receipts only.
const DAYS: i32 = 62;

/// Differences that are named; the receipts name all.
const NAMED: usize = 8;

/// Compares until `stop`. What is received is the difference found last, none while there is none.
pub fn start(
    store: Store,
    fleet: Fleet,
    clock: SharedClock,
    stop: CancellationToken,
) -> watch::Receiver<Option<Trouble>> {
    let (tell, told) = watch::channel(None);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for hour in 0_u32.. {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let all = hour.is_multiple_of(HOURS_TO_ALL);
            let zone = Declared::zone(fleet.now().declared.as_deref());
            match once(&store, &zone, clock.wall_ms(), all).await {
                Ok(differences) => {
                    let trouble = trouble(&differences);
                    if *tell.borrow() != trouble {
                        if let Some(trouble) = &trouble {
                            tracing::error!(
                                what = trouble.why,
                                "records that were acknowledged are missing from the database"
                            );
                        }
                        tell.send_replace(trouble);
                    }
                }
                // a database that fails is told of by ingest; the last finding stands
                Err(error) => tracing::warn!(%error, "the days could not be compared"),
            }
        }
    });
    told
}

/// Compares the days of this zone that are over, where it is due or `all`, and tells where records are missing.
///
/// # Errors
/// [`StoreError`] if the database cannot be read or written.
pub async fn once(
    store: &Store,
    zone: &TimeZone,
    now_ms: WallMs,
    all: bool,
) -> Result<Vec<Difference>, StoreError> {
    let today = Timestamp::from_millisecond(now_ms)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned(zone.clone())
        .date();
    let days: Vec<Day> = (1..=DAYS)
        .filter_map(|ago| day(zone, today.checked_sub(ago.days()).ok()?, now_ms))
        .collect();
    let first = days.last().map_or_else(String::new, |d| d.name.clone());
    store.compare(days, now_ms, all).await?;
    let differences = store.differences(first).await?;
    let missing: u64 = differences.iter().map(|d| d.missing).sum();
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    metrics::gauge!("scc_hub_records_missing").set(missing as f64);
    Ok(differences)
}

/// A day of a zone; none beyond the calendar.
pub(crate) fn day(zone: &TimeZone, date: Date, now_ms: WallMs) -> Option<Day> {
    let begin = |date: Date| {
        let begun = date.to_zoned(zone.clone()).ok()?;
        Some(begun.timestamp().as_millisecond())
    };
    let to_ms = begin(date.tomorrow().ok()?)?;
    Some(Day {
        name: date.to_string(),
        from_ms: begin(date)?,
        to_ms,
        ended: to_ms <= now_ms,
    })
}

fn trouble(differences: &[Difference]) -> Option<Trouble> {
    let since_ms = differences.iter().map(|d| d.since_ms).min()?;
    let mut named: Vec<String> = differences
        .iter()
        .rev()
        .take(NAMED)
        .map(|d| format!("{} {}: {} missing", d.agent, d.day, d.missing))
        .collect();
    if differences.len() > NAMED {
        named.push(format!("and {} more", differences.len() - NAMED));
    }
    Some(Trouble {
        why: named.join("; "),
        since_ms,
        kind: TroubleKind::Other,
    })
}
