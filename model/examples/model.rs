//! Checks one configuration of the model and prints how large it is.

use std::time::Instant;

use model::{Config, Writing};
use stateright::{Checker, Model};

fn main() {
    let mut config = Config::small();
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').expect("name=value");
        let number: u8 = value.parse().expect("a number");
        match name {
            "claims" => config.claims_max = number,
            "crashes" => config.crashes_max = number,
            "resends" => config.resends_max = number,
            "failures" => config.failures_max = number,
            "lost" => config.lost_acks_max = number,
            "blind" => config.blind_acks_max = number,
            "cuts" => config.cuts_max = number,
            "nodes" => config.nodes = number,
            "stores" => config.stores = number > 0,
            "finish" => config.finish_every = u64::from(number),
            "reads" => {
                config.reads = [
                    model::Reads::AtOnce,
                    model::Reads::Later,
                    model::Reads::LaterAndLate,
                ][usize::from(number)];
            }
            _ => panic!("no such bound: {name}"),
        }
    }
    let start = Instant::now();
    let checker = Writing::new(config).checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} unique, depth {}, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f64()
    );
    for (name, path) in checker.discoveries() {
        println!("BROKEN: {name}");
        let steps = path.into_vec();
        for (_, step) in &steps {
            if let Some(step) = step {
                println!("  {step:?}");
            }
        }
        if let Some((world, _)) = steps.last() {
            println!("  leads to {world:?}");
        }
    }
}
