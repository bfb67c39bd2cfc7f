//! What a client sent is recorded, and recognised when it is sent again, even if it is spelled in
//! another way or the program has changed meanwhile.

use std::collections::HashMap;

use event_log::commit::{Outcome, REFUSED_DATA_SIZE_MAX};
use kernel::canonical_json;
use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::owner::memory::fingerprint::SentData;

/// The command of a bag in the first version of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Put {
    amount: u32,
    counts: HashMap<String, i64>,
    #[serde(default)]
    anything: Value,
}

/// The same in a later version: with a new field that may be absent, and with the fields in another
/// order.
mod later {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Put {
        pub(super) note: Option<String>,
        #[serde(default)]
        pub(super) anything: Value,
        pub(super) counts: HashMap<String, i64>,
        pub(super) amount: u32,
    }

    messages! {
        /// Commands of the later version.
        pub(super) enum Command { Put = 2 }
    }
}

messages! {
    /// Commands of the first version.
    enum First { Put }
}

struct Bag<C>(std::marker::PhantomData<fn() -> C>);

trait Amount: kernel::Message {
    fn amount(&self) -> u32;
}

impl Amount for First {
    fn amount(&self) -> u32 {
        let Self::Put(put) = self;
        put.amount
    }
}

impl Amount for later::Command {
    fn amount(&self) -> u32 {
        let Self::Put(put) = self;
        put.amount
    }
}

impl<C: Amount> Decider for Bag<C> {
    const CATEGORY: &'static str = "bag";
    type State = u32;
    type Command = C;
    type Event = Event;
    type Rejection = Enough;

    fn decide(_: &u32, command: &C, _: &Context) -> Result<Vec<Event>, Enough> {
        match command.amount() {
            0..=3 => Ok(vec![Added { amount: 1 }.into()]),
            _ => Err(Enough),
        }
    }

    fn evolve(state: &mut u32, _: &Event, _: Timestamp) {
        *state += 1;
    }
}

fn bags<C: Amount>(seed: u128) -> Owner<&'static str> {
    let registry = Registry::new().with::<Bag<C>>();
    let settings = OwnerSettings::default();
    let entropy = Box::new(Counting(seed << 64));
    let mut owner = Owner::new(Partition(0), registry, settings, Box::new(NoStore), entropy);
    owner.new_log = Some(log_id());
    owner
}

/// A command as a door has it, from the text that a client sent.
fn sent<C: Amount>(id: &str, schema: Option<u16>, data: &str) -> Option<Submission> {
    let registry = Registry::new().with::<Bag<C>>();
    let command = registry.get("bag")?.decode_command("Put", schema, data);
    let request = Request {
        stream: "bag-1".parse().ok()?,
        command: "Put".into(),
        schema,
        data: RawValue::from_string(data.to_owned()).ok()?,
        ..submission(id, 1, None).request
    };
    let command = command.ok()?;
    Some(Submission { request, command })
}

fn numbers() -> impl Strategy<Value = (i64, String)> {
    let whole = prop_oneof![-9..10_i64, Just(9_007_199_254_740_993), any::<i64>()];
    (whole, 0..4_u8).prop_map(|(whole, form)| {
        let text = match form {
            0 => format!("{whole}"),
            1 => format!("{whole}.000"),
            2 => format!("{whole}.0e0"),
            _ => format!("{whole}E+00"),
        };
        (whole, text)
    })
}

/// One intent in two spellings. The first one may be large.
fn spelled() -> impl Strategy<Value = [String; 2]> {
    let counts = prop::collection::btree_map("[a-zä\"\\\\]{0,3}", (numbers(), numbers()), 0..6);
    let anything = prop_oneof![
        Just("null".to_owned()),
        Just("12345678901234567890123.5".to_owned()),
        Just(format!(
            "{{\"$digest\":{{\"bytes\":20000,\"sha256\":\"{}\"}}}}",
            "ab".repeat(32)
        )),
        (0..3_usize).prop_map(|part| {
            let length = [10, REFUSED_DATA_SIZE_MAX - 60, REFUSED_DATA_SIZE_MAX][part];
            format!("\"{}\"", "x".repeat(length))
        }),
    ];
    (0..8_u32, counts, anything).prop_map(|(amount, counts, anything)| {
        let name = |text: &str| Value::from(text).to_string();
        let escaped = |text: &str| {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            format!("\"{}\"", units.collect::<String>())
        };
        let one: Vec<String> = counts
            .iter()
            .map(|(key, (number, _))| format!("{}:{}", name(key), number.1))
            .collect();
        let other: Vec<String> = counts
            .iter()
            .rev()
            .map(|(key, (number, _))| format!(" {} :\n{}.0", escaped(key), number.0))
            .collect();
        [
            format!(
                "{{\"amount\":{amount},\"counts\":{{{}}},\"anything\":{anything}}}",
                one.join(",")
            ),
            format!(
                "{{ \"counts\" : {{{}}},\t\"anything\": {anything} , \"amount\":{amount}.0e0 }}",
                other.join(" ,")
            ),
        ]
    })
}

