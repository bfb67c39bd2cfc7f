//! Every attack, for a short time: the node stays within its memory, its health routes answer, and
//! soon after the attack everything works as before. `make attacks` runs longer and also measures
//! what polite clients keep; a machine that runs tests at the same time cannot measure that.

use std::path::PathBuf;
use std::time::Duration;

use tests::attacks::ATTACKS;
use tests::attacks::measure::{Options, Table, measure};
use tests::harness::postgres::Postgres;

/// How long each attack lasts.
const LENGTH: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn under_each_attack_a_node_keeps_its_memory_limit_and_answers_health_requests() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_annals-under-test")),
        attacker: PathBuf::from(env!("CARGO_BIN_EXE_attacks")),
        length: LENGTH,
        with_shares: false,
    };
    let mut outcomes = Vec::new();
    for attack in ATTACKS {
        outcomes.push(measure(attack, &postgres, &options).await);
    }
    println!("{}", Table(&outcomes));
    let broken: Vec<String> = outcomes.iter().flat_map(|o| o.violations()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}
