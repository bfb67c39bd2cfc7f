//! What the log says of a command, as an answer to its client.

use event_log::chain::Chain;
use event_log::commit::Commit;
use kernel::{CommandId, StreamName, TenantId};
use position::{Position, PositionToken};

use crate::command::{Answer, Decision, EventRef};
use crate::owner::store::IdHead;

/// What is known of a command id: where and when, and what was decided.
pub(in crate::owner) type KnownId = (IdHead, Decision);

/// The answer to the command that left `commit` at `position`.
pub(in crate::owner) fn answer_of(chain: &Chain, commit: &Commit, position: Position) -> Answer {
    let who = (&commit.tenant, &commit.stream, &commit.command.id);
    answer(
        chain,
        who,
        (position, commit.version()),
        decision_of(commit),
    )
}

fn decision_of(commit: &Commit) -> Decision {
    if let Some(rejection) = &commit.rejection {
        return Decision::Rejected(rejection.clone());
    }
    let events = commit.events.iter().zip(commit.from_version + 1..);
    let events = events.map(|(event, version)| EventRef {
        id: event.id,
        type_name: event.type_name.clone(),
        version,
    });
    Decision::Accepted(events.collect())
}

/// The answer to a repeated command, from what is known of its id.
pub(in crate::owner) fn answer_again(
    chain: &Chain,
    who: (&TenantId, &StreamName, &CommandId),
    (head, decision): KnownId,
) -> Answer {
    answer(chain, who, (head.position, head.version), decision)
}

fn answer(
    chain: &Chain,
    (tenant, stream, id): (&TenantId, &StreamName, &CommandId),
    (position, version): (Position, u64),
    decision: Decision,
) -> Answer {
    let log = chain.log.expect("a log with a commit has a claim");
    Answer {
        tenant: tenant.clone(),
        stream: stream.clone(),
        command_id: id.clone(),
        version,
        position: PositionToken::at(log, chain.partition, position),
        decision,
        repeated: false,
    }
}
