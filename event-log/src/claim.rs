//! The value of a claim, as JSON: who claims, and what the first claim fixes for the whole log.
//!
//! Deliberately absent: whether the claim counts; only the headers and the chain decide that.

use std::collections::BTreeMap;

use bytes::Bytes;
use kernel::schemars::{self, JsonSchema};
use position::{ChainHash, Partition};
use serde::{Deserialize, Serialize};

/// The default idempotency window, in milliseconds: 24 hours.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// What a node states in its claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// The claiming node's name.
    pub node: String,
    /// The address at which the node listens; absent if it does not listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// For how long a command id is remembered, in milliseconds of recorded time; the first
    /// accepted claim of a partition decides.
    pub idempotency_window_ms: u64,
    /// The digest of the node's list of acknowledged places; absent for an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// Set if this claim ends a copy of a log: the source, and the heads that were copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied: Option<CopiedFrom>,
}

/// The source of a copied log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CopiedFrom {
    /// The address of the source.
    pub from: String,
    /// The chain head of every partition at the end of the copy.
    #[schemars(with = "BTreeMap<u32, String>")]
    pub heads: BTreeMap<Partition, ChainHash>,
}

impl Claim {
    /// The bytes of the claim's record.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("a claim is plain data")
            .into()
    }

    /// Reads the value of a claim; absent if it does not have this format.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}
