//! Rules that panic: a commit over which they fail is not appended, and such a record in the log
//! freezes only its stream.

use std::cell::Cell;

use super::failing_store::Frail;
use super::*;
use crate::frozen::FrozenBy;

thread_local! {
    /// Whether the rules of the running program fail.
    static IS_BROKEN: Cell<bool> = const { Cell::new(true) };
    /// Whether no state can be made.
    static MAKES_NO_STATE: Cell<bool> = const { Cell::new(false) };
}

/// An aggregate whose rules fail where its commands tell them to.
struct Fragile;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Break {
    at: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Broke {
    at: String,
}

mod messages_of {
    use super::*;
    messages! {
        /// Its commands.
        pub enum Command { Break }
    }
    messages! {
        /// Its events.
        pub enum Event { Broke }
    }
}
use messages_of::{Command as FragileCommand, Event as FragileEvent};

fn fails(at: &str, place: &str) {
    let is_broken = IS_BROKEN.with(Cell::get) && !std::thread::panicking();
    assert!(!(at == place && is_broken), "told to fail at {place}");
}

#[derive(Deserialize)]
struct Cracks {
    at: String,
    count: u64,
}

impl Default for Cracks {
    fn default() -> Self {
        assert!(!MAKES_NO_STATE.get(), "told to make no state");
        let (at, count) = (String::new(), 0);
        Self { at, count }
    }
}

impl Clone for Cracks {
    fn clone(&self) -> Self {
        fails(&self.at, "clone");
        let (at, count) = (self.at.clone(), self.count);
        Self { at, count }
    }
}

impl Serialize for Cracks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        fails(&self.at, "serialise");
        let mut form = serializer.serialize_struct("Cracks", 2)?;
        form.serialize_field("at", &self.at)?;
        form.serialize_field("count", &self.count)?;
        form.end()
    }
}

impl Drop for Cracks {
    fn drop(&mut self) {
        fails(&self.at, "drop");
    }
}

impl Decider for Fragile {
    const CATEGORY: &'static str = "fragile";
    type State = Cracks;
    type Command = FragileCommand;
    type Event = FragileEvent;
    type Rejection = Enough;

    fn decide(
        _: &Cracks,
        command: &FragileCommand,
        _: &Context,
    ) -> Result<Vec<Self::Event>, Enough> {
        let FragileCommand::Break(Break { at }) = command;
        fails(at, "decide");
        Ok(vec![Broke { at: at.clone() }.into()])
    }

    fn evolve(state: &mut Cracks, event: &FragileEvent, _: Timestamp) {
        let FragileEvent::Broke(Broke { at }) = event;
        state.count += 1;
        fails(at, "evolve");
        state.at.clone_from(at);
    }
}

fn registry() -> Registry {
    Registry::new().with::<Counter>().with::<Fragile>()
}

fn fragile_owner(seed: u128, store: &Frail) -> Owner<&'static str> {
    let settings = OwnerSettings {
        states_bytes_max: 0,
        save_every_commits: 1,
        ..OwnerSettings::default()
    };
    let (store, entropy) = (Box::new(store.clone()), Box::new(Counting(seed << 64)));
    let mut owner = Owner::new(Partition(0), registry(), settings, store, entropy);
    owner.new_log = Some(log_id());
    owner
}

fn break_at(stream: &str, id: &str, at: &str) -> Submission {
    let registry = registry();
    let aggregate = registry.get("fragile").unwrap();
    let data = serde_json::value::to_raw_value(&Break { at: at.to_owned() }).unwrap();
    let command = aggregate
        .decode_command("Break", Some(1), data.get())
        .unwrap();
    let Submission { request, .. } = submission(id, 1, None);
    let request = Request {
        stream: stream.parse().unwrap(),
        command: "Break".into(),
        data,
        ..request
    };
    Submission { request, command }
}

impl World {
    fn break_at(&mut self, ticket: &'static str, stream: &str, at: &str) {
        let now = self.now();
        assert!(self.owner.takes_commands());
        self.owner
            .command(break_at(stream, ticket, at), ticket, now);
        self.perform();
    }

    fn accepts(&self, ticket: &str) -> bool {
        let decision = |answer: &Answer| matches!(answer.decision, Decision::Accepted(_));
        let answer = self.answer(ticket).expect("an answer");
        answer.as_ref().is_ok_and(decision)
    }

    fn restarted(self, owner: Owner<&'static str>) -> Self {
        let mut world = Self {
            owner,
            appended: VecDeque::new(),
            released: VecDeque::new(),
            ..self
        };
        world.owner.start(Offset(0));
        world.settle();
        assert_eq!(world.owner.phase(), &Phase::Owning);
        world
    }
}

/// The failures before an append, each with a ticket: none of them may leave anything in the log.
const BEFORE_THE_APPEND: [(&str, &str); 3] = [("d", "decide"), ("e", "evolve"), ("s", "serialise")];

#[test]
fn nothing_is_appended_that_the_rules_fail_over() {
    IS_BROKEN.set(true);
    let mut world = World::owning_with(fragile_owner(1, &Frail::default()));
    for (ticket, at) in BEFORE_THE_APPEND {
        world.break_at(ticket, "fragile-1", at);
        assert_eq!(
            world.answer(ticket),
            Some(&Err(SubmitError::Failed)),
            "{at}"
        );
        assert!(world.appended.is_empty(), "{at}");
    }
    world.break_at("well", "fragile-1", "nowhere");
    world.settle();
    assert!(world.accepts("well") && world.version("well") == 1);
}

