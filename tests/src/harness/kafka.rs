//! A real Kafka broker for tests: one node, broker and controller in one JVM, from the jars that
//! `ops/setup` fetched. Three of them that replicate are in [`cluster`].

mod broker;
pub mod cluster;
pub mod given;
mod leaders;
pub mod secured;

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;

pub use self::broker::java;
use self::broker::{Broker, asking};
use super::ports;

/// The version that the broker reports.
#[must_use]
pub fn version() -> String {
    format!("Kafka {}", broker::version())
}

const START_ATTEMPTS_MAX: u32 = 3;
const JVM_FLAGS: [&str; 3] = ["-Xms256m", "-Xmx512m", "-Djava.awt.headless=true"];

/// A Kafka broker of one test. It ends, and its folder is removed, on drop or when the test process
/// is gone.
#[derive(Debug)]
pub struct Kafka {
    broker: Broker,
    bootstrap: String,
    port: u16,
}

/// The broker that the tests of this process share; the first call starts it. Tests that kill or
/// pause a broker start one of their own.
///
/// # Panics
/// As [`Kafka::start`].
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::start)
}

impl Kafka {
    /// Starts a broker in a new folder and returns once it answers.
    ///
    /// # Panics
    /// If it cannot be started; the message says what to do.
    pub fn start() -> Self {
        let mut attempts = 1;
        loop {
            let mut kafka = Self::prepare();
            match kafka.launch() {
                Ok(()) => return kafka,
                // Another process took the port after `free` found it.
                Err(log) if log.contains("already in use") && attempts < START_ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(log) => panic!("Kafka did not start:\n{log}"),
            }
        }
    }

    /// Makes the folder: settings, and storage formatted for a cluster of one broker.
    fn prepare() -> Self {
        let (port, controller_port) = (ports::free(), ports::free());
        let broker = Broker::prepare(&JVM_FLAGS, |data| settings(port, controller_port, data));
        broker.format(&["--standalone"]);
        Self {
            broker,
            bootstrap: format!("127.0.0.1:{port}"),
            port,
        }
    }

    /// Starts the broker and waits until it answers; the error is the tail of its log.
    fn launch(&mut self) -> Result<(), String> {
        self.broker.launch();
        let (client, port) = (asking(&self.bootstrap), self.port);
        self.broker.wait(|| answers(&client, port))
    }

    /// The address for clients: `HOST:PORT`; a restart keeps it.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The folder of the broker, with its logs.
    pub fn folder(&self) -> &Path {
        self.broker.folder()
    }

    /// The process id of the broker.
    pub fn pid(&self) -> u32 {
        self.broker.process().pid()
    }

    /// Creates a topic with these settings (such as `("retention.ms", "-1")`).
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        create_topic(&self.bootstrap, name, partitions, 1, settings).await;
    }

    /// Kills the broker as `kill -9` does.
    pub fn kill9(&mut self) {
        self.broker.kill9();
    }

    /// Starts the broker again, on the same port and with the same data, and returns once it
    /// answers.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        if self.broker.is_running() {
            self.broker.kill9();
        }
        self.launch()
            .unwrap_or_else(|log| panic!("Kafka did not start again:\n{log}"));
    }

    /// Suspends the broker (SIGSTOP): connections stay open, and nothing answers.
    pub fn pause(&mut self) {
        self.broker.process().signal(Signal::STOP);
    }

    /// Lets a suspended broker go on.
    pub fn resume(&mut self) {
        self.broker.process().signal(Signal::CONT);
    }
}

/// Whether the broker has joined its cluster and leads every partition that it has.
fn answers(client: &BaseConsumer, port: u16) -> bool {
    if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        return false;
    }
    let Ok(metadata) = client.fetch_metadata(None, Duration::from_secs(1)) else {
        return false;
    };
    let mut partitions = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions());
    !metadata.brokers().is_empty() && partitions.all(|partition| partition.leader() >= 0)
}

async fn create_topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replication: i32,
    settings: &[(&str, &str)],
) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> = config
        .create()
        .expect("a client with this configuration can be made");
    let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
    topic.config.extend(settings);
    let results = admin.create_topics([&topic], &AdminOptions::new()).await;
    for result in results.expect("a broker that was started answers") {
        result.unwrap_or_else(|(topic, error)| panic!("no topic {topic}: {error}"));
    }
}

/// Smaller values where the defaults are made for a cluster. A killed broker is accepted again once
/// its old session has ended, so the session is 2 s instead of 9 s.
fn settings(port: u16, controller_port: u16, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=BROKER://127.0.0.1:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=2000
"
    )
}
