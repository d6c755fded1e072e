//! What ingest tells the rest of the hub, after the database has committed.
//!
//! A notice is a hint, not a queue: a listener that falls behind (the broadcast channel says so)
//! reads the database again. `Now` is the exception that nobody stores: it says how things are at
//! this moment, and the next one is half a minute away.

use std::sync::Arc;

use scc_common::clock::{Dated, WallMs};
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::record::RecordBody;
use scc_common::stream::Stream;
use scc_common::wire;

use crate::gate::Charge;

/// One thing that has happened.
#[derive(Debug, Clone)]
pub enum Notice {
    /// Records that were not stored before are stored now.
    Committed {
        /// Whose.
        agent: AgentId,
        /// In the order of their ids.
        records: Vec<CommittedRecord>,
        /// The gate's memory: what the records say came in these bytes, which count against the agent
        /// until everybody has read this. A listener that stands still so holds up the agents rather
        /// than filling the memory, however many records come.
        charges: Vec<Arc<Charge>>,
    },
    /// What an agent says is so at this moment.
    Now {
        /// Who.
        agent: AgentId,
        /// What it says, stills included.
        now: Box<wire::Now>,
        /// The gate's memory: until everybody has read this, its bytes count against the agent.
        charge: Arc<Charge>,
    },
}

/// One record as it was stored.
#[derive(Debug, Clone)]
pub struct CommittedRecord {
    /// Its place in the ledger; grows with every commit.
    pub id: i64,
    /// Its stream.
    pub stream: Stream,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its number.
    pub seq: Seq,
    /// When the hub received it.
    pub received_ms: WallMs,
    /// Its time as it was known when it was stored; none if it is unreadable.
    pub dated: Option<Dated>,
    /// What it says, with the bytes of a picture or video left out; none if it is unreadable.
    pub body: Option<Arc<RecordBody>>,
    /// Where its picture or video is, for [`crate::media::Media::get`].
    pub media: Option<String>,
}
