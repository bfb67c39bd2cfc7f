//! Requests to stop: SIGTERM, SIGINT (Ctrl-C) and, for commands that a person runs, SIGHUP.
//!
//! Invariant: the first signal asks for an orderly end; a second one ends the process at once, with
//! the exit code that shells use for it (128 + its number). Tools end at the first signal.
//! Deliberately absent: what an orderly end is (`node`).

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};

/// How long the Postgres of a tool may take to stop, so that the next start has nothing to recover.
const SERVERS_END_WAIT: Duration = Duration::from_secs(5);
/// The number of SIGINT.
const INTERRUPT: i32 = 2;
/// Whether a signal ends this process at once.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
/// Whether this process listens for signals.
static IS_HEARD: AtomicBool = AtomicBool::new(false);

/// What SIGHUP does. It is sent when the terminal is gone, or by a supervisor that wants the
/// settings to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangUp {
    /// Nothing: a service goes on.
    Ignored,
    /// Stop if the terminal that this process was started on is gone.
    EndsWithTerminal,
    /// Stop.
    Ends,
}

/// A handle that waits for the request to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The number of the signal, once there was one.
    asked: watch::Receiver<Option<i32>>,
}

impl Stop {
    /// Listens for signals from now on. A thread of its own does so, so that a second signal works
    /// even while everything else ends.
    ///
    /// # Errors
    /// `Failed` if the system does not allow it.
    pub fn listen(on_hang_up: HangUp) -> Result<Self, Failure> {
        IS_HEARD.store(true, Ordering::SeqCst);
        let (ask, asked) = watch::channel(None);
        hear(on_hang_up, move |number| {
            if ask.send_replace(Some(number)).is_some() {
                end(Duration::ZERO, number);
            }
        })?;
        Ok(Self { asked })
    }

    /// Waits for the request to stop.
    pub async fn asked(&self) {
        // The sender lives as long as the process.
        let _ = self.asked.clone().wait_for(Option::is_some).await;
    }

    /// Whether a stop was requested.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// Whether a person at the terminal asked for it (Ctrl-C).
    #[must_use]
    pub fn is_by_person(&self) -> bool {
        *self.asked.borrow() == Some(INTERRUPT)
    }
}

/// For tools, which end at the first signal as they would without this: the servers that were
/// started for them end, too. Does nothing if this process listens for signals already.
///
/// # Errors
/// `Failed` if the system does not allow it.
pub fn end_servers_on_signal() -> Result<(), Failure> {
    if IS_HEARD.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    hear(HangUp::Ends, |number| end(SERVERS_END_WAIT, number))
}

/// Calls `heard` with the number of each signal, on a thread of its own.
fn hear(on_hang_up: HangUp, heard: impl FnMut(i32) + Send + 'static) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::of(Exit::Failed, &error).while_trying("listen for signals")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let signals = {
        let _entered = runtime.enter();
        Signals::listen(on_hang_up).map_err(failed)?
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(signals.serve(heard)))
        .map_err(failed)?;
    Ok(())
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// Absent if the parent process wants SIGHUP to be ignored, as `nohup` does.
    hang_up: Option<tokio::signal::unix::Signal>,
    on_hang_up: HangUp,
    had_terminal: bool,
}

impl Signals {
    fn listen(on_hang_up: HangUp) -> std::io::Result<Self> {
        Ok(Self {
            on_hang_up,
            had_terminal: std::io::stdin().is_terminal(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if hang_up_is_ignored() {
                None
            } else {
                Some(signal(SignalKind::hangup())?)
            },
        })
    }

    async fn serve(mut self, mut heard: impl FnMut(i32)) {
        loop {
            let number = tokio::select! {
                _ = self.interrupt.recv() => INTERRUPT,
                _ = self.terminate.recv() => 15,
                () = received(self.hang_up.as_mut()) => {
                    if !self.is_hang_up_the_end() {
                        tracing::info!("SIGHUP has no effect: settings are read only at the start");
                        continue;
                    }
                    1
                }
            };
            heard(number);
        }
    }

    fn is_hang_up_the_end(&self) -> bool {
        match self.on_hang_up {
            HangUp::Ignored => false,
            HangUp::EndsWithTerminal => self.had_terminal && !std::io::stdin().is_terminal(),
            HangUp::Ends => true,
        }
    }
}

async fn received(signal: Option<&mut tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether SIGHUP (1) is in the set of signals that this process ignores; known on Linux only.
fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// Ends the servers of this process, then the process.
fn end(patience: Duration, number: i32) -> ! {
    IS_ENDING.store(true, Ordering::SeqCst);
    embedded_postgres::end_all(patience);
    std::process::exit(128 + number)
}

/// If a signal is ending this process, waits for that end. Otherwise returns at once.
pub fn yield_to_the_end() {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}
