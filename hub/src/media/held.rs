//! Files that somebody is about to refer to: being written, or durable and not yet in the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Paths, with how many hold each: a record that comes twice is written twice.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds(Arc<Mutex<HashMap<String, usize>>>);

impl Holds {
    /// From now on, and until what is returned is dropped, this file is in use.
    pub(super) fn take(&self, path: &str) -> Held {
        *self.lock().entry(path.to_owned()).or_default() += 1;
        Held {
            path: path.to_owned(),
            holds: self.clone(),
        }
    }

    /// Does something with a file that nobody holds, and while nobody can begin to; none if somebody
    /// does. Whoever wants to hold any file waits meanwhile: one or two system calls, no more.
    pub(super) fn unless_held<T>(&self, path: &str, work: impl FnOnce() -> T) -> Option<T> {
        let held = self.lock();
        (!held.contains_key(path)).then(work)
    }

    /// Whether this is the only one that holds its file.
    pub(super) fn alone(&self, held: &Held) -> bool {
        self.lock().get(&held.path) == Some(&1)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut held = self.holds.lock();
        if let Some(count) = held.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.path);
            }
        }
    }
}
