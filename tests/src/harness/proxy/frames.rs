//! Cuts a byte stream into messages.
//!
//! Deliberately absent: everything in a message after its header.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::impositions::ApiKey;

/// The size of the largest message, in bytes: a broker's answer to a fetch of many partitions.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;
const LENGTH_BYTES: usize = 4;

/// How the bytes of a connection are cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As Kafka does: a length comes before each request and answer.
    Kafka,
    /// Not at all: bytes pass as they arrive.
    Raw,
}

/// The fields of a request's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) key: ApiKey,
    pub(super) client: String,
}

impl Header {
    /// Parses the header of a whole frame: length (4), key (2), version (2), correlation id (4),
    /// client id (2 for its length, then its bytes).
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let mut rest = frame.get(LENGTH_BYTES..)?;
        if rest.len() < 10 {
            return None;
        }
        let key = ApiKey(rest.get_i16());
        rest.advance(2 + 4);
        let length = usize::try_from(rest.get_i16()).unwrap_or_default();
        let client = rest.get(..length)?;
        Some(Self {
            key,
            client: String::from_utf8_lossy(client).into_owned(),
        })
    }
}

/// Reads messages from one end of a connection.
pub(super) struct Frames<R> {
    from: R,
    framing: Framing,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub(super) fn of(from: R, framing: Framing) -> Self {
        Self {
            from,
            framing,
            read: BytesMut::new(),
        }
    }

    /// The next whole message; `None` at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(length) = self.length()? {
                return Ok(Some(self.read.split_to(length).freeze()));
            }
            self.read.reserve(READ_BYTES);
            if self.from.read_buf(&mut self.read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The length of the buffered message, if it is complete.
    fn length(&self) -> io::Result<Option<usize>> {
        match self.framing {
            Framing::Raw => Ok((!self.read.is_empty()).then_some(self.read.len())),
            Framing::Kafka => {
                let Some(mut length) = self.read.get(..LENGTH_BYTES) else {
                    return Ok(None);
                };
                let length = length.get_u32() as usize + LENGTH_BYTES;
                if length > FRAME_BYTES_MAX {
                    return Err(io::Error::other("not a message of Kafka"));
                }
                Ok((self.read.len() >= length).then_some(length))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: i16, client: &str) -> Vec<u8> {
        let mut body = key.to_be_bytes().to_vec();
        body.extend([0, 9, 0, 0, 0, 1]);
        body.extend((client.len() as i16).to_be_bytes());
        body.extend(client.as_bytes());
        body.extend(b"rest");
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    #[test]
    fn a_header_names_kind_and_client() {
        let header = Header::of(&request(0, "n1")).unwrap();
        assert_eq!(
            (header.key, header.client.as_str()),
            (ApiKey::PRODUCE, "n1")
        );
        let mut nameless = request(3, "");
        nameless[12..14].copy_from_slice(&(-1_i16).to_be_bytes());
        assert_eq!(Header::of(&nameless).unwrap().client, "");
        assert_eq!(Header::of(&request(0, "n1")[..13]), None);
    }

    #[tokio::test]
    async fn messages_are_read_whole_however_their_bytes_arrive() {
        let (first, second) = (request(0, "n1"), request(1, "n22"));
        let all = [first.clone(), second.clone()].concat();
        for size in 1..all.len() {
            let pieces = all.chunks(size).map(Bytes::copy_from_slice);
            let mut builder = tokio_test_reader(pieces);
            let mut frames = Frames::of(&mut builder, Framing::Kafka);
            assert_eq!(frames.next().await.unwrap().unwrap(), first);
            assert_eq!(frames.next().await.unwrap().unwrap(), second);
            assert_eq!(frames.next().await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_are_an_error_and_take_no_memory() {
        let mut bytes: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
        assert!(Frames::of(&mut bytes, Framing::Kafka).next().await.is_err());
    }

    /// A reader that yields one piece for each read.
    fn tokio_test_reader(pieces: impl Iterator<Item = Bytes>) -> Pieces {
        Pieces(pieces.collect())
    }

    struct Pieces(std::collections::VecDeque<Bytes>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            if let Some(piece) = self.0.pop_front() {
                buffer.put_slice(&piece);
            }
            std::task::Poll::Ready(Ok(()))
        }
    }
}
