//! Cuts this process's own connections, as a failing network does. This needs no privilege, and it
//! works through TLS and with every address that a broker may advertise.
//!
//! Invariant: only TCP connections that were opened after [`OwnConnections::from_now_on`] are cut,
//! and none that this process was started with. Deliberately absent: knowing to whom a connection
//! leads; the command that uses this connects to brokers only.

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use cluster_trial::Connections;
use rustix::io::fcntl_getfd;
use rustix::net::{AddressFamily, Shutdown, SocketType, getpeername, shutdown, sockopt};

/// Where a process finds its own open files, on Linux and elsewhere.
const OPEN_FILES: &str = "/dev/fd";

/// The TCP connections that this process opens.
#[derive(Debug)]
pub(super) struct OwnConnections {
    before: BTreeSet<RawFd>,
}

impl OwnConnections {
    /// The connections that are opened from now on.
    pub(super) fn from_now_on() -> Self {
        Self {
            before: open_files().into_iter().collect(),
        }
    }
}

impl Connections for OwnConnections {
    fn cut(&self) -> usize {
        let files = open_files().into_iter();
        let ours = files.filter(|file| !self.before.contains(file));
        ours.filter_map(connection)
            .filter(|connection| shutdown(connection, Shutdown::Both).is_ok())
            .count()
    }
}

/// The numbers of this process's open files; none if the system does not show them.
fn open_files() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir(OPEN_FILES) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<RawFd> = names.filter_map(|name| name.parse().ok()).collect();
    // The list contains the folder's own number. It is closed by now, and the next file takes it.
    files.retain(|file| {
        // SAFETY: only borrowed for the call, which fails if no open file has this number.
        fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*file) }).is_ok()
    });
    files
}

/// A new handle to an open file, if that is a TCP connection.
fn connection(file: RawFd) -> Option<OwnedFd> {
    // SAFETY: only borrowed for the call below, which fails if the file was closed meanwhile. If
    // another file took its number, the checks below look at that file.
    let borrowed = unsafe { BorrowedFd::borrow_raw(file) };
    let own = borrowed.try_clone_to_owned().ok()?;
    let is_stream = sockopt::socket_type(&own).ok()? == SocketType::STREAM;
    let family = getpeername(&own).ok()??.address_family();
    let is_internet = family == AddressFamily::INET || family == AddressFamily::INET6;
    (is_stream && is_internet).then_some(own)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use super::*;

    /// Set in the process that is alone with its connections.
    const ALONE: &str = "ANNALS_TESTS_VICTIM";

    /// In a process of its own: otherwise it would also cut what other tests open meanwhile.
    #[test]
    fn cuts_what_was_opened_since_and_nothing_else() {
        if std::env::var_os(ALONE).is_some() {
            return cut_what_was_opened_since();
        }
        let name = "cuts_what_was_opened_since_and_nothing_else";
        let alone = Command::new(std::env::current_exe().unwrap())
            .args([name, "--test-threads=1"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&alone.stdout);
        assert!(
            alone.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    fn cut_what_was_opened_since() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let older = TcpStream::connect(address).unwrap();
        let (older_peer, _) = listener.accept().unwrap();
        let connections = OwnConnections::from_now_on();
        let mut newer = TcpStream::connect(address).unwrap();
        let (newer_peer, _) = listener.accept().unwrap();

        let other: BTreeSet<RawFd> = open_files().into_iter().collect();
        assert!(other.is_superset(&connections.before));
        assert!(connections.cut() >= 2, "both ends of the newer one");
        assert_eq!(newer.read(&mut [0; 1]).unwrap(), 0);
        drop(newer_peer);
        older.set_nonblocking(true).unwrap();
        let waiting = (&older).read(&mut [0; 1]).unwrap_err();
        assert_eq!(waiting.kind(), std::io::ErrorKind::WouldBlock);
        drop(older_peer);
    }
}
