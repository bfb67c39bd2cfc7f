//! What would differ: counted by rule, with the first examples of each.
//!
//! Invariant: memory is bounded: a number of rules, a number of examples each, and texts of a
//! bounded length. Deliberately absent: where verdicts come from (`program`).

use std::collections::BTreeMap;

use event_log::commit::Outcome;
use event_log::subscription::{Batch, Placed};
use kernel::{ActorKind, Timestamp};
use serde::Serialize;

use super::building::ReadModels;
use super::program::{Judge, name_of};
use crate::command::rules::{Answer, Verdict};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::settings::{OutputFormat, Settings};

/// How many rules are counted apart; commands of further rules are counted together.
const RULES_MAX: usize = 200;
/// The name of those that are counted together.
const FURTHER: &str = "(further)";
/// How much is kept of a text in an example, in characters.
const TEXT_MAX: usize = 300;

/// What changes for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    /// It was accepted and is refused; the rule is the one that refuses it now.
    AcceptedNowRefused,
    /// It was refused and is accepted; the rule is the one that refused it.
    RefusedNowAccepted,
    /// It was refused and is refused by another rule; both are named.
    RefusedByAnotherRule,
    /// It was accepted and is accepted with other events; the rule is the type of the command.
    AcceptedWithOtherEvents,
}

/// How many commands there were, and what became of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    /// All that were judged.
    pub(super) commands: u64,
    /// Decided as they were recorded.
    same: u64,
    accepted_now_refused: u64,
    refused_now_accepted: u64,
    refused_by_another_rule: u64,
    accepted_with_other_events: u64,
    /// Differences of any kind behind an earlier one of the same stream; not in the numbers above.
    following: u64,
    /// Not in the numbers above.
    not_judgeable: u64,
}

/// What was decided on a command.
#[derive(Debug, Serialize)]
struct Decision {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<String>,
}

/// One command.
#[derive(Debug, Serialize)]
struct Example {
    partition: u32,
    position: u64,
    tenant: String,
    stream: String,
    /// The stream's recorded version before the command.
    version: u64,
    /// The version that the stream would have instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    version_now: Option<u64>,
    command: String,
    command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<ExampleActor>,
    recorded_at: Timestamp,
    was: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Serialize)]
struct ExampleActor {
    kind: ActorKind,
    id: String,
}

/// Commands of one rule.
#[derive(Debug, Default, Serialize)]
struct Found {
    count: u64,
    examples: Vec<Example>,
}

#[derive(Debug, Serialize)]
struct Group<'a> {
    change: Change,
    rule: &'a str,
    #[serde(flatten)]
    found: &'a Found,
}

#[derive(Debug, Serialize)]
struct Left<'a> {
    reason: &'a str,
    #[serde(flatten)]
    found: &'a Found,
}

#[derive(Debug, Serialize)]
struct Reached {
    partition: u32,
    position: u64,
}

type Groups = BTreeMap<(Change, String), Found>;

/// All that is known.
pub(super) struct Report {
    program: String,
    program_version: String,
    log: Option<String>,
    /// Whether the whole log was judged.
    pub(super) complete: bool,
    pub(super) totals: Totals,
    differences: Groups,
    following: Groups,
    not_judgeable: BTreeMap<String, Found>,
    reached: BTreeMap<u32, u64>,
    examples_max: usize,
    pub(super) read_models: Option<ReadModels>,
}

impl Report {
    pub(super) fn new(judge: &Judge, examples_max: usize) -> Self {
        Self {
            program: judge.hello.program.clone(),
            program_version: judge.hello.version.clone(),
            log: None,
            complete: false,
            totals: Totals::default(),
            differences: Groups::new(),
            following: Groups::new(),
            not_judgeable: BTreeMap::new(),
            reached: BTreeMap::new(),
            examples_max,
            read_models: None,
        }
    }

    /// Notes which log is read.
    pub(super) fn reads(&mut self, batch: &Batch) {
        self.log = batch.after.log.map(|log| log.to_string());
    }

