//! How long is waited for what (zk.md §5, §10, §12). One place, so that tests may hurry.

use std::time::Duration;

/// The waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For the name to resolve.
    pub resolve: Duration,
    /// For TCP to connect. Longer than the kernel's second repetition of its SYN at 3 s.
    pub connect: Duration,
    /// For the answer to a plain request.
    pub answer: Duration,
    /// For the answer to the probe of a quiet session.
    pub probe: Duration,
    /// For the first byte of a slice or table.
    pub data_first: Duration,
    /// Between two bytes of it.
    pub data_next: Duration,
    /// For a whole table.
    pub table: Duration,
    /// For the answer to EXIT.
    pub exit: Duration,
    /// Between two looks at an otherwise quiet session.
    pub keep_alive: Duration,
    /// After the last live event, before the log is read again.
    pub settle: Duration,
    /// Before punches that the buffer refused are offered again.
    pub refused: Duration,
    /// Before a log that was incomplete or not understood is read again, at most.
    pub reread: Duration,
    /// Before the first reconnect; doubles up to `retry_max`, with jitter.
    pub retry_min: Duration,
    /// Longest wait before a reconnect after a plain fault.
    pub retry_max: Duration,
    /// Before a reconnect when another program holds the session.
    pub retry_busy: Duration,
    /// Before the first reconnect when the key or the dialect is wrong: only a person can mend that.
    /// Doubles up to `hopeless_max`. A new configuration is a new start and does not wait.
    pub hopeless_min: Duration,
    /// Longest wait before such a reconnect.
    pub hopeless_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(4),
            answer: Duration::from_secs(5),
            probe: Duration::from_secs(10),
            data_first: Duration::from_secs(10),
            data_next: Duration::from_secs(5),
            table: Duration::from_secs(30 * 60),
            exit: Duration::from_secs(1),
            keep_alive: Duration::from_secs(30),
            settle: Duration::from_secs(2),
            refused: Duration::from_secs(5),
            reread: Duration::from_secs(60),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_millis(2_500),
            retry_busy: Duration::from_secs(5),
            hopeless_min: Duration::from_secs(2 * 60),
            hopeless_max: Duration::from_secs(30 * 60),
        }
    }
}
