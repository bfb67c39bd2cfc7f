//! Several write sides in one process on one log in Kafka. Each has its own runtime, and they reach
//! each other without HTTP.
//!
//! Deliberately absent: processes, signals and sockets; the faults use real ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::clock::LogClock;
use engine::command::{Became, SubmitError};
use engine::owner::{Inquiry, OwnerSettings};
use engine::peers::{CommandForPeer, LinkEvent, PeerError, PeerLink, PeerService, Peers};
use engine::{ClusterOptions, Engine, EngineOptions, MEMORY_BYTES, QUEUE_MAX};
use event_log::directory::Hint;
use event_log::log::EventLog;
use event_log::membership::MembershipOptions;
use kernel::registry::Registry;
use position::Partition;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// How long a node may take to hand over; others wait for it.
const HAND_OVER_WAIT: Duration = Duration::from_secs(2);
/// How long a node may take to take over.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(10);

/// The running nodes, by address.
#[derive(Default)]
pub struct Network {
    nodes: RwLock<BTreeMap<String, (Engine, tokio::runtime::Handle)>>,
    /// Pairs of addresses, from and to, between which no message passes.
    cut: Mutex<Vec<(String, String)>>,
}

impl Network {
    fn reach(&self, from: &str, to: &str) -> Option<(Engine, tokio::runtime::Handle)> {
        let cut = self.cut.lock().expect("no test panics here");
        if cut.iter().any(|(a, b)| a == from && b == to) {
            return None;
        }
        let nodes = self.nodes.read().expect("no test panics here");
        nodes.get(to).cloned()
    }
}

/// One node's links to the others.
struct LocalPeers {
    own: String,
    network: Arc<Network>,
}

struct LocalLink(mpsc::UnboundedSender<CommandForPeer>);

impl PeerLink for LocalLink {
    fn send(&self, command: CommandForPeer) {
        let _ = self.0.send(command);
    }
}

fn unreachable(to: &str) -> PeerError {
    PeerError::Unreachable(format!("{to} is gone"))
}

#[async_trait]
impl Peers for LocalPeers {
    fn open(
        &self,
        address: &str,
        partition: Partition,
        events: Box<dyn Fn(LinkEvent) + Send + Sync>,
    ) -> Box<dyn PeerLink> {
        let (sender, mut commands) = mpsc::unbounded_channel::<CommandForPeer>();
        let events: Arc<dyn Fn(LinkEvent) + Send + Sync> = Arc::from(events);
        let Some((engine, runtime)) = self.network.reach(&self.own, address) else {
            events(LinkEvent::Broken(format!("{address} is gone")));
            return Box::new(LocalLink(sender));
        };
        let serving = Arc::clone(&events);
        let served = runtime.spawn(async move {
            let mut link = engine.accept(partition).expect("a partition of the log");
            while let Some(command) = commands.recv().await {
                let (events, sequence) = (Arc::clone(&serving), command.sequence);
                let answer = link.submit(command.request, command.deadline, None).await;
                tokio::spawn(async move { events(LinkEvent::Answer(sequence, answer.await)) });
            }
        });
        // When the other node's runtime ends, the link ends.
        tokio::spawn(async move {
            if served.await.is_err() {
                events(LinkEvent::Broken("the node has crashed".to_owned()));
            }
        });
        Box::new(LocalLink(sender))
    }

