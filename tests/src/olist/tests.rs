//! Compares the oracle with everything else that knows what an import must do: the planner's lines
//! and report, the domain's rules, and the oracle's own expectation of the read models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::{Customer, Order, Payment};
use import::Listing;
use kernel::{Context, Decider, Message, Rejection, StreamName, TenantId};
use olist::load::{Contents, load};
use olist::plan::Plan;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, PgPool, Row};

use super::{Dirt, data_set, oracle};
use crate::harness::postgres::Postgres;

/// The folder of real orders; `None` if the user has none.
fn real_orders() -> Option<PathBuf> {
    std::env::var_os("ANNALS_OLIST_DIR").map(PathBuf::from)
}

/// Calls `check` for each folder of orders, with the folder's name and a database into which the
/// oracle has loaded it.
async fn with_folders(check: impl AsyncFn(&str, &Path, &PgPool)) {
    let postgres = Postgres::start();
    let mut folders = Vec::new();
    for (name, seed, dirt) in [
        ("generated", 1, Dirt::Real),
        ("with unreadable rows", 2, Dirt::Unreadable),
    ] {
        let folder = tempfile::tempdir().unwrap();
        data_set(seed, 400, dirt).write_to(folder.path()).unwrap();
        folders.push((name, folder.path().to_owned(), Some(folder)));
    }
    folders.extend(real_orders().map(|folder| ("real", folder, None)));
    for (name, path, _guard) in folders {
        let pool = PgPool::connect(&postgres.create_database().await)
            .await
            .unwrap();
        oracle::load(&pool, &path).await.unwrap();
        check(name, &path, &pool).await;
        pool.close().await;
    }
}

fn plan_of(folder: &Path) -> Plan {
    let contents = Contents::of_folder(folder).unwrap();
    let mut histories = load(&contents, Listing::default()).unwrap();
    histories.unreadable.finish().unwrap();
    Plan::new(histories, None)
}

