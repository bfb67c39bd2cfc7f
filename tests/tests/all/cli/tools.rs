//! Commands that end by themselves.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tests::harness::{kafka, unique_name};

use super::program::{annals, assert_exit, call, folder, stderr, stdout};

#[test]
fn every_command_explains_itself() {
    let folder = folder();
    let help = call(folder.path(), &["--help"]);
    assert_exit(&help, 0);
    for expected in ["annals demo", "Exit codes:", "serve", "projections"] {
        assert!(stdout(&help).contains(expected), "{expected}");
    }
    for command in [
        "dev",
        "demo",
        "serve",
        "import olist",
        "generate",
        "import commands",
        "send",
        "events",
        "state",
        "log create",
        "log info",
        "log verify",
        "log copy",
        "log dump",
        "projections list",
        "projections rebuild",
        "migrate",
        "check",
        "verify-cluster",
        "check-history",
        "simulate",
        "config",
        "schema",
        "completions",
        "man",
    ] {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let help = call(folder.path(), &arguments);
        assert_exit(&help, 0);
        assert!(
            stdout(&help).contains("Example"),
            "{command} has no example"
        );
    }
}

#[test]
fn exit_codes_are_a_stable_table() {
    let folder = folder();
    let codes = call(folder.path(), &["exit-codes", "--output", "csv"]);
    assert_exit(&codes, 0);
    let names: Vec<String> = stdout(&codes)
        .lines()
        .map(|line| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "code name",
        "0 done",
        "1 failed",
        "2 usage",
        "3 refused",
        "4 unavailable",
        "5 damage",
        "6 unprepared",
        "7 not_found",
        "8 partial",
    ];
    assert_eq!(names, expected);
    for (arguments, code) in [
        (&["fly"][..], 2),
        (&["log", "create", "--partitions", "0"], 2),
        (&["log", "verify", "--log", "mysql:x"], 2),
        (&["log", "verify"], 6),
        (
            &["serve", "--role", "command-api", "--listen", "127.0.0.1:0"],
            6,
        ),
        (
            &[
                "send",
                "order-1",
                "ApproveOrder",
                "--url",
                "http://127.0.0.1:9",
            ],
            4,
        ),
        (&["events", "order-1", "--url", "http://127.0.0.1:9"], 4),
        (&["import", "olist", "nowhere"], 7),
    ] {
        assert_exit(&call(folder.path(), arguments), code);
    }
}

#[test]
fn config_tells_where_each_value_came_from() {
    let folder = folder();
    let file = "listen = \"127.0.0.1:1\"\nnode = \"a\"\n[[acknowledged_damage]]\n\
                partition = 1\noffset = 2\nreason = \"a disk\"\n";
    let settings = folder.path().join("settings/annals");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("annals.toml"), file).unwrap();
    // A file in the working directory must not change the settings: others may be able to write
    // there.
    std::fs::write(folder.path().join("annals.toml"), "node = \"mallory\"").unwrap();
    let config = annals(folder.path())
        .env("ANNALS_NODE", "b")
        .env("XDG_CONFIG_HOME", folder.path().join("settings"))
        .env("ANNALS_POSTGRES", "postgres://me:hunter2@db/annals")
        .env("ANNALS_CLUSTER_SECRET", "hunter2, hunter2, hunter2")
        .args(["config", "--data", "d", "--output", "json"])
        .output()
        .unwrap();
    assert_exit(&config, 0);
    assert!(!stdout(&config).contains("hunter2"));
    let rows: Vec<Value> = serde_json::from_slice(&config.stdout).unwrap();
    for (setting, value, source) in [
        ("data", "d", "flag --data"),
        ("log", "sqlite:d/log.db", "default"),
        ("node", "b", "variable ANNALS_NODE"),
        ("listen", "127.0.0.1:1", "annals.toml"),
        (
            "postgres",
            "postgres://me:***@db/annals",
            "variable ANNALS_POSTGRES",
        ),
        ("acknowledged_damage", "1:2=a disk", "annals.toml"),
        ("cluster_secret", "***", "variable ANNALS_CLUSTER_SECRET"),
        ("url", "http://127.0.0.1:4747", "default"),
    ] {
        let row = rows.iter().find(|row| row["setting"] == setting).unwrap();
        assert_eq!(row["value"], value);
        let found = row["source"].as_str().unwrap();
        assert!(found.ends_with(source), "{setting}: {found}");
        assert!(!row["meaning"].as_str().unwrap().is_empty());
    }
    let misspelt = annals(folder.path())
        .env("ANNALS_POSTGERS", "x")
        .arg("config")
        .output();
    assert_exit(&misspelt.unwrap(), 2);
    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "lisen = \"x\"\n").unwrap();
    assert_exit(
        &call(folder.path(), &["config", "--config", "wrong.toml"]),
        2,
    );
    assert_exit(&call(folder.path(), &["config"]), 0);
}

