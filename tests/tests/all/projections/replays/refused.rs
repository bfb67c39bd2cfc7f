//! Commits that cannot be taken up: a replay, and what-if, leave out what a live projection parks, and
//! say so.

use std::time::Duration;

use event_log::subscription::Subscription;
use projector::{Actor, Operator, ParkedWish, Projector, Supposed};

use super::*;

/// Makes Postgres refuse rows of a table in a replay's schema.
async fn refuse(url: &str, schema: &str, table: &str, condition: &str) {
    let name = format!(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = '{schema}' \
         AND tablename LIKE '{table}\\_v%'"
    );
    let name: String = scalar(url, &name).await;
    let add = format!(
        "ALTER TABLE {schema}.\"{name}\" ADD CONSTRAINT refuses CHECK ({condition}) NOT VALID"
    );
    execute(url, &add).await;
}

/// Two orders that were approved: the first is refused from its beginning on, the second from its
/// approval on.
struct Refused([String; 2]);

impl Refused {
    async fn of(shop: &Shop) -> Self {
        let approved = "SELECT array_agg(order_id ORDER BY approved_at) FROM read.order_summary \
                        WHERE approved_at IS NOT NULL";
        let approved: Vec<String> = scalar(&shop.url, approved).await;
        Self([approved[3].clone(), approved[7].clone()])
    }

    fn condition(&self) -> String {
        let [first, second] = &self.0;
        format!("order_id <> '{first}' AND (order_id <> '{second}' OR approved_at IS NULL)")
    }

    fn streams(&self) -> Vec<String> {
        let mut streams = self.0.each_ref().map(|id| format!("order-{id}"));
        streams.sort();
        streams.into()
    }

