//! One JVM with its own folder: what a single broker and the brokers of a cluster have in common.
//!
//! Invariant: the process ends and its folder is removed on drop, or when the test process is gone.
//! Deliberately absent: Kafka's settings, and when a broker counts as started.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::process::Process;

/// Names the version, so that it is written down in one place.
const POM: &str = include_str!("../../../../ops/kafka/pom.xml");
/// 16 bytes in base64, the form that Kafka takes.
pub(super) const CLUSTER_ID: &str = "QW5uYWxzLVRlc3RzLTAwMQ";
/// The end of a process is noticed at once, so this only bounds how slow a machine may be: on a
/// third of two cores, three brokers beside another test take longer than 90 s.
const START_TIMEOUT_SECONDS: u64 = 300;
const STOP_TIMEOUT_SECONDS: u64 = 60;
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

/// A broker, running or stopped.
#[derive(Debug)]
pub(super) struct Broker {
    // Declared before the folder, so that the process ends first.
    process: Option<Process>,
    flags: &'static [&'static str],
    folder: TempDir,
}

impl Broker {
    /// Makes the folder with the settings: `settings` gets the path of the data, and `flags` are
    /// flags of the JVM.
    pub(super) fn prepare(
        flags: &'static [&'static str],
        settings: impl FnOnce(&Path) -> String,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("annals-kafka-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("a folder of ours can be written to");
        };
        write("logging.properties", LOGGING);
        write("server.properties", &settings(&folder.path().join("data")));
        Self {
            process: None,
            flags,
            folder,
        }
    }

    /// Formats the broker's storage for a new cluster.
    pub(super) fn format(&self, arguments: &[&str]) {
        let mut format = self.java("kafka.tools.StorageTool", &["-XX:TieredStopAtLevel=1"]);
        format
            .args(["format", "--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.folder.path().join("server.properties"))
            .args(arguments);
        let output = format
            .output()
            .unwrap_or_else(|error| no_tools(&error.to_string()));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "Kafka's storage could not be formatted:\n{errors}"
        );
    }

    fn java(&self, class: &str, flags: &[&str]) -> Command {
        let libs = kafka_dir().join("libs");
        if !libs.is_dir() {
            no_tools(&format!("{} is not there", libs.display()));
        }
        let folder = self.folder.path();
        let mut command = Command::new(java());
        command.args(flags).arg("-cp").arg(libs.join("*"));
        command.arg(property(
            "log4j2.configurationFile",
            &folder.join("logging.properties"),
        ));
        command.arg(property("annals.log", &folder.join("broker.log")));
        command.arg(class).current_dir(folder);
        command
    }

    /// Starts the process, without waiting until it answers.
    pub(super) fn launch(&mut self) {
        let mut command = self.java("kafka.Kafka", self.flags);
        command.arg(self.folder.path().join("server.properties"));
        let mut options = OpenOptions::new();
        let output: File = options
            .create(true)
            .append(true)
            .open(self.folder.path().join("output.log"))
            .expect("a folder of ours can be written to");
        let process = Process::start(command, output, self.folder.path())
            .unwrap_or_else(|error| no_tools(&error.to_string()));
        self.process = Some(process);
    }

    /// Waits until `answers` returns true; the error is the tail of the broker's log.
    pub(super) fn wait(&mut self, mut answers: impl FnMut() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(START_TIMEOUT_SECONDS);
        while !answers() {
            let process = self
                .process
                .as_mut()
                .expect("the broker was launched before");
            if let Some(status) = process.ended() {
                let log = self.log_tail();
                self.process = None;
                return Err(format!("it ended ({status}) and said:\n{log}"));
            }
            if Instant::now() > deadline {
                let log = self.log_tail();
                self.process = None;
                return Err(format!(
                    "no answer after {START_TIMEOUT_SECONDS} s; it said:\n{log}"
                ));
            }
            thread::sleep(Duration::from_millis(POLL_MS));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let mut log = Vec::new();
        for name in ["output.log", "broker.log"] {
            log.extend(fs::read(self.folder.path().join(name)).unwrap_or_default());
        }
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..]).into_owned()
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn process(&self) -> &Process {
        self.process
            .as_ref()
            .expect("the broker was stopped and has not been started again")
    }

    /// Kills the process as `kill -9` does.
    pub(super) fn kill9(&mut self) {
        drop(self.process.take().expect("the broker was stopped before"));
    }

    /// Asks the process to end, and waits for its end.
    pub(super) fn terminate(&mut self) {
        let mut process = self.process.take().expect("the broker was stopped before");
        process.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(STOP_TIMEOUT_SECONDS);
        while process.ended().is_none() {
            assert!(Instant::now() < deadline, "the broker does not end");
            thread::sleep(Duration::from_millis(POLL_MS));
        }
    }
}

/// A client that asks for metadata and retries quickly.
pub(super) fn asking(bootstrap: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "0")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50");
    config
        .create()
        .expect("a client with this configuration can be made")
}

fn property(name: &str, value: &Path) -> String {
    format!("-D{name}={}", value.display())
}

/// The Java program, where `ops/setup` looks for it, too.
#[must_use]
pub fn java() -> PathBuf {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    home.map_or("java".into(), |home| PathBuf::from(home).join("bin/java"))
}

/// The folder of the jars: `ANNALS_KAFKA_DIR`, or else the folder that `ops/setup` uses.
fn kafka_dir() -> PathBuf {
    let from = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("ANNALS_KAFKA_DIR").unwrap_or_else(|| {
        from("ANNALS_TOOLS_DIR")
            .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("annals")))
            .or_else(|| from("HOME").map(|home| home.join(".cache/annals")))
            .unwrap_or_else(|| no_tools("neither ANNALS_KAFKA_DIR nor HOME is set"))
            .join(format!("kafka-{}", version()))
    })
}

/// The version of Kafka that `ops/setup` installs.
pub(super) fn version() -> &'static str {
    let version = POM
        .split("<kafka.version>")
        .nth(1)
        .and_then(|rest| rest.split('<').next());
    version.expect("ops/kafka/pom.xml names the version")
}

fn no_tools(reason: &str) -> ! {
    panic!("no Kafka for the tests ({reason}): run ops/setup and try again");
}
