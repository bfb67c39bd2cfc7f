//! The shop's read models hold what an independent fold of the exported log gives.

use sqlx::PgPool;
use tests::fold;

use super::program::{Server, assert_exit, call, folder, stdout, until};

/// An order in another currency, with amounts and texts of a form of their own.
const LINES: &str = concat!(
    r#"{"stream":"order-x","command":"PlaceOrder","data":{"customer":"c","items":[{"line":1,"#,
    r#""product":"p","seller":"s","price":{"amount_minor":9007199254740000,"currency":"EUR"},"#,
    r#""freight":{"amount_minor":0,"currency":"EUR"}}],"#,
    r#""estimated_delivery":"2030-01-01T00:00:00Z"}}"#,
    "\n",
    r#"{"stream":"order-x","command":"ReviewOrder","data":{"review":"r","score":1,"#,
    r#""comment":"\"quoted\", \\ and \u0001 and 𝄞,\r\n"}}"#,
    "\n",
);
const ADDRESS: &str = r#"{"city":"sao paulo","state":"SP","postcode_prefix":"01310"}"#;

#[tokio::test]
async fn each_cell_of_the_read_models_follows_from_the_exported_log() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let run = |arguments: &[&str]| assert_exit(&call(folder.path(), arguments), 0);
    let to = ["--url", &server.url];
    let history = ["generate", "--seed", "3", "--events", "3000"];
    run(&[&history[..], &to].concat());
    // Other tenants have the same names; all histories share one log.
    run(&[&history[..], &["--tenant", "other"], &to].concat());
    std::fs::write(folder.path().join("lines"), LINES).unwrap();
    run(&[&["import", "commands", "lines", "--strict"][..], &to].concat());
    let marker = ["send", "customer-last", "RegisterCustomer", ADDRESS];
    run(&[&marker[..], &to].concat());

    let pool = PgPool::connect(&server.postgres_url()).await.unwrap();
    let dumped = stdout(&call(folder.path(), &["log", "dump", "--accepted"]));
    let export = folder.path().join("export");
    std::fs::write(&export, &dumped).unwrap();
    fold::load(&pool, &export).await.unwrap();
    until("the read models catch up and are equal", async || {
        fold::compare(&pool).await.unwrap().is_empty()
    })
    .await;

    // Another history: one command less, and another price.
    let other = dumped
        .lines()
        .filter(|line| !line.contains("customer-last"));
    let other = other.collect::<Vec<_>>().join("\n");
    let other = other.replace("\"items_minor\":9007199254740000", "\"items_minor\":1");
    std::fs::write(&export, other).unwrap();
    fold::load(&pool, &export).await.unwrap();
    let differences = fold::compare(&pool).await.unwrap();
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    for expected in [
        r#"read.customer_orders ["main", "last"]: the row should not be there"#,
        r#"read.stream_index ["main", "customer-last"]: the row should not be there"#,
        r#"read.order_summary ["main", "x"] items_minor: 1 expected, 9007199254740000 found"#,
    ] {
        assert!(
            shown.iter().any(|line| line == expected),
            "{expected}: {shown:#?}"
        );
    }
    assert_eq!(shown.len(), 7, "{shown:#?}");
}
