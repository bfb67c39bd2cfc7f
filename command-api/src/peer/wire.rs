//! The lines on a link: commands one way, their answers the other way.
//!
//! Invariant: a line contains no line break, and a form that the reader does not know never becomes
//! a wrong answer: a command that cannot be read completely is not attempted; an error of a kind
//! that is new to the reader is *unknown*. Deliberately absent: how lines are sent.

use std::time::{Duration, Instant};

use engine::command::{Answer, Became, Request, SubmitError, TurnedAway};
use engine::frozen::Frozen;
use engine::peers::{CommandForPeer, LinkAnswer};
use event_log::damage::{Damage, DamageKind};
use event_log::directory::Hint;
use kernel::{
    Actor, CausationId, CommandId, CorrelationId, StreamName, TenantId, Timestamp, TypeName,
};
use position::{Offset, Partition, Position};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most bytes of a command's line: a request body of the door, and room for the metadata.
pub(super) const COMMAND_SIZE_MAX: usize = 2 * door::BODY_SIZE_MAX;
/// The most bytes of an answer's line; the answer for a record of 900 kB full of small events is
/// smaller.
pub(super) const ANSWER_SIZE_MAX: usize = 4 << 20;

/// A command as it is sent.
#[derive(Serialize)]
struct CommandOut<'a> {
    sequence: u64,
    timeout_ms: u64,
    tenant: &'a TenantId,
    stream: &'a StreamName,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<u16>,
    id: &'a CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a CorrelationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<&'a CausationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<&'a Actor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
    data: &'a RawValue,
}

/// A command as it is received. An unknown field may change its meaning, so it is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandIn {
    sequence: u64,
    timeout_ms: u64,
    tenant: TenantId,
    stream: StreamName,
    command: TypeName,
    schema: Option<u16>,
    id: CommandId,
    occurred_at: Option<Timestamp>,
    expected_version: Option<u64>,
    correlation_id: Option<CorrelationId>,
    causation_id: Option<CausationId>,
    actor: Option<Actor>,
    trace: Option<String>,
    data: Box<RawValue>,
}

#[derive(Deserialize)]
struct SequenceOnly {
    sequence: u64,
}

/// A command's line as the serving node reads it.
#[derive(Debug)]
pub(super) enum CommandRead {
    Whole {
        /// Its number on the link.
        sequence: u64,
        /// How long its sender will still wait.
        wait: Duration,
        /// The command itself.
        request: Box<Request>,
    },
    /// A line with a number that is not a command this node knows, such as one from a newer version
    /// of the program.
    Strange(u64),
}

/// Writes a command's line, including its line break.
///
/// # Errors
/// The size of the line, if it is too long; nothing is written then.
pub(super) fn write_command(text: &mut Vec<u8>, command: &CommandForPeer) -> Result<(), usize> {
    let left = command.deadline.saturating_duration_since(Instant::now());
    let request = &command.request;
    let line = CommandOut {
        sequence: command.sequence,
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        tenant: &request.tenant,
        stream: &request.stream,
        command: &request.command,
        schema: request.schema,
        id: &request.id,
        occurred_at: request.occurred_at,
        expected_version: request.expected_version,
        correlation_id: request.correlation_id.as_ref(),
        causation_id: request.causation_id.as_ref(),
        actor: request.actor.as_ref(),
        trace: request.trace.as_deref(),
        data: &request.data,
    };
    let begin = text.len();
    put(text, &line);
    let size = text.len() - begin;
    if size > COMMAND_SIZE_MAX {
        text.truncate(begin);
        return Err(size);
    }
    // Data is sent as its client wrote it, perhaps over several lines. In JSON a raw line break can
    // only be white space, so a space means the same.
    for byte in &mut text[begin..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    text.push(b'\n');
    Ok(())
}

/// Reads a command's line; none if not even its number can be read.
pub(super) fn read_command(line: &[u8]) -> Option<CommandRead> {
    let Ok(command) = serde_json::from_slice::<CommandIn>(line) else {
        let SequenceOnly { sequence } = serde_json::from_slice(line).ok()?;
        return Some(CommandRead::Strange(sequence));
    };
    Some(CommandRead::Whole {
        sequence: command.sequence,
        wait: Duration::from_millis(command.timeout_ms.min(door::header::TIMEOUT_MS_MAX)),
        request: Box::new(Request {
            tenant: command.tenant,
            stream: command.stream,
            command: command.command,
            schema: command.schema,
            id: command.id,
            occurred_at: command.occurred_at,
            expected_version: command.expected_version,
            correlation_id: command.correlation_id,
            causation_id: command.causation_id,
            actor: command.actor,
            trace: command.trace,
            data: command.data,
        }),
    })
}

/// An answer as it is sent: exactly one of `answer`, `error` and `moved`.
#[derive(Serialize)]
struct AnswerOut<'a> {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<WireError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<Moved>,
}

