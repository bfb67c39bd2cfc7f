//! What would another build's rules decide? `annals what-if` names exactly the commands that an
//! independent script finds, and fails plainly where the other program does.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use engine::command::Request;
use kernel::{Actor, ActorKind};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::process::Process;

use crate::cli::program::{annals, assert_exit, program, stderr, stdout, until};
use crate::projections::{database, log_of, scalar, shop_history};
use crate::write_side::{place, request};

const OTHER_RULES: &str = env!("CARGO_BIN_EXE_other-rules");
const SAME_RULES: &str = env!("CARGO_BIN_EXE_annals-under-test");

/// A shop's history with many steps after the delivery.
fn history() -> Vec<Request> {
    let mut lines = shop_history(5, 400);
    let mut push = |stream: &str, command: &str, id: &str, data: Value| {
        let actor = Actor {
            id: "u7".to_owned(),
            kind: ActorKind::User,
        };
        lines.push(Request {
            actor: Some(actor),
            ..request(stream, command, &format!("{id}-{stream}"), &data)
        });
        lines.last_mut().unwrap().occurred_at = None;
    };
    for order in (0..400).step_by(3) {
        let stream = format!("order-{order}");
        push(
            &stream,
            "CancelOrder",
            "late",
            json!({"reason": "too late"}),
        );
        push(&stream, "ApproveOrder", "late-step", json!({}));
        push(
            &stream,
            "CancelOrder",
            "again",
            json!({"reason": "once more"}),
        );
    }
    push("order-exact", "PlaceOrder", "place", place());
    for step in ["ApproveOrder", "ShipOrder", "DeliverOrder"] {
        push("order-exact", step, step, json!({}));
    }
    push(
        "order-exact",
        "CancelOrder",
        "late",
        json!({"reason": "too late"}),
    );
    push(
        "order-exact",
        "ReviewOrder",
        "review",
        json!({"review": "r", "score": 5}),
    );
    lines.last_mut().unwrap().expected_version = Some(4);
    lines
}

/// A command that is refused, and so large that only its digest is recorded.
fn large() -> Request {
    let mut data = place();
    let item = data["items"][0].clone();
    let items = (1..=200).map(|line| {
        let mut item = item.clone();
        item["line"] = json!(line);
        item
    });
    data["items"] = items.collect();
    request("order-exact", "PlaceOrder", "large", &data)
}

fn what_if(log: &NewLog, rules: &str, more: &[&str]) -> Command {
    let mut command = annals(log.folder.path());
    let address = log.address.to_string();
    command.args(["what-if", "--rules", rules, "--from", &address]);
    command.args(more);
    command
}

