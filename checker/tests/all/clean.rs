//! Runs in which every promise held, even if they look unusual.

use checker::dump::RawRecord;
use checker::report::Unknowns;
use checker::{Checker, Loss, Options, Scope};
use serde_json::json;

use crate::world::{World, Written, claim, complete, failed, ok, refused, turned_away, unknown};

fn holds(world: &World) -> checker::Report {
    let report = world.check();
    assert_eq!(report.violations, [], "{:?}", report.violations);
    assert!(report.is_clean());
    report
}

#[test]
fn a_quiet_run_is_counted() {
    let mut world = World::new(2);
    world.add("s-1", "a", 0, 5);
    world.add("s-1", "b", 1, 5);
    world.add("s-2", "a", 0, 7);
    world.invoke("s-1", "c", 95);
    world.refuse("s-1", "c", 2, 95, "counter_out_of_range");
    world.line("s-1", "c", refused("counter_out_of_range"));
    let summary = holds(&world).summary;
    assert_eq!((summary.commands, summary.attempts), (4, 4));
    assert_eq!(
        (summary.accepted, summary.refused, summary.events),
        (3, 1, 3)
    );
    assert_eq!(
        (summary.records, summary.claims, summary.streams),
        (6, 2, 2)
    );
    assert_eq!(summary.answers, [("ok", 3), ("refused", 1)].into());
}

#[test]
fn unknown_commands_may_be_there_or_not() {
    let mut world = World::new(1);
    for id in ["a", "b", "c"] {
        world.invoke("s-1", id, 1);
        world.line("s-1", id, unknown());
    }
    world.invoke("s-1", "d", 200);
    world.accept("s-1", "b", 0, 1);
    world.refuse("s-1", "d", 1, 200, "counter_out_of_range");
    let summary = holds(&world).summary;
    let resolved = Unknowns {
        accepted: 1,
        refused: 1,
        absent: 2,
    };
    assert_eq!(summary.unknown_resolved, resolved);
    assert_eq!(summary.known_as, [("unknown", 4)].into());
}

#[test]
fn a_command_may_be_sent_again_until_it_is_answered() {
    let mut world = World::new(1);
    let answer = ok(1, &[("a-e", "Added", 1)]);
    world.invoke("s-1", "a", 1);
    world.line("s-1", "a", turned_away());
    world.invoke("s-1", "a", 1);
    world.line("s-1", "a", unknown());
    world.accept("s-1", "a", 0, 1);
    for _ in 0..2 {
        world.invoke("s-1", "a", 1);
        world.line("s-1", "a", answer.clone());
    }
    // The same id with other data fails for good; this answer is about the other data only.
    world.invoke("s-1", "a", 2);
    world.line("s-1", "a", failed());
    let summary = holds(&world).summary;
    assert_eq!((summary.commands, summary.attempts), (1, 5));
}

#[test]
fn orphans_are_counted_and_change_nothing() {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 1);
    let deposed = world.records()[0][1].clone();
    let mut late = deposed.clone();
    late.headers[2].1 = Some(vec![99; 16]);
    world.partitions[0].push(Written::Raw(deposed));
    world.partitions[0].push(Written::Raw(late));
    world.partitions[0].push(claim(3));
    world.partitions[0].push(claim(2));
    world.partitions[0].push(Written::Raw(RawRecord::default()));
    world.add("s-1", "b", 1, 1);
    let summary = holds(&world).summary;
    let orphans = [("duplicate", 1), ("late", 1), ("losing", 1), ("foreign", 1)].into();
    assert_eq!(summary.orphans, orphans);
    assert_eq!(summary.claims, 2);
}

#[test]
fn an_id_may_come_again_after_the_window() {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 1);
    world.clock_ms += 3_600_000;
    world.add("s-1", "b", 1, 1);
    world.invoke("s-1", "a", 1);
    world.accept("s-1", "a", 2, 1);
    world.line("s-1", "a", ok(3, &[("a-e", "Added", 3)]));
    holds(&world);
}