#[derive(Deserialize)]
struct AnswerIn {
    sequence: u64,
    answer: Option<Answer>,
    error: Option<WireError>,
    moved: Option<Moved>,
}

/// The command was not decided here; names the owner if known.
#[derive(Serialize, Deserialize)]
struct Moved {
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Hint>,
}

/// Writes an answer's line, including its line break.
pub(super) fn write_answer(text: &mut Vec<u8>, sequence: u64, answer: &LinkAnswer) {
    let mut line = AnswerOut {
        sequence,
        answer: None,
        error: None,
        moved: None,
    };
    match answer {
        LinkAnswer::Answered(Ok(answer)) => line.answer = Some(answer),
        LinkAnswer::Answered(Err(error)) => line.error = Some(error.into()),
        LinkAnswer::Moved(to) => line.moved = Some(Moved { to: to.clone() }),
    }
    put(text, &line);
    text.push(b'\n');
}

/// Reads an answer's line; none if not even its number can be read. Any other form that is new here
/// is *unknown*: the command may have been attempted.
pub(super) fn read_answer(line: &[u8]) -> Option<(u64, LinkAnswer)> {
    let unknown = LinkAnswer::Answered(Err(SubmitError::Unknown));
    let Ok(line) = serde_json::from_slice::<AnswerIn>(line) else {
        let SequenceOnly { sequence } = serde_json::from_slice(line).ok()?;
        return Some((sequence, unknown));
    };
    let answer = match (line.answer, line.error, line.moved) {
        (Some(answer), None, None) => LinkAnswer::Answered(Ok(answer)),
        (None, Some(error), None) => LinkAnswer::Answered(Err(error.into())),
        (None, None, Some(moved)) => LinkAnswer::Moved(moved.to),
        _ => unknown,
    };
    Some((line.sequence, answer))
}

/// What became of a command, in the form that is sent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireOutcome {
    Became(Became),
    Error(WireError),
}

/// Writes what became of a command.
pub(super) fn write_outcome(text: &mut Vec<u8>, outcome: &Result<Became, SubmitError>) {
    let outcome = match outcome {
        Ok(became) => WireOutcome::Became(became.clone()),
        Err(error) => WireOutcome::Error(error.into()),
    };
    put(text, &outcome);
}

/// Reads what became of a command; none if its form is new here.
pub(super) fn read_outcome(text: &[u8]) -> Option<Result<Became, SubmitError>> {
    Some(match serde_json::from_slice(text).ok()? {
        WireOutcome::Became(became) => Ok(became),
        WireOutcome::Error(error) => Err(error.into()),
    })
}

fn put(text: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(text, line).expect("strings and numbers are always written to memory");
}

