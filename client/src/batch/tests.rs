//! The client against doors that break connections, turn lines away and fall silent. The small door
//! here keeps the promises of the real one: it remembers ids, it keeps the order of a stream's
//! lines, and after it has turned a line away, it turns away the later lines of that stream. It
//! misbehaves as each test tells it to.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use super::*;

/// How a door treats one request.
#[derive(Clone, Copy)]
enum Mood {
    /// Answers every line.
    Good,
    /// Answers some lines, accepts some more and breaks the connection.
    BreaksAfter { answered: usize, taken: usize },
    /// Answers this many lines, turns the next one away with the rest of its stream, answers the
    /// others.
    TurnsAwayAt(usize),
    /// Answers this many lines, then sends nothing more.
    SilentAfter(usize),
    /// Answers the whole request with a status.
    Status(u16),
    /// Ends its answer after this many lines, as if it were complete.
    EndsAfter(usize),
}

/// What a door has seen.
#[derive(Default)]
struct Door {
    moods: Vec<Mood>,
    requests: usize,
    /// The numbers of the accepted lines, by stream, each once.
    taken: HashMap<String, Vec<u64>>,
    ids: HashSet<String>,
    unanswered: usize,
    unanswered_max: usize,
}

type Shared = Arc<Mutex<Door>>;

impl Door {
    fn take(&mut self, line: &Value) -> Value {
        let id = line["id"].as_str().unwrap().to_owned();
        let repeated = !self.ids.insert(id);
        if !repeated {
            let number = line["number"].as_u64().unwrap();
            let stream = line["stream"].as_str().unwrap().to_owned();
            self.taken.entry(stream).or_default().push(number);
        }
        match line["command"].as_str().unwrap() {
            "Refuse" => json!({"status": 422, "code": "no"}),
            "Fail" => json!({"status": 500, "code": "internal"}),
            "Nothing" => json!({"status": 200, "events": []}),
            _ => json!({"status": 200, "events": [{}], "repeated": repeated}),
        }
    }
}

/// A request under way: its body, the part not yet split into lines, the lines seen so far.
struct Serving {
    body: BodyDataStream,
    unread: Vec<u8>,
    mood: Mood,
    seen: usize,
    barred: HashSet<String>,
    door: Shared,
}

impl Serving {
    async fn next_line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = self.body.next().await?.ok()?;
            self.unread.extend_from_slice(&chunk);
            let mut door = self.door.lock().unwrap();
            door.unanswered += chunk.iter().filter(|byte| **byte == b'\n').count();
            door.unanswered_max = door.unanswered_max.max(door.unanswered);
        }
    }

    async fn answer(&mut self) -> Option<Result<String, std::io::Error>> {
        match self.mood {
            Mood::BreaksAfter { answered, taken } if self.seen == answered => {
                for _ in 0..taken {
                    let line = self.next_line().await?;
                    self.door.lock().unwrap().take(&line);
                }
                return Some(Err(std::io::Error::other("broken")));
            }
            Mood::SilentAfter(answered) if self.seen == answered => {
                std::future::pending::<()>().await;
            }
            Mood::EndsAfter(answered) if self.seen == answered => return None,
            _ => {}
        }
        let line = self.next_line().await?;
        let stream = line["stream"].as_str().unwrap().to_owned();
        let turns_away = matches!(self.mood, Mood::TurnsAwayAt(at) if at == self.seen);
        self.seen += 1;
        let mut door = self.door.lock().unwrap();
        door.unanswered -= 1;
        let answer = if turns_away || self.barred.contains(&stream) {
            self.barred.insert(stream);
            json!({"status": 503, "code": "overloaded", "retry_after_ms": 1})
        } else {
            door.take(&line)
        };
        Some(Ok(format!("{answer}\n")))
    }
}

async fn batch(State(door): State<Shared>, body: Body) -> Response {
    let mood = {
        let mut door = door.lock().unwrap();
        door.requests += 1;
        door.unanswered = 0;
        if door.moods.is_empty() {
            Mood::Good
        } else {
            door.moods.remove(0)
        }
    };
    if let Mood::Status(status) = mood {
        let problem = json!({"title": "not now", "detail": "come back"}).to_string();
        return (StatusCode::from_u16(status).unwrap(), problem).into_response();
    }
    let serving = Serving {
        body: body.into_data_stream(),
        unread: Vec::new(),
        mood,
        seen: 0,
        barred: HashSet::new(),
        door,
    };
    let answers = stream::unfold(serving, |mut serving| async {
        let answer = serving.answer().await?;
        Some((answer, serving))
    });
    Body::from_stream(answers).into_response()
}

async fn start(moods: &[Mood]) -> (String, Shared) {
    let door = Shared::default();
    door.lock().unwrap().moods = moods.to_vec();
    let app = Router::new()
        .route("/v1/commands", post(batch))
        .with_state(door.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, door)
}

/// Lines of seven streams, in turn.
fn lines(count: u64) -> Vec<CommandLine> {
    let line = |number: u64| CommandLine {
        command: "Do".into(),
        json: json!({"id": number.to_string(), "stream": format!("s-{}", number % 7),
            "command": "Do", "number": number})
        .to_string(),
        ..CommandLine::default()
    };
    (0..count).map(line).collect()
}

/// What an observer was told.
#[derive(Default)]
struct Told {
    done: Vec<(String, Outcome)>,
    waits: usize,
}

impl Observer for Told {
    fn done(&mut self, line: &CommandLine, said: Said) {
        self.done.push((line.json.clone(), said.outcome));
    }

    fn waiting(&mut self, _: usize, _: &str, _: Duration) {
        self.waits += 1;
    }
}