#[test]
fn a_stale_version_is_refused_with_the_versions_of_the_log() {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 1);
    let mut invoke = crate::world::add(1);
    if let checker::history::What::Invoke(invoke) = &mut invoke {
        invoke.expected_version = Some(0);
    }
    world.line("s-1", "b", invoke);
    let facts = json!({"expected_version": 0, "current_version": 1});
    world.commit(
        0,
        "s-1",
        json!({
            "from_version": 1,
            "command": {"id": "b", "type": "Add", "schema": 1, "data": {"by": 1}, "expected_version": 0},
            "outcome": "rejected",
            "rejection": {"code": "version_conflict", "detail": "no", "facts": facts},
        }),
    );
    let mut said = refused("version_conflict");
    if let checker::history::What::Refused(said) = &mut said {
        said.facts = facts.as_object().unwrap().clone();
        said.version = Some(1);
    }
    world.line("s-1", "b", said);
    holds(&world);
}

#[test]
fn lines_of_a_batch_may_be_sent_again_in_another_batch() {
    let mut world = World::new(1);
    for (batch, line, id) in [
        ("b1", 1, "a"),
        ("b1", 2, "b"),
        ("b2", 1, "a"),
        ("b2", 2, "b"),
    ] {
        let entry = world.invoke("s-1", id, 1);
        (entry.batch, entry.line) = (Some(batch.to_owned()), Some(line));
        let what = if line == 1 && batch == "b1" {
            unknown()
        } else {
            turned_away()
        };
        if batch == "b1" {
            world.line("s-1", id, what).batch = Some(batch.to_owned());
        }
    }
    world.accept("s-1", "a", 0, 1);
    world.accept("s-1", "b", 1, 1);
    world.line("s-1", "a", ok(1, &[("a-e", "Added", 1)]));
    world.line("s-1", "b", ok(2, &[("b-e", "Added", 2)]));
    holds(&world);
}

#[test]
fn what_two_clients_did_at_the_same_time_may_be_decided_in_any_order() {
    let mut world = World::new(1);
    world.line_of("c1", "s-1", "a", crate::world::add(1));
    world.line_of("c2", "s-1", "b", crate::world::add(1));
    world.accept("s-1", "b", 0, 1);
    world.line_of("c2", "s-1", "b", ok(1, &[("b-e", "Added", 1)]));
    world.accept("s-1", "a", 1, 1);
    world.line_of("c1", "s-1", "a", ok(2, &[("a-e", "Added", 2)]));
    holds(&world);
}

#[test]
fn a_history_that_is_not_complete_tolerates_others() {
    let mut world = World::new(1);
    world.accept("s-1", "a", 0, 1);
    let partial = Options {
        scope: Scope::Partial,
        ..complete()
    };
    assert!(world.check_with(partial).is_clean());
    assert!(!world.check().is_clean());
}

#[test]
fn in_a_partial_history_recorded_times_that_do_not_increase_are_counted_and_are_no_violation() {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 1);
    world.add("s-1", "b", 1, 1);
    world.add("s-1", "c", 2, 1);
    let first = world.value(0)["recorded_at"].clone();
    world.value(1)["recorded_at"] = first;
    world.value(2)["recorded_at"] = serde_json::json!(crate::world::moment(0));
    let partial = Options {
        scope: Scope::Partial,
        ..complete()
    };
    let report = world.check_with(partial);
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert_eq!(report.expected, [("recorded_at_not_increasing", 2)].into());
    assert!(!world.check().is_clean());
}

#[test]
fn a_declared_loss_is_counted_and_is_no_violation() {
    let mut world = World::new(1);
    world.add("s-1", "a", 0, 1);
    world.add("s-1", "b", 1, 1);
    world.partitions[0].pop();
    let options = Options {
        loss: Loss::Expected,
        ..complete()
    };
    let report = world.check_with(options);
    assert!(report.is_clean());
    assert_eq!(report.expected, [("lost", 1)].into());
    assert!(!world.check().is_clean());
}

#[test]
fn a_torn_line_is_counted() {
    let mut checker = Checker::new(Options::default());
    checker.history("c1", &b"{\"at_ms\":1,\"cli"[..]).unwrap();
    assert_eq!(checker.finish().summary.torn_lines, 1);
}

#[test]
fn a_log_out_of_order_is_no_log() {
    let world = World::new(2);
    let mut records = world.records();
    records[1][0].offset = 3;
    let again = records[1][0].clone();
    records[1].push(again);
    let mut checker = Checker::new(Options::default());
    assert!(
        checker
            .dump("log", crate::world::dump(&records).as_slice())
            .is_err()
    );
}
