//! `GET /v1/events`: the accepted feed. All commits that count, in each partition's order, from any
//! place on and on to what comes.
//!
//! Invariants: no orphan and nothing unproven is sent; each item that ends a commit has a cursor that
//! stands for everything before it in all partitions, and a feed that cannot continue from a cursor says
//! so, instead of leaving something out. The followers are bounded in number, the pieces of the log that
//! they hold too, and their connections to Postgres are their own, so that they hold up no query.
//! Deliberately absent: the acceptance rule (`event_log`).

mod asked;
mod follower;
mod items;
mod search;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use door::{Problem, Query};
use event_log::create::first_claim;
use event_log::log::{EventLog, LogError};
use futures::stream;
use position::{Bookmark, LogId, Partition};
use sqlx::PgPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use self::asked::{Asked, Form, Start};
use self::follower::{Ended, Follower, log_changed};
use self::items::Writer;
use self::tail::Tail;
use super::levels::Reached;
use super::{QueryDoor, RETRY_AFTER, code};

pub(super) use self::asked::FeedParameters;

/// The connections to Postgres of all followers together.
pub(super) const FEED_CONNECTIONS: u32 = 2;
/// How many followers read the log, and hold a piece of it, at the same time.
const TURNS_MAX: usize = 2;
/// How many followers a node serves if nothing else is set.
pub const FOLLOWERS_MAX_DEFAULT: u32 = 256;
/// When to try again if a node serves as many followers as it may.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a request waits for the index to reach the position at which the feed is to begin.
const POSITION_WAIT: Duration = Duration::from_secs(2);

/// Ends all feeds of a process when it is closed; cheap to clone.
#[derive(Clone, Debug)]
pub struct FeedControl {
    followers: Arc<Semaphore>,
    followers_max: u32,
    closing: watch::Sender<bool>,
}

impl FeedControl {
    /// For at most this many followers at a time.
    #[must_use]
    pub fn new(followers_max: u32) -> Self {
        Self {
            followers: Arc::new(Semaphore::new(followers_max as usize)),
            followers_max,
            closing: watch::Sender::new(false),
        }
    }

    /// Ends all feeds: their clients go on at another node, or when this one is back.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

impl Default for FeedControl {
    fn default() -> Self {
        Self::new(FOLLOWERS_MAX_DEFAULT)
    }
}

/// What all feeds of a process share.
pub(super) struct Feeds {
    pub(super) pool: PgPool,
    tail: Tail,
    turns: Arc<Semaphore>,
    pub(super) control: FeedControl,
    /// How many commits the followers at the end are behind it.
    behind: Arc<Behind>,
}

/// How far followers are behind the end of the log, as they last said.
#[derive(Default)]
struct Behind {
    max: AtomicU64,
}

/// Tells the metrics what one follower does.
pub(super) struct Gauge {
    behind: Arc<Behind>,
}

impl Gauge {
    fn sent(&self, count: u64) {
        metrics::counter!("annals_feed_items_total").increment(count);
    }

    fn behind(&self, count: u64) {
        self.behind.max.fetch_max(count, Ordering::Relaxed);
    }
}

impl Feeds {
    pub(super) fn new(log: &Arc<dyn EventLog>, pool: PgPool, control: FeedControl) -> Self {
        metrics::counter!("annals_feed_items_total").increment(0);
        Self {
            pool,
            tail: Tail::new(log),
            turns: Arc::new(Semaphore::new(TURNS_MAX)),
            control,
            behind: Arc::default(),
        }
    }

    /// Updates the gauges.
    pub(super) fn measure(&self) {
        let (max, free) = (
            self.control.followers_max as usize,
            self.control.followers.available_permits(),
        );
        metrics::gauge!("annals_feed_followers").set(max.saturating_sub(free) as f64);
        metrics::gauge!("annals_feed_followers_max").set(max as f64);
        let behind = self.behind.max.swap(0, Ordering::Relaxed);
        metrics::gauge!("annals_feed_behind_commits").set(behind as f64);
    }

