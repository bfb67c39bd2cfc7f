//! A link on the sending node: commands are sent as lines of one long request, answers arrive as
//! lines of its response.
//!
//! Nothing is written before the other node has accepted the link. Both sides send something at
//! least every [`PeersOptions::keep_alive`], so that silence means a dead or frozen node.
//! Invariant: lines are in the order in which commands were sent; after `Broken` no event comes.
//! Deliberately absent: sending again, and the list of unanswered commands
//! (`engine::seat::Router`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use engine::command::SubmitError;
use engine::peers::{CommandForPeer, LinkAnswer, LinkEvent, PeerLink};
use futures::FutureExt as _;
use http_body_util::BodyDataStream;
use hyper::Request;
use hyper::body::{Body, Frame};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::auth::{Identity, PEER, authority_of};
use super::client::PeersOptions;
use super::connection::{Open, problem};
use super::heard::Heard;
use super::wire::{ANSWER_SIZE_MAX, COMMAND_SIZE_MAX, read_answer, write_command};
use crate::batch::MEDIA_TYPE;
use crate::lines::Lines;

/// The most commands that wait for the connection; more than a sender leaves unanswered.
const COMMANDS_WAITING_MAX: usize = 4_096;
/// The target size of one chunk, in bytes.
const CHUNK_SIZE: usize = 64 << 10;

type Events = Arc<dyn Fn(LinkEvent) + Send + Sync>;

/// A link. Dropping it closes its connection.
struct Link {
    commands: mpsc::Sender<CommandForPeer>,
    overflow: Mutex<Option<oneshot::Sender<()>>>,
}

impl PeerLink for Link {
    fn send(&self, command: CommandForPeer) {
        match self.commands.try_send(command) {
            // If the link has ended, `Broken` has already said so.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                // The dropped command cannot be answered, so the link must end.
                let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(overflow) = overflow.take() {
                    let _ = overflow.send(());
                }
            }
        }
    }
}

/// The node and path that a link leads to, and how it is opened.
pub(super) struct Target {
    pub(super) identity: Arc<Identity>,
    pub(super) address: String,
    pub(super) path: String,
    pub(super) options: PeersOptions,
}

/// Opens a link. It runs on its own task.
pub(super) fn open(
    runtime: &Handle,
    target: Target,
    events: Box<dyn Fn(LinkEvent) + Send + Sync>,
) -> Box<dyn PeerLink> {
    let (commands, waiting) = mpsc::channel(COMMANDS_WAITING_MAX);
    let (overflow, ended) = oneshot::channel();
    let events: Events = events.into();
    runtime.spawn(async move {
        let why = tokio::select! {
            biased;
            ended = ended => match ended {
                Ok(()) => "more commands were sent than a link takes".to_owned(),
                // The link was dropped: no caller waits for its events.
                Err(_) => return,
            },
            why = target.run(waiting, &events) => why,
        };
        events(LinkEvent::Broken(why));
    });
    Box::new(Link {
        commands,
        overflow: Mutex::new(Some(overflow)),
    })
}

impl Target {
    /// Carries commands and answers until the link ends; returns why it ended.
    async fn run(self, waiting: mpsc::Receiver<CommandForPeer>, events: &Events) -> String {
        match self.exchange(waiting, events).await {
            Ok(()) => "the node ended the link".to_owned(),
            Err(why) => why,
        }
    }

    async fn exchange(
        self,
        waiting: mpsc::Receiver<CommandForPeer>,
        events: &Events,
    ) -> Result<(), String> {
        let Self {
            identity,
            address,
            path,
            options,
        } = self;
        let authority = authority_of(&address).map_err(|error| error.to_string())?;
        let connection = Open::connect(&authority, options.connect_wait).await?;
        let (accepted, gate) = oneshot::channel();
        let request = Request::post(&path)
            .header(header::HOST, &authority)
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            // The body waits for the response's status, so the other node can refuse without
            // reading it.
            .header(header::EXPECT, "100-continue")
            .header(PEER, identity.header(&Method::POST, &path, &authority))
            .body(Outgoing {
                gate: Some(gate),
                commands: waiting,
                keep_alive: keep_alive(options.keep_alive),
                events: Arc::clone(events),
            })
            .map_err(|error| error.to_string())?;
        let (response, mut driven) = connection.ask(request, options.silence_max).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let said = driven.read(response.into_body(), options.silence_max).await;
            return Err(problem(status, &said.unwrap_or_default()));
        }
        // This fails only if the body was dropped, and then the connection has ended.
        let _ = accepted.send(());
        let chunks = Heard::new(
            BodyDataStream::new(response.into_body()),
            options.silence_max,
        );
        let mut lines = Lines::new(chunks, ANSWER_SIZE_MAX);
        while let Some(line) = driven.drive(lines.next()).await {
            let answer = line.text.as_deref().ok().and_then(read_answer);
            let (sequence, answer) = answer.ok_or("a line of the node is no answer")?;
            events(LinkEvent::Answer(sequence, answer));
        }
        lines
            .source()
            .ended()
            .map_or(Ok(()), |why| Err(why.to_owned()))
    }
}

/// Ticks at the interval of the signs of life; the first tick comes at once.
pub(super) fn keep_alive(every: std::time::Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The request's body: the lines of commands. One chunk holds all lines that wait, up to
/// [`CHUNK_SIZE`].
struct Outgoing {
    /// Opens when the other node accepts the link.
    gate: Option<oneshot::Receiver<()>>,
    commands: mpsc::Receiver<CommandForPeer>,
    keep_alive: Interval,
    events: Events,
}

impl Outgoing {
    fn write(&self, text: &mut Vec<u8>, command: &CommandForPeer) {
        if let Err(size) = write_command(text, command) {
            let max = COMMAND_SIZE_MAX;
            let answer = LinkAnswer::Answered(Err(SubmitError::TooLarge { size, max }));
            (self.events)(LinkEvent::Answer(command.sequence, answer));
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(gate) = &mut self.gate {
            if ready!(gate.poll_unpin(context)).is_err() {
                return Poll::Ready(None);
            }
            self.gate = None;
        }
        let mut text = Vec::new();
        while text.len() < CHUNK_SIZE {
            match self.commands.poll_recv(context) {
                Poll::Ready(Some(command)) => self.write(&mut text, &command),
                Poll::Ready(None) if text.is_empty() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if text.is_empty() {
            ready!(self.keep_alive.poll_tick(context));
            text.push(b'\n');
        }
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}
