//! Judges the order of commands: a command that was answered before another one was sent must be
//! decided before it; and the lines of a batch must be decided in their order.
//!
//! Invariant: two commands are compared only if one certainly came first. They must be of one
//! stream: the engine promises no order across streams.

use std::collections::{BTreeMap, BTreeSet};

use crate::book::{Attempt, Book, Command, Found, Said, When};
use crate::check::Findings;
use crate::report::{Evidence, Kind};

/// With how many earlier lines of its stream a batch's line is compared.
const LINES_BACK_MAX: usize = 64;

/// Judges the order of all commands.
pub(crate) fn compare(book: &Book, findings: &mut Findings) {
    real_time(book, findings);
    batches(book, findings);
}

/// The commit of a command that has exactly one. After the idempotency window an id may have
/// another commit, and then it is unknown which attempt led to which commit.
fn only_commit(command: &Command) -> Option<&Found> {
    match command.commits.as_slice() {
        [found] => Some(found),
        _ => None,
    }
}

/// A command that was sent and decided.
struct Decided<'a> {
    command: &'a Command,
    found: &'a Found,
}

fn real_time(book: &Book, findings: &mut Findings) {
    let sent = book.commands.iter().filter(|c| !c.attempts.is_empty());
    let decided = sent.filter_map(|command| {
        let found = only_commit(command)?;
        Some(Decided { command, found })
    });
    let mut decided: Vec<_> = decided.collect();
    let place = |one: &Decided<'_>| (one.found.partition, one.found.position);
    decided.sort_unstable_by_key(|one| (one.command.stream, place(one)));
    for stream in decided.chunk_by(|one, next| one.command.stream == next.command.stream) {
        stream_in_real_time(book, stream, findings);
    }
}

/// Each client's first answer to a command that was decided later, with that command's index.
#[derive(Default)]
struct Heard {
    first: BTreeMap<Client, (When, usize)>,
    /// The clients, ordered by the time of that answer, so that only a few must be examined.
    by_time: BTreeSet<(u64, Client)>,
}

/// A client and the file that it wrote.
type Client = (u32, u32);

fn client(when: &When) -> Client {
    (when.client, when.file)
}

impl Heard {
    fn note(&mut self, heard: When, whose: usize) {
        let client = client(&heard);
        if let Some((first, _)) = self.first.get(&client) {
            if first.line <= heard.line {
                return;
            }
            self.by_time.remove(&(first.at_ms, client));
        }
        self.by_time.insert((heard.at_ms, client));
        self.first.insert(client, (heard, whose));
    }

    /// An answer that was heard before each of these sendings.
    ///
    /// A client that sent is compared by lines, so each such client is examined. Of all other
    /// clients the earliest answer is enough; it is among the first few by time.
    fn before(&self, sent: &[When]) -> Option<(When, usize)> {
        let own: BTreeSet<Client> = sent.iter().map(client).collect();
        let others = self.by_time.iter().map(|(_, client)| client);
        let candidates = own.iter().chain(others.take(own.len() + 1));
        let mut candidates = candidates.filter_map(|client| self.first.get(client));
        let precedes = |heard: &When| sent.iter().all(|sent| heard.precedes(sent));
        candidates.find(|(heard, _)| precedes(heard)).copied()
    }
}

/// Goes from the last decision back: a client must not have heard the answer to a later decision
/// before an earlier decided command was sent.
fn stream_in_real_time(book: &Book, decided: &[Decided<'_>], findings: &mut Findings) {
    let mut later = Heard::default();
    for (index, earlier) in decided.iter().enumerate().rev() {
        // The first sending may have led to the decision, so every sending must be too late.
        let attempts = &earlier.command.attempts;
        let sent: Vec<When> = attempts.iter().map(|attempt| attempt.sent).collect();
        if let Some((heard, whose)) = later.before(&sent) {
            let other = &decided[whose];
            let detail = format!(
                "it was decided before command {}, which had been answered before it was sent",
                other.command.id
            );
            let evidence = vec![
                book.evidence(&sent[0]),
                earlier.found.evidence(),
                book.evidence(&heard),
                other.found.evidence(),
            ];
            findings.add(book.about(Kind::OutOfOrder, earlier.command, detail, evidence));
        }
        for answer in attempts.iter().filter_map(Attempt::of_the_log) {
            later.note(answer.at, index);
        }
    }
}

fn batches(book: &Book, findings: &mut Findings) {
    let mut batches: BTreeMap<(u32, u32), Vec<(u64, usize)>> = BTreeMap::new();
    for (index, command) in book.commands.iter().enumerate() {
        for (batch, line) in command.attempts.iter().filter_map(|a| a.batch) {
            let lines = batches.entry((batch, command.stream)).or_default();
            lines.push((line, index));
        }
    }
    for ((batch, _), mut lines) in batches {
        lines.sort_unstable();
        for (at, (_, later)) in lines.iter().enumerate() {
            let back = &lines[at.saturating_sub(LINES_BACK_MAX)..at];
            for (_, earlier) in back {
                let pair = (&book.commands[*earlier], &book.commands[*later]);
                if earlier != later && line_fault(book, batch, pair, findings) {
                    break;
                }
            }
        }
    }
}

/// Judges two lines of one stream in one batch; returns whether there is a fault.
fn line_fault(
    book: &Book,
    batch: u32,
    (earlier, later): (&Command, &Command),
    findings: &mut Findings,
) -> bool {
    let Some(found) = only_commit(later) else {
        return false;
    };
    let settled = || earlier.attempts.iter().filter_map(Attempt::settled);
    let stands_behind = |attempt: &Attempt| {
        let is_line = attempt.batch.is_some_and(|(batch, line)| {
            let before = |other: &Attempt| other.batch.is_some_and(|(b, l)| b == batch && l < line);
            earlier.attempts.iter().any(before)
        });
        is_line || settled().any(|answer| answer.at.precedes(&attempt.sent))
    };
    // The later command was also sent in another way, and may have been decided then.
    if !later.attempts.iter().all(stands_behind) {
        return false;
    }
    let (detail, more) = match earlier.commits.as_slice() {
        [] if settled().next().is_some() => return false,
        [] => ("and that one was never decided", None),
        [before] if before.position < found.position => return false,
        [before] => ("and that one was decided later", Some(before.evidence())),
        _ => return false,
    };
    let in_batch = |attempt: &&Attempt| attempt.batch.is_some_and(|(b, _)| b == batch);
    let had_answer = earlier
        .attempts
        .iter()
        .filter(in_batch)
        .all(|attempt| match attempt.said() {
            Said::Accepted { .. } | Said::Refused { .. } | Said::Failed => true,
            Said::TurnedAway | Said::Unknown => false,
        });
    let kind = match had_answer {
        true => Kind::BatchOutOfOrder,
        false => Kind::BehindUnanswered,
    };
    let sent = |command: &Command| {
        let attempt = command.attempts.iter().find(in_batch);
        attempt.map(|attempt| book.evidence(&attempt.sent))
    };
    let mut evidence: Vec<Evidence> = sent(later).into_iter().collect();
    evidence.push(found.evidence());
    evidence.extend(sent(earlier));
    evidence.extend(more);
    let detail = format!(
        "it stands behind command {} in its batch, {detail}",
        earlier.id
    );
    findings.add(book.about(kind, later, detail, evidence));
    true
}
