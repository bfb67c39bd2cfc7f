//! Each change that breaks the protocol is found, under the name of the invariant that it breaks.

use event_log::known_bad::KnownBad;
use model::check::seek;
use model::config::Write;
use model::{Config, Reads, Writing, invariant};

use crate::THREADS;

/// Asserts that `bad` breaks `invariant` in the world of `config`.
fn breaks(bad: KnownBad, invariant: &'static str, config: Config) {
    let config = Config {
        flaw: bad.into(),
        ..config
    };
    let report = seek(Writing::new(config), THREADS, invariant);
    println!("{bad:?}: {report}");
    let names = report.names();
    assert!(
        names.contains(&invariant),
        "{bad:?} broke only {names:?}: {report}"
    );
}

#[test]
fn answering_before_the_acknowledgement() {
    let bad = KnownBad::AnswersBeforeAcknowledgement;
    breaks(bad, invariant::ACCEPTED_STAYS, Config::small());
}

#[test]
fn answering_on_acknowledgement_wherever_the_record_landed() {
    let bad = KnownBad::AnswersOnAcknowledgement;
    breaks(bad, invariant::ACCEPTED_STAYS, Config::small());
}

#[test]
fn answering_for_a_record_that_is_not_the_oldest() {
    let config = Config {
        mishaps_max: 1,
        ..Config::small()
    };
    breaks(
        KnownBad::AnswersNotTheOldest,
        invariant::ACCEPTED_STAYS,
        config,
    );
}

#[test]
fn calling_a_record_an_orphan_because_of_a_gap() {
    breaks(
        KnownBad::CallsOrphanByGap,
        invariant::NO_EVENT,
        Config::small(),
    );
}

#[test]
fn looking_once_at_the_end_of_the_log_after_a_doubt() {
    breaks(
        KnownBad::LooksOnceAfterDoubt,
        invariant::NO_EVENT,
        Config::small(),
    );
}

#[test]
fn a_table_of_command_ids_that_is_not_rebuilt_at_take_over() {
    breaks(
        KnownBad::ForgetsIdsAtTakeOver,
        invariant::ONCE,
        Config::small(),
    );
}

#[test]
fn a_table_of_command_ids_that_forgets_early() {
    breaks(KnownBad::ForgetsIdsEarly, invariant::ONCE, Config::small());
}

#[test]
fn folding_only_up_to_before_the_own_claim() {
    breaks(
        KnownBad::FoldsToBeforeOwnClaim,
        invariant::NO_DAMAGE,
        Config::small(),
    );
}

#[test]
fn believing_that_the_current_term_alone_makes_the_owner() {
    breaks(
        KnownBad::OwnsByTermAlone,
        invariant::DEPOSED,
        Config::small(),
    );
}

#[test]
fn taking_whatever_counts_under_the_own_headers_for_the_own_record() {
    let config = Config {
        imitations_max: 1,
        crashes_max: 0,
        ..Config::small()
    };
    let bad = KnownBad::KnowsOwnByHeaders;
    breaks(bad, invariant::ACCEPTED_STAYS, config);
}

#[test]
fn deciding_between_a_piece_that_ended_behind_anothers_claim_and_the_rest() {
    let config = Config {
        reads: Reads::OneByOne,
        crashes_max: 0,
        ..Config::small()
    };
    breaks(
        KnownBad::DecidesBehindAnothersClaim,
        invariant::NO_DAMAGE,
        config,
    );
}

#[test]
fn a_refusal_from_memory() {
    breaks(
        KnownBad::RefusesFromMemory,
        invariant::REFUSED_STAYS,
        Config::small(),
    );
    breaks(
        KnownBad::RefusesFromMemory,
        invariant::NO_EVENT,
        Config::small(),
    );
}

#[test]
fn recording_two_commits_at_the_same_time() {
    breaks(
        KnownBad::RepeatsRecordedTime,
        invariant::RECORDED_TIME,
        Config::small(),
    );
}

#[test]
fn previous_hash_and_position_both_unchecked() {
    // A lost refusal does not show in the versions of its stream. A lost event does: every reader
    // sees it, before anything that was decided on that event counts.
    let refused = Write {
        expected_version: Some(7),
        at_most: None,
    };
    let config = Config {
        commands: vec![refused, Config::small().commands[0]],
        mishaps_max: 1,
        crashes_max: 0,
        ..Config::small()
    };
    breaks(KnownBad::ChecksNoLink, invariant::AGREE, config);
}
