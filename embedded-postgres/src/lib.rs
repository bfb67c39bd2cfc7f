//! A private Postgres: an installed server, or a fetched one, run in a folder of this program.
//!
//! The folder holds the cluster (`data/`), the server's log, the passwords and a lock. Invariant:
//! at most one server ever runs on a cluster, whatever was killed before. The lock keeps a second
//! `annals` out. A server that outlived its `annals` is stopped first. What only Postgres can know
//! (whether shared memory is still in use) is left to Postgres. The server listens on loopback only
//! and asks for a password, so that other users of the machine cannot use it. The role that the
//! program uses owns its database and is not a superuser. A server that ends by itself is started
//! again (`keeper`).
//!
//! Deliberately absent: upgrades of a cluster to a newer Postgres. Read models are made from the
//! log and can be made again.

mod cluster;
#[cfg(feature = "fetch")]
mod fetch;
mod keeper;
mod orphan;
mod server;
mod user;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster::Home;
use keeper::Keeper;
pub use keeper::end_all;
pub use server::POSTGRES_MAJOR_MIN;

const READY_POLL_MS: u64 = 2;
/// How long processes of a killed server may hold its shared memory before the start gives up.
const SHARED_MEMORY_TIMEOUT_SECONDS: u64 = 10;
const PORT_ATTEMPTS_MAX: u32 = 8;
const LOG_TAIL_BYTES_MAX: usize = 4096;

/// The folder in which root keeps what the server's user could not reach elsewhere. Not everyone
/// may write to it, so nobody else can have put something there before.
const ROOT_HOMES: &str = "/var/lib/annals";

/// The name of the database and of the role that owns it.
const NAME: &str = "annals";
/// The role that analysts are granted, which the program fills with rights (`projector::READER`).
/// The superuser makes it here, because [`NAME`] may not make roles.
const READER: &str = "annals_reader";
/// The name of the superuser, which the program does not use.
const ADMIN: &str = "annals_admin";

/// What a crash of the machine may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every transaction is on disk before it is answered.
    Full,
    /// A crash may lose the last transactions, but never their order or their atomicity. Enough for
    /// read models, whose checkpoint is in the same transaction: they fold the rest again.
    #[default]
    Relaxed,
    /// A crash of the machine may destroy the cluster; a crash of Postgres loses nothing. For
    /// tests.
    None,
}

/// How to run the private server; `Options::default()` suits `annals dev`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with `postgres` and `initdb`, if it is configured; else it is searched for.
    pub server_bin: Option<PathBuf>,
    /// The port to listen on; else the port of the last run if it is free, else any free port.
    pub port: Option<u16>,
    /// What a crash of the machine may cost.
    pub durability: Durability,
    /// How long the server may take until it answers, recovery after a crash included.
    pub start_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server_bin: None,
            port: None,
            durability: Durability::default(),
            start_timeout: Duration::from_secs(120),
        }
    }
}

/// A private Postgres that runs until it is stopped or dropped.
pub struct EmbeddedPostgres {
    keeper: Keeper,
    port: u16,
    home: Arc<Home>,
    /// Held as long as the server runs: see [`Home::open`].
    _lock: File,
}

