//! Overload: more commands than the nodes can take, sent at a fixed rate whether or not earlier
//! ones are answered (an open loop). The nodes must still accept about as many as at the peak, and
//! answer those soon. They must turn the rest away with a time to retry, and their memory must not
//! grow.
//!
//! Every command begins a stream of its own, so that only the nodes' limits slow it down.
//! Deliberately absent: making the capacity small enough for this machine; the nodes' arguments do
//! that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::RETRY_AFTER;
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::load::NodeAddress;
use super::scene::{Scene, SceneOptions};
use super::table::{percentile, spread};

/// The share of the peak that nodes must still accept.
const GOODPUT_MIN: f64 = 0.8;
/// Within this time, 99 of 100 accepted commands must be answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);
/// By how much a node's memory may grow under overload, in megabytes.
const GROWTH_MAX_MB: u64 = 64;
/// How long each warm-up lasts.
const WARMING: Duration = Duration::from_secs(5);
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The greatest number of commands in flight: more than nodes and connections could ever hold.
const OPEN_MAX: usize = 20_000;
/// How often new commands are started.
const BEAT: Duration = Duration::from_millis(5);
/// How often the memory is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const OTHERS_SHOWN_MAX: usize = 10;

/// The size of the overload, and the nodes.
#[derive(Clone, Debug)]
pub struct OverloadOptions {
    /// The processes that run, with the limits that make their capacity small.
    pub scene: SceneOptions,
    /// How many times the peak rate is sent.
    pub times: f64,
    /// How long each phase is measured.
    pub length: Duration,
    /// How many clients search for the peak.
    pub clients: usize,
}

/// The result of the measurement.
#[derive(Debug)]
pub struct Overload {
    options: OverloadOptions,
    peak: Phase,
    offered_per_second: f64,
    over: Phase,
    /// The resident memory of each node, in kilobytes: before, the most during, and after the
    /// overload.
    memory_kb: Vec<(String, [u64; 3])>,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// The results of the commands of a phase.
#[derive(Debug, Default)]
struct Phase {
    length: Duration,
    offered: u64,
    taken: Vec<Duration>,
    turned_away: u64,
    without_retry_after: u64,
    others: Vec<String>,
    not_offered: u64,
}

impl Phase {
    fn per_second(&self) -> f64 {
        self.taken.len() as f64 / self.length.as_secs_f64()
    }
}

#[derive(Default)]
struct Counts {
    offered: AtomicU64,
    turned_away: AtomicU64,
    without_retry_after: AtomicU64,
    not_offered: AtomicU64,
    taken: Mutex<Vec<Duration>>,
    others: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    fn phase(&self, length: Duration) -> Phase {
        Phase {
            length,
            offered: self.offered.load(Ordering::SeqCst),
            taken: lock(&self.taken).clone(),
            turned_away: self.turned_away.load(Ordering::SeqCst),
            without_retry_after: self.without_retry_after.load(Ordering::SeqCst),
            others: lock(&self.others).clone(),
            not_offered: self.not_offered.load(Ordering::SeqCst),
        }
    }
}

struct Offering {
    doors: Vec<NodeAddress>,
    http: reqwest::Client,
    next: AtomicU64,
}

impl Offering {
    /// Sends one command to the next node, and counts the result.
    async fn one(&self, counts: &Counts) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let door = &self.doors[number as usize % self.doors.len()];
        let id = Uuid::now_v7().simple().to_string();
        let url = format!("{}/v1/streams/customer-{id}/RegisterCustomer", door.url);
        let data = json!({
            "name": "Somebody", "city": "sao paulo", "state": "SP", "postcode_prefix": "01310",
        });
        let began = Instant::now();
        counts.offered.fetch_add(1, Ordering::SeqCst);
        let sent = self
            .http
            .post(url)
            .header("idempotency-key", format!("\"{id}\""))
            .json(&data)
            .send();
        let other = |what: String| lock(&counts.others).push(what);
        match sent.await {
            Ok(response) => match response.status().as_u16() {
                200 => lock(&counts.taken).push(began.elapsed()),
                429 | 503 => {
                    counts.turned_away.fetch_add(1, Ordering::SeqCst);
                    if !response.headers().contains_key(RETRY_AFTER) {
                        counts.without_retry_after.fetch_add(1, Ordering::SeqCst);
                    }
                }
                status => {
                    let said = response.text().await.unwrap_or_default();
                    other(format!("{status}: {said}"));
                }
            },
            Err(error) => other(kernel::explained(&error)),
        }
    }

