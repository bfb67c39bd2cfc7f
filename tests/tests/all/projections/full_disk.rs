//! The disk of Postgres is full: nothing is parked and nothing stops for good, commands go on, the
//! reason is said, and when there is room again the rows are exact without an operator.
//!
//! The server writes everything to a disk of its own, which is filled to the last byte. Where no disk
//! can be mounted (only root may), the tables themselves say what Postgres says on a full disk.

use projector::{Actor, Operator, Projector};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, read_models};

use super::troubles::{Scene, feed};
use super::{execute, level, scalar, until};

/// Enough for a new cluster and what the tests write.
const DISK_MB: u32 = 192;
const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};
/// What Postgres says.
const FULL: &str = "No space left on device";

fn postgres() -> Postgres {
    Postgres::start_on_small_disk(DISK_MB).unwrap_or_else(|error| {
        println!("no small disk ({error}): the tables say that the disk is full");
        Postgres::start()
    })
}

/// No table of a read model takes a row.
const REFUSE: &str = "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ \
    BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' \
    USING ERRCODE = 'disk_full'; END $$; \
    DO $$ DECLARE t text; BEGIN FOR t IN SELECT unnest(tables) FROM annals.generation LOOP \
    EXECUTE format('CREATE TRIGGER full_disk BEFORE INSERT ON projection.%I \
    EXECUTE FUNCTION public.full_disk()', t); END LOOP; END $$";

async fn fill(scene: &Scene) {
    match scene.postgres.disk() {
        Some(disk) => disk.fill().unwrap(),
        None => execute(&scene.url, REFUSE).await,
    }
}

async fn clear(scene: &Scene) {
    match scene.postgres.disk() {
        Some(disk) => disk.clear(),
        None => execute(&scene.url, "DROP FUNCTION public.full_disk CASCADE").await,
    }
}

/// Commands are given until a table needs more room.
async fn feed_until_full(scene: &Scene) {
    for seed in 100..200 {
        feed(&scene.engine, seed).await;
        if says(&scene.projector, FULL) {
            return;
        }
    }
    until("the projector says that the disk is full", async || {
        says(&scene.projector, FULL)
    })
    .await;
}

fn says(projector: &Projector, what: &str) -> bool {
    projector.ready().is_err_and(|said| said.contains(what))
}

async fn nothing_is_parked_or_stopped(scene: &Scene) {
    let parked = "SELECT count(*) FROM annals.parked";
    assert_eq!(scalar::<i64>(&scene.url, parked).await, 0);
    let stopped = "SELECT count(*) FROM annals.stop";
    assert_eq!(scalar::<i64>(&scene.url, stopped).await, 0);
    assert_eq!(scene.projector.stopped(), Vec::new());
}

#[tokio::test]
async fn a_full_disk_parks_nothing_and_the_rows_are_exact_when_there_is_room_again() {
    let scene = Scene::on(postgres()).await;
    fill(&scene).await;
    feed_until_full(&scene).await;
    // Commands go on, and the projector tries again.
    feed(&scene.engine, 2).await;
    assert!(!level(&scene.log, &scene.url, &read_models()).await);
    nothing_is_parked_or_stopped(&scene).await;
    until("every process sees the reason", async || {
        let (log, all) = (&*scene.log.log, read_models());
        let reports = projector::report(Some(log), &scene.url, &all)
            .await
            .unwrap();
        let errors = reports.iter().filter_map(|report| report.error.as_ref());
        let mut errors = errors.filter(|error| error.partition.is_some());
        errors.any(|error| error.reason.contains(FULL))
    })
    .await;
    clear(&scene).await;
    scene.ends_well().await;
}

#[tokio::test]
async fn a_rebuild_that_meets_a_full_disk_goes_on_when_there_is_room_again() {
    let scene = Scene::on(postgres()).await;
    let all = read_models();
    let mut operator = Operator::connect(&scene.url, &all).await.unwrap();
    operator.pause("stream_index", ACTOR).await.unwrap();
    let asked = operator.rebuild("stream_index", NOW, ACTOR).await;
    assert_eq!(asked.unwrap(), 2);
    fill(&scene).await;
    operator.resume("stream_index", ACTOR).await.unwrap();
    feed_until_full(&scene).await;
    nothing_is_parked_or_stopped(&scene).await;
    let state = "SELECT state FROM annals.generation \
                 WHERE projection = 'stream_index' AND generation = 2";
    assert_eq!(scalar::<String>(&scene.url, state).await, "building");
    clear(&scene).await;
    until("the rebuilt rows are shown", async || {
        scalar::<String>(&scene.url, state).await == "live"
    })
    .await;
    scene.ends_well().await;
}
