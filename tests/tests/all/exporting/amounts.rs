//! Exports of the shop's orders, read by DuckDB, Polars and pandas, give the amounts that independent
//! SQL computes from the raw files: in each format, from the events and from the read models.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};
use tests::harness::logs::NewLog;

use super::{exported, findings};
use crate::cli::program::{assert_exit, stdout};
use crate::querying::{blocks, users_tools};

/// Prints what the files of an export add up to, as one JSON document.
const SCRIPT: &str = r#"
import json
import duckdb, pandas, polars
placed = duckdb.sql("""
    SELECT (make_timestamp(epoch_us(occurred_at))::date)::text, data_currency, count(*),
        sum(json_array_length(data_items)), sum(data_items_minor), sum(data_freight_minor)
    FROM read_parquet('placed/**/*.parquet', hive_partitioning = true)
    WHERE type = 'OrderPlaced' AND recorded_day >= '2000-01-01' GROUP BY 1, 2 ORDER BY 1, 2
""").fetchall()
model = polars.read_parquet("daily_sales/*.parquet").sort("day", "currency")
model = [[str(row[0]), *row[1:]] for row in model.select(
    "day", "currency", "orders", "items", "items_minor", "freight_minor").iter_rows()]
captured = pandas.read_parquet("captured")
assert str(captured.recorded_at.dt.tz) == "UTC", captured.dtypes
assert captured.type.dtype == "category", captured.dtypes
assert (captured.type == "PaymentCaptured").all()
captured = captured.groupby("data_method", observed=True).agg(
    count=("data_amount_amount_minor", "size"), sum=("data_amount_amount_minor", "sum"))
captured = [[method, int(row["count"]), int(row["sum"])] for method, row in captured.iterrows()]
print(json.dumps({"placed": placed, "model": model, "captured": sorted(captured)}, default=int))
"#;

/// Prints, for each format of events and of orders, what was placed on each day with each status that
/// orders have come to. The statuses of events are worked out here, from the last event of an order.
const BY_DAY_AND_STATUS: &str = r#"
import json
import duckdb, pandas, polars
STATUS = {"OrderPlaced": "placed", "OrderApproved": "approved", "ProcessingStarted": "processing",
    "OrderInvoiced": "invoiced", "OrderShipped": "shipped", "OrderDelivered": "delivered",
    "OrderCanceled": "canceled", "OrderMarkedUnavailable": "unavailable"}
utc = lambda column: pandas.to_datetime(column, utc=True, format="ISO8601")
as_list = lambda frame: [[*map(str, row[:2]), *map(int, row[2:])] for row in frame.itertuples(index=False)]
read_events = {
    "parquet": lambda: polars.read_parquet("events/**/*.parquet").to_pandas(),
    "csv": lambda: duckdb.sql("FROM read_csv('events_csv/**/*.csv', all_varchar = true)").df(),
    "ndjson": lambda: polars.read_ndjson("events_ndjson/**/*.ndjson").to_pandas(),
}
def of_events(events):
    events = events[events["type"].isin(list(STATUS))].assign(version=events.version.astype(int))
    events = events.sort_values("version")
    last = events.groupby("stream").type.last().map(STATUS)
    placed = events[events["type"] == "OrderPlaced"].set_index("stream")
    data = placed.data.map(lambda data: json.loads(data) if isinstance(data, str) else data)
    frame = pandas.DataFrame({"day": utc(placed.occurred_at).dt.date, "status": last, "orders": 1,
        "items": data.map(lambda one: one["items_minor"]),
        "freight": data.map(lambda one: one["freight_minor"])})
    return as_list(frame.groupby(["day", "status"], as_index=False).sum())
read_orders = {
    "parquet": lambda: duckdb.sql("FROM read_parquet('order_summary/*.parquet')").df(),
    "csv": lambda: pandas.concat(map(pandas.read_csv, sorted(__import__("glob").glob("order_summary_csv/*.csv")))),
    "ndjson": lambda: polars.read_ndjson("order_summary_ndjson/*.ndjson").to_pandas(),
}
def of_orders(orders):
    orders = orders.assign(day=utc(orders.placed_at).dt.date, orders=1)
    return as_list(orders.groupby(["day", "status"], as_index=False)[
        ["orders", "items_minor", "freight_minor", "captured_minor"]].sum())
print(json.dumps({
    "events": {format: of_events(read()) for format, read in read_events.items()},
    "orders": {format: of_orders(read()) for format, read in read_orders.items()}}))
