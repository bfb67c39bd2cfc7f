//! A real Kafka broker for tests: one node, broker and controller in one JVM, from the jars that
//! `ops/setup` fetched.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;
use tempfile::TempDir;

use super::ports;
use super::process::Process;

/// Names the version, so that it is written down once.
const POM: &str = include_str!("../../../ops/kafka/pom.xml");
/// 16 bytes in base64, as Kafka wants it.
const CLUSTER_ID: &str = "QW5uYWxzLVRlc3RzLTAwMQ";
const START_TIMEOUT_SECONDS: u64 = 90;
const START_ATTEMPTS_MAX: u32 = 3;
const POLL_MS: u64 = 10;
const LOG_TAIL_BYTES_MAX: usize = 4096;

const LOGGING: &str = "
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = ${sys:annals.log}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
";

/// A Kafka broker of one test. Ends, and leaves nothing, when it is dropped or the test process is
/// gone.
#[derive(Debug)]
pub struct Kafka {
    // Before the folder: it goes first.
    broker: Option<Process>,
    bootstrap: String,
    port: u16,
    folder: TempDir,
}

/// The broker that the tests of this process share: started by the first that asks. Tests that
/// kill or pause a broker start one of their own.
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
                // Someone took the port between the look and the start.
                Err(log) if log.contains("already in use") && attempts < START_ATTEMPTS_MAX => {
                    attempts += 1;
                }
                Err(log) => panic!("Kafka did not start:\n{log}"),
            }
        }
    }

    /// Makes the folder: settings, and storage formatted for a cluster of one.
    fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("annals-kafka-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let (port, controller_port) = (ports::free(), ports::free());
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a folder of ours can be written to");
        };
        write("logging.properties", LOGGING);
        write(
            "server.properties",
            &settings(port, controller_port, &folder.path().join("data")),
        );
        let kafka = Self {
            broker: None,
            bootstrap: format!("127.0.0.1:{port}"),
            port,
            folder,
        };

        let mut format = kafka.java("kafka.tools.StorageTool", &["-XX:TieredStopAtLevel=1"]);
        format.args([
            "format",
            "--standalone",
            "--cluster-id",
            CLUSTER_ID,
            "--config",
        ]);
        format.arg(kafka.folder.path().join("server.properties"));
        let output = format
            .output()
            .unwrap_or_else(|error| no_tools(&error.to_string()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "Kafka's storage could not be formatted:\n{errors}"
        );
        kafka
    }

    fn java(&self, class: &str, flags: &[&str]) -> Command {
        let libs = kafka_dir().join("libs");
        if !libs.is_dir() {
            no_tools(&format!("{} is not there", libs.display()));
        }
        let folder = self.folder.path();
        let java = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
        let java = java.map_or("java".into(), |home| PathBuf::from(home).join("bin/java"));
        let mut command = Command::new(java);
        command.args(flags).arg("-cp").arg(libs.join("*"));
        command.arg(property(
            "log4j2.configurationFile",
            &folder.join("logging.properties"),
        ));
        command.arg(property("annals.log", &folder.join("broker.log")));
        command.arg(class).current_dir(folder);
        command
    }

    /// Starts the broker and waits until it answers; the error is the end of its log.
    fn launch(&mut self) -> Result<(), String> {
        let flags = ["-Xms256m", "-Xmx512m", "-Djava.awt.headless=true"];
        let mut command = self.java("kafka.Kafka", &flags);
        command.arg(self.folder.path().join("server.properties"));
        let mut options = OpenOptions::new();
        let output: File = options
            .create(true)
            .append(true)
            .open(self.folder.path().join("output.log"))
            .expect("a folder of ours can be written to");
        let mut broker = Process::start(command, output, self.folder.path())
            .unwrap_or_else(|error| no_tools(&error.to_string()));

        let deadline = Instant::now() + Duration::from_secs(START_TIMEOUT_SECONDS);
        let client = self.client();
        while !self.answers(&client) {
            if let Some(status) = broker.ended() {
                return Err(format!(
                    "it ended ({status}) and said:\n{}",
                    self.log_tail()
                ));
            }
            if Instant::now() > deadline {
                let log = self.log_tail();
                return Err(format!(
                    "no answer after {START_TIMEOUT_SECONDS} s; it said:\n{log}"
                ));
            }
            thread::sleep(Duration::from_millis(POLL_MS));
        }
        self.broker = Some(broker);
        Ok(())
    }

    fn client(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("log_level", "0");
        config
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "50");
        config
            .create()
            .expect("a client with this configuration can be made")
    }

    /// Whether the broker is in its cluster and leads every partition it has.
    fn answers(&self, client: &BaseConsumer) -> bool {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
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

    fn log_tail(&self) -> String {
        let mut log = Vec::new();
        for name in ["output.log", "broker.log"] {
            log.extend(fs::read(self.folder.path().join(name)).unwrap_or_default());
        }
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..]).into_owned()
    }

    /// The address for clients: `HOST:PORT`. The same after a restart.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The folder of the broker, with its logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process number of the broker.
    pub fn pid(&self) -> u32 {
        self.broker().pid()
    }

    fn broker(&self) -> &Process {
        self.broker
            .as_ref()
            .expect("the broker was killed and has not been started again")
    }

    /// Makes a topic with the settings given (`("retention.ms", "-1")`).
    ///
    /// # Panics
    /// If the broker does not do it.
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        let admin: AdminClient<DefaultClientContext> = config
            .create()
            .expect("a client with this configuration can be made");
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic.config.extend(settings);
        let results = admin.create_topics([&topic], &AdminOptions::new()).await;
        for result in results.expect("a broker that was started answers") {
            result.unwrap_or_else(|(topic, error)| panic!("no topic {topic}: {error}"));
        }
    }

    /// Kills the broker as `kill -9` does.
    pub fn kill9(&mut self) {
        drop(self.broker.take().expect("the broker was killed before"));
    }

    /// Starts the broker again, on the same port and with the same data, and returns once it
    /// answers.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        drop(self.broker.take());
        self.launch()
            .unwrap_or_else(|log| panic!("Kafka did not start again:\n{log}"));
    }

    /// Stops the broker in its tracks (SIGSTOP): connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.broker().signal(Signal::STOP);
    }

    /// Lets a paused broker go on.
    pub fn resume(&mut self) {
        self.broker().signal(Signal::CONT);
    }
}

fn property(name: &str, value: &Path) -> String {
    format!("-D{name}={}", value.display())
}

/// Small where the default is for a cluster. A killed broker is taken back once its old session has
/// ended, so the session is short: 2 s instead of 9.
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

/// Where the jars are: `ANNALS_KAFKA_DIR`, else where `ops/setup` puts them.
fn kafka_dir() -> PathBuf {
    let from = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let version = POM
        .split("<kafka.version>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    let version = version.expect("ops/kafka/pom.xml names the version");
    from("ANNALS_KAFKA_DIR").unwrap_or_else(|| {
        from("ANNALS_TOOLS_DIR")
            .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("annals")))
            .or_else(|| from("HOME").map(|home| home.join(".cache/annals")))
            .unwrap_or_else(|| no_tools("neither ANNALS_KAFKA_DIR nor HOME is set"))
            .join(format!("kafka-{version}"))
    })
}

fn no_tools(reason: &str) -> ! {
    panic!("no Kafka for the tests ({reason}): run ops/setup and try again");
}
