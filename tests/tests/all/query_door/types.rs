//! Columns of every type in answers, and keys of every type in paths and cursors.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::harness::logs::{Kind, NewLog};

use super::Served;
use crate::projections::types::Typed;
use crate::write_side::{place, request};

#[tokio::test]
async fn each_type_has_its_form_in_json() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    let typed: Vec<Arc<dyn projector::Projection>> = vec![Arc::new(Typed)];
    let served = Served::showing(log, projector::with_general(typed)).await;
    let mut position = None;
    for number in 0..9 {
        let order = request(&format!("order-{number}"), "PlaceOrder", "a", &place());
        let answer = served.submit(order).await;
        position = Some(match position {
            None => answer.position,
            Some(token) => answer.position.merge(&token).unwrap(),
        });
    }
    let waits = format!("min_position={}", position.unwrap());
    let page = served.ok(&format!("/v1/read/typed_own?{waits}")).await;
    for row in page["rows"].as_array().unwrap() {
        let price = row["price"].as_str().unwrap();
        let (_, digits) = price.split_once('.').unwrap();
        assert_eq!(digits.len(), 3, "{price}");
        assert!(row["ratio"].is_f64(), "{row}");
        assert!(row["data"]["numbers"].is_array(), "{row}");
        assert_eq!(row["data"]["large"], json!(u64::MAX));
        assert!(row["tags"].is_array(), "{row}");
        assert!(row["is_odd"].is_null() || row["is_odd"] == json!(true));
        assert_eq!(row["id"].as_str().unwrap().len(), 36);
    }
    let mut path = format!("/v1/read/typed?limit=1&{waits}");
    let mut seen = 0;
    loop {
        let page = served.ok(&path).await;
        let row = &page["rows"][0];
        let (is_odd, id) = (&row["is_odd"], row["id"].as_str().unwrap());
        let one: Value = served.ok(&format!("/v1/read/typed/{is_odd},{id}")).await;
        assert_eq!(one, *row);
        assert!(row["any"].is_boolean(), "{row}");
        seen += 1;
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/v1/read/typed?limit=1&after={next}");
    }
    assert!(seen > 4, "{seen}");
}
