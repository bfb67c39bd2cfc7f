//! What made a row: over HTTP, as of a moment, of rows that went away, and of read models without a
//! history.

use std::sync::Arc;

use domain::Order;
use domain::order::{OrderApproved, OrderCanceled, OrderPlaced};
use projector::ColumnType::{Bigint, Jsonb, Text, Timestamptz};
use projector::{
    History, Json, Projection, RowsOf, Rules, SqlCommit, SqlError, SqlProjection, SqlTransaction,
    Table, Value as Given, View, add_decimal, key, latest, max, min, set, sum_of, tally,
    with_general, with_sql,
};
use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::stack::read_models;

use super::Served;
use crate::explaining::{Sums, add_up, segment};
use crate::projections::{level, shop_history, submit_all, until};
use crate::write_side::{place, request};

/// A column of each rule, emptied and removed rows, and values of unlike types.
const KINDS: Table = Table {
    name: "kinds",
    about: "Orders, with columns of all kinds.",
    key: &[key("order", Text, "The order.")],
    values: &[
        set("status", Text, "Its state.").nullable(),
        set("document", Jsonb, "A document.").nullable(),
        tally("events", "How many events."),
        add_decimal("weight", 2, "A weight.").or_zero(),
        min("first_at", Timestamptz, "The first time."),
        max("last_at", Timestamptz, "The last time."),
        latest("last_event", Text, Timestamptz, "The last event."),
    ],
    rows: RowsOf::OneStream,
    ..Table::PLAIN
};

/// How many orders there are, of all streams.
const COUNTS: Table = Table {
    name: "counts",
    about: "Orders by currency.",
    key: &[key("currency", Text, "The currency.")],
    values: &[
        tally("orders", "How many."),
        max("most", Bigint, "The most items."),
    ],
    ..Table::PLAIN
};

fn kinds(history: History) -> Arc<dyn Projection> {
    let rules = Rules::new("kinds", 1, &[KINDS])
        .history(history)
        .on::<Order, OrderPlaced>(|placed, event, changes| {
            changes
                .row(&KINDS, [Given::from(event.stream_id())])
                .put("status", "placed")
                .put("document", Json(json!({"b": [1, 2.5], "a": "x"})))
                .put("events", 1_i64)
                .put("weight", projector::Decimal::new(1_255, 3))
                .put("first_at", event.occurred_at())
                .put("last_at", event.occurred_at())
                .put_latest("last_event", placed.currency.as_str(), event.occurred_at());
        })
        .on::<Order, OrderApproved>(|_, event, changes| {
            changes
                .row(&KINDS, [Given::from(event.stream_id())])
                .put_nothing("status")
                .put("events", 1_i64)
                .put("weight", projector::Decimal::new(-5, 1))
                .put("first_at", event.occurred_at())
                .put("last_at", event.occurred_at())
                .put_latest("last_event", "approved", event.occurred_at());
        })
        .on::<Order, OrderCanceled>(|_, event, changes| {
            changes.remove(&KINDS, [Given::from(event.stream_id())]);
        });
    Arc::new(rules)
}

fn counts(history: History) -> Arc<dyn Projection> {
    let rules = Rules::new("counts", 1, &[COUNTS])
        .history(history)
        .on::<Order, OrderPlaced>(|placed, _, changes| {
            let items = i64::try_from(placed.items.len()).unwrap_or_default();
            changes
                .row(&COUNTS, [Given::from(placed.currency.as_str())])
                .put("orders", 1_i64)
                .put("most", items);
        });
    Arc::new(rules)
}

async fn caught_up(served: &Served, all: &[Arc<dyn Projection>]) {
    let done = async || level(&served.log, &served.postgres_url, all).await;
    until("it has caught up", done).await;
}

