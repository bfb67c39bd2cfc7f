//! Given, when, then: tests of rules as sentences (feature `testing`).
//!
//! Invariant: a test sees what the engine would see. Each decided event is written and read back as
//! the log does it, the state passes through its serialised form, and rules that panic or do not
//! survive this fail the test. Deliberately absent: the engine; a command id that repeats and an
//! expected version never reach the rules.

use std::fmt::Debug;

use pretty_assertions::Comparison;

use crate::{Actor, Context, Decider, Message, Rejection, TenantId, Timestamp};

/// When a test begins unless it says otherwise.
const BEGINNING: &str = "2024-01-01T00:00:00Z";

/// A time in a test: a [`Timestamp`], or a text such as `"2024-03-01T10:00:00Z"`.
pub trait Time {
    /// The time.
    ///
    /// # Panics
    /// If a text is no time.
    fn time(self) -> Timestamp;
}

impl Time for Timestamp {
    fn time(self) -> Timestamp {
        self
    }
}

impl Time for &str {
    #[track_caller]
    fn time(self) -> Timestamp {
        match self.parse() {
            Ok(time) => time,
            Err(error) => panic!("{self:?} is no time: {error}"),
        }
    }
}

/// A history of one stream.
///
/// ```
/// # use kernel::{Context, Decider, Timestamp, messages, rejections};
/// # messages! { enum Command { OpenDoor {} } }
/// # messages! { enum Event { DoorOpened {} } }
/// # rejections! { #[derive(Eq)] pub enum Rejection {
/// #     /// An open door stays open.
/// #     IsOpen => "door_is_open", "the door is open" } }
/// # struct Door;
/// # impl Decider for Door {
/// #     const CATEGORY: &'static str = "door";
/// #     type State = bool; type Command = Command; type Event = Event; type Rejection = Rejection;
/// #     fn decide(is_open: &bool, _: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
/// #         if *is_open { Err(Rejection::IsOpen) } else { Ok(vec![DoorOpened {}.into()]) }
/// #     }
/// #     fn evolve(is_open: &mut bool, _: &Event, _: Timestamp) { *is_open = true; }
/// # }
/// use kernel::testing::{given, given_nothing};
///
/// given_nothing::<Door>().when(OpenDoor {}).then([DoorOpened {}]);
/// given::<Door>([DoorOpened {}])
///     .at("2024-03-01T10:00:00Z")
///     .when(OpenDoor {})
///     .then_refused(Rejection::IsOpen);
/// ```
pub struct Given<D: Decider> {
    state: D::State,
    clock: Timestamp,
}

/// A stream in which nothing has happened, at the beginning of 2024.
#[must_use = "a history alone tests nothing; go on with `when`"]
pub fn given_nothing<D: Decider>() -> Given<D> {
    Given {
        state: D::State::default(),
        clock: BEGINNING.time(),
    }
}

/// A stream in which these events have happened, at the beginning of 2024.
#[must_use = "a history alone tests nothing; go on with `when`"]
pub fn given<D: Decider>(events: impl IntoIterator<Item = impl Into<D::Event>>) -> Given<D> {
    given_nothing().happened(events)
}

impl<D: Decider> Given<D> {
    /// Sets the clock: what follows happens at this time.
    #[must_use = "a history alone tests nothing; go on with `when`"]
    #[track_caller]
    pub fn at(self, time: impl Time) -> Self {
        let clock = time.time();
        Self { clock, ..self }
    }

    /// Then these events happened.
    #[must_use = "a history alone tests nothing; go on with `when`"]
    pub fn happened(mut self, events: impl IntoIterator<Item = impl Into<D::Event>>) -> Self {
        for event in events {
            D::evolve(&mut self.state, &event.into(), self.clock);
        }
        self
    }

    /// A command comes. By default its client says neither the time nor who it is.
    pub fn when(self, command: impl Into<D::Command>) -> When<D> {
        let context = Context {
            occurred_at: self.clock,
            is_time_given: false,
            actor: None,
            tenant: TenantId::default(),
            command_id: "a-command".parse().expect("the text is a valid command id"),
        };
        When {
            given: self,
            command: command.into(),
            context,
        }
    }

