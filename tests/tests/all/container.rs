//! The image and the compose file: their linters find nothing, and what the compose file says works: its
//! brokers, its commands and its health checks are run here as processes, with addresses of this machine
//! in place of the containers' names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::harness::kafka::given::Given;
use tests::harness::ports;
use tests::harness::postgres::Postgres;

use crate::cli::program::{Server, annals, folder};
use crate::contract::tool;
use crate::querying::users_tools;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/container")
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}\n{errors}");
    said
}

#[test]
fn the_linters_of_container_files_find_nothing() {
    let mut hadolint = Command::new(users_tools().join("bin/hadolint"));
    succeeds(hadolint.arg(sources().join("Containerfile")));
    // The schema of compose files, and what is an error beyond it.
    let mut dclint = tool("node", &users_tools());
    dclint.arg(users_tools().join("node_modules/.bin/dclint"));
    succeeds(dclint.arg("--quiet").arg(sources().join("compose.yaml")));
}

/// The compose file, with all references resolved.
fn compose() -> Value {
    let mut python = Command::new(users_tools().join("bin/python"));
    python.args([
        "-c",
        "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))",
    ]);
    let said = succeeds(python.arg(sources().join("compose.yaml")));
    serde_json::from_str(&said).unwrap()
}

/// A service's environment, with addresses of this machine.
fn environment(service: &Value, here: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let given = service["environment"].as_object().unwrap();
    let given = given.iter().map(|(name, value)| {
        let value = value.as_str().unwrap().to_owned();
        let local = |text: String, (there, here): (&String, &String)| text.replace(there, here);
        (name.clone(), here.iter().fold(value, local))
    });
    given.collect()
}

/// `server.properties`, as the image of Kafka makes it of its environment.
fn properties(environment: &BTreeMap<String, String>) -> String {
    let property = |(name, value): (&String, &String)| {
        let name = name.strip_prefix("KAFKA_")?;
        let is_setting = !["HEAP_OPTS", "LOG_DIRS"].contains(&name);
        is_setting.then(|| format!("{}={value}\n", name.to_lowercase().replace('_', ".")))
    };
    environment.iter().filter_map(property).collect()
}

#[test]
fn what_the_compose_file_says_works() {
    let compose = compose();
    let services = &compose["services"];
    let (mut here, mut listens) = (BTreeMap::new(), BTreeMap::new());
    for number in 1..=3 {
        let (clients, controllers) = (ports::free(), ports::free());
        for (there, port) in [(9092, clients), (9093, controllers)] {
            here.insert(
                format!("kafka-{number}:{there}"),
                format!("127.0.0.1:{port}"),
            );
        }
        listens.insert(number, (clients, controllers));
    }
    let postgres = Postgres::start();
    let url = postgres.url("annals");
    here.insert(
        "postgresql://annals:${POSTGRES_PASSWORD:?see example.env}@postgres/annals".to_owned(),
        url,
    );
    let secret = "${ANNALS_CLUSTER_SECRET:?see example.env}".to_owned();
    here.insert(secret, "a secret of this test alone".to_owned());
    let broker = |number: u32| {
        let (clients, controllers) = listens[&number];
        let mut here = here.clone();
        here.insert("://:9092".to_owned(), format!("://127.0.0.1:{clients}"));
        here.insert("://:9093".to_owned(), format!("://127.0.0.1:{controllers}"));
        let environment = environment(&services[format!("kafka-{number}")], &here);
        (properties(&environment), clients)
    };
    let _brokers = Given::start(&[broker(1), broker(2), broker(3)]);

    let folder = folder();
    let command = |name: &str| {
        let arguments = services[name]["command"].as_array().unwrap().iter();
        let arguments: Vec<&str> = arguments.map(|word| word.as_str().unwrap()).collect();
        (arguments, environment(&services[name], &here))
    };
    // Compose repeats both at each start.
    for _ in 0..2 {
        for name in ["log", "schema"] {
            let (arguments, environment) = command(name);
            let mut annals = annals(folder.path());
            succeeds(annals.args(arguments).envs(environment));
        }
    }
    let (arguments, mut environment) = command("annals-1");
    // The name is that of a container; the node is reached where it listens.
    environment.remove("ANNALS_ADVERTISE");
    let more: Vec<_> = environment
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let server = Server::start_in(folder.path(), &arguments, &more);
    let (_, port) = server.url.rsplit_once(':').unwrap();
    let health = services["annals-1"]["healthcheck"]["test"]
        .as_array()
        .unwrap();
    let health: Vec<String> = health[1..]
        .iter()
        .map(|word| word.as_str().unwrap().replace("$$", "$"))
        .collect();
    let check = |port: &str| {
        let mut check = Command::new(&health[0]);
        check.args(health[1..].iter().map(|word| word.replace("4747", port)));
        check.output().unwrap().status.success()
    };
    assert!(check(port), "the node is ready");
    assert!(!check(&ports::free().to_string()), "nobody is there");
}
