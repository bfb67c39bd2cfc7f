//! The nodes' group on a real broker: in the end, each partition is assigned to exactly one member,
//! whichever members join, leave, freeze or die.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_log::log::{EventLog, LogAddress, LogError};
use event_log::membership::{Assignment, MembershipOptions};
use position::Partition;
use rustix::process::Signal;
use tests::harness::kafka::Kafka;
use tests::harness::logs::{Kind, NewLog};
use tests::harness::process::Process;
use tests::harness::unique_name;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::raw_log::RawLog;

const PARTITIONS: u32 = 16;
const PATIENCE: Duration = Duration::from_secs(30);
/// A session so long that it never ends within a test.
const LONG_SESSION: Duration = Duration::from_secs(60);
const SHORT_SESSION: Duration = Duration::from_secs(1);

/// Every change that a member got, and the partitions that it holds now.
#[derive(Default)]
struct Told {
    holds: BTreeSet<Partition>,
    changes: Vec<Assignment>,
}

/// A member in this process.
struct Member {
    told: Arc<Mutex<Told>>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<Result<(), LogError>>,
}

impl Member {
    fn join(log: &dyn EventLog, group: &str, node: &str, session_timeout: Duration) -> Self {
        let options = MembershipOptions {
            group: group.to_owned(),
            node: node.to_owned(),
            session_timeout,
        };
        let mut membership = log.membership(&options).unwrap();
        let told = Arc::<Mutex<Told>>::default();
        let (leave, mut leaving) = oneshot::channel();
        let telling = Arc::clone(&told);
        let task = tokio::spawn(async move {
            loop {
                let change = tokio::select! {
                    change = membership.next() => change?,
                    _ = &mut leaving => {
                        membership.leave().await;
                        return Ok(());
                    }
                };
                let mut told = telling.lock().unwrap();
                match &change {
                    Assignment::Gained(partitions) => {
                        for partition in partitions {
                            assert!(told.holds.insert(*partition), "gained {partition} twice");
                        }
                    }
                    Assignment::Lost(partitions) => {
                        for partition in partitions {
                            assert!(
                                told.holds.remove(partition),
                                "lost {partition} without holding it"
                            );
                        }
                    }
                }
                told.changes.push(change);
            }
        });
        Self { told, leave, task }
    }

    fn holds(&self) -> BTreeSet<Partition> {
        self.told.lock().unwrap().holds.clone()
    }

