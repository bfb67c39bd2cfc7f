//! All processes of a run: three brokers behind proxies, nodes, a Postgres; and a log.
//!
//! Invariants: a fault holds the process that it breaks, so that no two faults break the same
//! process at once. A node that ended by itself is recorded and started again, as a supervisor
//! would do. Deliberately absent: what to break when.

mod machine;
mod network;
mod node;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_log::create::{CreateOptions, create};
use event_log::log::{EventLog, LogAddress, StoreOptions};
use tempfile::TempDir;
use tokio::sync::{Mutex as Hold, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::load::NodeAddress;
use crate::harness::kafka::cluster::{BROKERS, BrokerIndex, KafkaCluster, Route};
use crate::harness::postgres::Postgres;
use crate::harness::unique_name;
pub use machine::{Clock, MemoryLimit, limit_files, open_files};
pub use network::Network;
use node::Surroundings;
pub use node::{Node, NodeEnd};

/// How long a node may take to answer a health request.
const WORDS_WAIT: Duration = Duration::from_secs(2);
/// How long the nodes may take to start.
pub const START_WAIT: Duration = Duration::from_secs(120);
/// How often the nodes are checked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a scene consists of.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// The program under test.
    pub program: PathBuf,
    /// The folder for the nodes' output and the history.
    pub artefacts: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How many partitions.
    pub partitions: u32,
    /// The session timeout of the nodes' group.
    pub session_timeout: Duration,
    /// Whether nodes run projectors beside the command door.
    pub projectors: Projectors,
    /// Which parts of the machine are made small for each node; only root can do that.
    pub machine: MachineWishes,
    /// The nodes' log filter, as in `RUST_LOG`.
    pub log_filter: String,
    /// More arguments for every node.
    pub arguments: Vec<String>,
}

/// Whether nodes run projectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projectors {
    /// Every node has a projector, into one Postgres.
    Everywhere,
    /// There is no Postgres.
    Nowhere,
}

/// Which parts of the machine each node gets for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineWishes {
    /// A disk of this size, in megabytes.
    pub disk_mb: Option<u32>,
    /// A memory limit, in megabytes.
    pub memory_mb: Option<u32>,
    /// A wall clock, for the last node only.
    pub clock: bool,
    /// A network namespace.
    pub network: bool,
}

/// All processes, running.
pub struct Scene {
    /// The brokers.
    pub cluster: KafkaCluster,
    /// The nodes.
    pub nodes: Vec<Arc<Node>>,
    /// The log, read without a proxy.
    pub log: Arc<dyn EventLog>,
    /// The log's topic.
    pub topic: String,
    /// The database of the read models, if nodes run projectors.
    pub postgres_url: Option<String>,
    postgres: Mutex<Option<Postgres>>,
    broker_holds: Vec<Arc<Hold<()>>>,
    postgres_hold: Arc<Hold<()>>,
    _folder: TempDir,
}

impl Scene {
    /// Starts everything, without waiting until the nodes are ready.
    async fn set(options: &SceneOptions) -> Arc<Self> {
        let networks: Vec<Option<Network>> = (0..options.nodes)
            .map(|number| {
                let make = || Network::make(number).ok();
                options.machine.network.then(make).flatten()
            })
            .collect();
        let sides: Vec<Ipv4Addr> = networks
            .iter()
            .map(|network| {
                network
                    .as_ref()
                    .map_or(Ipv4Addr::LOCALHOST, |it| it.outside)
            })
            .collect();
        // Brokers take the longest to start, so make the database meanwhile.
        let cluster = tokio::task::spawn_blocking(move || KafkaCluster::start(&sides));
        let postgres = match options.projectors {
            Projectors::Nowhere => None,
            Projectors::Everywhere => {
                let postgres = tokio::task::spawn_blocking(Postgres::start);
                let postgres = postgres.await.expect("a Postgres");
                let url = postgres.create_database().await;
                projector::migrate(&url).await.expect("a migrated database");
                Some((postgres, url))
            }
        };
        let cluster = cluster.await.expect("three brokers");
        let topic = unique_name("log");
        let address = LogAddress::Kafka {
            brokers: cluster.bootstrap().to_owned(),
            topic: topic.clone(),
        };
        let create_options = CreateOptions {
            store: StoreOptions {
                partition_count: options.partitions,
                replication: 3,
            },
            idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
            node: "faults".to_owned(),
        };
        let (log, _, _) = create(&address, &create_options).await.expect("a new log");
        let folder = tempfile::Builder::new().prefix("annals-faults-").tempdir();
        let folder = folder.expect("a temporary folder");
        let (postgres, postgres_url) = postgres.unzip();
        let nodes = networks.into_iter().enumerate().map(|(number, network)| {
            let surroundings = Surroundings {
                log: format!("kafka://{}/{topic}", cluster.route(number).bootstrap()),
                postgres: postgres_url.clone(),
                network,
                folder: folder.path().join(format!("n{}", number + 1)),
            };
            Arc::new(Node::start(number, options, surroundings))
        });
        let nodes = nodes.collect();
        Arc::new(Self {
            cluster,
            nodes,
            log,
            topic,
            postgres_url,
            postgres: Mutex::new(postgres),
            broker_holds: (0..BROKERS).map(|_| Arc::default()).collect(),
            postgres_hold: Arc::default(),
            _folder: folder,
        })
    }

