//! MQTT topics. There are two per agent and nothing in them ever grows, because rumqttd keeps
//! every distinct topic in memory for ever.

use crate::id::AgentId;

/// What the hub's ingest subscribes to.
pub const UP_FILTER: &str = "scc/up/+";

const UP_PREFIX: &str = "scc/up/";
const DOWN_PREFIX: &str = "scc/down/";

/// Where an agent publishes (QoS 1).
#[must_use]
pub fn up(agent: &AgentId) -> String {
    format!("{UP_PREFIX}{agent}")
}

/// Where the hub answers (QoS 0).
#[must_use]
pub fn down(agent: &AgentId) -> String {
    format!("{DOWN_PREFIX}{agent}")
}

/// The owner of an up topic, or `None` if it is not one.
#[must_use]
pub fn owner_of_up(topic: &str) -> Option<AgentId> {
    AgentId::new(topic.strip_prefix(UP_PREFIX)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_up_topic_names_exactly_one_owner() {
        let agent = AgentId::new("rsud").unwrap();
        assert_eq!(owner_of_up(&up(&agent)), Some(agent.clone()));
        for other in [
            "scc/up/",
            "scc/up/+",
            "scc/up/#",
            "scc/up/a/b",
            "scc/down/rsud",
            "$share/g/scc/up/a",
        ] {
            assert_eq!(owner_of_up(other), None, "{other}");
        }
        assert_eq!(down(&agent), "scc/down/rsud");
    }
}
