//! Files that somebody is about to refer to: being written, or durable and not yet in the ledger; and
//! files that are being taken away.
//!
//! Promise: nobody waits for a disk but who asks for a path that is being taken at this moment. Letting go of
//! a file ([`Held`] is dropped where acknowledgements are sent) never does.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is held and what is being taken; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Locked for what is in memory only, never across a system call.
    paths: Mutex<Paths>,
    taken: Condvar,
}

#[derive(Debug, Default)]
struct Paths {
    /// With how many hold each: a record that comes twice is written twice.
    held: HashMap<String, usize>,
    /// Somebody is at the disk with these, and nobody begins to use them meanwhile.
    taking: HashSet<String>,
}

impl Holds {
    /// From now on, and until what is returned is dropped, this file is in use. Waits while somebody is
    /// taking it, so for a disk: call it from a thread that may.
    pub(super) fn take(&self, path: &str) -> Held {
        let mut paths = self.lock();
        // Counted first: of those who would take it next, none begins.
        *paths.held.entry(path.to_owned()).or_default() += 1;
        let held = Held {
            path: path.to_owned(),
            holds: self.clone(),
        };
        let wait = self.0.taken.wait_while(paths, |p| p.taking.contains(path));
        drop(wait.unwrap_or_else(PoisonError::into_inner));
        held
    }

    /// Whether somebody holds this file at the moment.
    pub(super) fn is_held(&self, path: &str) -> bool {
        self.lock().held.contains_key(path)
    }

    /// Does something with a file that nobody holds, while nobody can begin to; none if somebody does, or
    /// is at it already.
    pub(super) fn unless_held<T>(&self, path: &str, work: impl FnOnce() -> T) -> Option<T> {
        self.while_held_by(0, path, work)
    }

    /// Does something with a file that only this one holds, while nobody else can begin to; none if
    /// somebody does.
    pub(super) fn if_alone<T>(&self, held: &Held, work: impl FnOnce() -> T) -> Option<T> {
        self.while_held_by(1, &held.path, work)
    }

    fn while_held_by<T>(&self, count: usize, path: &str, work: impl FnOnce() -> T) -> Option<T> {
        {
            let mut paths = self.lock();
            let is = paths.held.get(path).copied().unwrap_or(0);
            if is != count || !paths.taking.insert(path.to_owned()) {
                return None;
            }
        }
        let _taking = Taking { path, holds: self };
        Some(work())
    }

    fn lock(&self) -> MutexGuard<'_, Paths> {
        self.0.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the taking, however the work has ended.
struct Taking<'a> {
    path: &'a str,
    holds: &'a Holds,
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.holds.lock().taking.remove(self.path);
        self.holds.0.taken.notify_all();
    }
}

/// As long as this lives, nothing sweeps the file away. To be kept until the file's row is committed.
#[derive(Debug)]
pub struct Held {
    path: String,
    holds: Holds,
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = &mut self.holds.lock().held;
        if let Some(count) = held.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Who has not come back after this is waiting for the disk.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_taking_that_hangs_holds_up_neither_a_drop_nor_another_path_and_its_own_path_waits() {
        let holds = Holds::default();
        let waits_for_its_row = holds.take("waits");
        let (disk, hangs) = mpsc::channel::<()>();
        let (at_it, begun) = mpsc::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let sweep = thread::spawn({
            let (holds, taken) = (holds.clone(), Arc::clone(&taken));
            move || {
                holds.unless_held("old", || {
                    at_it.send(()).unwrap();
                    hangs.recv().unwrap();
                    taken.store(true, Ordering::SeqCst);
                })
            }
        });
        begun.recv().unwrap();

        let (done, others) = mpsc::channel();
        thread::spawn({
            let holds = holds.clone();
            move || {
                drop(waits_for_its_row);
                drop(holds.take("another"));
                assert!(!holds.is_held("another"));
                let second = holds.unless_held("old", || ());
                assert!(second.is_none(), "one at a time");
                done.send(()).unwrap();
            }
        });
        others.recv_timeout(PATIENCE).expect("nobody else waits");

        let (done, writer) = mpsc::channel();
        thread::spawn({
            let (holds, taken) = (holds.clone(), Arc::clone(&taken));
            move || {
                let _held = holds.take("old");
                done.send(taken.load(Ordering::SeqCst)).unwrap();
            }
        });
        while !holds.is_held("old") {
            assert!(writer.try_recv().is_err(), "it did not wait");
            thread::yield_now();
        }
        disk.send(()).unwrap();
        let after = writer.recv_timeout(PATIENCE).expect("it goes on");
        assert!(after, "the file was not in use while it was taken");
        assert!(sweep.join().unwrap().is_some());
    }

    #[test]
    fn only_who_holds_a_file_alone_works_on_it_and_a_panic_leaves_nothing_marked() {
        let holds = Holds::default();
        let one = holds.take("file");
        let two = holds.take("file");
        assert!(holds.if_alone(&one, || ()).is_none());
        drop(two);
        assert!(holds.if_alone(&one, || ()).is_some());
        assert!(holds.unless_held("file", || ()).is_none());
        drop(one);
        let sweep = holds.clone();
        let panicked = thread::spawn(move || sweep.unless_held("file", || panic!("at the disk")));
        assert!(panicked.join().is_err());
        assert!(holds.unless_held("file", || ()).is_some());
    }
}