#[test]
fn secrets_that_others_may_read_are_refused_with_what_to_do() {
    let folder = folder();
    let secret = call(folder.path(), &["config", "secret"]);
    assert_exit(&secret, 0);
    let file = folder.path().join("secret");
    std::fs::write(&file, &secret.stdout).unwrap();
    let settings = folder.path().join("settings.toml");
    let text = format!("cluster_secret = \"{}\"\n", stdout(&secret).trim());
    std::fs::write(&settings, text).unwrap();
    let kafka = "--log=kafka://127.0.0.1:9/x";
    let serve = |arguments: &[&str]| {
        let all = [&["serve", kafka, "--listen", "127.0.0.1:0"], arguments].concat();
        call(folder.path(), &all)
    };
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&settings, 0o644);
    let config = call(folder.path(), &["config", "--config", "settings.toml"]);
    assert_exit(&config, 2);
    assert!(stderr(&config).contains("chmod 600"), "{}", stderr(&config));
    set_mode(&settings, 0o600);
    assert_exit(
        &call(folder.path(), &["config", "--config", "settings.toml"]),
        0,
    );
    set_mode(&file, 0o644);
    let wide = serve(&["--cluster-secret-file", "secret"]);
    assert_exit(&wide, 2);
    assert!(stderr(&wide).contains("chmod 600"), "{}", stderr(&wide));
    // Without a secret, a node on a shared log refuses to start and names the command that makes
    // one.
    let none = serve(&[]);
    assert_exit(&none, 2);
    assert!(
        stderr(&none).contains("annals config secret"),
        "{}",
        stderr(&none)
    );
}

#[test]
fn only_loopback_is_served_unless_asked() {
    let folder = folder();
    let refused = call(folder.path(), &["dev", "--listen", "0.0.0.0:0"]);
    assert_exit(&refused, 2);
    assert!(
        stderr(&refused).contains("--insecure"),
        "{}",
        stderr(&refused)
    );
    assert!(!folder.path().join(".annals").exists(), "nothing was begun");
}

