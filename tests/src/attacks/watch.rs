//! Watches the node during an attack: its memory, and its health routes, each request on a new
//! connection as a monitor would do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::node::Taken;

/// Within this time a health route must answer.
pub const HEALTH_WITHIN: Duration = Duration::from_secs(1);
/// After this time a request to a health route is given up.
const HEALTH_WAIT: Duration = Duration::from_secs(10);
/// How often each health route is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often the memory is read.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The node's memory and health during an attack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The greatest resident memory, in megabytes.
    pub resident_mb: u64,
    /// How long the slowest answer of a health route took.
    pub health_slowest: Duration,
    /// How many requests were sent to health routes.
    pub health_asked: u64,
    /// How many of these requests got no answer or a wrong one.
    pub health_failed: u64,
}

#[derive(Default)]
struct Counts {
    is_over: AtomicBool,
    resident_mb: AtomicU64,
    slowest_us: AtomicU64,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// A running watch.
pub(super) struct Watch {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn over(pid: u32, authority: &str) -> Self {
        let counts = Arc::new(Counts::default());
        let looking = Arc::clone(&counts);
        let mut tasks = vec![tokio::spawn(async move {
            while !looking.is_over.load(Ordering::SeqCst) {
                let resident = Taken::by(pid).resident_mb;
                looking.resident_mb.fetch_max(resident, Ordering::SeqCst);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })];
        for path in ["/livez", "/metrics"] {
            let (asking, authority) = (Arc::clone(&counts), authority.to_owned());
            tasks.push(tokio::spawn(async move {
                while !asking.is_over.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let is_well = is_well(&authority, path).await;
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    asking.slowest_us.fetch_max(took, Ordering::SeqCst);
                    asking.asked.fetch_add(1, Ordering::SeqCst);
                    asking
                        .failed
                        .fetch_add(u64::from(!is_well), Ordering::SeqCst);
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }));
        }
        Self { counts, tasks }
    }

    pub(super) async fn end(self) -> Seen {
        self.counts.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("it looks until it is told not to");
        }
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Seen {
            resident_mb: read(&self.counts.resident_mb),
            health_slowest: Duration::from_micros(read(&self.counts.slowest_us)),
            health_asked: read(&self.counts.asked),
            health_failed: read(&self.counts.failed),
        }
    }
}

/// Whether a health route answers with 200.
pub(super) async fn is_well(authority: &str, path: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(authority).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200 "))
    };
    let asked = tokio::time::timeout(HEALTH_WAIT, ask).await;
    asked.ok().flatten().unwrap_or(false)
}
