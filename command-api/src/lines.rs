//! Cuts the stream of a body into lines.
//!
//! Invariant: at most one line's limit is held in memory. A longer line is dropped as it arrives
//! and reported once; the next line is read normally. If a line comes too slowly, or if there is no
//! memory for it, it is reported and no later line is read: a later line may depend on it.
//! Deliberately absent: what a line means.

use axum::Error;
use bytes::{Buf, Bytes, BytesMut};
use door::memory::ALLOWANCE_BYTES;
use door::{Charge, Held, Problem, TooSlow};
use futures::{Stream, StreamExt};

/// A line of a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// Its number, from 1; blank lines count.
    pub(crate) number: u64,
    /// Its text, or why it was not read.
    pub(crate) text: Result<Bytes, Problem>,
}

/// The lines of a body, blank ones left out.
pub(crate) struct Lines<S> {
    chunks: S,
    /// Bytes that were received and not yet cut into lines.
    rest: Bytes,
    /// The beginning of a line whose end has not arrived.
    begun: BytesMut,
    number: u64,
    length_max: usize,
    state: State,
    /// The request whose charge pays for an unfinished line, if any.
    charge: Option<Charge>,
    /// Memory for a whole line, while an unfinished line needs it.
    held: Option<Held>,
}

enum State {
    InLine,
    /// The line is too long, and its end has not arrived.
    Dropping,
    /// There is no memory for the line.
    NoRoom(Problem),
    Ended,
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> Lines<S> {
    pub(crate) fn new(chunks: S, length_max: usize) -> Self {
        Self {
            chunks,
            rest: Bytes::new(),
            begun: BytesMut::new(),
            number: 0,
            length_max,
            state: State::InLine,
            charge: None,
            held: None,
        }
    }

    /// Takes the memory of unfinished lines from `charge`.
    pub(crate) fn charged(mut self, charge: Charge) -> Self {
        self.charge = Some(charge);
        self
    }

    pub(crate) fn source(&self) -> &S {
        &self.chunks
    }

    /// The next line; none at the end of the body or where the body breaks off: an incomplete last
    /// line is dropped.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        while !matches!(self.state, State::Ended) {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.rest.split_to(end);
                self.rest.advance(1);
                if let Some(line) = self.finish(tail).await {
                    return Some(line);
                }
                continue;
            }
            let tail = std::mem::take(&mut self.rest);
            self.keep(&tail).await;
            if let State::NoRoom(problem) = &self.state {
                let problem = problem.clone();
                return Some(self.end(problem));
            }
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(error)) if self.has_begun() && TooSlow::is_cause_of(&error) => {
                    return Some(self.end(door::extract::broken_off(&error)));
                }
                Some(Err(_)) => self.state = State::Ended,
                None => {
                    let last = self.finish(Bytes::new()).await;
                    self.state = State::Ended;
                    return last;
                }
            }
        }
        None
    }

    fn has_begun(&self) -> bool {
        !self.begun.is_empty() || matches!(self.state, State::Dropping)
    }

    /// The last line, which was not read to its end.
    fn end(&mut self, why: Problem) -> Line {
        self.begun = BytesMut::new();
        self.held = None;
        self.state = State::Ended;
        Line {
            number: self.number + 1,
            text: Err(why),
        }
    }

    async fn keep(&mut self, part: &[u8]) {
        if !matches!(self.state, State::InLine) {
            return;
        }
        let length = self.begun.len() + part.len();
        if length > self.length_max {
            self.state = State::Dropping;
        } else if length > ALLOWANCE_BYTES
            && self.held.is_none()
            && let Some(charge) = &self.charge
        {
            // For the whole line at once. Twice its limit, since a growing buffer may be copied
            // once.
            match charge.take(2 * self.length_max).await {
                Ok(held) => self.held = Some(held),
                Err(problem) => self.state = State::NoRoom(problem),
            }
        }
        match self.state {
            State::InLine => self.begun.extend_from_slice(part),
            _ => (self.begun, self.held) = (BytesMut::new(), None),
        }
    }

    /// The line that ends with `tail`, unless it is blank.
    async fn finish(&mut self, tail: Bytes) -> Option<Line> {
        let text = if matches!(self.state, State::InLine) && self.begun.is_empty() {
            // The whole line is in one chunk: nothing is copied.
            tail
        } else {
            self.keep(&tail).await;
            self.begun.split().freeze()
        };
        self.held = None;
        self.number += 1;
        let number = self.number;
        let is_dropped = match std::mem::replace(&mut self.state, State::InLine) {
            State::NoRoom(problem) => {
                self.number -= 1;
                return Some(self.end(problem));
            }
            State::Dropping => true,
            State::InLine | State::Ended => text.len() > self.length_max,
        };
        if is_dropped {
            let text = Err(door::extract::too_large());
            return Some(Line { number, text });
        }
        let blank = text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        (!blank).then_some(Line {
            number,
            text: Ok(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// The lines of a text that arrives in chunks of `size` bytes; a line that is too long is `!`.
    async fn cut(text: &str, size: usize) -> Vec<(u64, String)> {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(size)
            .map(Bytes::copy_from_slice)
            .collect();
        let mut lines = Lines::new(stream::iter(chunks.into_iter().map(Ok)), 8);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            let text = line.text.map_or("!".into(), |text| text.to_vec());
            found.push((line.number, String::from_utf8(text).unwrap()));
        }
        found
    }

    #[tokio::test]
    async fn lines_are_the_same_however_they_come_in() {
        let text = "a\r\n\n  \nbb\n123456789\n12345678\nlonger than all\n\n\nend";
        let expected = [
            (1, "a\r"),
            (4, "bb"),
            (5, "!"),
            (6, "12345678"),
            (7, "!"),
            (10, "end"),
        ];
        for size in 1..=text.len() {
            let found = cut(text, size).await;
            let found: Vec<_> = found
                .iter()
                .map(|(number, text)| (*number, text.as_str()))
                .collect();
            assert_eq!(found, expected, "chunks of {size}");
        }
        assert!(cut("", 1).await.is_empty());
        assert!(cut("\n", 1).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_that_comes_too_slowly_is_reported_and_ends_the_batch() {
        let chunks = vec![Ok(Bytes::from("a\nb")), Err(Error::new(TooSlow))];
        let mut lines = Lines::new(stream::iter(chunks), 8);
        assert!(lines.next().await.unwrap().text.is_ok());
        let line = lines.next().await.unwrap();
        assert_eq!(line.number, 2);
        assert_eq!(line.text.unwrap_err().code(), "request_timeout");
        assert_eq!(lines.next().await, None);
        // Between two lines a timeout is not an error: the client had nothing more to send.
        let chunks = vec![Ok(Bytes::from("a\n")), Err(Error::new(TooSlow))];
        let mut lines = Lines::new(stream::iter(chunks), 8);
        assert!(lines.next().await.unwrap().text.is_ok());
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_without_memory_ends_the_batch() {
        let share = door::memory::Memory::new(400 << 10).share();
        let held = share.charge().take(100 << 10).await.unwrap();
        let long = "x".repeat(ALLOWANCE_BYTES + 1);
        let chunks = || {
            let chunks = ["a\n", &long, "\n", "b\n"].map(|text| Ok(Bytes::from(text.to_owned())));
            stream::iter(chunks)
        };
        let mut lines = Lines::new(chunks(), 200 << 10).charged(share.charge());
        assert!(lines.next().await.unwrap().text.is_ok());
        let line = lines.next().await.unwrap();
        assert_eq!(line.number, 2);
        assert_eq!(line.text.unwrap_err().code(), "memory_exhausted");
        assert_eq!(lines.next().await, None);
        drop(held);
        let mut lines = Lines::new(chunks(), 200 << 10).charged(share.charge());
        for _ in 0..3 {
            assert!(lines.next().await.unwrap().text.is_ok());
        }
        assert_eq!(lines.next().await, None);
    }

    #[tokio::test]
    async fn an_incomplete_line_is_no_line() {
        let broken = || Err(Error::new(std::io::Error::other("reset")));
        let chunks = vec![Ok(Bytes::from("a\nb")), broken()];
        let mut lines = Lines::new(stream::iter(chunks), 8);
        assert_eq!(lines.next().await.unwrap().number, 1);
        assert_eq!(lines.next().await, None);
        assert_eq!(lines.next().await, None);
    }
}
