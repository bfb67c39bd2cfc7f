//! The main job in one go: orders through the batch door into a new log, until the read models have
//! caught up. Everything runs in this process, with a real Kafka and a real Postgres.

use std::path::PathBuf;
use std::time::Instant;

use ::olist::{OlistOptions, OlistSource, import_olist};
use client::SendOptions;
use import::progress::Silent;
use tests::harness::logs::Kind;
use tests::harness::postgres::Postgres;
use tests::harness::stack::Stack;
use tests::olist;

/// As many orders as the part of the public data set with which this was first measured.
const ORDERS: usize = 4_889;
const PROJECTOR_TASKS: usize = 2;

/// Imports the folder that `ANNALS_OLIST_DIR` names; without it, [`ORDERS`] generated orders.
pub async fn run(kind: Kind) {
    let generated = tempfile::tempdir().expect("a temporary folder");
    let folder = match std::env::var_os("ANNALS_OLIST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            olist::generate(1, ORDERS, generated.path()).expect("files in a folder of ours");
            generated.path().to_owned()
        }
    };
    let postgres = Postgres::start();
    let database = postgres.create_database().await;
    let stack = Stack::start(kind, database, PROJECTOR_TASKS).await;
    let options = OlistOptions {
        source: OlistSource::Folder(folder),
        tenant: None,
        correct: false,
        unreadable: None,
        sending: SendOptions::to(stack.url.clone()),
    };
    let began = Instant::now();
    let report = import_olist(options, Silent).await.expect("an import");
    let answered = began.elapsed();
    stack.caught_up().await;
    let caught_up = began.elapsed();
    let commands = report.total.accepted + report.total.nothing_to_do + report.total.refused;
    println!(
        "{kind:?}, main job: {commands} commands, answered after {:.2} s ({:.0}/s), read models \
         caught up after {:.2} s",
        answered.as_secs_f64(),
        commands as f64 / answered.as_secs_f64(),
        caught_up.as_secs_f64(),
    );
    stack.stop().await;
}