fn asked(log: &NewLog, rules: &str, more: &[&str]) -> Output {
    what_if(log, rules, more).output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// The accepted commits of a log, as lines.
fn dumped(log: &NewLog) -> Vec<u8> {
    let address = log.address.to_string();
    let mut dump = annals(log.folder.path());
    let dump = dump.args(["log", "dump", "--accepted", "--log", &address]);
    let output = dump.output().unwrap();
    assert_exit(&output, 0);
    output.stdout
}

/// What a command makes of these lines.
fn piped(mut command: Command, lines: &[u8]) -> Output {
    let input = tempfile::NamedTempFile::new().unwrap();
    input.as_file().write_all(lines).unwrap();
    let input = File::open(input.path()).unwrap();
    command.stdin(Stdio::from(input)).output().unwrap()
}

fn here(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/what_if");
    folder.join(file)
}

/// What the independent script finds: the place, stream, version and id of each command.
fn expected(log: &NewLog, rule: &str) -> Value {
    let mut python = Command::new("python3");
    python.arg(here("expected.py")).arg(rule);
    let output = piped(python, &dumped(log));
    assert_exit(&output, 0);
    report(&output)
}

/// The same of a report's list of rules.
fn found(groups: &Value) -> Vec<Value> {
    let groups = groups.as_array().unwrap().iter();
    let mut found: Vec<Value> = groups
        .flat_map(|group| group["examples"].as_array().unwrap())
        .map(|it| {
            let names = ["stream", "version", "command_id", "partition", "position"];
            names.map(|name| it[name].clone()).into_iter().collect()
        })
        .collect();
    found.sort_by_key(place_of);
    found
}

fn place_of(found: &Value) -> (u64, u64) {
    (found[3].as_u64().unwrap(), found[4].as_u64().unwrap())
}

fn assert_finds(report: &Value, expected: &Value) {
    for name in ["differences", "following"] {
        let mut expected = expected[name].as_array().unwrap().clone();
        expected.sort_by_key(place_of);
        assert!(expected.len() > 20, "{name}: {}", expected.len());
        assert_eq!(found(&report[name]), expected, "{name}");
    }
}

/// The numbers of a report, without those that are zero.
fn counts(groups: &Value) -> Vec<String> {
    let groups = groups.as_array().unwrap().iter();
    groups
        .map(|group| {
            let (change, rule) = (&group["change"], &group["rule"]);
            format!("{} {}", change.as_str().unwrap(), rule.as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn a_rule_changed_on_purpose_names_the_commands_that_an_independent_script_finds() {
    let mut lines = history();
    lines.push(large());
    let log = log_of(Kind::Sqlite, lines).await;
    let all = ["--output", "json", "--examples", "100000"];
    let output = asked(&log, OTHER_RULES, &all);
    assert_exit(&output, 1);
    let named = report(&output);
    assert_finds(&named, &expected(&log, "cancel"));
    let of = |name: &str| counts(&named[name]);
    assert_eq!(
        of("differences"),
        ["refused_now_accepted order_already_delivered"]
    );
    assert_eq!(
        of("following"),
        [
            "accepted_now_refused version_conflict",
            "refused_by_another_rule order_already_delivered → order_canceled",
        ]
    );
    let exact = &named["following"][0]["examples"][0];
    assert_eq!(exact["command_id"], "review-order-exact");
    assert_eq!(
        (&exact["version"], &exact["version_now"]),
        (&json!(4), &json!(5))
    );
    assert_eq!(exact["actor"], json!({"kind": "user", "id": "u7"}));
    assert_eq!(
        exact["was"],
        json!({"outcome": "accepted", "events": ["OrderReviewed"]})
    );
    // What was recorded only as a digest is not judged.
    let left = &named["not_judgeable"];
    assert_eq!(left[0]["reason"], "only_digest_recorded");
    assert_eq!(
        (&left[0]["count"], left.as_array().unwrap().len()),
        (&json!(1), 1)
    );
    assert_eq!(left[0]["examples"][0]["command_id"], "large");
    assert_eq!(named["complete"], true);
    // The sum of all is the number of commands in the log.
    let totals = named["totals"].as_object().unwrap();
    let parts = totals.iter().filter(|(name, _)| *name != "commands");
    let sum: u64 = parts.map(|(_, count)| count.as_u64().unwrap()).sum();
    let lines = dumped(&log).iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(
        (Some(sum), sum),
        (totals["commands"].as_u64(), lines as u64)
    );

    let again = asked(&log, OTHER_RULES, &all);
    assert_eq!(stdout(&again), stdout(&output), "it is deterministic");
    let few = report(&asked(&log, OTHER_RULES, &["--output", "json"]));
    let examples = few["differences"][0]["examples"].as_array().unwrap();
    let count = few["differences"][0]["count"].as_u64().unwrap();
    assert_eq!(examples.len() as u64, count.min(100));
    assert_eq!(few["totals"], named["totals"]);

    let table = asked(&log, OTHER_RULES, &[]);
    assert_exit(&table, 1);
    for said in [
        "refused, now accepted",
        "order_already_delivered",
        "user u7",
        "OrderCanceled",
    ] {
        assert!(
            stdout(&table).contains(said),
            "{said} in {}",
            stdout(&table)
        );
    }
}

#[tokio::test]
async fn first_refusals_stand_apart_from_what_follows_from_them() {
    let log = log_of(Kind::Sqlite, history()).await;
    let strict = with_variable(&log, "OTHER_RULES=strict", OTHER_RULES);
    let output = asked(&log, &strict, &["--output", "json", "--examples", "100000"]);
    assert_exit(&output, 1);
    let named = report(&output);
    assert_finds(&named, &expected(&log, "strict"));
    assert_eq!(
        counts(&named["differences"]),
        ["accepted_now_refused order_total_too_large"]
    );
}

#[tokio::test]
async fn the_same_rules_decide_nothing_differently_and_a_digest_makes_that_a_part() {
    let log = log_of(Kind::Sqlite, history()).await;
    let output = asked(&log, SAME_RULES, &["--output", "json"]);
    assert_exit(&output, 0);
    let totals = &report(&output)["totals"];
    assert_eq!(totals["same"], totals["commands"]);

    let log = log_of(
        Kind::Sqlite,
        vec![request("order-exact", "PlaceOrder", "p", &place()), large()],
    );
    let log = log.await;
    let output = asked(&log, SAME_RULES, &[]);
    assert_exit(&output, 8);
    assert!(
        stdout(&output).contains("only_digest_recorded"),
        "{}",
        stdout(&output)
    );
}

#[tokio::test]
async fn states_that_do_not_fit_into_memory_go_to_a_file_and_change_no_verdict() {
    let log = log_of(Kind::Sqlite, history()).await;
    let lines = dumped(&log);
    let judged = |more: &[&str]| {
        let mut judge = program(OTHER_RULES, log.folder.path());
        judge.args(["rules", "judge"]).args(more);
        let output = piped(judge, &lines);
        assert_exit(&output, 0);
        stdout(&output)
    };
    let in_memory = judged(&[]);
    assert!(in_memory.contains(r#""verdict":"accepted""#));
    assert_eq!(judged(&["--states-max-kb", "8"]), in_memory);
}

/// A program that has a variable in its environment. It gets none of the process that asks it.
fn with_variable(log: &NewLog, variable: &str, program: &str) -> String {
    let file = log.folder.path().join("with-variable");
    let script = format!("#!/bin/sh\nexport '{variable}'\nexec '{program}' \"$@\"\n");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    file.display().to_string()
}

#[tokio::test]
async fn the_other_program_gets_no_secret_and_no_address() {
    let log = log_of(Kind::Sqlite, shop_history(7, 3)).await;
    let folder = log.folder.path();
    let judge = folder.join("judge");
    let script = format!(
        "#!/bin/sh\nenv > '{}'\nexec '{SAME_RULES}' \"$@\"\n",
        folder.join("env").display()
    );
    std::fs::write(&judge, script).unwrap();
    std::fs::set_permissions(&judge, PermissionsExt::from_mode(0o755)).unwrap();
    let mut call = what_if(&log, "judge", &[]);
    call.current_dir(folder)
        .env("ANNALS_CLUSTER_SECRET", "a secret of this cluster alone")
        .env("PGPASSWORD", "hidden");
    assert_exit(&call.output().unwrap(), 0);
    let seen = std::fs::read_to_string(folder.join("env")).unwrap();
    assert!(seen.contains("PATH="), "{seen}");
    for hidden in ["ANNALS_", "secret", "PGPASSWORD", "hidden"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
}

/// A program that judges badly in this way.
fn flawed(log: &NewLog, flaw: &str, more: &[&str]) -> Command {
    let file = log.folder.path().join("judge.py");
    std::fs::copy(here("judge.py"), &file).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let file = with_variable(log, &format!("FLAW={flaw}"), &file.display().to_string());
    what_if(log, &file, more)
}

#[tokio::test]
async fn a_program_that_does_not_judge_is_named_with_what_is_wrong() {
    let log = log_of(Kind::Sqlite, shop_history(7, 20)).await;
    let quick = ["--answer-timeout-ms", "3000"];
    for (flaw, code, said) in [
        ("garbage first", 1, "did not say what it is, but: hello"),
        ("other version", 2, "version 99 of the exchange"),
        (
            "silent first",
            1,
            "said nothing for 3000 ms before it said what it is",
        ),
        ("crash", 1, "it said: the rules of the shop are lost"),
        ("garbage", 1, "but: oops"),
        (
            "other place",
            1,
            "another answer than was asked at partition 0, position ",
        ),
        (
            "no reason",
            1,
            "another answer than was asked at partition 0, position ",
        ),
        (
            "silent",
            1,
            "said nothing for 3000 ms at partition 0, position ",
        ),
    ] {
        let output = flawed(&log, flaw, &quick).output().unwrap();
        assert_exit(&output, code);
        assert!(
            stderr(&output).contains(said),
            "{flaw}: {}",
            stderr(&output)
        );
        assert_eq!(stdout(&output), "", "{flaw}");
    }
    for (rules, code, said) in [
        ("./no-such-program", 2, "could not start ./no-such-program"),
        ("/bin/true", 1, "true ended before it said what it is"),
        ("/bin/cat", 1, "built on Annals"),
    ] {
        let output = asked(&log, rules, &[]);
        assert_exit(&output, code);
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn ctrl_c_ends_it_with_what_is_known_so_far() {
    let log = log_of(Kind::Sqlite, shop_history(7, 20)).await;
    let output = log.folder.path().join("reported");
    let command = flawed(&log, "silent", &["--output", "ndjson", "-vv"]);
    let file = File::create(&output).unwrap();
    let mut process = Process::start(command, file, log.folder.path()).unwrap();
    let said = || std::fs::read_to_string(&output).unwrap();
    until("five commands are judged", async || {
        said().matches("judged again").count() == 5
    })
    .await;
    process.signal(Signal::INT);
    let mut ended = None;
    until("it ends", async || {
        ended = process.ended();
        ended.is_some()
    })
    .await;
    let said = said();
    assert_eq!(ended.unwrap().code(), Some(8), "{said}");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    let report: Value = serde_json::from_str(line).unwrap();
    assert_eq!(report["complete"], false);
    assert_eq!(report["totals"]["commands"], 5);
    assert_eq!(report["reached"][0]["partition"], 0);
}

#[tokio::test]
async fn read_models_of_what_would_be_are_compared_row_by_row_with_what_is() {
    let log = log_of(Kind::Sqlite, history()).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let into = [
        "--into",
        "next_rules",
        "--model",
        "order_summary",
        "--postgres",
        &url,
        "--output",
        "json",
    ];
    let output = asked(&log, OTHER_RULES, &into);
    assert_exit(&output, 1);
    let models = &report(&output)["read_models"];
    assert_eq!(models["schema_as_it_is"], "next_rules_as_it_is");
    assert_eq!(models["equal"], false);
    // The orders whose rows differ are those of the commands that are decided otherwise.
    let sql = "SELECT coalesce(json_agg(order_id ORDER BY order_id), '[]')::text
               FROM next_rules.order_summary would
               JOIN next_rules_as_it_is.order_summary is_now USING (tenant, order_id)
               WHERE would IS DISTINCT FROM is_now
                 AND would.status = 'canceled' AND is_now.status = 'delivered'";
    let changed: Value = serde_json::from_str(&scalar::<String>(&url, sql).await).unwrap();
    let expected = expected(&log, "cancel");
    let expected = expected["differences"].as_array().unwrap().iter();
    let mut expected: Vec<&str> = expected
        .map(|it| it[0].as_str().unwrap().strip_prefix("order-").unwrap())
        .collect();
    expected.sort_unstable();
    assert_eq!(changed, json!(expected));
    let all = "SELECT count(*) FROM next_rules.order_summary would
               FULL JOIN next_rules_as_it_is.order_summary is_now USING (tenant, order_id)
               WHERE would IS DISTINCT FROM is_now";
    let all: i64 = scalar(&url, all).await;
    assert_eq!(all, i64::try_from(expected.len()).unwrap());
    // What stands there is replaced only if that is asked for.
    let refused = asked(&log, OTHER_RULES, &into);
    assert_exit(&refused, 2);
    assert!(
        stderr(&refused).contains("--replace"),
        "{}",
        stderr(&refused)
    );
    let same = asked(&log, SAME_RULES, &[&into[..], &["--replace"]].concat());
    assert_exit(&same, 0);
    assert_eq!(report(&same)["read_models"]["equal"], true);
}
