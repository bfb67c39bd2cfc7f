//! The program's private Postgres: it is started again if it dies, and it ends with the program,
//! whatever ends the program.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tests::harness::process::is_running;

use super::program::{Server, annals, assert_exit, call, folder};

/// How long any step may take on a machine that runs other tests, too.
const PATIENCE: Duration = Duration::from_secs(60);

/// The process id of the private Postgres below `data`, from its pid file; `None` if it does not
/// run.
pub(super) fn server_of(data: &Path) -> Option<Pid> {
    let file = data.join("postgres/data/postmaster.pid");
    let text = std::fs::read_to_string(file).ok()?;
    // The last line is written when the server is ready.
    (text.lines().nth(7)?.trim() == "ready").then_some(())?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

pub(super) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn runs(server: Pid) -> bool {
    is_running(server.as_raw_nonzero().get().cast_unsigned())
}

fn register(folder: &Path, url: &str, customer: &str) {
    let stream = format!("customer-{customer}");
    let address = r#"{"city":"recife","state":"PE","postcode_prefix":"50000"}"#;
    let sent = call(
        folder,
        &["send", &stream, "RegisterCustomer", address, "--url", url],
    );
    assert_exit(&sent, 0);
}

fn wait_until_shown(folder: &Path, url: &str, customer: &str) {
    let stream = format!("customer-{customer}");
    wait_for("the state of a stream", || {
        call(folder, &["state", &stream, "--url", url])
            .status
            .success()
            .then_some(())
    });
}

#[test]
fn a_postgres_that_dies_is_started_again_where_it_was() {
    let folder = folder();
    let data = folder.path().join(".annals");
    let mut server = Server::dev(folder.path());
    let url = server.url.clone();
    let address = server.postgres_url();
    for round in ["a", "b"] {
        let postgres = server_of(&data).unwrap();
        kill_process(postgres, Signal::KILL).unwrap();
        // Commands work without Postgres.
        register(folder.path(), &url, round);
        let next = wait_for("another server", || {
            server_of(&data).filter(|next| *next != postgres)
        });
        assert!(runs(next));
        wait_until_shown(folder.path(), &url, round);
        assert_eq!(server.postgres_url(), address);
    }
    assert!(
        server.said().contains("ended by itself"),
        "{}",
        server.said()
    );
    let last = server_of(&data).unwrap();
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    assert!(!runs(last));
}

#[test]
fn a_program_that_is_killed_takes_its_postgres_along() {
    let folder = folder();
    let data = folder.path().join(".annals");
    let mut server = Server::dev(folder.path());
    let postgres = server_of(&data).unwrap();
    server.kill9();
    wait_for("the end of its Postgres", || {
        (!runs(postgres)).then_some(())
    });
}

/// Starts a tool that starts a Postgres, and returns once that server runs; `None` if the tool
/// ended before.
fn tool(folder: &Path, arguments: &[&str]) -> (Child, Option<Pid>) {
    let mut child = annals(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let data = folder.join(".annals");
    let server = wait_for("the tool's Postgres", || {
        let has_ended = child.try_wait().unwrap().is_some();
        server_of(&data).map(Some).or(has_ended.then_some(None))
    });
    (child, server)
}

#[test]
fn a_tool_that_is_interrupted_stops_the_postgres_that_it_started() {
    let folder = folder();
    // Give the tools some work, and a Postgres cluster that exists.
    let mut server = Server::dev(folder.path());
    for customer in 0..20 {
        register(folder.path(), &server.url, &customer.to_string());
    }
    wait_until_shown(folder.path(), &server.url, "19");
    assert_eq!(server.end(Signal::TERM).code(), Some(0));
    for (arguments, signal) in [
        (&["migrate"][..], Signal::INT),
        (&["log", "verify", "--against", "postgres"], Signal::TERM),
        (&["projections", "rebuild", "--all"], Signal::INT),
        (&["projections", "list"], Signal::HUP),
        (&["dev", "--listen", "127.0.0.1:0"], Signal::INT),
    ] {
        let (mut child, postgres) = tool(folder.path(), arguments);
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        // The tool may have ended just now.
        let _ = kill_process(pid, signal);
        let status = child.wait().unwrap();
        let ended_well = status.success() || status.code() == Some(128 + signal.as_raw());
        assert!(
            ended_well,
            "{arguments:?}: {status:?} {:?}",
            status.signal()
        );
        if let Some(postgres) = postgres {
            wait_for("the end of its Postgres", || {
                (!runs(postgres)).then_some(())
            });
        }
    }
}

#[tokio::test]
async fn the_role_of_the_program_is_no_superuser() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let mut connection = PgConnection::connect(&server.postgres_url()).await.unwrap();
    let rights: (bool, bool, bool) = sqlx::query_as(
        "SELECT rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(rights, (false, false, false));
    let program = sqlx::query("COPY (SELECT 1) TO PROGRAM 'cat'");
    assert!(program.execute(&mut connection).await.is_err());
    connection.close().await.unwrap();
}
