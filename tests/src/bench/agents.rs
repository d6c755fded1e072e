//! Many real agents' uplinks in one process: the shipped session, plan, backoff and MQTT, each on a buffer
//! of its own or on one that has never had a record.

use std::net::SocketAddr;
use std::sync::Arc;

use scc_agent::buffer::{BufferError, Lane, Stored};
use scc_agent::capture::board::Board;
use scc_agent::config::{Hub, Identity};
use scc_agent::uplink::mqtt::Mqtt;
use scc_agent::uplink::store::Store;
use scc_agent::uplink::{Given, Handle, Uplink};
use scc_common::id::{AgentId, Epoch, Seq};
use scc_common::record::{LaneHealth, LinkMode};
use scc_common::wire::{LaneOffer, SeqRange};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::{Place, agent};

/// An uplink that runs.
#[derive(Debug)]
pub struct Agent {
    /// How its link is.
    pub handle: Handle,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Agent {
    /// Starts the uplink of the agent of this number on `store`.
    ///
    /// # Errors
    /// If there is no such agent.
    pub fn start(
        place: &Place,
        no: usize,
        hub: SocketAddr,
        store: impl Store,
    ) -> anyhow::Result<Self> {
        let name = agent(no);
        let id = AgentId::new(&name)?;
        let folder = place.identity();
        let identity = Identity {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
            hub_ca: folder.join("hub-ca.pem"),
        };
        let to = Hub {
            host: hub.ip().to_string(),
            port: hub.port(),
        };
        // nothing changes on a board without devices, and nobody records the uplink's own events
        let (board, _) = Board::new(Arc::clone(place.clock()));
        let (events, _) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let given = Given {
            agent: id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store,
            board,
            clock: Arc::clone(place.clock()),
            events,
            poke: Arc::new(Notify::new()),
            stop: stop.clone(),
            alive: Arc::default(),
        };
        let (uplink, handle) = Uplink::new(given, Mqtt::new(id, to, identity), rand::random());
        Ok(Self {
            handle,
            stop,
            running: tokio::spawn(uplink.run()),
        })
    }

    /// Whether the hub has answered its hello.
    #[must_use]
    pub fn is_online(&self) -> bool {
        let mode = self.handle.status.borrow().mode;
        !matches!(mode, LinkMode::Down | LinkMode::Connecting)
    }

    /// Ends it.
    pub async fn stop(self) {
        self.stop.cancel();
        // one that has panicked has been seen by who waited for it
        let _ = self.running.await;
    }
}

/// A buffer that has never had a record.
#[derive(Debug)]
pub struct Empty {
    epoch: Epoch,
    appended: watch::Receiver<u64>,
    _nobody: watch::Sender<u64>,
}

impl Default for Empty {
    fn default() -> Self {
        let (nobody, appended) = watch::channel(0);
        Self {
            epoch: Epoch::random(),
            appended,
            _nobody: nobody,
        }
    }
}

impl Store for Empty {
    async fn offers(&self) -> Result<Vec<LaneOffer>, BufferError> {
        Ok(Vec::new())
    }
    async fn epoch(&self) -> Result<Epoch, BufferError> {
        Ok(self.epoch)
    }
    async fn read(&self, _: Lane, _: SeqRange, _: usize) -> Result<Vec<Stored>, BufferError> {
        Ok(Vec::new())
    }
    async fn acknowledge(&self, _: Lane, _: Seq, _: Vec<SeqRange>) -> Result<(), BufferError> {
        Ok(())
    }
    async fn want_again(&self, _: Lane, _: Vec<SeqRange>) -> Result<(), BufferError> {
        Ok(())
    }
    async fn unacknowledged(&self, _: Lane) -> Result<Vec<SeqRange>, BufferError> {
        Ok(Vec::new())
    }
    async fn begin_epoch(&self, _: &str) -> Result<Epoch, BufferError> {
        Ok(self.epoch)
    }
    async fn stat(&self) -> Result<Vec<LaneHealth>, BufferError> {
        Ok(Vec::new())
    }
    fn appended(&self) -> watch::Receiver<u64> {
        self.appended.clone()
    }
}
