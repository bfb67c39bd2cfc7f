//! Clients that send single commands and batches to any node, and send each command again under the
//! same id until it is answered.
//!
//! The commands are those of the shop's customers: addresses are corrected, sometimes before the
//! customer is registered, and sometimes with an old expected version. All clients share the
//! streams, and a stream is left after some dozen commands, so that states stay small. Invariant:
//! every question and every answer is in the history. Deliberately absent: judging the history.

mod client;
mod probe;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;

use self::client::Client;
use self::streams::{Streams, Where};
use super::history::History;
pub use probe::{Prober, Sighting};

/// How often a waiting task looks again.
const POLL: Duration = Duration::from_millis(5);

/// How the load is made.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many clients ask at the same time.
    pub clients: usize,
    /// The greatest number of commands per second, over all clients.
    pub commands_per_second_max: u32,
    /// The addresses of the nodes.
    pub nodes: Vec<NodeAddress>,
    /// Decides every choice of the clients.
    pub seed: u64,
}

/// A node as clients know it.
#[derive(Clone, Debug)]
pub struct NodeAddress {
    /// The node's name.
    pub name: String,
    /// The base address of its door.
    pub url: String,
}

/// Counts of what the load did so far.
#[derive(Debug, Default)]
pub struct Counts {
    invoked: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    turned_away: AtomicU64,
}

/// [`Counts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Commands; each counts once, however often it was sent.
    pub commands: u64,
    /// Commands with a final answer: accepted, refused, or failed.
    pub answered: u64,
    /// Accepted commands.
    pub accepted: u64,
    /// Refused commands.
    pub refused: u64,
    /// Failed commands.
    pub failed: u64,
    /// Attempts without an answer, or with the answer *unknown*.
    pub unknown: u64,
    /// Attempts that were turned away.
    pub turned_away: u64,
}

impl Counted {
    /// Commands without a final answer.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.commands - self.answered
    }
}

impl Counts {
    /// The counts now.
    #[must_use]
    pub fn now(&self) -> Counted {
        // Read the answers first: a command that is answered in between then counts as open.
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let (accepted, refused, failed) = (
            read(&self.accepted),
            read(&self.refused),
            read(&self.failed),
        );
        Counted {
            answered: accepted + refused + failed,
            accepted,
            refused,
            failed,
            unknown: read(&self.unknown),
            turned_away: read(&self.turned_away),
            commands: read(&self.invoked),
        }
    }
}

/// State that all clients share.
#[derive(Debug)]
struct Shared {
    options: LoadOptions,
    history: Arc<History>,
    counts: Counts,
    streams: Streams,
    is_stopping: AtomicBool,
    /// Limits how many commands may have been sent since the beginning.
    pace: Pace,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients.
    #[must_use]
    pub fn begin(options: LoadOptions, history: Arc<History>) -> Self {
        let shared = Arc::new(Shared {
            pace: Pace::of(options.commands_per_second_max),
            streams: Streams::new(Where::Anywhere),
            counts: Counts::default(),
            is_stopping: AtomicBool::new(false),
            history,
            options,
        });
        let clients = (0..shared.options.clients)
            .map(|number| {
                let random = StdRng::seed_from_u64(shared.options.seed ^ (number as u64) << 32);
                let client = Client::new(number, Arc::clone(&shared), random);
                tokio::spawn(client.run())
            })
            .collect();
        Self { shared, clients }
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counted {
        self.shared.counts.now()
    }

    /// Waits until every command that is open now has a final answer, and returns how long that
    /// took.
    ///
    /// # Errors
    /// The number of commands that are still open after `wait`.
    pub async fn settle(&self, wait: Duration) -> Result<Duration, u64> {
        let began = Instant::now();
        self.shared.pace.pause();
        let settled = loop {
            let open = self.counts().open();
            if open == 0 {
                break Ok(began.elapsed());
            }
            if began.elapsed() > wait {
                break Err(open);
            }
            tokio::time::sleep(POLL).await;
        };
        self.shared.pace.resume();
        settled
    }

    /// Stops new commands, and waits until the open ones are answered, but no longer than `wait`.
    ///
    /// # Panics
    /// If a client panicked.
    pub async fn stop(self, wait: Duration) -> Counted {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        let deadline = tokio::time::Instant::now() + wait;
        for mut client in self.clients {
            match tokio::time::timeout_at(deadline, &mut client).await {
                Ok(ended) => ended.expect("a client does not panic"),
                Err(_) => client.abort(),
            }
        }
        self.shared.counts.now()
    }
}

/// Limits the rate of commands over all clients.
#[derive(Debug)]
struct Pace {
    began: Instant,
    per_second: u32,
    let_through: AtomicU64,
    is_paused: AtomicBool,
}

impl Pace {
    fn of(per_second: u32) -> Self {
        Self {
            began: Instant::now(),
            per_second,
            let_through: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
        }
    }

    fn pause(&self) {
        self.is_paused.store(true, Ordering::SeqCst);
    }

    fn resume(&self) {
        self.is_paused.store(false, Ordering::SeqCst);
    }

    /// Waits until `commands` more may be sent; returns `false` if `stop` is set.
    async fn admit(&self, commands: u64, stop: &AtomicBool) -> bool {
        loop {
            if stop.load(Ordering::SeqCst) {
                return false;
            }
            let due = self.began.elapsed().as_secs_f64() * f64::from(self.per_second);
            let due = due as u64;
            let through = self.let_through.load(Ordering::SeqCst);
            if through <= due && !self.is_paused.load(Ordering::SeqCst) {
                // After a pause, at most one second's worth of missed commands is made up for.
                let base = through.max(due.saturating_sub(u64::from(self.per_second)));
                let next = base + commands;
                let taken = self.let_through.compare_exchange(
                    through,
                    next,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
                if taken.is_ok() {
                    return true;
                }
                continue;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
