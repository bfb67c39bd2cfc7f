//! Compares the acceptance rule with a second implementation of protocol.md: for any sequence of
//! records, all readers agree, wherever they begin.
//!
//! The second implementation parses headers and computes hashes on its own. It can be told to
//! forget one condition, which shows that these sequences would reveal such a reader.

use event_log::chain::{Chain, Stop, Verdict};
use event_log::checkpoint::Checkpoint;
use event_log::record::{CommitHeaders, NewRecord, RECORD_VERSION, Record};
use event_log::subscription::{Batch, Follower, ProofNeed};
use position::{LogId, Offset, Partition, Position, Term, WriterId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::history::{Scribe, but, log_id};
use crate::raw_log::{change_headers, foreign};

const SEQUENCES: u64 = 250;
const RECORDS_MAX: usize = 40;
/// Replays the sequence of this seed instead of new ones.
const SEED: &str = "ANNALS_TESTS_SEED";

fn seeds() -> Vec<u64> {
    match std::env::var(SEED) {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first: u64 = rand::random();
            println!("seeds from {first}; one of them again: {SEED}=…");
            (0..SEQUENCES).map(|n| first.wrapping_add(n)).collect()
        }
    }
}

/// A reader's verdict on a record, in the words of protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Claim,
    Commit,
    Late,
    Losing,
    Duplicate,
    Foreign,
    Unlinked,
    Unclaimed,
    NewerFormat,
}

impl Said {
    fn stops(self) -> bool {
        matches!(self, Self::Unlinked | Self::Unclaimed | Self::NewerFormat)
    }
}

/// The condition of the rule that a wrong reader forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgotten {
    Nothing,
    TermMustRise,
    TermStepIsBounded,
    LogIsTheFirst,
    NewerFormatStops,
    ClaimTakesAPosition,
    ClaimMovesTheHead,
    ClaimChangesTheWriter,
    ClaimHashesThePosition,
    ClaimHashesTheValue,
    CommitHasTheTerm,
    CommitHasTheWriter,
    CommitHasTheHead,
    CommitHasThePosition,
    HigherTermIsUnclaimed,
    LowerPositionIsADuplicate,
    HashHasTheKey,
    HashHasTheValue,
    HeadersHaveAnOrder,
    HeadersHaveSizes,
    NothingElseStandsInHeaders,
    CommitHasAKey,
    ClaimHasNoKey,
    ValueIsPresent,
}

const CONDITIONS: [Forgotten; 23] = [
    Forgotten::TermMustRise,
    Forgotten::TermStepIsBounded,
    Forgotten::LogIsTheFirst,
    Forgotten::NewerFormatStops,
    Forgotten::ClaimTakesAPosition,
    Forgotten::ClaimMovesTheHead,
    Forgotten::ClaimChangesTheWriter,
    Forgotten::ClaimHashesThePosition,
    Forgotten::ClaimHashesTheValue,
    Forgotten::CommitHasTheTerm,
    Forgotten::CommitHasTheWriter,
    Forgotten::CommitHasTheHead,
    Forgotten::CommitHasThePosition,
    Forgotten::HigherTermIsUnclaimed,
    Forgotten::LowerPositionIsADuplicate,
    Forgotten::HashHasTheKey,
    Forgotten::HashHasTheValue,
    Forgotten::HeadersHaveAnOrder,
    Forgotten::HeadersHaveSizes,
    Forgotten::NothingElseStandsInHeaders,
    Forgotten::CommitHasAKey,
    Forgotten::ClaimHasNoKey,
    Forgotten::ValueIsPresent,
];

/// The second implementation of the rule.
#[derive(Clone, PartialEq, Debug)]
struct Reader {
    forgets: Forgotten,
    log: Option<Vec<u8>>,
    term: u64,
    writer: Vec<u8>,
    head: Vec<u8>,
    position: u64,
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

impl Reader {
    fn new(forgets: Forgotten) -> Self {
        let head = Sha256::digest([&b"annals.genesis.v1"[..], &[0; 4]].concat());
        Self {
            forgets,
            log: None,
            term: 0,
            writer: vec![0; 16],
            head: head.to_vec(),
            position: 0,
        }
    }

