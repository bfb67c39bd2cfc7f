//! One history and log for each broken promise; the checker reports exactly that promise's name.

use std::collections::BTreeSet;

use checker::history::{EventRef, What};
use checker::{Kind, Report};
use serde_json::{Value, json};

use crate::world::{World, Written, add, claim, failed, moment, ok, refused, turned_away, unknown};

/// A run with three accepted commands: `a` and `b` on `s-1`, `c` on `s-2`.
fn run() -> World {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 5);
    world.add("s-1", "b", 1, 5);
    world.add("s-2", "c", 0, 5);
    assert!(world.check().is_clean());
    world
}

fn finds(world: &World, kind: Kind) -> Report {
    let report = world.check();
    let names: Vec<_> = report.counts.keys().copied().collect();
    assert_eq!(names, [kind.name()], "{:#?}", report.violations);
    for violation in &report.violations {
        assert!(!violation.evidence.is_empty(), "{violation}");
    }
    report
}

fn answered(world: &mut World, id: &str) -> usize {
    let is_it =
        |entry: &checker::history::Entry| entry.id == id && !matches!(entry.what, What::Invoke(_));
    world.history.iter().position(is_it).unwrap()
}

/// The cases, each with the kind of violation that must be found.
fn cases() -> Vec<(Kind, World)> {
    let mut cases: Vec<(Kind, World)> = Vec::new();
    let mut case = |kind: Kind, spoil: &dyn Fn(&mut World)| {
        let mut world = run();
        spoil(&mut world);
        cases.push((kind, world));
    };

    case(Kind::Lost, &|world| {
        world.partitions[0].pop();
    });
    case(Kind::Lost, &|world| {
        // The commit is in the log, but after a claim that deposed its writer.
        let deposed = world.records()[0][3].clone();
        world.partitions[0][3] = claim(2);
        world.partitions[0].push(Written::Raw(deposed));
    });
    case(Kind::LostRefusal, &|world| {
        world.invoke("s-1", "d", 200);
        world.line("s-1", "d", refused("counter_out_of_range"));
    });
    case(Kind::AnswerContradicted, &|world| {
        let at = answered(world, "b");
        world.history[at].what = ok(3, &[("b-e", "Added", 3)]);
    });
    case(Kind::AnswerContradicted, &|world| {
        let at = answered(world, "b");
        world.history[at].what = ok(2, &[("other", "Added", 2)]);
    });
    case(Kind::AnswerContradicted, &|world| {
        world.invoke("s-1", "d", 200);
        world.refuse("s-1", "d", 2, 200, "counter_out_of_range");
        world.line("s-1", "d", refused("another_rule"));
    });
    case(Kind::AnswerContradicted, &|world| {
        world.invoke("s-1", "d", 200);
        world.refuse("s-1", "d", 2, 200, "counter_out_of_range");
        world.line("s-1", "d", ok(2, &[]));
    });
    case(Kind::AnswerContradicted, &|world| {
        world.invoke("s-1", "d", 0);
        world.accept("s-1", "d", 2, 0);
        world.line("s-1", "d", refused("another_rule"));
    });
    case(Kind::AnswersDiffer, &|world| {
        world.invoke("s-1", "b", 5);
        world.line("s-1", "b", ok(3, &[("b-e", "Added", 3)]));
    });
    case(Kind::AnswersDiffer, &|world| {
        world.invoke("s-1", "b", 5);
        world.line("s-1", "b", refused("counter_out_of_range"));
    });
    case(Kind::Torn, &|world| {
        let at = answered(world, "c");
        if let What::Ok(answer) = &mut world.history[at].what {
            answer.version = 2;
            answer.events.push(EventRef {
                id: "more".to_owned(),
                type_name: "Added".to_owned(),
                version: 2,
            });
        }
    });
    case(Kind::Doubled, &|world| {
        // The retry was decided again, as by an owner that lost its table of command ids.
        world.invoke("s-1", "b", 5);
        world.line("s-1", "b", unknown());
        world.accept("s-1", "b", 2, 5);
    });
    case(Kind::Doubled, &|world| {
        world.clock_ms += 3_590_000;
        world.accept("s-1", "a", 2, 5);
    });
    case(Kind::GhostEvent, &|world| {
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 2, 5);
        world.line("s-1", "d", refused("another_rule"));
    });
    case(Kind::GhostEvent, &|world| {
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 2, 5);
        world.line("s-1", "d", failed());
    });
    case(Kind::AttemptedAlthoughTurnedAway, &|world| {
        for _ in 0..2 {
            world.invoke("s-1", "d", 5);
            world.line("s-1", "d", turned_away());
        }
        world.accept("s-1", "d", 2, 5);
    });
    case(Kind::Invented, &|world| world.accept("s-1", "d", 2, 5));
    case(Kind::DataChanged, &|world| {
        world.invoke("s-1", "d", 4);
        world.accept("s-1", "d", 2, 5);
    });
    case(Kind::DataChanged, &|world| {
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 2, 5);
        world.value(3)["command"]["expected_version"] = json!(2);
    });
    case(Kind::Gap, &|world| {
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 3, 5);
    });
    case(Kind::Gap, &|world| {
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 1, 5);
    });
    case(Kind::StreamInTwoPartitions, &|world| {
        world.partitions.push(vec![claim(1)]);
        world.invoke("s-3", "d", 0);
        world.accept("s-3", "d", 0, 0);
        world.invoke("s-3", "e", 0);
        let command = json!({"id": "e", "type": "Add", "schema": 1, "data": {"by": 0}});
        let value = json!({"from_version": 0, "command": command, "outcome": "accepted"});
        world.commit(1, "s-3", value);
    });
    case(Kind::ExpectedVersionIgnored, &|world| {
        expecting(world, "d", 1);
        world.accept("s-1", "d", 2, 5);
        world.value(3)["command"]["expected_version"] = json!(1);
    });
    case(Kind::ExpectedVersionIgnored, &|world| {
        expecting(world, "d", 1);
        world.refuse("s-1", "d", 2, 5, "counter_out_of_range");
        world.value(3)["command"]["expected_version"] = json!(1);
    });
    case(Kind::StaleRefusalContradicted, &|world| {
        expecting(world, "d", 2);
        conflict(world, 2, json!({}));
    });
    case(Kind::StaleRefusalContradicted, &|world| {
        expecting(world, "d", 1);
        conflict(
            world,
            1,
            json!({"expected_version": 1, "current_version": 3}),
        );
    });
    case(Kind::StaleRefusalContradicted, &|world| {
        expecting(world, "d", 1);
        conflict(
            world,
            1,
            json!({"expected_version": 1, "current_version": 2}),
        );
        let mut said = refused("version_conflict");
        if let What::Refused(said) = &mut said {
            said.facts.insert("current_version".to_owned(), json!(3));
        }
        world.line("s-1", "d", said);
    });
    case(Kind::OutOfOrder, &|world| {
        // d was answered before e was sent, but in the log d comes after e.
        world.invoke("s-1", "d", 5);
        world.line("s-1", "d", ok(4, &[("d-e", "Added", 4)]));
        world.invoke("s-1", "e", 5);
        world.accept("s-1", "e", 2, 5);
        world.accept("s-1", "d", 3, 5);
        world.line("s-1", "e", ok(3, &[("e-e", "Added", 3)]));
    });
    case(Kind::OutOfOrder, &|world| {
        // Two clients: a refusal ignored a command that had been answered before it was sent.
        world.line_of("c2", "s-2", "e", add(1));
        world.line_of("c2", "s-2", "e", ok(2, &[("e-e", "Added", 2)]));
        world.line_of("c3", "s-2", "f", add(200));
        world.refuse("s-2", "f", 1, 200, "counter_out_of_range");
        world.accept("s-2", "e", 1, 1);
    });
    case(Kind::BatchOutOfOrder, &|world| {
        batch(world, &["d", "e"]);
        world.accept("s-1", "e", 2, 5);
        world.accept("s-1", "d", 3, 5);
        world.line("s-1", "e", ok(3, &[("e-e", "Added", 3)]));
        world.line("s-1", "d", ok(4, &[("d-e", "Added", 4)]));
    });
    case(Kind::BehindUnanswered, &|world| {
        batch(world, &["d", "e"]);
        world.line("s-1", "d", turned_away());
        world.accept("s-1", "e", 2, 5);
        world.line("s-1", "e", ok(3, &[("e-e", "Added", 3)]));
    });
    case(Kind::BehindUnanswered, &|world| {
        batch(world, &["d", "e"]);
        world.line("s-1", "d", unknown());
        world.line("s-1", "e", unknown());
        world.accept("s-1", "e", 2, 5);
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 3, 5);
        world.line("s-1", "d", ok(4, &[("d-e", "Added", 4)]));
    });
    case(Kind::RuleBroken, &|world| {
        world.invoke("s-1", "d", 100);
        world.accept("s-1", "d", 2, 100);
    });
    case(Kind::RuleBroken, &|world| {
        world.invoke("s-1", "d", 5);
        world.refuse("s-1", "d", 2, 5, "counter_out_of_range");
    });
    case(Kind::RuleBroken, &|world| {
        // Decided on a history in which b is missing.
        world.invoke("s-1", "d", 5);
        world.accept("s-1", "d", 2, 5);
        world.value(3)["events"][0]["data"]["total"] = json!(10);
    });
    case(Kind::RecordedAtNotIncreasing, &|world| {
        world.value(2)["recorded_at"] = json!(moment(0));
    });
    case(Kind::RecordedAtNotIncreasing, &|world| {
        let before = world.value(1)["recorded_at"].clone();
        world.value(2)["recorded_at"] = before;
    });
    case(Kind::BusinessTimeChanged, &|world| {
        world.value(2)["events"][0]["occurred_at"] = json!("2030-01-01T00:00:00Z");
    });
    case(Kind::BusinessTimeChanged, &|world| {
        world.value(2)["command"]["occurred_at"] = json!(moment(0));
        world.value(2)["events"][0]["occurred_at"] = json!(moment(1));
    });
    case(Kind::Damage, &|world| {
        world.value(2)["events"][0]["occurred_at"] = json!("yesterday");
        unanswered(world, "c");
    });
    case(Kind::Damage, &|world| {
        world.value(2)["recorded_at"] = json!("yesterday");
        unanswered(world, "c");
    });
    case(Kind::Damage, &|world| {
        world.value(2)["stream"] = json!("s-9");
        unanswered(world, "c");
    });
    case(Kind::Damage, &|world| {
        world.value(2)["rejection"] = json!({"code": "x", "detail": "x"});
        unanswered(world, "c");
    });
    case(Kind::Damage, &|world| {
        // A commit of a term that was never claimed.
        let mut record = world.records()[0][3].clone();
        record.headers[1].1 = Some(9_u64.to_be_bytes().to_vec());
        world.partitions[0].push(Written::Raw(record));
    });
    case(Kind::Damage, &|world| {
        // The store lost the record before it.
        let last = world.records()[0][3].clone();
        world.partitions[0].truncate(2);
        world.partitions[0].push(Written::Raw(last));
        unanswered(world, "b");
        unanswered(world, "c");
    });
    case(Kind::OtherLog, &|world| {
        let mut other = claim(1);
        if let Written::Claim { log, .. } = &mut other {
            *log = [8; 16];
        }
        world.partitions.push(vec![other]);
    });
    case(Kind::NewerFormat, &|world| {
        let mut newer = claim(2);
        if let Written::Claim { version, .. } = &mut newer {
            *version = 2;
        }
        world.partitions[0].push(newer);
    });
    case(Kind::AnswerWithoutInvoke, &|world| {
        world.line("s-1", "a", ok(1, &[("a-e", "Added", 1)]));
    });
    cases
}

