//! Keeps one server running: starts it again when it ends by itself, stops it on request, and stops
//! it when this process ends, however it ends.
//!
//! Invariant: a server is known to [`end_all`] from the moment it runs, and none is started once
//! this process is ending. One thread owns the server's process, and reaps it. A small shell beside
//! the server reads from a pipe. The pipe closes when this process is gone, even by `kill -9`; then
//! the shell stops the server. Deliberately absent: how a server is started (`super`).

use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Error, Plan};

/// How often the keeper checks whether the server still runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long to wait before a server that ended by itself is started again.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest such wait, after the server has ended again and again.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that has run for this long runs well: the next wait is the shortest one again.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// How long each kind of shutdown may take before a harder one follows.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(2);

/// The servers of this process, by their process ids; 0: not running.
static SERVERS: Mutex<Vec<Arc<AtomicU32>>> = Mutex::new(Vec::new());
/// Whether this process is ending: then no server is started any more.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

pub(super) fn is_ending() -> bool {
    IS_ENDING.load(Ordering::SeqCst)
}

/// Stops every server of this process, which is about to end: with a fast shutdown, and after
/// `patience` with an immediate one.
pub fn end_all(patience: Duration) {
    IS_ENDING.store(true, Ordering::SeqCst);
    let servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
    let running = || servers.iter().filter_map(|pid| process(pid));
    // SIGINT: a fast shutdown. SIGQUIT: an immediate one, recovered from at the next start.
    for (signal, patience) in [(Signal::INT, patience), (Signal::QUIT, STOP_POLL)] {
        for server in running() {
            // One that has ended meanwhile needs no signal.
            let _ = kill_process(server, signal);
        }
        let deadline = Instant::now() + patience;
        while running().next().is_some() && Instant::now() < deadline {
            thread::sleep(STOP_POLL);
        }
    }
}

fn process(pid: &AtomicU32) -> Option<Pid> {
    let number = i32::try_from(pid.load(Ordering::SeqCst)).ok()?;
    Pid::from_raw(number)
}

/// A server that is kept running.
pub(super) struct Keeper {
    /// 0 while the server does not run.
    pid: Arc<AtomicU32>,
    wish: Arc<Wish>,
    thread: Option<JoinHandle<()>>,
}

/// The request to stop.
#[derive(Default)]
struct Wish {
    is_stop: Mutex<bool>,
    uttered: Condvar,
}

impl Wish {
    fn utter(&self) {
        *self.is_stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.uttered.notify_all();
    }

