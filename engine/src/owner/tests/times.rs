//! When a commit is recorded, and the business time of its events where the client gave none.

use event_log::chain::{Chain, Verdict};
use event_log::claim::Claim;
use event_log::commit::{CommandPart, EventPart, Outcome};

use super::*;

fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_micros(1_000 * ms).unwrap()
}

/// The commits that count, in order.
fn commits(records: &[Record]) -> Vec<Commit> {
    let mut chain = Chain::genesis(Partition(0));
    let counts = |record: &&Record| {
        let verdict = chain.judge(record).expect("no damage");
        matches!(verdict, Verdict::Commit(_))
    };
    let read = |record: &Record| {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        Commit::read(key.unwrap(), value.unwrap()).unwrap()
    };
    records.iter().filter(counts).map(read).collect()
}

#[test]
fn commits_of_one_moment_are_recorded_a_microsecond_apart() {
    let mut world = World::owning();
    // Refusals and commits without events are recorded, too.
    for (ticket, id, amount) in [
        ("one", "a", 1),
        ("no", "b", 9),
        ("none", "c", 0),
        ("two", "d", 1),
    ] {
        world.send(ticket, id, amount);
    }
    world.settle();
    let found = commits(&world.records);
    let first = found[0].recorded_at.micros();
    let times = found.iter().map(|commit| commit.recorded_at.micros());
    assert!(times.eq(first..first + 4));
    // All commits share one reading of the clock, so none of them records a business time.
    for commit in &found {
        assert_eq!(commit.command.occurred_at, None);
        assert!(
            commit
                .events
                .iter()
                .all(|event| event.occurred_at.is_none())
        );
    }
}

#[test]
fn a_log_that_is_ahead_goes_on_and_events_happen_when_the_clock_says() {
    let mut world = World::owning();
    world.time_ms = 3_600_000;
    world.send("ahead", "a", 1);
    world.settle();
    world.time_ms = 60_000;
    world.send("default", "b", 1);
    let mut given = submission("c", 1, None);
    given.request.occurred_at = Some(at_ms(7));
    let now = world.now();
    world.owner.command(given, "given", now);
    world.settle();
    let found = commits(&world.records);
    let ahead = at_ms(3_600_000).micros();
    let times = found.iter().map(|commit| commit.recorded_at.micros());
    assert!(times.eq(ahead..ahead + 3));
    assert_eq!(found[1].command.occurred_at, None);
    assert_eq!(found[1].occurred_at(&found[1].events[0]), at_ms(60_000));
    assert_eq!(found[2].command.occurred_at, Some(at_ms(7)));
    assert_eq!(found[2].events[0].occurred_at, None);
    assert_eq!(found[2].occurred_at(&found[2].events[0]), at_ms(7));
}

/// A log of an earlier program: commits of a counter, recorded at these times.
fn older(times_ms: &[i64]) -> Vec<Record> {
    let mut chain = Chain::genesis(Partition(0));
    let claim = ClaimHeaders {
        term: Term(1),
        writer: WriterId(Uuid::from_u128(5)),
        log: log_id(),
        version: RECORD_VERSION,
    };
    let value = Claim {
        node: "before".to_owned(),
        address: None,
        idempotency_window_ms: event_log::claim::IDEMPOTENCY_WINDOW_MS,
        acknowledged: None,
        copied: None,
    };
    let mut records = vec![Record {
        leader_epoch: Some(0),
        ..Record::at(Offset(0), claim.record(value.to_value()))
    }];
    chain.judge(&records[0]).unwrap();
    for (number, ms) in (0..).zip(times_ms) {
        let submission = submission(&format!("old-{number}"), 0, None);
        let commit = Commit {
            commit: Uuid::from_u128(number),
            tenant: TenantId::default(),
            stream: submission.request.stream,
            from_version: 0,
            recorded_at: at_ms(*ms),
            command: CommandPart {
                id: submission.request.id,
                type_name: submission.request.command,
                schema: None,
                occurred_at: None,
                expected_version: None,
                data: submission.command.data,
            },
            actor: None,
            correlation_id: None,
            causation_id: None,
            trace: None,
            outcome: Outcome::Accepted,
            rejection: None,
            events: Vec::<EventPart>::new(),
        };
        let headers = CommitHeaders {
            term: chain.term,
            writer: chain.writer,
            position: chain.position.next(),
            previous: chain.head,
        };
        let record = headers.record(commit.key(), commit.to_value().unwrap());
        let record = Record {
            leader_epoch: records[0].leader_epoch,
            ..Record::at(records.last().unwrap().offset.next(), record)
        };
        chain.judge(&record).unwrap();
        records.push(record);
    }
    records
}

#[test]
fn times_that_stood_still_or_fell_before_are_no_damage_and_what_follows_lies_behind_all_of_them() {
    let mut world = World::owning();
    world.records = older(&[10_000, 12_000, 12_000, 11_000]);
    world.owner = owner(2);
    world.owner.start(Offset(0));
    world.settle();
    assert_eq!(world.owner.phase(), &Phase::Owning);
    world.send("one", "a", 1);
    world.settle();
    let found = commits(&world.records);
    let last = found.last().unwrap();
    assert_eq!(last.recorded_at.micros(), at_ms(12_000).micros() + 1);
    assert_eq!(last.occurred_at(&last.events[0]), at_ms(1_000));
    // A follower finds the same, and goes on from the latest time.
    let mut follower = event_log::subscription::Follower::new(Partition(0), None);
    for record in &world.records {
        follower.take(record.clone()).unwrap();
    }
    let after = follower.batch().unwrap().after;
    assert_eq!(after.last_recorded_at, Some(last.recorded_at));
    let mut follower = event_log::subscription::Follower::new(Partition(0), None);
    for record in &world.records[..5] {
        follower.take(record.clone()).unwrap();
    }
    let after = follower.batch().unwrap().after;
    assert_eq!(after.last_recorded_at, Some(at_ms(12_000)));
}
