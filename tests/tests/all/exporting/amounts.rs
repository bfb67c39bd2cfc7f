//! Parquet, read by DuckDB, Polars and pandas, gives the amounts that independent SQL computes from the
//! raw files of the shop's orders.

use std::path::Path;
use std::process::Command;

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
    let parquet = ["--format", "parquet", "--out"];
    let run = |what: &[&str], out: &str| {
        exported(log, &[what, &parquet, &[out]].concat());
        assert_eq!(findings(log, out, 0), [""; 0], "{out}");
    };
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
}
