//! Judges each command alone: compares what its clients were told with its commits in the log.
//!
//! Deliberately absent: the order of commands among each other (`order`).

use crate::book::{Answer, Book, Came, Command, EventNote, Found, Said};
use crate::check::{Findings, Scope};
use crate::fold::VERSION_CONFLICT;
use crate::report::{Evidence, Kind};

/// Judges one command.
pub(crate) fn compare(book: &Book, command: &Command, scope: Scope, findings: &mut Findings) {
    count(command, findings);
    let judge = Judge { book, command };
    judge.commits(scope, findings);
    if !judge.answers_differ(findings) {
        judge.answers(findings);
    }
}

struct Judge<'a> {
    book: &'a Book,
    command: &'a Command,
}

impl Judge<'_> {
    fn add(&self, kind: Kind, detail: &str, evidence: Vec<Evidence>, findings: &mut Findings) {
        let detail = detail.to_owned();
        findings.add(self.book.about(kind, self.command, detail, evidence));
    }

    /// The place of an answer, and the places of the command's commits.
    fn places(&self, answer: &Answer) -> Vec<Evidence> {
        let commits = self.command.commits.iter().map(Found::evidence);
        std::iter::once(self.book.evidence(&answer.at))
            .chain(commits)
            .collect()
    }

    /// Whether clients got two different answers of the log to this command.
    fn answers_differ(&self, findings: &mut Findings) -> bool {
        // After the idempotency window, the id names a new command, which has its own answer.
        if self.command.commits.len() > 1 {
            return false;
        }
        let mut heard = self.command.attempts.iter().filter_map(|a| a.of_the_log());
        let Some(first) = heard.next() else {
            return false;
        };
        let Some(other) = heard.find(|other| differ(first, other)) else {
            return false;
        };
        let mut evidence = vec![self.book.evidence(&first.at)];
        evidence.extend(self.places(other));
        self.add(
            Kind::AnswersDiffer,
            "it got two different answers",
            evidence,
            findings,
        );
        true
    }

    /// Each commit must belong to a command that was sent and may have been attempted.
    fn commits(&self, scope: Scope, findings: &mut Findings) {
        for found in &self.command.commits {
            if self.command.attempts.is_empty() {
                if scope == Scope::Complete {
                    let detail = "no client sent it";
                    self.add(Kind::Invented, detail, vec![found.evidence()], findings);
                }
                continue;
            }
            self.commit(found, findings);
        }
    }

    fn commit(&self, found: &Found, findings: &mut Findings) {
        let attempts = self.command.attempts.iter();
        let same: Vec<_> = attempts
            .filter(|a| a.content.agrees(&found.content))
            .collect();
        let mut evidence = vec![found.evidence()];
        let Some(first) = same.first() else {
            let sent = self
                .command
                .attempts
                .iter()
                .map(|a| self.book.evidence(&a.sent));
            evidence.extend(sent);
            let detail = "type, data or expected version are not what was sent";
            return self.add(Kind::DataChanged, detail, evidence, findings);
        };
        let may_be = |said: &Said| match said {
            Said::Accepted { .. } | Said::Refused { .. } | Said::Unknown => true,
            Said::TurnedAway | Said::Failed => false,
        };
        if same.iter().any(|attempt| may_be(attempt.said())) {
            return;
        }
        let heard = |attempt: &&&crate::book::Attempt| *attempt.said() == Said::Failed;
        let failed = same.iter().find(heard);
        let last = failed.unwrap_or(first);
        evidence.extend(last.answer.as_ref().map(|a| self.book.evidence(&a.at)));
        let (kind, detail) = match (failed, &found.came) {
            (Some(_), Came::Accepted(events)) if !events.is_empty() => (
                Kind::GhostEvent,
                "it was answered as failed for good, but left events",
            ),
            (Some(_), _) => {
                let detail = "it was answered as failed for good, but was recorded";
                (Kind::AnswerContradicted, detail)
            }
            (None, _) => {
                let detail = "every answer was \"not attempted\", but it was recorded";
                (Kind::AttemptedAlthoughTurnedAway, detail)
            }
        };
        self.add(kind, detail, evidence, findings);
    }

    /// Each answer of the log must agree with the log. One violation for each command is enough.
    fn answers(&self, findings: &mut Findings) {
        for answer in self.command.attempts.iter().filter_map(|a| a.of_the_log()) {
            let fault = match &answer.said {
                Said::Accepted { version, events } => self.accepted(*version, events),
                Said::Refused {
                    code,
                    version,
                    versions,
                } => self.refused(*code, *version, *versions),
                Said::TurnedAway | Said::Failed | Said::Unknown => None,
            };
            if let Some((kind, detail)) = fault {
                return self.add(kind, detail, self.places(answer), findings);
            }
        }
    }

    fn accepted(&self, version: u64, events: &[EventNote]) -> Option<(Kind, &'static str)> {
        let commits = &self.command.commits;
        if commits.is_empty() {
            return Some((
                Kind::Lost,
                "it was answered as accepted, but is not in the log",
            ));
        }
        let mut found = commits.iter().filter_map(|found| match &found.came {
            Came::Accepted(events) => Some((found, events)),
            Came::Refused { .. } => None,
        });
        let Some((first, held)) = found.next() else {
            let detail = "it was answered as accepted, but is recorded as refused";
            return Some((Kind::AnswerContradicted, detail));
        };
        let is = |found: &Found, held: &[EventNote]| found.version() == version && held == events;
        if is(first, held) || found.any(|(found, held)| is(found, held)) {
            return None;
        }
        let is_part = held.len() < events.len()
            && held
                .iter()
                .all(|held| events.iter().any(|event| event.id == held.id));
        if is_part && commits.len() == 1 {
            return Some((Kind::Torn, "its commit lacks events that the answer named"));
        }
        let detail = "its version or events differ from the answer";
        Some((Kind::AnswerContradicted, detail))
    }

    fn refused(
        &self,
        code: u32,
        version: Option<u64>,
        versions: (Option<u64>, Option<u64>),
    ) -> Option<(Kind, &'static str)> {
        let commits = &self.command.commits;
        if commits.is_empty() {
            return Some((
                Kind::LostRefusal,
                "it was answered as refused, but is not in the log",
            ));
        }
        let refusals: Vec<_> = commits
            .iter()
            .filter(|found| matches!(found.came, Came::Refused { .. }))
            .collect();
        if refusals.is_empty() {
            let has_events = commits
                .iter()
                .any(|found| found.version() > found.from_version);
            return Some(if has_events {
                (
                    Kind::GhostEvent,
                    "it was answered as refused, but left events",
                )
            } else {
                let detail = "it was answered as refused, but is recorded as accepted";
                (Kind::AnswerContradicted, detail)
            });
        }
        let same = |found: &&&Found| found.came == Came::Refused { code };
        let Some(found) = refusals.iter().find(same) else {
            let detail = "its recorded reason differs from the answer";
            return Some((Kind::AnswerContradicted, detail));
        };
        if self.book.names.text(code) == VERSION_CONFLICT {
            let (expected, current) = versions;
            let differs = |said: Option<u64>, is| said.is_some_and(|said| said != is);
            let expected_is = found.content.expected_version.unwrap_or_default();
            if differs(expected, expected_is) || differs(current, found.from_version) {
                let detail = "the versions in the answer differ from those in the log";
                return Some((Kind::StaleRefusalContradicted, detail));
            }
        }
        if version.is_some_and(|version| version != found.from_version) {
            let detail = "the version in the answer differs from that in the log";
            return Some((Kind::AnswerContradicted, detail));
        }
        None
    }
}

