//! Polite clients: they wait for each answer, and try again later when they are turned away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::node::order;

/// How many polite clients there are.
const CLIENTS: usize = 4;
/// How many clients make a load: enough to keep the node as busy as any attack does.
const LOADERS: usize = 32;
/// How long a polite client waits for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a polite client waits before it tries again.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// What the polite clients got.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// For how long the clients sent commands.
    pub length: Duration,
    /// How long each answered command took, from its first attempt.
    pub answered: Vec<Duration>,
    /// How often a command was turned away or got no answer, by code or error.
    pub turned_away: BTreeMap<String, u64>,
}

impl Got {
    /// Adds the results of another measurement.
    pub(super) fn add(&mut self, other: Self) {
        self.length += other.length;
        self.answered.extend(other.answered);
        for (why, count) in other.turned_away {
            *self.turned_away.entry(why).or_default() += count;
        }
    }

    /// Answered commands per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.answered.len() as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Sends single commands, each for a new order, for `length`.
pub(super) async fn work(authority: &str, length: Duration) -> Got {
    let until = Instant::now() + length;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(one(authority.to_owned(), until));
    }
    let mut got = Got {
        length,
        ..Got::default()
    };
    while let Some(client) = clients.join_next().await {
        let (answered, turned_away) = client.expect("a client does not panic");
        got.add(Got {
            length: Duration::ZERO,
            answered,
            turned_away,
        });
    }
    got
}

async fn one(authority: String, until: Instant) -> (Vec<Duration>, BTreeMap<String, u64>) {
    let client = reqwest::Client::builder().timeout(ANSWER_WAIT).build();
    let client = client.expect("a client with these settings");
    let (mut answered, mut turned_away) = (Vec::new(), BTreeMap::new());
    let data = order();
    while Instant::now() < until {
        let id = Uuid::now_v7();
        let began = Instant::now();
        loop {
            match place(&client, &authority, id, &data).await {
                Ok(()) => {
                    answered.push(began.elapsed());
                    break;
                }
                Err(why) => *turned_away.entry(why).or_default() += 1,
            }
            if Instant::now() > until {
                // A command that is open at the end counts with its time so far.
                answered.push(began.elapsed());
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    (answered, turned_away)
}

/// Places an order.
///
/// # Errors
/// The code if the order is not placed, or what went wrong on the way.
async fn place(
    client: &reqwest::Client,
    authority: &str,
    id: Uuid,
    data: &Value,
) -> Result<(), String> {
    let sent = client
        .post(format!(
            "http://{authority}/v1/streams/order-{id}/PlaceOrder"
        ))
        .header("idempotency-key", id.to_string())
        .json(data)
        .send()
        .await;
    let no_answer = |error: reqwest::Error| match error.is_timeout() {
        true => "no answer".to_owned(),
        false => "no connection".to_owned(),
    };
    let answer = sent.map_err(no_answer)?;
    let status = answer.status();
    let text = answer.text().await.map_err(no_answer)?;
    if status.is_success() {
        return Ok(());
    }
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let code = problem["code"].as_str().unwrap_or("without a code");
    Err(format!("{} {code}", status.as_u16()))
}

/// Whether everything works as before: health, a command, a read.
pub(super) async fn is_normal(authority: &str, large: &str) -> bool {
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(2))
        .pool_max_idle_per_host(0)
        .build();
    let client = client.expect("a client with these settings");
    let well = async |path: &str| {
        let answer = client.get(format!("http://{authority}{path}")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    };
    well("/livez").await
        && well("/readyz").await
        && well(&format!("/v1/streams/{large}/events?limit=1")).await
        && place(&client, authority, Uuid::now_v7(), &order())
            .await
            .is_ok()
}

/// Sends `per_second` batch lines per second over some connections, for `length`.
pub(super) async fn load(authority: &str, per_second: f64, length: Duration) -> u64 {
    let is_over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..LOADERS {
        let (is_over, sent) = (Arc::clone(&is_over), Arc::clone(&sent));
        let authority = authority.to_owned();
        clients.spawn(async move {
            let client = reqwest::Client::new();
            while !is_over.load(Ordering::SeqCst) {
                let due = began.elapsed().as_secs_f64() * per_second;
                if sent.load(Ordering::SeqCst) as f64 + 32.0 > due {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                sent.fetch_add(32, Ordering::SeqCst);
                let line = || {
                    let stream = format!("order-{}", Uuid::now_v7());
                    json!({"stream": stream, "command": "PlaceOrder", "data": order()}).to_string()
                };
                let lines: Vec<String> = (0..32).map(|_| line()).collect();
                let answer = client
                    .post(format!("http://{authority}/v1/commands"))
                    .header("content-type", "application/x-ndjson")
                    .body(lines.join("\n") + "\n")
                    .send()
                    .await;
                if let Ok(answer) = answer {
                    // The body is read to its end; its content does not matter.
                    let _ = answer.bytes().await;
                }
            }
        });
    }
    tokio::time::sleep(length).await;
    is_over.store(true, Ordering::SeqCst);
    clients.join_all().await;
    sent.load(Ordering::SeqCst)
}
