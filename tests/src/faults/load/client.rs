//! One client: sends commands, and sends them again to other nodes until they are answered.
//!
//! Deliberately absent: the choice of commands (`streams`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Shared;
use super::streams::Asked;
use crate::faults::history::{Accepted, Coded, Entry, Invoke, Refused, What};

/// The greatest number of lines in a batch.
const LINES_MAX: usize = 40;
/// The timeout that a client gives the door: at least and at most.
const TIMEOUT_MS: std::ops::Range<u64> = 1_000..6_000;
/// How much longer than that timeout the client waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before a command is sent again: at least and at most.
const PAUSE_MS: std::ops::Range<u64> = 10..150;

/// The result of one attempt.
#[derive(Debug)]
pub(super) enum Became {
    /// The command has a final answer.
    Done,
    /// The command must be sent again; with the code or error of this attempt.
    Open(String),
}

pub(super) struct Client {
    name: String,
    shared: Arc<Shared>,
    random: StdRng,
    http: reqwest::Client,
}

impl Client {
    pub(super) fn new(number: usize, shared: Arc<Shared>, random: StdRng) -> Self {
        let http = reqwest::Client::builder()
            // Ignore proxy settings of the environment, and notice a dead node.
            .no_proxy()
            .connect_timeout(PATIENCE)
            .build()
            .expect("a client with these settings can be made");
        Self {
            name: format!("c{number}"),
            shared,
            random,
            http,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let count = match self.random.random_range(0..4) {
                0..3 => 1,
                _ => self.random.random_range(2..=LINES_MAX),
            };
            let pace = &self.shared.pace;
            if !pace.admit(count as u64, &self.shared.is_stopping).await {
                return;
            }
            let asked: Vec<Asked> = (0..count)
                .map(|_| self.shared.streams.ask(&mut self.random))
                .collect();
            let counts = &self.shared.counts;
            counts.invoked.fetch_add(count as u64, Ordering::SeqCst);
            self.until_done(asked, count > 1).await;
        }
    }

