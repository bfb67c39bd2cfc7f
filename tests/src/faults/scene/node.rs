//! One node: a process, and the parts of the machine that are its own.
//!
//! Deliberately absent: the node's route to the brokers (`cluster`).

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{Mutex as Hold, OwnedMutexGuard};

use super::machine::{Clock, MemoryLimit};
use super::{Network, Projectors, SceneOptions};
use crate::harness::annals::{Annals, Launch};
use crate::harness::disk::SmallDisk;
use crate::harness::ports;
use crate::harness::proxy::{Framing, Proxy};

/// What a node is started with.
pub(super) struct Surroundings {
    pub(super) log: String,
    pub(super) postgres: Option<String>,
    pub(super) network: Option<Network>,
    pub(super) folder: PathBuf,
}

/// How a node ended that was not killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Without a request to end.
    ByItself(ExitStatus),
    /// With a failure after a request to end.
    Badly(ExitStatus),
    /// Not in time after a request to end.
    Never,
}

/// An end of a node that is recorded.
#[derive(Clone, Debug)]
pub struct NodeEnd {
    /// How the node ended.
    pub how: End,
    /// The last lines of its output.
    pub last_words: String,
}

impl NodeEnd {
    /// Whether this end is a violation: a panic, a death by a signal other than the kernel's
    /// SIGKILL, or a failure to end on request.
    #[must_use]
    pub fn is_a_fault(&self) -> bool {
        match self.how {
            End::Badly(_) | End::Never => true,
            End::ByItself(status) => match status.code() {
                Some(code) => code == PANICKED,
                None => status.signal() != Some(Signal::KILL.as_raw()),
            },
        }
    }
}

impl fmt::Display for NodeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            End::ByItself(status) => write!(f, "ended by itself: {status}"),
            End::Badly(status) => write!(f, "failed to end in order: {status}"),
            End::Never => write!(f, "did not end within {STOP_WAIT:?}"),
        }
    }
}

/// One node.
pub struct Node {
    // Declared before what the process uses, so that it is dropped first.
    annals: Mutex<Annals>,
    /// The node's index.
    pub number: usize,
    /// The node's name, such as `n1`.
    pub name: String,
    /// The base address of the node's door, for clients.
    pub url: String,
    /// The proxy between the other nodes and this one.
    pub peers: Proxy,
    /// The node's own disk, if it has one.
    pub disk: Option<SmallDisk>,
    /// The node's own memory limit, if it has one.
    pub memory: Option<MemoryLimit>,
    /// The node's own clock, if it has one.
    pub clock: Option<Clock>,
    /// The node's own network, if it has one.
    pub network: Option<Network>,
    _postgres_way: Option<Proxy>,
    /// Whether the node should be running.
    is_wanted: AtomicBool,
    hold: Arc<Hold<()>>,
    memory_peak_kb: AtomicU64,
    ends: Mutex<Vec<NodeEnd>>,
}

/// The nodes' common secret.
const SECRET: &str = "faults-in-this-scene-only-0123456789";
const LAST_LINES: usize = 8;
/// How long a node may take to end: its drain timeout, and half a minute.
const STOP_WAIT: Duration = Duration::from_secs(40);
/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

