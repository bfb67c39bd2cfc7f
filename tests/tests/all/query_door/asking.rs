//! Filters, orders and pages: what is asked for is what plain SQL finds, page by page, while rows
//! are added and changed; and what no index serves is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::Order;
use domain::order::{OrderCanceled, OrderPlaced};
use projector::ColumnType::{Bigint, Date, Text, Timestamptz};
use projector::{Projection, Rules, Table, Value, View, key, set};
use serde_json::{Value as Json, json};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tests::harness::logs::{Kind, NewLog};

use super::{Served, ask};
use crate::write_side::{place, request};

/// A few orders, with a column that may be null.
const PARCELS: Table = Table {
    name: "parcels",
    about: "Orders, some of which were canceled.",
    key: &[key("order_id", Text, "The order.")],
    values: &[
        set("customer", Text, "Who placed it."),
        set("weight", Bigint, "A number that several have."),
        set("day", Date, "A day.").nullable(),
        set("canceled_at", Timestamptz, "When it was given up.").nullable(),
    ],
    view: View::FEW_ROWS,
    ..Table::PLAIN
};

/// The same, with a key and no index.
const LETTERS: Table = Table {
    name: "letters",
    about: "Orders, by customer.",
    key: &[
        key("customer", Text, "Who placed it."),
        key("order_id", Text, "The order."),
    ],
    values: &[set("weight", Bigint, "A number.")],
    ..Table::PLAIN
};

fn post() -> Arc<dyn Projection> {
    let rules = Rules::new("post", 1, &[PARCELS, LETTERS]);
    let rules = rules.on::<Order, OrderPlaced>(|placed, event, changes| {
        let number: i64 = event.stream_id().parse().unwrap_or_default();
        let customer = placed.customer.as_str();
        let (order, weight) = (Value::from(event.stream_id()), number % 4);
        changes
            .row(&LETTERS, [Value::from(customer), order.clone()])
            .put("weight", weight);
        let mut row = changes.row(&PARCELS, [order]);
        row.put("customer", customer).put("weight", weight);
        if number % 3 == 0 {
            row.put("day", event.occurred_at().to_utc().date_naive());
        }
    });
    Arc::new(rules.on::<Order, OrderCanceled>(|_, event, changes| {
        changes
            .row(&PARCELS, [Value::from(event.stream_id())])
            .put("canceled_at", event.occurred_at());
    }))
}

/// A door that shows orders from 0 to `orders`, and the position of the last of them.
async fn served(orders: usize) -> (Served, String) {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let served = Served::showing(log, projector::with_general(vec![post()])).await;
    let mut last: Option<position::PositionToken> = None;
    for number in 0..orders {
        let stream = format!("order-{number:02}");
        let mut data = place();
        data["customer"] = json!(format!("c{}", number % 5));
        let mut position = served
            .submit(request(&stream, "PlaceOrder", "a", &data))
            .await
            .position;
        if number % 7 == 2 {
            let mut cancel = request(&stream, "CancelOrder", "b", &json!({"reason": "none"}));
            let at = format!("2018-06-{:02}T10:00:00Z", 10 + number % 2);
            cancel.occurred_at = Some(at.parse().unwrap());
            position = served.submit(cancel).await.position;
        }
        last = Some(match last {
            Some(last) => last.merge(&position).unwrap(),
            None => position,
        });
    }
    let last = last.unwrap().to_string();
    served
        .ok(&format!("/v1/read/parcels?min_position={last}"))
        .await;
    (served, last)
}

/// The orders of all pages, of three rows each.
async fn walk(served: &Served, path: &str) -> Vec<String> {
    let mut next = format!("{path}&limit=3");
    let mut orders = Vec::new();
    loop {
        let response = served.get(&next).send().await.unwrap();
        assert_eq!(response.status(), 200, "{next}");
        let link = response.headers().get("link").cloned();
        let page: Json = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        let rows = page["rows"].as_array().unwrap();
        assert!(rows.len() <= 3);
        orders.extend(
            rows.iter()
                .map(|row| row["order_id"].as_str().unwrap().to_owned()),
        );
        assert_eq!(link.is_some(), page["next"].is_string());
        // The link has the filters and the order of its page.
        let Some(link) = link else { return orders };
        let target = link.to_str().unwrap().strip_prefix('<').unwrap();
        next = target.split_once('>').unwrap().0.to_owned();
    }
}