    fn minds(&self, condition: Forgotten) -> bool {
        self.forgets != condition
    }

    /// The values of these headers, if the record has all of them in a valid form.
    fn headers(&self, record: &NewRecord, names: [(&str, usize); 5]) -> Option<Vec<Vec<u8>>> {
        let headers: Vec<_> = record.headers.iter().collect();
        let extra = headers.len() != 5;
        if extra && self.minds(Forgotten::NothingElseStandsInHeaders) {
            return None;
        }
        let mut values = Vec::new();
        for (index, (name, size)) in names.into_iter().enumerate() {
            let header = if self.minds(Forgotten::HeadersHaveAnOrder) {
                headers.get(index)
            } else {
                headers.iter().find(|header| header.0 == name.as_bytes())
            };
            let value = header.filter(|header| header.0 == name.as_bytes())?.1?;
            if value.len() != size && self.minds(Forgotten::HeadersHaveSizes) {
                return None;
            }
            values.push(value.to_vec());
        }
        Some(values)
    }

    fn judge(&mut self, record: &NewRecord) -> Said {
        let claim = self.headers(
            record,
            [
                ("annals-kind", 5),
                ("annals-term", 8),
                ("annals-writer", 16),
                ("annals-log", 16),
                ("annals-version", 2),
            ],
        );
        let commit = self.headers(
            record,
            [
                ("annals-kind", 6),
                ("annals-term", 8),
                ("annals-writer", 16),
                ("annals-position", 8),
                ("annals-previous", 32),
            ],
        );
        if record.value.is_none() && self.minds(Forgotten::ValueIsPresent) {
            return Said::Foreign;
        }
        let has_key = record.key.is_some();
        match (claim, commit) {
            (Some(claim), _) if claim[0] == b"claim" => {
                if has_key && self.minds(Forgotten::ClaimHasNoKey) {
                    return Said::Foreign;
                }
                self.claim(&claim, record)
            }
            (_, Some(commit)) if commit[0] == b"commit" => {
                if !has_key && self.minds(Forgotten::CommitHasAKey) {
                    return Said::Foreign;
                }
                self.commit(&commit, record)
            }
            _ => Said::Foreign,
        }
    }

    fn claim(&mut self, headers: &[Vec<u8>], record: &NewRecord) -> Said {
        let term = big_endian(&headers[1]);
        let rises = term > self.term || !self.minds(Forgotten::TermMustRise);
        let near = term <= self.term + 1_000 || !self.minds(Forgotten::TermStepIsBounded);
        let same = self.log.as_ref().is_none_or(|log| *log == headers[3])
            || !self.minds(Forgotten::LogIsTheFirst);
        if !(rises && near && same) {
            return Said::Losing;
        }
        if big_endian(&headers[4]) > 1 && self.minds(Forgotten::NewerFormatStops) {
            return Said::NewerFormat;
        }
        if self.minds(Forgotten::ClaimTakesAPosition) {
            self.position += 1;
        }
        let value = record.value.as_deref().unwrap_or_default();
        let mut input = b"annals.claim.v1".to_vec();
        input.extend(&self.head);
        for header in &headers[1..] {
            input.extend(header);
        }
        if self.minds(Forgotten::ClaimHashesThePosition) {
            input.extend(self.position.to_be_bytes());
        }
        if self.minds(Forgotten::ClaimHashesTheValue) {
            input.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            input.extend(value);
        }
        if self.minds(Forgotten::ClaimMovesTheHead) {
            self.head = Sha256::digest(input).to_vec();
        }
        if self.minds(Forgotten::ClaimChangesTheWriter) {
            self.writer.clone_from(&headers[2]);
        }
        self.term = term;
        self.log.get_or_insert_with(|| headers[3].clone());
        Said::Claim
    }

