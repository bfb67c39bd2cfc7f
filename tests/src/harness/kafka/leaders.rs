//! Moves the leaders of partitions by Kafka's own protocol: the client library has no call for it,
//! and Kafka's tool costs a JVM's start each time.
//!
//! The first of a partition's replicas is the preferred leader. So the order is rotated by one (no
//! data moves), and then the preferred leaders are elected. Deliberately absent: the rest of the
//! protocol.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};

const WAIT: Duration = Duration::from_secs(3);
const ELECT_LEADERS: i16 = 43;
const ELECT_LEADERS_VERSION: i16 = 2;
const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;
const ALTER_PARTITION_REASSIGNMENTS_VERSION: i16 = 0;
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Kafka's error code if the preferred leader leads already.
const ELECTION_NOT_NEEDED: i16 = 84;

/// A partition as the brokers describe it.
pub(super) struct Described {
    pub(super) leader: i32,
    replicas: Vec<i32>,
}

/// The partitions of a topic, in order.
pub(super) fn partitions(client: &BaseConsumer, topic: &str) -> Result<Vec<Described>, String> {
    let metadata = client
        .fetch_metadata(Some(topic), WAIT)
        .map_err(|error| error.to_string())?;
    let topic = metadata.topics().first().ok_or("no such topic")?;
    let mut partitions: Vec<_> = topic.partitions().iter().collect();
    partitions.sort_by_key(|partition| partition.id());
    Ok(partitions
        .iter()
        .map(|partition| Described {
            leader: partition.leader(),
            replicas: partition.replicas().to_vec(),
        })
        .collect())
}

/// Gives each partition's leadership to its next replica. Any broker that answers passes the
/// request on to the controller.
pub(super) fn rotate(client: &BaseConsumer, ports: &[u16], topic: &str) -> Result<(), String> {
    let mut partitions = partitions(client, topic)?;
    for partition in &mut partitions {
        partition.replicas.rotate_left(1);
    }
    let mut failures = String::new();
    for port in ports {
        match ask(*port, topic, &partitions) {
            Ok(()) => return Ok(()),
            Err(error) => failures += &format!("{port}: {error}; "),
        }
    }
    Err(failures)
}

fn ask(port: u16, topic: &str, partitions: &[Described]) -> Result<(), String> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let io = |error: io::Error| error.to_string();
    let mut broker = TcpStream::connect_timeout(&address, WAIT).map_err(io)?;
    broker.set_read_timeout(Some(WAIT * 2)).map_err(io)?;

    let mut request = Request::new(
        ALTER_PARTITION_REASSIGNMENTS,
        ALTER_PARTITION_REASSIGNMENTS_VERSION,
    );
    request.timeout();
    request.count(1);
    request.text(topic);
    request.count(partitions.len());
    for (number, partition) in (0_i32..).zip(partitions) {
        request.int(number);
        request.count(partition.replicas.len());
        for replica in &partition.replicas {
            request.int(*replica);
        }
        request.end();
    }
    request.end();
    request.end();
    let answer = exchange(&mut broker, request).map_err(io)?;
    // After the correlation id (4) come the end of the header (1), the throttle time (4), and the
    // error code.
    error_at(&answer, 4 + 1 + 4)?;

    let mut request = Request::new(ELECT_LEADERS, ELECT_LEADERS_VERSION);
    // The kind of election: 0 elects the preferred replica.
    request.bytes.push(0);
    request.count(1);
    request.text(topic);
    request.count(partitions.len());
    for (number, _) in (0_i32..).zip(partitions) {
        request.int(number);
    }
    request.end();
    request.timeout();
    request.end();
    let answer = exchange(&mut broker, request).map_err(io)?;
    error_at(&answer, 4 + 1 + 4)
}

fn error_at(answer: &[u8], at: usize) -> Result<(), String> {
    let code = answer.get(at..at + 2).ok_or("the answer is too short")?;
    match i16::from_be_bytes([code[0], code[1]]) {
        0 | ELECTION_NOT_NEEDED => Ok(()),
        code => Err(format!("Kafka's error {code}")),
    }
}

fn exchange(broker: &mut TcpStream, request: Request) -> io::Result<Vec<u8>> {
    broker.write_all(&request.framed())?;
    let mut length = [0; 4];
    broker.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).expect("32 bits fit");
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut answer = vec![0; length];
    broker.read_exact(&mut answer)?;
    Ok(answer)
}

/// A request in Kafka's "flexible" encoding.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(key: i16, version: i16) -> Self {
        let mut request = Self { bytes: Vec::new() };
        request.bytes.extend(key.to_be_bytes());
        request.bytes.extend(version.to_be_bytes());
        // The correlation id, and a null client id.
        request.int(1);
        request.bytes.extend((-1_i16).to_be_bytes());
        request.end();
        request
    }

    fn int(&mut self, value: i32) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn timeout(&mut self) {
        self.int(i32::try_from(WAIT.as_millis()).expect("a few seconds"));
    }

    /// A length, written as length + 1 in groups of seven bits.
    fn count(&mut self, length: usize) {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.bytes.extend(text.as_bytes());
    }

    /// Ends a structure: it has no tagged fields.
    fn end(&mut self) {
        self.bytes.push(0);
    }

    fn framed(self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a small request");
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(self.bytes);
        framed
    }
}
