//! Raw bytes on sockets, for what no HTTP client would send.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// How long an attacker waits between two attempts.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long an attacker waits for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// Opens a connection; `None` if the node does not accept it.
pub(super) async fn connect(authority: &str) -> Option<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(authority)).await;
    connected.ok()?.ok()
}

/// Opens a connection with a small receive buffer, which holds little that is not yet read.
pub(super) async fn connect_narrow(authority: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4 << 10).ok()?;
    let address = authority.parse().ok()?;
    let connected = tokio::time::timeout(CONNECT_WAIT, socket.connect(address)).await;
    connected.ok()?.ok()
}

/// Reads until the other side closes.
pub(super) async fn until_closed(mut stream: TcpStream) {
    let mut buffer = [0; 4 << 10];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Writes the bytes; `None` once the other side has closed.
pub(super) async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()
}

/// Runs `count` copies of `one` at the same time, and each again as soon as it has ended.
pub(super) async fn crowd<F: Future<Output = ()>>(count: usize, one: impl Fn(usize) -> F) {
    let one = &one;
    join_all((0..count).map(|number| async move {
        // Spread the starts over half a second.
        tokio::time::sleep(Duration::from_millis(number as u64 % 500)).await;
        loop {
            one(number).await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }))
    .await;
}