    /// The state that the events so far lead to.
    #[must_use]
    pub fn state(&self) -> &D::State {
        &self.state
    }
}

/// A command on its way to the rules.
#[must_use = "nothing is tested before `then`, `then_refused` or `then_nothing`"]
pub struct When<D: Decider> {
    given: Given<D>,
    command: D::Command,
    context: Context,
}

impl<D> When<D>
where
    D: Decider<Event: Debug + PartialEq, Rejection: Debug + PartialEq>,
{
    /// The client gives this time for the command; without it, the time is the clock's.
    #[track_caller]
    pub fn dated(mut self, time: impl Time) -> Self {
        self.context.occurred_at = time.time();
        self.context.is_time_given = true;
        self
    }

    /// Who sends the command.
    pub fn by(mut self, actor: Actor) -> Self {
        self.context.actor = Some(actor);
        self
    }

    /// The whole context of the command.
    pub fn in_context(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// It leads to exactly these events, in this order. Returns the history with them, for what
    /// comes next.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = impl Into<D::Event>>) -> Given<D> {
        let expected: Vec<D::Event> = expected.into_iter().map(Into::into).collect();
        match self.decide() {
            Ok(events) if events == expected => self.followed_by(events),
            Ok(events) => panic!(
                "other events than expected (< decided, > expected):\n{}",
                Comparison::new(&events, &expected)
            ),
            Err(refusal) => panic!(
                "refused with {} ({refusal}), instead of these events:\n{expected:#?}",
                refusal.code()
            ),
        }
    }

    /// What it asks for already holds: there is no event.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        self.then([] as [D::Event; 0])
    }

    /// It is refused for this reason.
    #[track_caller]
    pub fn then_refused(self, expected: D::Rejection) -> Given<D> {
        let refusal = self.refusal();
        if refusal != expected {
            panic!(
                "refused for another reason (< decided, > expected):\n{}",
                Comparison::new(&refusal, &expected)
            );
        }
        self.given
    }

    /// It is refused, and the broken rule has this code.
    #[track_caller]
    pub fn then_refused_with(self, code: &str) -> Given<D> {
        let refusal = self.refusal();
        assert_eq!(refusal.code(), code, "{refusal}");
        self.given
    }

    fn decide(&self) -> Result<Vec<D::Event>, D::Rejection> {
        D::decide(&self.given.state, &self.command, &self.context)
    }

    #[track_caller]
    fn refusal(&self) -> D::Rejection {
        match self.decide() {
            Err(refusal) => {
                let code = refusal.code();
                let is_kept = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(
                    code.starts_with(|c: char| c.is_ascii_lowercase()) && code.chars().all(is_kept),
                    "the code {code:?} is not of the form [a-z][a-z0-9_]*"
                );
                refusal
            }
            Ok(events) => panic!("not refused; it led to:\n{events:#?}"),
        }
    }

    /// The history with events as the log would give them back.
    #[track_caller]
    fn followed_by(self, events: Vec<D::Event>) -> Given<D> {
        let Given { mut state, clock } = self.given;
        for event in events {
            let read = read_back::<D>(&event);
            D::evolve(&mut state, &read, self.context.occurred_at);
            state = kept::<D>(&state);
        }
        Given { state, clock }
    }
}

/// The event as readers of the log get it.
#[track_caller]
fn read_back<D: Decider<Event: Debug + PartialEq>>(event: &D::Event) -> D::Event {
    let name = event.type_name();
    let data = match event.encode() {
        Ok(data) => data,
        Err(error) => panic!("{name} cannot be written: {error}"),
    };
    match D::Event::decode(&name, event.schema(), data.get()) {
        Ok(read) if read == *event => read,
        Ok(read) => panic!(
            "{name} is another event after it was read back (< decided, > read):\n{}",
            Comparison::new(event, &read)
        ),
        Err(error) => panic!("no reader could read {name}, written as {data}: {error}"),
    }
}

/// The state as it comes back from an owner's store.
#[track_caller]
fn kept<D: Decider>(state: &D::State) -> D::State {
    let read = serde_json::to_vec(state).and_then(|bytes| serde_json::from_slice(&bytes));
    match read {
        Ok(state) => state,
        Err(error) => panic!("the state does not survive being kept as JSON: {error}"),
    }
}
