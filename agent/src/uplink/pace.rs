//! The uplink's waits, all derived from one number: the keep-alive.
//!
//! Promise: once a bad link is well again, records flow within twice the keep-alive, whatever the
//! link did meanwhile. So no single wait, added to the pause before the next attempt
//! ([`Pace::reconnect_last`]), may reach that:
//!
//! | the link | who notices | after at most (keep-alives) |
//! |---|---|---|
//! | nothing answers any more | a ping without an answer | 1 + 1/3 |
//! | takes no bytes | flushing one packet | 1 |
//! | TCP, TLS, CONNECT or SUBSCRIBE unanswered | [`Pace::connect`] | 1 + 1/3 |
//! | hello or records unanswered | the resend timer, on the same connection | 1 + 2/3 |
//! | hello unanswered, pings answered | [`Pace::no_answer`] | 2 |
//!
//! The pause is at most half a keep-alive more.
//!
//! [`Pace::held_back`] is none of these: the link of who waits for it is well.

use std::time::Duration;

/// How patient the uplink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    keep_alive: Duration,
}

impl Default for Pace {
    /// What the boxes run with: a keep-alive of 30 s.
    fn default() -> Self {
        Self::of(Duration::from_secs(30))
    }
}

impl Pace {
    /// From a keep-alive of whole seconds; the hub takes 5 to 300.
    #[must_use]
    pub const fn of(keep_alive: Duration) -> Self {
        Self { keep_alive }
    }

    /// Time between two pings. The hub drops a client after 1.5 times this.
    #[must_use]
    pub const fn keep_alive(self) -> Duration {
        self.keep_alive
    }

    /// Something must have come in this long after a ping; a hub that holds this agent back sends signs of
    /// life twice as often, because it does not see the ping. A ping may stand behind one part on a slow
    /// link, whose PUBACK counts too: 32 KiB pass a link of 4 kB/s in this time.
    pub(super) fn pong(self) -> Duration {
        self.keep_alive / 3
    }

    /// A step of connecting, and the flushing of one packet, take no longer.
    pub(super) const fn step(self) -> Duration {
        self.keep_alive
    }

    /// Connecting may take this long in all: name, TCP, TLS, MQTT, subscription.
    pub(super) fn connect(self) -> Duration {
        self.keep_alive * 4 / 3
    }

    /// First ceiling of the pause before reconnecting.
    pub(super) fn reconnect_first(self) -> Duration {
        self.keep_alive / 30
    }

    /// Last ceiling of the pause before reconnecting. A punch made when the hub is back waits for this,
    /// so it is short; 200 agents spread over it are 14 handshakes a second, which the gate does not
    /// notice.
    #[must_use]
    pub fn reconnect_last(self) -> Duration {
        self.keep_alive / 2
    }

    /// Even full jitter does not make a hot loop.
    pub(super) fn reconnect_floor(self) -> Duration {
        self.keep_alive / 300
    }

    /// A connection that flowed this long was a good one.
    pub(super) fn stable(self) -> Duration {
        self.keep_alive * 2
    }

    /// The first wait for an acknowledgement.
    pub(super) fn resend_first(self) -> Duration {
        self.keep_alive / 3
    }

    /// The last one.
    pub(super) fn resend_last(self) -> Duration {
        self.keep_alive * 4 / 3
    }

    /// An agent with data and without permission asks again after this.
    pub(super) fn no_permission(self) -> Duration {
        self.keep_alive / 3
    }

    /// Whoever answers pings and has not answered a hello for this long gets a new connection: a broker
    /// that has forgotten the subscription, say.
    pub(super) fn no_answer(self) -> Duration {
        self.keep_alive * 2
    }

    /// The same, of a hub that says meanwhile that it holds this agent back. The hello is repeated on this
    /// connection; a new one would stand in the same queue, because the hub's database is away or slow.
    /// This is the last resort.
    pub(super) fn held_back(self) -> Duration {
        self.keep_alive * 10
    }

    /// A sign that this agent is held back holds for so long; the hub gives one twice in this time.
    pub(super) fn sign(self) -> Duration {
        self.pong()
    }
}
