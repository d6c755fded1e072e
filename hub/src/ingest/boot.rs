//! What agents measure of their boots' time on its way to the ledger, and the records that it dates
//! afterwards.

use std::time::Duration;

use scc_common::clock::{BootOffset, WallMs};
use scc_common::id::AgentId;
use scc_common::wire::Now;

use super::context::Context;
use crate::store::Write;

/// How often it is looked whether records wait to be dated. Looking costs one step of an index.
const EVERY: Duration = Duration::from_secs(1);

/// A *now* may be on its way, or wait for its turn, for this long.
const LONGEST_WAY_MS: u32 = 60_000;

/// The measurement that a *now* tells, unless the hub's own clock contradicts it: the hub has received it
/// at this time, so it was sent at most [`LONGEST_WAY_MS`] before. Who measures against an hour that the
/// hub has not, because a clock was put right meanwhile, measures again at its next connection.
pub(super) fn measured(agent: &AgentId, now: &Now, received_ms: WallMs) -> Option<Write> {
    let offset = now.offset?;
    let sent_ms = offset.at(now.stamp.mono_ms);
    let arrival = BootOffset {
        ahead_ms: offset
            .ahead_ms
            .saturating_add(received_ms.saturating_sub(sent_ms)),
        within_ms: LONGEST_WAY_MS,
        mono_ms: now.stamp.mono_ms,
    };
    if arrival.excludes(&offset) {
        tracing::warn!(
            %agent, boot = %now.stamp.boot, ?offset, received_ms,
            "what an agent has measured of the hub's clock does not agree with it and is passed over"
        );
        return None;
    }
    Some(Write::Boot {
        agent: agent.clone(),
        boot: now.stamp.boot,
        offset,
        received_ms,
    })
}

/// Dates records again for as long as the hub runs.
pub(super) async fn keep_dated(context: &Context) {
    loop {
        match context.store.date_again().await {
            // others write between two steps
            Ok(true) => tokio::task::yield_now().await,
            Ok(false) => tokio::time::sleep(EVERY).await,
            Err(error) => {
                tracing::warn!(%error, "records cannot be dated again yet");
                tokio::time::sleep(EVERY * 5).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use scc_common::clock::{Clock, ManualClock};
    use scc_common::record::LinkMode;

    use super::*;

    #[test]
    fn a_measurement_that_the_hubs_own_clock_contradicts_is_passed_over() {
        let agent = AgentId::new("rsud").unwrap();
        let clock = ManualClock::at(5);
        let now = |ahead_ms| Now {
            stamp: clock.stamp(),
            devices: Vec::new(),
            link: LinkMode::Normal,
            backlog: 0,
            backlog_bytes: 0,
            oldest_ms: None,
            stills: Vec::new(),
            offset: Some(BootOffset {
                ahead_ms,
                within_ms: 40,
                mono_ms: clock.mono_ms(),
            }),
        };
        let received = 1_795_000_000_000;
        let ahead = received - i64::try_from(clock.mono_ms()).unwrap();
        for (late, taken) in [
            (0, true),
            (50_000, true),
            (-1_000, true),
            (3_600_000, false),
        ] {
            let said = measured(&agent, &now(ahead - late), received);
            assert_eq!(said.is_some(), taken, "{late} ms on its way");
        }
        assert!(measured(&agent, &now(i64::MIN), received).is_none());
        assert!(measured(&agent, &now(i64::MAX), received).is_none());
    }
}