/// Why there is no private Postgres, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable server is installed, and none could be fetched.
    #[error(
        "no Postgres server of version {POSTGRES_MAJOR_MIN} or newer was found: install one \
         (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql), or name \
         the folder with `postgres` and `initdb` in ANNALS_POSTGRES_BIN"
    )]
    NoServer,
    /// The folder that was configured holds no usable server.
    #[error("{} holds no usable Postgres server: {reason}", .bin.display())]
    UnusableServer {
        /// The folder that was configured.
        bin: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster was made by a version of Postgres that is no longer there.
    #[error(
        "{} was created by Postgres {made_by}, and no server of that version was found: install \
         that version, or delete the folder (the read models will be rebuilt from the log)", .home.display()
    )]
    OtherVersion {
        /// The folder of the cluster.
        home: PathBuf,
        /// The major version that made the cluster.
        made_by: u32,
    },
    /// Another process of this program uses the folder.
    #[error(
        "another annals process is using {}: stop it, or name another folder for this process \
         with --data",
        .home.display()
    )]
    InUse {
        /// The folder of the cluster.
        home: PathBuf,
    },
    /// The server of an earlier run neither ends nor releases the folder.
    #[error("the Postgres of an earlier run (process {pid}) does not stop: end it and try again")]
    OrphanStays {
        /// The process that does not stop.
        pid: u32,
    },
    /// Postgres refuses to run as root, and there is no other user to run it as.
    #[error(
        "Postgres refuses to run as root, and this machine has neither a user `postgres` nor \
         `nobody`: run annals as an ordinary user, or create one of them"
    )]
    NoOrdinaryUser,
    /// A cluster could not be made.
    #[error("{program} failed ({status}): {output}")]
    Tool {
        /// The program that failed.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// The server ended instead of answering.
    #[error(
        "the Postgres server ended ({status}) instead of answering; {} says:\n{tail}",
        .log.display()
    )]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The server's log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The server runs, but does not answer in time.
    #[error(
        "the Postgres server did not answer within {after_seconds} s; {} says:\n{tail}",
        .log.display()
    )]
    Silent {
        /// How long the start waited.
        after_seconds: u64,
        /// The server's log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The folder or a program could not be used.
    #[error("could not {operation} {}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file, folder or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No server is installed, and fetching one failed.
    #[cfg(feature = "fetch")]
    #[error(
        "no Postgres server is installed, and fetching one failed: install one (Debian, Ubuntu: \
         apt-get install postgresql; macOS: brew install postgresql), or try again"
    )]
    Fetch {
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This process is ending and starts no server any more.
    #[error("the Postgres server was not started, because this process is ending")]
    Ending,
    /// The thread that was to start or stop the server is gone.
    #[error("the task that ran the Postgres server failed")]
    BrokeOff(#[from] tokio::task::JoinError),
}

impl Error {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

impl EmbeddedPostgres {
    /// Starts the server of `data_dir` and returns once it answers. The first time, the cluster is
    /// made; later, the one that is there is used again.
    ///
    /// As root, Postgres runs as another user. If that user cannot enter `data_dir`, the cluster
    /// lives in `/var/lib/annals` instead, and a log line says so.
    ///
    /// # Errors
    /// [`Error`] says what is missing or in the way, and what to do about it.
    pub async fn start(data_dir: &Path, options: &Options) -> Result<Self, Error> {
        let (data_dir, options) = (data_dir.to_owned(), options.clone());
        tokio::task::spawn_blocking(move || Self::start_blocking(&data_dir, &options)).await?
    }

    /// [`EmbeddedPostgres::start`] for callers outside of a runtime.
    ///
    /// # Errors
    /// As [`EmbeddedPostgres::start`].
    pub fn start_blocking(data_dir: &Path, options: &Options) -> Result<Self, Error> {
        let started_at = Instant::now();
        let (home, lock) = Home::open(data_dir)?;
        let server = server::find(options.server_bin.as_deref(), home.made_by()?, home.path())?;
        orphan::stop(&home.cluster())?;
        home.make_cluster(&server)?;

        let plan = Plan {
            server,
            home: Arc::new(home),
            durability: options.durability,
            start_timeout: options.start_timeout,
        };
        let (server, port) = plan.bring_up(options.port, &|| !keeper::is_ending())?;
        let (home, major) = (Arc::clone(&plan.home), plan.server.major);
        let keeper = Keeper::of(server, plan, port)?;
        home.remember(port)?;
        tracing::info!(
            version = major,
            port,
            folder = %home.path().display(),
            took_ms = started_at.elapsed().as_millis() as u64,
            "the private Postgres is ready"
        );
        Ok(Self {
            keeper,
            port,
            home,
            _lock: lock,
        })
    }

    /// The address of the program's database, password included.
    pub fn url(&self) -> String {
        self.url_of(NAME)
    }

    /// The address of another database of this server, password included.
    pub fn url_of(&self, database: &str) -> String {
        self.home.url(self.port, database)
    }

    /// The same for the superuser, which only tests and people need.
    pub fn admin_url_of(&self, database: &str) -> String {
        let (password, port) = (self.home.admin_password(), self.port);
        format!("postgresql://{ADMIN}:{password}@127.0.0.1:{port}/{database}")
    }

    /// A file that holds [`EmbeddedPostgres::url`], for the owner of the folder alone.
    pub fn url_file(&self) -> PathBuf {
        self.home.url_file()
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server; 0 while it is being started again.
    pub fn pid(&self) -> u32 {
        self.keeper.pid()
    }

    /// The folder with the cluster and the server's log.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Stops the server: open transactions are rolled back, and the data is written out, so that
    /// the next start has nothing to recover.
    ///
    /// # Errors
    /// [`Error::BrokeOff`].
    pub async fn stop(self) -> Result<(), Error> {
        Ok(tokio::task::spawn_blocking(move || self.stop_blocking()).await?)
    }

    /// [`EmbeddedPostgres::stop`] for callers outside of a runtime.
    pub fn stop_blocking(mut self) {
        self.keeper.stop();
    }
}

impl std::fmt::Debug for EmbeddedPostgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedPostgres")
            .field("folder", &self.home.path())
            .field("port", &self.port)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// What is needed to start the server, and to start it again.
struct Plan {
    server: server::Server,
    home: Arc<Home>,
    durability: Durability,
    start_timeout: Duration,
}

impl Plan {
    /// Starts the server, on `port` if there is one, and returns once it answers. Gives up when
    /// `is_wanted` returns false.
    fn bring_up(
        &self,
        port: Option<u16>,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<(keeper::Server, u16), Error> {
        let home = &self.home;
        let shared_memory_deadline =
            Instant::now() + Duration::from_secs(SHARED_MEMORY_TIMEOUT_SECONDS);
        let mut port_attempts = 0;
        loop {
            let taken = match port {
                Some(port) => port,
                None => home
                    .last_port()
                    .filter(|_| port_attempts == 0)
                    .map_or_else(free_port, Ok)?,
            };
            let mut server = launch(&self.server, home, taken, self.durability)?;
            match wait_until_ready(&mut server, home, self.start_timeout, is_wanted) {
                Ok(()) => return Ok((server, taken)),
                Err(Error::Ended { tail, .. })
                    if port.is_none()
                        && tail.contains("could not create any TCP/IP sockets")
                        && port_attempts < PORT_ATTEMPTS_MAX =>
                {
                    port_attempts += 1;
                }
                // The server was killed a moment ago and its last processes are about to end.
                Err(Error::Ended { tail, .. })
                    if tail.contains("shared memory block")
                        && Instant::now() < shared_memory_deadline =>
                {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(error) => {
                    match error {
                        // The server may be busy with recovery after a crash.
                        Error::Ending => server.shut_down(),
                        _ => server.kill(),
                    }
                    return Err(error);
                }
            }
        }
    }
}

fn free_port() -> Result<u16, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(Error::io("find a free port at", Path::new("127.0.0.1")))
}

fn launch(
    server: &server::Server,
    home: &Home,
    port: u16,
    durability: Durability,
) -> Result<keeper::Server, Error> {
    use std::os::unix::process::CommandExt;

    let (fsync, synchronous_commit) = match durability {
        Durability::Full => ("on", "on"),
        Durability::Relaxed => ("on", "off"),
        // Each commit reaches the system, which costs little, and nothing waits for the disk.
        Durability::None => ("off", "on"),
    };
    let log = home.new_log()?;
    let mut command = home.command(&server.program("postgres"));
    command
        .arg("-D")
        .arg(home.cluster())
        .arg("-p")
        .arg(port.to_string());
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "log_destination=stderr",
        "logging_collector=off",
        "timezone=UTC",
        "log_timezone=UTC",
        "jit=off",
        // This server has no replicas, and COPY into a new table is faster at this level.
        "wal_level=minimal",
        "max_wal_senders=0",
        &format!("fsync={fsync}"),
        &format!("full_page_writes={fsync}"),
        &format!("synchronous_commit={synchronous_commit}"),
    ] {
        command.arg("-c").arg(setting);
    }
    // A process group of its own: Ctrl-C in a terminal must reach only this process, which drains
    // before it stops Postgres.
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    keeper::Server::start(&mut command, &home.cluster())
        .map_err(Error::io("run", &server.program("postgres")))
}

/// Waits until the server has written "ready" into its `postmaster.pid`, as `pg_ctl` does: quicker
/// than trying to connect, and without noise in its log.
fn wait_until_ready(
    server: &mut keeper::Server,
    home: &Home,
    timeout: Duration,
    is_wanted: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = server
            .try_wait()
            .map_err(Error::io("wait for", &home.log()))?
        {
            return Err(Error::Ended {
                status,
                log: home.log(),
                tail: log_tail(home),
            });
        }
        if !is_wanted() {
            return Err(Error::Ending);
        }
        let ours = |file: &orphan::PidFile| file.pid == server.id() && file.ready;
        if orphan::PidFile::read(&home.cluster())?.is_some_and(|file| ours(&file)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            let (log, tail) = (home.log(), log_tail(home));
            return Err(Error::Silent {
                after_seconds: timeout.as_secs(),
                log,
                tail,
            });
        }
        thread::sleep(Duration::from_millis(READY_POLL_MS));
    }
}

fn log_tail(home: &Home) -> String {
    let log = fs::read(home.log()).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LOG_TAIL_BYTES_MAX)..];
    String::from_utf8_lossy(tail).into_owned()
}