    fn commit(&mut self, headers: &[Vec<u8>], record: &NewRecord) -> Said {
        let (term, position) = (big_endian(&headers[1]), big_endian(&headers[3]));
        if term > self.term && self.minds(Forgotten::HigherTermIsUnclaimed) {
            return Said::Unclaimed;
        }
        let of_term = term == self.term || !self.minds(Forgotten::CommitHasTheTerm);
        let of_writer = headers[2] == self.writer || !self.minds(Forgotten::CommitHasTheWriter);
        if self.log.is_none() || !of_term || !of_writer {
            return Said::Late;
        }
        if position <= self.position && self.minds(Forgotten::LowerPositionIsADuplicate) {
            return Said::Duplicate;
        }
        let linked = headers[4] == self.head || !self.minds(Forgotten::CommitHasTheHead);
        let next = position == self.position + 1 || !self.minds(Forgotten::CommitHasThePosition);
        if !linked || !next {
            return Said::Unlinked;
        }
        let mut input = b"annals.commit.v1".to_vec();
        for header in [&headers[4], &headers[1], &headers[2], &headers[3]] {
            input.extend(header);
        }
        for (part, condition) in [
            (&record.key, Forgotten::HashHasTheKey),
            (&record.value, Forgotten::HashHasTheValue),
        ] {
            if self.minds(condition) {
                let part = part.as_deref().unwrap_or_default();
                input.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
                input.extend(part);
            }
        }
        self.head = Sha256::digest(input).to_vec();
        self.position = position;
        Said::Commit
    }
}

/// A sequence of records with takeovers, retries, foreign records and a few damaged ones.
fn sequence(seed: u64) -> Vec<NewRecord> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut scribe = Scribe::new();
    let streams = ["thing-a", "thing-b", "thing-c"];
    let length = random.random_range(5..RECORDS_MAX);
    while scribe.records().len() < length {
        let stream = streams[random.random_range(0..streams.len())];
        let other_log = LogId(Uuid::from_u128(7));
        let record = match random.random_range(0..100) {
            0..40 => scribe.commit_of(stream, |_| {}),
            40..52 => scribe.claim_of(1, log_id(), RECORD_VERSION),
            52..55 => scribe.claim_of(random.random_range(2..1_003), log_id(), RECORD_VERSION),
            55..57 => scribe.claim_of(1_000 + random.random_range(0..3), log_id(), 0),
            57..60 => scribe.claim_of(0, log_id(), RECORD_VERSION),
            60..63 => scribe.claim_of(1, other_log, RECORD_VERSION),
            63 => scribe.claim_of(random.random_range(0..2), log_id(), RECORD_VERSION + 1),
            64..68 => scribe.commit_of(stream, |h| h.term.0 = h.term.0.saturating_sub(1)),
            68..72 => scribe.commit_of(stream, but::of_another_writer),
            72..76 => scribe.commit_of(stream, |h| {
                h.position.0 = random.random_range(0..=h.position.0)
            }),
            76 => scribe.commit_of(stream, but::of_a_later_term),
            77 => scribe.commit_of(stream, but::linked_elsewhere),
            78 => scribe.commit_of(stream, but::at_a_later_position),
            79..90 => again(&mut random, &scribe),
            90..98 => spoiled(&mut random, &mut scribe, stream),
            _ => foreign("junk"),
        };
        scribe.add(record);
    }
    scribe.records().to_vec()
}

/// An earlier record once more.
fn again(random: &mut StdRng, scribe: &Scribe) -> NewRecord {
    match scribe.records().len() {
        0 => foreign("nothing yet"),
        count => scribe.records()[random.random_range(0..count)].clone(),
    }
}

