//! Runs of the simulator: the same seed gives the same run, and fresh seeds find nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use simulator::sim::{self, Options};

#[test]
fn the_same_seed_gives_the_same_run() {
    let traced = |seed| {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let heard = Rc::clone(&lines);
        let listener = Box::new(move |line: &str| heard.borrow_mut().push(line.to_owned()));
        let report = sim::run(seed, &Options::default(), Some(listener));
        (
            report.digest,
            report.steps,
            Rc::unwrap_or_clone(lines).into_inner(),
        )
    };
    for seed in 0..20 {
        let (first, second) = (traced(seed), traced(seed));
        assert!(!first.2.is_empty());
        assert_eq!(first, second, "seed {seed}");
        let unheard = sim::run(seed, &Options::default(), None);
        assert_eq!(unheard.digest, first.0, "seed {seed}");
    }
}

#[test]
fn some_seeds() {
    let from: u64 = std::env::var("FROM").map_or(0, |v| v.parse().unwrap());
    let seeds: u64 = std::env::var("SEEDS").map_or(100, |v| v.parse().unwrap());
    let began = Instant::now();
    let mut steps = 0;
    let mut bad = 0;
    for seed in from..from + seeds {
        let report = sim::run(seed, &Options::default(), None);
        steps += report.steps;
        if let Some(violation) = report.violation {
            println!("seed {seed}: {violation}");
            bad += 1;
        }
    }
    println!(
        "{seeds} seeds, {steps} steps, {bad} bad, {:?}",
        began.elapsed()
    );
    assert_eq!(bad, 0);
}