    /// Changes when the process is to end.
    fn closing(&self) -> watch::Receiver<bool> {
        self.control.closing.subscribe()
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let followers = Arc::clone(&self.control.followers);
        followers.try_acquire_owned().map_err(|_| {
            let max = self.control.followers_max;
            let detail = format!("this node serves {max} feeds already; ask another node");
            Problem::new(code::FEEDS_EXHAUSTED, detail).retry_after(FULL_RETRY_AFTER)
        })
    }
}

/// `GET /v1/events`
pub(super) async fn events(
    State(door): State<QueryDoor>,
    Query(parameters): Query<FeedParameters>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = parameters.asked(&headers)?;
    let form = asked.form;
    let place = door.inner.feeds.place()?;
    if *door.inner.feeds.closing().borrow() {
        let detail = "the node is about to end; ask another one";
        return Err(Problem::new(code::FEEDS_EXHAUSTED, detail).retry_after(RETRY_AFTER));
    }
    let (pieces, body) = mpsc::channel(1);
    let mut follower = follower(&door, asked, pieces).await?;
    match follower.begin().await {
        Ok(()) => {}
        Err(Ended::Problem(problem)) => return Err(problem),
        Err(Ended::Client | Ended::Closing) => {
            return Err(Problem::internal("a feed ended before it began"));
        }
    }
    tokio::spawn(follower.run());
    let content_type = match form {
        Form::Events => "text/event-stream",
        Form::Lines => "application/x-ndjson",
    };
    let own = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::VARY, "annals-tenant, accept, last-event-id"),
    ];
    Ok((own, Body::from_stream(held(body, place))).into_response())
}

/// The pieces of a body, with the follower's place until the client has them all.
fn held(
    pieces: mpsc::Receiver<Result<Bytes, std::io::Error>>,
    place: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    stream::unfold((pieces, place), |(mut pieces, place)| async move {
        let piece = pieces.recv().await?;
        Some((piece, (pieces, place)))
    })
}

fn unavailable(error: &LogError) -> Problem {
    if error.is_final() || matches!(error, LogError::BeginningGone { .. }) {
        return log_changed("the log is not the one that was written, or has lost its beginning");
    }
    tracing::warn!(%error, "the log does not answer a feed");
    Problem::new(code::LOG_UNAVAILABLE, "the log does not answer").retry_after(RETRY_AFTER)
}

/// A follower that has not looked for its beginning yet.
async fn follower(
    door: &QueryDoor,
    asked: Asked,
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> Result<Follower, Problem> {
    let log = &door.inner.log;
    let claim = first_claim(&**log, Partition(0)).await;
    let claim = claim.map_err(|error| unavailable(&error))?;
    let id = claim.map_or_else(LogId::default, |claim| claim.log);
    let mut ends = BTreeMap::new();
    for partition in (0..log.partition_count()).map(Partition) {
        let bounds = log.bounds(partition).await;
        ends.insert(partition, bounds.map_err(|error| unavailable(&error))?);
    }
    let bookmark = Bookmark {
        log: id,
        marks: BTreeMap::new(),
    };
    Ok(Follower {
        door: door.clone(),
        writer: Writer::new(asked.form),
        asked,
        bookmark,
        shown_from: BTreeMap::new(),
        shown_since: None,
        ends,
        pieces,
        said_at: Instant::now(),
        searches: false,
        has_begun: false,
        gauge: Gauge {
            behind: Arc::clone(&door.inner.feeds.behind),
        },
    })
}

impl Follower {
    /// Finds where the feed begins. What is wrong with the request is told before anything is sent.
    async fn begin(&mut self) -> Result<(), Ended> {
        match self.asked.start.clone() {
            Start::Beginning => {}
            Start::Bookmark(bookmark) => {
                // Without a mark it holds nothing of any log.
                if bookmark.log != self.bookmark.log && !bookmark.marks.is_empty() {
                    return Err(log_changed("the cursor is of another log").into());
                }
                self.bookmark.marks = bookmark.marks;
                self.prove().await?;
            }
            Start::Position(token) => {
                let deadline = door::Deadline::after(POSITION_WAIT);
                let levels = &self.inner().levels;
                let reached = levels
                    .reach(projector::COMMIT_INDEX, &token, deadline)
                    .await?;
                if let Reached::Behind(behind) = reached {
                    let behind = self.inner().behind(projector::COMMIT_INDEX, &behind);
                    return Err(behind.into());
                }
                self.begin_behind(&token.positions).await?;
            }
            Start::Time(time) => {
                self.shown_since = Some(time);
                self.begin_at(time).await?;
            }
            Start::Now => {
                let ends = self.ends.iter();
                self.shown_from = ends
                    .map(|(&partition, ends)| (partition, ends.end))
                    .collect();
                self.begin_at_end_of_index().await?;
            }
        }
        self.searches = self.needs_index().await?;
        Ok(())
    }
}
