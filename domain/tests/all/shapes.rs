//! What is written can be read back, and exactly what the JSON Schema allows is read.

use std::fmt::Debug;
use std::sync::LazyLock;

use domain::{customer, order, payment};
use kernel::registry::Registry;
use kernel::{Message, ShapeError, canonical_json};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value, json};

use crate::given::{item, place_one, place_order, real};
use crate::json_schema::is_valid;
use crate::strategies::{
    customer_command, customer_event, order_command, order_event, payment_command, payment_event,
};

/// The schemas of a message set, by name, and the definitions that they refer to.
struct Schemas {
    types: Vec<(&'static str, Value)>,
    definitions: Map<String, Value>,
}

impl Schemas {
    fn of<M: Message>() -> Self {
        let mut generator = Registry::schema_generator("/$defs/");
        let types = M::types(&mut generator)
            .into_iter()
            .map(|message| (message.name, message.schema.to_value()))
            .collect();
        Self {
            types,
            definitions: generator.take_definitions(true),
        }
    }

    fn allows(&self, name: &str, data: &Value) -> bool {
        let (_, schema) = self.types.iter().find(|(known, _)| *known == name).unwrap();
        is_valid(schema, data, &self.definitions)
    }
}

/// Reads data as the engine does: from its canonical form.
fn read<M: Message>(name: &str, schema: u16, data: &str) -> Result<M, ShapeError> {
    M::decode(name, schema, &canonical_json(data)?)
}

/// Checks that the written message is read back, and that JSON changed at one place is read exactly
/// if the schema allows it.
fn check<M: Message + PartialEq + Debug>(
    schemas: &Schemas,
    message: &M,
    place: Index,
    change: &Change,
) -> Result<(), TestCaseError> {
    let name = message.type_name();
    let encoded = message.encode().unwrap();
    prop_assert_eq!(
        &M::decode(&name, message.schema(), encoded.get()),
        &Ok(message.clone())
    );

    let mut data: Value = serde_json::from_str(encoded.get()).unwrap();
    prop_assert!(schemas.allows(&name, &data), "{} {}", name, data);
    let places = count(&data);
    change_at(&mut data, &mut place.index(places), change);
    let decoded = read::<M>(&name, message.schema(), &data.to_string());
    prop_assert_eq!(
        decoded.is_ok(),
        schemas.allows(&name, &data),
        "{} {} {:?}",
        name,
        data,
        decoded
    );
    if let Err(error) = decoded {
        let at_a_place = matches!(error, ShapeError::Data { .. });
        prop_assert!(at_a_place);
    }
    Ok(())
}

/// What is done to one place of a JSON value.
#[derive(Clone, Debug)]
enum Change {
    Replace(Value),
    AsFloat,
    AsArray,
    RemoveMember(Index),
    AddMember,
    Repeat(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        -3..8i64,
        Just(9_007_199_254_740_992),
        Just(9_007_199_254_740_993),
        Just(-9_007_199_254_740_993),
        Just(2_147_483_648),
        any::<i64>(),
    ];
    let float = prop_oneof![
        Just(2.0),
        Just(-0.0),
        Just(1.5),
        Just(2e3),
        Just(1e300),
        any::<f64>()
    ];
    let length = prop_oneof![
        Just(20),
        Just(100),
        Just(128),
        Just(200),
        Just(500),
        Just(1000),
        Just(10_000)
    ];
    let edge = (length, 0..2usize, prop_oneof![Just("x"), Just("ã")])
        .prop_map(|(length, more, letter)| json!(letter.repeat(length + more)));
    let word = prop_oneof![
        Just(""),
        Just("\0"),
        Just("a\0b"),
        Just("BRL"),
        Just("BRLX"),
        Just("brl"),
        Just("a b"),
        Just("abc\n"),
        Just("voucher"),
        Just("Voucher"),
        Just("2018-06-04T16:44:48Z"),
        Just("2018-06-04T16:44:48.25-03:00"),
        Just("2018-06-04"),
        Just("x~y.z_-9"),
    ];
    prop_oneof![
        Just(Change::Replace(Value::Null)),
        Just(Change::Replace(json!(true))),
        Just(Change::Replace(json!([]))),
        Just(Change::Replace(json!({}))),
        Just(Change::Replace(json!({"voucher": null}))),
        number.prop_map(|number| Change::Replace(json!(number))),
        any::<u64>().prop_map(|number| Change::Replace(json!(number))),
        float.prop_map(|number| Change::Replace(json!(number))),
        edge.prop_map(Change::Replace),
        word.prop_map(|word| Change::Replace(json!(word))),
        Just(Change::AsFloat),
        Just(Change::AsArray),
        any::<Index>().prop_map(Change::RemoveMember),
        Just(Change::AddMember),
        prop_oneof![Just(2usize), Just(200), Just(201)].prop_map(Change::Repeat),
    ]
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0usize,
    }
}

