//! Maintains the reference for this node's clock, and reports when the clock is wrong.
//!
//! Deliberately absent: the comparison (`clock`), and its consequences (`owner`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::directory::Directory;
use event_log::log::LogError;
use kernel::explained;
use tokio::sync::watch;

use crate::clock::{Change, Clock, LogClock, Reference, system};

/// How often the clock is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the brokers are asked for the time.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// The same interval while the brokers have not answered or the clock is wrong.
const PROBE_SOON: Duration = Duration::from_secs(2);
/// How long the brokers may take to answer.
const PROBE_WAIT: Duration = Duration::from_secs(5);

/// Sets `log_clock` by the time of the brokers that hold the directory.
pub(super) struct Timekeeper {
    pub(super) directory: Arc<dyn Directory>,
    pub(super) log_clock: LogClock,
    pub(super) started: Instant,
    pub(super) off_max_ms: i64,
}

impl Timekeeper {
    /// Runs until the node stops.
    pub(super) async fn run(self, mut stopped: watch::Receiver<bool>) {
        tokio::select! {
            () = self.keep() => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    async fn keep(&self) {
        let mut clock = Clock::default();
        let mut probe_at = Instant::now();
        loop {
            if Instant::now() >= probe_at {
                let is_known = match tokio::time::timeout(PROBE_WAIT, self.probe()).await {
                    Ok(Ok(is_known)) => is_known,
                    Ok(Err(error)) => {
                        tracing::debug!(
                            error = explained(&error),
                            "the brokers do not say what time it is"
                        );
                        false
                    }
                    Err(_) => false,
                };
                let is_right = is_known && clock.off().is_none();
                probe_at = Instant::now() + if is_right { PROBE_EVERY } else { PROBE_SOON };
            }
            clock.set_reference(self.log_clock.reference());
            match clock.look(system::now(self.started), self.off_max_ms) {
                Change::None => {}
                Change::WentOff(off) => tracing::error!("{off}"),
                Change::Agrees => tracing::info!("this machine's clock is right again"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks the brokers for the time; `false` if the answer is of no use.
    async fn probe(&self) -> Result<bool, LogError> {
        let sent_ms = system::boottime_ms();
        let Some(appended_at) = self.directory.time().await? else {
            return Ok(true);
        };
        let reference = Reference::from_probe(sent_ms, system::boottime_ms(), appended_at);
        if let Some(reference) = reference {
            self.log_clock.set(reference);
        }
        Ok(reference.is_some())
    }
}