    async fn hand_over(
        &self,
        address: &str,
        partition: Partition,
        successor: &Hint,
    ) -> Result<bool, PeerError> {
        let reached = self.network.reach(&self.own, address);
        let (engine, runtime) = reached.ok_or_else(|| unreachable(address))?;
        let successor = successor.clone();
        let asked = runtime.spawn(async move { engine.hand_over(partition, successor).await });
        let answer = tokio::time::timeout(HAND_OVER_WAIT, asked).await;
        answer
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| unreachable(address))
    }

    async fn outcome(
        &self,
        address: &str,
        partition: Partition,
        inquiry: &Inquiry,
    ) -> Result<Result<Became, SubmitError>, PeerError> {
        let reached = self.network.reach(&self.own, address);
        let (engine, runtime) = reached.ok_or_else(|| unreachable(address))?;
        let (inquiry, deadline) = (inquiry.clone(), Instant::now() + HAND_OVER_WAIT);
        let asked = runtime.spawn(async move {
            PeerService::outcome(&engine, partition, inquiry, deadline).await
        });
        asked.await.map_err(|_| unreachable(address))
    }

    async fn take_over(&self, address: &str, partition: Partition) -> Result<(), PeerError> {
        let reached = self.network.reach(&self.own, address);
        let (engine, runtime) = reached.ok_or_else(|| unreachable(address))?;
        let deadline = Instant::now() + TAKE_OVER_WAIT;
        let asked = runtime.spawn(async move { engine.take_over(partition, deadline).await });
        match asked.await {
            Ok(taken) => taken.map_err(PeerError::Refused),
            Err(_) => Err(unreachable(address)),
        }
    }
}

/// One of several write sides.
pub struct InProcessNode {
    /// Its name.
    pub name: String,
    /// The write side.
    pub engine: Engine,
    network: Arc<Network>,
    runtime: Option<Runtime>,
}

impl InProcessNode {
    /// Starts a node of a program that reads record formats up to `record_version_max`. In the
    /// background, the node takes over the partitions that the group assigns to it.
    ///
    /// # Panics
    /// If the node cannot be started.
    pub async fn start(
        name: &str,
        network: &Arc<Network>,
        open: impl AsyncFn() -> Arc<dyn EventLog>,
        registry: Registry,
        group: &str,
        session_timeout: Duration,
        record_version_max: u16,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let address = format!("http://{name}");
        let options = EngineOptions {
            owner: OwnerSettings {
                node: name.to_owned(),
                address: Some(address.clone()),
                record_version_max,
                standby_read_every_ms: Some(200),
                ..OwnerSettings::default()
            },
            store: None,
            queue_max: QUEUE_MAX,
            memory_bytes: MEMORY_BYTES,
            cluster: ClusterOptions {
                peers: Arc::new(LocalPeers {
                    own: address.clone(),
                    network: Arc::clone(network),
                }),
                group: Some(MembershipOptions {
                    group: group.to_owned(),
                    node: name.to_owned(),
                    session_timeout,
                }),
                clock: LogClock::default(),
            },
        };
        let log = open().await;
        let started = runtime.spawn(Engine::start(log, registry, options)).await;
        let engine = started.expect("no panic").expect("a write side");
        let handle = runtime.handle().clone();
        let mut nodes = network.nodes.write().expect("no test panics here");
        nodes.insert(address, (engine.clone(), handle));
        drop(nodes);
        Self {
            name: name.to_owned(),
            engine,
            network: Arc::clone(network),
            runtime: Some(runtime),
        }
    }

    fn disappear(&mut self) -> Option<Runtime> {
        let mut nodes = self.network.nodes.write().expect("no test panics here");
        nodes.remove(&format!("http://{}", self.name));
        self.runtime.take()
    }

    /// Ends the node at once, as a crash does; records that it has sent may still land.
    pub fn crash(&mut self) {
        if let Some(runtime) = self.disappear() {
            runtime.shutdown_background();
        }
    }

    /// Leaves in good order: hands over, drains, ends.
    ///
    /// # Panics
    /// If the node crashed before.
    pub async fn leave(&mut self, wait: Duration) {
        let engine = self.engine.clone();
        let runtime = self.runtime.as_ref().expect("a node that runs");
        let left = runtime.spawn(async move {
            engine.leave(wait).await;
            engine.drain(wait).await;
        });
        left.await.expect("no panic");
        if let Some(runtime) = self.disappear() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for InProcessNode {
    fn drop(&mut self) {
        self.crash();
    }
}
