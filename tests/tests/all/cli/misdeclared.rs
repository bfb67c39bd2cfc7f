//! A program whose read models are declared wrongly says so and ends, before any client gets a
//! connection.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tests::harness::logs::{Kind, NewLog};
use tests::harness::ports;
use tests::harness::postgres::Postgres;

use super::program::{assert_exit, folder, program, stderr, stdout};
use crate::write_side::start;

fn misdeclared(folder: &Path, wrong: &str) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_misdeclared"), folder);
    command.env("WRONG", wrong);
    command
}

/// Runs a program that is to end, and asserts that its port never takes a connection.
fn run_without_listener(mut command: Command) -> Output {
    let address = format!("127.0.0.1:{}", ports::free());
    command.args(["--listen", &address]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        assert!(TcpStream::connect(&address).is_err(), "it listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[track_caller]
fn assert_names(output: &Output, parts: &[&str]) {
    assert_exit(output, 2);
    assert_eq!(stdout(output), "");
    let said = stderr(output);
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_misspelt_column_and_a_name_used_twice_are_refused_before_anything_listens() {
    for (wrong, parts) in [
        (
            "column",
            ["projection numbers, table lamp_numbers", "nmber"].as_slice(),
        ),
        (
            "table",
            &[
                "projection others, table lamp_numbers",
                "a table of the same name",
            ],
        ),
    ] {
        let folder = folder();
        for first in ["dev", "serve"] {
            let mut command = misdeclared(folder.path(), wrong);
            command.arg(first);
            assert_names(&run_without_listener(command), parts);
        }
        // Nothing was made, either.
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}

#[tokio::test]
async fn sql_that_postgres_refuses_is_named_before_anything_listens() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    let folder = folder();
    let mut command = misdeclared(folder.path(), "sql");
    let log = log.address.to_string();
    command.args([
        "serve",
        "--role=projector",
        "--log",
        &log,
        "--postgres",
        &url,
    ]);
    let parts = [
        "projection numbers, table lamp_numbers, column twice",
        "r.nmber does not exist",
    ];
    let ended = tokio::task::spawn_blocking(move || run_without_listener(command));
    assert_names(&ended.await.unwrap(), &parts);
}