/// [`SubmitError`] in the form that is sent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireError {
    IdReused,
    Unknown,
    TurnedAway {
        reason: WireReason,
        retry_after_ms: u64,
    },
    TooLarge {
        size: usize,
        max: usize,
    },
    StreamTooLarge {
        size: usize,
        max: usize,
    },
    Failed,
    Damaged {
        partition: Partition,
        offset: Offset,
        kind: WireDamage,
    },
    Frozen(Frozen),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireReason {
    Overloaded,
    Late,
    NotReady,
    Stopping,
    AfterUnanswered,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireDamage {
    Unlinked {
        expected: Position,
        found: Position,
        after: Option<Offset>,
    },
    Unclaimed,
    Unreadable(String),
    VersionGap {
        stream: String,
        expected: u64,
        found: u64,
    },
    ProofFailed(String),
}

impl From<&SubmitError> for WireError {
    fn from(error: &SubmitError) -> Self {
        match error {
            SubmitError::IdReused => Self::IdReused,
            SubmitError::Unknown => Self::Unknown,
            SubmitError::TurnedAway {
                reason,
                retry_after,
            } => Self::TurnedAway {
                reason: match reason {
                    TurnedAway::Overloaded => WireReason::Overloaded,
                    TurnedAway::Late => WireReason::Late,
                    TurnedAway::NotReady => WireReason::NotReady,
                    TurnedAway::Stopping => WireReason::Stopping,
                    TurnedAway::AfterUnanswered => WireReason::AfterUnanswered,
                },
                retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
            },
            SubmitError::TooLarge { size, max } => Self::TooLarge {
                size: *size,
                max: *max,
            },
            SubmitError::StreamTooLarge { size, max } => Self::StreamTooLarge {
                size: *size,
                max: *max,
            },
            SubmitError::Failed => Self::Failed,
            SubmitError::Damaged(damage) => Self::Damaged {
                partition: damage.partition,
                offset: damage.offset,
                kind: (&damage.kind).into(),
            },
            SubmitError::Frozen(frozen) => Self::Frozen(frozen.clone()),
        }
    }
}

impl From<WireError> for SubmitError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::IdReused => Self::IdReused,
            WireError::Unknown => Self::Unknown,
            WireError::TurnedAway {
                reason,
                retry_after_ms,
            } => Self::TurnedAway {
                reason: match reason {
                    WireReason::Overloaded => TurnedAway::Overloaded,
                    WireReason::Late => TurnedAway::Late,
                    WireReason::NotReady => TurnedAway::NotReady,
                    WireReason::Stopping => TurnedAway::Stopping,
                    WireReason::AfterUnanswered => TurnedAway::AfterUnanswered,
                },
                retry_after: Duration::from_millis(retry_after_ms),
            },
            WireError::TooLarge { size, max } => Self::TooLarge { size, max },
            WireError::StreamTooLarge { size, max } => Self::StreamTooLarge { size, max },
            WireError::Failed => Self::Failed,
            WireError::Damaged {
                partition,
                offset,
                kind,
            } => Self::Damaged(Damage {
                partition,
                offset,
                kind: kind.into(),
            }),
            WireError::Frozen(frozen) => Self::Frozen(frozen),
        }
    }
}

impl From<&DamageKind> for WireDamage {
    fn from(kind: &DamageKind) -> Self {
        match kind {
            DamageKind::Unlinked {
                expected,
                found,
                after,
            } => Self::Unlinked {
                expected: *expected,
                found: *found,
                after: *after,
            },
            DamageKind::Unclaimed => Self::Unclaimed,
            DamageKind::Unreadable(reason) => Self::Unreadable(reason.clone()),
            DamageKind::VersionGap {
                stream,
                expected,
                found,
            } => Self::VersionGap {
                stream: stream.clone(),
                expected: *expected,
                found: *found,
            },
            DamageKind::ProofFailed(reason) => Self::ProofFailed(reason.clone()),
        }
    }
}

impl From<WireDamage> for DamageKind {
    fn from(kind: WireDamage) -> Self {
        match kind {
            WireDamage::Unlinked {
                expected,
                found,
                after,
            } => Self::Unlinked {
                expected,
                found,
                after,
            },
            WireDamage::Unclaimed => Self::Unclaimed,
            WireDamage::Unreadable(reason) => Self::Unreadable(reason),
            WireDamage::VersionGap {
                stream,
                expected,
                found,
            } => Self::VersionGap {
                stream,
                expected,
                found,
            },
            WireDamage::ProofFailed(reason) => Self::ProofFailed(reason),
        }
    }
}

#[cfg(test)]
mod tests;
