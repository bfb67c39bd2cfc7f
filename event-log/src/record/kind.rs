//! The kinds of record, told apart by their headers: writes and reads the headers of ours.
//!
//! Invariant: a record is ours only if it has exactly these headers, each once, in this order, and
//! the key and value that its kind asks for. Integers are big-endian.

use bytes::Bytes;
use position::{ChainHash, LogId, Position, Term, WriterId};
use uuid::Uuid;

use super::{Header, Headers, NewRecord, Record};

/// The record format that this program writes, and the highest that it reads.
pub const RECORD_VERSION: u16 = 1;

/// The first record format, which every program reads.
pub const RECORD_VERSION_FIRST: u16 = 1;

const KIND: &str = "annals-kind";
const TERM: &str = "annals-term";
const WRITER: &str = "annals-writer";
const LOG: &str = "annals-log";
const VERSION: &str = "annals-version";
const POSITION: &str = "annals-position";
const PREVIOUS: &str = "annals-previous";

/// What the headers of a claim say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimHeaders {
    /// The number of the claim.
    pub term: Term,
    /// A new id for this attempt to claim.
    pub writer: WriterId,
    /// The log to which the claim belongs.
    pub log: LogId,
    /// The record format of this term.
    pub version: u16,
}

/// What the headers of a commit say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHeaders {
    /// The claim's number.
    pub term: Term,
    /// The claim's writer.
    pub writer: WriterId,
    /// The position that the commit takes if it counts.
    pub position: Position,
    /// The chain hash of the accepted record upon which the commit was decided.
    pub previous: ChainHash,
}

/// The kind of a record, as its headers, key and value show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A writer takes the partition.
    Claim(ClaimHeaders),
    /// Everything that one command left.
    Commit(CommitHeaders),
    /// A record that is not ours.
    Foreign,
}

fn record(key: Option<Bytes>, value: Bytes, headers: [(&str, &[u8]); 5]) -> NewRecord {
    let headers = headers.map(|(name, value)| (name, Some(value)));
    NewRecord {
        key,
        value: Some(value),
        headers: headers.into_iter().collect(),
    }
}

impl ClaimHeaders {
    /// The record of this claim with its JSON value.
    #[must_use]
    pub fn record(&self, value: Bytes) -> NewRecord {
        let headers: [(&str, &[u8]); 5] = [
            (KIND, b"claim"),
            (TERM, &self.term.0.to_be_bytes()),
            (WRITER, self.writer.0.as_bytes()),
            (LOG, self.log.0.as_bytes()),
            (VERSION, &self.version.to_be_bytes()),
        ];
        record(None, value, headers)
    }
}

impl CommitHeaders {
    /// The record of this commit with its key (`tenant/stream`) and JSON value.
    #[must_use]
    pub fn record(&self, key: Bytes, value: Bytes) -> NewRecord {
        let headers: [(&str, &[u8]); 5] = [
            (KIND, b"commit"),
            (TERM, &self.term.0.to_be_bytes()),
            (WRITER, self.writer.0.as_bytes()),
            (POSITION, &self.position.0.to_be_bytes()),
            (PREVIOUS, &self.previous.0),
        ];
        record(Some(key), value, headers)
    }
}

impl Kind {
    /// The kind of this record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let parsed = match (record.key.is_some(), record.value.is_some()) {
            (false, true) => claim(&record.headers).map(Self::Claim),
            (true, true) => commit(&record.headers).map(Self::Commit),
            (_, false) => None,
        };
        parsed.unwrap_or(Self::Foreign)
    }
}

/// The headers, if there are exactly `N`.
fn exactly<const N: usize>(headers: &Headers) -> Option<[Header<'_>; N]> {
    let mut each = headers.iter();
    let mut found = [Header::default(); N];
    for slot in &mut found {
        *slot = each.next()?;
    }
    each.next().is_none().then_some(found)
}

fn claim(headers: &Headers) -> Option<ClaimHeaders> {
    let [kind, term, writer, log, version] = exactly(headers)?;
    (value(kind, KIND)? == b"claim").then_some(())?;
    Some(ClaimHeaders {
        term: Term(u64::from_be_bytes(fixed(term, TERM)?)),
        writer: WriterId(Uuid::from_bytes(fixed(writer, WRITER)?)),
        log: LogId(Uuid::from_bytes(fixed(log, LOG)?)),
        version: u16::from_be_bytes(fixed(version, VERSION)?),
    })
}

fn commit(headers: &Headers) -> Option<CommitHeaders> {
    let [kind, term, writer, position, previous] = exactly(headers)?;
    (value(kind, KIND)? == b"commit").then_some(())?;
    Some(CommitHeaders {
        term: Term(u64::from_be_bytes(fixed(term, TERM)?)),
        writer: WriterId(Uuid::from_bytes(fixed(writer, WRITER)?)),
        position: Position(u64::from_be_bytes(fixed(position, POSITION)?)),
        previous: ChainHash(fixed(previous, PREVIOUS)?),
    })
}

fn value<'a>((found, value): Header<'a>, name: &str) -> Option<&'a [u8]> {
    value.filter(|_| found == name.as_bytes())
}

fn fixed<const N: usize>(header: Header<'_>, name: &str) -> Option<[u8; N]> {
    value(header, name)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use position::Offset;

    use super::*;

    fn sample() -> Record {
        let headers = CommitHeaders {
            term: Term(3),
            writer: WriterId(Uuid::from_u128(7)),
            position: Position(9),
            previous: ChainHash([5; 32]),
        };
        Record::at(
            Offset(1),
            headers.record("main/order-1".into(), "{}".into()),
        )
    }

    #[test]
    fn what_is_written_is_read_back() {
        let Kind::Commit(headers) = Kind::of(&sample()) else {
            panic!("not a commit")
        };
        assert_eq!((headers.term, headers.position), (Term(3), Position(9)));
        let claim = ClaimHeaders {
            term: Term(1),
            writer: WriterId(Uuid::from_u128(7)),
            log: LogId(Uuid::from_u128(8)),
            version: RECORD_VERSION,
        };
        let record = Record::at(Offset(0), claim.record("{}".into()));
        assert_eq!(Kind::of(&record), Kind::Claim(claim));
    }

    #[test]
    fn anything_else_is_foreign() {
        let sample = sample();
        let without = |key, value| Record {
            key,
            value,
            ..sample.clone()
        };
        let spoilt = [
            without(None, sample.value.clone()),
            without(sample.key.clone(), None),
        ];
        let spoil: [fn(&mut Vec<Header<'_>>); 7] = [
            |headers| headers.clear(),
            |headers| headers.swap(1, 2),
            |headers| headers.push((b"more", None)),
            |headers| headers[0].1 = Some(b"Commit"),
            |headers| headers[1].1 = Some(b"short"),
            |headers| headers[2].1 = None,
            |headers| headers[3].0 = &[0xff, 0xfe],
        ];
        let otherwise = spoil.map(|change| {
            let mut headers = sample.headers.iter().collect();
            change(&mut headers);
            Record {
                headers: headers.into_iter().collect(),
                ..sample.clone()
            }
        });
        for record in spoilt.into_iter().chain(otherwise) {
            assert_eq!(Kind::of(&record), Kind::Foreign, "{record:?}");
        }
    }
}
