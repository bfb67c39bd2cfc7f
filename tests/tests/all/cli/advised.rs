//! Each piece of advice is followed exactly as the program prints it, in the situation that prints
//! it.

use std::path::Path;
use std::process::Output;

use event_log::log::{LogAddress, StoreOptions, create_store};
use regex::Regex;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;

use super::program::{annals, assert_exit, call, folder, stderr, stdout};
use crate::event_log_contract::reading::cut_head;
use crate::raw_log::RawLog;
use crate::write_side::{place, request, start, submit};

/// The arguments of the command that a text advises, from `annals` up to the end of the command.
fn advised(text: &str) -> Vec<String> {
    let pattern =
        Regex::new(r"annals (log create|log verify|migrate|projections)[^\n;,│|]*").unwrap();
    let found = pattern
        .find(text)
        .unwrap_or_else(|| panic!("no advice: {text}"));
    let words = found.as_str().split_whitespace().skip(1);
    words
        .map(|word| word.trim_end_matches('"').to_owned())
        .collect()
}

/// Runs the advised command.
fn follow(folder: &Path, text: &str, password: Option<&str>) -> Output {
    let mut command = annals(folder);
    command.args(advised(text));
    if let Some(password) = password {
        // Messages print the address of a database without its password.
        command.env("PGPASSWORD", password);
    }
    command.output().unwrap()
}

fn password_of(url: &str) -> String {
    let found = Regex::new("://[^:/@]+:([^@]+)@").unwrap();
    found
        .captures(url)
        .map(|found| found[1].to_owned())
        .unwrap_or_default()
}

pub(super) async fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