    /// Starts everything, waits until the nodes are ready, and restarts nodes that end, until the
    /// handle is aborted.
    ///
    /// # Panics
    /// If anything cannot be started.
    pub async fn begin(options: &SceneOptions) -> (Arc<Self>, JoinHandle<()>) {
        let scene = Self::set(options).await;
        let supervising = scene.supervise();
        scene.ready(START_WAIT).await.expect("nodes that are ready");
        (scene, supervising)
    }

    /// Restarts nodes that end, until the handle is aborted.
    fn supervise(&self) -> JoinHandle<()> {
        let nodes = self.nodes.clone();
        tokio::spawn(async move {
            loop {
                nodes.iter().for_each(|node| node.look_after());
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Waits until every node reports that it is ready.
    ///
    /// # Errors
    /// What the nodes reported last, if they are not ready after `wait`.
    pub async fn ready(&self, wait: Duration) -> Result<(), String> {
        let began = std::time::Instant::now();
        while !self.nodes.iter().all(|node| node.is_ready()) {
            if began.elapsed() > wait {
                let said: Vec<String> = self.nodes.iter().map(|node| node.said()).collect();
                return Err(format!("nodes are not ready:\n{}", said.join("\n---\n")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// The addresses of the nodes for clients.
    #[must_use]
    pub fn doors(&self) -> Vec<NodeAddress> {
        let door = |node: &Arc<Node>| NodeAddress {
            name: node.name.clone(),
            url: node.url.clone(),
        };
        self.nodes.iter().map(door).collect()
    }

    /// A node's route to the brokers.
    #[must_use]
    pub fn route(&self, node: &Node) -> &Route {
        self.cluster.route(node.number)
    }

    /// Takes the lock on a broker; `None` if another fault holds it.
    #[must_use]
    pub fn hold_broker(&self, broker: BrokerIndex) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.broker_holds[broker.0])
            .try_lock_owned()
            .ok()
    }

    /// Takes the lock on Postgres; `None` if another fault holds it, or if there is no Postgres.
    #[must_use]
    pub fn hold_postgres(&self) -> Option<OwnedMutexGuard<()>> {
        self.postgres_url.as_ref()?;
        Arc::clone(&self.postgres_hold).try_lock_owned().ok()
    }

    /// Calls `act` with the Postgres; blocks.
    pub fn with_postgres(&self, act: impl FnOnce(&mut Postgres)) {
        let mut postgres = self.postgres.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(postgres) = postgres.as_mut() {
            act(postgres);
        }
    }

    /// Saves what the nodes report about themselves, for the study of a failed run.
    pub async fn save_words(&self, to: &Path, moment: &str) {
        let http = reqwest::Client::builder().no_proxy().timeout(WORDS_WAIT);
        let http = http.build().expect("a client with these settings");
        for node in &self.nodes {
            for path in ["readyz", "metrics", "v1/topology"] {
                let asked = http.get(format!("{}/{path}", node.url)).send();
                let said = async { asked.await?.text().await }.await;
                let said = said.unwrap_or_else(|error| error.to_string());
                let name = format!("{}-{}-{moment}.txt", node.name, path.replace('/', "-"));
                // These files only help to study a run; a failed write is no failure of the run.
                let _ = std::fs::write(to.join(name), said);
            }
        }
    }

    /// Copies the brokers' logs, which help after a failure.
    pub fn save_logs(&self, to: &Path) {
        for broker in BrokerIndex::all() {
            for name in ["output.log", "broker.log"] {
                let target = to.join(format!("broker{}-{name}", broker.0 + 1));
                // A log that does not exist is left out.
                let _ = std::fs::copy(self.cluster.folder(broker).join(name), target);
            }
        }
    }
}
