//! `annals rules judge`: judges recorded commands again with the rules of this program. It is the
//! other end of `annals what-if`, and reads and writes lines of JSON.
//!
//! Invariant: it reads no log and writes nothing but its answers, one for each line, in order. Its
//! memory is bounded: the states of streams that were not used lately lie in a temporary file.
//! Deliberately absent: what becomes of the answers (`what_if`).

mod judge;
mod states;

use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};

use clap::{Args, Subcommand};
use event_log::commit::{COMMIT_SIZE_MAX, Commit, stream_key};
use kernel::{RecordedRejection, TypeName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::states::States;
use super::raw::BUFFER_BYTES;
use crate::Domain;
use crate::exit::{Exit, Failure};
use crate::program;

/// The version of the exchange. It changes with every change of what may be read or written here.
pub(super) const EXCHANGE_VERSION: u32 = 1;
/// The longest line of either side, in bytes: a commit with its place, or what was decided on it.
pub(super) const LINE_BYTES_MAX: usize = 2 * COMMIT_SIZE_MAX;

const JUDGE_HELP: &str = "\
This is the other end of annals what-if. The first line on stdout is {\"exchange\":1,…}. Then each line of
stdin, an accepted commit in the form of annals log dump, gets one line: the verdict is same, accepted,
refused, or not_judgeable. The program reads no log and changes nothing.

Example:
  annals log dump --accepted | annals rules judge | grep -v '\"same\"'";

/// What can be done with the rules alone.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Judge recorded commands again with the rules of this program, for annals what-if
    #[command(after_help = JUDGE_HELP)]
    Judge(JudgeArgs),
}

/// Arguments of `rules judge`.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// Memory for the states of streams, in kilobytes of JSON; those that were not used for longest go
    /// to a temporary file
    #[arg(long, value_name = "KB", default_value_t = 32_768,
          value_parser = clap::value_parser!(u32).range(1..))]
    states_max_kb: u32,
    /// Also write the events of what is accepted otherwise, with their data
    #[arg(long)]
    events: bool,
}

/// The first line: who judges.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// [`EXCHANGE_VERSION`] of the program.
    pub(super) exchange: u32,
    /// Its name.
    pub(super) program: String,
    /// Its version.
    pub(super) version: String,
    /// The categories that it has rules for.
    pub(super) categories: Vec<String>,
}

/// A recorded command. What the line says beside is not needed.
#[derive(Deserialize)]
struct Asked {
    partition: u32,
    position: u64,
    commit: Box<RawValue>,
}

/// What the rules say now of a recorded command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// What was recorded: the same events, or a refusal by the same rule.
    Same,
    /// It is accepted. It was refused, or had other events.
    Accepted,
    /// It is refused. It was accepted, or refused by another rule.
    Refused,
    /// It cannot be judged, and counts as it was recorded.
    NotJudgeable,
}

/// Why a command cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// Its data was recorded only as size and digest.
    OnlyDigestRecorded,
    /// The program has no rules for the stream's category.
    NoRules,
    /// The program cannot read the command.
    CommandUnreadable,
    /// The rules failed on it.
    RuleFailed,
    /// The program cannot fold the events of the stream before it.
    StreamUnreadable,
}

/// An event that would have been recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DecidedPart {
    /// The name of its type.
    #[serde(rename = "type")]
    pub(super) type_name: TypeName,
    /// The number of its data's shape.
    pub(super) schema: u16,
    /// Its data.
    pub(super) data: Box<RawValue>,
}

/// One answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The partition of the line that it answers.
    pub(super) partition: u32,
    /// The position of the line that it answers.
    pub(super) position: u64,
    /// What the rules say now.
    pub(super) verdict: Verdict,
    /// Whether an earlier difference changed the events of the stream, so that this may follow from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) follows: bool,
    /// The version of the stream before the command, if it is not the recorded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u64>,
    /// The rule that refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rejection: Option<RecordedRejection>,
    /// The types of its events, if it is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<String>,
    /// The same events with their data, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) decided: Vec<DecidedPart>,
    /// Why it cannot be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
    /// More about the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Runs `rules …`.
pub(super) async fn run(domain: &Domain, command: RulesCommand) -> Result<Exit, Failure> {
    match command {
        RulesCommand::Judge(args) => judge(domain, &args).await,
    }
}

async fn judge(domain: &Domain, args: &JudgeArgs) -> Result<Exit, Failure> {
    let registry = &domain.registry;
    // Not locked: the locks must not be held across an await.
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout());
    let mut asked = BufReader::with_capacity(BUFFER_BYTES, io::stdin());
    say(
        &mut out,
        &Hello {
            exchange: EXCHANGE_VERSION,
            program: program::name().to_owned(),
            version: program::shown().version,
            categories: registry.iter().map(|it| it.category().to_owned()).collect(),
        },
    )?;
    out.flush().map_err(|error| unsaid(&error))?;
    let mut states = States::new(args.states_max_kb as usize * 1024);
    let mut line = Vec::new();
    while next_line(&mut asked, &mut line)? {
        let Asked {
            partition,
            position,
            commit,
        } = serde_json::from_slice(&line).map_err(|error| {
            unreadable("a line is not a commit with its place", &error.to_string())
        })?;
        let commit: Commit = serde_json::from_str(commit.get()).map_err(|error| {
            let place = format!("the commit at partition {partition}, position {position}");
            unreadable(
                &format!("{place} cannot be read by this program"),
                &error.to_string(),
            )
        })?;
        let key = stream_key(&commit.tenant, &commit.stream);
        let key = String::from_utf8_lossy(&key);
        let aggregate = registry.get(commit.stream.category());
        let stream = states.stream(&key, aggregate.map(|it| &**it)).await?;
        let mut answer = judge::judge(aggregate.map(|it| &**it), stream, &commit);
        if !args.events {
            answer.decided.clear();
        }
        states.settle(&key, registry).await?;
        say(
            &mut out,
            &Answer {
                partition,
                position,
                ..answer
            },
        )?;
        // Whoever asks may wait for this answer before it sends more.
        if !asked.buffer().contains(&b'\n') {
            out.flush().map_err(|error| unsaid(&error))?;
        }
    }
    out.flush().map_err(|error| unsaid(&error))?;
    Ok(Exit::Done)
}

/// Reads the next line into `line`; whether there was one.
fn next_line(asked: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Failure> {
    line.clear();
    let read = asked.take(LINE_BYTES_MAX as u64).read_until(b'\n', line);
    read.map_err(|error| Failure::of(Exit::Failed, &error).while_trying("read stdin"))?;
    if line.len() == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        let why = format!("it has more than {LINE_BYTES_MAX} bytes");
        return Err(unreadable("a line is not a commit with its place", &why));
    }
    Ok(!line.is_empty())
}

fn unreadable(what: &str, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{what}: {why}"))
        .hint("each line must be an accepted commit in the form of annals log dump")
}

fn say(out: &mut impl Write, line: &impl Serialize) -> Result<(), Failure> {
    let said = serde_json::to_writer(&mut *out, line).map_err(io::Error::from);
    said.and_then(|()| out.write_all(b"\n"))
        .map_err(|error| unsaid(&error))
}

fn unsaid(error: &io::Error) -> Failure {
    super::raw::unwritten(error)
}