"#;

/// What the raw files give for each day and status, with these sums.
async fn by_day_and_status(pool: &PgPool, sums: &[&str]) -> Value {
    let sum = |column: &&str| format!(", sum({column})");
    let select = format!(
        "SELECT json_agg(row ORDER BY day, status)::text FROM (SELECT day, status, \
         json_build_array(day::text, status, count(*){sums}) AS row FROM (SELECT *, \
         (placed_at AT TIME ZONE 'UTC')::date AS day FROM expected.order_summary) AS o \
         GROUP BY day, status) AS t",
        sums = sums.iter().map(sum).collect::<String>(),
    );
    let text: String = sqlx::query_scalar(AssertSqlSafe(select))
        .fetch_one(pool)
        .await
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn json_of(pool: &PgPool, columns: &str, table: &str) -> Value {
    let select = format!(
        "SELECT coalesce(json_agg(json_build_array({columns}) ORDER BY 1), '[]')::text FROM \
         (SELECT * FROM expected.{table} ORDER BY 1, 2) AS t"
    );
    // Within the aggregate, the order is that of the subquery.
    let select = select.replace(" ORDER BY 1), '[]'", "), '[]'");
    let text: String = sqlx::query_scalar(AssertSqlSafe(select))
        .fetch_one(pool)
        .await
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Exports the log and the read models, and compares what analysts' libraries read with the oracle's
/// expectations in the database.
pub(crate) async fn equal_sql(log: &NewLog, url: &str, pool: &PgPool) {
    let began = Instant::now();
    let run_as = |what: &[&str], format: &str, out: &str| {
        exported(log, &[what, &["--format", format, "--out", out]].concat());
        // The rows are those of the log, as verification says.
        assert_eq!(findings(log, out, 0), [""; 0], "{out}");
    };
    let run = |what: &[&str], out: &str| run_as(what, "parquet", out);
    run(&["events", "--columns-of", "OrderPlaced"], "placed");
    let captured = [
        "--where",
        "type=PaymentCaptured",
        "--columns-of",
        "PaymentCaptured",
    ];
    run(&[&["events"], &captured[..]].concat(), "captured");
    run(&["daily_sales", "--postgres", url], "daily_sales");
    run(&["events"], "events");
    let orders = ["order_summary", "--postgres", url];
    run(&orders, "order_summary");
    for format in ["csv", "ndjson"] {
        run_as(&["events"], format, &format!("events_{format}"));
        run_as(&orders, format, &format!("order_summary_{format}"));
    }
    let python = |script: &str| {
        let output = Command::new(users_tools().join("bin/python"))
            .args(["-c", script])
            .current_dir(log.folder.path())
            .output()
            .unwrap();
        assert_exit(&output, 0);
        stdout(&output)
    };
    // The recipes of the page work as they stand.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/exporting.md");
    let recipes = blocks(&std::fs::read_to_string(page).unwrap());
    let recipes: Vec<_> = recipes
        .iter()
        .filter(|(language, _)| language == "python")
        .collect();
    assert_eq!(recipes.len(), 3);
    for (_, recipe) in recipes {
        let said = python(recipe);
        assert!(said.contains("OrderPlaced"), "{recipe}\n{said}");
    }
    let read: Value = serde_json::from_str(&python(SCRIPT)).unwrap();
    let columns = "day, currency, orders, items, items_minor, freight_minor";
    let expected = json_of(pool, columns, "daily_sales").await;
    assert!(
        expected.as_array().is_some_and(|days| days.len() > 10),
        "{expected}"
    );
    assert_eq!(read["placed"], expected);
    assert_eq!(read["model"], expected);
    let expected = json_of(pool, "method, payments, captured_minor", "payment_mix").await;
    assert_eq!(read["captured"], expected);
    let read: Value = serde_json::from_str(&python(BY_DAY_AND_STATUS)).unwrap();
    let mut sums = vec!["items_minor", "freight_minor"];
    let of_events = by_day_and_status(pool, &sums).await;
    sums.push("captured_minor");
    let of_orders = by_day_and_status(pool, &sums).await;
    for format in ["parquet", "csv", "ndjson"] {
        assert_eq!(read["events"][format], of_events, "events as {format}");
        assert_eq!(read["orders"][format], of_orders, "orders as {format}");
    }
    println!(
        "exports of {} days and statuses equal SQL, in {:?}",
        of_orders.as_array().map_or(0, Vec::len),
        began.elapsed()
    );
}
