//! One history of the shop, and the rows that follow from it, in any order of its streams.

use domain::{Customer, Order, Payment};
use kernel::{Decider, Message};
use projector::testing::{History, history};
use projector::{Projection, Table};
use serde_json::{Value as Json, json};

use crate::all;

/// An event as the log holds it.
fn event<D: Decider>(name: &str, data: &Json) -> D::Event {
    D::Event::decode(name, 1, &data.to_string()).unwrap()
}

fn brl(amount_minor: i64) -> Json {
    json!({"amount_minor": amount_minor, "currency": "BRL"})
}

/// A payment comes before its order; two sellers sell to two customers, one of whom is unknown.
fn shop() -> History {
    let placed = |customer: &str| {
        let item = |line: u32, seller: &str, price: i64| {
            json!({"line": line, "product": "p", "seller": seller, "price": brl(price),
                   "freight": brl(10)})
        };
        let data = json!({
            "customer": customer, "items": [item(1, "x", 1_000), item(2, "y", 200), item(3, "x", 50)],
            "items_minor": 1_250, "freight_minor": 30, "currency": "BRL",
            "estimated_delivery": "2018-02-03T00:00:00Z",
        });
        [event::<Order>("OrderPlaced", &data)]
    };
    let paid = |order: &str, amount: i64| {
        let data = json!({"order": order, "method": "voucher", "instalments": 2,
                          "amount": brl(amount)});
        [event::<Payment>("PaymentCaptured", &data)]
    };
    let refunded = json!({"order": "1", "method": "voucher", "amount": brl(30)});
    let registered = json!({"city": "Rio", "state": "RJ", "postcode_prefix": "02"});
    let delivered = json!({"placed_at": "2018-01-31T23:00:00Z",
                           "estimated_delivery": "2018-02-03T00:00:00Z"});
    history()
        .at("2018-01-31T23:00:00Z")
        .happened::<Payment>("1-1", paid("1", 300))
        .happened::<Order>("1", placed("ann"))
        .happened::<Customer>(
            "ann",
            [event::<Customer>("CustomerRegistered", &registered)],
        )
        .at("2018-02-01T12:00:00Z")
        .happened::<Order>("2", placed("bob"))
        .happened::<Payment>("2-1", paid("2", 50))
        .happened::<Payment>("1-1", [event::<Payment>("PaymentRefunded", &refunded)])
        .happened::<Order>("1", [event::<Order>("OrderApproved", &json!({}))])
        .at("2018-02-03T12:00:00Z")
        .happened::<Order>("1", [event::<Order>("OrderDelivered", &delivered)])
}

/// The rows of a table of the shop.
fn rows(table: &str, expected: impl IntoIterator<Item = Json>) {
    let all = all();
    let of = |projection: &dyn Projection| -> Option<&'static Table> {
        projection
            .tables()
            .iter()
            .find(|declared| declared.name == table)
    };
    let mut found = all.iter().filter_map(|one| Some((one, of(&**one)?)));
    let (projection, table) = found.next().unwrap();
    shop().then_rows(&**projection, table, expected);
}

#[test]
fn the_shops_read_models_say_what_happened() {
    rows(
        "order_summary",
        [
            json!({"order_id": "1", "status": "delivered", "item_count": 3, "version": 3}),
            json!({"order_id": "2", "status": "placed", "customer_id": "bob", "version": 1}),
        ],
    );
    rows(
        "order_payment",
        [
            json!({"order_id": "1", "captured_minor": 300, "refunded_minor": 30}),
            json!({"order_id": "2", "captured_minor": 50, "refunded_minor": 0}),
        ],
    );
    rows(
        "daily_sales",
        [
            json!({"day": "2018-01-31", "orders": 1, "items": 3, "items_minor": 1_250}),
            json!({"day": "2018-02-01", "orders": 1, "freight_minor": 30}),
        ],
    );
    rows(
        "seller_sales",
        [
            json!({"seller_id": "x", "orders": 2, "items": 4, "items_minor": 2_100}),
            json!({"seller_id": "y", "orders": 2, "items": 2, "items_minor": 400}),
        ],
    );
    let voucher = json!({"method": "voucher", "payments": 2, "instalments_max": 2,
                         "captured_minor": 350, "refunded_minor": 30});
    rows("payment_mix", [voucher]);
    rows(
        "delivery_days",
        [json!({"month": "2018-02-01", "delivered": 1, "days_sum": 2, "late": 1})],
    );
}

#[test]
fn no_read_model_of_the_shop_depends_on_the_order_of_streams() {
    let shop = shop();
    for projection in all() {
        for table in projection.tables() {
            assert!(!shop.rows(&*projection, table).is_empty(), "{}", table.name);
        }
    }
}
