//! Object-centric event logs keep to the published standard, and name the objects that are declared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use domain::Order;
use host::exit::Exit;
use kernel::registry::{Registry, definitions_of};
use kernel::{Decider as _, EventObjects};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgPool, Row as _};
use tests::harness::logs::NewLog;

use super::{export, exported, shop};
use crate::cli::program::{assert_exit, stderr, stdout};

/// Validates a document against a schema with an independent validator; prints what is wrong.
const VALIDATE: &str = r#"
import json, sys
import jsonschema_rs
schema, document = (json.load(open(name)) for name in sys.argv[1:3])
validator = jsonschema_rs.Draft7Validator(schema, validate_formats=True)
for error in validator.iter_errors(document):
    print(error.instance_path, error.message)
assert not validator.is_valid({**document, "events": [{"id": 1}]})
"#;

/// Loads both forms, and compares them.
const PM4PY: &str = r#"
import pm4py
from pm4py.objects.ocel.validation import ocel20_rel_validation
document = pm4py.read_ocel2_json("shop.json")
database = pm4py.read_ocel2_sqlite("shop.sqlite")
satisfied, unsatisfied = ocel20_rel_validation.apply("shop.sqlite")
assert not unsatisfied and len(satisfied) == 24, unsatisfied
for ocel in (document, database):
    assert str(ocel.events["ocel:timestamp"].dt.tz) == "UTC", ocel.events.dtypes
    found = pm4py.discover_ocdfg(ocel)
    assert {"order", "customer", "seller", "product", "payment"} <= set(found["object_types"])
def counted(ocel):
    kinds = [frame[column].value_counts().to_dict() for frame, column in (
        (ocel.events, "ocel:activity"), (ocel.objects, "ocel:type"),
        (ocel.relations, "ocel:qualifier"), (ocel.o2o, "ocel:qualifier"))]
    return kinds, len(ocel.object_changes)
assert counted(document) == counted(database), (counted(document), counted(database))
print(len(document.events), len(document.objects), len(document.relations))
"#;

/// What the read models of a shop's orders have; what none of them has (products, reviews one by one,
/// payments of orders that were refused) comes from the raw files.
const EXPECTED: &str = r#"
    WITH stream AS (SELECT * FROM read.stream_index WHERE events > 0),
    item AS (
        SELECT o.order_id, r.product_id, r.seller_id FROM read.order_summary AS o
        JOIN readable.items AS i USING (order_id) JOIN raw.order_items AS r USING (order_id, line)
    ),
    object AS (
        SELECT category AS type, stream AS id FROM stream
        UNION SELECT 'customer', 'customer-' || customer_id FROM read.order_summary
        UNION SELECT 'order', 'order-' || order_id FROM judged.payments WHERE is_captured
        UNION SELECT 'seller', 'seller-' || seller_id FROM read.seller_sales
        UNION SELECT 'product', 'product-' || product_id FROM item
        UNION SELECT 'review', 'review-' || review_id FROM judged.reviews WHERE is_given
    ),
    related AS (
        SELECT 'placed by' AS qualifier, count(*) AS count FROM read.order_summary
        UNION ALL SELECT 'contains', count(DISTINCT (order_id, product_id)) FROM item
        UNION ALL SELECT 'sold by', count(DISTINCT (order_id, seller_id)) FROM item
        UNION ALL SELECT 'has review', sum(review_count) FROM read.order_summary
        UNION ALL SELECT 'pays for', sum(payments) FROM read.payment_mix
    ),
    own AS (SELECT category AS qualifier, sum(events) AS count FROM stream GROUP BY 1)
    SELECT json_build_object(
        'events', (SELECT sum(events) FROM stream),
        'objects', (SELECT json_object_agg(type, count) FROM
            (SELECT type, count(*) FROM object GROUP BY type) AS t),
        'relations', (SELECT json_object_agg(qualifier, count) FROM
            (SELECT * FROM own UNION ALL SELECT * FROM related) AS t),
        'between objects', (SELECT json_object_agg(qualifier, count) FROM related),
        'items_minor', (SELECT sum(items_minor) FROM read.order_summary))::text
"#;

