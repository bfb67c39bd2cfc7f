//! Cuts a body that streams in into lines.
//!
//! Invariant: no more than one line's limit is held; a longer line is dropped as it comes and
//! reported once, and the next one is read as if nothing had been. Deliberately absent: what a line
//! means.

use axum::Error;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt};

/// A line of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1; blank lines count.
    pub(crate) number: u64,
    /// Its text; absent where it is longer than the limit.
    pub(crate) text: Option<Bytes>,
}

/// The lines of a body, blank ones left out.
pub(crate) struct Lines<S> {
    chunks: S,
    /// What was received and not looked at.
    rest: Bytes,
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
    number: u64,
    length_max: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InLine,
    /// The line is too long; its end has not come.
    Dropping,
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
        }
    }

    /// Where the chunks come from.
    pub(crate) fn source(&self) -> &S {
        &self.chunks
    }

    /// The next line; none at the end of the body, or where it breaks off: half a line is no line.
    pub(crate) async fn next(&mut self) -> Option<Line> {
        while self.state != State::Ended {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.rest.split_to(end);
                self.rest.advance(1);
                if let Some(line) = self.finish(tail) {
                    return Some(line);
                }
                continue;
            }
            let tail = std::mem::take(&mut self.rest);
            self.keep(&tail);
            match self.chunks.next().await {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(_)) => self.state = State::Ended,
                None => {
                    let last = self.finish(Bytes::new());
                    self.state = State::Ended;
                    return last;
                }
            }
        }
        None
    }

    fn keep(&mut self, part: &[u8]) {
        if self.state == State::InLine && self.begun.len() + part.len() > self.length_max {
            self.state = State::Dropping;
            self.begun = BytesMut::new();
        } else if self.state == State::InLine {
            self.begun.extend_from_slice(part);
        }
    }

    /// The line that ends with `tail`, if it is worth a look.
    fn finish(&mut self, tail: Bytes) -> Option<Line> {
        self.number += 1;
        let text = if self.state == State::InLine && self.begun.is_empty() {
            // The whole line lies in one chunk: nothing is copied.
            tail
        } else {
            self.keep(&tail);
            self.begun.split().freeze()
        };
        let dropped = self.state == State::Dropping || text.len() > self.length_max;
        self.state = State::InLine;
        let number = self.number;
        if dropped {
            return Some(Line { number, text: None });
        }
        let blank = text.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        (!blank).then_some(Line {
            number,
            text: Some(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// The lines of a text that comes in chunks of `size` bytes; too long ones as `!`.
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
    async fn half_a_line_is_no_line() {
        let broken = || Err(Error::new(std::io::Error::other("reset")));
        let chunks = vec![Ok(Bytes::from("a\nb")), broken()];
        let mut lines = Lines::new(stream::iter(chunks), 8);
        assert_eq!(lines.next().await.unwrap().number, 1);
        assert_eq!(lines.next().await, None);
        assert_eq!(lines.next().await, None);
    }
}
