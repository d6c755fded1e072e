//! What ingest tells the rest of the hub: what was committed, and what is so now.

use scc_common::clock::WallMs;
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use scc_common::wire;

/// One piece of news.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Records of one agent are in the database.
    Committed {
        /// Whose.
        agent: AgentId,
        /// In the order of commit.
        records: Vec<CommittedRecord>,
    },
    /// What an agent says is so at this moment; nothing was stored.
    Now {
        /// Whose.
        agent: AgentId,
        /// What it says.
        now: Box<wire::Now>,
    },
}

/// A record that is in the database.
#[derive(Debug, Clone)]
pub struct CommittedRecord {
    /// Its row.
    pub id: i64,
    /// Its stream.
    pub stream: Stream,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// When the hub received it.
    pub received_ms: WallMs,
    /// What it says; none if it cannot be read.
    pub body: Option<RecordBody>,
    /// Path of its file, for pictures and video.
    pub media: Option<String>,
}
