//! The result of the trial: one row for each guarantee.
//!
//! Invariant: the verdict is *kept* only for a guarantee that was tried; otherwise the row says why
//! it was not.

use serde::Serialize;

/// A guarantee that the engine needs of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// The topic has the settings that the protocol needs.
    Settings,
    /// A compacted topic can be created, written and read.
    CompactedTopic,
    /// The records of one producer are stored in its order.
    Order,
    /// Acknowledged records are in the log, unchanged.
    DurableAcknowledgement,
    /// Offsets have no gaps.
    ContiguousOffsets,
    /// A record that was sent again is stored once.
    NoDuplicates,
    /// All readers see the same records, and see acknowledged records at once.
    ReadersAgree,
    /// The brokers stamp records with their clock, which differs little from this machine's.
    AppendTime,
    /// The cluster accepts the largest commit.
    LargestRecord,
    /// Of several writers at the same time, exactly one counts.
    OneWriterCounts,
    /// A stopped reader continues in the log that it knows.
    Resume,
    /// The group of nodes assigns partitions, and takes them from a silent member.
    ConsumerGroup,
    /// The cluster goes on after a broker was restarted.
    BrokerRestart,
}

impl Guarantee {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::CompactedTopic => "compacted topic",
            Self::Order => "order",
            Self::DurableAcknowledgement => "durable acknowledgement",
            Self::ContiguousOffsets => "contiguous offsets",
            Self::NoDuplicates => "no duplicates",
            Self::ReadersAgree => "readers agree",
            Self::AppendTime => "append time",
            Self::LargestRecord => "largest record",
            Self::OneWriterCounts => "one writer counts",
            Self::Resume => "resume",
            Self::ConsumerGroup => "consumer group",
            Self::BrokerRestart => "broker restart",
        }
    }

    /// What the operator should do if the guarantee is broken.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Settings => {
                "the brokers do not give a topic the settings that it was created with: look for \
                 a policy that overrides them"
            }
            Self::CompactedTopic => {
                "let this user create topics with cleanup.policy=compact; without such a topic, \
                 nodes find owners only by asking the other nodes"
            }
            Self::Order => {
                "do not run the engine on this cluster: look for a proxy between it and the \
                 brokers, or for brokers that are not Apache Kafka and ignore sequence numbers"
            }
            Self::DurableAcknowledgement => {
                "do not run the engine on this cluster: set unclean.leader.election.enable=false \
                 and min.insync.replicas=2 of 3, make sure that brokers flush or have backup \
                 power, and repeat the trial"
            }
            Self::ContiguousOffsets => {
                "make sure that nothing compacts the topic, deletes from it or writes \
                 transactions into it; the engine stays correct, but reads back after every gap"
            }
            Self::NoDuplicates => {
                "do not run the engine on this cluster: its brokers must keep idempotent \
                 producers apart (Kafka 0.11 or later, without a proxy that sends again)"
            }
            Self::ReadersAgree => {
                "look for a proxy, a mirror or a broker that serves another cluster's data; all \
                 readers must be served by the partition's leader"
            }
            Self::AppendTime => {
                "let the clocks of brokers and nodes follow the same time servers; an owner whose \
                 clock differs by more than a minute does not write"
            }
            Self::LargestRecord => {
                "raise message.max.bytes of the brokers, and replica.fetch.max.bytes with it, to \
                 at least 2097152"
            }
            Self::OneWriterCounts => {
                "do not run the engine on this cluster, and report this with the topic kept \
                 (--keep): two readers of the log came to different results"
            }
            Self::Resume => {
                "do not run the engine on this cluster: records changed after a reader had read \
                 them"
            }
            Self::ConsumerGroup => {
                "make sure that session_timeout_ms is between group.min.session.timeout.ms and \
                 group.max.session.timeout.ms of the brokers, and that this user may read groups"
            }
            Self::BrokerRestart => {
                "make sure that every partition has 3 replicas on 3 brokers, 2 of them in sync, \
                 so that one broker may be down"
            }
        }
    }
}

/// The verdict on a guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It held in everything that was tried.
    Kept,
    /// It did not hold.
    Broken,
    /// Nothing that could have broken it was tried.
    NotTested,
}

impl Verdict {
    /// Its name in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::NotTested => "not tested",
        }
    }
}

/// One guarantee: what was tried, and the result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The guarantee.
    pub guarantee: Guarantee,
    /// What was tried.
    pub done: String,
    /// How many records the verdict is based on.
    pub records: u64,
    /// How many times it was put to the test.
    pub times: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// What was found, or why it was not tested.
    pub found: String,
    /// What the operator should do if the guarantee is broken; otherwise empty.
    pub to_do: String,
}

impl Row {
    /// A row whose verdict follows from the faults in `against`.
    pub(super) fn of(
        guarantee: Guarantee,
        done: String,
        (records, times): (u64, u64),
        against: &Places,
        note: String,
    ) -> Self {
        let (verdict, found) = if against.is_empty() {
            (Verdict::Kept, note)
        } else {
            (Verdict::Broken, against.to_string())
        };
        let to_do = match verdict {
            Verdict::Broken => guarantee.remedy().to_owned(),
            Verdict::Kept | Verdict::NotTested => String::new(),
        };
        Self {
            guarantee,
            done,
            records,
            times,
            verdict,
            found,
            to_do,
        }
    }

    /// A row for a guarantee that could not be tried.
    pub(super) fn not_tested(guarantee: Guarantee, why: impl Into<String>) -> Self {
        Self {
            guarantee,
            done: String::new(),
            records: 0,
            times: 0,
            verdict: Verdict::NotTested,
            found: why.into(),
            to_do: String::new(),
        }
    }
}

/// How many faults are listed; further ones are only counted.
const PLACES_LISTED_MAX: usize = 5;

/// Faults found against a guarantee.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    listed: Vec<String>,
    count: usize,
}

impl Places {
    pub(super) fn add(&mut self, place: impl Into<String>) {
        self.count += 1;
        if self.listed.len() < PLACES_LISTED_MAX {
            self.listed.push(place.into());
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        let unlisted = other.count - other.listed.len();
        other.listed.into_iter().for_each(|place| self.add(place));
        self.count += unlisted;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl std::fmt::Display for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.listed.join("; "))?;
        match self.count - self.listed.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
