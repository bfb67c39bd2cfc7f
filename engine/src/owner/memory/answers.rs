//! What the log says of a command, as an answer to its client.

use event_log::chain::Chain;
use event_log::commit::{Commit, Outcome};
use kernel::{CommandId, StreamName, TenantId};
use position::{Position, PositionToken};

use crate::command::{Answer, Decision, EventRef};
use crate::owner::store::IdHead;

/// What is known of a command id: where and when, and what was decided.
pub(in crate::owner) type KnownId = (IdHead, Decision);

/// The answer to the command that left `commit` at `position`.
pub(in crate::owner) fn answer_of(
    chain: &Chain,
    commit: &Commit,
    position: Position,
) -> Option<Answer> {
    Some(Answer {
        tenant: commit.tenant.clone(),
        stream: commit.stream.clone(),
        command_id: commit.command.id.clone(),
        version: commit.version(),
        position: PositionToken::at(chain.log?, chain.partition, position),
        decision: decision_of(commit)?,
        repeated: false,
    })
}

/// The decision that a commit records; absent if it is a rejection without a reason.
fn decision_of(commit: &Commit) -> Option<Decision> {
    match (commit.outcome, &commit.rejection) {
        (Outcome::Accepted, _) => {
            let events = commit.events.iter().zip(commit.from_version + 1..);
            let events = events.map(|(event, version)| EventRef {
                id: event.id,
                type_name: event.type_name.clone(),
                version,
            });
            Some(Decision::Accepted(events.collect()))
        }
        (Outcome::Rejected, Some(rejection)) => Some(Decision::Rejected(rejection.clone())),
        (Outcome::Rejected, None) => None,
    }
}

/// The answer to a repeated command, from what is known of its id.
pub(in crate::owner) fn answer_again(
    chain: &Chain,
    (tenant, stream, id): (&TenantId, &StreamName, &CommandId),
    (head, decision): KnownId,
) -> Answer {
    let log = chain
        .log
        .expect("nothing is known of a log without a claim");
    Answer {
        tenant: tenant.clone(),
        stream: stream.clone(),
        command_id: id.clone(),
        version: head.version,
        position: PositionToken::at(log, chain.partition, head.position),
        decision,
        repeated: false,
    }
}
