//! The nodes' group: a consumer that joins a consumer group for the assignment only. It reads no
//! record and commits no offset.
//!
//! Invariant: the changes that `next` returns always lead to the group's latest assignment, however
//! slowly `next` is called. The client's callbacks only note what was assigned, so nothing here can
//! delay a heartbeat. Deliberately absent: who owns (the log says that); Kafka's newer group
//! protocol (KIP-848), in which the session timeout is a setting of the brokers and not ours.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use position::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::watch;

use super::{Topic, blocking, failed, is_dropped_within};
use crate::log::LogError;
use crate::membership::{Assignment, Membership, MembershipOptions};

/// How long the thread waits for the group before it checks whether to stop.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How long the thread waits after a client failed for good before it makes another client.
const RENEW_AFTER: Duration = Duration::from_secs(1);
/// The bounds of the heartbeat interval, in milliseconds. For short sessions the interval is at
/// most a third of the session.
const HEARTBEAT: std::ops::RangeInclusive<u128> = 100..=500;
/// The least time that the other members wait for a member that is alive and does not rejoin.
const REJOIN_WITHIN_MIN: Duration = Duration::from_secs(30);
/// How long leaving may take. The group is informed at once; after that the client closes.
const LEAVE_WITHIN: Duration = Duration::from_secs(6);

/// The partitions that the group has assigned to this node. Each has the number of its assignment,
/// so that a partition that was lost and gained again differs from one that stayed.
#[derive(Clone, Default)]
struct Assigned {
    partitions: BTreeMap<Partition, u64>,
    assignments: u64,
}

/// The client's callbacks.
#[derive(Clone)]
struct Noting {
    assigned: watch::Sender<Assigned>,
    partition_count: u32,
}

impl Noting {
    fn note(&self, list: &TopicPartitionList, change: impl Fn(&mut Assigned, Partition)) {
        let elements = list.elements();
        let partitions = elements.iter().filter_map(|element| {
            let number = u32::try_from(element.partition()).ok()?;
            // A log's partition count never changes: ignore partitions added to the topic.
            (number < self.partition_count).then_some(Partition(number))
        });
        self.assigned.send_modify(|assigned| {
            assigned.assignments += 1;
            for partition in partitions {
                change(assigned, partition);
            }
        });
    }
}

impl ClientContext for Noting {}

impl ConsumerContext for Noting {
    /// The client must accept the assignment, because the group waits for that. It accepts each
    /// partition at its end and pauses it.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let done = if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            list.set_all_offsets(KafkaOffset::End)
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| {
                    self.note(list, |assigned, partition| {
                        assigned.partitions.insert(partition, assigned.assignments);
                    });
                    consumer.pause(list)
                })
        } else {
            self.note(list, |assigned, partition| {
                assigned.partitions.remove(&partition);
            });
            consumer.incremental_unassign(list)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "the client could not apply the group's assignment");
        }
    }
}

/// A node's place in its consumer group: a polling thread, and what that thread has noted.
pub(super) struct KafkaMembership {
    assigned: watch::Receiver<Assigned>,
    /// The assignments that `next` has reported so far.
    told: BTreeMap<Partition, u64>,
    /// The thread ends when this is dropped.
    running: Option<mpsc::Sender<()>>,
}

impl KafkaMembership {
    pub(super) fn join(
        topic: &Topic,
        partition_count: u32,
        options: &MembershipOptions,
    ) -> Result<Self, LogError> {
        let member = Member::new(topic, partition_count, config(topic, options));
        let assigned = member.noting.assigned.subscribe();
        let (running, stop) = mpsc::channel();
        // Make the first client here, so that wrong settings fail here and not in the thread.
        let first = member.consumer().map_err(failed("join the nodes' group"))?;
        std::thread::Builder::new()
            .name("annals-group".to_owned())
            .spawn(move || member.take_part(first, &stop))
            .map_err(failed("start a thread for the group"))?;
        Ok(Self {
            assigned,
            told: BTreeMap::new(),
            running: Some(running),
        })
    }

    /// The difference between what was reported and the present assignment. Losses come first.
    fn change(&mut self) -> Option<Assignment> {
        let now = self.assigned.borrow_and_update().clone().partitions;
        let differ = |from: &BTreeMap<Partition, u64>, to: &BTreeMap<Partition, u64>| {
            from.iter()
                .filter(|(partition, assignment)| to.get(partition) != Some(assignment))
                .map(|(partition, _)| *partition)
                .collect::<Vec<_>>()
        };
        let lost = differ(&self.told, &now);
        if !lost.is_empty() {
            self.told.retain(|partition, _| !lost.contains(partition));
            return Some(Assignment::Lost(lost));
        }
        let gained = differ(&now, &self.told);
        self.told = now;
        (!gained.is_empty()).then_some(Assignment::Gained(gained))
    }
}

#[async_trait]
impl Membership for KafkaMembership {
    async fn next(&mut self) -> Result<Assignment, LogError> {
        loop {
            if let Some(change) = self.change() {
                return Ok(change);
            }
            if self.assigned.changed().await.is_err() {
                // The thread has ended. Report its last note, if there is one.
                return self.change().ok_or(LogError::Closed);
            }
        }
    }

