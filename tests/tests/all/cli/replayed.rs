//! `annals replay` as a person and as a script use it.

use std::io::Write as _;
use std::process::{Child, Output, Stdio};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::program::{Server, annals, assert_exit, call, folder, stderr, stdout, until};
use crate::projections::scalar;

/// The lines of a replay that was driven through a pipe.
fn steps(folder: &std::path::Path, arguments: &[&str], lines: &str) -> (Vec<Value>, Output) {
    let mut command = annals(folder);
    command.arg("replay").args(arguments).arg("--step");
    command.args(["--output", "ndjson"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let objects = stdout(&output);
    let objects = objects
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (objects.collect(), output)
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_driven_by_lines_and_says_what_each_step_changed() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let history = [
        "generate",
        "--seed",
        "5",
        "--events",
        "600",
        "--url",
        &server.url,
    ];
    assert_exit(&call(folder.path(), &history), 0);
    let url = server.postgres_url();
    let of = ["--postgres", url.as_str(), "--projection", "daily_sales"];
    // Commits, an event, a row, and the end by hand.
    let (objects, output) = steps(folder.path(), &of, "\n\ne\nr 20\nx\nq\n");
    assert_exit(&output, 0);
    let [first, second, third, end] = &objects[..] else {
        panic!("{objects:?}");
    };
    assert_eq!(first["why"], "stepped");
    assert_eq!(first["commit"]["command"]["type"], "PlaceOrder");
    assert_eq!(first["rows"][0]["before"], Value::Null);
    assert_eq!(first["rows"][0]["after"]["orders"], 1);
    assert_eq!(
        (&second["event"], &third["event"]),
        (&Value::Null, &0.into())
    );
    assert_eq!(
        (&end["state"], &end["commits"]),
        (&"stopped".into(), &3.into())
    );
    assert!(stderr(&output).contains("\"x\" is none of"), "{output:?}");
    // It is there now, and replaced only if that is said.
    let run = |more: &[&str]| {
        let mut command = annals(folder.path());
        command.arg("replay").args(of).args(more).output().unwrap()
    };
    let refused = run(&[]);
    assert_exit(&refused, 2);
    assert!(
        stderr(&refused).contains("replace it with --replace"),
        "{refused:?}"
    );
    let most: i64 = scalar(&url, "SELECT max(orders) FROM read.daily_sales").await;
    let shown = run(&["--replace", "--until", &format!("orders >= {most}")]);
    assert_exit(&shown, 0);
    let text = stdout(&shown);
    let orders = format!("orders {most}");
    for part in [
        "the condition became true",
        "OrderPlaced",
        &orders,
        "finished",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let never = run(&["--replace", "--until", "orders > 1000000"]);
    assert_exit(&never, 7);
    assert!(stderr(&never).contains("did not become true"), "{never:?}");
    for (wrong, said) in [
        ("yesterday", "neither a time"),
        ("count > 1", "daily_sales: day, currency, orders"),
        ("orders > many", "a whole number"),
    ] {
        let refused = run(&["--replace", "--until", wrong]);
        assert_exit(&refused, 2);
        assert!(stderr(&refused).contains(said), "{refused:?}");
    }
    // Recorded time passes faster, but it passes.
    let fast = run(&["--replace", "--speed", "100000", "--into", "fast"]);
    assert_exit(&fast, 0);
    // Ctrl-C leaves what was built, and both the program and the schema say where it stands.
    let slow = |schema: &str| {
        let mut command = annals(folder.path());
        command.arg("replay").args(of);
        command.args(["--speed", "0.02", "--into", schema]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let commits = |schema: &str| format!("SELECT commits FROM {schema}.annals_made");
    let is_begun = async |schema: &str| {
        let there = format!("SELECT to_regclass('{schema}.annals_made') IS NOT NULL");
        scalar::<bool>(&url, &there).await && scalar::<i64>(&url, &commits(schema)).await > 0
    };
    let child = slow("stopped");
    until("the replay has begun", async || is_begun("stopped").await).await;
    signal(&child, Signal::INT);
    let stopped = child.wait_with_output().unwrap();
    assert_exit(&stopped, 8);
    assert!(
        stdout(&stopped).contains("up to the commit of order-"),
        "{stopped:?}"
    );
    let state = |schema: &str| format!("SELECT state FROM {schema}.annals_made");
    assert_eq!(scalar::<String>(&url, &state("stopped")).await, "stopped");
    // Killed, the schema says that it is unfinished, and the live rows are as they were.
    let live = "SELECT coalesce(sum(orders), 0)::bigint FROM read.daily_sales";
    let before: i64 = scalar(&url, live).await;
    let mut child = slow("killed");
    until("the replay has begun", async || is_begun("killed").await).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scalar::<String>(&url, &state("killed")).await, "unfinished");
    assert_eq!(scalar::<i64>(&url, live).await, before);
    // A pause is for what was asked before it, also if that had not begun; the end of the process is
    // the end, also while it goes on.
    let slowly = ["--speed", "0.02", "--into", "paused"];
    let slowly = [&of[..], &slowly].concat();
    let (objects, output) = steps(folder.path(), &slowly, "c\np\nq\n");
    assert_exit(&output, 0);
    assert!(stderr(&output).contains("paused"), "{output:?}");
    assert_eq!(objects.last().unwrap()["state"], "stopped");
    let mut command = annals(folder.path());
    command
        .args(["replay", "--step", "--replace"])
        .args(&slowly);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"c\n").unwrap();
    until("the replay has begun", async || is_begun("paused").await).await;
    signal(&child, Signal::TERM);
    let ended = child.wait_with_output().unwrap();
    assert_exit(&ended, 8);
    assert_eq!(scalar::<String>(&url, &state("paused")).await, "stopped");
    let unknown = annals(folder.path())
        .args(["replay", "--projection", "sales", "--postgres", &url])
        .output()
        .unwrap();
    assert_exit(&unknown, 7);
}
