//! This node as a member of the group of nodes on the same log: its membership, the directory, and
//! the planned leave.
//!
//! Invariant: what this module learns is a wish or a hint; the partitions' tasks act on it, and the
//! log decides. Deliberately absent: how nodes talk (`peers`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_log::directory::{Directory, DirectoryEntries, NoDirectory, NodeEntry};
use event_log::log::{EventLog, LogError};
use event_log::membership::{Assignment, Membership, MembershipOptions};
use position::{LogId, Partition};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Engine;
use crate::clock::LogClock;
use crate::owner::OwnerSettings;
use crate::peers::{NoPeers, Peers};
use crate::seat::{Identity, Unfit};

/// How often a node announces itself.
const SAY_EVERY: Duration = Duration::from_secs(3);
/// The pause before a node joins again, after the group was unreachable.
const JOIN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long another node may take for the take-over of one partition while this node leaves.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(5);

/// The other nodes on the same log.
pub struct ClusterOptions {
    /// How this node reaches the other nodes.
    pub peers: Arc<dyn Peers>,
    /// The group that distributes the partitions; `None`: this node owns all of them.
    pub group: Option<MembershipOptions>,
    /// The time on which the nodes agree; the same clock that `peers` uses.
    pub clock: LogClock,
}

impl ClusterOptions {
    /// The options of a node without other nodes.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            peers: Arc::new(NoPeers),
            group: None,
            clock: LogClock::default(),
        }
    }
}

pub(super) struct Cluster {
    pub(super) identity: Identity,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) known: watch::Receiver<DirectoryEntries>,
    pub(super) log_clock: LogClock,
    /// By partition: whether the group says that this node should own it.
    pub(super) assigned: Vec<watch::Sender<bool>>,
    /// Whether there may be other nodes, so that the directory must be read first.
    pub(super) in_group: bool,
    /// The task that follows the group.
    task: Mutex<Option<JoinHandle<()>>>,
    leaving: watch::Sender<bool>,
    /// What keeps this node from owning the partitions that the group gives it.
    pub(super) unfit: watch::Sender<Unfit>,
    /// Whether this node declines partitions that the group still gives it, because it is about to
    /// leave.
    declines: Arc<AtomicBool>,
}

impl Cluster {
    /// Starts the task that tells the partitions' tasks what the group says, and announces this
    /// node to the others, until this node leaves or `stopped`.
    pub(super) async fn join(
        (log, log_id): (&Arc<dyn EventLog>, LogId),
        options: ClusterOptions,
        settings: &OwnerSettings,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Self, LogError> {
        let ClusterOptions {
            peers,
            group,
            clock,
        } = options;
        let directory: Arc<dyn Directory> = match &group {
            Some(_) => log.directory(log_id).await?,
            None => Arc::new(NoDirectory::default()),
        };
        let in_group = group.is_some();
        let assigned = (0..log.partition_count()).map(|_| watch::channel(!in_group).0);
        let cluster = Self {
            identity: Identity {
                node: settings.node.clone(),
                address: settings.address.clone(),
                log: log_id,
            },
            peers,
            known: directory.known(),
            directory,
            log_clock: clock,
            assigned: assigned.collect(),
            in_group,
            task: Mutex::new(None),
            leaving: watch::channel(false).0,
            unfit: watch::channel(Unfit::default()).0,
            declines: Arc::default(),
        };
        if let Some(group) = group {
            let mut leaving = cluster.leaving.subscribe();
            let end = async move {
                tokio::select! {
                    _ = leaving.wait_for(|leaving| *leaving) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                }
            };
            let entry = settings.address.clone().map(|address| NodeEntry {
                node: settings.node.clone(),
                address,
                decides: true,
                reads_record_version: settings.record_version_max,
                program: env!("CARGO_PKG_VERSION").to_owned(),
                acknowledged: log.acknowledged().digest(),
                seen_at: cluster.log_clock.now(),
            });
            let following = Following {
                log: Arc::clone(log),
                group,
                assigned: cluster.assigned.clone(),
                directory: Arc::clone(&cluster.directory),
                entry,
                log_clock: cluster.log_clock.clone(),
                declines: Arc::clone(&cluster.declines),
                unfit: cluster.unfit.subscribe(),
            };
            *cluster.task() = Some(tokio::spawn(following.run(end)));
        }
        Ok(cluster)
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other nodes that seem to be alive and take partitions, in order of name.
    pub(super) fn others(&self) -> Vec<NodeEntry> {
        let now = self.log_clock.now();
        let own = self.identity.address.as_ref();
        let known = self.known.borrow();
        let others = known
            .nodes
            .values()
            .filter(|entry| entry.decides && Some(&entry.address) != own && entry.seems_alive(now));
        others.cloned().collect()
    }

    /// Takes nothing over any more; what this node owns, it owns until other nodes take it over.
    fn decline(&self) {
        self.declines.store(true, Ordering::Release);
        leave_to_others(&self.assigned);
    }

    /// Leaves the group. After that, this node should own nothing.
    async fn leave(&self) {
        self.leaving.send_replace(true);
        let task = self.task().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::warn!(%error, "following the group broke off");
        }
    }
}

/// Tells all partitions' tasks that other nodes should own their partitions.
fn leave_to_others(assigned: &[watch::Sender<bool>]) {
    for assigned in assigned {
        assigned.send_replace(false);
    }
}

/// The task that follows the group.
struct Following {
    log: Arc<dyn EventLog>,
    group: MembershipOptions,
    assigned: Vec<watch::Sender<bool>>,
    directory: Arc<dyn Directory>,
    entry: Option<NodeEntry>,
    declines: Arc<AtomicBool>,
    unfit: watch::Receiver<Unfit>,
    log_clock: LogClock,
}

impl Following {
    async fn run(mut self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let mut say = tokio::time::interval(SAY_EVERY);
        say.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut membership = None;
        // If the group gave partitions to a node that cannot own, nobody would own them. Such a
        // node leaves the group, and still forwards commands to others.
        let mut rests = false;
        self.unfit.mark_changed();
        loop {
            let change = Self::next((&*self.log, &self.group), &mut membership);
            tokio::select! {
                change = change, if !rests => self.tell(&change),
                _ = say.tick() => self.say(!rests).await,
                Ok(()) = self.unfit.changed() => {
                    let (outdated, reason) = {
                        let unfit = self.unfit.borrow_and_update();
                        (unfit.outdated, unfit.reason())
                    };
                    if outdated {
                        tracing::error!(
                            "this program is too old for the log, and leaves the group of nodes: \
                             upgrade it"
                        );
                        leave_to_others(&self.assigned);
                        break;
                    }
                    match (rests, reason) {
                        (false, Some(reason)) => {
                            tracing::error!(reason, "this node leaves the group of nodes for now");
                            leave_to_others(&self.assigned);
                            if let Some(mut membership) = membership.take() {
                                membership.leave().await;
                            }
                            self.say(false).await;
                        }
                        (true, None) => tracing::info!("joining the group of nodes again"),
                        _ => {}
                    }
                    rests = reason.is_some();
                }
                () = &mut end => break,
            }
        }
        if let Some(mut membership) = membership {
            membership.leave().await;
        }
        if let Some(entry) = &self.entry {
            self.directory.say_gone(&entry.node).await;
        }
    }