/// Whether two answers of the log contradict each other in what both of them state.
fn differ(one: &Answer, other: &Answer) -> bool {
    let both = |a: Option<u64>, b: Option<u64>| a.zip(b).is_none_or(|(a, b)| a == b);
    let said = match (&one.said, &other.said) {
        (
            Said::Refused {
                code,
                version,
                versions,
            },
            Said::Refused {
                code: c,
                version: v,
                versions: vs,
            },
        ) => code == c && both(*version, *v) && both(versions.0, vs.0) && both(versions.1, vs.1),
        (one, other) => one == other,
    };
    let position = one.position.zip(other.position).is_none_or(|(a, b)| a == b);
    !(said && position)
}

/// Counts the attempts and the known outcome of a command.
fn count(command: &Command, findings: &mut Findings) {
    if command.attempts.is_empty() {
        return;
    }
    let summary = &mut findings.summary;
    summary.commands += 1;
    let (mut settled, mut open) = (None, false);
    for attempt in &command.attempts {
        summary.attempts += 1;
        let name = match (&attempt.answer, attempt.said()) {
            (None, _) => "unanswered",
            (Some(_), Said::Accepted { .. }) => "ok",
            (Some(_), Said::Refused { .. }) => "refused",
            (Some(_), Said::TurnedAway) => "turned_away",
            (Some(_), Said::Failed) => "failed",
            (Some(_), Said::Unknown) => "unknown",
        };
        *summary.answers.entry(name).or_default() += 1;
        match attempt.said() {
            Said::Accepted { .. } => settled = Some("ok"),
            Said::Refused { .. } => settled = settled.or(Some("refused")),
            Said::Failed => settled = settled.or(Some("failed")),
            Said::Unknown => open = true,
            Said::TurnedAway => {}
        }
    }
    let known = settled.unwrap_or(if open { "unknown" } else { "turned_away" });
    *summary.known_as.entry(known).or_default() += 1;
    if known == "unknown" {
        let unknowns = &mut summary.unknown_resolved;
        match command.commits.first().map(|found| &found.came) {
            Some(Came::Accepted(_)) => unknowns.accepted += 1,
            Some(Came::Refused { .. }) => unknowns.refused += 1,
            None => unknowns.absent += 1,
        }
    }
}