#[tokio::test]
async fn filters_and_orders_give_what_sql_gives() {
    let (served, _) = served(30).await;
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let cases = [
        ("customer=c1", "customer = 'c1'", "order_id"),
        (
            "weight.gte=1&weight.lt=3",
            "weight BETWEEN 1 AND 2",
            "order_id",
        ),
        (
            "weight.gt=1&weight.lte=3",
            "weight BETWEEN 2 AND 3",
            "order_id",
        ),
        ("order_id.prefix=1", "order_id LIKE '1%'", "order_id"),
        (
            "customer.in=c1&customer.in=c4&customer.in=x",
            "customer IN ('c1', 'c4')",
            "order_id",
        ),
        ("day.null=true", "day IS NULL", "order_id"),
        (
            "canceled_at.null=false",
            "canceled_at IS NOT NULL",
            "order_id",
        ),
        (
            "canceled_at=2018-06-10T10:00:00Z",
            "canceled_at = '2018-06-10T10:00:00Z'",
            "order_id",
        ),
        (
            "day.lte=2018-06-04&weight=0",
            "day <= '2018-06-04' AND weight = 0",
            "order_id",
        ),
        ("sort=-order_id", "true", "order_id DESC"),
        ("sort=weight", "true", "weight, order_id"),
        ("sort=-weight", "true", "weight DESC, order_id DESC"),
        ("sort=day", "true", "day, order_id"),
        ("sort=-day", "true", "day DESC, order_id DESC"),
        (
            "sort=canceled_at,-weight",
            "true",
            "canceled_at, weight DESC, order_id DESC",
        ),
        (
            "sort=-canceled_at,day",
            "true",
            "canceled_at DESC, day, order_id",
        ),
        (
            "sort=-day&day.null=false&weight.gt=0",
            "day IS NOT NULL AND weight > 0",
            "day DESC, order_id DESC",
        ),
    ];
    for (query, condition, order) in cases {
        let sql = format!(
            "SELECT order_id FROM read.parcels WHERE tenant = 'main' AND {condition} ORDER BY {order}"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let expected: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(!expected.is_empty(), "{query}");
        let found = walk(&served, &format!("/v1/read/parcels?{query}")).await;
        assert_eq!(found, expected, "{query}");
        let counted = served
            .ok(&format!("/v1/read/parcels?{query}&count=true&limit=1"))
            .await;
        let count = json!({"rows": expected.len(), "complete": true});
        assert_eq!(counted["count"], count, "{query}");
    }
    let theirs = served
        .get("/v1/read/parcels?customer=c1")
        .header("Annals-Tenant", "acme");
    let (_, page) = ask(theirs).await;
    assert_eq!((&page["rows"], &page["count"]), (&json!([]), &Json::Null));
}

#[tokio::test]
async fn rows_that_come_and_change_move_no_other_row_across_pages() {
    let (served, _) = served(20).await;
    let mut path = "/v1/read/parcels?sort=canceled_at&limit=2".to_owned();
    let mut seen = Vec::new();
    for number in 100.. {
        let page = served.ok(&path).await;
        let rows = page["rows"].as_array().unwrap();
        seen.extend(
            rows.iter()
                .map(|row| row["order_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/read/parcels?sort=canceled_at&limit=2&after={next}");
        let stream = format!("order-{number}");
        let placed = served
            .submit(request(&stream, "PlaceOrder", "a", &place()))
            .await;
        let waits = format!("/v1/read/parcels?limit=1&min_position={}", placed.position);
        served.ok(&waits).await;
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len(), "no row comes twice");
    let old: BTreeSet<_> = (0..20).map(|number| format!("{number:02}")).collect();
    assert!(distinct.is_superset(&old), "none is left out: {seen:?}");
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_says_what_can_be_asked() {
    let (served, _) = served(8).await;
    for (path, status, code, says) in [
        (
            "/v1/read/parcels?weight=x",
            400,
            "query_invalid",
            "weight must be an integer",
        ),
        (
            "/v1/read/parcels?day=2018-02-30",
            400,
            "query_invalid",
            "day must be a day",
        ),
        (
            "/v1/read/parcels?sort=tenant",
            400,
            "query_invalid",
            "order_id, weight",
        ),
        (
            "/v1/read/parcels?weight=1&weight=2",
            400,
            "query_invalid",
            "only once",
        ),
        (
            "/v1/read/parcels?customer.like=c",
            400,
            "query_invalid",
            "GET /v1/read",
        ),
        (
            "/v1/read/letters?weight=1",
            400,
            "query_invalid",
            "GET /v1/read",
        ),
        (
            "/v1/read/letters?order_id=01",
            422,
            "query_unindexed",
            "filter also by customer",
        ),
        (
            "/v1/read/letters?sort=order_id",
            422,
            "query_unindexed",
            "customer,order_id",
        ),
    ] {
        let problem = served.problem(served.get(path), status, code).await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{path}: {detail}");
    }
    let both = "/v1/read/letters?customer=c1&order_id.in=01&order_id.in=06&sort=-order_id";
    assert_eq!(walk(&served, both).await, ["06", "01"]);
    let page = served.ok("/v1/read/parcels?sort=-weight&limit=2").await;
    let next = page["next"].as_str().unwrap();
    for other in ["sort=weight", "sort=-weight&customer=c1", "limit=2"] {
        let path = format!("/v1/read/parcels?{other}&after={next}");
        served
            .problem(served.get(&path), 422, "cursor_of_other_query")
            .await;
    }
    // What is offered is listed.
    let models = served.ok("/v1/read").await;
    let all = models["models"].as_array().unwrap();
    let letters = all.iter().find(|model| model["name"] == "letters").unwrap();
    assert_eq!(letters["sorts"], json!(["customer", "order_id"]));
    let filters: Vec<_> = letters["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["filters"])
        .collect();
    let of = |name: &str| json!([name, format!("{name}.prefix"), format!("{name}.in")]);
    assert_eq!(filters, [&of("customer"), &of("order_id"), &json!([])]);
}

#[tokio::test]
async fn a_cursor_of_rows_that_were_rebuilt_is_refused() {
    let (served, _) = served(8).await;
    let page = served.ok("/v1/read/parcels?limit=2").await;
    let next = page["next"].as_str().unwrap();
    let path = format!("/v1/read/parcels?limit=2&after={next}");
    served.ok(&path).await;
    // What a switch does.
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let raise = "WITH g AS (INSERT INTO annals.generation (projection, generation, version, state, \
                 declaration, tables, views) SELECT projection, generation + 1, version, 'building', \
                 declaration, '{}', '{}' FROM annals.generation WHERE projection = 'post') \
                 UPDATE annals.checkpoint SET updated_at = now() WHERE projection = 'post'";
    sqlx::query(raise).execute(&mut connection).await.unwrap();
    let switch = "UPDATE annals.generation SET state = CASE state WHEN 'live' THEN 'building' \
                  ELSE 'live' END WHERE projection = 'post' AND ";
    for state in ["state = 'live'", "generation = 2"] {
        let switch = AssertSqlSafe(format!("{switch}{state}"));
        sqlx::query(switch).execute(&mut connection).await.unwrap();
    }
    served
        .problem(served.get(&path), 410, "cursor_expired")
        .await;
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_and_says_what_to_do() {
    let (mut served, _) = served(3).await;
    served.projector.take().unwrap().stop().await.unwrap();
    let mut connection = sqlx::PgConnection::connect(&served.postgres_url)
        .await
        .unwrap();
    let mut tx = connection.begin().await.unwrap();
    let lock = "LOCK TABLE read.parcels IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut *tx).await.unwrap();
    let asked = served.get("/v1/read/parcels?weight=1");
    let problem = served.problem(asked, 503, "query_too_slow").await;
    assert!(problem["detail"].as_str().unwrap().contains("ask for less"));
    tx.rollback().await.unwrap();
    served.ok("/v1/read/parcels?weight=1").await;
}

#[tokio::test]
async fn the_shops_orders_and_refusals_are_found_by_their_indexes() {
    let served = Served::start(Kind::Sqlite).await;
    let mut last: Option<position::PositionToken> = None;
    for number in 0..6 {
        let stream = format!("order-{number}");
        let mut placed = request(&stream, "PlaceOrder", "a", &place());
        placed.occurred_at = Some(
            format!("2018-06-0{}T10:00:00Z", 9 - number)
                .parse()
                .unwrap(),
        );
        served.submit(placed).await;
        let next = if number % 2 == 0 {
            "ApproveOrder"
        } else {
            "ShipOrder"
        };
        let answer = served.submit(request(&stream, next, "b", &json!({}))).await;
        last = Some(match last {
            Some(last) => last.merge(&answer.position).unwrap(),
            None => answer.position,
        });
    }
    let last = last.unwrap();
    for model in ["order_summary", "rejections"] {
        served
            .ok(&format!("/v1/read/{model}?limit=1&min_position={last}"))
            .await;
    }
    for (query, expected) in [
        ("status=approved&sort=placed_at", &["4", "2", "0"][..]),
        ("status=approved&sort=-placed_at", &["0", "2", "4"]),
        (
            "customer_id=c1&placed_at.lt=2018-06-06T00:00:00Z&sort=placed_at",
            &["5", "4"],
        ),
        ("placed_at.gte=2018-06-08T00:00:00Z", &["0", "1"]),
        ("sort=-placed_at", &["0", "1", "2", "3", "4", "5"]),
    ] {
        let path = format!("/v1/read/order_summary?{query}");
        assert_eq!(walk(&served, &path).await, expected, "{query}");
    }
    let refusals = "/v1/read/rejections?code=order_not_approved&sort=-recorded_at&count=true";
    let page = served.ok(refusals).await;
    assert_eq!(
        page["count"]["rows"],
        page["rows"].as_array().unwrap().len()
    );
    let path = "/v1/read/order_summary?status=approved&sort=order_id,status";
    served
        .problem(served.get(path), 422, "query_unindexed")
        .await;
}
