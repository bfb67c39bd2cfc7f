//! The judgement of one recorded command against the state that its stream has now.
//!
//! Invariant: pure. The order is that of an owner: the expected version, then the rules. What cannot
//! be judged counts as it was recorded. Deliberately absent: where states are kept (`states`).

use engine::owner::VERSION_CONFLICT;
use event_log::commit::{Commit, EventPart, Outcome, REFUSED_DATA_SIZE_MAX};
use kernel::registry::{Aggregate, Decided, DecidedEvent, MessageError, Opaque};
use kernel::{Context, RecordedRejection, Timestamp, canonical_json};
use serde::Deserialize;

use super::{Answer, DecidedPart, Reason, Verdict};

/// A stream as its commands left it, judged by the rules of this program.
pub(super) struct Stream {
    /// Absent if its events could not be folded.
    pub(super) state: Option<Opaque>,
    /// How many events it has.
    pub(super) version: u64,
    /// Whether its events are not those that were recorded.
    pub(super) differs: bool,
    /// The size of its state, about.
    pub(super) bytes: usize,
    /// When it was used last.
    pub(super) used: u64,
}

/// What stands in the log for the data of a large refused command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Digested {
    #[serde(rename = "$digest")]
    digest: Digest,
}

#[derive(Deserialize)]
struct Digest {
    bytes: usize,
}

/// Judges a recorded command, and takes up what it leads to now. The place of the answer is left to
/// the caller.
pub(super) fn judge(
    aggregate: Option<&dyn Aggregate>,
    stream: &mut Stream,
    commit: &Commit,
) -> Answer {
    let (follows, version) = (stream.differs, stream.version);
    let found = match aggregate {
        Some(aggregate) => found(aggregate, stream, commit),
        None => Err((Reason::NoRules, None)),
    };
    let moved = (version != commit.from_version).then_some(version);
    let (verdict, decided) = match found {
        Ok(found) => found,
        Err((reason, detail)) => {
            count_as_recorded(aggregate, stream, commit);
            return Answer {
                version: moved,
                reason: Some(reason),
                detail,
                ..answer(Verdict::NotJudgeable, follows)
            };
        }
    };
    if verdict == Verdict::Same {
        return Answer {
            version: moved,
            ..answer(Verdict::Same, false)
        };
    }
    let (rejection, events) = match decided {
        Ok(events) => (None, events),
        Err(rejection) => (Some(rejection), Vec::new()),
    };
    let types = events.iter().map(|event| event.type_name.to_string());
    Answer {
        version: moved,
        rejection,
        events: types.collect(),
        decided: events.into_iter().map(part).collect(),
        ..answer(verdict, follows)
    }
}

fn answer(verdict: Verdict, follows: bool) -> Answer {
    Answer {
        partition: 0,
        position: 0,
        verdict,
        follows,
        version: None,
        rejection: None,
        events: Vec::new(),
        decided: Vec::new(),
        reason: None,
        detail: None,
    }
}

fn part(event: DecidedEvent) -> DecidedPart {
    DecidedPart {
        type_name: event.type_name,
        schema: event.schema,
        data: event.data,
    }
}

type Found = (Verdict, Decided);
type NotJudgeable = (Reason, Option<String>);

fn found(
    aggregate: &dyn Aggregate,
    stream: &mut Stream,
    commit: &Commit,
) -> Result<Found, NotJudgeable> {
    let because = |reason, error: &dyn std::error::Error| (reason, Some(kernel::explained(error)));
    let Some(state) = &stream.state else {
        return Err((Reason::StreamUnreadable, None));
    };
    if is_digest(commit) {
        return Err((Reason::OnlyDigestRecorded, None));
    }
    let command = &commit.command;
    let read = aggregate.decode_command(&command.type_name, command.schema, command.data.get());
    let read = read.map_err(|error| because(Reason::CommandUnreadable, &error))?;
    let context = context(commit);
    let decided = match command.expected_version {
        Some(expected) if expected != stream.version => {
            Err(version_conflict(expected, stream.version))
        }
        _ => aggregate
            .decide(state, &read, &context)
            .map_err(|error| because(Reason::RuleFailed, &error))?,
    };
    let is_changed = is_changed(aggregate, &decided, commit);
    let verdict = verdict(&decided, commit, is_changed);
    if let Ok(events) = &decided {
        take_up(aggregate, stream, events, context.occurred_at);
    }
    stream.differs |= is_changed;
    Ok((verdict, decided))
}

