//! Clients that generators make from the document, driven against the real program: a command, the
//! same again, refusals with their facts, a payment, pages, reading one's own write, events, a batch.
//!
//! Deliberately absent: the generators that take longer, or need registries (`make clients`).

mod packages;

use std::path::Path;
use std::process::Command;

use tests::harness::kafka::java;

use super::{run, schemas, tool, tools};
use crate::cli::program::{Server, folder};

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn a_generated_python_client_does_all_that_a_shop_needs() {
    let made = folder();
    write(
        made.path(),
        &[
            // The formatter that it would call afterwards changes nothing that counts.
            (
                "settings.yaml",
                "post_hooks: []\npackage_name_override: annals_client\n",
            ),
            ("drive.py", include_str!("clients/drive.py")),
        ],
    );
    let mut generator = tool("openapi-python-client", made.path());
    generator.args(["generate", "--meta", "none", "--config", "settings.yaml"]);
    generator.args(["--output-path", "annals_client", "--path"]);
    let said = run(generator.arg(schemas().join("openapi.json")));
    // It knows no lines of JSON; it sends batches as arrays.
    let warnings = said.matches("WARNING").count();
    let of_lines = said
        .matches("Unsupported content type application/x-ndjson")
        .count();
    assert_eq!((warnings, of_lines), (1, 1), "{said}");
    let data = folder();
    let server = Server::dev(data.path());
    let mut python = tool("python", made.path());
    run(python.arg("drive.py").arg(&server.url));
}

#[test]
fn a_generated_typescript_client_does_all_that_a_shop_needs() {
    drive_typescript(include_str!("clients/drive.ts"), |made| {
        let mut generator = tool("openapi-typescript", made);
        generator.arg(schemas().join("openapi.json"));
        run(generator.args(["--output", "annals.ts", "--enum-values"]));
    });
}

#[test]
fn a_client_of_openapi_generator_does_all_that_a_shop_needs() {
    drive_typescript(include_str!("clients/drive-fetch.ts"), |made| {
        let mut generator = Command::new(java());
        generator
            .current_dir(made)
            .arg("-jar")
            .arg(tools().join("openapi-generator.jar"));
        generator.args(["generate", "-g", "typescript-fetch", "-o", "annals", "-i"]);
        generator.arg(schemas().join("openapi.json"));
        run(generator.arg("--additional-properties=importFileExtension=.js,stringEnums=true"));
    });
}

#[test]
fn the_page_about_clients_lists_each_generator_in_its_pinned_version() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/clients.md")).unwrap();
    let mut script = tool("python", &root);
    let names = run(script.args(["clients/generators/run", "--names"]));
    assert_eq!(names.lines().count(), 8, "{names}");
    for name in names.lines() {
        assert!(page.contains(&format!("| {name} | everything |")), "{name}");
    }
}

/// Compiles a script with the client that `generate` makes, and drives a node with it.
fn drive_typescript(script: &str, generate: impl FnOnce(&Path)) {
    let folder_of_client = folder();
    let made = folder_of_client.path();
    write(
        made,
        &[
            ("package.json", r#"{"type": "module"}"#),
            ("tsconfig.json", include_str!("clients/tsconfig.json")),
            ("drive.ts", script),
        ],
    );
    generate(made);
    let packages = tools().join("node_modules");
    std::os::unix::fs::symlink(packages, made.join("node_modules")).unwrap();
    run(tool("tsc", made).args(["--project", "."]));
    let data = folder();
    let server = Server::dev(data.path());
    run(tool("node", made).arg("drive.js").arg(&server.url));
}
