//! A commit that a projection cannot take up parks its stream; other streams go on, and an operator
//! has it taken up or discarded later.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use engine::command::Request;
use event_log::log::EventLog;
use projector::{Actor, Operator, ParkedWish, Projection, Projector};
use sqlx::{Connection as _, PgConnection};
use tests::harness::logs::{Kind, NewLog};
use tests::harness::postgres::Postgres;
use tests::harness::stack::{NOW, places, read_models};

use super::before_reads::before_reads;
use super::{Sample, database, execute, fill, rows_of, scalar, shop_history, until};

const ACTOR: Actor<'_> = Actor {
    name: "ann",
    reason: "a test",
};

/// The sample, which may fail at a stream; always of the same version.
fn sample(fails_at: Option<&'static str>) -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(Sample {
        name: "sample",
        version: 1,
        fails_at,
    })]
}

/// The same commands under other ids.
fn later(mut lines: Vec<Request>) -> Vec<Request> {
    for line in &mut lines {
        line.id = format!("later-{}", line.id.as_str()).parse().unwrap();
    }
    lines
}

async fn caught_up(log: &Arc<dyn EventLog>, url: &str, all: &[Arc<dyn Projection>]) {
    let reached = projector::catch_up(log, url, all, Box::new(|_| {}));
    reached.await.unwrap();
}

async fn parked(url: &str, all: &[Arc<dyn Projection>]) -> Vec<(String, i64, String)> {
    let mut operator = Operator::connect(url, all).await.unwrap();
    let parked = operator.parked(None, None, 100).await.unwrap();
    let of = |one: projector::ParkedStream| (one.stream, one.commits, one.reason);
    parked.into_iter().map(of).collect()
}

/// What the sample's rows would be if a stream had no commit.
async fn without(postgres: &Postgres, log: &NewLog, stream: &'static str) -> Vec<String> {
    let url = database(postgres).await;
    let all = sample(Some(stream));
    caught_up(&log.log, &url, &all).await;
    rows_of(&url, &["sample"]).await
}

#[tokio::test]
async fn a_poisoned_stream_waits_in_its_order_and_is_taken_up_once_the_cause_is_gone() {
    let log = NewLog::make(Kind::Sqlite, 4).await;
    fill(&log, shop_history(3, 40)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let poisoned = sample(Some("order-17"));
    let projector = Projector::spawn(&log.log, &url, &poisoned, 2).unwrap();
    caught_up(&log.log, &url, &poisoned).await;
    let found = parked(&url, &poisoned).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let (stream, first, reason) = &found[0];
    assert_eq!(stream, "order-17");
    assert!(reason.contains("panicked"), "{reason}");
    assert!(projector.stopped().is_empty());
    let counted = "SELECT coalesce(sum(parked), 0)::bigint FROM annals.generation";
    assert_eq!(scalar::<i64>(&url, counted).await, 1);
    // What comes later in the stream waits behind it.
    fill(&log, later(shop_history(4, 40))).await;
    caught_up(&log.log, &url, &poisoned).await;
    let waiting = parked(&url, &poisoned).await;
    assert!(waiting[0].1 > *first, "{waiting:?} {first}");
    // A retry without a change of the cause leaves everything as it is.
    let before = rows_of(&url, &["sample"]).await;
    let mut operator = Operator::connect(&url, &poisoned).await.unwrap();
    let retry = async |operator: &mut Operator| {
        let wish = operator.wish("sample", "main", "order-17", ParkedWish::Retry, ACTOR);
        assert!(wish.await.unwrap());
    };
    retry(&mut operator).await;
    until("it was tried", async || {
        let attempts = "SELECT attempts FROM annals.parked WHERE wish IS NULL";
        scalar::<i32>(&url, &format!("SELECT coalesce(({attempts}), 0)")).await == 2
    })
    .await;
    assert_eq!(parked(&url, &poisoned).await, waiting);
    assert_eq!(rows_of(&url, &["sample"]).await, before);
    projector.stop().await.unwrap();

    // The corrected program has the same tables.
    let healthy = sample(None);
    let projector = Projector::spawn(&log.log, &url, &healthy, 1).unwrap();
    retry(&mut operator).await;
    until("it is taken up", async || {
        parked(&url, &healthy).await.is_empty()
    })
    .await;
    projector.stop().await.unwrap();
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh, &healthy).await;
    let rows = rows_of(&url, &["sample"]).await;
    assert_eq!(rows, rows_of(&fresh, &["sample"]).await);
    assert_ne!(rows, before);
    let noted = "SELECT string_agg(actor || ' ' || action || ': ' || detail, E'\\n' ORDER BY id) \
                 FROM annals.control";
    let noted: String = scalar(&url, noted).await;
    assert!(
        noted.contains("ann retry: main/order-17: it stays parked"),
        "{noted}"
    );
    assert!(noted.ends_with("the stream is taken up again"), "{noted}");
    assert_eq!(scalar::<i64>(&url, counted).await, 0);
    let epoch = "SELECT epoch > 0 FROM annals.generation WHERE state = 'live'";
    assert!(scalar::<bool>(&url, epoch).await);
}

