//! What the sweep has set aside: counted for those who run the hub, and removed in the end.
//!
//! After a restore these files may be all that is left of a day, and a wall clock may be wrong by a month.
//! So its word alone removes nothing: a folder goes only when it was over its time in two sweeps that are a
//! day apart by the monotonic clock, never in the first day of a process.

use std::collections::HashMap;
use std::path::PathBuf;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use scc_common::clock::{MonoMs, Stamp, WallMs};

use super::context::Context;
use super::intake::blocking;
use super::sweep::{Steps, SweepError, Tally};
use crate::media::Media;
use crate::media::sweep::{self, DayAside};

const DAY_MS: MonoMs = 24 * 3_600_000;

/// Media files that no record refers to, kept until they are removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Below it is a folder for each day on which files were set aside.
    pub folder: PathBuf,
    /// How many, in all of them.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// When the first of them were set aside (the beginning of that day in UTC).
    pub since_ms: WallMs,
    /// From when on these are removed; the others follow.
    pub removed_from_ms: WallMs,
    /// Each day's folder, English.
    pub each: String,
}

/// Counts what is aside; none if that is nothing.
pub(super) async fn count(media: &Media) -> Result<Option<Aside>, SweepError> {
    let mut all: Option<Aside> = None;
    for day in days(media).await? {
        let mut tally = Tally::default();
        let (date, until) = (day.date, day.removed_from());
        let mut steps = Steps::of(move || day.walk()).await?;
        while let Some(found) = steps.next().await? {
            found.iter().for_each(|f| tally.add(f));
        }
        let (true, Some(until)) = (tally.files > 0, until) else {
            continue;
        };
        let Tally { files, bytes } = tally;
        let each = format!("{date}: {files} files, {bytes} bytes, removed from {until} on");
        all = Some(match all {
            Some(before) => Aside {
                files: before.files + files,
                bytes: before.bytes + bytes,
                each: format!("{}; {each}", before.each),
                ..before
            },
            None => Aside {
                folder: media.aside(),
                files,
                bytes,
                since_ms: begin(date),
                removed_from_ms: begin(until),
                each,
            },
        });
    }
    Ok(all)
}

/// Tells those who run the hub what is aside.
pub(super) async fn tell(context: &Context) {
    match count(&context.media).await {
        Ok(aside) => context.aside(aside),
        Err(error) => tracing::warn!(%error, "what is aside in the media folder cannot be counted"),
    }
}

async fn days(media: &Media) -> Result<Vec<DayAside>, SweepError> {
    let media = media.clone();
    Ok(blocking(move || media.days_aside()).await?)
}

fn begin(date: Date) -> WallMs {
    let begin = date.to_zoned(TimeZone::UTC);
    begin.map_or(WallMs::MAX, |at| at.timestamp().as_millisecond())
}

/// Days that were over their time when a sweep of this process first came by, by the monotonic clock, and
/// in each sweep since.
#[derive(Debug, Default)]
pub(super) struct Overdue(HashMap<Date, MonoMs>);

impl Overdue {
    /// Removes what has been aside for long enough, adding it to `removed`.
    pub(super) async fn remove(
        &mut self,
        media: &Media,
        now: &Stamp,
        removed: &mut Tally,
    ) -> Result<(), SweepError> {
        for day in self.due(days(media).await?, now) {
            let folder = day.clone();
            let mut steps = Steps::of(move || folder.walk()).await?;
            while let Some(found) = steps.next().await? {
                let gone = blocking(move || {
                    found.iter().try_for_each(sweep::remove_for_good)?;
                    Ok(found)
                });
                gone.await?.iter().for_each(|f| removed.add(f));
            }
            blocking(move || day.remove()).await?;
        }
        Ok(())
    }

    fn due(&mut self, mut days: Vec<DayAside>, now: &Stamp) -> Vec<DayAside> {
        days.retain(|day| day.is_over(now.wall_ms));
        self.0
            .retain(|date, _| days.iter().any(|day| day.date == *date));
        days.retain(|day| {
            let first = *self.0.entry(day.date).or_insert(now.mono_ms);
            now.mono_ms.saturating_sub(first) >= DAY_MS
        });
        days
    }
}
