//! The wish to stop: SIGTERM, SIGINT (Ctrl-C) and SIGHUP.
//!
//! Invariant: the first signal asks for an orderly end, a second one ends the process at once, with
//! the code that shells give to it (128 + its number). Deliberately absent: what an orderly end is
//! (`node`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::{Exit, Failure};

/// Whoever waits for the wish to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    asked: watch::Receiver<bool>,
    child: Arc<AtomicI32>,
}

impl Stop {
    /// Listens for signals from now on.
    ///
    /// # Errors
    /// `Failed` where the system does not let us.
    pub fn listen() -> Result<Self, Failure> {
        let (ask, asked) = watch::channel(false);
        let child = Arc::new(AtomicI32::new(0));
        let stop = Self {
            asked,
            child: Arc::clone(&child),
        };
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::of(Exit::Failed, &error).while_trying("listen for signals")
            })
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => 2,
                    _ = terminate.recv() => 15,
                    _ = hang_up.recv() => 1,
                };
                if ask.send_replace(true) {
                    end_at_once(&child, number);
                }
            }
        });
        Ok(stop)
    }

    /// Waits for the wish.
    pub async fn asked(&self) {
        // The sender lives as long as the runtime.
        let _ = self.asked.clone().wait_for(|asked| *asked).await;
    }

    /// Whether it was uttered.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Names the server that must not outlive us when we end at once; 0: none.
    pub fn take_along(&self, pid: u32) {
        let pid = i32::try_from(pid).unwrap_or(0);
        self.child.store(pid, Ordering::SeqCst);
    }
}

fn end_at_once(child: &AtomicI32, number: i32) -> ! {
    if let Some(pid) = Pid::from_raw(child.load(Ordering::SeqCst)) {
        // SIGQUIT: Postgres ends at once and recovers at its next start. Nothing can be done here
        // about a failure.
        let _ = kill_process(pid, Signal::QUIT);
    }
    std::process::exit(128 + number)
}