/// All contributions to a row, page by page, with the last page's answer.
async fn all(served: &Served, path: &str, limit: u32) -> (Vec<Value>, Value) {
    let sign = if path.contains('?') { '&' } else { '?' };
    let (mut contributions, mut next) = (Vec::new(), format!("{path}{sign}limit={limit}"));
    loop {
        let response = served.get(&next).send().await.unwrap();
        let link = response.headers().get("link").cloned();
        let status = response.status();
        let page: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(status, 200, "{next}: {page}");
        assert_ne!(page["adds_up"], false, "{next}: {}", page["differences"]);
        contributions.extend(page["contributions"].as_array().unwrap().iter().cloned());
        let Some(link) = link else {
            assert_eq!(page["next"], Value::Null);
            return (contributions, page);
        };
        let link = link.to_str().unwrap();
        next = link[1..link.find('>').unwrap()].to_owned();
    }
}

#[tokio::test]
async fn a_row_is_told_by_what_each_event_gave_it_at_any_moment() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        submit_all(&served.engine, shop_history(51, 40)).await;
        let placed = served
            .submit(request("order-last", "PlaceOrder", "a", &place()))
            .await;
        let approved = served
            .submit(request("order-last", "ApproveOrder", "b", &json!({})))
            .await;
        caught_up(&served, &read_models()).await;
        let (told, last) = all(&served, "/v1/read/order_summary/last/why", 100).await;
        assert_eq!(
            (&last["adds_up"], &last["source"]),
            (&json!(true), &json!("history"))
        );
        let types = |told: &[Value]| -> Vec<String> {
            let name = |one: &Value| one["event_type"].as_str().unwrap().to_owned();
            told.iter().map(name).collect()
        };
        assert_eq!(types(&told), ["OrderPlaced", "OrderApproved"]);
        assert_eq!(told[1]["command"], "ApproveOrder");
        assert_eq!(told[1]["stream"], "order-last");
        assert_eq!(
            (&told[0]["effect"], &told[1]["effect"]),
            (&json!("began"), &json!("changed"))
        );
        let status =
            json!({"column": "status", "rule": "set", "given": "approved", "value": "approved"});
        assert!(
            told[1]["cells"].as_array().unwrap().contains(&status),
            "{told:?}"
        );
        // One column of it, and a column of the key, which began with the row.
        let path = "/v1/read/order_summary/last/why?column=approved_at";
        assert_eq!(types(&all(&served, path, 100).await.0), ["OrderApproved"]);
        let path = "/v1/read/order_summary/last/why?column=order_id";
        assert_eq!(all(&served, path, 100).await.0.len(), 2);
        // As of the first event.
        for moment in [
            placed.position.to_string(),
            told[0]["recorded_at"].as_str().unwrap().to_owned(),
        ] {
            let path = format!("/v1/read/order_summary/last/why?as_of={moment}");
            let (then, answer) = all(&served, &path, 100).await;
            assert_eq!(
                (types(&then), &answer["adds_up"]),
                (vec!["OrderPlaced".to_owned()], &json!(true))
            );
        }
        let path = format!(
            "/v1/read/order_summary/last/why?as_of={}",
            approved.position
        );
        assert_eq!(all(&served, &path, 100).await.0.len(), 2);
        // A row that many streams feed, however pages are cut.
        let days = served.ok("/v1/read/daily_sales?limit=1").await["rows"].clone();
        let (day, orders) = (days[0]["day"].as_str().unwrap(), &days[0]["orders"]);
        let key = segment(&format!("{day},{}", days[0]["currency"].as_str().unwrap()));
        let path = format!("/v1/read/daily_sales/{key}/why");
        let (whole, _) = all(&served, &path, 1_000).await;
        assert_eq!(json!(whole.len()), *orders);
        for limit in [1, 7] {
            assert_eq!(
                all(&served, &path, limit).await.0,
                whole,
                "{kind:?} {limit}"
            );
        }
        let mut sums = Sums::new();
        add_up(&mut sums, &json!(whole));
        let sums = sums.into_values().next().unwrap();
        assert_eq!(sums["items_minor"], days[0]["items_minor"]);
    }
}

