//! The second release: light is counted in lumens, and a lamp can be put out.

use kernel::{Context, Decider, Timestamp, messages, rejections};
use serde::{Deserialize, Serialize};

/// How many lumens the old lamps gave for a watt.
const LUMENS_PER_WATT: u32 = 12;
/// How many lumens a lamp gives before it is worn out.
const LUMENS_MAX: u64 = 10_000;

messages! {
    /// The commands of a lamp.
    pub enum Command {
        /// Lights the lamp.
        #[schemars(extend("examples" = [{"lumens": 480}]))]
        LightLamp {
            /// Its light.
            lumens: u32,
        } = 2 from [1: LightLampV1],
        /// Puts the lamp out.
        PutOutLamp {},
    }
}

messages! {
    /// The events of a lamp.
    pub enum Event {
        /// The lamp was lit.
        #[schemars(extend("examples" = [{"lumens": 480}]))]
        LampLit {
            /// Its light.
            lumens: u32,
        } = 2 from [1: LampLitV1],
        /// The lamp was put out.
        LampPutOut {},
    }
}

/// At first, commands named watts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LightLampV1 {
    watts: u32,
}

impl From<LightLampV1> for LightLamp {
    fn from(old: LightLampV1) -> Self {
        let lumens = old.watts * LUMENS_PER_WATT;
        Self { lumens }
    }
}

/// At first, events named watts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LampLitV1 {
    watts: u32,
}

impl From<LampLitV1> for LampLit {
    fn from(old: LampLitV1) -> Self {
        let lumens = old.watts * LUMENS_PER_WATT;
        Self { lumens }
    }
}

rejections! {
    /// The rules of lamps.
    #[derive(Eq)]
    pub enum Rejection {
        /// A lamp is lit with some light.
        Dark => "lamp_dark", "the lamp gives no light",
        /// A lamp gives so much light and no more.
        Worn {
            /// How much it gave.
            total: u64,
        } => "lamp_worn", "the lamp gave {total} lumens and is worn out",
    }
}

/// The state of a lamp. It has the same form as before and another meaning: only the version of the
/// rules tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How often it was lit.
    pub lit: u32,
    /// All lumens so far.
    pub total: u64,
}

/// The rules of lamps.
#[derive(Clone, Copy, Debug)]
pub struct Lamp;

impl Decider for Lamp {
    const CATEGORY: &'static str = "lamp";
    const RULES_VERSION: u32 = 2;
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(state: &State, command: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::LightLamp(LightLamp { lumens: 0 }) => Err(Rejection::Dark),
            Command::LightLamp(LightLamp { lumens })
                if state.total + u64::from(*lumens) > LUMENS_MAX =>
            {
                let total = state.total;
                Err(Rejection::Worn { total })
            }
            Command::LightLamp(LightLamp { lumens }) => {
                Ok(vec![LampLit { lumens: *lumens }.into()])
            }
            Command::PutOutLamp(_) => Ok(vec![LampPutOut {}.into()]),
        }
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        if let Event::LampLit(LampLit { lumens }) = event {
            state.lit += 1;
            state.total += u64::from(*lumens);
        }
    }
}
