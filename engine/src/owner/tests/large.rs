//! A stream whose state grows without bound: the owner warns, then refuses, and no other stream
//! suffers.

use super::*;

/// An aggregate that keeps everything that it was ever told.
struct Hoard;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keep {
    what: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Kept {
    what: String,
}

mod messages_of {
    use super::*;
    messages! {
        /// Its commands.
        pub enum Command { Keep }
    }
    messages! {
        /// Its events.
        pub enum Event { Kept }
    }
}
use messages_of::{Command as HoardCommand, Event as HoardEvent};

thread_local! {
    static COPIES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    static WRITTEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[derive(Default, Deserialize)]
struct Heap {
    all: Vec<String>,
    is_closed: bool,
}

impl Clone for Heap {
    fn clone(&self) -> Self {
        COPIES.set(COPIES.get() + 1);
        Self {
            all: self.all.clone(),
            is_closed: self.is_closed,
        }
    }
}

impl Serialize for Heap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        WRITTEN.set(WRITTEN.get() + 1);
        let mut form = serializer.serialize_struct("Heap", 2)?;
        form.serialize_field("all", &self.all)?;
        form.serialize_field("is_closed", &self.is_closed)?;
        form.end()
    }
}

impl Decider for Hoard {
    const CATEGORY: &'static str = "hoard";
    type State = Heap;
    type Command = HoardCommand;
    type Event = HoardEvent;
    type Rejection = Enough;

    fn decide(_: &Heap, command: &HoardCommand, _: &Context) -> Result<Vec<Self::Event>, Enough> {
        let HoardCommand::Keep(Keep { what }) = command;
        Ok(vec![Kept { what: what.clone() }.into()])
    }

    fn evolve(state: &mut Heap, event: &HoardEvent, _: Timestamp) {
        let HoardEvent::Kept(Kept { what }) = event;
        match what.as_str() {
            "close" => state.is_closed = true,
            what => state.all.push(what.to_owned()),
        }
    }
}

const MAX: usize = 100_000;

fn hoarding() -> World {
    let settings = OwnerSettings {
        stream_state_bytes_max: MAX,
        ..OwnerSettings::default()
    };
    let registry = Registry::new().with::<Counter>().with::<Hoard>();
    let entropy = Box::new(Counting(1 << 64));
    let mut owner = Owner::new(Partition(0), registry, settings, Box::new(NoStore), entropy);
    owner.new_log = Some(log_id());
    World::owning_with(owner)
}

impl World {
    fn keep(&mut self, ticket: &'static str, id: &str, what: &str) {
        let registry = Registry::new().with::<Hoard>();
        let aggregate = registry.get("hoard").unwrap();
        let what = what.to_owned();
        let data = serde_json::value::to_raw_value(&Keep { what }).unwrap();
        let command = aggregate
            .decode_command("Keep", Some(1), data.get())
            .unwrap();
        let Submission { request, .. } = submission(id, 1, None);
        let request = Request {
            stream: "hoard-1".parse().unwrap(),
            command: "Keep".into(),
            data,
            ..request
        };
        let now = self.now();
        self.owner
            .command(Submission { request, command }, ticket, now);
        self.perform();
    }

    /// Sends until the stream is full; returns how many commands were taken.
    fn fill(&mut self, in_flight: usize) -> usize {
        let mut taken = 0;
        loop {
            for _ in 0..in_flight {
                self.keep("fill", &format!("f{taken}"), &"x".repeat(1_000));
                taken += 1;
            }
            self.settle();
            let full = |(_, answer): &(_, Reply)| {
                matches!(answer, Err(SubmitError::StreamTooLarge { .. }))
            };
            if self.answers.iter().any(full) {
                return self.accepted().len();
            }
            assert!(taken < 1_000, "nothing bounds it");
        }
    }
}

#[test]
fn what_enlarges_a_full_stream_is_refused_and_all_else_is_judged() {
    for in_flight in [1, 8] {
        let mut world = hoarding();
        let taken = world.fill(in_flight);
        // As JSON, each takes three bytes more than its text.
        assert!((90..=100).contains(&taken), "{taken}");
        world.keep("more", "m", &"x".repeat(1_000));
        assert!(
            matches!(
                world.answer("more"),
                Some(Err(SubmitError::StreamTooLarge { size, max: MAX })) if *size > MAX
            ),
            "{:?}",
            world.answer("more")
        );
        assert!(world.appended.is_empty(), "nothing of it is recorded");
        world.keep("close", "c", "close");
        world.send("other", "o", 1);
        world.settle();
        assert_eq!(world.version("close"), taken as u64 + 1);
        assert_eq!(world.version("other"), 1);
    }
}

#[test]
fn commands_for_a_large_stream_cost_what_they_change() {
    let mut world = hoarding();
    for number in 0..60 {
        world.keep("fill", &format!("f{number}"), &"x".repeat(1_000));
        world.settle();
    }
    COPIES.set(0);
    WRITTEN.set(0);
    for number in 0..1_000 {
        // One after the other, so that each finds nothing in flight.
        world.keep("one", &format!("o{number}"), "close");
        world.settle();
    }
    assert!(COPIES.get() <= 1, "copied {} times", COPIES.get());
    assert!(WRITTEN.get() <= 20, "written {} times", WRITTEN.get());
    // The copy is dropped once nobody uses it.
    world.pass(2_500);
    world.pass(2_500);
    world.keep("late", "l", "close");
    assert!(COPIES.get() <= 2);
}
