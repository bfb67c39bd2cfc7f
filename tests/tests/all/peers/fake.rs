//! The fake behind the routes: it records the requests, and answers as it is configured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::Walk;
use engine::command::{Answer, Became, Decision, Request, SubmitError};
use engine::owner::Inquiry;
use engine::peers::{AcceptedLink, LinkAnswer, PeerService, Topology};
use event_log::directory::{Hint, NodeEntry};
use futures::FutureExt;
use futures::future::BoxFuture;
use position::{LogId, Partition, Position, PositionToken, Term};
use tokio::sync::Semaphore;

use super::log;

pub(super) const PARTITIONS: u32 = 8;

/// The requests so far, in order.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) attempted: Mutex<Vec<Request>>,
    pub(super) moves: Mutex<Vec<String>>,
    pub(super) links: AtomicUsize,
}

pub(super) struct Fake {
    pub(super) noted: Arc<Noted>,
    /// After this many commands of a link, the partition has moved.
    pub(super) moves_after: usize,
    /// Free places in the queue; each command takes one and gives none back.
    pub(super) room: Arc<Semaphore>,
    /// How long each question takes.
    pub(super) pause: Duration,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            noted: Arc::default(),
            moves_after: usize::MAX,
            room: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            pause: Duration::ZERO,
        }
    }
}

pub(super) fn elsewhere() -> Hint {
    Hint {
        log: log(1),
        term: Term(9),
        node: "three".to_owned(),
        address: "http://127.0.0.1:3".to_owned(),
    }
}

struct Link {
    noted: Arc<Noted>,
    room: Arc<Semaphore>,
    left: usize,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.noted.links.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl AcceptedLink for Link {
    async fn submit(
        &mut self,
        request: Request,
        _: Instant,
        _: Option<Arc<Walk>>,
    ) -> BoxFuture<'static, LinkAnswer> {
        self.room.acquire().await.unwrap().forget();
        if self.left == 0 {
            return std::future::ready(LinkAnswer::Moved(Some(elsewhere()))).boxed();
        }
        self.left -= 1;
        let answer = Answer {
            tenant: request.tenant.clone(),
            stream: request.stream.clone(),
            command_id: request.id.clone(),
            version: 1,
            position: PositionToken::at(log(1), Partition(3), Position(1)),
            decision: Decision::Accepted(Vec::new()),
            repeated: false,
        };
        self.noted.attempted.lock().unwrap().push(request);
        std::future::ready(LinkAnswer::Answered(Ok(answer))).boxed()
    }
}

#[async_trait]
impl PeerService for Fake {
    fn log_id(&self) -> LogId {
        log(1)
    }

    fn accept(&self, partition: Partition) -> Option<Box<dyn AcceptedLink>> {
        if partition.0 >= PARTITIONS {
            return None;
        }
        self.noted.links.fetch_add(1, Ordering::SeqCst);
        Some(Box::new(Link {
            noted: Arc::clone(&self.noted),
            room: Arc::clone(&self.room),
            left: self.moves_after,
        }))
    }

    async fn hand_over(&self, partition: Partition, successor: Hint) -> bool {
        let asked = format!("{partition} to {} at {}", successor.node, successor.address);
        self.noted.moves.lock().unwrap().push(asked);
        tokio::time::sleep(self.pause).await;
        partition == Partition(3)
    }

    async fn take_over(&self, partition: Partition, deadline: Instant) -> Result<(), String> {
        let wait = deadline.saturating_duration_since(Instant::now());
        assert!(wait > Duration::from_secs(1), "{wait:?}");
        match partition {
            Partition(3) => Ok(()),
            _ => Err("the log is far away".to_owned()),
        }
    }

    async fn outcome(
        &self,
        _: Partition,
        inquiry: Inquiry,
        _: Instant,
    ) -> Result<Became, SubmitError> {
        let attempted = self.noted.attempted.lock().unwrap();
        let known = attempted.iter().find(|request| request.id == inquiry.id);
        match known {
            Some(request) => Ok(Became::Answered(Answer {
                tenant: request.tenant.clone(),
                stream: request.stream.clone(),
                command_id: request.id.clone(),
                version: 1,
                position: PositionToken::at(log(1), Partition(3), Position(1)),
                decision: Decision::Accepted(Vec::new()),
                repeated: false,
            })),
            None if inquiry.id.as_str() == "open" => Err(SubmitError::Unknown),
            None => Ok(Became::NotInLog {
                up_to: PositionToken::at(log(1), Partition(3), Position(7)),
            }),
        }
    }

    fn topology(&self) -> Topology {
        let entry = NodeEntry {
            decides: true,
            node: "two".to_owned(),
            address: "http://127.0.0.1:2".to_owned(),
            reads_record_version: 1,
            program: "0.1.0".to_owned(),
            acknowledged: None,
            seen_at: "2018-06-04T16:44:48Z".parse().unwrap(),
        };
        Topology {
            log: log(1),
            node: "two".to_owned(),
            partition_count: PARTITIONS,
            owners: BTreeMap::from([(Partition(3), elsewhere())]),
            nodes: BTreeMap::from([("two".to_owned(), entry)]),
        }
    }
}
