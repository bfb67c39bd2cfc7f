//! Read models are exported in one snapshot, with the places in the log at which their rows stand.

use serde_json::Value;

use crate::cli::program::{Server, annals, assert_exit, call, folder, stderr, stdout};

#[tokio::test(flavor = "multi_thread")]
async fn each_read_model_is_exported_as_of_one_place() {
    let folder = folder();
    let server = Server::dev(folder.path());
    let history = [
        "generate",
        "--seed",
        "5",
        "--events",
        "800",
        "--url",
        &server.url,
    ];
    assert_exit(&call(folder.path(), &history), 0);
    let url = server.postgres_url();
    let run = |arguments: &[&str]| {
        let mut command = annals(folder.path());
        command
            .arg("export")
            .args(arguments)
            .args(["--output", "json", "--postgres", &url]);
        command.output().unwrap()
    };
    for model in ["order_summary", "stream_index", "rejections", "payment_mix"] {
        for format in ["parquet", "csv", "ndjson"] {
            let out = format!("{model}-{format}");
            let made = run(&[model, "--format", format, "--out", &out]);
            assert_exit(&made, 0);
            assert_exit(&run(&["verify", &out]), 0);
        }
    }
    let manifest = folder.path().join("order_summary-ndjson/_manifest.json");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let places = manifest["partitions"].as_array().unwrap();
    assert!(!places.is_empty());
    assert!(places.iter().all(|place| place["to"]["head"].is_string()));
    // A changed place of the log is found.
    let path = folder.path().join("order_summary-ndjson/_manifest.json");
    let head = places[0]["to"]["head"].as_str().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(head, &"0".repeat(64))).unwrap();
    let found = run(&["verify", "order_summary-ndjson"]);
    assert_exit(&found, 1);
    assert!(stdout(&found).contains("the chain's head is"), "{found:?}");
    // As of now it has the live rows, as of long ago none.
    let rows = |moment: &str, out: &str| {
        let output = run(&[
            "payment_mix",
            "--format",
            "csv",
            "--as-of",
            moment,
            "--out",
            out,
        ]);
        assert_exit(&output, 0);
        let made: Value = serde_json::from_str(&stdout(&output)).unwrap();
        made["rows"].as_u64().unwrap()
    };
    assert_eq!(rows("2000-01-01T00:00:00Z", "before"), 0);
    assert!(rows("9999-01-01T00:00:00Z", "after") > 0);
    let read = |out: &str| {
        let file = format!("{out}/payment_mix-000001.csv");
        std::fs::read(folder.path().join(file)).unwrap()
    };
    assert!(read("after") == read("payment_mix-csv"));
    let refused = run(&[
        "payment_mix",
        "--format",
        "csv",
        "--from",
        "2030-01-01T00:00:00Z",
        "--out",
        "x",
    ]);
    assert_exit(&refused, 2);
    assert!(stderr(&refused).contains("are for events"), "{refused:?}");
}