#[tokio::test]
async fn the_planner_sends_and_lists_what_the_oracle_says() {
    with_folders(async |name, folder, pool| {
        let plan = plan_of(folder);
        let mut planned: BTreeMap<String, i64> = BTreeMap::new();
        for line in plan.lines() {
            *planned.entry(line.command.into_owned()).or_default() += 1;
        }
        let expected: Vec<(String, i64)> =
            sqlx::query_as("SELECT command, lines FROM expected.commands")
                .fetch_all(pool)
                .await
                .unwrap();
        assert_eq!(planned, expected.into_iter().collect(), "{name}");

        let listed: Vec<_> = plan
            .unreadable
            .rows()
            .iter()
            .map(|row| (row.file.clone(), i64::try_from(row.line).unwrap()))
            .collect();
        let expected: Vec<(String, i64)> = sqlx::query_as(
            "SELECT file, line FROM expected.unreadable ORDER BY file COLLATE \"C\", line",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        assert_eq!(listed, expected, "{name}");
        assert_eq!(listed.is_empty(), name != "with unreadable rows");
    })
    .await;
}

#[test]
fn the_real_orders_are_32858_commands_of_rows_that_can_all_be_read() {
    // Without a folder of real orders, the other tests with generated orders must do.
    if let Some(folder) = real_orders() {
        let plan = plan_of(&folder);
        assert_eq!(plan.lines_total, 32_858);
        assert_eq!(plan.lines().count(), 32_858);
        assert!(plan.unreadable.count() == 0);
    }
}

/// The states of all streams while commands are judged by the rules, without an engine.
#[derive(Clone, Default, PartialEq)]
struct Streams {
    customers: BTreeMap<String, <Customer as Decider>::State>,
    orders: BTreeMap<String, <Order as Decider>::State>,
    payments: BTreeMap<String, <Payment as Decider>::State>,
}

fn judge<D: Decider>(
    states: &mut BTreeMap<String, D::State>,
    stream: &str,
    command: (&str, &str),
    context: &Context,
) -> (usize, Option<String>) {
    let command = D::Command::decode(command.0, 1, command.1).unwrap();
    let state = states.entry(stream.to_owned()).or_default();
    match D::decide(state, &command, context) {
        Ok(events) => {
            for event in &events {
                D::evolve(state, event, context.occurred_at);
            }
            (events.len(), None)
        }
        Err(rejection) => (0, Some(rejection.code().to_owned())),
    }
}

/// Judges a line, and writes the verdict as COPY takes it: stream, command, time, code, events.
fn verdict(streams: &mut Streams, line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |field: &str| line[field].as_str().unwrap();
    let stream: StreamName = text("stream").parse().unwrap();
    let context = Context {
        occurred_at: text("occurred_at").parse().unwrap(),
        is_time_given: true,
        actor: None,
        tenant: TenantId::default(),
        command_id: text("id").parse().unwrap(),
    };
    let data = line["data"].to_string();
    let (name, command) = (stream.as_str(), (text("command"), data.as_str()));
    let (events, code) = match stream.category() {
        "customer" => judge::<Customer>(&mut streams.customers, name, command, &context),
        "order" => judge::<Order>(&mut streams.orders, name, command, &context),
        "payment" => judge::<Payment>(&mut streams.payments, name, command, &context),
        other => panic!("no category {other}"),
    };
    let code = code.unwrap_or_default();
    format!(
        "{name},{},{},{code},{events}\n",
        command.0, context.occurred_at
    )
}

#[tokio::test]
async fn the_rules_decide_each_command_as_the_oracle_says() {
    with_folders(async |name, folder, pool| {
        let mut streams = Streams::default();
        let plan = plan_of(folder);
        let verdicts: String = plan
            .lines()
            .map(|line| verdict(&mut streams, &line.json))
            .collect();
        sqlx::raw_sql("CREATE TABLE verdicts AS SELECT * FROM judged.commands WHERE false")
            .execute(pool)
            .await
            .unwrap();
        let statement = "COPY verdicts FROM STDIN (FORMAT csv)";
        let mut copy = pool.copy_in_raw(statement).await.unwrap();
        copy.send(verdicts.into_bytes()).await.unwrap();
        copy.finish().await.unwrap();
        let differences: Vec<String> = sqlx::query_scalar(
            "SELECT side || ' ' || row_to_json(v)::text FROM (
                 SELECT 'rules' AS side, v.* FROM (
                     TABLE verdicts EXCEPT ALL TABLE judged.commands) v
                 UNION ALL
                 SELECT 'oracle', v.* FROM (
                     TABLE judged.commands EXCEPT ALL TABLE verdicts) v
             ) v ORDER BY stream, occurred_at, side LIMIT 20",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        assert!(
            differences.is_empty(),
            "{name}:\n{}",
            differences.join("\n")
        );
    })
    .await;
}

#[tokio::test]
async fn an_import_that_is_repeated_after_the_window_leaves_everything_as_it_is() {
    with_folders(async |name, folder, _| {
        let plan = plan_of(folder);
        let mut streams = Streams::default();
        let judge_all = |streams: &mut Streams| {
            let verdicts = plan.lines().map(|line| verdict(streams, &line.json));
            verdicts
                .filter(|verdict| !verdict.ends_with(",0\n"))
                .count()
        };
        let events = judge_all(&mut streams);
        let before = streams.clone();
        // An address recorded for the same moment as another may be recorded again; the state stays
        // the same.
        let events_again = judge_all(&mut streams);
        assert!(
            events_again < events / 100,
            "{name}: {events_again} of {events}"
        );
        assert!(streams == before, "{name}");
    })
    .await;
}

