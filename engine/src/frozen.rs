//! A frozen stream: no commands are decided on it any more, while everything else in its partition
//! goes on.
//!
//! Two things freeze a stream: the rules of this program cannot apply a record that counts, or an
//! operator has acknowledged a damaged place whose record names the stream. A hand-over would not
//! help: the next owner would meet the same record.

use position::{Offset, Partition};
use serde::{Deserialize, Serialize};

/// A frozen stream's place in the log, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[error("the stream is frozen at offset {offset} of partition {partition}: {why}")]
pub struct Frozen {
    pub partition: Partition,
    /// The offset of the record that froze it.
    pub offset: Offset,
    pub why: FrozenBy,
}

/// What freezes a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrozenBy {
    /// The rules failed on the record; with their error text. A program with corrected rules takes
    /// the stream up again when it starts.
    Rules(String),
    /// An operator has acknowledged the place as damaged, for this reason.
    Acknowledged(String),
}

impl std::fmt::Display for FrozenBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rules(said) => write!(
                f,
                "the rules of this program cannot apply this record ({said}); start a program whose rules can"
            ),
            Self::Acknowledged(reason) => write!(
                f,
                "this place was acknowledged as damaged ({reason}); its stream stays as it is"
            ),
        }
    }
}
