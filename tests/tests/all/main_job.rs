//! The main job: orders in, events in the log, read models in Postgres. The read models must equal
//! independent SQL over the raw files, row by row; also after a second import and after a rebuild.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ::olist::load::{Contents, load};
use ::olist::plan::Plan;
use import::Listing;
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, Stack, read_models};
use tests::olist::{self, Dirt, oracle};

use crate::{explaining, exporting};

/// The kinds of logs whose exports are read, with the projector's tasks: each kind once is enough, because
/// an export does not see the tasks.
const EXPORTED: [(Kind, usize); 2] = [(Kind::Kafka, 4), (Kind::Sqlite, 1)];

/// The lines of an import of a folder.
pub(crate) fn lines(folder: &Path) -> Vec<String> {
    let contents = Contents::of_folder(folder).unwrap();
    let plan = Plan::new(load(&contents, Listing::default()).unwrap(), None);
    plan.lines().map(|line| line.json).collect()
}

/// The folder with real orders; `None` if this machine has none.
pub(crate) fn real_orders() -> Option<PathBuf> {
    std::env::var_os("ANNALS_OLIST_DIR").map(PathBuf::from)
}

async fn assert_equal(stack: &Stack, when: &str) {
    stack.caught_up().await;
    let differences = oracle::compare(&stack.pool).await.unwrap();
    let shown: Vec<_> = differences.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{when}: {}", shown.join("\n"));
}

async fn import_equals_sql(kind: Kind, projector_tasks: usize, folder: &Path) {
    let postgres = Postgres::start();
    let database = postgres.create_database().await;
    let stack = Stack::start(kind, database, projector_tasks).await;
    oracle::load(&stack.pool, folder).await.unwrap();
    let lines = lines(folder);
    let began = Instant::now();
    let first = stack.send(lines.clone()).await;
    let answered = began.elapsed();
    stack.caught_up().await;
    let caught_up = began.elapsed();
    println!(
        "{kind:?}, {projector_tasks} tasks: {} commands answered in {answered:?} ({:.0}/s), read \
         models caught up after {caught_up:?}; {first:?}",
        lines.len(),
        lines.len() as f64 / answered.as_secs_f64(),
    );
    assert_equal(&stack, "after the import").await;
    assert_eq!(
        stack.send(lines).await,
        first,
        "a second import has the same answers"
    );
    assert_equal(&stack, "after a second import").await;
    if kind == Kind::Sqlite {
        explaining::rows_add_up(&stack.log, &stack.postgres_url, &stack.pool).await;
    }
    if EXPORTED.contains(&(kind, projector_tasks)) {
        exporting::amounts::equal_sql(&stack.log, &stack.postgres_url, &stack.pool).await;
        exporting::ocel::counts_equal_sql(&stack.log, &stack.pool).await;
    }
    let models = read_models();
    for model in &models {
        let quiet = Box::new(|_| {});
        let url = &stack.postgres_url;
        let name = model.name();
        projector::rebuild(&stack.log.log, url, &models, name, NOW, quiet)
            .await
            .unwrap();
    }
    assert_equal(&stack, "after a rebuild").await;
    let log = stack.stop().await;
    let report = event_log::verify::verify(&*log.log, &crate::write_side::shop(), &[], |_, _| {})
        .await
        .unwrap();
    assert!(report.is_clean(), "{report:?}");
}

fn generated() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    olist::data_set(7, 300, Dirt::Unreadable)
        .write_to(folder.path())
        .unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_orders_on_kafka_equal_independent_sql() {
    import_equals_sql(Kind::Kafka, 4, generated().path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_orders_on_sqlite_equal_independent_sql() {
    import_equals_sql(Kind::Sqlite, 1, generated().path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_orders_equal_independent_sql_on_both_logs_with_one_task_and_with_four() {
    let Some(folder) = real_orders() else {
        return println!("ANNALS_OLIST_DIR is not set: only generated orders are imported");
    };
    for (kind, projector_tasks) in [
        (Kind::Kafka, 1),
        (Kind::Kafka, 4),
        (Kind::Sqlite, 1),
        (Kind::Sqlite, 4),
    ] {
        import_equals_sql(kind, projector_tasks, &folder).await;
    }
}
