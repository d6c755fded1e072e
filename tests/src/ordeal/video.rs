//! Holes in what cameras showed: each must have its kill, and be no longer than that kill explains.

use super::ledger::{Stretch, Video};

/// Between the end of a segment and the beginning of the next: stamps are taken when bytes arrive,
/// on a machine that has other things to do.
const SLACK_MS: i64 = 1_000;

/// From a kill to video again: a supervisor's wait, the start, the wait before the next session with
/// the camera, its opening, its first keyframe; on a loaded machine.
pub const BACK_WITHIN_MS: i64 = 12_000;

/// What was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// An agent; its readers end with it.
    Agent,
    /// The reader process of one camera.
    Reader,
    /// The hub: no reason for a hole.
    Hub,
}

/// One kill.
#[derive(Debug, Clone)]
pub struct Kill {
    /// When, by the wall clock.
    pub at_ms: i64,
    /// What.
    pub victim: Victim,
    /// Whose: the site; empty for the hub.
    pub site: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Holes {
    /// How many.
    pub count: usize,
    /// Longest stretch before a kill of an agent that was lost.
    pub lost_agent_ms: i64,
    /// The same of a reader.
    pub lost_reader_ms: i64,
    /// Longest time from a kill to video again.
    pub back_ms: i64,
    /// Segments that show what another shows too.
    pub overlaps: usize,
    /// What no kill explains.
    pub violations: Vec<String>,
}

/// Looks at each camera's video. With a reader, or the agent that it ends with, goes its open fragment,
/// from one keyframe to the next: `fragment_ms`.
#[must_use]
pub fn holes(video: &Video, kills: &[Kill], fragment_ms: i64) -> Holes {
    let mut found = Holes::default();
    for ((site, device), stretches) in video {
        for pair in stretches.windows(2) {
            let [before, after] = pair else { continue };
            let long = after.from_ms - before.to_ms;
            if long < -SLACK_MS {
                found.overlaps += 1;
                found.violations.push(format!(
                    "{site} {device}: segments overlap by {} ms at {}",
                    -long, after.from_ms
                ));
            }
            if long > SLACK_MS {
                found.count += 1;
                found.explain(
                    &format!("{site} {device}"),
                    site,
                    (before, after),
                    kills,
                    fragment_ms,
                );
            }
        }
    }
    found
}

impl Holes {
    fn explain(
        &mut self,
        camera: &str,
        site: &str,
        (before, after): (&Stretch, &Stretch),
        kills: &[Kill],
        fragment_ms: i64,
    ) {
        let (from, to) = (before.to_ms, after.from_ms);
        let during: Vec<&Kill> = kills
            .iter()
            .filter(|k| k.site == site && k.at_ms > from - SLACK_MS && k.at_ms < to)
            .collect();
        let (Some(first), Some(last)) = (during.first(), during.last()) else {
            self.violations.push(format!(
                "{camera}: {} ms without a kill at {from}",
                to - from
            ));
            return;
        };
        let lost = first.at_ms - from;
        if let [only] = during.as_slice() {
            let most = match only.victim {
                Victim::Agent => &mut self.lost_agent_ms,
                Victim::Reader | Victim::Hub => &mut self.lost_reader_ms,
            };
            *most = lost.max(*most);
        }
        self.back_ms = self.back_ms.max(to - last.at_ms);
        // each kill costs what was open and the way back, and what was open again at the next kill
        let mut since = from;
        for kill in &during {
            let allowed = fragment_ms + SLACK_MS;
            let way_back = if since == from { 0 } else { BACK_WITHIN_MS };
            if kill.at_ms - since > allowed + way_back {
                self.violations.push(format!(
                    "{camera}: {} ms lost before the kill of {:?} at {}",
                    kill.at_ms - since - way_back,
                    kill.victim,
                    kill.at_ms
                ));
            }
            since = kill.at_ms;
        }
        if to - last.at_ms > BACK_WITHIN_MS {
            self.violations.push(format!(
                "{camera}: back only {} ms after the kill at {}",
                to - last.at_ms,
                last.at_ms
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(spans: &[(i64, i64)], kills: &[(i64, Victim, &str)]) -> Holes {
        let spans = spans
            .iter()
            .map(|&(from_ms, to_ms)| Stretch { from_ms, to_ms });
        let video = Video::from([(("kantor".into(), "loket".into()), spans.collect())]);
        let kills: Vec<_> = kills
            .iter()
            .map(|&(at_ms, victim, site)| Kill {
                at_ms,
                victim,
                site: site.into(),
            })
            .collect();
        holes(&video, &kills, 2_000)
    }

    #[test]
    fn a_hole_needs_a_kill_of_its_own_site() {
        let spans = [(0, 4_000), (4_100, 8_000), (14_000, 18_000)];
        let good = look(&spans, &[(10_000, Victim::Agent, "kantor")]);
        assert_eq!((good.count, good.violations.len()), (1, 0));
        assert_eq!((good.lost_agent_ms, good.back_ms), (2_000, 4_000));
        for kills in [&[][..], &[(10_000, Victim::Agent, "pasar")]] {
            assert_eq!(look(&spans, kills).violations.len(), 1);
        }
    }

    #[test]
    fn whoever_is_killed_may_lose_a_fragment_and_no_more() {
        let spans = [(0, 4_000), (10_000, 14_000)];
        for victim in [Victim::Reader, Victim::Agent] {
            let fragment = look(&spans, &[(6_900, victim, "kantor")]);
            assert_eq!(fragment.violations.len(), 0, "{fragment:?}");
            let segment = look(&spans, &[(7_500, victim, "kantor")]);
            assert_eq!(segment.violations.len(), 1, "{segment:?}");
        }
    }

    #[test]
    fn video_must_come_back_and_must_not_come_twice() {
        let slow = look(
            &[(0, 4_000), (30_000, 34_000)],
            &[(5_000, Victim::Agent, "kantor")],
        );
        assert_eq!(slow.violations.len(), 1, "{slow:?}");
        let twice = look(&[(0, 4_000), (1_000, 5_000)], &[]);
        assert_eq!((twice.overlaps, twice.violations.len()), (1, 1));
    }
}
