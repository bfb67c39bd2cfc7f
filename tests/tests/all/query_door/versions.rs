//! A door whose program has another version of a read model than the rows: it reads what it can, and
//! says clearly what it cannot.

use domain::Order;
use domain::order::OrderPlaced;
use projector::ColumnType::{Bigint, Text};
use projector::{KeyColumn, Rules, Table, ValueColumn, key, set};

use super::*;

const KEY: &[KeyColumn] = &[key("order_id", Text, "The order.")];

const fn notes(values: &'static [ValueColumn]) -> Table {
    Table {
        name: "notes",
        about: "Orders.",
        key: KEY,
        values,
        ..Table::PLAIN
    }
}

const CUSTOMER: ValueColumn = set("customer", Text, "Who placed it.");
const FIRST: &[Table] = &[notes(&[CUSTOMER])];
const LONGER: &[Table] = &[notes(&[
    CUSTOMER,
    set("items", Bigint, "The number of items.").nullable(),
])];
const OTHER: &[Table] = &[notes(&[set("customer", Bigint, "Its number.").nullable()])];

fn program(version: u32, tables: &'static [Table]) -> Vec<Arc<dyn Projection>> {
    let rules = Rules::new("notes", version, tables);
    let rules = rules.on::<Order, OrderPlaced>(|placed, event, changes| {
        changes
            .row(&FIRST[0], [event.stream_id().into()])
            .put("customer", placed.customer.as_str());
    });
    projector::with_general(vec![Arc::new(rules)])
}

#[tokio::test]
async fn a_program_of_another_version_says_that_the_rows_are_not_of_its_own() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    let mut served = Served::showing(log, program(1, FIRST)).await;
    let placed = served
        .submit(request("order-1", "PlaceOrder", "p", &place()))
        .await;
    let position = placed.position.to_string();
    served
        .ok(&format!("/v1/read/notes?min_position={position}"))
        .await;
    served.ok("/v1/read/notes/1").await;
    // The same columns: the old rows are read as before.
    served.serve(&program(2, FIRST)).await;
    let old = served.ok("/v1/read/notes/1").await;
    assert_eq!(old["customer"], "c1");
    // A column that the rows do not have, and one that has another type.
    for tables in [LONGER, OTHER] {
        served.serve(&program(2, tables)).await;
        for path in [
            "/v1/read/notes",
            "/v1/read/notes/1",
            "/v1/read/notes?format=csv",
        ] {
            let problem = served
                .problem(served.get(path), 503, "read_model_of_other_version")
                .await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("annals projections list"), "{detail}");
        }
        served.ok("/v1/read/stream_index").await;
        let own = program(2, tables);
        let reports = projector::report(None, &served.postgres_url, &own).await;
        let reports = reports.unwrap();
        let notes = reports.iter().find(|one| one.name == "notes").unwrap();
        let next = notes.next.as_deref().unwrap();
        assert!(next.contains("builds it beside the live one"), "{next}");
    }
}
