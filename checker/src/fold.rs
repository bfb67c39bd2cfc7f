//! The log, folded partition by partition: which commits count, and whether each follows from the
//! accepted history before it.
//!
//! Invariant: of the records, only notes are kept; the states for the rules are dropped when their
//! partition ends. Deliberately absent: what clients were told (`compare`), and the order in which
//! commands were decided (`order`).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::book::{Book, Came, Content, EventNote, Found, event_id, push_one};
use crate::canonical;
use crate::check::Findings;
use crate::dump::RawRecord;
use crate::report::{Evidence, Kind, Summary, Violation};
use crate::rule::{self, Fold, Id, Verdict};
use crate::rules::{Asked, Rules, Ruling};
use crate::value::{self, Commit, Moment, Outcome};

/// The code under which a stale expected version is refused.
pub(crate) const VERSION_CONFLICT: &str = "version_conflict";
/// The idempotency window of a partition whose first claim names none: 24 hours.
const WINDOW_MS_DEFAULT: i64 = 24 * 60 * 60 * 1_000;

/// What is known of the log so far.
pub(crate) struct LogFold {
    rules: Box<dyn Rules>,
    log: Option<Id>,
    current: Option<Partition>,
    streams: HashMap<u32, Stream>,
    /// The damaged places that an operator has acknowledged: partition and offset.
    acknowledged: BTreeSet<(u32, u64)>,
}

/// The partition that is being read.
struct Partition {
    number: u32,
    fold: Fold,
    last_offset: Option<u64>,
    last_recorded_at: Option<Moment>,
    window_ms: Option<i64>,
    damage_count: u64,
    /// The keys of the streams that are frozen because of acknowledged places.
    frozen: BTreeSet<Vec<u8>>,
    /// Whether a newer record format came: nothing after it can be judged.
    is_stopped: bool,
}

struct Stream {
    partition: u32,
    version: u64,
    state: Option<Value>,
}

