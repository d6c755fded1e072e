//! Where a test lets the hub end as by SIGKILL: between two durable steps of a record's way.
//!
//! Outside this crate's unit tests [`here`] is empty and nothing can arm it, so the product neither
//! pays for the points nor can be brought to end at one.

/// A moment between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Point {
    /// All bytes of a media file are written; it is not synced, and does not have its name.
    MediaWritten = 1,
    /// A media file and its folder are durable; its row is not yet handed to the committer.
    MediaDurable,
    /// All statements of a transaction are done; it is not committed.
    Uncommitted,
    /// The transaction is durable; nobody has been told.
    Committed,
    /// What was spooled of committed records is removed; nothing is acknowledged.
    Unspooled,
}

/// Nothing, except in a unit test that has armed this point.
#[cfg(not(test))]
pub(crate) const fn here(_: Point) {}

#[cfg(test)]
pub(crate) use armed::{arm, end, here};

#[cfg(test)]
mod armed {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Point;

    static ARMED: AtomicU8 = AtomicU8::new(0);

    /// From now on this process ends when it comes to `point`.
    pub(crate) fn arm(point: Point) {
        ARMED.store(point as u8, Ordering::SeqCst);
    }

    /// Ends this process if the point is armed.
    pub(crate) fn here(point: Point) {
        if ARMED.load(Ordering::SeqCst) == point as u8 {
            end();
        }
    }

    /// Ends this process as a power switch would: nothing of it is cleaned up.
    pub(crate) fn end() {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(b"\nhere .\n").and_then(|()| out.flush());
        // held, so that no other thread says anything after this
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