#[tokio::test]
async fn a_parked_record_that_changed_is_named_and_holds_up_nobody() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    fill(&log, shop_history(3, 30)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let poisoned = sample(Some("order-17"));
    let projector = Projector::spawn(&log.log, &url, &poisoned, 1).unwrap();
    caught_up(&log.log, &url, &poisoned).await;
    execute(
        &url,
        "UPDATE annals.parked_commit SET record_hash = sha256('other')",
    )
    .await;
    let mut operator = Operator::connect(&url, &poisoned).await.unwrap();
    let wish = operator.wish("sample", "main", "order-17", ParkedWish::Retry, ACTOR);
    assert!(wish.await.unwrap());
    until("it says so", async || {
        let parked = parked(&url, &poisoned).await;
        parked[0]
            .2
            .contains("another record stands where one was parked")
    })
    .await;
    fill(&log, later(shop_history(5, 30))).await;
    caught_up(&log.log, &url, &poisoned).await;
    until("the projector goes on", async || projector.ready().is_ok()).await;
    projector.stop().await.unwrap();
}

#[tokio::test]
async fn a_discarded_commit_is_left_out_by_every_rebuild() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    fill(&log, shop_history(3, 30)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let poisoned = sample(Some("order-17"));
    let expected = without(&postgres, &log, "order-17").await;
    let projector = Projector::spawn(&log.log, &url, &poisoned, 1).unwrap();
    caught_up(&log.log, &url, &poisoned).await;
    let mut operator = Operator::connect(&url, &poisoned).await.unwrap();
    let count = parked(&url, &poisoned).await[0].1;
    for left in (0..count).rev() {
        let wish = operator.wish("sample", "main", "order-17", ParkedWish::Discard, ACTOR);
        assert!(wish.await.unwrap());
        until("one commit less waits", async || {
            let parked = parked(&url, &poisoned).await;
            parked.first().map_or(0, |(_, commits, _)| *commits) == left
        })
        .await;
    }
    assert_eq!(rows_of(&url, &["sample"]).await, expected);
    // Even a program that could take it up leaves out what was discarded.
    let healthy = sample(None);
    let rebuilt = projector::rebuild(&log.log, &url, &healthy, "sample", NOW, Box::new(|_| {}));
    let comparison = rebuilt.await.unwrap().comparison.unwrap();
    assert!(comparison.equal, "{comparison:?}");
    assert_eq!(rows_of(&url, &["sample"]).await, expected);
    projector.stop().await.unwrap();
}

/// Makes Postgres refuse some rows of a live table.
async fn refuse(url: &str, table: &str, condition: &str) {
    let name = format!(
        "SELECT t FROM annals.generation, unnest(tables) AS t \
         WHERE state = 'live' AND t LIKE '{table}\\_v%'"
    );
    let name: String = scalar(url, &name).await;
    let add = format!(
        "ALTER TABLE projection.\"{name}\" ADD CONSTRAINT refuses CHECK ({condition}) NOT VALID"
    );
    execute(url, &add).await;
}