/// A record that would count, except for one detail of its form.
fn spoiled(random: &mut StdRng, scribe: &mut Scribe, stream: &str) -> NewRecord {
    let mut record = if random.random_bool(0.5) {
        scribe.commit_of(stream, |_| {})
    } else {
        scribe.claim_of(1, log_id(), RECORD_VERSION)
    };
    match random.random_range(0..8) {
        0 => change_headers(&mut record, |headers| headers.swap(1, 2)),
        1 => change_headers(&mut record, |headers| headers.push((b"more", None))),
        2 => change_headers(&mut record, |headers| headers.truncate(4)),
        3 => change_headers(&mut record, |headers| {
            headers[1].1 = Some(&[0, 0, 0, 0, 0, 0, 0, 0, 9])
        }),
        4 => change_headers(&mut record, |headers| headers[2].1 = Some(b"short")),
        5 => record.value = None,
        6 => {
            record.key = match record.key {
                Some(_) => None,
                None => Some("main/thing-a".into()),
            }
        }
        _ => change_headers(&mut record, |headers| headers[0].1 = None),
    }
    record
}

fn said(verdict: &Result<Verdict, Stop>) -> Said {
    use event_log::chain::Orphan;
    use event_log::damage::DamageKind;
    match verdict {
        Ok(Verdict::Claim(..)) => Said::Claim,
        Ok(Verdict::Commit(_)) => Said::Commit,
        Ok(Verdict::Orphan(Orphan::Late)) => Said::Late,
        Ok(Verdict::Orphan(Orphan::Losing)) => Said::Losing,
        Ok(Verdict::Orphan(Orphan::Duplicate)) => Said::Duplicate,
        Ok(Verdict::Orphan(Orphan::Foreign)) => Said::Foreign,
        Err(Stop::NewerFormat { .. }) => Said::NewerFormat,
        Err(Stop::Gone(reason)) => panic!("{reason}"),
        Err(Stop::Damage(damage)) => match damage.kind {
            DamageKind::Unlinked { .. } => Said::Unlinked,
            DamageKind::Unclaimed => Said::Unclaimed,
            _ => panic!("the rule does not know this damage: {damage}"),
        },
        other => panic!("nobody acknowledged anything: {other:?}"),
    }
}

fn at(index: usize, record: &NewRecord) -> Record {
    Record::at(Offset(index as u64), record.clone())
}

/// The chain's verdicts on the records from `first` on, up to where it stops.
fn fold(chain: &mut Chain, records: &[NewRecord], first: usize) -> Vec<Said> {
    let mut sayings = Vec::new();
    for (index, record) in records.iter().enumerate().skip(first) {
        let before = chain.clone();
        let verdict = chain.judge(&at(index, record));
        if !matches!(verdict, Ok(Verdict::Claim(..) | Verdict::Commit(_))) {
            assert_eq!(*chain, before, "only what counts moves the chain");
        }
        sayings.push(said(&verdict));
        if verdict.is_err() {
            break;
        }
    }
    sayings
}

fn fold_again(reader: &mut Reader, records: &[NewRecord]) -> Vec<Said> {
    let mut sayings = Vec::new();
    for record in records {
        sayings.push(reader.judge(record));
        if sayings.last().is_some_and(|said| said.stops()) {
            break;
        }
    }
    sayings
}

#[test]
fn the_rule_is_the_one_of_the_protocol() {
    for seed in seeds() {
        let records = sequence(seed);
        let (mut chain, mut reader) = (
            Chain::genesis(Partition(0)),
            Reader::new(Forgotten::Nothing),
        );
        let sayings = fold(&mut chain, &records, 0);
        assert_eq!(sayings, fold_again(&mut reader, &records), "seed {seed}");
        assert_eq!(chain.head.0[..], reader.head, "seed {seed}");
        assert_eq!(chain.position.0, reader.position, "seed {seed}");
        assert_eq!(chain.term.0, reader.term, "seed {seed}");
        assert_eq!(chain.writer.0.as_bytes()[..], reader.writer, "seed {seed}");
    }
}

#[test]
fn a_reader_that_forgets_any_condition_of_the_rule_is_noticed() {
    // The seeds are fixed: this tests whether such sequences reveal a wrong reader.
    let sequences: Vec<_> = (0..4_000).map(sequence).collect();
    for forgets in CONDITIONS {
        let differs = |records: &Vec<NewRecord>| {
            let (mut right, mut wrong) = (Reader::new(Forgotten::Nothing), Reader::new(forgets));
            fold_again(&mut right, records) != fold_again(&mut wrong, records)
        };
        let count = sequences.iter().filter(|records| differs(records)).count();
        // Often enough that the random sequences of one run reveal it, too.
        assert!(
            count >= 80,
            "{forgets:?} makes a difference in {count} sequences"
        );
    }
}