    async fn leave(self) {
        self.leave.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

fn all() -> BTreeSet<Partition> {
    (0..PARTITIONS).map(Partition).collect()
}

/// Waits until a condition holds, and returns how long that took.
async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < PATIENCE,
            "did not become true in {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

/// Whether these members together hold every partition, and none of them twice.
fn share_out(members: &[&Member]) -> bool {
    let held: Vec<_> = members.iter().map(|member| member.holds()).collect();
    let count: usize = held.iter().map(BTreeSet::len).sum();
    let together: BTreeSet<_> = held.into_iter().flatten().collect();
    together == all() && count == together.len()
}

fn is_fair(members: &[&Member]) -> bool {
    let fair = PARTITIONS as usize / members.len();
    share_out(members)
        && members
            .iter()
            .all(|member| (fair..=fair + 1).contains(&member.holds().len()))
}

async fn new_log() -> NewLog {
    NewLog::make(Kind::Kafka, PARTITIONS).await
}

/// Starts a member in a process of its own; its output goes to a folder.
fn start_elsewhere(log: &NewLog, group: &str, node: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_group-member"));
    command.args([&log.address.to_string(), group, node]);
    command.arg(SHORT_SESSION.as_millis().to_string());
    let output = File::create(log.folder.path().join(node)).unwrap();
    Process::start(command, output, log.folder.path()).unwrap()
}

#[tokio::test]
async fn three_members_share_out_all_partitions_and_one_that_leaves_gives_its_own_up_at_once() {
    let (log, group) = (new_log().await, unique_name("group"));
    let join = |node| Member::join(&*log.log, &group, node, LONG_SESSION);
    let first = join("first");
    until("one alone holds all", || first.holds() == all()).await;
    let (second, third) = (join("second"), join("third"));
    let took = until("three share", || is_fair(&[&first, &second, &third])).await;
    println!("three members shared out after {took:?}");

    // No member lost a partition that it should keep: the group is cooperative.
    let kept = first.holds();
    for change in &first.told.lock().unwrap().changes {
        if let Assignment::Lost(partitions) = change {
            assert!(partitions.iter().all(|lost| !kept.contains(lost)));
        }
    }

    let started = Instant::now();
    second.leave().await;
    until("two share", || is_fair(&[&first, &third])).await;
    let took = started.elapsed();
    println!("two members had the partitions of the one that left after {took:?}");
    assert!(
        took < LONG_SESSION / 10,
        "the group waited as for a dead member: {took:?}"
    );
    first.leave().await;
    until("the last holds all", || third.holds() == all()).await;
}

#[tokio::test]
async fn a_membership_that_is_dropped_leaves_the_group() {
    let (log, group) = (new_log().await, unique_name("group"));
    let staying = Member::join(&*log.log, &group, "staying", LONG_SESSION);
    let dropped = Member::join(&*log.log, &group, "dropped", LONG_SESSION);
    until("two share", || is_fair(&[&staying, &dropped])).await;
    dropped.task.abort();
    until("one holds all", || staying.holds() == all()).await;
}

#[tokio::test]
async fn a_member_that_is_frozen_or_killed_loses_its_partitions_with_its_session() {
    let (log, group) = (new_log().await, unique_name("group"));
    let staying = Member::join(&*log.log, &group, "staying", SHORT_SESSION);
    let half = || staying.holds().len() == PARTITIONS as usize / 2;

    let mut frozen = start_elsewhere(&log, &group, "frozen");
    let said = || std::fs::read_to_string(log.folder.path().join("frozen")).unwrap();
    let verbs = || {
        let said = said();
        let verbs = said.lines().filter_map(|line| line.split(' ').next());
        verbs.map(str::to_owned).collect::<Vec<_>>()
    };
    until("two share", || half() && verbs() == ["gained"]).await;
    frozen.signal(Signal::STOP);
    let took = until("a frozen one loses all", || staying.holds() == all()).await;
    println!("a frozen member lost its partitions after {took:?}");
    frozen.signal(Signal::CONT);
    // The member is told that it lost its partitions in between.
    let again = ["gained", "lost", "gained"];
    until("it is given some again", || half() && verbs() == again).await;
    frozen.kill9();
    let took = until("a killed one loses all", || staying.holds() == all()).await;
    println!("a killed member lost its partitions after {took:?}");
}

#[tokio::test]
async fn members_lose_all_when_no_broker_answers_and_gain_again_when_one_does() {
    let mut kafka = Kafka::start();
    let address = LogAddress::Kafka {
        brokers: kafka.bootstrap().to_owned(),
        topic: unique_name("log"),
    };
    let raw = RawLog::at(address, PARTITIONS).await;
    let group = unique_name("group");
    let join = |node| Member::join(&*raw.log, &group, node, SHORT_SESSION);
    let (one, other) = (join("one"), join("other"));
    until("two share", || is_fair(&[&one, &other])).await;

    kafka.pause();
    let none = || one.holds().is_empty() && other.holds().is_empty();
    let took = until("both have lost all", none).await;
    println!("both have lost all after {took:?}");
    kafka.resume();
    let took = until("two share again", || is_fair(&[&one, &other])).await;
    println!("two share again after {took:?}");

    kafka.kill9();
    let took = until("both have lost all", none).await;
    println!("both have lost all after {took:?}");
    kafka.restart();
    let took = until("two share after the restart", || is_fair(&[&one, &other])).await;
    println!("two share after the restart after {took:?}");
    one.leave().await;
    until("the other holds all", || other.holds() == all()).await;
}

#[tokio::test]
async fn members_that_live_keep_their_partitions_through_many_short_sessions() {
    let (log, group) = (new_log().await, unique_name("group"));
    let join = |node| Member::join(&*log.log, &group, node, SHORT_SESSION);
    let (one, other) = (join("one"), join("other"));
    until("two share", || is_fair(&[&one, &other])).await;
    let changes = || {
        let count = |member: &Member| member.told.lock().unwrap().changes.len();
        (count(&one), count(&other))
    };
    let before = changes();
    // Nothing may change; the only way to see that is to wait.
    tokio::time::sleep(SHORT_SESSION * 8).await;
    assert_eq!(changes(), before, "somebody was taken for dead");
}

#[tokio::test]
async fn an_assignment_that_was_not_fetched_in_time_comes_in_full_later() {
    let (log, group) = (new_log().await, unique_name("group"));
    let options = |node: &str| MembershipOptions {
        group: group.clone(),
        node: node.to_owned(),
        session_timeout: LONG_SESSION,
    };
    let mut slow = log.log.membership(&options("slow")).unwrap();
    let other = Member::join(&*log.log, &group, "other", LONG_SESSION);
    until("the other has its half", || {
        other.holds().len() == PARTITIONS as usize / 2
    })
    .await;
    let mut holds = BTreeSet::new();
    let mut wait = Duration::ZERO;
    while holds.len() != PARTITIONS as usize / 2 || !holds.is_disjoint(&other.holds()) {
        let told = tokio::time::timeout(wait, slow.next()).await;
        match told.map(Result::unwrap) {
            Ok(Assignment::Gained(partitions)) => holds.extend(partitions),
            Ok(Assignment::Lost(partitions)) => holds.retain(|held| !partitions.contains(held)),
            // A cancelled wait loses nothing.
            Err(_elapsed) => assert!(wait.is_zero(), "{holds:?} is not half of all"),
        }
        wait = PATIENCE - wait;
    }
    slow.leave().await;
    assert!(matches!(slow.next().await, Ok(Assignment::Lost(_))));
    assert!(matches!(slow.next().await, Err(LogError::Closed)));
}
