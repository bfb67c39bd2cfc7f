//! A link as the sending node holds it: commands go out as lines of one long request, answers come
//! back as lines of its response.
//!
//! Nothing is written before the node has said that it takes the link. Both sides say something at
//! least every [`PeersOptions::keep_alive`], so that silence means a dead or frozen node. Invariant:
//! lines stand in the order in which commands were sent; after `Broken` no event comes. Deliberately
//! absent: sending again, and what is unanswered (`engine::seat::Router`).

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

/// The most commands that wait for the connection; above what a sender leaves unanswered.
const COMMANDS_WAITING_MAX: usize = 4_096;
/// About how much is written in one piece.
const CHUNK_SIZE: usize = 64 << 10;

type Events = Arc<dyn Fn(LinkEvent) + Send + Sync>;

/// A link; dropped, its connection is closed.
struct Link {
    commands: mpsc::Sender<CommandForPeer>,
    overflow: Mutex<Option<oneshot::Sender<()>>>,
}

impl PeerLink for Link {
    fn send(&self, command: CommandForPeer) {
        match self.commands.try_send(command) {
            // Where it has ended, that was said.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                // What was dropped cannot be answered, so the link is of no use any more.
                let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(overflow) = overflow.take() {
                    let _ = overflow.send(());
                }
            }
        }
    }
}

/// Where a link leads, and how.
pub(super) struct Target {
    pub(super) identity: Arc<Identity>,
    pub(super) address: String,
    pub(super) path: String,
    pub(super) options: PeersOptions,
}

/// Opens a link, on a task of its own.
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
                // It was dropped: nobody waits for anything.
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
    /// Carries commands and answers until the link ends; why it did.
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
            // The body waits for the answer, so nobody need read it before a refusal.
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
        // Only a body that is gone hears nothing, and then the connection is.
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

/// Ticks whenever something should be said; at once first.
pub(super) fn keep_alive(every: std::time::Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The request's body: the lines of commands, as many in one piece as wait.
struct Outgoing {
    /// Opens when the node takes the link.
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
