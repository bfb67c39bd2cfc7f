//! A new version of a rule: it is built beside the live one by itself, while both are kept current,
//! and takes its place in one step, or waits for it.

use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use engine::command::Request;
use projector::{
    Actor, NewVersion, Operator, Projection, Projector, ProjectorOptions, Purpose, Report,
};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;

use super::{Sample, database, execute, scalar, shop_history, submit_all, until};
use crate::write_side::start;

const HOUR: Duration = Duration::from_secs(3_600);
const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

/// A program that has the sample in this version.
fn program(version: u32) -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(Sample {
        name: "sample",
        version,
        fails_at: None,
    })]
}

fn process(place: &Place, version: u32, new_version: NewVersion) -> Projector {
    let options = ProjectorOptions {
        new_version,
        ..ProjectorOptions::from(2)
    };
    Projector::spawn(&place.log.log, &place.url, &program(version), options).unwrap()
}

/// A log, its writer and a database.
struct Place {
    log: NewLog,
    engine: Engine,
    url: String,
    _postgres: Postgres,
}

impl Place {
    async fn make() -> Self {
        let log = NewLog::make(Kind::Sqlite, 4).await;
        let engine = start(&log).await;
        let postgres = Postgres::start();
        Self {
            url: database(&postgres).await,
            engine,
            log,
            _postgres: postgres,
        }
    }

    async fn submit(&self, seed: u64) {
        let of_tenant = |line| Request {
            tenant: format!("t{seed}").parse().unwrap(),
            ..line
        };
        let lines = shop_history(seed, 40).into_iter().map(of_tenant);
        submit_all(&self.engine, lines.collect()).await;
    }

    /// The generations with their versions and states.
    async fn states(&self) -> String {
        let sql = "SELECT coalesce(string_agg(concat('v', version, ' ', state), ', ' \
                   ORDER BY generation), '') FROM annals.generation";
        scalar(&self.url, sql).await
    }

    async fn reach(&self, states: &str) {
        until(states, async || self.states().await == states).await;
    }

    async fn report(&self, version: u32) -> Report {
        let log = Some(&*self.log.log);
        let reports = projector::report(log, &self.url, &program(version)).await;
        reports.unwrap().remove(0)
    }

    /// Waits until each generation has taken up everything.
    async fn level(&self) {
        until("all generations are level", async || {
            let report = self.report(1).await;
            let mut places = report.generations.iter().flat_map(|g| &g.partitions);
            places.all(|place| place.gap == Some(0))
        })
        .await;
    }

    async fn operator(&self, version: u32) -> Operator {
        Operator::connect(&self.url, &program(version))
            .await
            .unwrap()
    }

    /// Who asked for what, and why.
    async fn noted(&self) -> Vec<String> {
        let sql = "SELECT coalesce(array_agg(action || ': ' || reason ORDER BY id), '{}') \
                   FROM annals.control";
        scalar(&self.url, sql).await
    }