/// Whether the events are other ones than those that were recorded.
fn is_changed(aggregate: &dyn Aggregate, decided: &Decided, commit: &Commit) -> bool {
    let events = decided.as_ref().map_or(&[][..], Vec::as_slice);
    events.len() != commit.events.len()
        || !events
            .iter()
            .zip(&commit.events)
            .all(|(now, was)| is_same(aggregate, now, was))
}

fn verdict(decided: &Decided, commit: &Commit, is_changed: bool) -> Verdict {
    match (decided, &commit.rejection) {
        (Err(now), Some(was)) if now.code == was.code => Verdict::Same,
        (Err(_), _) => Verdict::Refused,
        (Ok(_), None) if !is_changed => Verdict::Same,
        (Ok(_), _) => Verdict::Accepted,
    }
}

/// Whether a decided event says what the recorded one says, in the newest shape of its type.
fn is_same(aggregate: &dyn Aggregate, now: &DecidedEvent, was: &EventPart) -> bool {
    if now.type_name != was.type_name {
        return false;
    }
    if now.schema == was.schema && now.data.get() == was.data.get() {
        return true;
    }
    let Ok(newest) = aggregate.newest_event(&was.type_name, was.schema, &was.data) else {
        return false;
    };
    let canonical = |data: &str| canonical_json(data).ok();
    now.schema == newest.schema && canonical(now.data.get()) == canonical(newest.data.get())
}

fn take_up(
    aggregate: &dyn Aggregate,
    stream: &mut Stream,
    events: &[DecidedEvent],
    occurred_at: Timestamp,
) {
    let parts = events
        .iter()
        .map(|it| (&*it.type_name, it.schema, it.data.get(), occurred_at));
    fold(Some(aggregate), stream, parts);
}

/// The command is not judged: what it left in the log is taken up.
fn count_as_recorded(aggregate: Option<&dyn Aggregate>, stream: &mut Stream, commit: &Commit) {
    let parts = commit.events.iter().map(|event| {
        let occurred_at = commit.occurred_at(event);
        (
            &*event.type_name,
            event.schema,
            event.data.get(),
            occurred_at,
        )
    });
    fold(aggregate, stream, parts);
}

/// Folds events into a stream. After an error the state may be half changed: it is thrown away, and
/// nothing after it can be judged.
fn fold<'a>(
    aggregate: Option<&dyn Aggregate>,
    stream: &mut Stream,
    events: impl Iterator<Item = (&'a str, u16, &'a str, Timestamp)>,
) {
    for (type_name, schema, data, occurred_at) in events {
        stream.version = stream.version.saturating_add(1);
        stream.bytes += data.len();
        let Some((aggregate, state)) = aggregate.zip(stream.state.as_mut()) else {
            continue;
        };
        let folded: Result<(), MessageError> =
            aggregate.evolve_recorded(state, type_name, schema, data, occurred_at);
        if folded.is_err() {
            stream.state = None;
        }
    }
}

/// The circumstances under which the command was decided. A business time that the clock filled in
/// stands in the events; a commit without events has it only as its recorded time.
fn context(commit: &Commit) -> Context {
    let of_event = commit.events.first();
    Context {
        occurred_at: of_event.map_or_else(|| commit.asked_at(), |event| commit.occurred_at(event)),
        is_time_given: commit.command.occurred_at.is_some(),
        actor: commit.actor.clone(),
        tenant: commit.tenant.clone(),
        command_id: commit.command.id.clone(),
    }
}

fn is_digest(commit: &Commit) -> bool {
    let data = commit.command.data.get();
    commit.outcome == Outcome::Rejected
        && data.starts_with("{\"$digest\":")
        && serde_json::from_str(data)
            .is_ok_and(|it: Digested| it.digest.bytes > REFUSED_DATA_SIZE_MAX)
}

fn version_conflict(expected: u64, current: u64) -> RecordedRejection {
    RecordedRejection {
        code: VERSION_CONFLICT.to_owned(),
        detail: format!("the stream is at version {current}, not at {expected}"),
        facts: serde_json::Map::new(),
    }
}