    /// Takes up what the rules say now of one command.
    pub(super) fn take(&mut self, placed: &Placed, answer: &Answer) {
        self.totals.commands += 1;
        self.reached.insert(placed.partition.0, placed.position.0);
        let (partition, position) = (placed.partition, placed.position);
        tracing::debug!(%partition, %position, "judged again");
        let was_refused = placed.commit.outcome == Outcome::Rejected;
        let (change, rule) = match (answer.verdict, was_refused) {
            (Verdict::Same, _) => return self.totals.same += 1,
            (Verdict::NotJudgeable, _) => return self.leave(placed, answer),
            (Verdict::Refused, false) => (Change::AcceptedNowRefused, code_now(answer)),
            (Verdict::Accepted, true) => (Change::RefusedNowAccepted, code_was(placed)),
            (Verdict::Refused, true) => {
                let both = format!("{} → {}", code_was(placed), code_now(answer));
                (Change::RefusedByAnotherRule, both)
            }
            (Verdict::Accepted, false) => {
                let command = placed.commit.command.type_name.to_string();
                (Change::AcceptedWithOtherEvents, command)
            }
        };
        let groups = match answer.follows {
            true => {
                self.totals.following += 1;
                &mut self.following
            }
            false => {
                *self.totals.of(change) += 1;
                &mut self.differences
            }
        };
        let key = (change, cut(&rule));
        let key = match groups.len() < RULES_MAX || groups.contains_key(&key) {
            true => key,
            false => (change, FURTHER.to_owned()),
        };
        let now = Decision {
            outcome: match answer.verdict {
                Verdict::Accepted => Outcome::Accepted,
                _ => Outcome::Rejected,
            },
            rule: answer.rejection.as_ref().map(|it| cut(&it.code)),
            detail: answer.rejection.as_ref().map(|it| cut(&it.detail)),
            events: answer.events.clone(),
        };
        let found = groups.entry(key).or_default();
        found.add(self.examples_max, || {
            let mut example = example(placed);
            example.version_now = answer.version;
            example.now = Some(now);
            example
        });
    }

    fn leave(&mut self, placed: &Placed, answer: &Answer) {
        self.totals.not_judgeable += 1;
        let reason = answer.reason.map(name_of).unwrap_or_default();
        let found = self.not_judgeable.entry(reason).or_default();
        found.add(self.examples_max, || {
            let mut example = example(placed);
            example.detail = answer.detail.as_deref().map(cut);
            example
        });
    }

    fn differs(&self) -> bool {
        let models = self.read_models.as_ref();
        !self.differences.is_empty()
            || !self.following.is_empty()
            || models.is_some_and(|models| !models.comparison.equal)
    }

    pub(super) fn exit(&self) -> Exit {
        match (
            self.differs(),
            self.complete && self.not_judgeable.is_empty(),
        ) {
            (true, _) => Exit::Failed,
            (false, false) => Exit::Partial,
            (false, true) => Exit::Done,
        }
    }

    /// Prints it: one document, or tables for people.
    pub(super) fn show(&self, settings: &Settings) -> Result<(), Failure> {
        let left = self.not_judgeable.iter();
        let reached = self.reached.iter();
        let document = Document {
            log: self.log.as_deref(),
            program: &self.program,
            program_version: &self.program_version,
            complete: self.complete,
            totals: &self.totals,
            differences: groups(&self.differences),
            following: groups(&self.following),
            not_judgeable: left.map(|(reason, found)| Left { reason, found }).collect(),
            read_models: self.read_models.as_ref(),
            reached: reached
                .map(|(&partition, &position)| Reached {
                    partition,
                    position,
                })
                .collect(),
        };
        match settings.output {
            OutputFormat::Json | OutputFormat::Ndjson => {
                output::record(settings.output, &[], &document)
            }
            OutputFormat::Csv => output::rows(settings.output, &EXAMPLES, &self.examples()),
            OutputFormat::Table => self.show_tables(),
        }
    }

    fn show_tables(&self) -> Result<(), Failure> {
        output::record(OutputFormat::Table, &TOTALS, &self.totals)?;
        let rows = self.rules();
        if !rows.is_empty() {
            output::line("")?;
            output::rows(OutputFormat::Table, &RULES, &rows)?;
        }
        let examples = self.examples();
        if !examples.is_empty() {
            output::line("")?;
            output::rows(OutputFormat::Table, &EXAMPLES, &examples)?;
        }
        if let Some(models) = &self.read_models {
            output::line("")?;
            output::rows(OutputFormat::Table, &TABLES, &models.tables())?;
            models.tell_set_aside();
        }
        Ok(())
    }

    fn rules(&self) -> Vec<RuleRow<'_>> {
        let first = self.differences.iter().map(|it| (it, "no"));
        let then = self.following.iter().map(|it| (it, "yes"));
        let changed = first
            .chain(then)
            .map(|(((change, rule), found), follows)| RuleRow {
                change: change.told(),
                rule,
                follows,
                commands: found.count,
            });
        let left = self.not_judgeable.iter().map(|(reason, found)| RuleRow {
            change: "not judgeable",
            rule: reason,
            follows: "",
            commands: found.count,
        });
        changed.chain(left).collect()
    }

    fn examples(&self) -> Vec<ExampleRow<'_>> {
        let first = self.differences.iter().map(|it| (it, "no"));
        let then = self.following.iter().map(|it| (it, "yes"));
        let changed = first
            .chain(then)
            .flat_map(|(((change, _), found), follows)| {
                let row = move |example| ExampleRow::of(change.told(), follows, example);
                found.examples.iter().map(row)
            });
        let left = self.not_judgeable.values().flat_map(|found| {
            let row = |example| ExampleRow::of("not judgeable", "", example);
            found.examples.iter().map(row)
        });
        changed.chain(left).collect()
    }
}