    /// Waits until a process has looked at Postgres so many times.
    async fn looks(&self, count: usize) {
        let sql = "SELECT max(seen_at)::text FROM annals.member";
        for _ in 0..count {
            let before: Option<String> = scalar(&self.url, sql).await;
            until("a process looks", async || {
                scalar::<Option<String>>(&self.url, sql).await != before
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_new_version_is_built_beside_the_live_one_and_waits_for_a_switch() {
    let place = Place::make().await;
    place.submit(1).await;
    let old = process(&place, 1, NewVersion::Waits);
    place.reach("v1 live").await;
    place.level().await;
    // Two new processes start at once, as in a rolling upgrade: one of them begins.
    let new = [2, 2].map(|version| process(&place, version, NewVersion::Waits));
    place.reach("v1 live, v2 ready").await;
    let noted = place.noted().await;
    assert_eq!(noted, ["rebuild: new version 2; version 1 is live"]);
    // Both are kept current, and nobody is unready.
    place.submit(2).await;
    place.level().await;
    let waits = "annals projections switch sample";
    for process in &new {
        until("it says what is next", async || {
            process.warnings().iter().any(|said| said.contains(waits))
        })
        .await;
        until("it is ready", async || process.ready().is_ok()).await;
    }
    assert_eq!(old.ready(), Ok(()));
    assert!(old.warnings().is_empty());
    for version in [1, 2] {
        let next = place.report(version).await.next.unwrap();
        assert!(next.contains(waits), "{next}");
    }
    let mut operator = place.operator(2).await;
    // A comparison with the log does not take what waits.
    let refused = operator.rebuild("sample", Purpose::Verify, ACTOR).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("a rebuild of it is under way or waits"),
        "{refused}"
    );
    operator.switch("sample", HOUR, ACTOR).await.unwrap();
    // The old process keeps the old tables current, and says that a newer program is live.
    place.submit(3).await;
    place.level().await;
    assert_eq!(place.states().await, "v1 retired, v2 live");
    until("the old one says so", async || {
        let said = old.ready().err().unwrap_or_default();
        said.contains("start a newer program")
    })
    .await;
    until("the new one has nothing to say", async || {
        new[0].ready().is_ok() && new[0].warnings().is_empty()
    })
    .await;
    // What is rolled back is not built again by itself, also not after it was dropped.
    // Only a program that has the old rule can show its rows.
    let refused = operator.roll_back("sample", HOUR, ACTOR).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("ask with the program that has it"),
        "{refused}"
    );
    let mut with_old = place.operator(1).await;
    with_old.roll_back("sample", HOUR, ACTOR).await.unwrap();
    until("it says how it is shown again", async || {
        let said = new[0].warnings();
        said.iter()
            .any(|said| said.contains("annals projections rollback sample"))
    })
    .await;
    operator.roll_back("sample", HOUR, ACTOR).await.unwrap();
    assert_eq!(place.states().await, "v1 retired, v2 live");
    with_old.roll_back("sample", HOUR, ACTOR).await.unwrap();
    execute(
        &place.url,
        "UPDATE annals.generation SET keep_until = now() WHERE state = 'retired'",
    )
    .await;
    place.reach("v1 live").await;
    until("it says how it is built again", async || {
        let said = new[0].warnings();
        let how = "annals projections rebuild sample --no-switch";
        said.iter().any(|said| said.contains(how))
    })
    .await;
    assert_eq!(place.states().await, "v1 live");
    let next = place.report(2).await.next.unwrap();
    assert!(next.contains("rebuild sample --no-switch"), "{next}");
    operator
        .rebuild("sample", Purpose::Wait, ACTOR)
        .await
        .unwrap();
    place.reach("v1 live, v2 ready").await;
    // As is what was cancelled.
    operator.cancel("sample", ACTOR).await.unwrap();
    place.looks(6).await;
    assert_eq!(place.states().await, "v1 live");
    for process in new.into_iter().chain([old]) {
        process.stop().await.unwrap();
    }
}

#[tokio::test]
async fn with_the_setting_a_new_version_takes_the_place_of_the_live_one_by_itself() {
    let place = Place::make().await;
    place.submit(1).await;
    let old = process(&place, 1, NewVersion::Switches);
    place.reach("v1 live").await;
    let new = process(&place, 2, NewVersion::Switches);
    place.reach("v1 retired, v2 live").await;
    let equal = "SELECT (comparison->>'equal')::bool FROM annals.generation WHERE version = 2";
    assert!(scalar::<bool>(&place.url, equal).await);
    place.submit(2).await;
    place.level().await;
    // Even by itself it is not done again after somebody rolled it back.
    let mut operator = place.operator(1).await;
    operator.roll_back("sample", HOUR, ACTOR).await.unwrap();
    execute(
        &place.url,
        "UPDATE annals.generation SET keep_until = now() WHERE state = 'retired'",
    )
    .await;
    place.reach("v1 live").await;
    place.looks(6).await;
    assert_eq!(place.states().await, "v1 live");
    // A further version is built anew.
    let newest = process(&place, 3, NewVersion::Switches);
    place.reach("v1 retired, v3 live").await;
    for process in [old, new, newest] {
        process.stop().await.unwrap();
    }
}

#[tokio::test]
async fn of_several_programs_the_one_with_the_highest_version_builds() {
    let place = Place::make().await;
    place.submit(1).await;
    let second = process(&place, 2, NewVersion::Waits);
    place.reach("v2 live").await;
    // An older program never builds its version, and nobody helps it.
    let first = process(&place, 1, NewVersion::Switches);
    until("it says so", async || {
        let said = first.ready().err().unwrap_or_default();
        said.contains("start a newer program")
    })
    .await;
    let third = process(&place, 3, NewVersion::Waits);
    place.reach("v2 live, v3 ready").await;
    let fourth = process(&place, 4, NewVersion::Waits);
    place.reach("v2 live, v4 ready").await;
    until("the third says so", async || {
        let said = third.warnings();
        said.iter()
            .any(|said| said.contains("a newer program builds"))
    })
    .await;
    place.looks(4).await;
    assert_eq!(place.states().await, "v2 live, v4 ready");
    // Without the old program nobody keeps the live rows current, and readiness tells.
    second.stop().await.unwrap();
    until("readiness tells", async || {
        let said = fourth.ready().err().unwrap_or_default();
        said.contains("no process takes up version 2 any more")
            && said.contains("annals projections switch sample")
    })
    .await;
    for process in [first, third, fourth] {
        process.stop().await.unwrap();
    }
    // What nobody builds can be dropped, as the list says.
    let mut operator = place.operator(5).await;
    operator
        .rebuild("sample", Purpose::Wait, ACTOR)
        .await
        .unwrap();
    assert_eq!(place.states().await, "v2 live, v5 building");
    let next = place.report(2).await.next.unwrap();
    assert!(next.contains("annals projections cancel sample"), "{next}");
    operator.cancel("sample", ACTOR).await.unwrap();
    assert_eq!(place.states().await, "v2 live");
}

#[tokio::test]
async fn a_rebuild_of_the_live_version_that_an_operator_began_is_not_dropped() {
    let place = Place::make().await;
    place.submit(1).await;
    let old = process(&place, 1, NewVersion::Waits);
    place.reach("v1 live").await;
    let mut operator = place.operator(1).await;
    operator
        .rebuild("sample", Purpose::Wait, ACTOR)
        .await
        .unwrap();
    place.reach("v1 live, v1 ready").await;
    let new = process(&place, 2, NewVersion::Waits);
    until("it waits", async || {
        let said = new.warnings();
        said.iter()
            .any(|said| said.contains("once another rebuild has ended"))
    })
    .await;
    assert_eq!(place.states().await, "v1 live, v1 ready");
    operator
        .switch("sample", Duration::ZERO, ACTOR)
        .await
        .unwrap();
    until("then it is built", async || {
        place.states().await.ends_with("v1 live, v2 ready")
    })
    .await;
    for process in [old, new] {
        process.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_older_version_that_an_operator_builds_is_left_alone() {
    let place = Place::make().await;
    place.submit(1).await;
    let first = process(&place, 1, NewVersion::Waits);
    place.reach("v1 live").await;
    let third = process(&place, 3, NewVersion::Waits);
    place.reach("v1 live, v3 ready").await;
    // The operator wants version 2; what gives way does not come back by itself.
    let second = process(&place, 2, NewVersion::Waits);
    let mut operator = place.operator(2).await;
    let built = operator.rebuild("sample", Purpose::Wait, ACTOR).await;
    assert_eq!(
        built.unwrap(),
        3,
        "the number of what was dropped is not used again"
    );
    place.reach("v1 live, v2 ready").await;
    // Longer than a process waits between two tries to begin a building.
    place.looks(14).await;
    assert_eq!(place.states().await, "v1 live, v2 ready");
    for process in [first, second, third] {
        process.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_switch_whose_conductor_died_is_made_by_another() {
    let place = Place::make().await;
    place.submit(1).await;
    let old = process(&place, 1, NewVersion::Waits);
    place.reach("v1 live").await;
    let new = process(&place, 2, NewVersion::Waits);
    place.reach("v1 live, v2 ready").await;
    // As a process leaves it that dies between the comparison and the switch.
    let left = "UPDATE annals.generation SET purpose = 'switch' WHERE state = 'ready'";
    execute(&place.url, left).await;
    until("it is switched", async || {
        place.states().await.ends_with("v2 live")
    })
    .await;
    for process in [old, new] {
        process.stop().await.unwrap();
    }
}
