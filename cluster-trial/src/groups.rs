//! What nodes use beside the log: their group, and the directory of owners in its compacted topic.
//!
//! Deliberately absent: using these as a node does (`engine`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::directory::Hint;
use event_log::log::{EventLog, LogError, LogPlace, trial};
use event_log::membership::{Assignment, Membership, MembershipOptions};
use position::{LogId, Partition, Term};
use uuid::Uuid;

use super::report::Places;

/// How long the group may take to assign the partitions while no member is silent.
const SHARE_WITHIN: Duration = Duration::from_secs(40);
/// How long after the end of its session a silent member may keep its partitions.
const NOTICE_WITHIN: Duration = Duration::from_secs(20);
/// How long a hint may take from one node to another.
const HEAR_WITHIN: Duration = Duration::from_secs(30);
/// How often the hint is repeated until it arrives.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What the group did.
#[derive(Default)]
pub(super) struct Grouped {
    pub(super) against: Places,
    pub(super) changes: u64,
    /// How long the first assignment took, and how long until a silent member's partitions were
    /// reassigned.
    pub(super) shared_within: Duration,
    pub(super) noticed_within: Duration,
}

/// A member, and the partitions that the group gave it.
struct Member {
    membership: Box<dyn Membership>,
    holds: BTreeSet<Partition>,
}

impl Member {
    /// Listens until `wanted` holds for the number of the member's partitions; `false` if
    /// `deadline` comes first.
    async fn until(&mut self, wanted: impl Fn(usize) -> bool, deadline: Instant) -> bool {
        while !wanted(self.holds.len()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.membership.next()).await {
                Ok(Ok(Assignment::Gained(partitions))) => self.holds.extend(partitions),
                Ok(Ok(Assignment::Lost(partitions))) => {
                    self.holds
                        .retain(|partition| !partitions.contains(partition));
                }
                Ok(Err(_)) | Err(_) => return false,
            }
        }
        true
    }
}

/// Two members share the partitions, one leaves, and a third joins and falls silent.
pub(super) async fn group(
    log: Arc<dyn EventLog>,
    place: LogPlace,
    group: String,
    session_timeout: Duration,
) -> Grouped {
    let mut grouped = Grouped::default();
    let tried = share_out(&*log, &place, group, session_timeout, &mut grouped).await;
    if let Err(error) = tried {
        grouped.against.add(super::claimant::explained(&error));
    }
    grouped
}

async fn share_out(
    log: &dyn EventLog,
    place: &LogPlace,
    group: String,
    session_timeout: Duration,
    grouped: &mut Grouped,
) -> Result<(), LogError> {
    let all = log.partition_count() as usize;
    let options = |node: &str| MembershipOptions {
        group: group.clone(),
        node: node.to_owned(),
        session_timeout,
    };
    let join = |node: &str| -> Result<Member, LogError> {
        Ok(Member {
            membership: log.membership(&options(node))?,
            holds: BTreeSet::new(),
        })
    };
    let session = format!(
        "with a session timeout of {} ms",
        session_timeout.as_millis()
    );

    let started = Instant::now();
    let deadline = started + SHARE_WITHIN;
    let mut staying = join("annals-verify-staying")?;
    if !staying.until(|count| count == all, deadline).await {
        let place = format!("one member alone was not given all partitions {session}");
        grouped.against.add(place);
        return Ok(());
    }
    let mut leaving = join("annals-verify-leaving")?;
    let (one, other) = tokio::join!(
        staying.until(|count| count < all && count > 0, deadline),
        leaving.until(|count| count > 0, deadline),
    );
    grouped.changes += 2;
    grouped.shared_within = started.elapsed();
    if !(one && other) {
        let place = format!("two members did not share the partitions {session}");
        grouped.against.add(place);
        return Ok(());
    }
    leaving.membership.leave().await;
    let deadline = Instant::now() + SHARE_WITHIN;
    grouped.changes += 1;
    if !staying.until(|count| count == all, deadline).await {
        let place = "the partitions of a member that left were not assigned to the other";
        grouped.against.add(place);
        return Ok(());
    }

    let silent = options("annals-verify-silent");
    let falls_silent = trial::fall_silent(place, log.partition_count(), &silent, SHARE_WITHIN);
    let deadline = Instant::now() + SHARE_WITHIN;
    let (silent, shared) = tokio::join!(
        falls_silent,
        staying.until(|count| count < all && count > 0, deadline)
    );
    grouped.changes += 1;
    let silent_at = silent?;
    if !shared {
        grouped.against.add("a third member was given no partition");
        return Ok(());
    }
    let deadline = silent_at + session_timeout + NOTICE_WITHIN;
    let noticed = staying.until(|count| count == all, deadline).await;
    grouped.changes += 1;
    grouped.noticed_within = silent_at.elapsed();
    if !noticed {
        grouped.against.add(format!(
            "a silent member still held partitions {NOTICE_WITHIN:?} after its session of \
             {session_timeout:?} had ended"
        ));
    }
    staying.membership.leave().await;
    Ok(())
}

/// Sends a hint through the directory, from one client to another; returns how long it took.
///
/// # Errors
/// The error of the directory's log; `Unavailable` if the hint does not arrive in time.
pub(super) async fn directory(log: Arc<dyn EventLog>) -> Result<Duration, LogError> {
    let id = LogId(Uuid::new_v4());
    let (saying, hearing) = (log.directory(id).await?, log.directory(id).await?);
    let hint = Hint {
        log: id,
        term: Term(1),
        node: "annals-verify".to_owned(),
        address: "http://127.0.0.1:1".to_owned(),
    };
    let mut known = hearing.known();
    let started = Instant::now();
    while started.elapsed() < HEAR_WITHIN {
        // Best effort, as nodes do it: a lost hint is repeated.
        saying.say_owner(Partition(0), &hint).await;
        let heard = known.wait_for(|known| known.owners.get(&Partition(0)) == Some(&hint));
        match tokio::time::timeout(SAY_EVERY, heard).await {
            Ok(Ok(_)) => return Ok(started.elapsed()),
            Ok(Err(_)) => break,
            Err(_elapsed) => {}
        }
    }
    Err(LogError::unavailable(
        "read from the directory's topic what was written to it",
        format!("nothing came within {:?}", started.elapsed()),
    ))
}
