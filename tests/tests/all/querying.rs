//! Analysts' own tools read the read models: each recipe of docs/querying.md is run word for word,
//! by a user who has the reader's role and no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use event_log::log::EventLog;
use projector::{READER, Reader, prepare_reader};
use query_api::QueryDoor;
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;
use tests::harness::stack::read_models;
use tokio::net::TcpListener;

use crate::projections::{caught_up, database, execute, log_of, scalar, shop_history};
use crate::write_side::shop;

/// The folder with what users have.
pub(crate) fn users_tools() -> PathBuf {
    std::env::var_os("ANNALS_USERS_TOOLS")
        .expect(
            "ANNALS_USERS_TOOLS names the folder with what users have: run `make test`, or `eval \
             \"$(ops/setup --print-env)\"` after `ops/setup`",
        )
        .into()
}

/// The blocks of the page, with their languages.
pub(crate) fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, behind)) = rest.split_once("\n```") {
        let (language, behind) = behind.split_once('\n').unwrap();
        let (block, behind) = behind.split_once("```\n").unwrap();
        blocks.push((language.to_owned(), block.to_owned()));
        rest = behind;
    }
    blocks
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}\n{errors}");
    said
}

/// Puts DuckDB's extension where DuckDB would put it after fetching it.
fn install_extension(python: &Path, home: &Path) {
    let script = "
import duckdb, duckdb_extension_postgres_scanner as package, pathlib, shutil, sys
platform = duckdb.sql('PRAGMA platform').fetchone()[0]
version = duckdb.sql('PRAGMA version').fetchone()[0]
folder = pathlib.Path(sys.argv[1], '.duckdb', 'extensions', version, platform)
folder.mkdir(parents=True)
for file in pathlib.Path(package.__path__[0]).glob('extensions/*/*'):
    shutil.copy(file, folder)
";
    run(Command::new(python).args(["-c", script]).arg(home));
}

/// Serves the query door; returns its address.
async fn served(log: &Arc<dyn EventLog>, url: &str) -> String {
    let door = QueryDoor::new(log, url, &read_models(), shop()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = door::finish(query_api::router(door));
    let forever = std::future::pending();
    tokio::spawn(door::serve(listener, routes, forever, Duration::ZERO));
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recipe_for_analysts_works_as_it_stands() {
    let log = log_of(Kind::Sqlite, shop_history(1, 40)).await;
    let postgres = Postgres::start();
    let url = database(&postgres).await;
    caught_up(&log.log, &url).await;
    assert_eq!(prepare_reader(&url).await.unwrap(), Reader::Ready);
    let user = format!("CREATE USER ann PASSWORD 'p'; GRANT {READER} TO ann");
    execute(&postgres.admin_url("postgres"), &user).await;
    let (scheme, _) = url.split_once("://").unwrap();
    assert_eq!(scheme, "postgresql");
    let hers = format!("postgresql://ann:p@{}", url.rsplit_once('@').unwrap().1);
    let orders = "SELECT sum(orders)::bigint FROM read.daily_sales WHERE currency = 'BRL'";
    let orders: i64 = scalar(&url, orders).await;
    let placed = "SELECT count(*) FROM read.commit_types WHERE event_type = 'OrderPlaced'";
    let placed: i64 = scalar(&url, placed).await;

    let python = users_tools().join("bin/python");
    let folder = tempfile::tempdir().unwrap();
    install_extension(&python, folder.path());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/querying.md");
    let page = fs::read_to_string(page).unwrap();
    let (mut recipes, mut fed) = (0, 0);
    let door = served(&log.log, &url).await;
    for (language, block) in blocks(&page) {
        let block = block.replace("http://127.0.0.1:4747", &door);
        let mut command = match &*language {
            "python" => Command::new(&python),
            "sh" if !block.starts_with("export") => Command::new("bash"),
            _ => continue,
        };
        command
            .args(["-c", &block])
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("DATABASE_URL", &hers);
        let said = run(&mut command);
        if block.contains("/v1/events") {
            fed += 1;
            let is_told = said.contains("\"type\":\"OrderPlaced\"") && said.contains("event: end");
            let count = format!("{placed} orders were placed");
            assert!(is_told || said.contains(&count), "{placed}: {said}");
        } else if block.contains("/v1/read/") {
            assert!(said.contains("\"complete\":true"), "{said}");
            let csv = fs::read_to_string(folder.path().join("payment_mix.csv")).unwrap();
            assert!(csv.starts_with("method,currency,payments,"), "{csv}");
        } else if block.contains("currency") {
            recipes += 1;
            let digits = |c: char| !c.is_ascii_digit();
            let shows = said.split(digits).any(|word| word == orders.to_string());
            assert!(said.contains("BRL") && shows, "{orders}:\n{block}\n{said}");
        } else {
            // The first block shows what there is, with its descriptions.
            assert!(said.contains("The read models of Annals"), "{said}");
            assert!(said.contains("How many orders were placed."), "{said}");
        }
    }
    assert_eq!((recipes, fed), (4, 2));
}
