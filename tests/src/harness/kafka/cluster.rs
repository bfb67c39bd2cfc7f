//! Three real brokers that replicate everything; each is a controller, too.
//!
//! Every party (a node, a test) has a listener of its own at each broker, with a proxy in front of
//! it if the party wants one. So a test can hold, cut or lose the traffic of one party, and the
//! others do not notice. Brokers talk to each other without proxies. Invariant: a kill changes
//! neither ports nor data. Deliberately absent: which fault comes when (`faults`).

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;

use super::broker::{Broker, CLUSTER_ID, asking};
use super::leaders;
use crate::harness::ports;
use crate::harness::proxy::{Framing, Proxy};

/// How many brokers there are.
pub const BROKERS: usize = 3;
/// Three JVMs share one small machine: small heaps, one collector thread, no optimizing compiler.
const JVM_FLAGS: [&str; 5] = [
    "-Xms128m",
    "-Xmx320m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
];
const METADATA_WAIT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);
const WHOLE_WAIT: Duration = Duration::from_secs(300);
const START_ATTEMPTS_MAX: u32 = 3;

/// One broker of the cluster, by its place: 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerIndex(pub usize);

impl BrokerIndex {
    /// All three indexes.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BROKERS).map(Self)
    }

    /// The broker's id in Kafka.
    fn id(self) -> i32 {
        i32::try_from(self.0 + 1).expect("there are three")
    }
}

/// One party's route to the brokers: a proxy in front of each.
#[derive(Debug)]
pub struct Route {
    proxies: Vec<Proxy>,
}

impl Route {
    /// The addresses of the proxies, in the form that `--log kafka://…` takes.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self
            .proxies
            .iter()
            .map(|proxy| proxy.address().to_string())
            .collect();
        addresses.join(",")
    }

    /// The proxy in front of a broker.
    #[must_use]
    pub fn to(&self, broker: BrokerIndex) -> &Proxy {
        &self.proxies[broker.0]
    }

    /// The proxies in front of all brokers.
    #[must_use]
    pub fn all(&self) -> &[Proxy] {
        &self.proxies
    }
}

/// Three brokers. They end, and their folders are removed, on drop or when the test process is
/// gone.
pub struct KafkaCluster {
    brokers: Vec<Mutex<Broker>>,
    ports: Vec<Ports>,
    routes: Vec<Route>,
    bootstrap: String,
    client: BaseConsumer,
}

/// The ports of one broker.
#[derive(Clone, Debug)]
struct Ports {
    controller: u16,
    /// For the other brokers, and for tests that want no proxy.
    direct: u16,
    /// For each party, behind its proxy.
    parties: Vec<u16>,
}

impl KafkaCluster {
    /// Starts three brokers at the same time, and for each party the proxies, at the address at
    /// which that party can reach them. Returns once all brokers have joined the cluster.
    ///
    /// # Panics
    /// If they cannot be started; the message says what to do.
    #[must_use]
    pub fn start(parties: &[Ipv4Addr]) -> Self {
        let mut attempts = 1;
        loop {
            let cluster = Self::prepare(parties);
            BrokerIndex::all().for_each(|broker| cluster.launch(broker));
            let waited = BrokerIndex::all().try_for_each(|index| cluster.wait(index));
            match waited {
                Ok(()) => return cluster,
                // Another process took a port after `free` found it.
                Err(log) if log.contains("already in use") && attempts < START_ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(log) => panic!("Kafka did not start:\n{log}"),
            }
        }
    }

