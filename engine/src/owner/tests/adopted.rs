//! Aggregates that were written for `cqrs-es` and run unchanged.

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use kernel::ShapeError;
use kernel::cqrs::{Adopted, Adoption, decode_variant};

use super::*;

#[derive(Deserialize)]
enum JarCommand {
    Put { what: String, times: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Filled {
    what: String,
    times: u64,
}

impl DomainEvent for Filled {
    fn event_type(&self) -> String {
        "Filled".into()
    }

    fn event_version(&self) -> String {
        "1.0".into()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Jar {
    count: u64,
}

impl Aggregate for Jar {
    const TYPE: &'static str = "Jar";
    type Command = JarCommand;
    type Event = Filled;
    type Error = std::convert::Infallible;
    type Services = ();

    async fn handle(
        &mut self,
        command: JarCommand,
        (): &(),
        sink: &EventSink<Self>,
    ) -> Result<(), Self::Error> {
        let JarCommand::Put { what, times } = command;
        sink.write(Filled { what, times }, self).await;
        Ok(())
    }

    fn apply(&mut self, event: Filled) {
        self.count += event.times;
    }
}

struct OurJar;

impl Adoption for OurJar {
    type Aggregate = Jar;
    const CATEGORY: &'static str = "jar";

    fn services() -> &'static () {
        &()
    }

    fn decode(type_name: &str, schema: u16, data: &str) -> Result<JarCommand, ShapeError> {
        decode_variant(type_name, schema, data)
    }

    fn code(error: &std::convert::Infallible) -> &str {
        match *error {}
    }

    fn event_schema(_: &str) -> u16 {
        1
    }
}

fn registry() -> Registry {
    Registry::new().with::<Adopted<OurJar>>()
}

fn put(data: &str) -> Submission {
    let registry = registry();
    let aggregate = registry.get("jar").unwrap();
    let command = aggregate.decode_command("Put", None, data).unwrap();
    let Submission { request, .. } = submission("one-intent", 1, None);
    let request = Request {
        stream: "jar-1".parse().unwrap(),
        command: "Put".into(),
        schema: None,
        data: serde_json::value::RawValue::from_string(data.to_owned()).unwrap(),
        ..request
    };
    Submission { request, command }
}

fn owner(seed: u128) -> Owner<&'static str> {
    let entropy = Box::new(Counting(seed << 64));
    let settings = OwnerSettings::default();
    let mut owner = Owner::new(
        Partition(0),
        registry(),
        settings,
        Box::new(NoStore),
        entropy,
    );
    owner.new_log = Some(log_id());
    owner
}

#[test]
fn a_command_of_an_adopted_aggregate_is_recognised_whatever_the_order_of_its_members() {
    let mut world = World::owning_with(owner(1));
    let now = world.now();
    world
        .owner
        .command(put(r#"{"what":"plum","times":2}"#), "first", now);
    world.settle();
    let otherwise = r#"{ "times": 2.0, "what": "pl\u0075m" }"#;
    world.owner.command(put(otherwise), "again", now);
    world
        .owner
        .command(put(r#"{"times":3,"what":"plum"}"#), "another", now);
    world.settle();
    assert!(!world.answer("first").unwrap().as_ref().unwrap().repeated);
    assert!(world.answer("again").unwrap().as_ref().unwrap().repeated);
    assert_eq!(world.answer("another"), Some(&Err(SubmitError::IdReused)));
    // The same, folded from the log by another owner.
    world.owner = owner(2);
    world.owner.start(Offset(0));
    world.settle();
    world.owner.command(put(otherwise), "later", now);
    world.settle();
    assert!(world.answer("later").unwrap().as_ref().unwrap().repeated);
}