#[tokio::test]
async fn columns_of_every_rule_and_rows_that_went_away_are_told_with_and_without_a_history() {
    for history in [History::Full, History::Day, History::Off] {
        let models = with_general(vec![kinds(history), counts(history)]);
        let served = Served::showing(NewLog::make(Kind::Sqlite, 4).await, models.clone()).await;
        for (order, id) in [("order-k", "a"), ("order-k2", "b")] {
            served
                .submit(request(order, "PlaceOrder", id, &place()))
                .await;
        }
        let approve = request("order-k", "ApproveOrder", "c", &json!({}));
        served.submit(approve).await;
        caught_up(&served, &models).await;
        let source = if history == History::Full {
            "history"
        } else {
            "log"
        };
        let (told, last) = all(&served, "/v1/read/kinds/k/why", 1).await;
        assert_eq!(
            (&last["adds_up"], &last["source"]),
            (&json!(true), &json!(source))
        );
        let cell = |told: &Value, column: &str| -> Value {
            let cells = told["cells"].as_array().unwrap().iter();
            let mut cells = cells.filter(|cell| cell["column"] == column);
            cells.next().cloned().unwrap_or_default()
        };
        let value = |told: &Value, column: &str| cell(told, column)["value"].clone();
        assert_eq!(
            value(&told[0], "document"),
            json!({"b": [1, 2.5], "a": "x"})
        );
        assert_eq!(value(&told[0], "status"), "placed");
        assert_eq!(
            (
                &cell(&told[1], "status")["given"],
                &value(&told[1], "status")
            ),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(
            (value(&told[0], "weight"), value(&told[1], "weight")),
            (json!("1.26"), json!("0.76"))
        );
        assert_eq!(value(&told[1], "events"), 2);
        assert_eq!(value(&told[1], "last_event"), "approved");
        assert_eq!(value(&told[1], "first_at"), value(&told[0], "first_at"));
        // Two streams feed this row.
        let (both, last) = all(&served, "/v1/read/counts/BRL/why", 1).await;
        assert_eq!((both.len(), &last["adds_up"]), (2, &json!(true)));
        assert_eq!(value(&both[1], "orders"), 2);
        // The row goes away; what made it can still be told.
        let cancel = request("order-k", "CancelOrder", "d", &json!({"reason": "x"}));
        served.submit(cancel).await;
        caught_up(&served, &models).await;
        served
            .problem(served.get("/v1/read/kinds/k"), 404, "row_not_found")
            .await;
        let (told, last) = all(&served, "/v1/read/kinds/k/why", 100).await;
        assert_eq!((told.len(), &last["adds_up"]), (3, &json!(true)));
        assert_eq!(told[2]["effect"], "removed");
        let (told, _) = all(&served, "/v1/read/kinds/k/why?column=status", 100).await;
        assert_eq!(told.len(), 3, "{told:?}");
        // The general read models are made of commits as a whole.
        let (told, last) = all(&served, "/v1/read/stream_index/order-k/why", 100).await;
        assert_eq!((told.len(), &last["adds_up"]), (3, &json!(true)));
        assert_eq!(
            (&told[0]["event"], value(&told[2], "version")),
            (&Value::Null, json!(3))
        );
    }
}

struct Own;

impl SqlProjection for Own {
    fn name(&self) -> &'static str {
        "own"
    }

    fn version(&self) -> u32 {
        1
    }

    fn tables(&self) -> &'static [Table] {
        &[COUNTS]
    }

    async fn apply(&self, _: &[SqlCommit<'_>], _: &mut SqlTransaction<'_>) -> Result<(), SqlError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_with_what_to_do() {
    let served = Served::start(Kind::Sqlite).await;
    served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    caught_up(&served, &read_models()).await;
    let row = "/v1/read/order_summary/1/why";
    for (path, status, code) in [
        (format!("{row}?column=colour"), 400, "query_invalid"),
        (format!("{row}?limit=0"), 400, "query_invalid"),
        (format!("{row}?colour=red"), 400, "query_invalid"),
        (format!("{row}?as_of=yesterday"), 400, "query_invalid"),
        (format!("{row}?after=x"), 404, "cursor_unknown"),
        (
            "/v1/read/order_summary/2/why".to_owned(),
            404,
            "row_not_found",
        ),
        (
            format!("{row}?as_of=2000-01-01T00:00:00Z"),
            404,
            "row_not_found",
        ),
        (
            "/v1/read/daily_sales/x/why".to_owned(),
            404,
            "row_not_found",
        ),
        ("/v1/read/nothing/1/why".to_owned(), 404, "model_unknown"),
    ] {
        let problem = served.problem(served.get(&path), status, code).await;
        if path.contains("colour=") || path.contains("=colour") {
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                path.contains("?colour") || detail.contains("approved_at"),
                "{detail}"
            );
        }
    }
    // Another tenant has no such row.
    let asked = served.get(row).header("annals-tenant", "other");
    served.problem(asked, 404, "row_not_found").await;
    // The client has it already.
    let tag = served.get(row).send().await.unwrap().headers()["etag"].clone();
    let again = served.get(row).header("if-none-match", tag).send().await;
    assert_eq!(again.unwrap().status(), 304);
    let models = with_general(vec![Arc::new(with_sql(Own))]);
    let served = Served::showing(NewLog::make(Kind::Sqlite, 1).await, models).await;
    let asked = served.get("/v1/read/counts/BRL/why");
    served.problem(asked, 409, "why_unknown").await;
}

