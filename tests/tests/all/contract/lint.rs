//! The committed OpenAPI document and JSON Schemas before the linters and validators that teams have in
//! their pipelines.

use super::{run, schemas, tool, tools};

/// Redocly's recommended rules, with every warning an error.
#[test]
fn the_document_follows_redoclys_recommended_rules() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("redocly.yaml"),
        "extends: [recommended]\n",
    )
    .unwrap();
    let mut redocly = tool("redocly", folder.path());
    redocly.env("REDOCLY_TELEMETRY", "off");
    redocly.args(["lint", "--max-problems", "1000", "--format", "json"]);
    let said = run(redocly.arg(schemas().join("openapi.json")));
    for kind in ["errors", "warnings"] {
        assert!(said.contains(&format!("\"{kind}\": 0")), "{said}");
    }
}

#[test]
fn the_document_follows_spectrals_rules_for_openapi() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(".spectral.yaml"),
        "extends: ['spectral:oas']\n",
    )
    .unwrap();
    let mut spectral = tool("spectral", folder.path());
    spectral.args([
        "lint",
        "--ruleset",
        ".spectral.yaml",
        "--fail-severity",
        "hint",
    ]);
    run(spectral.arg(schemas().join("openapi.json")));
}

/// In strict mode, Ajv refuses every keyword and format that it does not know.
#[test]
fn a_strict_validator_takes_every_schema() {
    let mut node = tool("node", &tools());
    node.arg("--input-type=commonjs").arg("--eval");
    node.arg(include_str!("strict.js")).arg(schemas());
    let said = run(&mut node);
    assert!(said.contains("28 schemas"), "{said}");
}