async fn send(
    url: &str,
    options: SendOptions,
    lines: Vec<CommandLine>,
) -> (Told, Option<SendError>) {
    let mut told = Told::default();
    let client = BatchClient::new(SendOptions {
        url: url.to_owned(),
        ..options
    });
    let source = stream::iter(lines.into_iter().map(Ok));
    let sent = client.unwrap().send(source, &mut told).await;
    (told, sent.err())
}

fn options(in_flight_max: usize) -> SendOptions {
    SendOptions {
        in_flight_max,
        retry_for: Duration::from_millis(1_500),
        ..SendOptions::to("")
    }
}

#[tokio::test]
async fn every_line_is_decided_once_and_in_order_whatever_the_door_does() {
    let (broken, silent) = (
        |answered, taken| Mood::BreaksAfter { answered, taken },
        Mood::SilentAfter(3),
    );
    for (moods, in_flight_max) in [
        (vec![], 2_000),
        (vec![], 1),
        (
            vec![broken(0, 0), broken(5, 0), broken(0, 30), broken(100, 17)],
            50,
        ),
        (
            vec![
                Mood::TurnsAwayAt(0),
                Mood::TurnsAwayAt(10),
                Mood::TurnsAwayAt(300),
            ],
            64,
        ),
        (
            vec![Mood::TurnsAwayAt(4), broken(2, 9), Mood::EndsAfter(11)],
            2_000,
        ),
        (
            vec![
                Mood::Status(503),
                Mood::Status(429),
                Mood::Status(500),
                broken(1, 1),
            ],
            20,
        ),
        (vec![silent], 10),
    ] {
        let count = moods.len() + 1;
        let (url, door) = start(&moods).await;
        let (told, error) = send(&url, options(in_flight_max), lines(1_000)).await;
        assert!(error.is_none(), "{error:?}");
        let done: HashSet<_> = told.done.iter().map(|(json, _)| json).collect();
        assert_eq!((told.done.len(), done.len()), (1_000, 1_000));
        assert!(
            told.done
                .iter()
                .all(|(_, outcome)| *outcome == Outcome::Accepted)
        );
        let door = door.lock().unwrap();
        assert_eq!(door.requests, count);
        assert!(
            door.unanswered_max <= in_flight_max,
            "{}",
            door.unanswered_max
        );
        for (stream, numbers) in &door.taken {
            assert!(numbers.is_sorted(), "{stream}: {numbers:?}");
        }
        assert_eq!(door.taken.values().map(Vec::len).sum::<usize>(), 1_000);
    }
}

#[tokio::test]
async fn each_outcome_is_told_as_what_it_is() {
    let (url, _) = start(&[]).await;
    let commands = ["Do", "Nothing", "Refuse", "Fail"];
    let lines = commands
        .iter()
        .enumerate()
        .map(|(number, command)| CommandLine {
            command: (*command).into(),
            json: json!({"id": number.to_string(), "stream": "s-1", "command": command,
            "number": number})
            .to_string(),
            ..CommandLine::default()
        });
    let (told, error) = send(&url, options(10), lines.collect()).await;
    assert!(error.is_none(), "{error:?}");
    let outcomes: Vec<_> = told.done.into_iter().map(|(_, outcome)| outcome).collect();
    let (refused, failed) = ("no".to_owned(), "internal".to_owned());
    assert_eq!(
        outcomes,
        [
            Outcome::Accepted,
            Outcome::NothingToDo,
            Outcome::Refused { code: refused },
            Outcome::Failed { code: failed },
        ]
    );
}

#[tokio::test]
async fn a_client_without_progress_gives_up_and_says_that_it_can_be_repeated() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let short = SendOptions {
        retry_for: Duration::from_millis(300),
        ..options(10)
    };
    let (told, error) = send(&url, short.clone(), lines(100)).await;
    let error = error.unwrap();
    assert!(error.is_repeatable(), "{error}");
    assert!(told.waits > 0 && told.done.is_empty());

    let (url, _) = start(&[Mood::TurnsAwayAt(0); 100]).await;
    let (_, error) = send(&url, short, lines(3)).await;
    let error = error.unwrap();
    assert!(error.to_string().contains("overloaded"), "{error}");
}

#[tokio::test]
async fn a_final_failure_is_not_tried_again() {
    for status in [400, 404, 413, 415] {
        let (url, door) = start(&[Mood::Status(status)]).await;
        let (_, error) = send(&url, options(10), lines(3)).await;
        let error = error.unwrap();
        assert!(
            !error.is_repeatable() && error.to_string().contains("come back"),
            "{error}"
        );
        assert_eq!(door.lock().unwrap().requests, 1);
    }
    let error = BatchClient::new(SendOptions::to("no address"))
        .err()
        .unwrap();
    assert!(matches!(error, SendError::Request { .. }));
}

#[tokio::test]
async fn lines_that_come_slowly_are_answered_as_they_come() {
    let (url, _) = start(&[]).await;
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let (answered, mut answers) = tokio::sync::mpsc::unbounded_channel();
    struct Forward(tokio::sync::mpsc::UnboundedSender<()>);
    impl Observer for Forward {
        fn done(&mut self, _: &CommandLine, _: Said) {
            self.0.send(()).unwrap();
        }
        fn waiting(&mut self, _: usize, _: &str, _: Duration) {}
    }
    let client = BatchClient::new(SendOptions { url, ..options(10) }).unwrap();
    let source = stream::poll_fn(move |context| receiver.poll_recv(context));
    let sending = tokio::spawn(async move { client.send(source, &mut Forward(answered)).await });
    for line in lines(3) {
        sender.send(Ok(line)).await.unwrap();
        // The next line is only given once this one is answered.
        answers.recv().await.unwrap();
    }
    drop(sender);
    sending.await.unwrap().unwrap();
}