#[tokio::test]
async fn a_log_is_made_looked_into_copied_and_proven() {
    let folder = folder();
    let log = |arguments: &[&str]| {
        let mut all = vec!["log"];
        all.extend(arguments);
        call(folder.path(), &all)
    };
    let create = ["create", "--partitions", "4", "--idempotency-window", "2d"];
    assert_exit(&log(&create), 0);
    let again = log(&create);
    assert_exit(&again, 0);
    assert!(stderr(&again).contains("nothing was changed"));
    assert_exit(&log(&["create", "--partitions", "5"]), 2);
    let info = log(&["info", "--output", "json"]);
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(info["partitions"][0]["window_hours"], 48.0);
    assert_exit(&log(&["copy", "--to", "sqlite:copy.db"]), 0);
    assert_exit(&log(&["verify", "--log", "sqlite:copy.db"]), 0);
    assert_exit(&log(&["verify"]), 0);
    let url = format!("sqlite:{}", folder.path().join(".annals/log.db").display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let insert = "INSERT INTO record (id, key, value, headers, appended_at_ms) \
                  SELECT id + 1, key, value, headers, 0 FROM record WHERE partition = 2";
    sqlx::query(insert).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    // A repeated claim does not count the second time and does no harm.
    let verified = log(&["verify", "--output", "json"]);
    assert_exit(&verified, 0);
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(report["partitions"][2]["orphans"]["losing"], 1);
}

#[tokio::test]
async fn a_log_on_kafka_is_checked_before_it_is_used() {
    let folder = folder();
    let kafka = kafka::shared();
    let address = |topic: &str| format!("kafka://{}/{topic}", kafka.bootstrap());
    let unsafe_topic = unique_name("unsafe");
    kafka
        .create_topic(&unsafe_topic, 2, &[("retention.ms", "1000")])
        .await;
    for arguments in [
        &["log", "create", "--partitions", "2"][..],
        &["serve", "--listen", "127.0.0.1:0"],
        &["check"],
    ] {
        let mut all = arguments.to_vec();
        let log = address(&unsafe_topic);
        all.extend(["--log", &log, "--output", "json"]);
        let refused = annals(folder.path())
            .env("ANNALS_CLUSTER_SECRET", "a secret that nobody else knows")
            .args(&all)
            .output()
            .unwrap();
        assert_exit(&refused, 6);
        let said = stdout(&refused) + &stderr(&refused);
        assert!(said.contains("--add-config retention.ms=-1"), "{said}");
    }
    assert_exit(
        &call(folder.path(), &["log", "create", "--partitions", "2"]),
        0,
    );
    let copy = address(&unique_name("copy"));
    assert_exit(&call(folder.path(), &["log", "copy", "--to", &copy]), 0);
    let verified = call(folder.path(), &["log", "verify", "--log", &copy]);
    assert_exit(&verified, 0);
    let check = call(
        folder.path(),
        &["check", "--log", &copy, "--output", "json"],
    );
    assert_exit(&check, 0);
    // One broker is enough to try things out; `check` warns about it.
    assert!(stdout(&check).contains("\"warn\""), "{}", stdout(&check));
}

#[tokio::test]
async fn serving_needs_a_log_and_a_migrated_database_and_says_how_to_make_them() {
    let folder = folder();
    let postgres = Postgres::start();
    let url = postgres.create_database().await;
    let with = |arguments: &[&str]| {
        annals(folder.path())
            .args(arguments)
            .args(["--listen", "127.0.0.1:0", "--postgres", &url])
            .output()
            .unwrap()
    };
    let no_log = with(&["serve"]);
    assert_exit(&no_log, 6);
    assert!(stderr(&no_log).contains("annals log create --log sqlite:.annals/log.db"));
    let check = with(&["check", "--output", "json"]);
    assert_exit(&check, 6);
    assert_exit(&call(folder.path(), &["log", "create"]), 0);
    let unmigrated = with(&["serve", "--role", "projector,query-api"]);
    assert_exit(&unmigrated, 6);
    assert!(stderr(&unmigrated).contains("annals migrate --postgres postgresql://annals@"));
    for status in ["applied", "present"] {
        let migrate = call(
            folder.path(),
            &["migrate", "--postgres", &url, "--output", "json"],
        );
        assert_exit(&migrate, 0);
        assert!(stdout(&migrate).contains(status), "{}", stdout(&migrate));
    }
    let check = with(&["check", "--output", "json"]);
    assert_exit(&check, 0);
    let rows: Vec<Value> = serde_json::from_slice(&check.stdout).unwrap();
    assert!(rows.iter().all(|row| row["status"] != "fail"), "{rows:?}");
    let list = [
        "projections",
        "list",
        "--postgres",
        &url,
        "--output",
        "ndjson",
    ];
    assert_exit(&call(folder.path(), &list), 0);
    let rebuild = ["projections", "rebuild", "--all", "--postgres", &url];
    assert_exit(&call(folder.path(), &rebuild), 0);
    let listed = stdout(&call(folder.path(), &list));
    assert_eq!(listed.lines().count(), read_models().len(), "{listed}");
    let unknown = ["projections", "rebuild", "nothing", "--postgres", &url];
    assert_exit(&call(folder.path(), &unknown), 7);
}

#[test]
fn the_schemas_in_the_repository_are_those_of_this_program() {
    let folder = folder();
    let made = folder.path().join("made");
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let committed = files_below(&committed);
    // Samples of old shapes are kept, and read again.
    for (path, text) in committed
        .iter()
        .filter(|(path, _)| path.starts_with("samples"))
    {
        let path = made.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let run = call(folder.path(), &["schema", "made"]);
    assert_exit(&run, 0);
    assert!(!stderr(&run).contains("no sample of"), "{}", stderr(&run));
    let made = files_below(&made);
    let mend = "run `cargo run -p cli --bin annals -- schema` and look at the difference";
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&made), "{mend}");
    for (path, text) in &made {
        assert!(
            committed[path] == *text,
            "{} differs: {mend}",
            path.display()
        );
    }
}

fn files_below(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                files.insert(path.strip_prefix(root).unwrap().to_owned(), text);
            }
        }
    }
    files
}

#[test]
fn shells_and_manuals_know_every_command() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let completions = call(folder.path(), &["completions", shell]);
        assert_exit(&completions, 0);
        assert!(stdout(&completions).contains("rebuild"), "{shell}");
    }
    assert_exit(&call(folder.path(), &["man", "pages"]), 0);
    let page = folder.path().join("pages/annals-log-verify.1");
    assert!(std::fs::read_to_string(page).unwrap().contains("against"));
}

#[test]
fn a_simulated_cluster_is_replayed_step_by_step() {
    let folder = folder();
    let replay = || call(folder.path(), &["simulate", "--seed", "3"]);
    let first = replay();
    assert_exit(&first, 0);
    for step in [
        "client 0     sends",
        "log          record",
        "owns",
        "answers",
    ] {
        let said = stdout(&first);
        assert!(said.contains(step), "{step} is not in {said}");
    }
    assert!(stderr(&first).contains("every promise was kept"));
    assert_eq!(stdout(&first), stdout(&replay()));

    let some = [
        "simulate", "--seed", "3", "--seeds", "4", "--output", "json",
    ];
    let some = call(folder.path(), &some);
    assert_exit(&some, 0);
    let sums: Value = serde_json::from_str(&stdout(&some)).unwrap();
    assert_eq!(sums["seeds"], 4);
    assert_eq!(sums["violations"], serde_json::json!({}));
    assert!(sums["accepted"].as_u64().unwrap() > 0);
    assert_exit(&call(folder.path(), &["simulate", "--seeds", "0"]), 2);
}
