//! `annals schema check` and the golden samples, for a program that is not the shop.

use std::fs;

use serde_json::{Value, json};

use super::{NEW, OLD, assert_exit, call, folder, stderr, stdout};

fn read(path: &std::path::Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_sample_of_an_old_shape_stays_and_shows_what_it_is_read_as() {
    let folder = folder();
    let schemas = folder.path().join("schemas");
    assert_exit(&call(OLD, folder.path(), &["schema"]), 0);
    let sample = schemas.join("samples/events/lamp/LampLit.v1.json");
    let newest = json!({"schema": 1, "data": {"watts": 40}});
    assert_eq!(
        read(&sample),
        json!({"schema": 1, "data": {"watts": 40}, "newest": newest})
    );
    // A golden sample may be made by hand, and is kept as it is.
    let by_hand = json!({"schema": 1, "data": {"watts": 7}});
    fs::write(&sample, by_hand.to_string()).unwrap();
    for _ in 0..2 {
        assert_exit(&call(NEW, folder.path(), &["schema"]), 0);
        let newest = json!({"schema": 2, "data": {"lumens": 84}});
        assert_eq!(
            read(&sample),
            json!({"schema": 1, "data": {"watts": 7}, "newest": newest})
        );
        assert!(schemas.join("samples/events/lamp/LampLit.v2.json").exists());
        assert!(
            schemas
                .join("samples/commands/lamp/LightLamp.v1.json")
                .exists()
        );
    }
    // Without its upcaster, the old program cannot write the folder.
    let back = call(OLD, folder.path(), &["schema"]);
    assert_exit(&back, 1);
    assert!(
        stderr(&back).contains("cannot be read any more"),
        "{back:?}"
    );
}

#[test]
fn the_shop_reads_what_was_released_and_what_is_committed() {
    let folder = folder();
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for base in ["ops/contract/released", "schemas"] {
        let base = repository.join(base).display().to_string();
        let check = crate::cli::program::annals(folder.path())
            .args(["schema", "check", "--base", &base])
            .output()
            .unwrap();
        assert_exit(&check, 0);
        assert!(
            stderr(&check).contains("0 incompatible changes"),
            "{check:?}"
        );
    }
}

#[test]
fn an_incompatible_change_is_named_by_message_field_and_rule() {
    let folder = folder();
    let check = |program: &str, base: &str| {
        let arguments = ["schema", "check", "--base", base, "--output", "json"];
        call(program, folder.path(), &arguments)
    };
    let broken = |program: &str, base: &str| -> Vec<String> {
        let output = check(program, base);
        assert_exit(&output, 1);
        let rows: Vec<Value> = serde_json::from_str(&stdout(&output)).unwrap();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let line = |row| {
            format!(
                "{} {} {}",
                text(row, "message"),
                text(row, "field"),
                text(row, "rule")
            )
        };
        rows.iter().map(line).collect()
    };
    assert_exit(&call(OLD, folder.path(), &["schema", "old"]), 0);
    assert_exit(&call(NEW, folder.path(), &["schema", "new"]), 0);
    // An upgrade with upcasters is compatible; a step back is not.
    assert_exit(&check(NEW, "old"), 0);
    assert_exit(&check(NEW, "new"), 0);
    let back = broken(OLD, "new");
    for expected in [
        "commands/lamp/LightLamp  version_lowered",
        "commands/lamp/PutOutLamp  message_removed",
        "events/lamp/LampPutOut  message_removed",
        "events/lamp/LampLit  sample_unreadable",
    ] {
        assert!(
            back.iter().any(|line| line == expected),
            "{expected}: {back:#?}"
        );
    }

    // A base whose shapes of the same number are others.
    let edit = |file: &str, pointer: &str, value: Value| {
        let path = folder.path().join(file);
        let mut schema = read(&path);
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        schema.pointer_mut(parent).unwrap()[name] = value;
        fs::write(&path, schema.to_string()).unwrap();
        path.display().to_string()
    };
    let event = "new/events/lamp/LampLit.v2.json";
    let event = edit(event, "/properties/lumens/minimum", json!(-5));
    assert_eq!(
        broken(NEW, &event),
        ["events/lamp/LampLit /lumens limit_narrowed"]
    );
    let event = edit(
        "new/events/lamp/LampLit.v2.json",
        "/properties/lumens/minimum",
        json!(5),
    );
    assert_eq!(
        broken(NEW, &event),
        ["events/lamp/LampLit /lumens changed_without_version"]
    );
    let command = "new/commands/lamp/LightLamp.v2.json";
    let command = edit(command, "/properties/lumens/minimum", json!(5));
    // A command may take more than before, but no less.
    assert_exit(&check(NEW, &command), 0);
    let command = edit(
        "new/commands/lamp/LightLamp.v2.json",
        "/properties/hue",
        json!({"type": "string"}),
    );
    assert_eq!(
        broken(NEW, &command),
        ["commands/lamp/LightLamp /hue field_removed"]
    );
    // An upcaster that reads an old sample as something else than before.
    let sample = "new/samples/events/lamp/LampLit.v2.json";
    edit(sample, "/newest/data", json!({"lumens": 1}));
    let lines = broken(NEW, "new");
    assert!(
        lines.contains(&"events/lamp/LampLit  sample_read_otherwise".to_owned()),
        "{lines:#?}"
    );

    assert_exit(&check(NEW, "nowhere"), 7);
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert_exit(&check(NEW, "empty"), 7);
}