#[test]
fn before_the_first_claim_no_commit_counts_not_even_one_with_term_0_and_the_nil_writer() {
    let mut chain = Chain::genesis(Partition(0));
    let headers = CommitHeaders {
        term: Term(0),
        writer: WriterId::default(),
        position: Position(1),
        previous: chain.head,
    };
    let record = at(0, &headers.record("main/order-1".into(), "{}".into()));
    let before = chain.clone();
    let verdict = chain.judge(&record);
    assert_eq!(verdict, Ok(Verdict::Orphan(event_log::chain::Orphan::Late)));
    assert_eq!(chain, before);
}

/// Follows the records from a checkpoint or from the first record, and gives each required proof.
fn follow(from: Option<&Checkpoint>, records: &[NewRecord]) -> (Option<Batch>, Option<Stop>) {
    let mut follower = Follower::new(Partition(0), from.cloned());
    let prove = |follower: &mut Follower| {
        while let Some(place) = follower.places_to_prove().first().copied() {
            let index = usize::try_from(place.0).unwrap();
            let found = at(index, &records[index]);
            let end = Offset(records.len() as u64);
            follower.prove(end, Some(&found)).unwrap();
        }
        assert_eq!(follower.proof_need(), ProofNeed::None);
    };
    let first = usize::try_from(follower.next_offset().0).unwrap();
    for (index, record) in records.iter().enumerate().skip(first) {
        if let Err(stop) = follower.take(at(index, record)) {
            prove(&mut follower);
            assert!(
                follower.batch().is_none(),
                "it hands out what lies before a stop"
            );
            return (None, Some(stop));
        }
    }
    prove(&mut follower);
    (follower.batch(), None)
}

#[test]
fn readers_from_any_checkpoint_agree_with_readers_from_the_first_record() {
    for seed in seeds() {
        let records = sequence(seed);
        let mut chain = Chain::genesis(Partition(0));
        let whole = fold(&mut chain, &records, 0);
        let (all, stop) = follow(None, &records);
        let read = whole.len() - usize::from(stop.is_some());
        let mut before = Chain::genesis(Partition(0));
        let mut accepted_before = 0;
        for index in 0..read {
            let last = at(index, &records[index]);
            let verdict = before.judge(&last).unwrap();
            accepted_before += usize::from(matches!(verdict, Verdict::Commit(_)));
            let checkpoint = Checkpoint::new(&before, &last, None);
            let stored = serde_json::to_string(&checkpoint).unwrap();
            let checkpoint: Checkpoint = serde_json::from_str(&stored).unwrap();

            let mut resumed = checkpoint.chain(Partition(0));
            assert_eq!(
                fold(&mut resumed, &records, index + 1),
                whole[index + 1..],
                "seed {seed}"
            );
            resumed.accepted_offset = chain.accepted_offset;
            assert_eq!(resumed, chain, "seed {seed}, resumed after {index}");

            let (rest, resumed_stop) = follow(Some(&checkpoint), &records);
            assert_eq!(resumed_stop.is_some(), stop.is_some(), "seed {seed}");
            if let (Some(all), Some(rest)) = (&all, &rest) {
                let ids = |batch: &Batch| -> Vec<Uuid> {
                    batch
                        .commits
                        .iter()
                        .map(|placed| placed.commit.commit)
                        .collect()
                };
                assert_eq!(ids(all)[accepted_before..], ids(rest), "seed {seed}");
                let after = Checkpoint {
                    last_recorded_at: all.after.last_recorded_at,
                    ..rest.after.clone()
                };
                assert_eq!(after, all.after, "seed {seed}, resumed after {index}");
            }
        }
    }
}