    fn prepare(parties: &[Ipv4Addr]) -> Self {
        let ports: Vec<Ports> = BrokerIndex::all()
            .map(|_| Ports {
                controller: ports::free(),
                direct: ports::free(),
                parties: parties.iter().map(|_| ports::free()).collect(),
            })
            .collect();
        let routes: Vec<Route> = parties
            .iter()
            .enumerate()
            .map(|(party, address)| {
                let behind = ports.iter().map(|ports| ports.parties[party]);
                let proxies = behind.map(|port| {
                    let target = (Ipv4Addr::LOCALHOST, port).into();
                    Proxy::at(*address, target, Framing::Kafka)
                });
                Route {
                    proxies: proxies.collect(),
                }
            })
            .collect();
        let brokers: Vec<Broker> = BrokerIndex::all()
            .map(|index| {
                let settings = |data: &Path| settings(index, &ports, &routes, data);
                Broker::prepare(&JVM_FLAGS, settings)
            })
            .collect();
        // Formatting storage costs a JVM's start. With the voters named in the settings, the three
        // differ only in their identity, so format one and copy it.
        brokers[0].format(&[]);
        for index in BrokerIndex::all().skip(1) {
            copy_storage(&brokers[0], &brokers[index.0], index);
        }
        let direct: Vec<String> = ports
            .iter()
            .map(|ports| format!("127.0.0.1:{}", ports.direct))
            .collect();
        let bootstrap = direct.join(",");
        let client = asking(&bootstrap);
        Self {
            brokers: brokers.into_iter().map(Mutex::new).collect(),
            ports,
            routes,
            bootstrap,
            client,
        }
    }

    /// Waits until the cluster counts a broker as one of its own.
    fn wait(&self, index: BrokerIndex) -> Result<(), String> {
        let (client, port) = (&self.client, self.ports[index.0].direct);
        self.broker(index).wait(|| {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
                && client
                    .fetch_metadata(None, METADATA_WAIT)
                    .is_ok_and(|metadata| {
                        let mut brokers = metadata.brokers().iter();
                        brokers.any(|broker| broker.id() == index.id())
                    })
        })
    }

    fn broker(&self, index: BrokerIndex) -> MutexGuard<'_, Broker> {
        let broker = self.brokers[index.0].lock();
        broker.unwrap_or_else(PoisonError::into_inner)
    }

    /// The brokers' addresses without proxies: `HOST:PORT,…`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A party's route to the brokers.
    #[must_use]
    pub fn route(&self, party: usize) -> &Route {
        &self.routes[party]
    }

    /// The folder of a broker, with its logs.
    #[must_use]
    pub fn folder(&self, broker: BrokerIndex) -> PathBuf {
        self.broker(broker).folder().to_owned()
    }

    /// The process id of a broker.
    #[must_use]
    pub fn pid(&self, broker: BrokerIndex) -> u32 {
        self.broker(broker).process().pid()
    }

    /// Whether the broker has a process, suspended or not.
    #[must_use]
    pub fn is_running(&self, broker: BrokerIndex) -> bool {
        self.broker(broker).is_running()
    }

    /// Creates a topic of three replicas with these settings.
    ///
    /// # Panics
    /// If the brokers refuse.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        super::create_topic(&self.bootstrap, name, partitions, 3, settings).await;
    }

    /// Kills a broker as `kill -9` does.
    pub fn kill9(&self, broker: BrokerIndex) {
        self.broker(broker).kill9();
    }

    /// Stops a broker in good order: it first gives its leaderships to others that can take them.
    pub fn terminate(&self, broker: BrokerIndex) {
        self.broker(broker).terminate();
    }

    /// Starts a stopped broker, and returns at once.
    pub fn launch(&self, broker: BrokerIndex) {
        self.broker(broker).launch();
    }

    /// Starts a stopped broker, with the same ports and data, and returns once the cluster counts
    /// it as one of its own.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&self, broker: BrokerIndex) {
        self.launch(broker);
        self.wait(broker)
            .unwrap_or_else(|log| panic!("broker {} did not start again:\n{log}", broker.id()));
    }

    /// Suspends a broker (SIGSTOP): connections stay open, and nothing answers.
    pub fn pause(&self, broker: BrokerIndex) {
        self.broker(broker).process().signal(Signal::STOP);
    }

    /// Lets a suspended broker go on.
    pub fn resume(&self, broker: BrokerIndex) {
        self.broker(broker).process().signal(Signal::CONT);
    }

    /// Moves the leadership of every partition of a topic to another of its replicas.
    ///
    /// # Errors
    /// The brokers' error, such as too few brokers.
    pub fn move_leaders(&self, topic: &str) -> Result<(), String> {
        let ports: Vec<u16> = self.ports.iter().map(|ports| ports.direct).collect();
        leaders::rotate(&self.client, &ports, topic)
    }

    /// The leader of each partition of a topic, by partition; `None` if a partition has no leader.
    ///
    /// # Errors
    /// If no broker answers.
    pub fn leaders(&self, topic: &str) -> Result<Vec<Option<BrokerIndex>>, String> {
        let replicas = leaders::partitions(&self.client, topic)?;
        let index = |id: i32| usize::try_from(id - 1).ok().map(BrokerIndex);
        Ok(replicas.iter().map(|one| index(one.leader)).collect())
    }

    /// Whether all brokers are in the cluster and every replica of every partition is in sync.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Ok(metadata) = self.client.fetch_metadata(None, METADATA_WAIT) else {
            return false;
        };
        let mut partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        metadata.brokers().len() == BROKERS
            && partitions
                .all(|partition| partition.leader() > 0 && partition.isr().len() == BROKERS)
    }

    /// Waits until [`Self::is_whole`].
    ///
    /// # Panics
    /// If the cluster does not become whole in time.
    pub fn wait_whole(&self) {
        let deadline = Instant::now() + WHOLE_WAIT;
        while !self.is_whole() {
            assert!(
                Instant::now() < deadline,
                "the brokers are not in sync again"
            );
            thread::sleep(POLL);
        }
    }
}

