//! The program understands every command that its messages, its help texts and the documents tell
//! people to type. Each command that a message advises is run by a test, in the situation that
//! prints the message.
//!
//! Invariant tested: a new command in a text is noticed here. Deliberately absent: the situations
//! themselves (`cli::advised`, and the tests that are named below).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// The advice in messages: the command as the source spells it, and the test that follows the
/// advice.
const FOLLOWED: [(&str, &str); 25] = [
    (
        "annals projections switch {projection}",
        "a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch",
    ),
    (
        "annals projections switch {name}",
        "a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch",
    ),
    (
        "annals projections switch {name}{with}",
        "a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch",
    ),
    (
        "annals projections rollback {name}",
        "a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch",
    ),
    (
        "annals projections rebuild {name} --no-switch",
        "a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch",
    ),
    (
        "annals projections cancel {name}",
        "of_several_programs_the_one_with_the_highest_version_builds",
    ),
    (
        "annals projections verify {projection}",
        "a_running_projector_warns_of_rows_that_differ_until_they_are_mended",
    ),
    (
        "annals projections list",
        "a_program_of_another_version_says_that_the_rows_are_not_of_its_own",
    ),
    (
        "annals log create --log {address}",
        "a_log_that_is_missing_or_unfinished_is_made_as_advised",
    ),
    (
        "annals log create --log {}",
        "a_log_that_is_missing_or_unfinished_is_made_as_advised",
    ),
    (
        "annals log verify --log {address}",
        "commands_that_only_read_work_as_advised",
    ),
    (
        "annals log verify --log {}",
        "commands_that_only_read_work_as_advised",
    ),
    (
        "annals log copy --log {} --to kafka://HOST:PORT/TOPIC",
        "commands_that_only_read_work_as_advised",
    ),
    (
        "annals migrate{whose}{hint}",
        "a_database_is_migrated_as_advised",
    ),
    (
        "annals migrate --postgres {typed}{hint}",
        "a_database_is_migrated_as_advised",
    ),
    (
        "annals migrate --postgres URL",
        "a_database_of_another_log_is_given_to_this_one_as_advised",
    ),
    (
        "annals projections resume {name}",
        "a_stopped_projection_goes_on_when_another_process_resumes_or_rebuilds_it",
    ),
    (
        "annals config secret",
        "secrets_that_others_may_read_are_refused_with_what_to_do",
    ),
    (
        "annals import olist --correct {}",
        "a_row_that_was_changed_after_its_answer_is_reported_and_can_be_corrected",
    ),
    (
        "annals projections rebuild {name}",
        "a_read_model_of_another_version_is_rebuilt_as_advised",
    ),
    (
        "annals projections rebuild {name} --log {} --postgres {typed}{hint}",
        "a_read_model_of_another_version_is_rebuilt_as_advised",
    ),
    (
        "annals projections rebuild {projection}",
        "tables_of_others_are_emptied_and_filled_again",
    ),
    (
        "annals parked retry {name} {stream}",
        "a_parked_stream_is_shown_with_what_waits",
    ),
    (
        "annals parked show {projection} {stream}{of}",
        "a_row_of_a_parked_stream_is_refused_and_other_answers_tell_how_many_are_parked",
    ),
    (
        "annals projections drop {name} --postgres {typed}{hint}",
        "a_read_model_that_the_program_lost_is_dropped_as_advised",
    ),
];

/// Advised commands that no test has to follow: they start something that goes on, or repeat what
/// the user has just done.
const UNDERSTOOD: [&str; 4] = [
    // `cli::runs::the_demo_shows_what_it_promises` starts this command.
    "annals demo",
    // `cli::runs` starts this command in every test.
    "annals dev",
    "annals simulate --seed {seed}",
    // The name of the node that makes a copy, not advice.
    "annals log copy",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Collects every file with this ending below a folder.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files(&path, ending, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
}

/// The source without comments and tests; each string literal is joined into one line.
fn code(text: &str) -> String {
    let text = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let joined = Regex::new(r"\\\n\s*").unwrap();
    joined.replace_all(&text, "").into_owned()
}

/// A command in a text, and whether it is an example on a line of its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    command: String,
    is_example: bool,
}

