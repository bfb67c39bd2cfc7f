//! Whatever is changed in an export or in its log is found, with its place.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tests::harness::logs::NewLog;

use super::{exported, files, findings, shop};
use crate::raw_log::edit;

/// The first file of rows in an export.
fn first_file(folder: &Path) -> PathBuf {
    let mut paths = files(folder).into_iter().map(|(path, _)| path);
    let is_rows = |path: &PathBuf| {
        path.starts_with(path.components().next().unwrap()) && path.components().count() == 2
    };
    paths.find(is_rows).unwrap()
}

fn change_manifest(folder: &Path, change: impl FnOnce(&mut Value)) {
    let path = folder.join("_manifest.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

/// One export for each way of changing it.
fn fresh(log: &NewLog, name: &str, format: &str) -> PathBuf {
    exported(log, &["events", "--format", format, "--out", name]);
    assert_eq!(findings(log, name, 0), [""; 0]);
    log.folder.path().join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_found_with_its_first_changed_row() {
    let log = shop(30).await;
    let folder = fresh(&log, "lines", "ndjson");
    let file = first_file(&folder);
    let text = fs::read_to_string(folder.join(&file)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let third: Value = serde_json::from_str(lines[2]).unwrap();
    // The manifest is changed with the file, so that only the log can tell.
    let resealed = |text: String| {
        fs::write(folder.join(&file), &text).unwrap();
        change_manifest(&folder, |manifest| {
            let entry = &mut manifest["files"][0];
            entry["bytes"] = text.len().into();
            entry["sha256"] = sha256(text.as_bytes()).into();
        });
        findings(&log, "lines", 1)
    };
    let place = format!(
        "{} {} {}: row 3: ",
        file.display(),
        third["partition"],
        third["position"]
    );
    let changed = text.replacen(
        &format!("\"version\":{}", third["version"]),
        "\"version\":77",
        3,
    );
    assert_ne!(changed, text);
    let found = resealed(changed);
    assert!(
        found
            .iter()
            .any(|one| one.contains("_manifest.json was changed")),
        "{found:?}"
    );
    assert!(
        found.iter().any(
            |one| one.contains(": row ") && one.contains("version\\\":77")
                || one.contains("version\":77")
        ),
        "{found:?}"
    );
    // A row is left out; the rows after it are of later events.
    let without = [&lines[..2], &lines[3..]].concat().join("\n") + "\n";
    let found = resealed(without);
    assert!(
        found.iter().any(|one| one.starts_with(&place)),
        "{place}: {found:?}"
    );
    // A row is written twice at the end.
    let twice = format!("{text}{}\n", lines[lines.len() - 1]);
    let found = resealed(twice);
    let more = format!("has a row {} that the log does not give", lines.len() + 1);
    assert!(
        found.iter().any(|one| one.contains(&more)),
        "{more}: {found:?}"
    );
    // Only the bytes.
    fs::write(folder.join(&file), text.replacen("order", "Order", 1)).unwrap();
    let found = findings(&log, "lines", 1);
    assert!(found.iter().any(|one| one.contains("bytes")), "{found:?}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_or_added_and_a_changed_manifest_are_found() {
    let log = shop(30).await;
    let folder = fresh(&log, "events", "parquet");
    let file = first_file(&folder);
    let bytes = fs::read(folder.join(&file)).unwrap();

    fs::remove_file(folder.join(&file)).unwrap();
    let found = findings(&log, "events", 1);
    assert!(
        found[0].starts_with(&format!("{} - -: cannot be read", file.display())),
        "{found:?}"
    );
    fs::write(folder.join(&file), &bytes).unwrap();

    let mut broken = bytes.clone();
    broken[bytes.len() / 2] ^= 1;
    fs::write(folder.join(&file), broken).unwrap();
    let found = findings(&log, "events", 1);
    assert!(
        found[0].contains("has other bytes than were written"),
        "{found:?}"
    );
    fs::write(folder.join(&file), &bytes).unwrap();

    let stranger = file.with_file_name("more.parquet");
    fs::write(folder.join(&stranger), &bytes).unwrap();
    let found = findings(&log, "events", 1);
    let expected = format!("{} - -: is no file of this export", stranger.display());
    assert_eq!(found, [expected]);
    fs::remove_file(folder.join(&stranger)).unwrap();
    assert_eq!(findings(&log, "events", 0), [""; 0]);

    // A file and its entry are taken away together.
    let text = fs::read_to_string(folder.join("_manifest.json")).unwrap();
    change_manifest(&folder, |manifest| {
        manifest["files"].as_array_mut().unwrap().remove(0);
    });
    fs::remove_file(folder.join(&file)).unwrap();
    let found = findings(&log, "events", 1);
    for part in [
        "_manifest.json was changed",
        "not the sums",
        "no file has the event of",
    ] {
        assert!(
            found.iter().any(|one| one.contains(part)),
            "{part}: {found:?}"
        );
    }
    fs::write(folder.join(&file), &bytes).unwrap();
    fs::write(folder.join("_manifest.json"), &text).unwrap();

    let head = "0".repeat(64);
    change_manifest(&folder, |manifest| {
        manifest["partitions"][0]["to"]["head"] = head.into()
    });
    let found = findings(&log, "events", 1);
    assert!(
        found.iter().any(|one| one.contains("the chain's head is")),
        "{found:?}"
    );
    fs::write(folder.join("_manifest.json"), &text).unwrap();
    change_manifest(&folder, |manifest| {
        manifest["files"][0]["path"] = "../log.db".into()
    });
    let found = findings(&log, "events", 1);
    assert!(
        found
            .iter()
            .any(|one| one.contains("outside of the export")),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_log_and_another_log_are_found() {
    let log = shop(30).await;
    fresh(&log, "events", "parquet");
    let other = shop(30).await;
    let target = other.folder.path().join("events");
    for (path, bytes) in files(&log.folder.path().join("events")) {
        fs::create_dir_all(target.join(&path).parent().unwrap()).unwrap();
        fs::write(target.join(&path), bytes).unwrap();
    }
    let found = findings(&other, "events", 1);
    assert!(found[0].contains("and this is log"), "{found:?}");

    let mut database = edit(&log.folder.path().join("log.db")).await;
    let id: i64 =
        sqlx::query_scalar("SELECT max(id) FROM record WHERE key IS NOT NULL AND id >> 40 = 1")
            .fetch_one(&mut database)
            .await
            .unwrap();
    let change = format!(
        "UPDATE record SET value = replace(CAST(value AS TEXT), 'stream', 'strean') WHERE id = {id}"
    );
    sqlx::query(AssertSqlSafe(change))
        .execute(&mut database)
        .await
        .unwrap();
    drop(database);
    let found = findings(&log, "events", 5);
    let place = format!("partition 1 at offset {}", id & ((1 << 40) - 1));
    assert!(
        found.iter().any(|one| one.contains(&place)),
        "{place}: {found:?}"
    );
}