    /// The rows are those of the live read model, but for those orders.
    async fn assert_others_are_whole(&self, shop: &Shop, schema: &str) {
        let [first, second] = &self.0;
        let rows = |schema: &str| {
            format!(
                "SELECT string_agg(r::text, ' ' ORDER BY r::text) FROM {schema}.order_summary AS r \
                 WHERE order_id NOT IN ('{first}', '{second}')"
            )
        };
        let live: String = scalar(&shop.url, &rows("read")).await;
        assert_eq!(scalar::<String>(&shop.url, &rows(schema)).await, live);
        let others = format!(
            "SELECT coalesce(string_agg(order_id || ' ' || status, ','), '') \
             FROM {schema}.order_summary WHERE order_id IN ('{first}', '{second}')"
        );
        let others = scalar::<String>(&shop.url, &others).await;
        assert_eq!(others, format!("{second} placed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgres_refuses_is_left_out_of_a_replay_and_no_other_stream_is() {
    let large = Shop::open(11, 2_500).await;
    let commits: i64 = scalar(&large.url, "SELECT count(*) FROM read.stream_commits").await;
    assert!(commits > 10_000, "{commits} commits are one transaction");
    let small = Shop::open(12, 60).await;
    let never = || Until::Condition("order_summary.status = nothing".parse().unwrap());
    for (shop, until, gait) in [
        (&large, Until::End, Gait::On),
        (&small, never(), Gait::On),
        (&small, Until::End, Gait::Commit),
        (&small, Until::End, Gait::Event),
    ] {
        let mut replay = shop
            .begin(new("order_summary", "apart", until))
            .await
            .unwrap();
        let refused = Refused::of(shop).await;
        refuse(&shop.url, "apart", "order_summary", &refused.condition()).await;
        let mut steps = 0;
        let why = loop {
            let pause = go(&mut replay, gait).await;
            if pause.why.is_end() {
                break pause.why;
            }
            steps += 1;
        };
        assert_eq!(why, PauseReason::End);
        assert_eq!(steps > 0, gait != Gait::On);
        let mut aside: Vec<String> = replay.set_aside().map(|(stream, _)| stream).collect();
        aside.sort();
        assert_eq!(aside, refused.streams());
        replay.finish(ApartState::Finished).await.unwrap();
        refused.assert_others_are_whole(shop, "apart").await;
        let says: String = scalar(&shop.url, "SELECT says FROM apart.annals_made").await;
        let counted: i64 = scalar(&shop.url, "SELECT commits FROM apart.annals_made").await;
        assert!(says.starts_with(&format!("{counted} commits")), "{says}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_of_many_streams_stops_the_replay_at_the_commit_and_names_it() {
    let shop = Shop::open(13, 300).await;
    let most = "SELECT max(orders) FROM read.daily_sales";
    let most: i64 = scalar(&shop.url, most).await;
    assert!(most > 1);
    for (gait, until) in [
        (Gait::On, Until::End),
        (Gait::Commit, Until::End),
        (
            Gait::On,
            Until::Condition("daily_sales.orders > 1000".parse().unwrap()),
        ),
    ] {
        let mut replay = shop
            .begin(new("daily_sales", "apart", until))
            .await
            .unwrap();
        let fewer = format!("coalesce(orders, 0) < {most}");
        refuse(&shop.url, "apart", "daily_sales", &fewer).await;
        let stopped = loop {
            let pause = go(&mut replay, gait).await;
            match pause.why {
                PauseReason::Stopped(stopped) => break stopped,
                why => assert!(!why.is_end(), "{why:?}"),
            }
        };
        let place = (stopped.partition, stopped.offset);
        assert!(place.0.is_some() && place.1.is_some(), "{stopped:?}");
        replay.finish(ApartState::Stopped).await.unwrap();
        let there = "SELECT max(orders) FROM apart.daily_sales";
        let there: i64 = scalar(&shop.url, there).await;
        assert_eq!(there, most - 1, "everything before the commit is there");
        assert_eq!(shop.state("apart").await, "stopped");
    }
}

/// Folds all commits as they are, twice.
async fn supposed(shop: &Shop, name: &str) -> [usize; 2] {
    let projection = shop.models.iter().find(|one| one.name() == name).unwrap();
    let new = ("supposed", Existing::Replaced);
    let made = Supposed::make(&*shop.log.log, &shop.url, projection, new);
    let mut supposed = made.await.unwrap();
    let partitions = (0..shop.log.log.partition_count()).map(|number| (Partition(number), None));
    let mut commits = Subscription::new(Arc::clone(&shop.log.log), partitions.collect());
    loop {
        let batches = commits.next(Duration::from_millis(500)).await.unwrap();
        if batches.is_empty() {
            break;
        }
        for placed in batches.iter().flat_map(|batch| &batch.commits) {
            supposed.take(placed, placed).await.unwrap();
        }
    }
    let (compared, set_aside) = supposed.finish(ApartState::Finished).await.unwrap();
    assert!(compared.equal);
    set_aside
}

#[tokio::test(flavor = "multi_thread")]
async fn what_if_leaves_out_what_live_parks_and_what_an_operator_discarded() {
    let log = log_of(Kind::Sqlite, shop_history(7, 120)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    let models = vec![halfway()];
    let done = projector::catch_up(&log.log, &url, &models, Box::new(|_| {}));
    done.await.unwrap();
    let shop = Shop {
        log,
        url,
        models,
        postgres,
    };
    let parked = "SELECT count(DISTINCT stream) FROM annals.parked";
    let streams = usize::try_from(scalar::<i64>(&shop.url, parked).await).unwrap();
    assert_eq!(supposed(&shop, "halfway").await, [streams; 2]);
    assert_eq!(
        shop.rows("halfway", "supposed").await,
        shop.rows("halfway", "read").await
    );
    // The commit that cannot be taken up is discarded, and what comes behind it is taken up.
    let mut operator = Operator::connect(&shop.url, &shop.models).await.unwrap();
    let parked = operator.parked(None, None, 100).await.unwrap();
    let longest = parked
        .into_iter()
        .max_by_key(|parked| parked.commits)
        .unwrap();
    assert!(longest.commits > 1);
    let stream = longest.stream;
    let actor = Actor {
        name: "ann",
        reason: "a test",
    };
    let projector = Projector::spawn(&shop.log.log, &shop.url, &shop.models, 2).unwrap();
    for (wish, left) in [
        (ParkedWish::Discard, longest.commits - 1),
        (ParkedWish::Retry, 0),
    ] {
        let wish = operator.wish("halfway", "main", &stream, wish, actor);
        assert!(wish.await.unwrap());
        until("it is discarded, and the rest taken up", async || {
            let mut operator = Operator::connect(&shop.url, &shop.models).await.unwrap();
            let parked = operator.parked(None, None, 100).await.unwrap();
            let mut parked = parked.into_iter();
            let commits = parked.find(|parked| parked.stream == stream);
            commits.map_or(0, |parked| parked.commits) == left
        })
        .await;
    }
    projector.stop().await.unwrap();
    assert_eq!(supposed(&shop, "halfway").await, [streams - 1; 2]);
    assert_eq!(
        shop.rows("halfway", "supposed").await,
        shop.rows("halfway", "read").await
    );
}