fn all(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

#[tokio::test]
async fn a_log_that_is_missing_or_unfinished_is_made_as_advised() {
    for is_begun in [false, true] {
        let folder = folder();
        let address = "sqlite:new.db";
        if is_begun {
            let path = folder.path().join("new.db");
            let options = StoreOptions {
                partition_count: 2,
                replication: 1,
            };
            create_store(&LogAddress::Sqlite { path }, options)
                .await
                .unwrap();
        }
        let serve = [
            "serve",
            "--role",
            "command-api",
            "--listen",
            "127.0.0.1:0",
            "--log",
            address,
        ];
        for asked in [
            &serve[..],
            &["check", "--log", address],
            &["log", "info", "--log", address],
        ] {
            let refused = call(folder.path(), asked);
            let said = all(&refused);
            assert!(
                said.contains("annals log create --log sqlite:new.db"),
                "{asked:?}: {said}"
            );
        }
        let refused = call(folder.path(), &serve);
        assert_exit(&refused, 6);
        assert_exit(&follow(folder.path(), &stderr(&refused), None), 0);
        let info = call(
            folder.path(),
            &["log", "info", "--log", address, "--output", "json"],
        );
        assert_exit(&info, 0);
        assert!(
            stdout(&info).contains("\"log_id\": \""),
            "{}",
            stdout(&info)
        );
    }
}

#[tokio::test]
async fn no_message_advises_to_create_a_log_whose_beginning_was_deleted() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    for order in 0..5 {
        let stream = format!("order-{order}");
        submit(&engine, request(&stream, "PlaceOrder", "id", &place()))
            .await
            .unwrap();
    }
    engine.drain(std::time::Duration::from_secs(5)).await;
    cut_head(&RawLog::of(&log), 2).await;
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    let address = log.address.to_string();
    let folder = folder();
    let of_log = ["--log", &address, "--postgres", &url];
    for asked in [
        &["projections", "rebuild", "--all"][..],
        &["projections", "list"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["check"],
        &["log", "info"],
        &["log", "create", "--partitions", "1"],
    ] {
        let refused = call(folder.path(), &[asked, &of_log].concat());
        let said = all(&refused);
        assert!(!said.contains("log create"), "{asked:?}: {said}");
        let looks = ["list", "info"].contains(&asked[asked.len() - 1]);
        assert_eq!(refused.status.success(), looks, "{asked:?}: {said}");
        assert!(
            asked[0] == "projections" && looks
                || said.contains("the beginning of partition 0 was deleted"),
            "{asked:?}: {said}"
        );
    }
}

#[tokio::test]
async fn a_database_is_migrated_as_advised() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let postgres = Postgres::start();
    let folder = folder();
    let address = log.address.to_string();
    for asked in [
        &["projections", "list"][..],
        &["projections", "rebuild", "--all"],
        &["serve", "--role", "projector", "--listen", "127.0.0.1:0"],
        &["check"],
    ] {
        let url = postgres.create_database().await;
        let arguments = [asked, &["--log", &address, "--postgres", &url]].concat();
        let refused = call(folder.path(), &arguments);
        assert_exit(&refused, 6);
        let done = follow(folder.path(), &all(&refused), Some(&password_of(&url)));
        assert_exit(&done, 0);
        let migrations = projector::migration_status(&url).await.unwrap();
        assert!(
            migrations.iter().all(|migration| migration.applied),
            "{asked:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_model_that_the_program_lost_is_dropped_as_advised() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    drop(start(&log).await);
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    crate::projections::caught_up(&log.log, &url).await;
    // A program of another day had one more read model.
    let made = "CREATE TABLE projection.old_v1_g1 (tenant text); \
                CREATE VIEW read.old AS SELECT tenant FROM projection.old_v1_g1; \
                INSERT INTO annals.generation \
                    (projection, generation, version, state, declaration, tables, views, rule) \
                VALUES ('old', 1, 1, 'live', '', '{old_v1_g1}', '{old}', 'old v1 0')";
    execute(&url, made).await;
    let folder = folder();
    let address = log.address.to_string();
    let check = ["check", "--log", &address, "--postgres", &url];
    let failed = call(folder.path(), &check);
    assert_exit(&failed, 6);
    let done = follow(folder.path(), &stdout(&failed), Some(&password_of(&url)));
    assert_exit(&done, 0);
    assert_exit(&call(folder.path(), &check), 0);
    // One that the program has is not dropped: a projector would make it again.
    let own = ["projections", "drop", "order_summary", "--postgres", &url];
    assert_exit(&call(folder.path(), &own), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_stream_is_shown_with_what_waits() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    crate::projections::caught_up(&log.log, &url).await;
    let refuse = "ALTER TABLE projection.order_summary_v3_g1 \
                  ADD CONSTRAINT refuses CHECK (order_id <> '1')";
    execute(&url, refuse).await;
    for (id, command, data) in [
        ("a", "PlaceOrder", place()),
        ("b", "ApproveOrder", json!({})),
    ] {
        let request = request("order-1", command, id, &data);
        submit(&engine, request).await.unwrap();
    }
    engine.drain(std::time::Duration::from_secs(5)).await;
    crate::projections::caught_up(&log.log, &url).await;
    let folder = folder();
    let address = log.address.to_string();
    let show = |more: &[&str]| {
        let mut words = vec!["parked", "show", "order_summary"];
        words.extend(more);
        words.extend(["--log", &address, "--postgres", &url]);
        call(folder.path(), &words)
    };
    let shown = show(&["order-1"]);
    assert_exit(&shown, 0);
    let (data, said) = (stdout(&shown), stderr(&shown));
    assert!(
        data.contains("OrderPlaced") && data.contains("OrderApproved"),
        "{data}"
    );
    assert!(
        said.contains("order-1 of tenant main is parked") && said.contains("refuses"),
        "{said}"
    );
    let shown = show(&["order-1", "--limit", "1"]);
    assert!(
        stderr(&shown).contains("1 of 2 waiting commits are shown"),
        "{}",
        stderr(&shown)
    );
    assert!(!stdout(&shown).contains("OrderApproved"));
    let shown = show(&["order-1", "--output", "json"]);
    let whole: Value = serde_json::from_str(&stdout(&shown)).unwrap();
    assert_eq!(whole["waiting"][1]["events"][0]["type"], "OrderApproved");
    assert_exit(&show(&["order-2"]), 7);
    // The cause is removed, and the stream is taken up again as advised.
    let mend = "ALTER TABLE projection.order_summary_v3_g1 DROP CONSTRAINT refuses";
    execute(&url, mend).await;
    let retry = ["parked", "retry", "order_summary", "order-1"];
    let retry = [&retry[..], &["--postgres", &url]].concat();
    assert_exit(&call(folder.path(), &retry), 0);
    let projector = projector::Projector::spawn(&log.log, &url, &read_models(), 1).unwrap();
    crate::projections::until("it is taken up", async || {
        let rows = "SELECT count(*) FROM read.order_summary WHERE order_id = '1'";
        crate::projections::scalar::<i64>(&url, rows).await == 1
    })
    .await;
    projector.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_model_of_another_version_is_rebuilt_as_advised() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let engine = start(&log).await;
    submit(&engine, request("order-1", "PlaceOrder", "id", &place()))
        .await
        .unwrap();
    engine.drain(std::time::Duration::from_secs(5)).await;
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    crate::projections::caught_up(&log.log, &url).await;
    let folder = folder();
    let address = log.address.to_string();
    let check = ["check", "--log", &address, "--postgres", &url];
    execute(
        &url,
        "UPDATE annals.generation SET version = 99, rule = 'order_summary v99 0' WHERE projection = 'order_summary'",
    )
    .await;
    let failed = call(folder.path(), &check);
    assert_exit(&failed, 6);
    let done = follow(folder.path(), &stdout(&failed), Some(&password_of(&url)));
    assert_exit(&done, 0);
    assert_exit(&call(folder.path(), &check), 0);
    let noted = "SELECT count(*) FROM annals.control \
                 WHERE projection = 'order_summary' AND action = 'rebuild' AND actor <> ''";
    assert_eq!(crate::projections::scalar::<i64>(&url, noted).await, 1);

    // A running projector that meets such a read model prints no addresses: it tells to use those
    // of its own process.
    execute(
        &url,
        "UPDATE annals.generation SET version = 99, rule = 'order_summary v99 0' WHERE projection = 'order_summary'",
    )
    .await;
    let all = read_models();
    let projector = projector::Projector::spawn(&log.log, &url, &all, 1).unwrap();
    let has_stopped = |said: &str| said.contains("projections rebuild");
    crate::projections::until("it says so", async || {
        projector.ready().is_err_and(|said| has_stopped(&said))
    })
    .await;
    let said = projector.ready().unwrap_err();
    assert!(
        said.contains("with the --log and --postgres of this process"),
        "{said}"
    );
    let mut command = annals(folder.path());
    command
        .args(advised(&said))
        .args(["--log", &address, "--postgres", &url]);
    assert_exit(&command.output().unwrap(), 0);
    assert_exit(&call(folder.path(), &check), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_another_log_is_given_to_this_one_as_advised() {
    let (production, staging) = (
        NewLog::make(Kind::Sqlite, 1).await,
        NewLog::make(Kind::Sqlite, 1).await,
    );
    let engine = start(&production).await;
    submit(&engine, request("order-1", "PlaceOrder", "id", &place()))
        .await
        .unwrap();
    engine.drain(std::time::Duration::from_secs(5)).await;
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    projector::migrate(&url).await.unwrap();
    crate::projections::caught_up(&production.log, &url).await;
    let folder = folder();
    let address = staging.address.to_string();
    let of_staging = ["--log", &address, "--postgres", &url];
    for asked in [
        &["serve", "--role", "projector", "--listen", "127.0.0.1:0"][..],
        &["serve", "--role", "query-api", "--listen", "127.0.0.1:0"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["projections", "rebuild", "--all"],
        &["projections", "list"],
        &["migrate"],
    ] {
        let refused = call(folder.path(), &[asked, &of_staging].concat());
        assert_exit(&refused, 2);
        let said = stderr(&refused);
        let names = [&production, &staging].iter().all(|log| {
            said.contains(&log.id.to_string()) && said.contains(&log.address.to_string())
        });
        assert!(names, "{asked:?}: {said}");
    }
    let refused = call(folder.path(), &[&["migrate"], &of_staging[..]].concat());
    let said = stderr(&refused);
    let sql = Regex::new("DROP SCHEMA [a-z, ]+ CASCADE").unwrap();
    execute(&url, sql.find(&said).unwrap().as_str()).await;
    let mut arguments = advised(&said);
    let place = arguments.iter().position(|word| word == "URL").unwrap();
    arguments[place].clone_from(&url);
    let mut command = annals(folder.path());
    assert_exit(&command.args(arguments).output().unwrap(), 0);
    let rebuilt = call(
        folder.path(),
        &[&["projections", "rebuild", "--all"], &of_staging[..]].concat(),
    );
    assert_exit(&rebuilt, 0);
    // Without `--log`, `migrate` does not compare the database with a log.
    assert_exit(&call(folder.path(), &["migrate", "--postgres", &url]), 0);
}

#[tokio::test]
async fn commands_that_only_read_work_as_advised() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let address = log.address.to_string();
    let folder = folder();
    let refused = call(folder.path(), &["verify-cluster", "--log", &address]);
    assert_exit(&refused, 2);
    assert_exit(&follow(folder.path(), &stderr(&refused), None), 0);
    let checked = stdout(&call(
        folder.path(),
        &["check", "--log", &address, "--output", "json"],
    ));
    let to_do = Regex::new("annals log copy --log [^ ]+ --to ").unwrap();
    let to_do = to_do.find(&checked).unwrap_or_else(|| panic!("{checked}"));
    let mut arguments: Vec<&str> = to_do.as_str().split_whitespace().skip(1).collect();
    // A second file stands for a second cluster.
    arguments.push("sqlite:copy.db");
    assert_exit(&call(folder.path(), &arguments), 0);
}