/// Each order joins its mark, which goes away when it is given up.
const MARKED: &[Table] = &[
    Table {
        name: "marked",
        about: "Orders.",
        key: &[key("order_id", Text, "The order.")],
        values: &[set("status", Text, "Its state.")],
        view: View {
            joins: "LEFT JOIN {marks} AS a ON a.tenant = r.tenant AND a.order_id = r.order_id",
            computed: &[sum_of("marks", "coalesce(a.marks, 0)", "How many marks.")],
            ..View::WHOLE
        },
        ..Table::PLAIN
    },
    Table {
        name: "marks",
        about: "Orders that were not given up.",
        key: &[key("order_id", Text, "The order.")],
        values: &[tally("marks", "How many.")],
        rows: RowsOf::OneStream,
        ..Table::PLAIN
    },
];

fn marked() -> Arc<dyn Projection> {
    let rules = Rules::new("marked", 1, MARKED)
        .on::<Order, OrderPlaced>(|_, at, changes| {
            let own = [Given::from(at.stream_id())];
            changes.row(&MARKED[0], own.clone()).put("status", "placed");
            changes.row(&MARKED[1], own).put("marks", 3_i64);
        })
        .on::<Order, OrderCanceled>(|_, at, changes| {
            let own = [Given::from(at.stream_id())];
            changes.row(&MARKED[0], own).put("status", "canceled");
            changes.remove_all(&MARKED[1]);
        });
    Arc::new(rules)
}

#[tokio::test]
async fn what_a_row_joined_is_told_as_of_a_moment_at_which_it_was_there() {
    let models = with_general(vec![marked()]);
    let log = NewLog::make(Kind::Sqlite, 2).await;
    let served = Served::showing(log, models.clone()).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "a", &place()))
        .await;
    let cancel = request("order-1", "CancelOrder", "b", &json!({"reason": "none"}));
    served.submit(cancel).await;
    caught_up(&served, &models).await;
    let (told, _) = all(&served, "/v1/read/marked/1/why", 100).await;
    assert_eq!(told.last().unwrap()["event_type"], "OrderCanceled");
    let path = format!("/v1/read/marked/1/why?as_of={}", placed.position);
    let (told, _) = all(&served, &path, 100).await;
    let text = json!(told).to_string();
    assert!(text.contains("\"marks\""), "{text}");
}