impl LogFold {
    pub(crate) fn new(rules: Box<dyn Rules>) -> Self {
        Self {
            rules,
            log: None,
            current: None,
            streams: HashMap::new(),
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn acknowledge(&mut self, places: impl IntoIterator<Item = (u32, u64)>) {
        self.acknowledged.extend(places);
    }

    /// Takes the next record of the log.
    ///
    /// # Errors
    /// If partitions or offsets do not ascend: then the dump does not match a log.
    pub(crate) fn take(
        &mut self,
        number: u32,
        record: &RawRecord,
        book: &mut Book,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let mut partition = self.partition(number)?;
        if partition
            .last_offset
            .is_some_and(|last| last >= record.offset)
        {
            return Err(format!(
                "partition {number}: offset {} is not greater than the one before",
                record.offset
            ));
        }
        partition.last_offset = Some(record.offset);
        findings.summary.records += 1;
        if !partition.is_stopped {
            self.judge(&mut partition, record, book, findings);
        }
        self.current = Some(partition);
        Ok(())
    }

    /// The state of the record's partition; a new state if another partition begins.
    fn partition(&mut self, number: u32) -> Result<Partition, String> {
        match self.current.take() {
            Some(current) if current.number == number => return Ok(current),
            Some(current) if current.number > number => {
                return Err(format!(
                    "partition {number} comes after partition {}",
                    current.number
                ));
            }
            Some(_) => self.streams.values_mut().for_each(|s| s.state = None),
            None => {}
        }
        Ok(Partition {
            number,
            fold: Fold::new(number),
            last_offset: None,
            last_recorded_at: None,
            window_ms: None,
            damage_count: 0,
            frozen: BTreeSet::new(),
            is_stopped: false,
        })
    }

    fn judge(
        &mut self,
        partition: &mut Partition,
        record: &RawRecord,
        book: &mut Book,
        findings: &mut Findings,
    ) {
        let place = Evidence::Log {
            partition: partition.number,
            offset: record.offset,
        };
        let value = record.value.as_deref().unwrap_or_default();
        let is_acknowledged = self
            .acknowledged
            .contains(&(partition.number, record.offset));
        let key = record.key.as_deref().unwrap_or_default();
        if is_acknowledged && rule::is_commit(record) {
            partition.frozen.insert(key.to_vec());
        }
        match partition.fold.take_at(record, is_acknowledged) {
            Verdict::Claim(claim) => {
                findings.summary.claims += 1;
                let first = *self.log.get_or_insert(claim.log);
                if first != claim.log && partition.window_ms.is_none() {
                    findings.add(at(Kind::OtherLog, "its claims name another log", place));
                }
                let window = value::window_ms(value).unwrap_or(WINDOW_MS_DEFAULT);
                partition.window_ms.get_or_insert(window);
            }
            // The stream is frozen: all readers skip its commits.
            Verdict::Commit(_) if partition.frozen.contains(key) => {
                *findings.summary.orphans.entry("acknowledged").or_default() += 1;
            }
            Verdict::Commit(commit) => match Commit::read(key, value) {
                Ok(read) => self.commit(partition, (place, commit.position), &read, book, findings),
                Err(error) => damage(partition, place, &error, findings),
            },
            Verdict::Orphan(orphan) => {
                *findings.summary.orphans.entry(orphan.as_str()).or_default() += 1;
                if orphan.is_damage() && !is_acknowledged {
                    let what = format!("an {} record", orphan.as_str());
                    damage(partition, place, &what, findings);
                }
            }
            Verdict::NewerFormat(version) => {
                let detail = format!("a claim of record format {version}");
                findings.add(at(Kind::NewerFormat, &detail, place));
                partition.is_stopped = true;
            }
        }
    }

    /// Judges an accepted commit against the history before it, and keeps a note of it.
    fn commit(
        &mut self,
        partition: &mut Partition,
        (place, position): (Evidence, u64),
        commit: &Commit<'_>,
        book: &mut Book,
        findings: &mut Findings,
    ) {
        let Some(recorded_at) = value::moment(&commit.recorded_at) else {
            return damage(partition, place, "recorded_at is not a time", findings);
        };
        let data: Result<Value, _> = serde_json::from_str(commit.command.data.get());
        let Ok(data) = data else {
            return damage(partition, place, "the command's data is not JSON", findings);
        };
        if !commit.times_are_readable() {
            return damage(
                partition,
                place,
                "a business time is not a valid time",
                findings,
            );
        }
        let Evidence::Log { offset, .. } = place else {
            return;
        };
        let key = format!("{}/{}", commit.tenant, commit.stream);
        let index = book.command(&key, &commit.command.id);
        let note = note(
            partition.number,
            offset,
            position,
            recorded_at,
            commit,
            &data,
            book,
        );
        count(&note, &mut findings.summary);

        let mut faults = Vec::new();
        if partition
            .last_recorded_at
            .is_some_and(|last| recorded_at <= last)
        {
            let detail = format!(
                "{} is not later than the recorded time of every earlier record",
                commit.recorded_at
            );
            faults.push((Kind::RecordedAtNotIncreasing, detail));
        }
        faults.extend(time_fault(commit));
        let window_ms = partition.window_ms.unwrap_or(WINDOW_MS_DEFAULT);
        if let Some(first) = book.commands[index].commits.last() {
            let last = partition.last_recorded_at.unwrap_or(recorded_at);
            if value::millis_between(first.recorded_at, last) < window_ms {
                let detail = format!("it was already decided, at {}", first.evidence());
                faults.push((Kind::Doubled, detail));
            }
        }
        let last = partition.last_recorded_at;
        partition.last_recorded_at = last.max(Some(recorded_at));
        faults.extend(self.follow(
            &note,
            commit,
            &data,
            book.commands[index].stream,
            &key,
            findings,
        ));
        let command = &book.commands[index];
        for (kind, detail) in faults {
            findings.add(book.about(kind, command, detail, vec![place.clone()]));
        }
        push_one(&mut book.commands[index].commits, note);
    }

    /// Compares a commit with its stream's state before it, and updates that state.
    fn follow(
        &mut self,
        note: &Found,
        commit: &Commit<'_>,
        data: &Value,
        number: u32,
        key: &str,
        findings: &mut Findings,
    ) -> Vec<(Kind, String)> {
        let mut faults = Vec::new();
        let rules = &*self.rules;
        let stream = self.streams.entry(number).or_insert_with(|| {
            findings.summary.streams += 1;
            Stream {
                partition: note.partition,
                version: 0,
                state: rules.initial(key),
            }
        });
        if stream.partition != note.partition {
            let detail = format!("it also stands in partition {}", stream.partition);
            faults.push((Kind::StreamInTwoPartitions, detail));
        }
        if note.from_version != stream.version {
            let detail = format!(
                "it continues version {}, but the stream is at {}",
                note.from_version, stream.version
            );
            faults.push((Kind::Gap, detail));
        }
        let numbered = (note.from_version + 1..).zip(&commit.events);
        for (follows, event) in numbered {
            if event.version.is_some_and(|version| version != follows) {
                let detail = format!("event {} does not have the number {follows}", event.id);
                faults.push((Kind::Gap, detail));
            }
        }
        let expected = commit.command.expected_version;
        let is_stale = expected.is_some_and(|expected| expected != stream.version);
        faults.extend(version_fault(commit, is_stale, stream.version));
        if faults.is_empty()
            && !is_stale
            && let Some(state) = &stream.state
            && !commit.command.is_digest_only()
        {
            let asked = Asked {
                stream: key,
                version: stream.version,
                command: &commit.command.type_name,
                data,
            };
            faults.extend(rule_fault(rules.decide(state, &asked), commit));
        }
        if let Some(state) = &mut stream.state {
            for event in &commit.events {
                let data = serde_json::from_str(event.data.get()).unwrap_or(Value::Null);
                rules.evolve(state, &event.type_name, &data);
            }
        }
        stream.version = note.version();
        faults
    }
}

fn at(kind: Kind, detail: &str, place: Evidence) -> Violation {
    Violation {
        kind,
        detail: detail.to_owned(),
        stream: None,
        id: None,
        evidence: vec![place],
    }
}

/// Damage stops a reader: what follows in the partition is a consequence, so only the first place
/// of a partition is reported.
fn damage(partition: &mut Partition, place: Evidence, what: &str, findings: &mut Findings) {
    partition.damage_count += 1;
    if partition.damage_count == 1 {
        findings.add(at(Kind::Damage, what, place));
    }
}

fn note(
    partition: u32,
    offset: u64,
    position: u64,
    recorded_at: Moment,
    commit: &Commit<'_>,
    data: &Value,
    book: &mut Book,
) -> Found {
    let is_whole = !commit.command.is_digest_only();
    let content = Content {
        command: book.names.number(&commit.command.type_name),
        data: is_whole.then(|| canonical::digest(data)),
        expected_version: commit.command.expected_version,
    };
    let numbered = (commit.from_version + 1..).zip(&commit.events);
    let events = numbered.map(|(version, event)| EventNote {
        id: event_id(&event.id),
        type_name: book.names.number(&event.type_name),
        version,
    });
    let came = match &commit.rejection {
        None => Came::Accepted(events.collect()),
        Some(rejection) => Came::Refused {
            code: book.names.number(&rejection.code),
        },
    };
    Found {
        partition,
        offset,
        position,
        from_version: commit.from_version,
        recorded_at,
        content,
        came,
    }
}

fn count(note: &Found, summary: &mut Summary) {
    match &note.came {
        Came::Accepted(events) => {
            summary.accepted += 1;
            summary.events += events.len() as u64;
        }
        Came::Refused { .. } => summary.refused += 1,
    }
}

/// Whether an event has another time than the client gave, or, if it gave none, a time after the
/// commit was recorded.
fn time_fault(commit: &Commit<'_>) -> Option<(Kind, String)> {
    let moment = |text: &Option<String>| text.as_deref().and_then(value::moment);
    let given = moment(&commit.command.occurred_at);
    let recorded_at = value::moment(&commit.recorded_at);
    let is_wrong = |at| match given {
        Some(given) => at != given,
        None => Some(at) > recorded_at,
    };
    let mut times = commit
        .events
        .iter()
        .filter_map(|event| moment(&event.occurred_at));
    times.any(is_wrong).then(|| {
        let detail = match given {
            Some(_) => "an event has another time than the time that its command gave",
            None => "an event has a time after the time at which it was recorded",
        };
        (Kind::BusinessTimeChanged, detail.to_owned())
    })
}

/// Whether an expected version was ignored, or a refusal for a stale version is wrong.
fn version_fault(commit: &Commit<'_>, is_stale: bool, version: u64) -> Option<(Kind, String)> {
    let expected = commit.command.expected_version;
    let conflict = commit
        .rejection
        .as_ref()
        .filter(|r| r.code == VERSION_CONFLICT);
    match (conflict, is_stale) {
        (None, false) => None,
        (None, true) => {
            let expected = expected.unwrap_or_default();
            let detail = format!("it expected version {expected}, but the stream is at {version}");
            Some((Kind::ExpectedVersionIgnored, detail))
        }
        (Some(_), false) => {
            let detail = match expected {
                Some(_) => format!("it expected version {version}, which the stream has"),
                None => "it expected no version".to_owned(),
            };
            Some((Kind::StaleRefusalContradicted, detail))
        }
        (Some(rejection), true) => {
            let fact = |name: &str| rejection.facts.get(name);
            let differs = |name: &str, value: Option<u64>| {
                fact(name).is_some_and(|fact| fact.as_u64() != value)
            };
            let is_wrong =
                differs("expected_version", expected) || differs("current_version", Some(version));
            is_wrong.then(|| {
                let detail = format!(
                    "its facts differ from the log, which has the stream at version {version}"
                );
                (Kind::StaleRefusalContradicted, detail)
            })
        }
    }
}

/// Whether a commit differs from what the rules decide.
fn rule_fault(ruling: Ruling, commit: &Commit<'_>) -> Option<(Kind, String)> {
    let detail = match (ruling, commit.outcome) {
        (Ruling::Silent, _) => return None,
        (Ruling::Refuse(code), Outcome::Accepted) => format!("the rules refuse it as {code}"),
        (Ruling::Refuse(code), Outcome::Rejected) => {
            let recorded = commit.rejection.as_ref().map_or("", |r| r.code.as_str());
            if recorded == code {
                return None;
            }
            format!("the rules refuse it as {code}, not as {recorded}")
        }
        (Ruling::Accept(_), Outcome::Rejected) => "the rules accept it".to_owned(),
        (Ruling::Accept(events), Outcome::Accepted) => {
            let decided = events
                .iter()
                .map(|(name, data)| (name.as_str(), canonical::digest(data)));
            let recorded = commit.events.iter().map(|event| {
                let data = serde_json::from_str(event.data.get()).unwrap_or(Value::Null);
                (event.type_name.as_str(), canonical::digest(&data))
            });
            if decided.eq(recorded) {
                return None;
            }
            "the rules decide other events".to_owned()
        }
    };
    Some((Kind::RuleBroken, detail))
}
