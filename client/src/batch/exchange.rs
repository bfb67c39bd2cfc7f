//! One request to the batch door: its body is written while its answers are read.
//!
//! Invariant: a lost connection loses no line; lines that it leaves open stay in the backlog. After
//! a line was turned away, no further line is written, because the door also turns away the later
//! lines of its stream. Deliberately absent: when to try again.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use kernel::explained;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Body, Response};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answer::{Answer, is_worth_another_try};
use super::backlog::{Backlog, Effect};
use super::line::CommandLine;
use super::{Observer, SendError};

/// About how many bytes are written in one piece.
const CHUNK_SIZE: usize = 64 * 1024;
/// How many pieces may wait for the connection.
const CHUNKS_WAITING_MAX: usize = 2;
/// The longest answer line that is read, in bytes.
const ANSWER_SIZE_MAX: usize = 4 * 1024 * 1024;
/// How much of an error page is shown.
const DETAIL_CHARACTERS_MAX: usize = 300;

/// How an exchange ended.
pub(super) enum End {
    /// Every line of the source is done.
    Finished,
    /// Some lines are not done.
    Again(Again),
}

/// Why and when to try again.
pub(super) struct Again {
    /// Why not all lines are done.
    pub(super) cause: String,
    /// How long the server asked to wait.
    pub(super) after: Option<Duration>,
}

impl Again {
    fn because(cause: impl Into<String>) -> End {
        End::Again(Self {
            cause: cause.into(),
            after: None,
        })
    }
}

/// New lines, and whether there are any left.
pub(super) struct Source<S> {
    lines: S,
    is_exhausted: bool,
}

impl<S: Stream<Item = io::Result<CommandLine>> + Unpin> Source<S> {
    pub(super) fn new(lines: S) -> Self {
        Self {
            lines,
            is_exhausted: false,
        }
    }

    async fn next(&mut self) -> io::Result<Option<CommandLine>> {
        let line = self.lines.next().await.transpose()?;
        self.is_exhausted = line.is_none();
        Ok(line)
    }
}

/// What comes from the server.
enum Inbound {
    Head(BoxFuture<'static, reqwest::Result<Response>>),
    Body(BoxStream<'static, reqwest::Result<Bytes>>),
}

enum Arrived {
    Head(Response),
    Chunk(Bytes),
    End,
    Broken(reqwest::Error),
}

/// What happens next.
enum Event {
    Arrived(Arrived),
    Room { is_read: bool },
    New(Option<CommandLine>),
    Silence,
}

impl Inbound {
    async fn next(&mut self) -> Arrived {
        match self {
            Self::Head(response) => match response.await {
                Ok(response) => Arrived::Head(response),
                Err(error) => Arrived::Broken(error),
            },
            Self::Body(chunks) => match chunks.next().await {
                Some(Ok(chunk)) => Arrived::Chunk(chunk),
                Some(Err(error)) => Arrived::Broken(error),
                None => Arrived::End,
            },
        }
    }
}

/// One request under way.
pub(super) struct Exchange<'a> {
    url: &'a str,
    silence_max: Duration,
    outbound: Option<mpsc::Sender<Vec<u8>>>,
    unsent: Vec<u8>,
    inbound: Inbound,
    unread: Vec<u8>,
    turned_away: Option<Again>,
}

impl<'a> Exchange<'a> {
    pub(super) fn open(http: &reqwest::Client, url: &'a str, silence_max: Duration) -> Self {
        let (outbound, chunks) = mpsc::channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
        let body = stream::unfold(chunks, |mut chunks| async {
            let chunk = chunks.recv().await?;
            Some((Ok::<_, Infallible>(chunk), chunks))
        });
        let request = http
            .post(url)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(Body::wrap_stream(body));
        Self {
            url,
            silence_max,
            outbound: Some(outbound),
            unsent: Vec::new(),
            inbound: Inbound::Head(request.send().boxed()),
            unread: Vec::new(),
            turned_away: None,
        }
    }

    /// Sends lines and takes answers until all is done or the connection is no longer usable.
    pub(super) async fn run<S>(
        mut self,
        source: &mut Source<S>,
        backlog: &mut Backlog,
        observer: &mut impl Observer,
    ) -> Result<End, SendError>
    where
        S: Stream<Item = io::Result<CommandLine>> + Unpin,
    {
        let mut last_heard = Instant::now();
        loop {
            self.write_again(backlog);
            let is_all_written =
                source.is_exhausted && !backlog.has_again() && self.unsent.is_empty();
            if is_all_written || self.turned_away.is_some() {
                self.outbound = None;
            }
            if is_all_written && backlog.open_count() == 0 {
                return Ok(End::Finished);
            }
            let takes_new = self.outbound.is_some()
                && !source.is_exhausted
                && self.unsent.len() < CHUNK_SIZE
                && backlog.takes_new();
            let event = tokio::select! {
                arrived = self.inbound.next() => Event::Arrived(arrived),
                is_read = has_room(self.outbound.as_ref()), if !self.unsent.is_empty() => {
                    Event::Room { is_read }
                }
                line = source.next(), if takes_new => Event::New(line?),
                () = sleep_until(last_heard + self.silence_max), if backlog.has_in_flight() => {
                    Event::Silence
                }
            };
            match event {
                Event::Arrived(arrived) => {
                    last_heard = Instant::now();
                    if let Some(end) = self.take(arrived, backlog, observer).await? {
                        return Ok(end);
                    }
                }
                Event::Room { is_read } => self.write_out(is_read),
                Event::New(line) => {
                    if !backlog.has_in_flight() {
                        last_heard = Instant::now();
                    }
                    if let Some(line) = line {
                        self.write_new(line, source, backlog)?;
                    }
                }
                Event::Silence => {
                    let seconds = self.silence_max.as_secs_f64();
                    let cause = format!("the server sent nothing for {seconds:.1} s");
                    return Ok(Again::because(cause));
                }
            }
        }
    }