/// All subcommands, to tell a command from a sentence about the program.
fn subcommands() -> Vec<String> {
    let command = ::cli::app().command_line();
    let names = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned());
    names.collect()
}

fn named_in(text: &str, subcommands: &[String]) -> Vec<Named> {
    let word = subcommands.join("|");
    let pattern = format!(r#"(?-u:\b)annals ({word})(?-u:\b)((?:\\"|[^\n"`;])*)"#);
    let mut named = Vec::new();
    for found in Regex::new(&pattern).unwrap().find_iter(text) {
        let command = found.as_str();
        // A command ends at the end of its text, at a comma, at the end of a sentence, or at two
        // spaces.
        let ends = [r"\n", "  ", ", ", ": ", ")", " |", " >", " &&", " #", ". "];
        let end = ends.iter().filter_map(|end| command.find(end)).min();
        let command =
            command[..end.unwrap_or(command.len())].trim_end_matches(['.', ',', ' ', '\\']);
        // An example has its own line, indented by two spaces.
        let line = text[..found.start()]
            .rsplit('\n')
            .next()
            .unwrap_or_default();
        let is_indented = line.starts_with("  ") && !line.starts_with("   ");
        named.push(Named {
            command: command.replace(r#"\""#, "\""),
            is_example: is_indented || line.ends_with(r"\n  "),
        });
    }
    named
}

/// The command with a value for each placeholder of a message.
fn filled(command: &str) -> String {
    let fillings = [
        ("{address}", "sqlite:log.db"),
        ("--log {}", "--log sqlite:log.db"),
        ("{typed}", "postgresql://localhost/annals"),
        ("{hint}", ""),
        ("--seed N", "--seed 1"),
        ("{whose}", " --postgres postgresql://localhost/annals"),
        ("{name}", "order_summary"),
        ("{projection}", "order_summary"),
        ("{stream}", "example-1"),
        ("{of}", ""),
        ("{seed}", "4711"),
        ("…", "x"),
        ("${fpath[1]}", "folder"),
        ("HOST:PORT", "localhost:9092"),
    ];
    fillings
        .iter()
        .fold(command.to_owned(), |text, (from, to)| {
            text.replace(from, to)
        })
}

/// Splits a command into words as a shell does; only quotes are supported.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in command.chars() {
        match (letter, quote) {
            ('\'' | '"', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            (' ', None) => words.push(String::new()),
            (letter, _) => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Why the program does not understand a command; `None` if it does.
fn misunderstood(command: &str) -> Option<String> {
    let line = ::cli::app().command_line();
    match line.try_get_matches_from(words(&filled(command))) {
        Ok(_) => None,
        Err(error) => {
            use clap::error::ErrorKind as Kind;
            let is_mention = matches!(
                error.kind(),
                // A text may mention a command without its arguments.
                Kind::MissingRequiredArgument
                    | Kind::DisplayHelpOnMissingArgumentOrSubcommand
                    | Kind::MissingSubcommand
            );
            (!is_mention).then(|| error.to_string())
        }
    }
}

/// Every command that a source, a document or a runbook tells people to type.
fn all_named() -> Vec<(String, Named)> {
    let root = root();
    let subcommands = subcommands();
    let mut named = Vec::new();
    let mut sources = Vec::new();
    for krate in fs::read_dir(&root).unwrap() {
        let source = krate.unwrap().path().join("src");
        let is_test = ["tests/src", "bench/src"]
            .iter()
            .any(|test| source.ends_with(test));
        if source.is_dir() && !is_test {
            files(&source, "rs", &mut sources);
        }
    }
    assert!(sources.len() > 100, "{} sources", sources.len());
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for path in sources
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs"))
    {
        let text = code(&fs::read_to_string(&path).unwrap());
        texts.push((path, text));
    }
    for (path, text) in texts {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let found = named_in(&text, &subcommands);
        named.extend(found.into_iter().map(|found| (name.clone(), found)));
    }
    named
}

#[test]
fn every_command_that_a_text_names_is_understood() {
    let mut faults = Vec::new();
    let mut documents = Vec::new();
    for folder in ["docs", "ops/runbooks"] {
        files(&root().join(folder), "md", &mut documents);
    }
    documents.push(root().join("README.md"));
    let subcommands = subcommands();
    let mut named = all_named();
    for path in documents {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.display().to_string();
        let found = named_in(&text, &subcommands);
        named.extend(found.into_iter().map(|found| (name.clone(), found)));
    }
    assert!(named.len() > 60, "{} commands", named.len());
    for (path, named) in named {
        if let Some(error) = misunderstood(&named.command) {
            faults.push(format!("{path}: {}: {error}", named.command));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_command_that_a_message_names_is_followed_by_a_test() {
    let mut tests = Vec::new();
    files(&root().join("tests/tests"), "rs", &mut tests);
    let tests: String = tests
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for (command, test) in FOLLOWED {
        let is_there = tests.contains(&format!("fn {test}("));
        assert!(
            is_there,
            "{command} is followed by {test}, which is not there"
        );
    }
    let followed: BTreeSet<&str> = FOLLOWED.iter().map(|(command, _)| *command).collect();
    let mut unknown = Vec::new();
    let mut met = BTreeSet::new();
    for (path, named) in all_named() {
        let command = named.command.as_str();
        let is_prose = misunderstood_without_arguments(command) || is_in_help(&path, command);
        if named.is_example || is_prose {
            continue;
        }
        met.insert(named.command.clone());
        if !followed.contains(command) && !UNDERSTOOD.contains(&command) {
            unknown.push(format!("{path}: {command}"));
        }
    }
    let advice = "follow it in a test in the situation that prints it, and name the test above";
    assert!(unknown.is_empty(), "{advice}:\n{}", unknown.join("\n"));
    for command in followed {
        assert!(met.contains(command), "no message says {command} any more");
    }
}

/// Whether a text only mentions a command: required arguments are missing.
fn misunderstood_without_arguments(command: &str) -> bool {
    let line = ::cli::app().command_line();
    let lacks = line.try_get_matches_from(words(&filled(command))).is_err();
    lacks && !command.contains("--")
}

/// Whether the command is one that the help of another command explains.
fn is_in_help(path: &str, command: &str) -> bool {
    let is_explained = [
        "annals migrate",
        "annals log create",
        "annals log dump",
        "annals check-history",
    ];
    (path.starts_with("cli/src/") || path.starts_with("host/src/"))
        && is_explained.contains(&command)
}

#[test]
fn these_checks_notice_what_they_are_for() {
    let subcommands = subcommands();
    let found = |text: &str| {
        let named = named_in(&code(text), &subcommands);
        named
            .into_iter()
            .map(|named| named.command)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        found("#[error(\"no log; make one with: annals log \\\n     create --log {address}\")]"),
        ["annals log create --log {address}"]
    );
    assert_eq!(
        found("//! `annals dev`\nlet x = \"the annals of a shop\";"),
        [""; 0]
    );
    assert_eq!(
        found("\"see annals log verify, or not\""),
        ["annals log verify"]
    );
    for wrong in [
        "annals log crate --log {address}",
        "annals migrate --postgress URL",
        "annals dev --role x",
    ] {
        assert!(misunderstood(wrong).is_some(), "{wrong}");
    }
    for right in [
        "annals log create --log {address}",
        "annals projections rebuild",
        "annals send order-1 ApproveOrder '{}'",
    ] {
        assert_eq!(misunderstood(right), None, "{right}");
    }
}

#[test]
fn the_unit_of_systemd_starts_the_program_as_it_is_started() {
    let unit = fs::read_to_string(root().join("ops/systemd/annals.service")).unwrap();
    let value = |name: &str| {
        let values = unit.lines().filter_map(|line| line.strip_prefix(name));
        let values: Vec<&str> = values.filter_map(|rest| rest.strip_prefix('=')).collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_owned()
    };
    let start = value("ExecStart");
    let (program, arguments) = start.split_once(' ').unwrap();
    // systemd looks for it in /usr/local/bin and /usr/bin.
    assert_eq!(program, "annals", "{start}");
    assert_eq!(misunderstood(&format!("annals {arguments}")), None);
    // systemd waits for the program's `READY=1`; see `cli::observed`.
    assert_eq!(value("Type"), "notify");
    for variable in unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment="))
    {
        let name = variable.split_once('=').unwrap().0;
        let is_setting = host::settings::CATALOGUE
            .iter()
            .any(|setting| setting.variable() == name);
        assert!(is_setting, "{name}");
    }
}
