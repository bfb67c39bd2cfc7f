//! An export that is killed at any moment goes on, and gives the same files; its memory and its speed
//! have bounds.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::accepted::Accepted;
use event_log::log::LogAddress;
use position::Partition;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tests::harness::disk::SmallDisk;

use super::{export, exported, files, findings, shop};
use crate::cli::program::{Server, annals, assert_exit, call, folder, stderr, stdout};

const KILLS: u32 = 12;

/// The largest memory of an export.
const MEMORY_KB_MAX: u64 = 512 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn an_export_killed_at_any_moment_goes_on_to_the_same_files() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let log = shop(400).await;
    let events = ["events", "--format", "parquet", "--out"];
    let began = Instant::now();
    exported(&log, &[&events[..], &["whole"]].concat());
    let took = began.elapsed();
    let root = log.folder.path();
    // The first kill may come before the program makes it.
    fs::create_dir(root.join("killed")).unwrap();
    for number in 0..KILLS {
        let mut running = export(&log, &[&events[..], &["killed"]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(random.random_range(Duration::ZERO..took));
        running.kill().unwrap();
        running.wait().unwrap();
        // What has a name is whole.
        for (path, bytes) in files(&root.join("killed")) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !name.starts_with('.') {
                let whole = fs::read(root.join("whole").join(&path)).unwrap();
                assert!(whole == bytes, "after {number} kills, {name}");
            }
        }
    }
    exported(&log, &[&events[..], &["killed"]].concat());
    assert!(files(&root.join("killed")) == files(&root.join("whole")));
    assert_eq!(findings(&log, "killed", 0), [""; 0]);
    // Once more: it is there already.
    let again = export(&log, &[&events[..], &["killed"]].concat())
        .output()
        .unwrap();
    assert_exit(&again, 0);
    assert!(
        stderr(&again).contains("has this export already"),
        "{again:?}"
    );
    assert!(files(&root.join("killed")) == files(&root.join("whole")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_with_what_is_missing_and_gone_on_with_when_there_is_room() {
    let log = shop(400).await;
    let root = log.folder.path();
    fs::create_dir(root.join("small")).unwrap();
    let _disk = SmallDisk::mount(&root.join("small"), 4).unwrap();
    let events = ["events", "--format", "csv", "--out"];
    let whole = exported(&log, &[&events[..], &["whole"]].concat());
    // Room for half of it.
    let room = usize::try_from(whole["bytes"].as_u64().unwrap() / 2).unwrap();
    let ballast = root.join("small/ballast");
    fs::write(&ballast, vec![0; (4 << 20) - room]).unwrap();
    let into = [&events[..], &["small/out"]].concat();
    let full = export(&log, &into).output().unwrap();
    assert_exit(&full, 1);
    let said = stderr(&full);
    for part in [
        "is full",
        "bytes more are needed",
        "repeat the same command",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::remove_file(&ballast).unwrap();
    exported(&log, &into);
    assert!(files(&root.join("small/out")) == files(&root.join("whole")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_with_says_why() {
    let log = shop(20).await;
    let root = log.folder.path();
    let refused = |arguments: &[&str], why: &str| {
        let output = export(&log, arguments).output().unwrap();
        assert!(!output.status.success());
        let said = stderr(&output);
        assert!(said.contains(why), "{why}: {said}");
    };
    let begun = ["events", "--format", "csv", "--out", "out"];
    exported(&log, &begun);
    refused(
        &["events", "--format", "ndjson", "--out", "out"],
        "has another export",
    );
    fs::create_dir(root.join("full")).unwrap();
    fs::write(root.join("full/note"), "").unwrap();
    refused(
        &["events", "--format", "csv", "--out", "full"],
        "is not empty: it has note",
    );
    refused(&["verify", "full"], "has no _manifest.json");
    refused(
        &["events", "--format", "parquet", "--out", "-"],
        "cannot be written to stdout",
    );
    refused(
        &["nothing", "--format", "csv", "--out", "x"],
        "there is no read model \"nothing\"",
    );
    let typed = [
        "events",
        "--format",
        "csv",
        "--columns-of",
        "Nothing",
        "--out",
        "x",
    ];
    refused(&typed, "OrderPlaced");
    let typo = [
        "events", "--format", "csv", "--where", "kind=x", "--out", "x",
    ];
    refused(
        &typo,
        "category, type, stream, tenant, actor, correlation, command",
    );

    // An unfinished export of other arguments, and of another version.
    let plan = |change: &dyn Fn(&mut Value)| {
        let manifest = fs::read_to_string(root.join("out/_manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let ranges: Vec<Value> = (0..4)
            .map(|partition| serde_json::json!({"partition": partition, "from": null, "end": 9}))
            .collect();
        let mut plan = serde_json::json!({
            "form": manifest["form"], "program": manifest["program"],
            "request": manifest["request"], "columns": manifest["columns"],
            "log": manifest["log"], "ranges": ranges,
        });
        change(&mut plan);
        let unfinished = root.join("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(".export.journal"), format!("{plan}\n")).unwrap();
    };
    let again = ["events", "--format", "csv", "--out", "unfinished"];
    plan(&|plan| plan["program"]["version"] = "0.0.1".into());
    refused(&again, "annals 0.0.1 began it");
    plan(&|plan| plan["request"]["format"] = "ndjson".into());
    refused(&again, "with other arguments");
    plan(&|plan| plan["log"] = "0198d8a2-6b3e-7c4e-9d52-0f3c5a1b2c3d".into());
    refused(&again, "it is of log 0198d8a2");
    plan(&|_| {});
    exported(&log, &again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_export_has_exactly_what_an_earlier_one_has_not() {
    let folder = folder();
    let server = Server::start(folder.path(), &["dev"]);
    let generate = |seed: &str| {
        let history = [
            "generate",
            "--seed",
            seed,
            "--events",
            "600",
            "--url",
            &server.url,
        ];
        assert_exit(&call(folder.path(), &history), 0);
    };
    let ids = |arguments: &[&str]| {
        let output = annals(folder.path())
            .args(["export", "events", "--format", "ndjson"])
            .args(arguments)
            .output()
            .unwrap();
        assert_exit(&output, 0);
        output
    };
    generate("1");
    ids(&["--out", "first"]);
    generate("2");
    ids(&["--out", "second", "--after", "first"]);
    let all = stdout(&ids(&["--out", "-"]));
    let mut parts: Vec<String> = ["first", "second"]
        .iter()
        .flat_map(|name| files(&folder.path().join(name)))
        .filter(|(path, _)| path.extension().is_some_and(|it| it == "ndjson"))
        .flat_map(|(_, bytes)| {
            let text = String::from_utf8(bytes).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut all: Vec<String> = all.lines().map(str::to_owned).collect();
    parts.sort();
    all.sort();
    assert!(all.len() >= 1_200);
    assert!(parts == all);
    let verified = call(folder.path(), &["export", "verify", "second"]);
    assert_exit(&verified, 0);
}

/// The most memory that a program had, and how long it took.
fn measured(mut command: Command) -> (u64, Duration) {
    let began = Instant::now();
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", running.id());
    let mut peak = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        {
            peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap());
        }
        if let Some(ended) = running.try_wait().unwrap() {
            assert!(ended.success());
            return (peak, began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many events the bounds are measured with; a million needs minutes and gigabytes of disk.
fn events() -> String {
    std::env::var("ANNALS_EXPORT_EVENTS").unwrap_or_else(|_| "60000".to_owned())
}

/// Reads every commit that counts, and does nothing with it; returns how many there are.
async fn read(log: &LogAddress) -> u64 {
    let log = event_log::log::open(log).await.unwrap();
    let mut count = 0;
    for partition in (0..log.partition_count()).map(Partition) {
        let end = log.bounds(partition).await.unwrap().end;
        let reader = Accepted::open(Arc::clone(&log), partition, None, end).await;
        let mut reader = reader.unwrap();
        while let Some(batch) = reader.next().await.unwrap() {
            count += batch.commits.len() as u64;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_at_least_half_as_fast_as_reading_in_bounded_memory() {
    let folder = folder();
    let generate = {
        // No read models are needed, so that nothing else takes time.
        assert_exit(&call(folder.path(), &["log", "create"]), 0);
        let server = Server::start(folder.path(), &["serve", "--role", "command-api"]);
        let events = events();
        let history = [
            "generate",
            "--seed",
            "7",
            "--events",
            &events,
            "--url",
            &server.url,
        ];
        call(folder.path(), &history)
    };
    assert_exit(&generate, 0);
    let path = folder.path().join(".annals/log.db");
    let log = LogAddress::Sqlite { path };
    let export = |number: u32| {
        let mut command = annals(folder.path());
        let out = format!("events-{number}");
        command.args(["export", "events", "--format", "parquet", "--out", &out]);
        measured(command)
    };
    // Round by round, so that both meet the same load of the machine; the best round counts.
    let (mut best, mut peak) = (f64::MAX, 0);
    for number in 0..3 {
        let began = Instant::now();
        let count = read(&log).await;
        let reading = began.elapsed();
        let (memory, exporting) = export(number);
        println!("{count} commits: read in {reading:?}, exported in {exporting:?}, {memory} kB");
        best = best.min(exporting.as_secs_f64() / reading.as_secs_f64());
        peak = peak.max(memory);
    }
    assert!(peak < MEMORY_KB_MAX, "{peak} kB");
    assert!(
        best < 2.0,
        "an export takes {best:.2} times as long as reading"
    );
    let out = |number: u32| files(&folder.path().join(format!("events-{number}")));
    assert!(out(0) == out(1));
}
