//! An upgrade: two releases of one program (`tests::lamp`), their messages, and one log.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::cli::program::{Server, assert_exit, folder, program, stderr, stdout};

mod contract;
mod projecting;
mod rolling;

const OLD: &str = env!("CARGO_BIN_EXE_lamp-old");
const NEW: &str = env!("CARGO_BIN_EXE_lamp-new");

fn call(file: &str, folder: &Path, arguments: &[&str]) -> Output {
    program(file, folder).args(arguments).output().unwrap()
}

/// The program of a release, with all roles on the data in `folder`.
fn dev(file: &str, folder: &Path) -> Server {
    let mut command: Command = program(file, folder);
    command.arg("dev");
    Server::start_as(command, folder)
}

async fn get(server: &Server, path: &str) -> (u16, Value) {
    let response = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Sends a command and waits until every reader has its events; returns status and answer.
async fn send(server: &Server, stream: &str, command: &str, data: Value) -> (u16, Value) {
    let url = format!("{}/v1/streams/{stream}/{command}", server.url);
    let request = reqwest::Client::new().post(url).json(&data);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let answer: Value = response.json().await.unwrap();
    if let Some(position) = answer["position"].as_str() {
        let path = format!("/v1/streams/{stream}/events?min_position={position}");
        get(server, &path).await;
    }
    (status, answer)
}

#[tokio::test]
async fn a_newer_program_reads_old_events_as_the_newest_and_the_log_keeps_them() {
    let folder = folder();
    let old = dev(OLD, folder.path());
    let lit = send(&old, "lamp-1", "LightLamp", json!({"watts": 800})).await;
    assert_eq!(lit.0, 200, "{lit:?}");
    let (_, recorded) = get(&old, "/v1/streams/lamp-1/events").await;
    drop(old);

    let new = dev(NEW, folder.path());
    // The owner folds its local state anew: it was of other rules.
    let (status, refused) = send(&new, "lamp-1", "LightLamp", json!({"lumens": 1000})).await;
    assert_eq!(
        (status, &refused["total"]),
        (422, &json!(9600)),
        "{refused}"
    );
    let (status, out) = send(&new, "lamp-1", "PutOutLamp", json!({})).await;
    assert_eq!(status, 200, "{out}");

    let (_, now) = get(&new, "/v1/streams/lamp-1/events").await;
    assert_eq!(now["events"][0]["data"], json!({"watts": 800}));
    assert_eq!(now["events"][0], recorded["events"][0]);
    assert_eq!(
        get(&new, "/v1/streams/lamp-1/events?schema=recorded")
            .await
            .1["events"],
        now["events"]
    );
    let (_, latest) = get(&new, "/v1/streams/lamp-1/events?schema=latest").await;
    let shapes: Vec<_> = latest["events"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&shapes[0]["schema"], &shapes[0]["data"]),
        (&json!(2), &json!({"lumens": 9600}))
    );
    assert_eq!(shapes[0]["id"], now["events"][0]["id"]);
    assert_eq!(shapes[1], &now["events"][1]);
    let url = format!("{}/v1/streams/lamp-1/events?schema=latest&limit=1", new.url);
    let page = reqwest::get(url).await.unwrap();
    let link = page.headers()["link"].to_str().unwrap();
    assert!(link.contains("&schema=latest>"), "{link}");
    let (_, state) = get(&new, "/v1/streams/lamp-1/state").await;
    assert_eq!(state["state"], json!({"lit": 1, "total": 9600}));
    let (status, _) = get(&new, "/v1/streams/lamp-1/events?schema=first").await;
    assert_eq!(status, 400);
}