    async fn leave(&mut self) {
        self.running = None;
        // The channel closes when the thread ends.
        let ended = async { while self.assigned.changed().await.is_ok() {} };
        if tokio::time::timeout(LEAVE_WITHIN, ended).await.is_err() {
            tracing::warn!("the nodes' group did not confirm in time that this node leaves");
        }
    }
}

fn config(topic: &Topic, options: &MembershipOptions) -> ClientConfig {
    let session = options.session_timeout;
    let heartbeat_ms = (session.as_millis() / 10)
        .clamp(*HEARTBEAT.start(), *HEARTBEAT.end())
        .min(session.as_millis() / 3)
        .max(1);
    // How long the group waits for a member to rejoin; the client requires at least the session.
    let rejoin_within = session.max(REJOIN_WITHIN_MIN);
    let mut config = topic.client();
    config
        .set("client.id", &options.node)
        .set("group.id", &options.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session.as_millis().to_string())
        .set("heartbeat.interval.ms", heartbeat_ms.to_string())
        .set(
            "max.poll.interval.ms",
            rejoin_within.as_millis().to_string(),
        )
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "latest")
        .set("queued.min.messages", "1")
        .set("queued.max.messages.kbytes", "1");
    config
}

/// Joins the nodes' group, and disappears without leaving once it has partitions. Returns the time
/// since which it is silent. It has an id of its own (`group.instance.id`), and such a member does
/// not leave the group when its client closes.
pub(in crate::log) async fn fall_silent(
    topic: &Topic,
    partition_count: u32,
    options: &MembershipOptions,
    wait: Duration,
) -> Result<Instant, LogError> {
    let mut config = config(topic, options);
    config.set("group.instance.id", &options.node);
    let member = Member::new(topic, partition_count, config);
    blocking(move || {
        let consumer = member.consumer().map_err(failed("join the nodes' group"))?;
        let deadline = Instant::now() + wait;
        while member.noting.assigned.borrow().partitions.is_empty() {
            if Instant::now() >= deadline {
                let why = "no partition was assigned in time";
                return Err(LogError::unavailable("join the nodes' group", why));
            }
            if let Some(Err(error)) = consumer.poll(POLL_EVERY) {
                tracing::debug!(%error, "the nodes' group cannot be reached; retrying");
            }
        }
        Ok(Instant::now())
    })
    .await
}

struct Member {
    config: ClientConfig,
    topic: String,
    noting: Noting,
}

impl Member {
    fn new(topic: &Topic, partition_count: u32, config: ClientConfig) -> Self {
        Self {
            config,
            topic: topic.name.clone(),
            noting: Noting {
                assigned: watch::Sender::default(),
                partition_count,
            },
        }
    }

    fn consumer(&self) -> Result<BaseConsumer<Noting>, KafkaError> {
        let consumer: BaseConsumer<_> = self.config.create_with_context(self.noting.clone())?;
        consumer.subscribe(&[&self.topic])?;
        Ok(consumer)
    }

    /// Runs one client after another, each until it fails for good, until the member is stopped.
    fn take_part(&self, first: BaseConsumer<Noting>, stop: &mpsc::Receiver<()>) {
        let mut consumer = Ok(first);
        loop {
            match consumer {
                Ok(consumer) => {
                    self.poll(&consumer, stop);
                    // This closes the client, which leaves the group and notes what it lost.
                    drop(consumer);
                    let assigned = &self.noting.assigned;
                    assigned.send_modify(|assigned| assigned.partitions.clear());
                }
                Err(error) => {
                    tracing::warn!(%error, "a client for the nodes' group could not be made; retrying")
                }
            }
            if is_dropped_within(RENEW_AFTER, stop) {
                return;
            }
            consumer = self.consumer();
        }
    }

    fn poll(&self, consumer: &BaseConsumer<Noting>, stop: &mpsc::Receiver<()>) {
        let mut complaint: Option<(Option<RDKafkaErrorCode>, u64)> = None;
        while !is_dropped_within(Duration::ZERO, stop) {
            match consumer.poll(POLL_EVERY) {
                // Partitions are paused: such a record was on its way before the pause.
                None | Some(Ok(_)) => {}
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    tracing::warn!(%error, "this node's membership in the group failed; it joins again");
                    return;
                }
                Some(Err(error)) => {
                    let assignments = self.noting.assigned.borrow().assignments;
                    let this = Some((error.rdkafka_error_code(), assignments));
                    if complaint == this {
                        tracing::debug!(%error, "the nodes' group still cannot be reached");
                    } else {
                        tracing::warn!(%error, "the nodes' group cannot be reached; retrying");
                    }
                    complaint = this;
                }
            }
            // The client's main thread checks for a due heartbeat only when one of its timers wakes
            // it: every half second, as measured, whatever the interval. A question that the client
            // answers from memory wakes it, too.
            if let Err(error) = consumer.subscription() {
                tracing::debug!(%error, "the client does not say what it subscribes to");
            }
        }
    }
}