#[tokio::test]
async fn copy_reads_the_files_themselves_as_the_oracle_does() {
    with_folders(async |name, folder, pool| {
        if name == "with unreadable rows" {
            return;
        }
        for (file, table) in [
            ("olist_orders_dataset.csv", "orders"),
            ("olist_order_items_dataset.csv", "order_items"),
            ("olist_order_payments_dataset.csv", "order_payments"),
            ("olist_order_reviews_dataset.csv", "order_reviews"),
            ("olist_customers_dataset.csv", "customers"),
        ] {
            let statement = format!(
                "CREATE TABLE direct AS SELECT * FROM raw.{table} WHERE false;
                 ALTER TABLE direct DROP place, DROP line, DROP is_whole;"
            );
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(pool)
                .await
                .unwrap();
            let statement = "COPY direct FROM STDIN (FORMAT csv, HEADER, NULL '@missing@')";
            let mut copy = pool.copy_in_raw(statement).await.unwrap();
            copy.send(std::fs::read(folder.join(file)).unwrap())
                .await
                .unwrap();
            let rows = copy.finish().await.unwrap();
            let statement = format!(
                "ALTER TABLE raw.{table} DROP place, DROP line, DROP is_whole CASCADE;
                 SELECT count(*) FROM (
                     (TABLE direct EXCEPT ALL TABLE raw.{table})
                     UNION ALL (TABLE raw.{table} EXCEPT ALL TABLE direct)) d"
            );
            let counted = sqlx::raw_sql(AssertSqlSafe(statement))
                .fetch_all(pool)
                .await
                .unwrap();
            assert!(rows > 0);
            assert_eq!(counted[0].get::<i64, _>(0), 0, "{name} {file}");
            sqlx::raw_sql("DROP TABLE direct")
                .execute(pool)
                .await
                .unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_wrong_read_model_is_found_and_shown() {
    with_folders(async |_, _, pool| {
        sqlx::raw_sql("CREATE SCHEMA read")
            .execute(pool)
            .await
            .unwrap();
        for (model, _) in oracle::MODELS {
            let statement = format!(
                "CREATE TABLE read.{model} AS SELECT 'main' AS tenant, * FROM expected.{model}"
            );
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(pool)
                .await
                .unwrap();
        }
        assert_eq!(oracle::compare(pool).await.unwrap(), []);

        let spoil = "UPDATE read.order_summary SET version = version + 1 WHERE order_id =
                         (SELECT min(order_id) FROM read.order_summary);
                     INSERT INTO read.payment_mix TABLE read.payment_mix;
                     DELETE FROM read.delivery_days;";
        sqlx::raw_sql(spoil).execute(pool).await.unwrap();
        let found = oracle::compare(pool).await.unwrap();
        let models: Vec<_> = found.iter().map(|difference| difference.model).collect();
        assert_eq!(models, ["order_summary", "payment_mix", "delivery_days"]);
        assert_eq!((found[0].rows_missing, found[0].rows_excess), (1, 1));
        assert_eq!((found[1].rows_missing, found[1].rows_excess > 0), (0, true));
        assert!(
            found[0].to_string().contains("\n  missing {\"order_id\":"),
            "{}",
            found[0]
        );
    })
    .await;
}

#[tokio::test]
async fn the_real_orders_are_known() {
    let Some(folder) = real_orders() else {
        return;
    };
    let postgres = Postgres::start();
    let pool = PgPool::connect(&postgres.create_database().await)
        .await
        .unwrap();
    oracle::load(&pool, &folder).await.unwrap();
    for (query, expected) in [
        ("SELECT count(*) FROM readable.orders", 4_889),
        ("SELECT sum(lines)::bigint FROM expected.commands", 32_858),
        ("SELECT count(*) FROM expected.order_summary", 4_889 - 467),
        (
            "SELECT count(*) FROM expected.rejections WHERE code = 'order_has_no_items'",
            467,
        ),
        (
            "SELECT count(*) FROM expected.rejections WHERE code = 'order_already_delivered'",
            5,
        ),
    ] {
        let counted: i64 = sqlx::query_scalar(query).fetch_one(&pool).await.unwrap();
        assert_eq!(counted, expected, "{query}");
    }
}
