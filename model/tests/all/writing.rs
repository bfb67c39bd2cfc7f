//! The write protocol without a mistake: no state breaks an invariant.

use model::check::exhaust;
use model::{Config, Reads, Writing};

use crate::THREADS;

fn nothing_is_broken(name: &str, config: Config) {
    let report = exhaust(Writing::new(config), THREADS);
    println!("{name}: {report}");
    assert!(report.broken.is_empty(), "{name}: {report}");
}

#[test]
fn two_nodes_two_commands_three_claims_a_crash_a_failure_and_a_resend() {
    let config = Config {
        lost_acks_max: 0,
        blind_acks_max: 0,
        ..Config::small()
    };
    nothing_is_broken("failures", config);
}

#[test]
fn acknowledgements_that_are_lost_or_name_no_offset() {
    let config = Config {
        resends_max: 0,
        failures_max: 0,
        ..Config::small()
    };
    nothing_is_broken("acknowledgements", config);
}

#[test]
fn reads_that_bring_one_record_at_a_time() {
    let config = Config {
        lost_acks_max: 0,
        blind_acks_max: 0,
        crashes_max: 0,
        resends_max: 0,
        reads: Reads::OneByOne,
        ..Config::small()
    };
    nothing_is_broken("one by one", config);
}

#[test]
fn reads_that_take_their_time() {
    let config = Config {
        resends_max: 0,
        failures_max: 0,
        lost_acks_max: 0,
        blind_acks_max: 1,
        crashes_max: 0,
        reads: Reads::LaterAndLate,
        ..Config::small()
    };
    nothing_is_broken("reads", config);
}

#[test]
fn a_stranger_who_writes_the_headers_of_an_owner_over_another_value() {
    let config = Config {
        lost_acks_max: 0,
        blind_acks_max: 0,
        crashes_max: 0,
        resends_max: 0,
        imitations_max: 1,
        ..Config::small()
    };
    nothing_is_broken("imitations", config);
}
