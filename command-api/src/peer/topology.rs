//! `GET /v1/topology`: which node is said to own which partition, so that clients can route
//! commands themselves.
//!
//! Invariant: this is a hint; only the log says who owns. A command that arrives at another node is
//! forwarded. Deliberately absent: anything secret, since every client may read this.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use door::NoQuery;
use door::openapi::{
    Fragment, header_ref, integer, nullable, object, parameter_ref, responses, schema_ref, text,
};
use engine::peers::PeerService;
use event_log::directory::{Hint, NodeEntry};
use position::{LogId, Partition, Term};
use serde::Serialize;
use serde_json::{Value, json};

use crate::openapi::DOOR;

/// How a stream's partition is computed.
const PARTITIONER: &str = "murmur2 over tenant/routing key";

#[derive(Serialize)]
struct Shown {
    log: LogId,
    node: String,
    partition_count: u32,
    partitioner: &'static str,
    partitions: Vec<ShownPartition>,
    nodes: Vec<NodeEntry>,
}

#[derive(Serialize)]
struct ShownPartition {
    partition: Partition,
    owner: Option<ShownOwner>,
}

#[derive(Serialize)]
struct ShownOwner {
    term: Term,
    node: String,
    address: String,
}

impl From<Hint> for ShownOwner {
    fn from(hint: Hint) -> Self {
        Self {
            term: hint.term,
            node: hint.node,
            address: hint.address,
        }
    }
}

/// The route, to be merged with others and passed through [`door::finish`].
pub fn topology_router(service: Arc<dyn PeerService>) -> Router {
    Router::new()
        .route("/v1/topology", get(show))
        .with_state(service)
}

async fn show(State(service): State<Arc<dyn PeerService>>, _: NoQuery) -> Json<Shown> {
    let mut topology = service.topology();
    let partitions = (0..topology.partition_count).map(Partition);
    Json(Shown {
        log: topology.log,
        node: topology.node,
        partition_count: topology.partition_count,
        partitioner: PARTITIONER,
        partitions: partitions
            .map(|partition| ShownPartition {
                partition,
                owner: topology.owners.remove(&partition).map(Into::into),
            })
            .collect(),
        nodes: topology.nodes.into_values().collect(),
    })
}

/// Adds the route to the OpenAPI document.
pub(crate) fn describe(fragment: &mut Fragment) {
    fragment.tag("cluster", "The nodes, and the owners of the partitions.");
    let mut responses = responses(DOOR, &[400]);
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "The owners that this node knows.",
            "headers": {"Annals-Correlation-Id": header_ref("CorrelationId")},
            "content": {"application/json": {"schema": schema_ref("Topology")}},
        }),
    );
    let operation = json!({
        "operationId": "topology",
        "tags": ["cluster"],
        "summary": "The owners of the partitions",
        "description": "The answer is a hint: a client that sends each command to its owner saves \
                        a hop. Any node takes any command.",
        "parameters": [parameter_ref("CorrelationId")],
        "responses": responses,
    });
    fragment.operation("/v1/topology", "get", operation);
    for (name, schema) in schemas() {
        fragment.schema(name, schema);
    }
}

fn schemas() -> [(&'static str, Value); 4] {
    let address = text("The base address of the node's doors: `http://HOST:PORT`.");
    let topology = object(
        "Which nodes there are, and who is said to own which partition.",
        json!({
            "log": {"type": "string", "format": "uuid", "description": "The log's identity."},
            "node": text("The node that gives this answer."),
            "partition_count": integer(1, "The number of partitions, which never changes."),
            "partitioner": {
                "type": "string", "enum": [PARTITIONER],
                "description": "How a stream's partition is computed: Kafka's murmur2 over the \
                                tenant, a slash and the routing key, modulo the partition count. \
                                The routing key is the stream's name, unless its category \
                                declares another.",
            },
            "partitions": {"type": "array", "items": schema_ref("PartitionInfo"),
                           "description": "Every partition, in order."},
            "nodes": {"type": "array", "items": schema_ref("Node"),
                      "description": "The nodes that have announced themselves."},
        }),
    );
    let partition = object(
        "A partition and its owner.",
        json!({
            "partition": integer(0, "The number of the partition."),
            "owner": nullable(&schema_ref("PartitionOwner")),
        }),
    );
    let owner = object(
        "The node that is said to own a partition.",
        json!({
            "node": text("The node's name."),
            "address": address,
            "term": integer(1, "The number of the node's claim."),
        }),
    );
    let node = json!({
        "type": "object",
        "description": "A node that writes the log or follows it.",
        "properties": {
            "node": text("The node's name."),
            "address": address,
            "decides": {"type": "boolean", "description": "Whether the node takes commands."},
            "reads_record_version": integer(0, "The newest record format that the node reads."),
            "program": text("The version of the node's program."),
            "seen_at": {"type": "string", "format": "date-time",
                        "description": "When the node last reported itself, by its own clock."},
            "acknowledged": text(
                "A digest of the damage that the node's settings acknowledge; absent if they name \
                 none. A node does not own partitions while its list differs from that of the \
                 nodes that own."
            ),
        },
        "required": ["node", "address", "decides", "reads_record_version", "program",
                     "seen_at"],
    });
    [
        ("Topology", topology),
        ("PartitionInfo", partition),
        ("PartitionOwner", owner),
        ("Node", node),
    ]
}