/// The same of an event log in its relational form.
const COUNTED: &str = "SELECT json_object(
    'events', (SELECT count(*) FROM event),
    'objects', (SELECT json_group_object(ocel_type, count) FROM
        (SELECT ocel_type, count(*) AS count FROM object GROUP BY 1)),
    'relations', (SELECT json_group_object(ocel_qualifier, count) FROM
        (SELECT ocel_qualifier, count(*) AS count FROM event_object GROUP BY 1)),
    'between objects', (SELECT json_group_object(ocel_qualifier, count) FROM
        (SELECT ocel_qualifier, count(*) AS count FROM object_object GROUP BY 1)),
    'items_minor', (SELECT sum(items_minor) FROM object_order))";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Both forms of a log, and the document; it keeps to the published schema.
fn both(log: &NewLog) -> Value {
    exported(log, &["ocel", "--format", "json", "--out", "shop.json"]);
    exported(log, &["ocel", "--format", "sqlite", "--out", "shop.sqlite"]);
    keeps_to_schema(log.folder.path(), "shop.json");
    let text = fs::read_to_string(log.folder.path().join("shop.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn keeps_to_schema(folder: &Path, file: &str) {
    let schemathesis = std::env::var_os("ANNALS_SCHEMATHESIS").expect("see `make test`");
    let python = Path::new(&schemathesis).with_file_name("python");
    let schema = root().join("tests/data/ocel20-schema.json");
    let validated = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(schema)
        .arg(file)
        .current_dir(folder)
        .output()
        .unwrap();
    assert_exit(&validated, 0);
    assert_eq!(stdout(&validated), "");
}

async fn database(log: &NewLog) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(log.folder.path().join("shop.sqlite"));
    options.connect().await.unwrap()
}

/// What pm4py finds in both forms: how many events, objects and relations; `None` if no Python has it.
fn loaded_by_pm4py(log: &NewLog) -> Option<String> {
    let Some(python) = std::env::var_os("ANNALS_PM4PY") else {
        println!("ANNALS_PM4PY names no Python with pm4py: run `make ocel`");
        return None;
    };
    let loaded = Command::new(python)
        .args(["-c", PM4PY])
        .current_dir(log.folder.path())
        .output()
        .unwrap();
    assert_exit(&loaded, 0);
    let said = stdout(&loaded);
    println!("pm4py loaded both forms: {said}");
    said.lines().last().map(str::to_owned)
}

/// How many events, objects and relations a document has, as the script prints it.
fn counts(document: &Value) -> String {
    let list = |name: &str| document[name].as_array().unwrap();
    let related = list("events").iter();
    let related = related.map(|one| one["relationships"].as_array().unwrap().len());
    let related: usize = related.sum();
    let (events, objects) = (list("events").len(), list("objects").len());
    format!("{events} {objects} {related}")
}

/// The event log of a shop's orders has what SQL finds in its read models.
pub(crate) async fn counts_equal_sql(log: &NewLog, pool: &PgPool) {
    let began = Instant::now();
    let document = both(log);
    let expected: String = sqlx::query_scalar(EXPECTED).fetch_one(pool).await.unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let counted: String = sqlx::query_scalar(AssertSqlSafe(COUNTED))
        .fetch_one(&mut database(log).await)
        .await
        .unwrap();
    let counted: Value = serde_json::from_str(&counted).unwrap();
    assert_eq!(counted, expected);
    let sum = |name: &str| {
        let counts = expected[name].as_object().unwrap().values();
        counts.map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    let found = counts(&document);
    let (events, objects, related) = (&expected["events"], sum("objects"), sum("relations"));
    assert_eq!(found, format!("{events} {objects} {related}"));
    println!(
        "{found} events, objects and relations equal SQL, in {:?}",
        began.elapsed()
    );
    if let Some(loaded) = loaded_by_pm4py(log) {
        assert_eq!(loaded, found);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_to_the_published_schema_and_names_what_is_declared() {
    let log = shop(60).await;
    let document = both(&log);
    let list = |name: &str| document[name].as_array().unwrap();
    let placed = |event: &&Value| {
        event["type"] == "OrderPlaced" && event["relationships"].as_array().unwrap().len() > 4
    };
    let event = list("events").iter().find(placed).unwrap();
    let of = |qualifier: &str| -> Vec<&str> {
        let all = event["relationships"].as_array().unwrap().iter();
        let all = all.filter(|one| one["qualifier"] == qualifier);
        all.map(|one| one["objectId"].as_str().unwrap()).collect()
    };
    assert_eq!(of("order").len(), 1);
    assert!(of("order")[0].starts_with("order-"));
    assert!(of("placed by")[0].starts_with("customer-"));
    assert!(of("contains")[0].starts_with("product-"));
    assert!(of("sold by")[0].starts_with("seller-"));
    let order = list("objects")
        .iter()
        .find(|one| one["id"] == of("order")[0])
        .unwrap();
    let related: Vec<&Value> = order["relationships"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["qualifier"])
        .collect();
    assert!(related.iter().any(|one| *one == "placed by"), "{order}");
    let attributes = order["attributes"].as_array().unwrap();
    assert!(
        attributes.iter().any(|one| one["name"] == "items_minor"),
        "{order}"
    );
    // Every relation leads to an object.
    let ids: std::collections::BTreeSet<&str> = list("objects")
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), list("objects").len());
    for one in list("events").iter().chain(list("objects")) {
        for related in one["relationships"].as_array().unwrap() {
            assert!(
                ids.contains(related["objectId"].as_str().unwrap()),
                "{related}"
            );
        }
    }
    // The other form has the same.
    let mut database = database(&log).await;
    let counted = "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM object), \
                   (SELECT count(*) FROM event_object), \
                   (SELECT count(*) FROM pragma_foreign_key_check)";
    let row = sqlx::query(counted).fetch_one(&mut database).await.unwrap();
    let counts: Vec<i64> = (0..4).map(|index| row.get(index)).collect();
    let related = list("events")
        .iter()
        .map(|one| one["relationships"].as_array().unwrap().len());
    let expected = [list("events").len(), ids.len(), related.sum(), 0];
    assert_eq!(counts, expected.map(|count| i64::try_from(count).unwrap()));

    let again = export(&log, &["ocel", "--format", "json", "--out", "shop.json"]);
    let again = { again }.output().unwrap();
    assert_exit(&again, i32::from(Exit::Failed.code()));
    assert!(stderr(&again).contains("exists already"), "{again:?}");
}

/// Runs where `make ocel` has made a Python with pm4py, which takes 550 MB.
#[tokio::test(flavor = "multi_thread")]
async fn both_forms_are_loaded_by_pm4py_and_say_the_same() {
    let log = shop(60).await;
    let document = both(&log);
    if let Some(loaded) = loaded_by_pm4py(&log) {
        assert_eq!(loaded, counts(&document));
    }
}

/// Whether a schema has a field: names separated by `/`, where `*` stands for the elements of a list.
fn has_field(schema: &Value, definitions: &Value, field: &str) -> bool {
    let schema = match schema["$ref"].as_str() {
        Some(path) => &definitions[path.rsplit('/').next().unwrap()],
        None => schema,
    };
    let Some((first, rest)) = field.split_once('/').or(Some((field, ""))) else {
        return false;
    };
    match first {
        "" => true,
        "*" => has_field(&schema["items"], definitions, rest),
        name => {
            let member = &schema["properties"][name];
            !member.is_null() && has_field(member, definitions, rest)
        }
    }
}

#[test]
fn each_declared_field_is_one_of_its_event() {
    let shop = tests::harness::stack::shop();
    let mut generator = Registry::schema_generator("/$defs");
    let mut events = Vec::new();
    for aggregate in shop.iter() {
        for event in aggregate.event_types(&mut generator) {
            events.push((aggregate.category(), event.name, event.schema));
        }
    }
    let definitions = serde_json::to_value(definitions_of(generator)).unwrap();
    let is_declared = |category: &str, of: &EventObjects| {
        let mut known = events.iter();
        let schema = known.find(|(one, name, _)| (*one, *name) == (category, of.event));
        let Some((_, _, schema)) = schema else {
            return false;
        };
        let schema = serde_json::to_value(schema).unwrap();
        let relates = of.relates.iter().map(|one| one.field);
        let mut fields = relates.chain(of.sets.iter().map(|one| one.field));
        fields.all(|field| has_field(&schema, &definitions, field))
    };
    for aggregate in shop.iter() {
        for of in aggregate.objects() {
            assert!(is_declared(aggregate.category(), of), "{of:?}");
        }
    }
    assert!(!Order::OBJECTS.is_empty());
    const WRONG: &[kernel::Relates] = &[kernel::relates("items/*/price/x", "x", "x")];
    let wrong = kernel::objects_of("OrderPlaced", WRONG, &[]);
    assert!(!is_declared("order", &wrong));
}
