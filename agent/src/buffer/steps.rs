//! Every durable step of the buffer, by name: each asks [`Steps`] before it is taken.
//!
//! In the program this is nothing: [`Steps`] is empty and [`Steps::step`] returns at once. A test can
//! let all steps from a certain one on fail, or end its own process there with SIGKILL; that is how a
//! crash between any two durable steps is tried. What happens inside sled has no names here; its file
//! is covered by kills at any moment and by the file system that forgets.

use std::io;

/// What is about to change on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Point {
    /// The folder of a stream is made.
    MakeFolder,
    /// Its name is made durable.
    SyncFolder,
    /// An empty file of records is made.
    Create,
    /// A header or a body is written.
    Write,
    /// What was written to a file of records is made durable.
    Sync,
    /// The names in a stream's folder are made durable.
    SyncNames,
    /// A torn file is cut.
    Cut,
    /// The cut is made durable.
    SyncCut,
    /// A file of records is removed.
    Unlink,
    /// The ballast is given back.
    DropBallast,
    /// The ballast's file is made.
    MakeBallast,
    /// It takes its room.
    FillBallast,
    /// sled opens its file, and makes or mends it.
    OpenIndex,
    /// The names in the index's folder, and its own, are made durable.
    SyncIndexNames,
    /// Room is taken for sled's file to grow into.
    Reserve,
    /// Rows are given to sled.
    Apply,
    /// sled writes its log.
    Flush,
    /// sled's file is made durable.
    SyncIndex,
    /// A formerly damaged index is removed.
    RemoveAside,
    /// A damaged index is renamed.
    SetAside,
    /// That name is made durable.
    SyncAside,
    /// An index that was never finished, or is not there, is removed.
    RemoveUnfinished,
}

/// Asked before each durable step; in tests it can end them.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    #[cfg(test)]
    ending: Option<std::sync::Arc<ending::Ending>>,
}

impl Steps {
    /// Called before each durable step.
    #[cfg_attr(
        not(test),
        expect(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            reason = "only tests let a step fail"
        )
    )]
    pub(super) fn step(&self, point: Point) -> io::Result<()> {
        #[cfg(test)]
        if let Some(ending) = &self.ending {
            return ending.step(point);
        }
        let _ = point;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod ending {
    //! Where a test ends the steps, and how.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

    use super::{Point, Steps, io};

    impl Point {
        /// All of them.
        pub(in crate::buffer) const ALL: [Self; 22] = [
            Self::MakeFolder,
            Self::SyncFolder,
            Self::Create,
            Self::Write,
            Self::Sync,
            Self::SyncNames,
            Self::Cut,
            Self::SyncCut,
            Self::Unlink,
            Self::DropBallast,
            Self::MakeBallast,
            Self::FillBallast,
            Self::OpenIndex,
            Self::SyncIndexNames,
            Self::Reserve,
            Self::Apply,
            Self::Flush,
            Self::SyncIndex,
            Self::RemoveAside,
            Self::SetAside,
            Self::SyncAside,
            Self::RemoveUnfinished,
        ];
    }

    /// What happens instead of a step.
    #[derive(Debug, Clone, Copy)]
    enum How {
        /// It and every later one fails, as if the process had ended there.
        Fail,
        /// The process ends there, after it has called this.
        Kill(fn(Point)),
    }

    /// The end of the steps.
    #[derive(Debug)]
    pub(super) struct Ending {
        /// Steps that are still allowed.
        left: AtomicI64,
        /// Only these count.
        only: Option<Point>,
        how: How,
    }

    impl Ending {
        pub(super) fn step(&self, point: Point) -> io::Result<()> {
            if self.only.is_some_and(|only| only != point) || self.left.fetch_sub(1, SeqCst) > 0 {
                return Ok(());
            }
            match self.how {
                How::Fail => Err(io::Error::other("the test ended the process here")),
                How::Kill(last_word) => {
                    last_word(point);
                    let me = rustix::process::getpid();
                    rustix::process::kill_process(me, rustix::process::Signal::KILL)?;
                    // the signal may be a moment on its way; not one more step is taken
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }

    impl Steps {
        fn new(n: i64, only: Option<Point>, how: How) -> Self {
            let left = n.into();
            Self {
                ending: Some(Arc::new(Ending { left, only, how })),
            }
        }

        /// Every step after the first `n` fails, as if the process had ended there.
        pub(in crate::buffer) fn ending_after(n: i64) -> Self {
            Self::new(n, None, How::Fail)
        }

        /// The process calls `last_word` and is killed instead of the step after the first `n` (of
        /// one kind, if `only` names it).
        pub(in crate::buffer) fn killing_after(
            n: i64,
            only: Option<Point>,
            last_word: fn(Point),
        ) -> Self {
            Self::new(n, only, How::Kill(last_word))
        }

        /// Steps that are still allowed.
        pub(in crate::buffer) fn left(&self) -> i64 {
            self.ending
                .as_ref()
                .map_or(i64::MAX, |ending| ending.left.load(SeqCst))
        }
    }
}
