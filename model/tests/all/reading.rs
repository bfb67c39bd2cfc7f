//! The model of reading: without a mistake, no state breaks an invariant; each mistake that loses
//! or doubles something is found, under the name of the invariant that it breaks.

use model::check::{Report, exhaust, seek};
use model::invariant;
use model::reading::{Mistake, Reading};

use crate::THREADS;

#[test]
fn a_projector_of_a_log_that_is_cut() {
    let report = exhaust(Reading::cut(), THREADS);
    println!("reading what is cut: {report}");
    assert!(report.broken.is_empty(), "{report}");
}

#[test]
fn two_projectors_of_the_same_rows() {
    let report = exhaust(Reading::shared(), THREADS);
    println!("two projectors: {report}");
    assert!(report.broken.is_empty(), "{report}");
}

fn assert_broken(what: &str, invariant: &'static str, report: &Report) {
    println!("{what}: {report}");
    assert!(report.names().contains(&invariant), "{what}: {report}");
}

fn mistake_breaks(mistake: Mistake, invariant: &'static str, config: Reading) {
    let config = Reading {
        mistake: Some(mistake),
        ..config
    };
    let report = seek(config, THREADS, invariant);
    assert_broken(&format!("{mistake:?}"), invariant, &report);
}

#[test]
fn a_checkpoint_that_is_only_an_offset() {
    let mistake = Mistake::KeepsOffsetOnly;
    mistake_breaks(mistake, invariant::CUT_IS_SEEN, Reading::cut());
}

#[test]
fn a_checkpoint_that_moves_apart_from_its_rows() {
    let mistake = Mistake::MovesApartFromRows;
    mistake_breaks(mistake, invariant::ROWS, Reading::shared());
}

#[test]
fn a_checkpoint_that_is_compared_with_nothing() {
    let mistake = Mistake::ComparesNothing;
    mistake_breaks(mistake, invariant::ROWS, Reading::shared());
}

#[cfg(feature = "known-bad")]
mod known_bad {
    use event_log::known_bad::KnownBad;

    use super::*;

    fn breaks(bad: KnownBad) {
        let config = Reading {
            flaw: bad.into(),
            ..Reading::cut()
        };
        let report = seek(config, THREADS, invariant::CUT_IS_SEEN);
        assert_broken(&format!("{bad:?}"), invariant::CUT_IS_SEEN, &report);
    }

    #[test]
    fn proving_on_resume_only() {
        breaks(KnownBad::ProvesOnResumeOnly);
    }

    #[test]
    fn proving_the_last_accepted_only() {
        breaks(KnownBad::ProvesLastAcceptedOnly);
    }

    #[test]
    fn moving_before_the_proof() {
        breaks(KnownBad::MovesBeforeProof);
    }
}
