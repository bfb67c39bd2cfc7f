//! The first release: a lamp is lit with so many watts.

use kernel::{Context, Decider, Timestamp, messages, rejections};
use serde::{Deserialize, Serialize};

messages! {
    /// The commands of a lamp.
    pub enum Command {
        /// Lights the lamp.
        #[schemars(extend("examples" = [{"watts": 40}]))]
        LightLamp {
            /// Its power.
            watts: u32,
        },
    }
}

messages! {
    /// The events of a lamp.
    pub enum Event {
        /// The lamp was lit.
        #[schemars(extend("examples" = [{"watts": 40}]))]
        LampLit {
            /// Its power.
            watts: u32,
        },
    }
}

rejections! {
    /// The rules of lamps.
    #[derive(Eq)]
    pub enum Rejection {
        /// A lamp is lit with some power.
        Dark => "lamp_dark", "the lamp has no power",
    }
}

/// The state of a lamp.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// How often it was lit.
    pub lit: u32,
    /// All watts so far.
    pub total: u64,
}

/// The rules of lamps.
#[derive(Clone, Copy, Debug)]
pub struct Lamp;

impl Decider for Lamp {
    const CATEGORY: &'static str = "lamp";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn decide(_: &State, command: &Command, _: &Context) -> Result<Vec<Event>, Rejection> {
        let Command::LightLamp(LightLamp { watts }) = command;
        match *watts {
            0 => Err(Rejection::Dark),
            watts => Ok(vec![LampLit { watts }.into()]),
        }
    }

    fn evolve(state: &mut State, event: &Event, _: Timestamp) {
        let Event::LampLit(LampLit { watts }) = event;
        state.lit += 1;
        state.total += u64::from(*watts);
    }
}
