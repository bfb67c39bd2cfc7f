//! Three brokers, three nodes and a Postgres under faults of every kind: nothing is lost, nothing
//! is doubled, and afterwards everything works again. `make faults` does the same for longer.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tests::faults::orders::{OrdersOptions, import};
use tests::faults::run::{RunOptions, Until, run};
use tests::faults::scene::{MachineWishes, Projectors, SceneOptions};
use tests::olist::{self, Dirt};
use tokio::sync::Mutex;

/// Only one set of brokers and nodes at a time: two sets would slow each other down on a small
/// machine.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// A long limit: other tests run on the same machine, so a slow recovery says little, but a missing
/// one is a fault.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// The promises that were broken. It is a test's error and no panic, so that the last lines of its output
/// say what was broken, and no backtrace.
struct Broken {
    seed: u64,
    violations: Vec<String>,
    evidence: PathBuf,
}

impl Broken {
    /// `Ok` if there are no violations; otherwise, the evidence is kept.
    fn or_none(seed: u64, violations: Vec<String>, artefacts: TempDir) -> Result<(), Self> {
        if violations.is_empty() {
            return Ok(());
        }
        Err(Self {
            seed,
            violations,
            evidence: artefacts.keep(),
        })
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            violations,
            evidence,
        } = self;
        writeln!(f, "broken promises, with ANNALS_TESTS_SEED={seed}:")?;
        for violation in violations {
            writeln!(f, "- {violation}")?;
        }
        write!(f, "the evidence is in {}", evidence.display())
    }
}

fn seeded(what: &str) -> u64 {
    let seed = match std::env::var("ANNALS_TESTS_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => rand::random(),
    };
    println!("{what}: ANNALS_TESTS_SEED={seed} repeats the choices");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_imported_while_nodes_and_brokers_are_killed_become_the_same_read_models()
-> Result<(), Broken> {
    let _alone = MACHINE.lock().await;
    let seed = seeded("orders");
    let folder = tempfile::tempdir().unwrap();
    let orders = olist::data_set(seed, 300, Dirt::Real);
    orders.write_to(folder.path()).unwrap();
    let artefacts = tempfile::tempdir().unwrap();
    let imported = import(OrdersOptions {
        scene: SceneOptions {
            program: PathBuf::from(env!("CARGO_BIN_EXE_annals-under-test")),
            artefacts: artefacts.path().to_owned(),
            nodes: 3,
            partitions: 12,
            session_timeout: Duration::from_secs(2),
            projectors: Projectors::Everywhere,
            machine: MachineWishes::default(),
            log_filter: "info".to_owned(),
            arguments: Vec::new(),
        },
        seed,
        folder: folder.path().to_owned(),
        kills: 4,
    })
    .await;
    println!("{imported}");
    assert!(imported.open_at_least.is_some_and(|open| open > 0));
    Broken::or_none(seed, imported.violations, artefacts)
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_on_three_brokers_keep_every_promise_under_faults_of_every_kind()
-> Result<(), Broken> {
    let _alone = MACHINE.lock().await;
    let seed = seeded("faults");
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
    assert!(outcome.counted.accepted > 0);
    assert!(outcome.faults.values().map(|fault| fault.made).sum::<u64>() > 0);
    Broken::or_none(seed, outcome.violations, artefacts)
}