#[test]
fn a_state_that_cannot_be_made_hurts_no_other_stream() {
    IS_BROKEN.set(false);
    let mut world = World::owning_with(fragile_owner(1, &Frail::default()));
    world.break_at("there", "fragile-1", "nowhere");
    world.settle();
    MAKES_NO_STATE.set(true);
    world.break_at("new", "fragile-2", "nowhere");
    assert_eq!(world.answer("new"), Some(&Err(SubmitError::Failed)));
    assert!(world.appended.is_empty());
    world.send("counter", "a", 1);
    world.settle();
    assert!(world.accepts("counter"));
    assert_eq!(world.owner.phase(), &Phase::Owning);
    // The next program has mended rules.
    MAKES_NO_STATE.set(false);
    let mut world = world.restarted(fragile_owner(2, &Frail::default()));
    world.break_at("mended", "fragile-2", "nowhere");
    world.settle();
    assert!(world.accepts("mended"), "{:?}", world.answer("mended"));
}

#[test]
fn what_is_in_flight_stays_as_it_was_when_the_rules_fail_behind_it() {
    IS_BROKEN.set(true);
    let mut world = World::owning_with(fragile_owner(1, &Frail::default()));
    world.break_at("first", "fragile-1", "nowhere");
    world.break_at("second", "fragile-1", "nowhere");
    for (ticket, at) in BEFORE_THE_APPEND {
        world.break_at(ticket, "fragile-1", at);
        assert_eq!(
            world.answer(ticket),
            Some(&Err(SubmitError::Failed)),
            "{at}"
        );
    }
    world.break_at("third", "fragile-1", "nowhere");
    world.settle();
    assert_eq!(world.version("third"), 3);
    world.owner.save();
    // The saved state is that of three events, even if copies were left half changed meanwhile.
    let frozen = world.owner.frozen_streams();
    assert_eq!((world.owner.phase(), frozen), (&Phase::Owning, 0));
}

#[test]
fn a_state_that_cannot_be_copied_or_dropped_hurts_no_other_stream() {
    IS_BROKEN.set(true);
    let mut world = World::owning_with(fragile_owner(1, &Frail::default()));
    world.break_at("clone", "fragile-1", "clone");
    world.break_at("drop", "fragile-2", "drop");
    world.settle();
    assert!(world.accepts("clone") && world.accepts("drop"));
    world.break_at("again", "fragile-1", "nowhere");
    assert_eq!(world.answer("again"), Some(&Err(SubmitError::Failed)));
    for _ in 0..3 {
        world.owner.save();
        world.pass(2_500);
    }
    world.break_at("other", "fragile-3", "nowhere");
    world.send("counter", "a", 1);
    world.settle();
    assert!(world.accepts("other") && world.accepts("counter"));
    assert_eq!(world.owner.phase(), &Phase::Owning);
}

/// A world whose log holds a record that the rules of later programs fail over.
fn with_a_record_that_fails(store: &Frail) -> World {
    IS_BROKEN.set(false);
    let mut world = World::owning_with(fragile_owner(1, store));
    world.break_at("one", "fragile-1", "evolve");
    world.break_at("two", "fragile-2", "nowhere");
    world.settle();
    IS_BROKEN.set(true);
    world
}

#[test]
fn a_record_that_the_rules_fail_over_freezes_its_stream_alone_through_restarts() {
    let store = Frail::default();
    let mut world = with_a_record_that_fails(&store);
    for (round, (frozen, other)) in [("f1", "o1"), ("f2", "o2"), ("f3", "o3")]
        .into_iter()
        .enumerate()
    {
        let owner = match round {
            0 => fragile_owner(2, &Frail::default()),
            _ => fragile_owner(2 + round as u128, &store),
        };
        world = world.restarted(owner);
        world.break_at(frozen, "fragile-1", "nowhere");
        world.break_at(other, "fragile-2", "nowhere");
        world.settle();
        let Some(Err(SubmitError::Frozen(why))) = world.answer(frozen) else {
            panic!("{:?}", world.answer(frozen));
        };
        assert_eq!((why.partition, why.offset), (Partition(0), Offset(1)));
        assert!(matches!(why.why, FrozenBy::Rules(_)));
        assert!(world.accepts(other));
        assert_eq!(world.owner.frozen_streams(), 1);
        // In the next round, the same holds for the local store's copy.
        world.owner.save();
    }
    // A repeated command of the stream still gets its answer.
    world.break_at("one", "fragile-1", "evolve");
    assert!(world.accepts("one"));
    IS_BROKEN.set(false);
    let mut world = world.restarted(fragile_owner(9, &store));
    world.break_at("mended", "fragile-1", "nowhere");
    world.settle();
    assert!(world.accepts("mended") && world.version("mended") == 2);
    assert_eq!(world.owner.frozen_streams(), 0);
}

#[test]
fn a_state_that_cannot_be_saved_freezes_its_stream_and_all_else_is_saved() {
    let store = Frail::default();
    IS_BROKEN.set(false);
    let mut world = World::owning_with(fragile_owner(1, &store));
    world.pass(2_500);
    world.break_at("one", "fragile-1", "serialise");
    world.break_at("two", "fragile-2", "nowhere");
    world.settle();
    IS_BROKEN.set(true);
    world.owner.save();
    assert!(
        store.saved_at() > Some(Offset(1)),
        "nothing keeps it from being saved"
    );
    world.break_at("frozen", "fragile-1", "nowhere");
    world.break_at("other", "fragile-2", "nowhere");
    world.settle();
    assert!(matches!(
        world.answer("frozen"),
        Some(Err(SubmitError::Frozen(_)))
    ));
    assert!(world.accepts("other"));
}