#[derive(Serialize)]
struct Document<'a> {
    log: Option<&'a str>,
    program: &'a str,
    program_version: &'a str,
    complete: bool,
    totals: &'a Totals,
    differences: Vec<Group<'a>>,
    following: Vec<Group<'a>>,
    not_judgeable: Vec<Left<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_models: Option<&'a ReadModels>,
    reached: Vec<Reached>,
}

const TOTALS: [&str; 8] = [
    "commands",
    "same",
    "accepted_now_refused",
    "refused_now_accepted",
    "refused_by_another_rule",
    "accepted_with_other_events",
    "following",
    "not_judgeable",
];
const TABLES: [&str; 5] = ["table", "rows", "rows_as_it_is", "equal", "differences"];
const RULES: [&str; 4] = ["change", "rule", "follows", "commands"];
const EXAMPLES: [&str; 12] = [
    "change",
    "follows",
    "stream",
    "version",
    "command",
    "command_id",
    "actor",
    "was",
    "now",
    "recorded_at",
    "partition",
    "position",
];

#[derive(Serialize)]
struct RuleRow<'a> {
    change: &'static str,
    rule: &'a str,
    follows: &'static str,
    commands: u64,
}

#[derive(Serialize)]
struct ExampleRow<'a> {
    change: &'static str,
    follows: &'static str,
    stream: &'a str,
    version: u64,
    command: &'a str,
    command_id: &'a str,
    actor: String,
    was: String,
    now: String,
    recorded_at: Timestamp,
    partition: u32,
    position: u64,
}

impl<'a> ExampleRow<'a> {
    fn of(change: &'static str, follows: &'static str, example: &'a Example) -> Self {
        let actor = example.actor.as_ref();
        Self {
            change,
            follows,
            stream: &example.stream,
            version: example.version,
            command: &example.command,
            command_id: &example.command_id,
            actor: actor.map_or_else(String::new, |actor| {
                format!("{} {}", actor.kind.as_str(), actor.id)
            }),
            was: example.was.told(),
            now: match (&example.now, &example.detail) {
                (Some(now), _) => now.told(),
                (None, Some(detail)) => detail.clone(),
                (None, None) => String::new(),
            },
            recorded_at: example.recorded_at,
            partition: example.partition,
            position: example.position,
        }
    }
}

impl Change {
    fn told(self) -> &'static str {
        match self {
            Self::AcceptedNowRefused => "accepted, now refused",
            Self::RefusedNowAccepted => "refused, now accepted",
            Self::RefusedByAnotherRule => "refused by another rule",
            Self::AcceptedWithOtherEvents => "accepted with other events",
        }
    }
}

impl Totals {
    fn of(&mut self, change: Change) -> &mut u64 {
        match change {
            Change::AcceptedNowRefused => &mut self.accepted_now_refused,
            Change::RefusedNowAccepted => &mut self.refused_now_accepted,
            Change::RefusedByAnotherRule => &mut self.refused_by_another_rule,
            Change::AcceptedWithOtherEvents => &mut self.accepted_with_other_events,
        }
    }
}

impl Decision {
    fn told(&self) -> String {
        match (&self.rule, self.events.is_empty()) {
            (Some(rule), _) => rule.clone(),
            (None, true) => "no event".to_owned(),
            (None, false) => self.events.join(", "),
        }
    }
}

impl Found {
    fn add(&mut self, examples_max: usize, example: impl FnOnce() -> Example) {
        self.count += 1;
        if self.examples.len() < examples_max {
            self.examples.push(example());
        }
    }
}

fn groups(groups: &Groups) -> Vec<Group<'_>> {
    let mut all = Vec::with_capacity(groups.len());
    for ((change, rule), found) in groups {
        all.push(Group {
            change: *change,
            rule,
            found,
        });
    }
    all
}

fn example(placed: &Placed) -> Example {
    let commit = &placed.commit;
    let rejection = commit.rejection.as_ref();
    let events = commit.events.iter();
    Example {
        partition: placed.partition.0,
        position: placed.position.0,
        tenant: commit.tenant.as_str().to_owned(),
        stream: commit.stream.as_str().to_owned(),
        version: commit.from_version,
        version_now: None,
        command: commit.command.type_name.to_string(),
        command_id: commit.command.id.as_str().to_owned(),
        actor: commit.actor.as_ref().map(|actor| ExampleActor {
            kind: actor.kind,
            id: cut(&actor.id),
        }),
        recorded_at: commit.recorded_at,
        was: Decision {
            outcome: commit.outcome,
            rule: rejection.map(|it| cut(&it.code)),
            detail: rejection.map(|it| cut(&it.detail)),
            events: events.map(|event| event.type_name.to_string()).collect(),
        },
        now: None,
        detail: None,
    }
}

fn code_was(placed: &Placed) -> String {
    let rejection = placed.commit.rejection.as_ref();
    rejection.map(|it| it.code.clone()).unwrap_or_default()
}

fn code_now(answer: &Answer) -> String {
    let rejection = answer.rejection.as_ref();
    rejection.map(|it| it.code.clone()).unwrap_or_default()
}

/// The begin of a text.
fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