/// Checks that the fingerprint made from the log equals the one made when the command is sent.
fn same_as_from_the_log(world: &World, submission: &Submission) {
    let last = world.records.last().unwrap();
    let key = last.key.as_deref().unwrap();
    let commit = Commit::read(key, last.value.as_deref().unwrap()).unwrap();
    let Submission { request, command } = submission;
    let memory = &world.owner.memory;
    let live = memory.fingerprint_of(
        &request.command,
        request.schema,
        &SentData::of(command.data.get()),
        (request.occurred_at, request.expected_version),
    );
    assert_eq!(memory.fingerprint(&commit), live, "{}", request.data);
    let is_large = command.data.get().len() > REFUSED_DATA_SIZE_MAX;
    let is_kept = commit.command.data.get() == command.data.get();
    let is_refused = commit.outcome == Outcome::Rejected;
    assert_eq!(is_kept, !(is_large && is_refused));
    assert_eq!(commit.command.schema, request.schema);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_command_is_recognised_in_any_spelling_live_and_from_the_log(
        [one, other] in spelled(),
        schema in prop_oneof![Just(None), Just(Some(1))],
        occurred in prop_oneof![Just(None), Just(Some("2020-01-01T00:00:00Z"))],
    ) {
        let with_time = |submission: Submission| {
            let occurred_at = occurred.map(|text| text.parse().unwrap());
            let request = Request { occurred_at, ..submission.request };
            Submission { request, ..submission }
        };
        let first = sent::<First>("a", schema, &one).map(with_time);
        let again = sent::<First>("a", schema, &other).map(with_time);
        prop_assert_eq!(first.is_some(), again.is_some(), "{} {}", one, other);
        let (Some(first), Some(again)) = (first, again) else { return Ok(()) };
        prop_assert_eq!(first.command.data.get(), canonical_json(&one).unwrap());
        let mut world = World::owning_with(bags::<First>(1));
        let now = world.now();
        world.owner.command(first.clone(), "first", now);
        world.owner.command(again.clone(), "in flight", now);
        world.settle();
        world.owner.command(again.clone(), "later", now);
        world.settle();
        same_as_from_the_log(&world, &first);
        same_as_from_the_log(&world, &again);

        // A later version of the program, with another schema version, folds the same log.
        world.owner = bags::<later::Command>(2);
        world.owner.start(Offset(0));
        world.settle();
        if schema.is_none() {
            let again = with_time(sent::<later::Command>("a", None, &other).unwrap());
            world.owner.command(again, "after the upgrade", now);
            world.settle();
        }
        let repeated = |ticket: &&str| world.answer(ticket).unwrap().as_ref().unwrap().repeated;
        prop_assert!(["in flight", "later"].iter().all(repeated));
        prop_assert!(schema.is_some() || repeated(&"after the upgrade"));
        prop_assert_eq!(world.accepted().len(), 1);
    }
}

#[test]
fn another_number_is_another_command_and_a_null_is_not_nothing() {
    let mut world = World::owning_with(bags::<First>(1));
    let now = world.now();
    let data = |number: &str| {
        json!({"amount": 1, "counts": {}, "anything": 0})
            .to_string()
            .replace("\"anything\":0", &format!("\"anything\":{number}"))
    };
    for (ticket, number) in [
        ("first", "9007199254740993.5"),
        ("rounded", "9007199254740994.5"),
        ("null", "null"),
    ] {
        let submission = sent::<First>("a", None, &data(number)).unwrap();
        world.owner.command(submission, ticket, now);
    }
    world.settle();
    assert!(world.answer("first").unwrap().is_ok());
    for ticket in ["rounded", "null"] {
        assert_eq!(world.answer(ticket), Some(&Err(SubmitError::IdReused)));
    }
}
