//! Media files that no record refers to: a hub that ended between a file and its row leaves one, a
//! database that is older than the media beside it leaves a day of them.
//!
//! At start and once a day they are set aside, and removed after a month ([`super::aside`]). Only
//! files that have been there for a day: an agent sends what was not acknowledged again within minutes, and
//! the file has its row then. Beside everything else, a few files at a time; while the database fails, not at
//! all.

use std::io;
use std::time::Duration;

use scc_common::clock::{Stamp, WallMs};
use tokio::time::{Instant, sleep, sleep_until};

use super::aside::{self, Overdue};
use super::context::Context;
use super::intake::blocking;
use crate::media::Media;
use crate::media::sweep::{Found, Walk};
use crate::store::{Store, StoreError};

const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// After one that did not come to its end.
const AGAIN: Duration = Duration::from_secs(3_600);
/// What is aside is counted again meanwhile: somebody may have cleared it.
const COUNT_EVERY: Duration = Duration::from_secs(900);

/// Younger files are left alone.
pub(super) const AGE_MS: WallMs = 24 * 3_600_000;

/// After each step: most of the time nothing is done, so that the disk and the database belong to what
/// comes in.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a sweep did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error(transparent)]
    Disk(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Files and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) const fn add(&mut self, found: &Found) {
        self.files += 1;
        self.bytes += found.size;
    }
}

/// What one sweep has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Set aside.
    pub(super) aside: Tally,
    /// Removed: were being written when a hub ended.
    pub(super) partial: Tally,
    /// Removed: had been aside for long enough.
    pub(super) removed: Tally,
}

/// The files of a walk, some at a time and with pauses, beside everything else.
pub(super) struct Steps {
    /// None when there is no more.
    walk: Option<Walk>,
    begun: bool,
}

impl Steps {
    pub(super) async fn of(
        walk: impl FnOnce() -> io::Result<Walk> + Send + 'static,
    ) -> io::Result<Self> {
        let walk = Some(blocking(walk).await?);
        Ok(Self { walk, begun: false })
    }

    /// What one step has found, which may be nothing; none when there is no more.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<Found>>> {
        let Some(mut walk) = self.walk.take() else {
            return Ok(None);
        };
        if self.begun {
            sleep(PAUSE).await;
        }
        self.begun = true;
        let (walk, step) = blocking(move || walk.step().map(|step| (walk, step))).await?;
        self.walk = (!step.done).then_some(walk);
        Ok(Some(step.found))
    }
}

/// Sweeps for as long as the hub runs.
pub(super) async fn run(context: &Context) {
    let mut last = None;
    let mut overdue = Overdue::default();
    loop {
        let begun = context.clock.stamp();
        // what was too young last time may be swept now, so its folder is looked into again
        let since = last.map(|last: WallMs| last.saturating_sub(AGE_MS));
        let mut swept = Swept::default();
        let (media, store) = (&context.media, &context.store);
        let ended = all(media, store, &begun, since, &mut overdue, &mut swept).await;
        tell(&swept);
        let wait = match ended {
            Ok(()) => {
                last = Some(begun.wall_ms);
                EVERY
            }
            Err(error) => {
                tracing::warn!(%error, "the sweep of media files did not come to its end; it is begun again in an hour");
                AGAIN
            }
        };
        let next = Instant::now() + wait;
        while Instant::now() < next {
            aside::tell(context).await;
            sleep_until(next.min(Instant::now() + COUNT_EVERY)).await;
        }
    }
}

fn tell(swept: &Swept) {
    let each = [
        (
            "aside",
            &swept.aside,
            "media files that no record refers to were set aside; they are below `aside` in the media folder and are removed after a month",
        ),
        (
            "partial",
            &swept.partial,
            "media files that were being written when the hub ended were removed",
        ),
        (
            "removed",
            &swept.removed,
            "media files that had been set aside a month ago were removed",
        ),
    ];
    for (what, tally, said) in each {
        metrics::counter!("scc_media_swept_total", "what" => what).increment(tally.files);
        metrics::counter!("scc_media_swept_bytes_total", "what" => what).increment(tally.bytes);
        if tally.files > 0 {
            tracing::warn!(files = tally.files, bytes = tally.bytes, "{said}");
        }
    }
}

/// One sweep, begun at `now`. What it had done when it failed is in `swept` all the same.
pub(super) async fn all(
    media: &Media,
    store: &Store,
    now: &Stamp,
    changed_since: Option<WallMs>,
    overdue: &mut Overdue,
    swept: &mut Swept,
) -> Result<(), SweepError> {
    let files = media.clone();
    let mut steps = Steps::of(move || files.walk(changed_since)).await?;
    while let Some(found) = steps.next().await? {
        let (partial, whole) = candidates(media, found, now.wall_ms);
        if partial.is_empty() && whole.is_empty() {
            continue;
        }
        let whole = unreferenced(store, whole).await?;
        take(media, now.wall_ms, partial, whole, swept).await?;
    }
    overdue.remove(media, now, &mut swept.removed).await
}

/// What may be swept: of attempts to write whatever nobody writes, of files what is old enough and in
/// nobody's hands.
pub(super) fn candidates(
    media: &Media,
    found: Vec<Found>,
    now: WallMs,
) -> (Vec<Found>, Vec<Found>) {
    let free = found
        .into_iter()
        .filter(|f| f.partial || now.saturating_sub(f.modified_ms) > AGE_MS)
        .filter(|f| media.is_free(f));
    free.partition(|f| f.partial)
}

/// Those of which the ledger knows nothing.
pub(super) async fn unreferenced(
    store: &Store,
    found: Vec<Found>,
) -> Result<Vec<Found>, StoreError> {
    let paths = found.iter().map(|f| f.path.clone()).collect();
    let unreferenced = store.unreferenced(paths).await?;
    Ok(found
        .into_iter()
        .zip(unreferenced)
        .filter_map(|(found, is)| is.then_some(found))
        .collect())
}

pub(super) async fn take(
    media: &Media,
    now: WallMs,
    partial: Vec<Found>,
    whole: Vec<Found>,
    swept: &mut Swept,
) -> io::Result<()> {
    let media = media.clone();
    let mut done = Swept::default();
    let (done, result) = blocking(move || {
        let mut each = || {
            for found in &partial {
                if media.remove_partial(found)? {
                    done.partial.add(found);
                }
            }
            for found in &whole {
                if media.set_aside(found, now)? {
                    done.aside.add(found);
                }
            }
            Ok(())
        };
        let result = each();
        Ok((done, result))
    })
    .await?;
    for (all, more) in [
        (&mut swept.partial, done.partial),
        (&mut swept.aside, done.aside),
    ] {
        all.files += more.files;
        all.bytes += more.bytes;
    }
    result
}
