//! What this node does for its peers: decides forwarded commands, hands partitions over, takes
//! partitions over, and says who owns which partition.
//!
//! Invariant: a forwarded command is decided here or answered *moved*; it is never forwarded again.
//! Deliberately absent: HTTP, and who may ask (`command-api`).

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use event_log::directory::Hint;
use futures::FutureExt;
use futures::future::BoxFuture;
use kernel::TenantId;
use position::{LogId, Partition};
use tokio::sync::{mpsc, oneshot};

use super::{Engine, Inner, Prepared, Sender, Share, sides};
use crate::command::{Became, Request, SubmitError, TurnedAway, turned_away};
use crate::owner::Inquiry;
use crate::peers::{AcceptedLink, LinkAnswer, PeerService, Topology};
use crate::seat::{Control, Guard, NodeControl};
use crate::walk::Walk;

/// A link from another node for one partition.
struct Link {
    engine: Engine,
    partition: Partition,
    guard: Arc<Guard>,
    sender: Sender,
    share: Share,
}

impl Link {
    /// Queues a command; waits for room.
    async fn queue(
        &self,
        command: Prepared,
        deadline: Instant,
    ) -> Result<BoxFuture<'static, LinkAnswer>, SubmitError> {
        let inner: &Inner = &self.engine.inner;
        let size = command.submission.size();
        let desk = inner.desk(self.partition);
        // One tenant stands for all tenants: a link keeps the order of all its commands.
        let tenant = TenantId::default();
        let queued = async {
            let part = inner.room.take(&self.share, size).await;
            let (sent, waiting) = sides(Some(Arc::clone(&self.guard)), deadline, None, Some(part));
            let sent = sent.traced(command.walk);
            let command = (Box::new((command.submission, sent)), waiting);
            desk.queues
                .from_peers
                .push((self.sender, &tenant), command)
                .await
        };
        match tokio::time::timeout_at(deadline.into(), queued).await {
            Ok(Ok(waiting)) => {
                desk.work();
                let unknown = |error| LinkAnswer::Answered(Err(error));
                let answer = waiting.answer();
                Ok(answer.map(move |said| said.unwrap_or_else(unknown)).boxed())
            }
            Ok(Err(why)) => Err(turned_away(why.into())),
            Err(_) => Err(turned_away(TurnedAway::Overloaded)),
        }
    }

    /// Answers a command that never reached the partition's task. No later command on this link is
    /// attempted.
    fn not_attempted(&self, error: SubmitError) -> BoxFuture<'static, LinkAnswer> {
        self.guard.close();
        let answer = match error {
            // Another node owns the partition or soon will, so the sender tries again there.
            SubmitError::TurnedAway {
                reason: TurnedAway::Stopping,
                ..
            } => LinkAnswer::Moved(None),
            error => LinkAnswer::Answered(Err(error)),
        };
        std::future::ready(answer).boxed()
    }
}

#[async_trait]
impl AcceptedLink for Link {
    async fn submit(
        &mut self,
        request: Request,
        deadline: Instant,
        walk: Option<Arc<Walk>>,
    ) -> BoxFuture<'static, LinkAnswer> {
        // The other node read the request with the rules of its own version. If this node's rules
        // do not know the command, another node may still decide it.
        let prepared = match self.engine.prepare(request) {
            Ok(prepared) if prepared.partition == self.partition => prepared.traced(walk),
            Ok(_) | Err(_) => return self.not_attempted(turned_away(TurnedAway::NotReady)),
        };
        match self.queue(prepared, deadline).await {
            Ok(answer) => answer,
            Err(error) => self.not_attempted(error),
        }
    }
}

impl Engine {
    fn control(&self, partition: Partition) -> Option<&mpsc::Sender<NodeControl>> {
        let desk = self.inner.partitions.get(partition.0 as usize)?;
        Some(&desk.control)
    }
}

#[async_trait]
impl PeerService for Engine {
    fn log_id(&self) -> LogId {
        self.inner.log_id
    }

    fn accept(&self, partition: Partition) -> Option<Box<dyn AcceptedLink>> {
        self.control(partition)?;
        Some(Box::new(Link {
            engine: self.clone(),
            partition,
            guard: Arc::default(),
            sender: self.inner.sender(),
            share: Share::default(),
        }))
    }

    async fn hand_over(&self, partition: Partition, successor: Hint) -> bool {
        let Some(control) = self.control(partition) else {
            return false;
        };
        let (reply, owned) = oneshot::channel();
        let asked = control.send(Control::HandOver { successor, reply }).await;
        asked.is_ok() && owned.await.unwrap_or(false)
    }

    async fn take_over(&self, partition: Partition, deadline: Instant) -> Result<(), String> {
        let unknown = || format!("there is no partition {partition}");
        let control = self.control(partition).ok_or_else(unknown)?;
        if *self.inner.stopping.borrow() {
            return Err("this node is stopping".to_owned());
        }
        let (reply, owns) = oneshot::channel();
        let stopped = || format!("partition {partition} is not served here any more");
        control
            .send(Control::TakeOver { reply })
            .await
            .map_err(|_| stopped())?;
        match tokio::time::timeout_at(deadline.into(), owns).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped()),
            Err(_) => {
                let status = self.inner.desk(partition).status.borrow();
                Err(match &status.not_owning {
                    Some(reason) => reason.to_string(),
                    None => "it was taken over just now".to_owned(),
                })
            }
        }
    }

    async fn outcome(
        &self,
        partition: Partition,
        inquiry: Inquiry,
        deadline: Instant,
    ) -> Result<Became, SubmitError> {
        let not_ready = || turned_away(TurnedAway::NotReady);
        self.control(partition).ok_or_else(not_ready)?;
        let inquired = self.inquire(partition, inquiry, deadline).await?;
        // One hop only, for questions too.
        self.became(partition, inquired)
            .unwrap_or_else(|_| Err(not_ready()))
    }

    fn topology(&self) -> Topology {
        let known = self.inner.cluster.known.borrow().clone();
        let owners = (0..).map(Partition).zip(&self.inner.partitions);
        let owners = owners.filter_map(|(partition, desk)| {
            let status = desk.status.borrow().clone();
            let owner = match status.term {
                Some(term) => self.inner.cluster.identity.hint(term),
                None => status.elsewhere,
            };
            Some((partition, owner?))
        });
        Topology {
            log: self.inner.log_id,
            node: self.inner.cluster.identity.node.clone(),
            partition_count: self.partition_count(),
            owners: owners.collect(),
            nodes: known.nodes.clone(),
        }
    }
}
