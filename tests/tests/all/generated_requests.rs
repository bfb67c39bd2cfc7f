//! Requests that Schemathesis generates from a door's OpenAPI document; it knows nothing else of the
//! door.
//!
//! Deliberately absent: the doors, and which checks are left out (`schemathesis.toml`).

use std::process::Command;

const HOOKS: &str = include_str!("command_door/schemathesis_hooks.py");

/// Sends at most `examples_max` valid and invalid requests to each operation, and asserts that the
/// answers are as the document says. `ops/setup`, which `make test` calls, installs Schemathesis.
pub(crate) async fn assert_door_keeps_its_document(url: &str, settings: &str, examples_max: u32) {
    let program = std::env::var("ANNALS_SCHEMATHESIS").expect(
        "ANNALS_SCHEMATHESIS names schemathesis: run `make test`, or `eval \"$(ops/setup \
         --print-env)\"` after `ops/setup`",
    );
    // A fixed seed gives the same requests every time.
    let seed = std::env::var("ANNALS_TESTS_SEED").unwrap_or_else(|_| "1".to_owned());
    // Schemathesis writes caches into its working folder.
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("schemathesis.toml", settings),
        ("schemathesis_hooks.py", HOOKS),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let document = format!("{url}/openapi.json");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .current_dir(folder.path())
            .args(["--config-file", "schemathesis.toml", "run", &document])
            .args(["--max-examples", &examples_max.to_string()])
            .args(["--no-color", "--seed", &seed])
            .output()
            .expect("schemathesis runs")
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
}