#[tokio::test]
async fn a_row_that_postgres_refuses_parks_its_own_stream_and_no_other() {
    let log = NewLog::make(Kind::Sqlite, 2).await;
    fill(&log, shop_history(3, 5)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let all = read_models();
    caught_up(&log.log, &url, &all).await;
    // One order's row is refused; the table of daily sums refuses every further row.
    refuse(&url, "order_summary", "order_id <> '17'").await;
    refuse(&url, "daily_sales", "false").await;
    fill(&log, later(shop_history(5, 40))).await;
    let projector = Projector::spawn(&log.log, &url, &all, 2).unwrap();
    until(
        "a stream is parked and one projection has stopped",
        async || {
            parked(&url, &all).await.len() == 1
                && projector
                    .stopped()
                    .iter()
                    .any(|stop| stop.projection == "daily_sales")
        },
    )
    .await;
    until("the others have caught up", async || {
        let places = places(&*log.log, &url, &all).await.unwrap();
        let mut others = places
            .iter()
            .filter(|place| place.projection != "daily_sales");
        others.all(|place| place.gap == Some(0))
    })
    .await;
    assert_eq!(parked(&url, &all).await[0].0, "order-17");
    let stops = projector.stopped();
    assert!(
        stops
            .iter()
            .all(|stop| stop.projection == "daily_sales" && stop.offset.is_some())
    );
    projector.stop().await.unwrap();
}

async fn retry(url: &str, all: &[Arc<dyn Projection>]) {
    let mut operator = Operator::connect(url, all).await.unwrap();
    let wish = operator.wish("sample", "main", "order-17", ParkedWish::Retry, ACTOR);
    assert!(wish.await.unwrap());
}

/// What operators did, a line for each act.
async fn noted(url: &str) -> String {
    let noted = "SELECT coalesce(string_agg(concat_ws(' ', actor, reason, detail), E'\\n' ORDER BY id), \
                 '') FROM annals.control WHERE action = 'retry'";
    scalar(url, noted).await
}

#[tokio::test]
async fn a_retry_reads_the_log_outside_a_transaction_and_takes_up_what_is_parked_then() {
    const LOCK: &str = "SELECT FROM annals.parked_commit FOR UPDATE NOWAIT";
    const AWAY: &str = "CREATE TABLE public.away AS SELECT * FROM annals.parked_commit \
        ORDER BY position DESC LIMIT 1; \
        DELETE FROM annals.parked_commit WHERE position IN (SELECT position FROM public.away)";
    const BACK: &str = "INSERT INTO annals.parked_commit SELECT * FROM public.away";
    let log = NewLog::make(Kind::Sqlite, 2).await;
    fill(&log, shop_history(3, 40)).await;
    fill(&log, later(shop_history(4, 40))).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url, &sample(Some("order-17"))).await;
    let (reads, problems) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (of_log, counted, met) = (url.clone(), Arc::clone(&reads), Arc::clone(&problems));
    let slow = before_reads(
        &log.log,
        Box::new(move || {
            let (url, met) = (of_log.clone(), Arc::clone(&met));
            let change = match counted.fetch_add(1, Ordering::SeqCst) {
                0 => AWAY,
                1 => BACK,
                _ => "SELECT",
            };
            Box::pin(async move {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                for sql in [LOCK, change] {
                    if let Err(error) = sqlx::raw_sql(sql).execute(&mut connection).await {
                        met.lock().unwrap().push(error.to_string());
                        return;
                    }
                }
            })
        }),
    );
    let healthy = sample(None);
    let projector = Projector::spawn(&slow, &url, &healthy, 1).unwrap();
    retry(&url, &healthy).await;
    until("it is taken up", async || {
        parked(&url, &healthy).await.is_empty()
    })
    .await;
    projector.stop().await.unwrap();
    assert_eq!(*problems.lock().unwrap(), Vec::<String>::new());
    assert_eq!(reads.load(Ordering::SeqCst), 3);
    let fresh = database(&postgres).await;
    caught_up(&log.log, &fresh, &healthy).await;
    let rows = rows_of(&url, &["sample"]).await;
    assert_eq!(rows, rows_of(&fresh, &["sample"]).await);
}

#[tokio::test]
async fn a_retry_that_takes_up_a_part_says_so_and_why_the_rest_stays_parked() {
    let log = NewLog::make(Kind::Sqlite, 1).await;
    fill(&log, shop_history(3, 40)).await;
    fill(&log, later(shop_history(4, 40))).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let poisoned = sample(Some("order-17"));
    caught_up(&log.log, &url, &poisoned).await;
    let before = parked(&url, &poisoned).await[0].1;
    // The row of this stream may count one event more, and not two.
    let tenth = "order-17".bytes().map(i64::from).sum::<i64>() % 10;
    let total =
        format!("SELECT coalesce(sum(total), 0)::bigint FROM read.sample WHERE tenth = {tenth}");
    let total: i64 = scalar(&url, &total).await;
    let is_allowed = format!("tenth <> {tenth} OR total <= {}", total + 1);
    refuse(&url, "sample", &is_allowed).await;
    let healthy = sample(None);
    let projector = Projector::spawn(&log.log, &url, &healthy, 1).unwrap();
    retry(&url, &healthy).await;
    until("it was tried", async || {
        noted(&url).await.contains("it stays parked: ")
    })
    .await;
    projector.stop().await.unwrap();
    let after = parked(&url, &healthy).await;
    let taken_up = usize::try_from(before - after[0].1).unwrap();
    assert!(taken_up > 0 && after[0].1 > 0, "{before} {after:?}");
    let noted = noted(&url).await;
    let lines: Vec<&str> = noted.lines().collect();
    let step = "ann a test main/order-17: 1 commit was taken up";
    assert_eq!(lines[..taken_up], vec![step; taken_up], "{noted}");
    let last = format!("ann a test main/order-17: it stays parked: {}", after[0].2);
    assert_eq!(lines[taken_up..], [last], "{noted}");
}
