//! Bytes on a socket, as no polite client sends them.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// How long an attacker waits before it comes again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long it waits for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// A connection, if there is one to be had.
pub(super) async fn connect(authority: &str) -> Option<TcpStream> {
    let connected = tokio::time::timeout(CONNECT_WAIT, TcpStream::connect(authority)).await;
    connected.ok()?.ok()
}

/// A connection that takes next to nothing before its reader reads.
pub(super) async fn connect_narrow(authority: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4 << 10).ok()?;
    let address = authority.parse().ok()?;
    let connected = tokio::time::timeout(CONNECT_WAIT, socket.connect(address)).await;
    connected.ok()?.ok()
}

/// Waits until the other side closes, reading what it says.
pub(super) async fn until_closed(mut stream: TcpStream) {
    let mut buffer = [0; 4 << 10];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Writes what it can; none once the other side has closed.
pub(super) async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()
}

/// Does the same `count` times at once, each again as soon as it has ended.
pub(super) async fn crowd<F: Future<Output = ()>>(count: usize, one: impl Fn(usize) -> F) {
    let one = &one;
    join_all((0..count).map(|number| async move {
        // They do not all come in the same moment.
        tokio::time::sleep(Duration::from_millis(number as u64 % 500)).await;
        loop {
            one(number).await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }))
    .await;
}