/// Changes the value at place number `place`, counted depth first.
fn change_at(value: &mut Value, place: &mut usize, change: &Change) -> bool {
    if *place == 0 {
        apply(value, change);
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change_at(item, place, change)),
        Value::Object(members) => members
            .values_mut()
            .any(|member| change_at(member, place, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn apply(value: &mut Value, change: &Change) {
    match (change, &mut *value) {
        (Change::Replace(other), _) => *value = other.clone(),
        (Change::AsFloat, Value::Number(number)) => *value = json!(number.as_f64()),
        (Change::AsArray, Value::Object(members)) => {
            *value = members.values().cloned().collect();
        }
        (Change::AsArray, other) => *value = json!([other.take()]),
        (Change::RemoveMember(index), Value::Object(members)) if !members.is_empty() => {
            let name = members
                .keys()
                .nth(index.index(members.len()))
                .cloned()
                .unwrap();
            members.remove(&name);
        }
        (Change::AddMember, Value::Object(members)) => {
            members.insert("surprise".into(), Value::Null);
        }
        (Change::Repeat(times), Value::Array(items)) if !items.is_empty() => {
            *items = vec![items[0].clone(); *times];
        }
        // Not every change fits every place.
        (Change::AsFloat | Change::RemoveMember(_) | Change::AddMember | Change::Repeat(_), _) => {}
    }
}

macro_rules! properties {
    ($($test:ident: $set:ty, $strategy:expr;)+) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(2000))]
            $(#[test]
            fn $test(message in $strategy, place in any::<Index>(), change in change()) {
                static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::of::<$set>);
                check::<$set>(&SCHEMAS, &message, place, &change)?;
            })+
        }
    };
}

properties! {
    customer_commands_are_read_as_their_schema_says: customer::Command, customer_command();
    customer_events_are_read_as_their_schema_says: customer::Event, customer_event();
    order_commands_are_read_as_their_schema_says: order::Command, order_command();
    order_events_are_read_as_their_schema_says: order::Event, order_event();
    payment_commands_are_read_as_their_schema_says: payment::Command, payment_command();
    payment_events_are_read_as_their_schema_says: payment::Event, payment_event();
}

#[test]
fn a_command_is_written_as_people_were_promised() {
    let written = json!({
        "customer": "ana",
        "items": [{
            "line": 1, "product": "lamp", "seller": "maria",
            "price": {"amount_minor": 2199, "currency": "BRL"},
            "freight": {"amount_minor": 1185, "currency": "BRL"},
        }],
        "estimated_delivery": "2018-06-20T12:00:00Z",
    });
    let command = order::Command::from(place_one());
    assert_eq!(
        serde_json::from_str::<Value>(command.encode().unwrap().get()).unwrap(),
        written
    );
    let review = r#"{"review":"r1","score":5.0,"title":null,"comment":"a\r\n\"b\" 😀"}"#;
    let review = read::<order::Command>("ReviewOrder", 1, review).unwrap();
    assert_eq!(
        review.encode().unwrap().get(),
        r#"{"review":"r1","score":5,"comment":"a\r\n\"b\" 😀"}"#
    );
}

#[test]
fn an_order_is_read_with_at_most_200_items() {
    let decode = |lines| {
        let items = (1..=lines)
            .map(|line| item(line, real(1), real(0)))
            .collect();
        let data = serde_json::to_value(place_order(items)).unwrap();
        let schemas = Schemas::of::<order::Command>();
        let allowed = schemas.allows("PlaceOrder", &data);
        (
            allowed,
            order::Command::decode("PlaceOrder", 1, &data.to_string()),
        )
    };
    assert!(matches!(decode(0), (true, Ok(_))));
    assert!(matches!(decode(200), (true, Ok(_))));
    match decode(201) {
        (false, Err(ShapeError::Data { pointer, .. })) => assert_eq!(pointer, "/items"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_place_that_does_not_fit_is_pointed_at() {
    let mut data: Value =
        serde_json::from_str(order::Command::from(place_one()).encode().unwrap().get()).unwrap();
    data["items"][0]["price"]["amount_minor"] = json!(9_007_199_254_740_993_i64);
    let Err(ShapeError::Data { pointer, detail }) =
        order::Command::decode("PlaceOrder", 1, &data.to_string())
    else {
        panic!("it was read");
    };
    assert_eq!(pointer, "/items/0/price/amount_minor");
    let reason = "invalid value: integer `9007199254740993`, expected an integer from \
                  -9007199254740992 to 9007199254740992";
    assert!(detail.starts_with(reason), "{detail}");
}