/// Copies the first broker's storage, with another identity.
fn copy_storage(from: &Broker, to: &Broker, index: BrokerIndex) {
    let (source, target) = (from.folder().join("data"), to.folder().join("data"));
    fs::create_dir(&target).expect("a folder of ours can be written to");
    for entry in fs::read_dir(source).expect("formatted storage can be read") {
        let entry = entry.expect("formatted storage can be read");
        let is_identity = entry.file_name() == "meta.properties";
        if is_identity {
            continue;
        }
        fs::copy(entry.path(), target.join(entry.file_name()))
            .expect("formatted storage holds files only");
    }
    let identity = format!(
        "version=1\ncluster.id={CLUSTER_ID}\nnode.id={}\ndirectory.id={}\n",
        index.id(),
        // 16 bytes in base64, the form that Kafka takes.
        ["", "QW5uYWxzLURpcmVjdG8tMg", "QW5uYWxzLURpcmVjdG8tMw"][index.0],
    );
    fs::write(target.join("meta.properties"), identity)
        .expect("a folder of ours can be written to");
}

/// Short timeouts: what takes a cluster 9 to 30 s by default takes this one 1 to 5 s. Leaders
/// return to the preferred replica every 10 s, which makes partitions move more often.
fn settings(index: BrokerIndex, ports: &[Ports], routes: &[Route], data: &Path) -> String {
    let own = &ports[index.0];
    let party_names: Vec<String> = (0..routes.len()).map(|n| format!("PARTY{n}")).collect();
    let mut listeners = vec![
        format!("BROKER://127.0.0.1:{}", own.direct),
        format!("CONTROLLER://127.0.0.1:{}", own.controller),
    ];
    let mut advertised = vec![format!("BROKER://127.0.0.1:{}", own.direct)];
    let mut protocols = vec![
        "BROKER:PLAINTEXT".to_owned(),
        "CONTROLLER:PLAINTEXT".to_owned(),
    ];
    for (name, (port, route)) in party_names.iter().zip(own.parties.iter().zip(routes)) {
        listeners.push(format!("{name}://127.0.0.1:{port}"));
        advertised.push(format!("{name}://{}", route.to(index).address()));
        protocols.push(format!("{name}:PLAINTEXT"));
    }
    let voters: Vec<String> = BrokerIndex::all()
        .map(|voter| format!("{}@127.0.0.1:{}", voter.id(), ports[voter.0].controller))
        .collect();
    format!(
        "process.roles=broker,controller
node.id={id}
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
controller.quorum.election.backoff.max.ms=500
controller.quorum.request.timeout.ms=1000
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
replica.lag.time.max.ms=3000
leader.imbalance.check.interval.seconds=10
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=2000
",
        id = index.id(),
        listeners = listeners.join(","),
        advertised = advertised.join(","),
        protocols = protocols.join(","),
        voters = voters.join(","),
        data = data.display(),
    )
}
