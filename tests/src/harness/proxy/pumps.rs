//! Carries the messages of one connection in both directions.
//!
//! Invariant: the connection to the server stays open while one of its requests is held, and after
//! the last byte it ends in good order: a reset would take bytes back. Deliberately absent: which
//! messages are held (`impositions`).

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::frames::{Frames, Framing, Header};
use super::impositions::{Deed, Direction};
use super::{Cut, Shared};

/// The requests without an answer, in order; Kafka answers in order.
type Unanswered = Mutex<VecDeque<Option<Header>>>;

/// Runs a connection until its end.
pub(super) async fn pump(
    client: TcpStream,
    server: TcpStream,
    shared: &Shared,
    cut: watch::Receiver<Cut>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let unanswered = Unanswered::default();
    let mut both_sides = cut.clone();
    let requests = carry_requests(from_client, to_server, shared, cut.clone(), &unanswered);
    let answers = carry_answers(from_server, to_client, shared, cut, &unanswered);
    tokio::select! {
        _ = async { tokio::join!(requests, answers) } => {}
        // If the sender is gone, the proxy is gone, and the connection ends.
        _ = both_sides.wait_for(|cut| *cut == Cut::BothSides) => {}
    }
}

async fn is_cut(cut: &mut watch::Receiver<Cut>) {
    let _ = cut.wait_for(|cut| *cut != Cut::No).await;
}

async fn carry_requests(
    from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    mut cut: watch::Receiver<Cut>,
    unanswered: &Unanswered,
) {
    let mut frames = Frames::of(from, shared.framing);
    loop {
        let frame = tokio::select! {
            biased;
            () = is_cut(&mut cut) => break,
            frame = frames.next() => frame,
        };
        let Ok(Some(frame)) = frame else { break };
        let header = match shared.framing {
            Framing::Kafka => Header::of(&frame),
            Framing::Raw => None,
        };
        if !passes(shared, Direction::Requests, header.as_ref()).await {
            continue;
        }
        unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(header);
        if to.write_all(&frame).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn carry_answers(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    shared: &Shared,
    mut cut: watch::Receiver<Cut>,
    unanswered: &Unanswered,
) {
    let mut frames = Frames::of(from, shared.framing);
    // `None` once the client's side is cut: then the server's answers are read and dropped.
    let mut to = Some(to);
    loop {
        let frame = tokio::select! {
            biased;
            () = is_cut(&mut cut), if to.is_some() => {
                end(&mut to).await;
                continue;
            }
            frame = frames.next() => frame,
        };
        let Ok(Some(frame)) = frame else { break };
        let header = match shared.framing {
            Framing::Kafka => unanswered
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
                .flatten(),
            Framing::Raw => None,
        };
        let is_there = to.is_some();
        let passed = tokio::select! {
            biased;
            () = is_cut(&mut cut), if is_there => false,
            passes = passes(shared, Direction::Answers, header.as_ref()), if is_there => passes,
            else => false,
        };
        if passed
            && let Some(client) = &mut to
            && write(client, &frame).await.is_err()
        {
            end(&mut to).await;
        }
    }
    end(&mut to).await;
}

async fn write(to: &mut OwnedWriteHalf, frame: &Bytes) -> io::Result<()> {
    to.write_all(frame).await
}

async fn end(to: &mut Option<OwnedWriteHalf>) {
    if let Some(mut to) = to.take() {
        let _ = to.shutdown().await;
    }
}

/// Applies the impositions to a message, and returns whether it passes in the end.
async fn passes(shared: &Shared, direction: Direction, header: Option<&Header>) -> bool {
    let mut impositions = shared.impositions.subscribe();
    let arrival = impositions.borrow().arrival();
    let mut is_delayed = false;
    loop {
        let deed = impositions
            .borrow_and_update()
            .judge(direction, header, arrival);
        match deed {
            None => return true,
            Some(Deed::Lose) => return false,
            Some(Deed::Delay(_)) if is_delayed => return true,
            Some(Deed::Delay(by)) => {
                is_delayed = true;
                tokio::time::sleep(by).await;
            }
            Some(Deed::Hold) => {
                let _held = Held::one_more(&shared.held);
                if impositions.changed().await.is_err() {
                    return false;
                }
            }
        }
    }
}

/// Counts a message as held until this value is dropped.
struct Held<'a>(&'a AtomicUsize);

impl<'a> Held<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
