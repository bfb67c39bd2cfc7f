//! Checks one configuration of the model, and prints how many states it has:
//! `model claims=4 crashes=2 reads=2 bad=AnswersOnAcknowledgement`.

use model::check::exhaust;
use model::{Config, Reads, Writing};

fn main() {
    let mut config = Config::small();
    let mut threads = 2;
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').expect("name=value");
        let number = || value.parse::<u8>().expect("a number");
        match name {
            "nodes" => config.nodes = number(),
            "commands" => {
                let last = config.commands[config.commands.len() - 1];
                config.commands.resize(usize::from(number()), last);
            }
            "claims" => config.claims_max = number(),
            "crashes" => config.crashes_max = number(),
            "resends" => config.resends_max = number(),
            "failures" => config.failures_max = number(),
            "lost" => config.lost_acks_max = number(),
            "blind" => config.blind_acks_max = number(),
            "cuts" => config.cuts_max = number(),
            "mishaps" => config.mishaps_max = number(),
            "flight" => config.in_flight_max = usize::from(number()),
            "stores" => config.stores = number() > 0,
            "finish" => config.finish_every = u64::from(number()),
            "threads" => threads = usize::from(number()),
            "reads" => {
                let all = [
                    Reads::AtOnce,
                    Reads::Later,
                    Reads::LaterAndLate,
                    Reads::OneByOne,
                ];
                config.reads = all[usize::from(number())];
            }
            #[cfg(feature = "known-bad")]
            "bad" => {
                let bad: event_log::known_bad::KnownBad =
                    serde_json::from_value(value.into()).expect("the name of a known-bad change");
                config.flaw = bad.into();
            }
            _ => panic!("no such bound: {name}"),
        }
    }
    println!("{}", exhaust(Writing::new(config), threads));
}
