//! Three brokers, three nodes and a Postgres under faults of every kind: nothing is lost, nothing is
//! doubled, and everything moves again. `make faults` does the same for longer.

use std::path::PathBuf;
use std::time::Duration;

use tests::faults::run::{RunOptions, Until, run};

/// Other tests run on the same machine at the same time, so what is late here says little; what never
/// comes does.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_on_three_brokers_keep_every_promise_under_faults_of_every_kind() {
    let seed = match std::env::var("ANNALS_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("faults: ANNALS_TEST_SEED={seed} repeats the choices");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_annals-under-test"));
    let artefacts = tempfile::tempdir().unwrap();
    let brief = RunOptions::brief(program, artefacts.path().to_owned(), seed);
    let outcome = run(RunOptions {
        until: Until {
            time: Duration::from_secs(45),
            ..brief.until
        },
        round: Duration::from_secs(20),
        recovery_max: RECOVERY_MAX,
        commands_per_second_max: 100,
        ..brief
    })
    .await;
    println!("{outcome}");
    if !outcome.violations.is_empty() {
        let kept = artefacts.keep();
        panic!("what shows it is in {}", kept.display());
    }
    assert!(outcome.counted.accepted > 0);
    assert!(outcome.faults.values().map(|fault| fault.made).sum::<u64>() > 0);
}