    /// Announces this node, and whether it takes partitions over.
    async fn say(&mut self, decides: bool) {
        if let Some(entry) = &mut self.entry {
            entry.seen_at = self.log_clock.now();
            entry.decides = decides;
            self.directory.say_node(entry).await;
        }
    }

    /// The next change of the assignment. Joins the group first, as often as necessary.
    async fn next(
        (log, group): (&dyn EventLog, &MembershipOptions),
        membership: &mut Option<Box<dyn Membership>>,
    ) -> Assignment {
        loop {
            let change = match membership {
                Some(joined) => joined.next().await,
                None => match log.membership(group) {
                    Ok(joined) => {
                        *membership = Some(joined);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match change {
                Ok(change) => return change,
                Err(error) => {
                    tracing::warn!(%error, "the group of nodes cannot be reached");
                    *membership = None;
                    tokio::time::sleep(JOIN_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn tell(&self, change: &Assignment) {
        let (partitions, is_assigned) = match change {
            Assignment::Gained(partitions) => (partitions, true),
            Assignment::Lost(partitions) => (partitions, false),
        };
        if self.declines.load(Ordering::Acquire) {
            return;
        }
        let shown: Vec<String> = partitions.iter().map(ToString::to_string).collect();
        let shown = shown.join(",");
        let change = if is_assigned { "gained" } else { "lost" };
        tracing::info!(
            change,
            partitions = shown,
            "the group of nodes was shared out anew"
        );
        for partition in partitions {
            if let Some(assigned) = self.assigned.get(partition.0 as usize) {
                assigned.send_replace(is_assigned);
            }
        }
    }
}

impl Engine {
    /// Hands every partition that this node owns to another node, then leaves the group. Returns
    /// when that is done, when there is no other node, or when `wait` is over. Until then, commands
    /// are still taken and forwarded.
    pub async fn leave(&self, wait: Duration) {
        let others = self.inner.cluster.others();
        if !others.is_empty() {
            self.inner.cluster.decline();
            let moves = self.owned().into_iter().map(|partition| {
                let peers = Arc::clone(&self.inner.cluster.peers);
                // Spread over the other nodes: consecutive partitions start with different nodes.
                let first = partition.0 as usize % others.len();
                let mut candidates = others.clone();
                candidates.rotate_left(first);
                async move {
                    for candidate in candidates {
                        let asked = peers.take_over(&candidate.address, partition);
                        match tokio::time::timeout(TAKE_OVER_WAIT, asked).await {
                            Ok(Ok(())) => return,
                            Ok(Err(error)) => {
                                tracing::info!(%partition, to = candidate.node, %error, "not taken over");
                            }
                            Err(_) => {
                                tracing::info!(%partition, to = candidate.node, "not taken over in time");
                            }
                        }
                    }
                    tracing::warn!(%partition, "no other node took the partition over");
                }
            });
            let _ = tokio::time::timeout(wait, futures::future::join_all(moves)).await;
        }
        self.inner.cluster.leave().await;
    }

    /// The partitions that this node owns now.
    #[must_use]
    pub fn owned(&self) -> Vec<Partition> {
        let numbered = (0..).map(Partition).zip(&self.inner.partitions);
        numbered
            .filter(|(_, desk)| desk.status.borrow().not_owning.is_none())
            .map(|(partition, _)| partition)
            .collect()
    }
}
