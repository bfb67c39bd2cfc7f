//! The story of a conversation: all that has its correlation id, over streams and partitions, each
//! below what caused it.

use engine::command::{Answer, Decision, Request};
use serde_json::{Value, json};
use tests::harness::logs::Kind;

use super::{Served, of_tenant};
use crate::write_side::{place, request};

/// A command of the conversation `talk`.
fn command(stream: &str, command: &str, id: &str, cause: Option<&str>, data: &Value) -> Request {
    Request {
        correlation_id: Some("talk".parse().unwrap()),
        causation_id: cause.map(|cause| cause.parse().unwrap()),
        ..request(stream, command, id, data)
    }
}

/// The id of the first event that a command led to.
fn event(answer: &Answer) -> String {
    match &answer.decision {
        Decision::Accepted(events) => events[0].id.to_string(),
        Decision::Rejected(rejection) => panic!("refused: {}", rejection.code),
    }
}

#[tokio::test]
async fn a_conversation_is_told_over_streams_and_partitions_with_its_refusals() {
    for kind in [Kind::Sqlite, Kind::Kafka] {
        let served = Served::start(kind).await;
        let address = json!({"city": "x", "state": "SP", "postcode_prefix": "01310"});
        let mut all = Vec::new();
        let mut send = async |request: Request| {
            let answer = served.submit(request).await;
            all.push(answer.position.clone());
            answer
        };
        let root = send(command(
            "customer-1",
            "RegisterCustomer",
            "register",
            None,
            &address,
        ))
        .await;
        let registered = event(&root);
        // Six orders, so that several partitions have a part of it, each caused by the event.
        let mut placed = Vec::new();
        for number in 1..=6 {
            let (stream, id) = (format!("order-{number}"), format!("place-{number}"));
            let of = command(&stream, "PlaceOrder", &id, Some(&registered), &place());
            placed.push(send(of).await);
        }
        let ship = command("order-1", "ShipOrder", "ship", Some("place-1"), &json!({}));
        send(ship).await;
        let approve = command(
            "order-2",
            "ApproveOrder",
            "approve",
            Some(&event(&placed[1])),
            &json!({}),
        );
        send(approve).await;
        // Two that name each other, and one whose cause is not part of the conversation.
        for (stream, command_type, id, cause) in [
            ("order-3", "ApproveOrder", "one", "other"),
            ("order-4", "ApproveOrder", "other", "one"),
            ("order-5", "ApproveOrder", "orphan", "long-ago"),
        ] {
            send(command(stream, command_type, id, Some(cause), &json!({}))).await;
        }
        // What does not belong to it: another tenant's, and another conversation.
        send(of_tenant(
            "acme",
            command("order-1", "PlaceOrder", "a", None, &place()),
        ))
        .await;
        send(request("order-7", "PlaceOrder", "alone", &place())).await;
        let until = all
            .into_iter()
            .reduce(|one, other| one.merge(&other).unwrap())
            .unwrap();

        let story = served
            .ok(&format!("/v1/stories/talk?min_position={until}"))
            .await;
        assert_eq!(story["complete"], true);
        assert_eq!(
            (&story["streams"], &story["refused"]),
            (&json!(7), &json!(1))
        );
        let commits = story["commits"].as_array().unwrap();
        let shown = |commit: &Value| {
            let text = |name: &str| commit[name].as_str().unwrap().to_owned();
            (
                commit["depth"].as_u64().unwrap(),
                text("command_id"),
                text("cause"),
            )
        };
        let mut found: Vec<_> = commits.iter().map(shown).collect();
        // Below one cause, commits come by their times, which several partitions may share.
        assert_eq!(found[0], (0, "register".to_owned(), "none".to_owned()));
        let below = |id: &str, found: &[(u64, String, String)]| {
            let at = found.iter().position(|(_, one, _)| one == id).unwrap();
            found[at + 1].clone()
        };
        assert_eq!(
            below("place-1", &found),
            (2, "ship".to_owned(), "command".to_owned())
        );
        assert_eq!(
            below("place-2", &found),
            (2, "approve".to_owned(), "event".to_owned())
        );
        let circle: Vec<_> = found
            .iter()
            .filter(|(.., cause)| cause == "circle")
            .cloned()
            .collect();
        assert_eq!(circle.len(), 1, "{found:?}");
        assert_eq!(below(&circle[0].1, &found).0, 1);
        found.sort();
        assert_eq!(found.len(), 12);
        assert!(found.contains(&(0, "orphan".to_owned(), "outside".to_owned())));
        let places = found.iter().filter(|(depth, id, cause)| {
            (*depth, &**cause) == (1, "event") && id.starts_with("place-")
        });
        assert_eq!(places.count(), 6);

        let refused = commits
            .iter()
            .find(|one| one["command_id"] == "ship")
            .unwrap();
        assert_eq!(
            (&refused["outcome"], &refused["code"]),
            (&json!("refused"), &json!("order_not_approved"))
        );
        let parent = commits
            .iter()
            .find(|one| one["command_id"] == "place-1")
            .unwrap();
        assert_eq!(refused["parent"], parent["commit"]);
        assert_eq!(parent["parent_event"], registered);
        assert!(parent["after_ms"].is_i64() && commits[0]["after_ms"].is_null());
        assert_eq!(parent["events"][0]["type"], "OrderPlaced");
        let none = served.get("/v1/stories/nobody");
        served.problem(none, 404, "story_not_found").await;
        // A command without a correlation id begins a conversation of its own.
        let alone = served.ok("/v1/stories/alone").await;
        assert_eq!(alone["commits"].as_array().unwrap().len(), 1);
        let acme = served
            .get("/v1/stories/talk")
            .header("Annals-Tenant", "acme");
        let (_, acme) = super::ask(acme).await;
        assert_eq!(acme["commits"][0]["command_id"], "a");
    }
}

#[tokio::test]
async fn a_long_conversation_says_that_there_is_more() {
    let served = Served::start(Kind::Sqlite).await;
    let mut until: Option<position::PositionToken> = None;
    for number in 0..505 {
        let stream = format!("order-{number}");
        let placed = command(
            &stream,
            "PlaceOrder",
            &format!("p{number:03}"),
            None,
            &place(),
        );
        let position = served.submit(placed).await.position;
        until = Some(match until {
            None => position,
            Some(until) => until.merge(&position).unwrap(),
        });
    }
    let path = format!("/v1/stories/talk?min_position={}", until.unwrap());
    let story = served.ok(&path).await;
    assert_eq!(story["complete"], false);
    let commits = story["commits"].as_array().unwrap();
    assert_eq!(commits.len(), 500);
    // The earliest ones, each a root.
    let ids: Vec<_> = commits
        .iter()
        .map(|one| one["command_id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"p000") && !ids.contains(&"p504"));
    assert!(
        commits
            .iter()
            .all(|one| one["depth"] == 0 && one["cause"] == "none")
    );
}
