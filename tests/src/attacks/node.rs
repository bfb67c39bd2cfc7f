//! The node under attack.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::NodeKind;
use crate::harness::annals::{Annals, Launch};

/// The memory that the node is configured for, in megabytes.
pub const MEMORY_MB: u64 = 512;
/// How long the node may take to start.
const START_WAIT: Duration = Duration::from_secs(120);
/// The stream that reading attackers ask for.
pub(super) const LARGE: &str = "order-large";
/// How many reviews the large stream has, of about 9 kB each.
const REVIEWS: usize = 200;
/// How long the read side may take to show these reviews.
const READ_WAIT: Duration = Duration::from_secs(60);

/// A running node on loopback; all its output is in a folder of its own.
pub struct Node {
    annals: Annals,
    /// `HOST:PORT`.
    pub authority: String,
    _folder: TempDir,
}

impl Node {
    /// Starts a node on a new log and the database at `postgres`, and fills its large stream.
    ///
    /// # Panics
    /// If the node does not start, or does not accept a command.
    pub async fn start(program: PathBuf, kind: NodeKind, postgres: String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let script = match kind {
            NodeKind::Plain => None,
            NodeKind::FewFiles => Some("ulimit -n 1024; exec \"$@\""),
            NodeKind::FullStderr => Some("exec \"$@\" 2>/dev/full"),
        };
        let through = script.map(|script| ["sh", "-c", script, "sh"].map(str::to_owned));
        let filter = match kind {
            NodeKind::FullStderr => "debug",
            _ => "info",
        };
        let data = folder.path().join("data").display().to_string();
        let arguments = ["dev", "--data", &data, "--postgres", &postgres]
            .into_iter()
            .chain(["--listen", "127.0.0.1:0", "--log-filter", filter]);
        let annals = Annals::launch(Launch {
            program,
            arguments: arguments.map(str::to_owned).collect(),
            through: through.map_or_else(Vec::new, Vec::from),
            environment: vec![("ANNALS_MEMORY_MB".to_owned(), MEMORY_MB.to_string())],
            folder: folder.path().to_owned(),
            output: folder.path().join("annals.out"),
        });
        let mut node = Self {
            annals,
            authority: String::new(),
            _folder: folder,
        };
        node.wait().await;
        node.fill().await;
        node
    }

    async fn wait(&mut self) {
        let deadline = Instant::now() + START_WAIT;
        let ready = loop {
            let said = self.annals.said();
            if let Some(line) = said.lines().find(|line| line.starts_with("{\"http\"")) {
                break line.to_owned();
            }
            let ended = self.annals.ended();
            assert!(ended.is_none(), "the node ended with {ended:?}:\n{said}");
            assert!(Instant::now() < deadline, "the node is not ready:\n{said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let ready: Value = serde_json::from_str(&ready).expect("a line of JSON");
        let url = ready["http"].as_str().expect("an address");
        self.authority = url.trim_start_matches("http://").to_owned();
    }

    /// Makes the large stream, and waits until its events can be read.
    async fn fill(&self) {
        let text = "x".repeat(9_000);
        let mut lines = vec![json!({"stream": LARGE, "command": "PlaceOrder", "data": order()})];
        for number in 0..REVIEWS {
            let review = format!("filled-{number}");
            let data = json!({"review": review, "score": 5, "comment": text});
            lines.push(json!({"stream": LARGE, "command": "ReviewOrder", "data": data}));
        }
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let client = reqwest::Client::new();
        let answer = client
            .post(format!("http://{}/v1/commands", self.authority))
            .header("content-type", "application/x-ndjson")
            .body(lines.join("\n") + "\n")
            .send()
            .await
            .expect("an answer");
        let text = answer.text().await.expect("a whole answer");
        assert!(text.contains("\"status\":200"), "{text}");
        let deadline = Instant::now() + READ_WAIT;
        let path = format!("/v1/streams/{LARGE}/events?limit=1");
        let url = format!("http://{}{path}", self.authority);
        loop {
            let answer = client.get(&url).send().await.expect("an answer");
            if answer.status().is_success() {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", answer.text().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The node's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.annals.pid()
    }

    /// Whether the node ends in good order within `wait` after SIGTERM.
    pub async fn ends_in_order(mut self, wait: Duration) -> bool {
        let ended = tokio::task::spawn_blocking(move || {
            let ended = self.annals.terminate_within(wait);
            ended.is_some_and(|status| status.success())
        });
        ended.await.expect("the wait for the end does not panic")
    }

    /// The node's output so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.annals.said()
    }
}

/// The data of a command that places an order.
pub(super) fn order() -> Value {
    let amount = |minor: u32| json!({"amount_minor": minor, "currency": "BRL"});
    json!({
        "customer": "customer-1",
        "items": [{
            "line": 1, "product": "p-1", "seller": "s-1",
            "price": amount(1_990), "freight": amount(500),
        }],
        "estimated_delivery": "2018-02-01T00:00:00Z",
    })
}

/// What a process has used of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    /// Processor time, in seconds.
    pub(super) processor_s: f64,
    /// Resident memory, in megabytes.
    pub(super) resident_mb: u64,
}

impl Taken {
    /// The usage of the process with this id; zero if the process is gone.
    pub(super) fn by(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Skip the process's name, which may hold any character: utime is the 12th field behind it,
        // stime the 13th.
        let fields: Vec<&str> = stat
            .rsplit_once(") ")
            .map_or_else(Vec::new, |(_, rest)| rest.split(' ').collect());
        let ticks = |index: usize| -> f64 {
            let field = fields.get(index).and_then(|field| field.parse().ok());
            field.unwrap_or(0.0)
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Self {
            // USER_HZ is 100 on every Linux.
            processor_s: (ticks(11) + ticks(12)) / 100.0,
            resident_mb: kilobytes.unwrap_or(0) / 1_024,
        }
    }
}