    /// Sends commands until each has a final answer; retries keep the first order.
    async fn until_done(&mut self, mut open: Vec<Asked>, as_batch: bool) {
        loop {
            let node = self.random.random_range(0..self.shared.options.nodes.len());
            let became = if as_batch {
                self.send_batch(node, &open).await
            } else {
                vec![self.send_one(node, &open[0]).await]
            };
            let mut became = became.into_iter();
            open.retain(|_| matches!(became.next(), Some(Became::Open(_)) | None));
            if open.is_empty() {
                return;
            }
            let pause = self.random.random_range(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    pub(super) async fn send_one(&mut self, node: usize, asked: &Asked) -> Became {
        let timeout_ms = self.random.random_range(TIMEOUT_MS);
        let url = format!(
            "{}/v1/streams/{}/{}",
            self.shared.options.nodes[node].url, asked.stream, asked.command
        );
        let mut request = self
            .http
            .post(url)
            .timeout(Duration::from_millis(timeout_ms) + PATIENCE)
            .header("annals-timeout-ms", timeout_ms)
            .header("idempotency-key", format!("\"{}\"", asked.id))
            .json(&asked.data);
        if let Some(version) = asked.expected_version {
            request = match version {
                0 => request.header("if-none-match", "*"),
                _ => request.header("if-match", format!("\"{version}\"")),
            };
        }
        self.invoked(asked, None);
        let answered = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let body: Value = response.json().await?;
            Ok::<_, reqwest::Error>((status, body))
        };
        let what = match answered.await {
            Ok((status, body)) => self.read(node, status, &body),
            Err(error) => unanswered(&error),
        };
        self.told(asked, None, what)
    }

    async fn send_batch(&mut self, node: usize, open: &[Asked]) -> Vec<Became> {
        let timeout_ms = self.random.random_range(TIMEOUT_MS);
        let batch = Uuid::now_v7().simple().to_string();
        let mut body = String::new();
        for (asked, line) in open.iter().zip(1..) {
            self.invoked(asked, Some((&batch, line)));
            body += &line_of(asked);
            body.push('\n');
        }
        let url = format!("{}/v1/commands", self.shared.options.nodes[node].url);
        let request = self
            .http
            .post(url)
            .timeout(Duration::from_millis(timeout_ms) + PATIENCE)
            .header("annals-timeout-ms", timeout_ms)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body);
        let (answers, rest) = self.read_batch(node, request, open.len()).await;
        let mut answers = answers.into_iter();
        let became = open.iter().zip(1..).map(|(asked, line)| {
            let what = answers
                .next()
                .unwrap_or_else(|| What::Unknown(coded(rest.clone())));
            self.told(asked, Some((&batch, line)), what)
        });
        became.collect()
    }

    /// The answers that arrived, and the reason why the others did not.
    async fn read_batch(
        &self,
        node: usize,
        request: reqwest::RequestBuilder,
        lines: usize,
    ) -> (Vec<What>, String) {
        let mut answers = Vec::new();
        let mut response = match request.send().await {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => {
                let status = response.status().as_u16();
                let body = response.json().await.unwrap_or_default();
                // An answer to the whole request counts for each line.
                let what = self.read(node, status, &body);
                return (vec![what; lines], String::new());
            }
            Err(error) => return (answers, code_of(&error)),
        };
        let mut unread = Vec::new();
        let why = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => unread.extend_from_slice(&chunk),
                Ok(None) => break "answer_ended".to_owned(),
                Err(error) => break code_of(&error),
            }
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let body: Value = serde_json::from_slice(&line).unwrap_or_default();
                let status = body["status"].as_u64().unwrap_or_default();
                let status = u16::try_from(status).unwrap_or_default();
                answers.push(self.read(node, status, &body));
            }
        };
        (answers, why)
    }

    fn invoked(&self, asked: &Asked, line: Option<(&str, u64)>) {
        self.write(
            asked,
            line,
            What::Invoke(Invoke {
                command: asked.command.to_owned(),
                data: asked.data.clone(),
                expected_version: asked.expected_version,
            }),
        );
    }

    fn told(&self, asked: &Asked, line: Option<(&str, u64)>, what: What) -> Became {
        let counts = &self.shared.counts;
        if let What::Ok(Accepted { version, .. })
        | What::Refused(Refused {
            version: Some(version),
            ..
        }) = &what
        {
            self.shared.streams.saw(asked, *version);
        }
        let (count, became) = match &what {
            What::Ok(_) => (&counts.accepted, Became::Done),
            What::Refused(_) => (&counts.refused, Became::Done),
            What::Failed(_) => (&counts.failed, Became::Done),
            What::TurnedAway(said) => (&counts.turned_away, Became::Open(said.code.clone())),
            What::Unknown(said) => (&counts.unknown, Became::Open(said.code.clone())),
            What::Invoke(_) => unreachable!("no answer is a question"),
        };
        self.write(asked, line, what);
        // Count after writing: a reader that sees no open command then finds every answer in the
        // history.
        count.fetch_add(1, Ordering::SeqCst);
        became
    }

    fn write(&self, asked: &Asked, line: Option<(&str, u64)>, what: What) {
        let history = &self.shared.history;
        history.write(&Entry {
            at_ms: history.now_ms(),
            client: self.name.clone(),
            tenant: "main".to_owned(),
            stream: asked.stream.clone(),
            id: asked.id.clone(),
            batch: line.map(|(batch, _)| batch.to_owned()),
            line: line.map(|(_, number)| number),
            what,
        });
    }

    /// The meaning of an answer's body.
    fn read(&self, node: usize, status: u16, body: &Value) -> What {
        let node = Some(self.shared.options.nodes[node].name.clone());
        let repeated = body["repeated"].as_bool().unwrap_or_default();
        let position = body["position"].as_str().map(str::to_owned);
        let version = body["version"].as_u64();
        let code = match body["code"].as_str() {
            Some(code) => code.to_owned(),
            None => format!("http_{status}"),
        };
        match (status, version) {
            (200, Some(version)) => What::Ok(Accepted {
                version,
                events: serde_json::from_value(body["events"].clone())
                    .expect("the door writes events"),
                position,
                repeated,
                node,
            }),
            (412 | 422, Some(_)) => What::Refused(Refused {
                code,
                version,
                facts: Map::new(),
                position,
                repeated,
                node,
            }),
            (429 | 503, _) if code != "outcome_unknown" => What::TurnedAway(coded(code)),
            (400..500, _) | (500, _) => What::Failed(coded(code)),
            // An unknown outcome, or an answer that is not from the door: an incomplete one, or a
            // gateway's.
            _ => What::Unknown(coded(code)),
        }
    }
}

fn coded(code: String) -> Coded {
    Coded { code }
}

fn line_of(asked: &Asked) -> String {
    let mut line = json!({
        "stream": asked.stream,
        "command": asked.command,
        "id": asked.id,
        "data": asked.data,
    });
    if let Some(version) = asked.expected_version {
        line["expected_version"] = version.into();
    }
    line.to_string()
}

fn unanswered(error: &reqwest::Error) -> What {
    What::Unknown(coded(code_of(error)))
}

/// The error that a client got instead of an answer, as a code.
fn code_of(error: &reqwest::Error) -> String {
    let code = if error.is_connect() {
        "not_connected"
    } else if error.is_timeout() {
        "no_answer"
    } else {
        "connection_lost"
    };
    code.to_owned()
}