    /// A closed loop: each client waits for its answer before the next command.
    async fn closed(self: &Arc<Self>, clients: usize, length: Duration) -> Phase {
        let counts = Arc::new(Counts::default());
        let end = Instant::now() + length;
        let clients = (0..clients).map(|_| {
            let (offering, counts) = (Arc::clone(self), Arc::clone(&counts));
            tokio::spawn(async move {
                while Instant::now() < end {
                    offering.one(&counts).await;
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.expect("a client does not panic");
        }
        counts.phase(length)
    }

    /// An open loop: `per_second` commands per second, whatever becomes of them.
    async fn open(self: &Arc<Self>, per_second: f64, length: Duration) -> Phase {
        let counts = Arc::new(Counts::default());
        let room = Arc::new(Semaphore::new(OPEN_MAX));
        let began = Instant::now();
        let mut beats = tokio::time::interval(BEAT);
        let mut begun: u64 = 0;
        while began.elapsed() < length {
            beats.tick().await;
            let due = (began.elapsed().as_secs_f64() * per_second) as u64;
            while begun < due {
                begun += 1;
                let Ok(held) = Arc::clone(&room).try_acquire_owned() else {
                    counts.not_offered.fetch_add(1, Ordering::SeqCst);
                    continue;
                };
                let (offering, counts) = (Arc::clone(self), Arc::clone(&counts));
                tokio::spawn(async move {
                    offering.one(&counts).await;
                    drop(held);
                });
            }
        }
        let length = began.elapsed();
        // Commands in flight count too; wait for them, but no longer than this.
        let all = u32::try_from(OPEN_MAX).expect("a few");
        let ended = tokio::time::timeout(TIMEOUT * 2, room.acquire_many(all)).await;
        drop(ended);
        counts.phase(length)
    }
}

/// Finds the peak, sends more, and judges.
///
/// # Panics
/// If a process cannot be started.
pub async fn measure(options: OverloadOptions) -> Overload {
    let (scene, supervising) = Scene::begin(&options.scene).await;
    let offering = Arc::new(Offering {
        doors: scene.doors(),
        http: reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .expect("a client with these settings can be made"),
        next: AtomicU64::new(0),
    });
    offering.closed(options.clients, WARMING).await;
    let peak = offering.closed(options.clients, options.length).await;
    let offered_per_second = peak.per_second() * options.times;
    let resident = |scene: &Scene| -> Vec<u64> {
        let nodes = scene.nodes.iter();
        nodes
            .map(|node| node.resident_kb().unwrap_or_default())
            .collect()
    };
    // Let the nodes turn commands away once: the memory for that is allocated only once.
    offering.open(offered_per_second, WARMING).await;
    let before = resident(&scene);
    let most: Arc<Vec<AtomicU64>> = Arc::new(before.iter().map(|kb| (*kb).into()).collect());
    let (seen, watched) = (Arc::clone(&most), Arc::clone(&scene));
    let watch = tokio::spawn(async move {
        loop {
            for (most, node) in seen.iter().zip(&watched.nodes) {
                most.fetch_max(node.resident_kb().unwrap_or_default(), Ordering::SeqCst);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    let over = offering.open(offered_per_second, options.length * 2).await;
    watch.abort();
    let most = most.iter().map(|most| most.load(Ordering::SeqCst));
    let after = resident(&scene);
    let names = scene.nodes.iter().map(|node| node.name.clone());
    let memory = before.into_iter().zip(most).zip(after);
    let memory = memory.map(|((before, most), after)| [before, most, after]);
    let mut overload = Overload {
        peak,
        offered_per_second,
        over,
        memory_kb: names.zip(memory).collect(),
        violations: Vec::new(),
        options,
    };
    overload.judge(&scene);
    supervising.abort();
    overload
}

impl Overload {
    fn judge(&mut self, scene: &Scene) {
        let mut broken = Vec::new();
        let share = self.over.per_second() / self.peak.per_second();
        if share < GOODPUT_MIN {
            broken.push(format!("only {:.0} % of the peak was taken", share * 100.0));
        }
        if let Some(p99) = percentile(&self.over.taken, 99).filter(|p99| *p99 > ANSWERED_WITHIN) {
            broken.push(format!("p99 of what was taken is {p99:?}"));
        }
        let without = self.over.without_retry_after;
        if without > 0 {
            broken.push(format!("{without} were turned away without Retry-After"));
        }
        for other in self.over.others.iter().take(OTHERS_SHOWN_MAX) {
            broken.push(format!("neither taken nor turned away: {other}"));
        }
        for (name, [before, most, _]) in &self.memory_kb {
            if most.saturating_sub(*before) > GROWTH_MAX_MB * 1024 {
                broken.push(format!("{name} grew from {before} kB to {most} kB"));
            }
        }
        for node in &scene.nodes {
            let ends = node.ends().into_iter();
            broken.extend(ends.map(|end| format!("{} {end}", node.name)));
        }
        self.violations = broken;
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "peak: {:.0} commands/s taken from {} clients that wait; {}",
            self.peak.per_second(),
            self.options.clients,
            spread(&self.peak.taken)
        )?;
        let over = &self.over;
        writeln!(
            f,
            "offered: {:.0} commands/s for {:.1} s, {:.1} times the peak ({} of {} could not be \
             offered here)",
            self.offered_per_second,
            over.length.as_secs_f64(),
            self.options.times,
            over.not_offered,
            over.offered + over.not_offered,
        )?;
        writeln!(
            f,
            "taken: {:.0} commands/s, {:.0} % of the peak; {}",
            over.per_second(),
            over.per_second() / self.peak.per_second() * 100.0,
            spread(&over.taken)
        )?;
        writeln!(
            f,
            "turned away (429 or 503): {}, without Retry-After: {}; anything else: {}",
            over.turned_away,
            over.without_retry_after,
            over.others.len()
        )?;
        for (name, [before, most, after]) in &self.memory_kb {
            writeln!(
                f,
                "{name}: {} MB resident before, at most {}, {} behind",
                before / 1024,
                most / 1024,
                after / 1024
            )?;
        }
        writeln!(f, "violations: {}", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "  VIOLATION {violation}")?;
        }
        Ok(())
    }
}