impl Node {
    pub(super) fn start(number: usize, options: &SceneOptions, surroundings: Surroundings) -> Self {
        let name = format!("n{}", number + 1);
        let Surroundings {
            log,
            postgres,
            network,
            folder,
        } = surroundings;
        let data = folder.join("data");
        fs::create_dir_all(&data).expect("a folder of ours can be written to");
        let disk = options
            .machine
            .disk_mb
            .and_then(|size_mb| SmallDisk::mount(&data, size_mb).ok());
        let memory = options
            .machine
            .memory_mb
            .and_then(|limit_mb| MemoryLimit::make(limit_mb).ok());
        let is_last = number + 1 == options.nodes;
        let clock = (options.machine.clock && is_last)
            .then(|| Clock::make(&folder).ok())
            .flatten();
        let (inside, outside) = network
            .as_ref()
            .map_or((Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST), |network| {
                (network.inside, network.outside)
            });
        let listen = SocketAddr::from((inside, ports::free()));
        let peers = Proxy::at(outside, listen, Framing::Raw);
        let (postgres, postgres_way) = match (postgres, &network) {
            (Some(url), Some(_)) => {
                let (url, way) = led_through(&url, outside);
                (Some(url), Some(way))
            }
            (postgres, _) => (postgres, None),
        };
        let role = match options.projectors {
            Projectors::Everywhere => "command-api,projector",
            Projectors::Nowhere => "command-api",
        };
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--role={role}"),
            format!("--log={log}"),
            format!("--listen={listen}"),
            format!("--advertise={}", peers.address()),
            format!("--node={name}"),
            format!("--data={}", data.display()),
            format!(
                "--session-timeout-ms={}",
                options.session_timeout.as_millis()
            ),
            format!("--log-filter={}", options.log_filter),
        ];
        if network.is_some() {
            arguments.push("--insecure".to_owned());
        }
        arguments.extend(postgres.map(|url| format!("--postgres={url}")));
        arguments.extend(options.arguments.iter().cloned());
        let mut environment = clock.as_ref().map_or_else(Vec::new, Clock::environment);
        environment.push(("ANNALS_CLUSTER_SECRET".to_owned(), SECRET.to_owned()));
        let launch = Launch {
            program: options.program.clone(),
            arguments,
            through: [
                memory.as_ref().map(MemoryLimit::command_before),
                network.as_ref().map(Network::command_before),
            ]
            .into_iter()
            .flatten()
            .flatten()
            .collect(),
            environment,
            folder,
            output: options.artefacts.join(format!("{name}.out")),
        };
        Self {
            annals: Mutex::new(Annals::launch(launch)),
            number,
            name,
            url: format!("http://{listen}"),
            peers,
            disk,
            memory,
            clock,
            _postgres_way: postgres_way,
            network,
            is_wanted: AtomicBool::new(true),
            hold: Arc::default(),
            memory_peak_kb: AtomicU64::new(0),
            ends: Mutex::default(),
        }
    }

    fn annals(&self) -> MutexGuard<'_, Annals> {
        self.annals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock on this node; `None` if another fault holds it.
    #[must_use]
    pub fn hold(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.hold).try_lock_owned().ok()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.annals().pid()
    }

    /// Whether the process has reported that it is ready since its last start.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.annals().is_ready()
    }

    /// The output since the last start.
    #[must_use]
    pub fn said(&self) -> String {
        self.annals().said()
    }

    /// Kills the process as `kill -9` does; it stays down until [`Self::start_again`].
    pub fn kill9(&self) {
        self.measure_memory();
        self.is_wanted.store(false, Ordering::SeqCst);
        self.annals().kill9();
    }

    /// Asks the process to end in good order, and waits for its end; blocks. A process that does
    /// not end is killed, and the end is recorded. It stays down until [`Self::start_again`].
    pub fn terminate(&self) -> Option<i32> {
        self.measure_memory();
        self.is_wanted.store(false, Ordering::SeqCst);
        let mut annals = self.annals();
        let ended = annals.terminate_within(STOP_WAIT);
        let code = ended.and_then(|status| status.code());
        // A process without any output has not started yet, and has nothing to end in order.
        let had_begun = !annals.said().is_empty();
        if code != Some(0) && (had_begun || ended.is_none()) {
            let threads = threads(annals.pid());
            annals.kill9();
            let said = last_words(&annals);
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(NodeEnd {
                how: match ended {
                    Some(status) => End::Badly(status),
                    None => End::Never,
                },
                last_words: format!("{threads}\n{said}"),
            });
        }
        code
    }

    /// Starts the process again, and returns at once.
    pub fn start_again(&self) {
        self.annals().relaunch();
        self.is_wanted.store(true, Ordering::SeqCst);
    }

    /// Suspends the process (SIGSTOP).
    pub fn pause(&self) {
        self.annals().signal(Signal::STOP);
    }

    /// Lets a suspended process go on (SIGCONT).
    pub fn resume(&self) {
        self.annals().signal(Signal::CONT);
    }

    /// Records the memory, and restarts the process if it ended by itself.
    pub(super) fn look_after(&self) {
        self.measure_memory();
        // The lock is taken while a fault ends the process in good order.
        let Ok(mut annals) = self.annals.try_lock() else {
            return;
        };
        if !self.is_wanted.load(Ordering::SeqCst) {
            return;
        }
        if let Some(status) = annals.ended() {
            let end = NodeEnd {
                how: End::ByItself(status),
                last_words: last_words(&annals),
            };
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push(end);
            annals.relaunch();
        }
    }

    fn measure_memory(&self) {
        let Ok(annals) = self.annals.try_lock() else {
            return;
        };
        if let Some(peak) = status_kb(annals.pid(), "VmHWM:") {
            self.memory_peak_kb.fetch_max(peak, Ordering::SeqCst);
        }
    }

    /// The resident memory of the process now, in kilobytes.
    #[must_use]
    pub fn resident_kb(&self) -> Option<u64> {
        status_kb(self.pid(), "VmRSS:")
    }

    /// The greatest resident memory of any of its processes, in kilobytes.
    #[must_use]
    pub fn memory_peak_kb(&self) -> u64 {
        self.memory_peak_kb.load(Ordering::SeqCst)
    }

    /// Each end of a process that was not killed.
    #[must_use]
    pub fn ends(&self) -> Vec<NodeEnd> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.clone()
    }
}

/// The address of a database through a new proxy, for a node in a network of its own.
fn led_through(url: &str, at: Ipv4Addr) -> (String, Proxy) {
    let (before, rest) = url.split_once('@').expect("it names a user");
    let (host, database) = rest.split_once('/').expect("it names a database");
    let target = host.parse().expect("it is on a port of this machine");
    let proxy = Proxy::at(at, target, Framing::Raw);
    (format!("{before}@{}/{database}", proxy.address()), proxy)
}

fn last_words(annals: &Annals) -> String {
    let said = annals.said();
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// What the threads of a process wait for, by thread name.
fn threads(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let shown = tasks.into_iter().flatten().flatten().map(|task| {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        format!("{} in {}", read("comm").trim(), read("wchan").trim())
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A figure of a process from `/proc`.
fn status_kb(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
