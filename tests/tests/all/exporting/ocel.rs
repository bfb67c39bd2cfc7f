//! Object-centric event logs keep to the published standard, and name the objects that are declared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::Order;
use host::exit::Exit;
use kernel::registry::{Registry, definitions_of};
use kernel::{Decider as _, EventObjects};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};
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

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Both forms of a shop's log, and the document.
async fn both() -> (NewLog, Value) {
    let log = shop(60).await;
    exported(&log, &["ocel", "--format", "json", "--out", "shop.json"]);
    exported(
        &log,
        &["ocel", "--format", "sqlite", "--out", "shop.sqlite"],
    );
    let text = fs::read_to_string(log.folder.path().join("shop.json")).unwrap();
    let document = serde_json::from_str(&text).unwrap();
    (log, document)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_to_the_published_schema_and_names_what_is_declared() {
    let (log, document) = both().await;
    let schemathesis = std::env::var_os("ANNALS_SCHEMATHESIS").expect("see `make test`");
    let python = Path::new(&schemathesis).with_file_name("python");
    let schema = root().join("tests/data/ocel20-schema.json");
    let validated = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(schema)
        .arg("shop.json")
        .current_dir(log.folder.path())
        .output()
        .unwrap();
    assert_exit(&validated, 0);
    assert_eq!(stdout(&validated), "");

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
    let options = SqliteConnectOptions::new().filename(log.folder.path().join("shop.sqlite"));
    let mut database = options.connect().await.unwrap();
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
    let Some(python) = std::env::var_os("ANNALS_PM4PY") else {
        return println!("ANNALS_PM4PY names no Python with pm4py: run `make ocel`");
    };
    let (log, document) = both().await;
    let loaded = Command::new(python)
        .args(["-c", PM4PY])
        .current_dir(log.folder.path())
        .output()
        .unwrap();
    assert_exit(&loaded, 0);
    let events = document["events"].as_array().unwrap().len();
    let said = stdout(&loaded);
    let last = said.lines().last().unwrap();
    assert!(last.starts_with(&format!("{events} ")), "{said}");
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
