//! Each mistake that is built in on purpose is found by chance, by the name of what it breaks.
//!
//! Deliberately absent: changes that need a rare order of events; an exhaustive search finds them
//! (`model`).

use event_log::known_bad::KnownBad;
use simulator::sim::{self, Invariant, Mistake, Options};

/// How many seeds are tried at most: several times what any of these needs.
const SEEDS_MAX: u64 = 1_000;
/// The same for a mistake that takes a rare order of events.
const SEEDS_RARE_MAX: u64 = 5_000;

/// Asserts that runs with `options` break one of `promises` before any other, and says how soon.
fn breaks(options: &Options, promises: &[Invariant]) {
    breaks_beside(options, promises, &[], SEEDS_MAX);
}

/// The same where runs that break one of `beside` show something else, and are passed over.
fn breaks_beside(options: &Options, promises: &[Invariant], beside: &[Invariant], seeds_max: u64) {
    for seed in 0..seeds_max {
        if let Some(violation) = sim::run(seed, options, None).violation {
            println!("found by seed {seed}: {violation}");
            let found = violation.invariant;
            if !beside.contains(&found) {
                assert!(promises.contains(&found), "{found:?}: {violation}");
                return;
            }
        }
    }
    panic!("{seeds_max} seeds found nothing");
}

fn flaw(bad: KnownBad) -> Options {
    Options {
        flaw: bad.into(),
        ..Options::default()
    }
}

fn mistake(mistake: Mistake) -> Options {
    Options {
        mistake: Some(mistake),
        ..Options::default()
    }
}

fn flawed(bad: KnownBad, promises: &[Invariant]) {
    breaks(&flaw(bad), promises);
}

#[test]
fn answering_before_the_acknowledgement() {
    let bad = KnownBad::AnswersBeforeAcknowledgement;
    flawed(bad, &[Invariant::AnsweredIsThere]);
}

#[test]
fn answering_on_acknowledgement_wherever_the_record_landed() {
    let bad = KnownBad::AnswersOnAcknowledgement;
    flawed(bad, &[Invariant::AnsweredIsThere]);
}

#[test]
fn calling_a_record_an_orphan_because_of_a_gap() {
    let bad = KnownBad::CallsOrphanByGap;
    flawed(bad, &[Invariant::RefusedLeftNothing]);
}

#[test]
fn looking_once_at_the_end_of_the_log_after_a_doubt() {
    let promises = [
        Invariant::DecidedOnHistory,
        Invariant::AnsweredIsThere,
        Invariant::RefusedLeftNothing,
    ];
    // An owner gets a new producer with each claim. This one goes on without a claim, and stands
    // still if its producer has failed; its lies come where the producer lives.
    let options = flaw(KnownBad::LooksOnceAfterDoubt);
    breaks_beside(&options, &promises, &[Invariant::MovesAgain], SEEDS_MAX);
}

#[test]
fn taking_whatever_counts_under_the_own_headers_for_the_own_record() {
    let bad = KnownBad::KnowsOwnByHeaders;
    flawed(bad, &[Invariant::AnsweredIsThere]);
}

#[test]
fn sending_what_was_held_back_although_the_claim_is_in_doubt() {
    let options = flaw(KnownBad::SendsAfterDoubt);
    breaks_beside(
        &options,
        &[Invariant::SilentAfterDoubt],
        &[],
        SEEDS_RARE_MAX,
    );
}

#[test]
fn believing_hints_whatever_the_log_says() {
    flawed(KnownBad::BelievesHints, &[Invariant::MovesAgain]);
}

#[test]
fn claiming_and_appending_by_a_clock_that_is_a_day_off() {
    let promises = [Invariant::TimesAreTrue, Invariant::AtMostOnce];
    flawed(KnownBad::AppendsByAnyClock, &promises);
}

#[test]
fn appending_what_was_not_read_again() {
    let options = Options {
        unreadable: true,
        ..flaw(KnownBad::AppendsUnread)
    };
    breaks(&options, &[Invariant::Readable]);
}

#[test]
fn beginning_with_an_empty_table_of_command_ids() {
    flawed(KnownBad::ForgetsIdsAtTakeOver, &[Invariant::AtMostOnce]);
}

#[test]
fn forgetting_command_ids_before_their_window_is_over() {
    flawed(KnownBad::ForgetsIdsEarly, &[Invariant::AtMostOnce]);
}

#[test]
fn recording_two_commits_at_the_same_time() {
    let bad = KnownBad::RepeatsRecordedTime;
    flawed(bad, &[Invariant::RecordedTime]);
}

#[test]
fn recording_the_clocks_business_time_as_given() {
    let bad = KnownBad::RecordsDefaultAsGiven;
    flawed(bad, &[Invariant::BusinessTime]);
}

#[test]
fn taking_the_recorded_time_for_the_business_time() {
    let bad = KnownBad::FoldsAtRecordedTime;
    flawed(bad, &[Invariant::DecidedOnHistory]);
}

/// Where records are cut off in every run, or it would be too rare.
#[test]
fn resuming_without_a_proof() {
    let options = Options {
        cuts: Some(true),
        ..flaw(KnownBad::NeverProves)
    };
    breaks(&options, &[Invariant::CutIsNoticed]);
}

#[test]
fn trusting_what_was_acknowledged_while_leaders_changed() {
    // Where records are cut off in every run; and the log must get just as many others before the
    // owner's next claim lands.
    let options = Options {
        cuts: Some(true),
        ..flaw(KnownBad::TrustsAcrossLeaders)
    };
    breaks_beside(&options, &[Invariant::CutIsNoticed], &[], SEEDS_RARE_MAX);
}

#[test]
fn appending_what_the_rules_fail_over() {
    let bad = KnownBad::AppendsUntried;
    // The rules fail before the version has grown, and the next command is decided on the old one.
    flawed(bad, &[Invariant::FailuresStayAlone, Invariant::Versions]);
}

#[test]
fn stopping_a_partition_where_the_rules_fail() {
    let bad = KnownBad::StopsWhereRulesFail;
    flawed(bad, &[Invariant::NoFalseAlarm]);
}

#[test]
fn forwarding_with_a_new_command_id() {
    let options = mistake(Mistake::ForwardsUnderNewId);
    breaks(&options, &[Invariant::AtMostOnce, Invariant::Asked]);
}

#[test]
fn a_projector_without_compare_and_set() {
    let options = mistake(Mistake::ProjectorWithoutCompareAndSet);
    breaks(&options, &[Invariant::RowsAreTheFold]);
}

#[test]
fn a_projector_that_writes_rows_and_checkpoint_apart() {
    let options = mistake(Mistake::ProjectorInTwoSteps);
    breaks(&options, &[Invariant::RowsAreTheFold]);
}