    /// Passes the written lines to the connection, which has room for them.
    fn write_out(&mut self, is_read: bool) {
        let Some(outbound) = &self.outbound else {
            return;
        };
        // If the server no longer reads the body, its answer will say why.
        if !is_read || outbound.try_send(std::mem::take(&mut self.unsent)).is_err() {
            self.outbound = None;
        }
    }

    /// Writes lines that are sent again, up to a chunk.
    fn write_again(&mut self, backlog: &mut Backlog) {
        if self.outbound.is_none() {
            return;
        }
        while self.unsent.len() < CHUNK_SIZE
            && let Some(json) = backlog.send_again()
        {
            self.unsent.extend_from_slice(json.as_bytes());
            self.unsent.push(b'\n');
        }
    }

    /// Writes a new line, and the next ones that are available already, up to a chunk.
    fn write_new<S>(
        &mut self,
        first: CommandLine,
        source: &mut Source<S>,
        backlog: &mut Backlog,
    ) -> io::Result<()>
    where
        S: Stream<Item = io::Result<CommandLine>> + Unpin,
    {
        let mut next = Some(first);
        while let Some(line) = next {
            self.unsent.extend_from_slice(line.json.as_bytes());
            self.unsent.push(b'\n');
            backlog.send_new(line);
            next = if self.unsent.len() < CHUNK_SIZE && backlog.takes_new() {
                source.next().now_or_never().transpose()?.flatten()
            } else {
                None
            };
        }
        Ok(())
    }

    async fn take(
        &mut self,
        arrived: Arrived,
        backlog: &mut Backlog,
        observer: &mut impl Observer,
    ) -> Result<Option<End>, SendError> {
        match arrived {
            Arrived::Head(response) if response.status().is_success() => {
                self.inbound = Inbound::Body(response.bytes_stream().boxed());
                Ok(None)
            }
            Arrived::Head(response) => self.turned_away_whole(response).await.map(Some),
            Arrived::Chunk(chunk) => {
                self.read(&chunk, backlog, observer)?;
                Ok(None)
            }
            Arrived::Broken(error) => Ok(Some(Again::because(explained(&error)))),
            Arrived::End => Ok(Some(match self.turned_away.take() {
                Some(again) => End::Again(again),
                None => Again::because("the server ended its answer too early"),
            })),
        }
    }

    /// Takes every complete line that has arrived.
    fn read(
        &mut self,
        chunk: &[u8],
        backlog: &mut Backlog,
        observer: &mut impl Observer,
    ) -> Result<(), SendError> {
        self.unread.extend_from_slice(chunk);
        let mut begin = 0;
        while let Some(length) = self.unread[begin..].iter().position(|byte| *byte == b'\n') {
            let line = &self.unread[begin..begin + length];
            begin += length + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let answer = Answer::read(line)
                .map_err(|error| self.not_a_door(format!("a line is not an answer ({error})")))?;
            match backlog.answered(answer, observer) {
                Effect::Done => {}
                Effect::TurnedAway(code, after) => self.remember(&code, after),
                Effect::Unasked => {
                    return Err(self.not_a_door("there are more answers than lines".to_owned()));
                }
            }
        }
        self.unread.drain(..begin);
        if self.unread.len() > ANSWER_SIZE_MAX {
            return Err(self.not_a_door("an answer line has no end".to_owned()));
        }
        Ok(())
    }

    fn remember(&mut self, code: &str, after: Option<Duration>) {
        let again = self.turned_away.get_or_insert_with(|| Again {
            cause: format!("the server answered {code}"),
            after: None,
        });
        again.after = again.after.max(after);
    }

    fn not_a_door(&self, detail: String) -> SendError {
        SendError::NotADoor {
            url: self.url.to_owned(),
            detail,
        }
    }

    /// Handles an answer to the request as a whole.
    async fn turned_away_whole(&mut self, response: Response) -> Result<End, SendError> {
        let status = response.status().as_u16();
        let after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let text = response.text().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let member = |name: &str| problem[name].as_str().map(str::to_owned);
        let detail = member("detail").or_else(|| member("title")).unwrap_or(text);
        let detail: String = detail.chars().take(DETAIL_CHARACTERS_MAX).collect();
        if is_worth_another_try(status) || status >= 500 {
            let cause = format!("the server answered {status}: {detail}");
            return Ok(End::Again(Again { cause, after }));
        }
        Err(SendError::Refused {
            url: self.url.to_owned(),
            status,
            detail,
        })
    }
}

/// Waits for room in the request's body. Returns whether the body is still read; waits for ever if
/// the body has ended. Only this task writes, so the room stays.
async fn has_room(outbound: Option<&mpsc::Sender<Vec<u8>>>) -> bool {
    match outbound {
        Some(outbound) => outbound.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}