/// Sends `Add 5` to `s-1`, expecting a version.
fn expecting(world: &mut World, id: &str, version: u64) {
    let mut invoke = add(5);
    if let What::Invoke(invoke) = &mut invoke {
        invoke.expected_version = Some(version);
    }
    world.line("s-1", id, invoke);
}

/// Records the refusal of `d` on `s-1`, which is at version 2, for a stale version.
fn conflict(world: &mut World, expected: u64, facts: Value) {
    world.refuse("s-1", "d", 2, 5, "version_conflict");
    world.value(3)["command"]["expected_version"] = json!(expected);
    world.value(3)["rejection"]["facts"] = facts;
}

/// Sends `Add 5` to `s-1` once for each id, all in one batch.
fn batch(world: &mut World, ids: &[&str]) {
    for (line, id) in (1..).zip(ids) {
        let entry = world.invoke("s-1", id, 5);
        (entry.batch, entry.line) = (Some("b1".to_owned()), Some(line));
    }
}

/// Replaces the answer to a command by *unknown*.
fn unanswered(world: &mut World, id: &str) {
    let at = answered(world, id);
    world.history[at].what = unknown();
}

#[test]
fn each_broken_promise_is_found_by_its_own_name_alone() {
    for (kind, world) in cases() {
        finds(&world, kind);
    }
}

#[test]
fn every_kind_has_a_case() {
    let with_a_case: BTreeSet<Kind> = cases().into_iter().map(|(kind, _)| kind).collect();
    let all: BTreeSet<Kind> = Kind::ALL.iter().copied().collect();
    assert_eq!(with_a_case, all);
}

#[test]
fn the_evidence_leads_to_the_lines_and_the_record() {
    let mut world = run();
    let at = answered(&mut world, "b");
    world.history[at].what = ok(3, &[("b-e", "Added", 3)]);
    let report = finds(&world, Kind::AnswerContradicted);
    let text = report.violations[0].to_string();
    let expected = "answer_contradicted: main/s-1 command b: its version or events differ from the \
                    answer (c1.jsonl:4, partition 0 offset 2)";
    assert_eq!(text, expected);
}