    /// Waits for the request, at most `wait`. Returns whether it came.
    fn came_within(&self, wait: Duration) -> bool {
        let guard = self.is_stop.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .uttered
            .wait_timeout_while(guard, wait, |is_stop| !*is_stop);
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

impl Keeper {
    /// Takes over a server that has just been started on `port`.
    pub(super) fn of(server: Server, plan: Plan, port: u16) -> Result<Self, Error> {
        let pid = Arc::new(AtomicU32::new(server.id()));
        let wish = Arc::new(Wish::default());
        let keeping = Keeping {
            server: Some(server),
            plan,
            port,
            pid: Arc::clone(&pid),
            wish: Arc::clone(&wish),
        };
        let thread = thread::Builder::new().name("private-postgres".to_owned());
        let thread = thread
            .spawn(move || keeping.run())
            .map_err(Error::io("start a thread for", Path::new("Postgres")))?;
        Ok(Self {
            pid,
            wish,
            thread: Some(thread),
        })
    }

    /// The process id of the server; 0 while it does not run.
    pub(super) fn pid(&self) -> u32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// Stops the server and waits for its end.
    pub(super) fn stop(&mut self) {
        self.wish.utter();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(
                "the thread that watches the private Postgres panicked; the server may still be \
                 running"
            );
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The keeper's thread.
struct Keeping {
    server: Option<Server>,
    plan: Plan,
    port: u16,
    pid: Arc<AtomicU32>,
    wish: Arc<Wish>,
}

impl Keeping {
    fn run(mut self) {
        let mut pause = PAUSE_MIN;
        let mut started_at = Instant::now();
        while !self.wish.came_within(LOOK_EVERY) {
            let Some(how) = self.has_ended() else {
                continue;
            };
            self.server = None;
            self.pid.store(0, Ordering::SeqCst);
            if is_ending() {
                return;
            }
            if started_at.elapsed() >= STEADY_AFTER {
                pause = PAUSE_MIN;
            }
            tracing::error!(
                how,
                log = %self.plan.home.log().display(),
                pause_ms = pause.as_millis() as u64,
                "the private Postgres ended by itself; starting it again"
            );
            if self.wish.came_within(pause) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
            started_at = Instant::now();
            self.start_again();
        }
        if let Some(server) = &mut self.server {
            server.shut_down();
        }
        self.pid.store(0, Ordering::SeqCst);
    }

    /// How the server ended, if it did.
    fn has_ended(&mut self) -> Option<String> {
        match self.server.as_mut()?.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    fn start_again(&mut self) {
        let is_wanted = || !self.wish.came_within(Duration::ZERO) && !is_ending();
        match self.plan.bring_up(Some(self.port), &is_wanted) {
            Ok((server, _)) => {
                self.pid.store(server.id(), Ordering::SeqCst);
                self.server = Some(server);
                tracing::warn!("the private Postgres runs again");
            }
            Err(error) => {
                tracing::error!(%error, "the private Postgres cannot be started again");
            }
        }
    }
}

/// A running server, and the shell that stops it when this process is gone.
pub(super) struct Server {
    child: Child,
    /// Its entry in [`SERVERS`]; 0 once the server has ended.
    running: Arc<AtomicU32>,
    // Dropped, and so ended, after the server was stopped.
    _watchdog: Option<Watchdog>,
}

impl Server {
    /// Starts a server on `cluster`, unless this process is ending.
    pub(super) fn start(command: &mut Command, cluster: &Path) -> io::Result<Self> {
        let (child, running) = {
            // `end_all` holds this lock, too, so it misses no server that is started here.
            let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
            if is_ending() {
                return Err(io::Error::other("this process is about to end"));
            }
            let child = command.spawn()?;
            let running = Arc::new(AtomicU32::new(child.id()));
            servers.push(Arc::clone(&running));
            (child, running)
        };
        let watchdog = Watchdog::over(child.id(), cluster)
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "the private Postgres will go on running if this process is killed"
                );
            })
            .ok();
        Ok(Self {
            child,
            running,
            _watchdog: watchdog,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let ended = self.child.try_wait();
        if !matches!(ended, Ok(None)) {
            self.running.store(0, Ordering::SeqCst);
        }
        ended
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.running.store(0, Ordering::SeqCst);
    }

    /// Stops the server: with a fast shutdown, then, if it does not end, with harder signals.
    pub(super) fn shut_down(&mut self) {
        for signal in [Signal::INT, Signal::QUIT, Signal::KILL] {
            // The process is not reaped yet, so the process id is still its own.
            if !matches!(self.try_wait(), Ok(None)) {
                return;
            }
            if let Err(error) = kill_process(Pid::from_child(&self.child), signal) {
                tracing::warn!(%error, "could not send a signal to the private Postgres");
            }
            let deadline = Instant::now() + STOP_TIMEOUT;
            while Instant::now() < deadline {
                if !matches!(self.try_wait(), Ok(None)) {
                    return;
                }
                thread::sleep(STOP_POLL);
            }
            tracing::warn!(
                signal = signal.as_raw(),
                "the private Postgres did not stop after this signal"
            );
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|running| !Arc::ptr_eq(running, &self.running));
    }
}

/// Waits until the pipe closes; then stops the server, if the process id still belongs to a server
/// of this cluster.
const WATCHDOG: &str = r#"
read -r _
if [ -r /proc/self/cmdline ]; then line=$(tr '\0' ' ' <"/proc/$1/cmdline")
else line=$(ps -ww -o command= -p "$1"); fi
case "$line" in *"$2"*) kill -INT "$1" ;; esac
"#;

/// A shell that outlives this process for a moment.
struct Watchdog(Child);

impl Watchdog {
    fn over(pid: u32, cluster: &Path) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;

        let mut command = Command::new("sh");
        command
            .args(["-c", WATCHDOG, "annals-watchdog", &pid.to_string()])
            .arg(cluster)
            .current_dir("/")
            // Ctrl-C in a terminal must not end the shell.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // End the shell before its pipe closes: it must not stop any process now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
