//! A condition over a row that joins others: it becomes true, too, when one of those goes away.

use domain::order::OrderCanceled;
use projector::{RowsOf, View, computed, set};

use super::*;

/// Each order joins its own mark, and that of another one.
const TABLES: &[Table] = &[
    Table {
        name: "pairs",
        about: "Orders, each with another one.",
        key: &[key("order_id", ColumnType::Text, "The order.")],
        values: &[set("other", ColumnType::Text, "The other one.")],
        view: View {
            joins: "LEFT JOIN {marks} AS a ON a.tenant = r.tenant AND a.order_id = r.order_id \
                    LEFT JOIN {marks} AS b ON b.tenant = r.tenant AND b.order_id = r.other",
            computed: &[
                computed(
                    "own_marks",
                    ColumnType::Bigint,
                    "(a.order_id IS NOT NULL)::integer::bigint",
                    "Whether it is marked.",
                ),
                computed(
                    "other_marks",
                    ColumnType::Bigint,
                    "(b.order_id IS NOT NULL)::integer::bigint",
                    "Whether the other one is marked.",
                ),
            ],
            ..View::WHOLE
        },
        ..Table::PLAIN
    },
    Table {
        name: "marks",
        about: "Orders that were not given up.",
        key: &[key("order_id", ColumnType::Text, "The order.")],
        values: &[set("note", ColumnType::Text, "A note.")],
        rows: RowsOf::OneStream,
        ..Table::PLAIN
    },
];

fn pairs() -> Arc<dyn Projection> {
    let rules = Rules::new("pairs", 1, TABLES)
        .on::<Order, OrderPlaced>(|_, at, changes| {
            let number: i64 = at.stream_id().parse().unwrap_or_default();
            let own = [Value::from(at.stream_id())];
            let other = (number + 1).to_string();
            changes
                .row(&TABLES[0], own.clone())
                .put("other", other.as_str());
            changes.row(&TABLES[1], own).put("note", "placed");
        })
        .on::<Order, OrderCanceled>(|_, _, changes| changes.remove_all(&TABLES[1]));
    Arc::new(rules)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_becomes_true_when_a_joined_row_goes_away() {
    let log = log_of(Kind::Sqlite, shop_history(23, 80)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let models = vec![pairs()];
    projector::check_declarations(&models).unwrap();
    let shop = Shop {
        log,
        url,
        models,
        postgres,
    };
    let told = told(&*shop.log.log).await;
    let canceled = told.iter().filter(|one| {
        let mut events = one.commit.events.iter();
        events.any(|event| event.type_name.as_str() == "OrderCanceled")
    });
    let mut found = 0;
    for one in canceled.take(4) {
        let id = one.commit.stream.as_str().strip_prefix("order-").unwrap();
        let before: i64 = id.parse::<i64>().unwrap() - 1;
        let (own, other) = (id.to_owned(), before.to_string());
        let is_placed = told.iter().any(|other| {
            let is_other = other.commit.stream.as_str() == format!("order-{before}");
            is_other && other.at < one.at && !other.commit.events.is_empty()
        });
        for (column, order) in [("own_marks", own), ("other_marks", other)] {
            if column == "other_marks" && !is_placed {
                continue;
            }
            found += 1;
            // From the moment on at which it is marked.
            let text = format!("pairs.{column} = 1 and order_id = '{order}'");
            let until = Until::read(&text).unwrap();
            let mut replay = shop.begin(new("pairs", "apart", until)).await.unwrap();
            let pause = go(&mut replay, Gait::On).await;
            assert_eq!(pause.why, PauseReason::Condition, "{text}");
            replay.finish(ApartState::Stopped).await.unwrap();
            let text = format!("pairs.{column} = 0 and order_id = '{order}'");
            let until = Until::read(&text).unwrap();
            let mut replay = shop.begin(new("pairs", "apart", until)).await.unwrap();
            let step = loop {
                let pause = go(&mut replay, Gait::On).await;
                assert_eq!(pause.why, PauseReason::Condition, "{text}");
                let step = pause.step.unwrap();
                // Before it is marked, it is not.
                if step.placed.commit.events[0].type_name.as_str() == "OrderCanceled" {
                    break step;
                }
            };
            let place = (step.placed.partition, step.placed.position.0);
            assert_eq!(place, (one.partition, one.position), "{text}");
            replay.finish(ApartState::Stopped).await.unwrap();
        }
    }
    assert!(found > 3, "{found}");
}
